"How long threads of OpenMP spin while they wait"
import subprocess,sys
import pytest

def spin_count(code, **variables):
    "What the environment says after `code`"
    import os
    environment = {k: o for k,o in os.environ.items() if k not in ('GOMP_SPINCOUNT','OMP_WAIT_POLICY')} | variables
    code = f"import os\n{code}\nprint(os.environ.get('GOMP_SPINCOUNT', 'not set'))"
    return subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True).stdout.strip()

@pytest.mark.parametrize(['code','variables','expected'], [('import fashion_fastai', {}, '10000'),
    ('import fashion_fastai', dict(GOMP_SPINCOUNT='5'), '5'), ('import fashion_fastai', dict(OMP_WAIT_POLICY='ACTIVE'), 'not set'),
    ("import sys\nsys.modules['torch'] = sys\nimport fashion_fastai", {}, 'not set')], ids=['package','own count','own policy','too late'])
def test_waiting_is_short_unless_the_user_says_otherwise(code, variables, expected): assert spin_count(code, **variables) == expected

"The benches run and record what they say they measure; how fast anything is, is not for tests to say"
import json,subprocess,sys
from pathlib import Path
import pytest

pytestmark = pytest.mark.slow

BENCH = Path(__file__).parent.parent/'bench'
SMALL = ['--rounds', '1', '--height', '32', '--width', '24']

@pytest.mark.parametrize('name,options', [('loader', []), ('step', []), ('pack', ['--large', '10']), ('predict', []), ('memory', ['--short', '50', '--long', '100']),
    ('gpu', ['--device', 'cpu', '--arch', 'xresnet10', '--images', '200', '--batch-size', '32', '--workers', '1']),
    ('time_to_quality', ['--recipe', 'demo', '--overrides', 'epochs=1', '--epochs', '1'])])
def test_bench(name, options, garments, tmp_path):
    size = SMALL[:2] if name == 'time_to_quality' else SMALL
    done = subprocess.run([sys.executable, '-W', 'ignore', BENCH/f'{name}.py', garments, *size, *options, '--results', tmp_path/'results'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path/'results'/f'{name}.json').read_text())
    assert result['figures'] and all(isinstance(o['value'], float) and o['value'] == o['value'] for o in result['figures'].values())
    assert len(result['table']) > 2 and len(set(map(len, result['table']))) == 1
    assert {'torch','fastai','fashion_fastai','cpu','threads'} <= set(result['machine']) and result['data'] == 'garments'

def test_the_study_goes_on_where_it_was(garments, tmp_path):
    def study(*names):
        command = [sys.executable, '-W', 'ignore', BENCH/'what_helps.py', garments, '--only', *names, '--rounds', '1', '--stages', '32x24:1', '--test-size', '40x30', '--runs', tmp_path/'runs', '--results', tmp_path/'results']
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [o for o in done.stdout.splitlines() if ', seed ' in o],(tmp_path/'results'/'what_helps.csv').read_text().splitlines()
    trained,rows = study('basic')
    assert trained == ['basic, seed 1'] and len(rows) == 2
    trained,more = study('basic', 'progressive resizing', 'category alone', 'attributes alone')
    assert trained == ['progressive resizing, seed 1', 'category alone, seed 1', 'attributes alone, seed 1'] and more[:2] == rows and len(more) == 5
    result = json.loads((tmp_path/'results'/'what_helps.json').read_text())
    assert len(result['table']) == 5 and len(result['figures']) == 6

def test_scale(tmp_path):
    options = ['--rows', '3000', '--wide-rows', '500', '--attributes', '40', '--sketches', '2000', '--images', '2000']
    done = subprocess.run([sys.executable, '-W', 'ignore', BENCH/'scale.py', *options, '--results', tmp_path/'results'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path/'results'/'scale.json').read_text())
    assert len(result['figures']) == 5 and len(result['table']) == 6 and all(o['value'] > 0 for o in result['figures'].values())

def test_the_full_benchmark(tmp_path):
    options = ['--rows', '400', '--attributes', '40', '--files', '40', '--predicted', '20']
    done = subprocess.run([sys.executable, '-W', 'ignore', BENCH/'deepfashion.py', *options, '--results', tmp_path/'results'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path/'results'/'deepfashion.json').read_text())
    assert [o[0] for o in result['table'][1:]] == ['convert','check','train','report','predict 20 images'] and all(o['value'] > 0 for o in result['figures'].values())

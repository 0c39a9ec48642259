"An installed wheel works from any folder"
import os,shutil,subprocess,sys,sysconfig,venv
from pathlib import Path
import pytest
import pandas as pd

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent

def test_the_wheel_works_in_an_empty_folder(run, garments, tmp_path):
    # the wheel is built from the source archive, so that both are whole; nothing is fetched
    source = tmp_path/'source'
    shutil.copytree(ROOT, source, symlinks=True, ignore=shutil.ignore_patterns('.git', '.venv', '__pycache__', '*.egg-info', 'build', 'dist', 'fashion_demo', 'runs'))
    subprocess.run([sys.executable, '-m', 'build', '--no-isolation', '--outdir', tmp_path/'dist', source], check=True, capture_output=True)
    wheel, = (tmp_path/'dist').glob('*.whl')
    home = tmp_path/'venv'
    venv.create(home, with_pip=True)
    python = home/'bin'/'python'
    subprocess.run([python, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index', wheel], check=True, capture_output=True)
    # beside the tests' environment: its packages are seen, but the wheel's own come first
    site, = (home/'lib').glob('python*/site-packages')
    (site/'tests.pth').write_text(sysconfig.get_paths()['purelib'])
    empty = tmp_path/'empty'
    empty.mkdir()
    environment = {k: v for k,v in os.environ.items() if k != 'PYTHONPATH'}
    def run_cli(*words): return subprocess.run([home/'bin'/'fashion', *map(str, words)], cwd=empty, env=environment, capture_output=True, text=True, timeout=300)
    where = subprocess.run([python, '-c', 'import fashion_fastai; print(fashion_fastai.__file__)'], cwd=empty, env=environment, capture_output=True, text=True)
    assert str(site) in where.stdout
    assert 'lr-find' in run_cli('--help').stdout
    assert '48x36' in run_cli('train', '--help').stdout # the shipped settings.ini came along
    done = run_cli('predict', run, garments/'test.csv', '--out', 'out')
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(empty/'out'/'category.csv')) == 20

"The house is in order: notebooks and modules agree, notebooks are clean, the README is the index notebook's"
import filecmp,os,re,shutil,subprocess,sys
from pathlib import Path
import nbformat
import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
NOTEBOOKS = sorted(ROOT.glob('nbs/**/*.ipynb'))

@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "A copy of the notebooks and modules, exported and cleaned anew"
    copy = tmp_path_factory.mktemp('house')
    for o in ('nbs','fashion_fastai'): shutil.copytree(ROOT/o, copy/o, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'), symlinks=True)
    for o in ('pyproject.toml','requirements.txt','settings.ini'): shutil.copy(ROOT/o, copy/o)
    for o in ('nbdev-export','nbdev-clean'): subprocess.run([BIN/o], cwd=copy, check=True, capture_output=True)
    return copy

def test_an_export_changes_nothing(copy):
    modules = {o.name for o in (ROOT/'fashion_fastai').glob('*.py')}
    assert modules == {o.name for o in (copy/'fashion_fastai').glob('*.py')}
    assert [o for o in modules if not filecmp.cmp(ROOT/'fashion_fastai'/o, copy/'fashion_fastai'/o, shallow=False)] == []

def test_notebooks_are_clean(copy):
    assert NOTEBOOKS
    assert [o.name for o in NOTEBOOKS if not filecmp.cmp(o, copy/o.relative_to(ROOT), shallow=False)] == []

def test_the_readme_is_the_index_notebook(tmp_path):
    subprocess.run(['make', '-s', 'readme', '-o', '.venv/ready', f'BIN={BIN}', f'README={tmp_path/"README.md"}'], cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path/'README.md').read_text() == (ROOT/'README.md').read_text()

@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda o: o.stem)
def test_each_exported_cell_is_shown_at_work(path):
    cells = [o.source for o in nbformat.read(path, 4).cells if o.cell_type == 'code']
    for exported,following in zip(cells, cells[1:] + ['#| export']):
        if '#| export' in exported and 'def ' in exported: assert '#| export' not in following, exported[:200]

def test_modules_import_what_they_use():
    "What a visible cell imports is not there in the module"
    done = subprocess.run([BIN/'ruff', 'check', '--isolated', '--select', 'F821', *ROOT.glob('fashion_fastai/*.py')], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

def test_imports_point_one_way():
    order = ['files','splits','labels','sources','deepfashion','products','garments','images','cache','duplicates','augment','data','model','precision','loss','scores','decide','check','callbacks','regularize','logs','checkpoint','recipes','learner','interpret','charts','modelfiles','predict','uploads','runs','report','run','serve','cli']
    assert {o.stem for o in (ROOT/'fashion_fastai').glob('[a-z]*.py')} == set(order)
    for i,name in enumerate(order):
        used = re.findall(r'^\s*from (?:fashion_fastai)?\.(\w+) import', (ROOT/'fashion_fastai'/f'{name}.py').read_text(), flags=re.M)
        assert set(used) <= set(order[:i]), name
        if name == 'run': assert {'checkpoint','learner'} <= set(used) # the pattern finds what there is

def test_the_site_has_every_page():
    pages = re.findall(r'([\w/]+\.ipynb)', (ROOT/'mkdocs.yml').read_text().split('nav:')[1])
    assert sorted(pages) == sorted(str(o.relative_to(ROOT/'nbs')) for o in NOTEBOOKS)

def test_the_site_can_be_made(tmp_path):
    done = subprocess.run([BIN/'mkdocs', 'build', '--strict', '-q', '-d', tmp_path/'site'], cwd=ROOT, capture_output=True, text=True, env={**os.environ, 'NO_MKDOCS_2_WARNING': '1'})
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path/'site').rglob('*.html'))
    assert len(pages) > len(NOTEBOOKS) and (tmp_path/'site'/'tutorials'/'first_run'/'index.html').is_file()
    for o in pages: assert re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', o.read_text()) == [], o # nothing is loaded from elsewhere

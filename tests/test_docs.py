"The site: a page for each notebook, without directives and prompts, with documented arguments, loading nothing from elsewhere"
import os,re,subprocess,sys
from pathlib import Path
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = [o for o in sorted(ROOT.glob('nbs/**/*.ipynb')) if '.ipynb_checkpoints' not in o.parts]
pytestmark = pytest.mark.slow

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The folder of the site"
    folder = tmp_path_factory.mktemp('docs')/'site'
    env = {**os.environ, 'NO_MKDOCS_2_WARNING': '1', 'PYTHONWARNINGS': 'ignore'}
    mkdocs = Path(sys.executable).with_name('mkdocs')
    for command in ([sys.executable, 'docs/build.py'], [mkdocs, 'build', '--strict', '-q', '-f', '_proc/mkdocs.yml', '-d', folder]):
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder

def page_of(site, notebook):
    if notebook.stem == 'index': return site/'index.html'
    name = f'tutorials/{notebook.stem}' if notebook.parent.name == 'tutorials' else f"reference/{notebook.stem.split('_', 1)[1]}"
    return site/name/'index.html'

def test_every_notebook_has_a_page_and_is_in_the_navigation(site):
    front = (site/'index.html').read_text()
    for o in NOTEBOOKS:
        page = page_of(site, o)
        assert page.is_file(), o
        assert o.stem == 'index' or f'href="{page.parent.relative_to(site).as_posix()}/"' in front, o

def test_pages_are_free_of_directives_prompts_and_foreign_addresses(site):
    pages = [o for o in site.rglob('*.html') if o.is_file()]
    assert len(pages) > len(NOTEBOOKS)
    for o in pages:
        text = o.read_text()
        assert not re.search(r'#\||In \[|show_doc\(', re.sub(r'<[^>]+>', '', text)), o
        assert re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', text) == [], o

def test_arguments_are_documented_and_introductions_kept(site):
    text = re.sub(r'<[^>]+>', '', (site/'reference'/'data.split'/'index.html').read_text())
    assert 'stratified_split' in text and 'Details' in text and 'the same seed gives the same split' in text
    text = re.sub(r'<[^>]+>', '', (site/'reference'/'learner'/'index.html').read_text())
    assert 'FashionLearner.fit_progressive' in text
    for o in NOTEBOOKS:
        if o.name[0].isdigit(): assert len(re.sub(r'<[^>]+>', '', page_of(site, o).read_text())) > 1500, o

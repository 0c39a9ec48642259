"The site: a page for each notebook, without directives and prompts, with documented arguments, loading nothing from elsewhere"
import ast,html,os,re,subprocess,sys
from pathlib import Path
import nbformat,pytest,yaml
from filelock import FileLock

ROOT = Path(__file__).parent.parent
NOTEBOOKS = [o for o in sorted(ROOT.glob('nbs/**/*.ipynb')) if '.ipynb_checkpoints' not in o.parts]
MODULES = sorted((o for o in NOTEBOOKS if o.stem[0].isdigit()), key=lambda o: int(o.stem.split('_')[0]))
TUTORIALS = [o for o in NOTEBOOKS if o.parent.name == 'tutorials']
pytestmark = pytest.mark.slow

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The folder of the site, which processes that share the tests share, since it is built in the checkout"
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base)/'docs'
    with FileLock(f'{folder}.lock'):
        if not folder.exists(): build(folder)
    return folder

def build(folder):
    "Write the pages and build the site, strictly"
    env = {**os.environ, 'NO_MKDOCS_2_WARNING': '1', 'PYTHONWARNINGS': 'ignore'}
    mkdocs = Path(sys.executable).with_name('mkdocs')
    # without --quiet, which would hide the warnings from --strict
    for command in ([sys.executable, 'docs/build.py'], [mkdocs, 'build', '--strict', '-f', '_proc/mkdocs.yml', '-d', folder]):
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

def page_of(site, notebook):
    if notebook.stem == 'index': return site/'index.html'
    if notebook in TUTORIALS: return site/'tutorials'/f'{notebook.stem}.html'
    return site/'reference'/f"{notebook.stem.split('_', 1)[1]}.html"

def words(page):
    "The text of a page's article"
    article = re.search(r'<article.*?</article>', page.read_text(), re.S)[0]
    return html.unescape(re.sub(r'<[^>]+>', '', article))

def test_every_notebook_has_a_page_and_is_in_the_navigation(site):
    front = (site/'index.html').read_text()
    for o in NOTEBOOKS:
        page = page_of(site, o)
        assert page.is_file(), o
        assert o.stem == 'index' or f'href="{page.relative_to(site).as_posix()}"' in front, o

def test_each_package_has_one_section_and_one_line_of_the_tree(site):
    modules = [o.stem.split('_', 1)[1] for o in MODULES]
    packages = list(dict.fromkeys(o.rpartition('.')[0] or o for o in modules))
    navigation = yaml.safe_load((ROOT/'_proc'/'mkdocs.yml').read_text())['nav']
    _,*sections = next(o['Reference'] for o in navigation if 'Reference' in o)
    assert [name for o in sections for name in o] == packages
    done = subprocess.run([sys.executable, 'docs/build.py', '--tree'], cwd=ROOT, capture_output=True, text=True)
    assert re.findall(r'^\w+', done.stdout, re.M) == packages and 'conv · graphs · multitask' in done.stdout, done.stderr

def test_modules_and_tutorials_are_listed_with_their_descriptions(site):
    for name,notebooks in (('reference', MODULES), ('tutorials', TUTORIALS)):
        text = (site/name/'index.html').read_text()
        for o in notebooks: assert f'<a href="{page_of(site, o).name}">' in text, o
        assert '<td></td>' not in text

def test_the_order_of_the_tutorials_is_that_of_the_front_page(site):
    links = lambda o: re.findall(r'href="(?:tutorials/)?(\w+)\.html"', o)
    front = re.search(r'<article.*?</article>', (site/'index.html').read_text(), re.S)[0]
    listed = re.search(r'<article.*?</article>', (site/'tutorials'/'index.html').read_text(), re.S)[0]
    names = {o.stem for o in TUTORIALS}
    assert links(listed) == [o for o in links(front) if o in names]

def test_pages_are_free_of_directives_and_prompts(site):
    for o in NOTEBOOKS:
        text = words(page_of(site, o))
        assert not re.search(r'^#\| ?\w|In \[\d|Out\[\d|show_doc\(|nbdev_export\(|IPython\.core|<table', text, re.M), o

def test_hidden_cells_are_left_out(site):
    for path in NOTEBOOKS:
        text = ' '.join(words(page_of(site, path)).split())
        for o in nbformat.read(path, 4).cells:
            if o.cell_type != 'code' or '#| hide' not in o.source: continue
            source = ' '.join(line for line in o.source.splitlines() if not line.startswith('#|'))
            source = ' '.join(source.split())
            assert len(source) < 60 or source not in text, (path.name, source)

def test_questions_and_tools_have_pages_that_the_front_page_links_to(site):
    front = re.search(r'<article.*?</article>', (site/'index.html').read_text(), re.S)[0]
    for name in ('faq.html','which_tool.html'): assert f'href="{name}"' in front and len(words(site/name)) > 2000, name

def test_nothing_is_loaded_from_elsewhere(site):
    pages = list(site.rglob('*.html'))
    assert len(pages) > len(NOTEBOOKS)
    for o in pages:
        text = o.read_text()
        loaded = re.findall(r'<(?:script|img|iframe|source|video|audio|embed|object)\b[^>]*?\b(?:src|data)="([^"]+)"', text)
        loaded += re.findall(r'<link\b(?![^>]*rel="(?:prev|next|canonical)")[^>]*href="([^"]+)"', text)
        assert [a for a in loaded if re.match(r'(https?:)?//', a)] == [], o
    for o in site.rglob('*.css'):
        assert not re.search(r'@import|url\(\s*["\']?(https?:)?//', o.read_text()), o

def test_figures_and_files_of_pages_exist(site):
    for o in site.rglob('*.html'):
        if o.name == '404.html': continue
        for src in re.findall(r'<img[^>]+src="([^"]+)"', o.read_text()): assert (o.parent/src).is_file(), (o, src)

def test_every_exported_function_and_class_is_documented(site):
    for path in MODULES:
        text = page_of(site, path).read_text()
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type != 'code' or not cell.source.startswith('#| export'): continue
            for o in ast.parse(cell.source).body:
                if isinstance(o, (ast.FunctionDef,ast.ClassDef)) and o.name[0] != '_' and not o.decorator_list:
                    assert f'id="{o.name}"' in text, (path.name, o.name)

def test_arguments_are_documented_in_tables(site):
    page = site/'reference'/'data.split.html'
    text = page.read_text()
    assert text.count('<div class="arguments">') >= 5
    assert '<th>argument</th>' in text and '<th>meaning</th>' in text
    assert 'stratified_split(categories, valid_pct=0.1, seed=42, minimum=0)' in words(page)
    assert 'the same seed gives the same split' in words(page)
    page = site/'reference'/'learner.html'
    assert 'FashionLearner.fit_progressive' in words(page) and 'id="FashionLearner.fit_progressive"' in page.read_text()

def test_introductions_are_kept(site):
    for o in MODULES:
        first = nbformat.read(o, 4).cells[0].source.splitlines()
        assert first[0].lstrip('# ') in words(page_of(site, o)), o
        assert len(words(page_of(site, o))) > 600, o

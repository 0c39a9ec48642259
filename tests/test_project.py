"The project's own rules: notebooks and modules agree, imports point one way, plain language, the README is the index notebook"
import ast,filecmp,re,shutil,subprocess,sys,tokenize
from collections import defaultdict
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path
import nbformat
import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
PACKAGE = ROOT/'fashion_fastai'
NOTEBOOKS = sorted(o for o in ROOT.glob('nbs/**/*.ipynb') if '.ipynb_checkpoints' not in o.parts)
MODULES = [o for o in sorted(PACKAGE.rglob('*.py')) if o.name not in ('__init__.py','_modidx.py')]

def number_of(path): return int(re.match(r'\d+', path.name)[0])
def module_of(path): return path.relative_to(PACKAGE).with_suffix('').as_posix().replace('/', '.')

NUMBERS = {o.stem.split('_', 1)[1]: number_of(o) for o in NOTEBOOKS if o.name[0].isdigit()} # module -> number of its notebook

@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "A copy of the notebooks and modules, exported and cleaned again"
    copy = tmp_path_factory.mktemp('project')
    ignore = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
    for o in ('nbs','fashion_fastai'): shutil.copytree(ROOT/o, copy/o, ignore=ignore, symlinks=True)
    for o in ('pyproject.toml','requirements.txt','settings.ini'): shutil.copy(ROOT/o, copy/o)
    for o in ('nbdev-export','nbdev-clean'): subprocess.run([BIN/o], cwd=copy, check=True, capture_output=True)
    return copy

def test_an_export_changes_nothing(copy):
    changed = [o for o in MODULES if not filecmp.cmp(o, copy/o.relative_to(ROOT), shallow=False)]
    assert changed == []
    assert len(list((copy/'fashion_fastai').rglob('*.py'))) == len(list(PACKAGE.rglob('*.py')))

def test_notebooks_are_clean(copy):
    assert NOTEBOOKS
    assert [o.name for o in NOTEBOOKS if not filecmp.cmp(o, copy/o.relative_to(ROOT), shallow=False)] == []

def test_every_module_has_one_notebook_with_a_unique_number():
    assert sorted(NUMBERS) == sorted(map(module_of, MODULES))
    assert len(set(NUMBERS.values())) == len(NUMBERS)

IMPORT = re.compile(r'^\s*from (\.+)([\w.]*) import (.+)|^\s*from fashion_fastai\.([\w.]+) import (.+)', re.M)

def imports_of(path):
    "The modules of the package, and the names, that the module at `path` imports"
    package = module_of(path).split('.')[:-1]
    for dots,name,names,absolute,absolute_names in IMPORT.findall(path.read_text()):
        if absolute: yield absolute,absolute_names
        else:
            parent = package[:len(package) - len(dots) + 1]
            yield '.'.join([*parent, *filter(None, [name])]),names

def test_imports_point_to_lower_numbers():
    found = [(module_of(path), used) for path in MODULES for used,_ in imports_of(path)]
    for o in (('train.core', 'build'), ('data.cache', 'data.image'), ('cli.results', 'report.page')): assert o in found # the pattern finds what there is
    wrong = [(module, used) for module,used in found if used in NUMBERS and NUMBERS[used] >= NUMBERS[module]]
    assert wrong == []
    assert {used for _,used in found} <= {*NUMBERS, ''}

def package_of(module): return module.rpartition('.')[0] or module

def test_the_numbers_of_a_package_are_consecutive():
    numbers = defaultdict(list)
    for module,number in NUMBERS.items(): numbers[package_of(module)].append(number)
    assert [(package, sorted(o)) for package,o in numbers.items() if max(o) - min(o) + 1 != len(o)] == []

def test_no_package_imports_one_that_imports_it():
    imported = defaultdict(set)
    for path in MODULES:
        package = package_of(module_of(path))
        imported[package] |= {package_of(used) for used,_ in imports_of(path) if used} - {package}
    assert imported['train'] >= {'learner','predict'}
    TopologicalSorter(imported).prepare() # a CycleError names the packages of a ring

def test_no_private_name_is_imported_from_another_module():
    assert [(module_of(o), names) for o in MODULES for _,names in imports_of(o) if re.search(r'(?:^|[ ,])_[a-z]', names)] == []

def test_modules_import_what_they_use_and_use_what_they_import():
    done = subprocess.run([BIN/'ruff', 'check', '--isolated', '--select', 'F821,F401', '--exclude', '__init__.py,_modidx.py,all.py', PACKAGE],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

def packages_of(requirements): return {re.split('[<>=[]', o)[0].lower().replace('_', '-') for o in requirements}

def test_what_is_imported_is_required():
    "By requirements.txt, or by an extra other than dev"
    nodes = [o for path in MODULES for o in ast.walk(ast.parse(path.read_text()))]
    names = [alias.name for o in nodes if isinstance(o, ast.Import) for alias in o.names]
    names += [o.module for o in nodes if isinstance(o, ast.ImportFrom) and not o.level]
    imported = {o.split('.')[0] for o in names} - {*sys.stdlib_module_names, 'fashion_fastai'}
    assert {'torch','yaml','fsspec','ray'} <= imported
    extras = (ROOT/'pyproject.toml').read_text().split('[project.optional-dependencies]')[1].split('\n[')[0]
    lines = re.sub(r'^dev = \[.*?\]$', '', extras, flags=re.M | re.S)
    required = packages_of((ROOT/'requirements.txt').read_text().split()) | packages_of(re.findall('"([^"]+)"', lines))
    packages = {'faiss': ['faiss-cpu'], **packages_distributions()} # the name of a package may be another, also of one that is not installed
    assert [o for o in imported if not packages_of(packages.get(o, [o])) & required] == []

def test_image_files_are_opened_in_one_place():
    "Elsewhere Pillow would be asked for other formats than those that were checked"
    def opens(node): return isinstance(node, ast.Attribute) and node.attr == 'open' and getattr(node.value, 'id', '') in ('Image','PILImage')
    assert [module_of(o) for o in MODULES for node in ast.walk(ast.parse(o.read_text())) if opens(node)] == ['data.image']

def test_lines_are_short():
    lines = [(f'{module_of(path)}:{i}', line) for path in MODULES for i,line in enumerate(path.read_text().splitlines(), 1)]
    assert [where for where,line in lines if len(line) > 140 and 'http' not in line] == []
    assert sum(len(line) > 120 for _,line in lines) < .03*len(lines)
    scripts = [*ROOT.glob('bench/*.py'), *ROOT.glob('docs/*.py')]
    assert [o.name for o in scripts for line in o.read_text().splitlines() if len(line) > 140] == []

@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda o: o.stem)
def test_each_exported_cell_is_followed_by_an_example(path):
    cells = [o.source for o in nbformat.read(path, 4).cells if o.cell_type == 'code']
    for exported,following in zip(cells, cells[1:] + ['#| export']):
        if '#| export' in exported and 'def ' in exported: assert '#| export' not in following, exported[:200]

def code_of(path):
    "The code of a notebook, without magics"
    cells = [o.source for o in nbformat.read(path, 4).cells if o.cell_type == 'code']
    lines = [line for o in cells for line in o.splitlines()]
    return '\n'.join(re.sub(r'^(\s*)[%!].*', r'\1pass', o) for o in lines)

@pytest.mark.parametrize('path', [o for o in NOTEBOOKS if 'from fashion_fastai.all import *' in o.read_text()], ids=lambda o: o.stem)
def test_names_exist_where_all_is_imported(path):
    "Also in lines that run only with a GPU, or only with data of the user's own"
    import builtins,fashion_fastai.all as module
    nodes = list(ast.walk(ast.parse(code_of(path))))
    known = {*module.__all__, *dir(builtins), 'get_ipython', 'display'}
    for o in nodes:
        if isinstance(o, ast.Name) and not isinstance(o.ctx, ast.Load): known.add(o.id)
        if isinstance(o, (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler)): known.add(o.name)
        if isinstance(o, ast.arg): known.add(o.arg)
        if isinstance(o, ast.alias): known.add((o.asname or o.name).split('.')[0])
    assert {o.id for o in nodes if isinstance(o, ast.Name)} - known == set()

# words of no field, and old names of what has a term
DIALECT = re.compile(r"\b(house|rooms?|mends?|mended|mending|knobs?|lazy|anew|runs? away|broke down|breaks? down|photos?|photographs?|drawn garments?|"
                     r"without looking|answered unseen|as it stands|cannot be had|goes on with|go on with|lies in|lie in|whole or not at all|gone mad)\b", re.I)
def comments_and_texts(path):
    "(line number, text) of each comment and string of a Python file"
    with open(path, 'rb') as f:
        for token in tokenize.tokenize(f.readline):
            name = tokenize.tok_name[token.type]
            if name in ('COMMENT','STRING','FSTRING_MIDDLE','NAME'): yield token.start[0],token.string

def read_texts(path):
    "What users and readers see of a file, as (place, text)"
    if path.suffix == '.py': return [(f'{path.name}:{i}', o) for i,o in comments_and_texts(path)]
    if path.suffix == '.ipynb': return [(f'{path.name}, cell {i}', o.source) for i,o in enumerate(nbformat.read(path, 4).cells)]
    return [(f'{path.name}:{i}', o) for i,o in enumerate(path.read_text().splitlines(), 1)]

def test_the_language_is_plain():
    pages = [*ROOT.glob('*.md'), *ROOT.glob('bench/*.md'), *ROOT.glob('docs/*.md'), *PACKAGE.rglob('*.html'), *PACKAGE.rglob('*.css'), ROOT/'Makefile', ROOT/'settings.ini',
             ROOT/'pyproject.toml']
    files = [*pages, *MODULES, *NOTEBOOKS, *ROOT.glob('bench/*.py'), *ROOT.glob('docs/*.py')]
    texts = [(where, text) for o in files for where,text in read_texts(o)]
    assert len(texts) > 10_000
    found = [(where, match[0]) for where,text in texts for match in DIALECT.finditer(text)]
    assert found == [], found[:40]

def test_the_pattern_finds_dialect():
    for text in ('nothing to mend', 'A ROOM in the house', 'lazy answers', 'begin anew', 'a loss that runs away'): assert DIALECT.search(text)

def test_the_project_speaks_of_itself_alone():
    files = [o for o in ROOT.rglob('*') if o.suffix in ('.py','.md','.ipynb','.toml','.ini','.yml','.html','.css','.txt') or o.name == 'Makefile']
    made = {'.venv','.git','site','_proc','.hypothesis','build','dist','fashion_demo','runs'} # by commands and users
    files = [o for o in files if not made & set(o.relative_to(ROOT).parts)]
    files = [o for o in files if not any(p.endswith('.egg-info') for p in o.relative_to(ROOT).parts) and o != Path(__file__)]
    assert len(files) > 100
    for o in files:
        text = o.read_text(encoding='utf-8')
        assert not re.search(r'/work/|/tmp/wt|/root/|\.\./shared|\.library', text), o

def pictures(path):
    "The number of figures in a notebook's outputs"
    outputs = [output for cell in nbformat.read(path, 4).cells if cell.cell_type == 'code' for output in cell.outputs]
    return sum('image/png' in o.get('data', {}) for o in outputs)

def test_notebooks_have_figures():
    with_figure = {o.stem.split('_', 1)[1] for o in NOTEBOOKS if o.name[0].isdigit() and pictures(o)}
    assert len(with_figure) >= 20
    assert {'model.loss','decision.rules','callback.progressive','data.split','report.page','data.labels','callback.checkpoint'} <= with_figure

def test_tutorials_begin_with_one_import():
    for path in ROOT.glob('nbs/tutorials/*.ipynb'):
        code = '\n'.join(o.source for o in nbformat.read(path, 4).cells if o.cell_type == 'code')
        assert 'from fashion_fastai.all import *' in code, path.name

def test_the_readme_is_the_index_notebook(tmp_path):
    command = ['make', '-s', 'readme', '-o', '.venv/ready', f'BIN={BIN}', f'README={tmp_path/"README.md"}']
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path/'README.md').read_text() == (ROOT/'README.md').read_text()

def test_the_readme_is_short_and_its_ratios_are_those_of_the_records():
    text = (ROOT/'README.md').read_text()
    assert len(text.split()) <= 900
    done = subprocess.run([sys.executable, ROOT/'bench'/'record.py', '--ratios'], capture_output=True, text=True, check=True)
    table = [o for o in done.stdout.splitlines() if o.startswith('|')]
    assert len(table) == 2 + 6
    for line in table: assert line in text, line
    for o in re.findall(r'\]\(((?!http)[^)#]+)\)', text): assert (ROOT/o).exists(), o

def test_the_bench_page_is_that_of_the_records():
    command = [sys.executable, '-c', 'import record; print(record.page(), end="")']
    done = subprocess.run(command, cwd=ROOT/'bench', capture_output=True, text=True, check=True)
    assert done.stdout == (ROOT/'bench'/'README.md').read_text()
    for name in re.findall(r'`(bench/\w+\.py)`', done.stdout): assert (ROOT/name).exists(), name
    tables = re.findall(r'(?:^\|.*\n)+', done.stdout, re.M)
    assert tables and all(o.count('\n') > 2 for o in tables), 'a table without rows'

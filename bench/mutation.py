"""Which single changes of the exported code do the notebooks and the tests notice? A change survives if nothing fails

Drawn at random: a comparison, an operator, a number, a condition or a returned value. Each is made in a copy of the project; the
module's own notebook runs, then the tests that belong to the changed function, the closest first. The first failure, or a timeout, ends
the trial. A trial is a fork of a process that has imported everything but the project. (mutmut and cosmic-ray change files and run a test
command, with five seconds of imports for each change, and do not change the definitions in a notebook's own cells.)"""
import argparse,ast,csv,gc,hashlib,importlib,json,os,random,re,shutil,signal,subprocess,sys,tempfile,time
from collections import Counter
from contextlib import contextmanager,suppress
from dataclasses import asdict,dataclass,fields
from functools import partial
from itertools import chain,islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = 'metrics','decision','data','convert','outputs','predict','train'
# files of tests that take seconds, and neither train for long nor start other processes
QUICK = ('augment','cache','cards','cluster','convert','decision','drawings','duplicates','files','folders','formats','images',
    'loader','metrics','pace','predict','ranking','recipes','score','sources','spellings','split','strangers','suspects','tables')
# files whose tests need another environment or the whole project, or listen on a port
ELSEWHERE = 'accessibility','api','app','bench','docs','gpu','lock','mutation','project','serving','tutorials','uploads','wheel'
NO_RESULT = ROOT/'bench'/'results'/'mutation_no_result.csv' # survivors that change no result, with the reason, found by hand

@dataclass(frozen=True)
class Change:
    "Lines `before` of a module, from line `line` on, which become `after`"
    module:str
    function:str # outermost function, or method, that holds the change; '' for the level of the module or of a class
    kind:str
    line:int
    before:str
    after:str

    @property
    def path(self): return Path('fashion_fastai', *self.module.split('.')).with_suffix('.py')
    @property
    def package(self): return self.module.split('.')[0]
    @property
    def key(self): return self.module,self.before,self.after
    def __str__(self): return f'{self.path}:{self.line} {self.kind}\n  - {self.before.strip()}\n  + {self.after.strip()}'

COMPARISONS = {ast.Lt: ('<','<='), ast.LtE: ('<=','<'), ast.Gt: ('>','>='), ast.GtE: ('>=','>'), ast.Eq: ('==','!='),
    ast.NotEq: ('!=','=='), ast.Is: ('is','is not'), ast.IsNot: ('is not','is'), ast.In: ('in','not in'), ast.NotIn: ('not in','in')}
OPERATORS = {ast.Add: ('+','-'), ast.Sub: ('-','+'), ast.Mult: ('*','/'), ast.Div: ('/','*'), ast.FloorDiv: ('//','/'),
    ast.Mod: ('%','*'), ast.Pow: ('**','*'), ast.BitAnd: ('&','|'), ast.BitOr: ('|','&'), ast.BitXor: ('^','&'), 
    ast.LShift: ('<<','>>'), ast.RShift: ('>>','<<'), ast.And: ('and','or'), ast.Or: ('or','and')}
UNARY = {ast.Not: 'not', ast.USub: '-', ast.Invert: '~'}
LOOKS = {'ax','axs','axes','plt','fig'}

class _Changes(ast.NodeVisitor):
    "Collects every change of a module's source, except those of messages, type hints, decorators and the looks of plots"
    def __init__(self, module, source):
        self.module,self.source,self.lines,self.names,self.changes = module,source.encode(),source.split('\n'),[],[]
        self.starts = [0]
        for o in self.lines: self.starts.append(self.starts[-1] + len(o.encode()) + 1)
        self.visit(ast.parse(source))

    def _start(self, node): return self.starts[node.lineno-1] + node.col_offset
    def _end(self, node): return self.starts[node.end_lineno-1] + node.end_col_offset

    def _add(self, kind, start, end, text):
        changed = self.source[:start] + text.encode() + self.source[end:]
        first,last = self.source[:start].count(b'\n'),self.source[:end].count(b'\n')
        n_after = text.count('\n') + 1
        after = changed.decode().split('\n')[first:first + n_after]
        where = self.names[0][1] if self.names else ''
        self.changes.append(Change(self.module, where, kind, first + 1, '\n'.join(self.lines[first:last + 1]), '\n'.join(after)))

    def _replace(self, kind, node, text): self._add(kind, self._start(node), self._end(node), text)
    def _text(self, node): return self.source[self._start(node):self._end(node)].decode()

    def _swap(self, kind, left, right, tokens):
        "Change the operator between two operands"
        old,new = tokens
        start = self.source.find(old.encode(), self._end(left), self._start(right))
        if start >= 0: self._add(kind, start, start + len(old), new)

    def _negate(self, test): self._replace('condition', test, f'not ({self._text(test)})')

    def _function(self, node):
        prefix = ''.join(f'{o}.' for o in self.classes)
        self.names.append((node, prefix + node.name))
        for o in (*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body): self.visit(o)
        self.names.pop()

    classes = ()
    visit_FunctionDef = visit_AsyncFunctionDef = _function
    def visit_ClassDef(self, node):
        outer,self.classes = self.classes,(*self.classes, node.name)
        for o in node.body: self.visit(o)
        self.classes = outer
    def visit_AnnAssign(self, node):
        if node.value: self.visit(node.value)
    def visit_Assign(self, node):
        if '__all__' not in map(self._text, node.targets): self.generic_visit(node)
    def visit_Raise(self, node): pass
    def visit_JoinedStr(self, node): pass
    def visit_keyword(self, node):
        if node.arg != 'figsize': self.generic_visit(node)
    def visit_Call(self, node):
        name = self._text(node.func)
        if name.split('.')[0] in LOOKS or name.split('.')[-1] in ('print','warn'): return
        self.generic_visit(node)

    def visit_Compare(self, node):
        operands = [node.left, *node.comparators]
        for op,left,right in zip(node.ops, operands, operands[1:]): self._swap('comparison', left, right, COMPARISONS[type(op)])
        self.generic_visit(node)
    def visit_BinOp(self, node):
        is_text = isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant)
        if type(node.op) in OPERATORS and not is_text: self._swap('operator', node.left, node.right, OPERATORS[type(node.op)])
        self.generic_visit(node)
    def visit_AugAssign(self, node):
        if type(node.op) in OPERATORS: self._swap('operator', node.target, node.value, OPERATORS[type(node.op)])
        self.generic_visit(node)
    def visit_BoolOp(self, node):
        for left,right in zip(node.values, node.values[1:]): self._swap('operator', left, right, OPERATORS[type(node.op)])
        self.generic_visit(node)
    def visit_UnaryOp(self, node):
        if type(node.op) in UNARY: self._add('operator', self._start(node), self._start(node.operand), '')
        self.generic_visit(node)
    def visit_Constant(self, node):
        value = node.value
        if isinstance(value, bool): self._replace('constant', node, str(not value))
        elif isinstance(value, int): self._replace('constant', node, str(value + random.Random(self._start(node)).choice([-1, 1])))
        elif isinstance(value, float): self._replace('constant', node, str(value*2 or 1.))
    def visit_Return(self, node):
        if node.value and self._text(node.value) != 'None': self._replace('returned value', node.value, 'None')
        self.generic_visit(node)
    def visit_If(self, node):
        self._negate(node.test)
        self.generic_visit(node)
    visit_IfExp = visit_While = visit_If
    def visit_comprehension(self, node):
        for o in node.ifs: self._negate(o)
        self.generic_visit(node)

def changes_of(module):
    "Every change of a module of the project"
    path = ROOT/Path('fashion_fastai', *module.split('.')).with_suffix('.py')
    return _Changes(module, path.read_text(encoding='utf-8')).changes

def modules_of(packages):
    "The modules of some packages, in alphabetical order"
    paths = [o for name in packages for o in (ROOT/'fashion_fastai').glob(f'{name}.py')]
    paths += [o for name in packages for o in (ROOT/'fashion_fastai'/name).glob('*.py') if o.stem != '__init__']
    return sorted('.'.join(o.relative_to(ROOT/'fashion_fastai').with_suffix('').parts) for o in paths)

def draw(n, seed, packages=PACKAGES):
    "`n` changes at random, each equally likely"
    changes = [o for module in modules_of(packages) for o in changes_of(module)]
    random.Random(seed).shuffle(changes)
    return list(islice((o for o in changes if compiles(o)), n))

def compiles(change):
    "Whether the changed module is still Python"
    lines = (ROOT/change.path).read_text(encoding='utf-8').split('\n')
    lines[change.line - 1:change.line + change.before.count('\n')] = change.after.split('\n')
    with suppress(SyntaxError): return bool(compile('\n'.join(lines), change.module, 'exec', dont_inherit=True))
    return False

def replacement(module, old, new):
    "The change of the only place of a module at which `old` stands"
    path = ROOT/Path('fashion_fastai', *module.split('.')).with_suffix('.py')
    source = path.read_text(encoding='utf-8')
    if source.count(old) != 1: sys.exit(f'{path.name}: "{old}" stands there {source.count(old)} times, not once')
    first = source[:source.index(old)].count('\n')
    last = first + old.count('\n')
    before = '\n'.join(source.split('\n')[first:last + 1])
    spans = [(o.lineno, o.end_lineno, o.name) for o in ast.walk(ast.parse(source)) if isinstance(o, ast.FunctionDef)]
    function = next((name for start,end,name in spans if start <= first + 1 <= end), '')
    return Change(module, function, 'given', first + 1, before, before.replace(old, new))

def again(row):
    "The change of a row of the log, wherever its lines are now"
    change = Change(*(row[o.name] for o in fields(Change)))
    lines = (ROOT/change.path).read_text(encoding='utf-8').split('\n')
    is_there = '\n'.join(lines[change.line - 1:change.line + change.before.count('\n')]) == change.before
    return change if is_there else replacement(change.module, change.before, change.after)

def notebook_of(module): return next(o for o in ROOT.glob('nbs/*.ipynb') if o.stem.partition('_')[2] == module)

def copy_project(folder):
    "What notebooks and tests read of the project"
    ignore = shutil.ignore_patterns('.git', '.venv', 'site', '_proc', '.ipynb_checkpoints', '.hypothesis', '.pytest_cache')
    shutil.copytree(ROOT, folder, ignore=ignore, symlinks=True)
    return folder

def apply(change, copy):
    "Make the change in a copy of the project: in the module and in the cell of the notebook from which it was exported"
    path = copy/change.path
    lines = path.read_text(encoding='utf-8').split('\n')
    before,first = change.before.split('\n'),change.line - 1
    assert lines[first:first + len(before)] == before, change
    headers = [i for i,o in enumerate(lines) if o.startswith('# %%')] + [len(lines)]
    header = max(o for o in headers if o <= first)
    end = min(o for o in headers if o > first)
    while not lines[end-1].strip(): end -= 1
    cell_id,from_end = lines[header].rpartition('#')[2],end - first
    lines[first:first + len(before)] = change.after.split('\n')
    path.write_text('\n'.join(lines), encoding='utf-8')
    notebook = copy/'nbs'/notebook_of(change.module).name
    content = json.loads(notebook.read_text(encoding='utf-8'))
    cell = next(o for o in content['cells'] if o.get('id') == cell_id)
    source = ''.join(cell['source']).rstrip('\n').split('\n')
    start = len(source) - from_end
    assert source[start:start + len(before)] == before, (change, source)
    source[start:start + len(before)] = change.after.split('\n')
    cell['source'] = '\n'.join(source)
    notebook.write_text(json.dumps(content), encoding='utf-8')

@contextmanager
def changed(change, copy):
    "Inside the block, `copy` has the change"
    files = copy/change.path,copy/'nbs'/notebook_of(change.module).name
    before = [o.read_bytes() for o in files]
    apply(change, copy)
    try: yield copy
    finally:
        for path,raw in zip(files, before): path.write_bytes(raw)

def in_fork(work, copy, seconds):
    "(what `work` returns in a fork of this process that imports the project from `copy`, or None; whether it took longer than `seconds`)"
    answer = copy.parent/'answer.json'
    answer.unlink(missing_ok=True)
    pid = os.fork()
    if not pid:
        try:
            os.setsid()
            with open(copy.parent/'output.txt', 'wb') as f: [os.dup2(f.fileno(), o) for o in (1, 2)]
            with open(os.devnull) as f: os.dup2(f.fileno(), 0)
            os.chdir(copy)
            os.environ.update(PYTHONPATH=str(copy), XDG_CACHE_HOME=str(copy.parent/'cache'), PYTHONDONTWRITEBYTECODE='1', MPLBACKEND='agg')
            sys.dont_write_bytecode = True
            sys.path[:] = [str(copy), *(o for o in sys.path if Path(o).resolve() not in (ROOT, ROOT/'bench'))]
            sys.modules['__main__'].__dict__.pop('__file__', None) # processes that it starts need not read this file
            result = work(copy)
            answer.write_text(json.dumps(result))
        finally: os._exit(0)
    end,late = time.monotonic() + seconds,False
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        late = time.monotonic() > end
        if late: break
        time.sleep(.05)
    with suppress(ProcessLookupError): os.killpg(pid, signal.SIGKILL)
    if late: os.waitpid(pid, 0)
    return json.loads(answer.read_text()) if answer.exists() else None,late

def run_notebook(name):
    def work(copy):
        from nbdev import test
        test.CaptureShell = partial(test.CaptureShell, mpl_format=None) # figures need not be rendered
        return '' if test.test_nb(copy/'nbs'/name)[0] else name
    return work

class Forking:
    "A plugin of pytest: commands are forked from the tests themselves, without the server that imports for seconds"
    def pytest_collection_finish(self, session):
        if forked := sys.modules.get('forked'): forked.Forked = partial(forked.Forked, start='fork')

class FirstFailure(Forking):
    "Keeps the name of the first test that fails; begins no test after some seconds of processor time"
    failed = None
    def __init__(self, seconds): self.end = time.process_time() + seconds
    def pytest_runtest_logfinish(self, nodeid, location):
        if time.process_time() > self.end: self.session.shouldstop = 'late'
    def pytest_sessionstart(self, session): self.session = session
    def pytest_runtest_logreport(self, report):
        if report.failed and not self.failed: self.failed = report.nodeid
    def pytest_collectreport(self, report):
        if report.failed and not self.failed: self.failed = report.nodeid

PYTEST = '-q','-x','-p','no:cacheprovider','-p','no:xdist','-W','ignore','--tb=line'

def run_tests(names, seconds):
    def work(copy):
        import pytest
        first = FirstFailure(seconds)
        code = pytest.main([*PYTEST, '-m', 'not soak', *names], plugins=[first])
        return first.failed or ('' if code in (0, 2, 5) else str(int(code)))
    return work

def _mentioned(node):
    "Names, attributes, arguments and words in quotes of some code"
    names = set()
    for o in ast.walk(node):
        if isinstance(o, ast.Name): names.add(o.id)
        elif isinstance(o, ast.Attribute): names.add(o.attr)
        elif isinstance(o, ast.arg): names.add(o.arg)
        elif isinstance(o, ast.Constant) and isinstance(o.value, str): names.add(o.value)
    return names

def _defined(node):
    "Names that a statement at the top level of a file defines"
    if hasattr(node, 'name'): return {node.name}
    return {o.id for o in ast.walk(node) if isinstance(o, ast.Name) and isinstance(o.ctx, ast.Store)}

def _definitions(path):
    "Name -> what its definition mentions, of the top level of a file"
    found = {}
    for o in ast.parse(path.read_text(encoding='utf-8')).body:
        for name in _defined(o): found[name] = _mentioned(o)
    return found

def all_files():
    "The names of all files of tests that can run here"
    return sorted({o.stem.removeprefix('test_') for o in (ROOT/'tests').glob('test_*.py')} - {*ELSEWHERE})

class Tests:
    "Which tests belong to a change: those that mention the function, then those that mention a function that mentions it, …"
    def __init__(self, root, files=QUICK):
        self.root,self.mentions,self.tests = root,{},{}
        for path in (root/'fashion_fastai').rglob('*.py'):
            for name,o in _definitions(path).items(): self.mentions.setdefault(name, set()).update(o)
        for name in files:
            here = _definitions(root/'tests'/f'test_{name}.py')
            for test in here:
                if not test.startswith('test_') or 'soak' in here[test] or (files == QUICK and 'slow' in here[test]): continue
                reached,new = set(),{test}
                while new: # through helpers and fixtures of the file
                    reached |= new
                    new = {o for known in new for o in here.get(known, ())} - reached
                self.tests[f'tests/test_{name}.py::{test}'] = reached

    def distances(self, names, farthest=7):
        "Name -> how many mentions lie between it and `names`"
        found,new = dict.fromkeys(names, 0),set(names)
        for i in range(1, farthest):
            new = {name for name,o in self.mentions.items() if name not in found and o & new}
            found |= dict.fromkeys(new, i)
        return found

    def of(self, change, n):
        "At most `n` tests, the closest first"
        names = {change.function.split('.')[0]}
        if not change.function:
            body = ast.parse((self.root/change.path).read_text(encoding='utf-8')).body
            node = next(o for o in body if o.lineno <= change.line <= o.end_lineno)
            names = _defined(node)
        distances = self.distances(names)
        ranks = {test: min((distances[o] for o in reached if o in distances), default=None) for test,reached in self.tests.items()}
        by_rank = sorted((o for o,rank in ranks.items() if rank is not None), key=ranks.get)
        likeness = self.likeness(' '.join([change.function, change.before, *self.mentions.get(change.function.split('.')[0], ())]))
        by_likeness = sorted(likeness, key=lambda o: -likeness[o])
        return list(dict.fromkeys(chain(*zip(by_rank, by_likeness))))[:n] if by_rank else by_likeness[:n]

    def likeness(self, text):
        "Test -> words in common with `text`, each divided by the number of tests that have it, over the root of the test's words"
        def words(text): return set(re.findall('(?<![a-z])[a-z]{3,6}', text.lower())) # their beginnings: diverged, divergence
        of_tests = {test: words(' '.join([test.rpartition('::')[2], *reached])) for test,reached in self.tests.items()}
        counts,about = Counter(chain(*of_tests.values())),words(text)
        return {test: sum(1/counts[o] for o in about & own)/(len(own) or 1)**.5 for test,own in of_tests.items()}

class Baseline:
    "Seconds that each notebook takes without a change, kept in a file by its text; and the tests"
    def __init__(self, path, copy, files=QUICK):
        self.path,self.copy,self.tests = path,copy,Tests(copy, files)
        self.kept = json.loads(path.read_text()) if path.exists() else {}

    def _get(self, path, work, seconds):
        key = f'{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}'
        if key not in self.kept:
            start = time.monotonic()
            result,late = in_fork(work, self.copy, seconds)
            if result is None or result == path.name:
                print((self.copy.parent/'output.txt').read_text()[-3000:])
                sys.exit(f'{path.name}: {"takes too long" if late else "fails"} without any change')
            taken = time.monotonic() - start
            print(f'{path.name}: {taken:.0f} s without a change', flush=True)
            self.kept = {o: v for o,v in self.kept.items() if o.split()[0] != path.name} | {key: taken}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.kept))
        return self.kept[key]

    def first_failure(self, tests):
        "Of some tests, the first that fails without a change; '' if all pass"
        return in_fork(run_tests(tests, 1e9), self.copy, 1800)[0] if tests else ''

    def notebook(self, name): return self._get(self.copy/'nbs'/name, run_notebook(name), 900)

def trial(change, baseline, n_tests, seconds, keep=None):
    "By what the change is noticed: a notebook, a test, 'timeout', or '' if by nothing"
    copy,notebook = baseline.copy,notebook_of(change.module).name
    of_notebook,names = baseline.notebook(notebook),baseline.tests.of(change, n_tests)
    works = [(run_notebook(notebook), of_notebook*4), *([(run_tests(names, seconds), seconds*8)] if names else [])]
    for work,limit in works if of_notebook < 15 else reversed(works):
        with changed(change, copy): by,late = in_fork(work, copy, limit + 120)
        if keep: shutil.copy(copy.parent/'output.txt', keep)
        if late: return 'timeout'
        if by != '': return by or 'ended'
    return ''

def preload():
    "Import all that the project imports, but not the project"
    code = ("import sys,importlib,pkgutil,fashion_fastai\n"
            "for o in pkgutil.walk_packages(fashion_fastai.__path__, 'fashion_fastai.'):\n"
            "    try: importlib.import_module(o.name)\n"
            "    except ImportError: pass\n"
            "import pytest,hypothesis,nbdev.test,matplotlib.pyplot,matplotlib_inline.backend_inline,sklearn.metrics\n"
            "print(' '.join(o for o in sys.modules if not o.startswith('fashion_fastai')))")
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=ROOT, capture_output=True, text=True, check=True)
    for o in done.stdout.splitlines()[-1].split():
        if o != '__main__':
            with suppress(Exception): importlib.import_module(o)
    assert not [o for o in sys.modules if o.split('.')[0] == 'fashion_fastai']
    gc.collect()
    gc.freeze() # a fork need not look through all that was imported

def no_result():
    "Changes known to change no result -> the reason"
    if not NO_RESULT.exists(): return {}
    with open(NO_RESULT, encoding='utf-8', newline='') as f:
        return {(o['module'], o['before'], o['after']): o['reason'] for o in csv.DictReader(f)}

def summary(rows):
    "(table, figures) of trials: what was noticed, by package"
    harmless = no_result()
    def key(row): return row['module'],row['before'].strip(),row['after'].strip()
    counts = {o: Counter() for o in PACKAGES}
    for row in rows:
        count = counts[row['module'].split('.')[0]]
        count['tried'] += 1
        count['noticed'] += bool(row['by'])
        count['notebook'] += row['by'].endswith('.ipynb')
        count['no result'] += not row['by'] and key(row) in harmless
    table = [['package','changes','noticed','by the notebook','not, but changes no result','not']]
    for name,o in counts.items():
        table.append([name, o['tried'], o['noticed'], o['notebook'], o['no result'], o['tried'] - o['noticed'] - o['no result']])
    total = sum(counts.values(), Counter())
    with_result = total['tried'] - total['no result']
    return table,{'share noticed of the changes that change a result': (total['noticed']/max(with_result, 1), .95)}

def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('-n', type=int, default=100, help='number of changes (default: 100)')
    parser.add_argument('--seed', type=int, default=1, help='of the draw (default: 1)')
    parser.add_argument('--packages', nargs='+', default=PACKAGES, help='of which the code is changed')
    parser.add_argument('--replace', nargs=3, metavar=('MODULE','OLD','NEW'), action='append',
        help='try this change in place of random ones')
    parser.add_argument('--again', action='store_true',
        help='try again what survived in the log, with tests that train or start processes, too')
    parser.add_argument('--tests', type=int, default=12, help='at most, the closest ones (default: 12)')
    parser.add_argument('--seconds', type=float, default=5, help='of processor time after which no other test begins (default: 5)')
    parser.add_argument('--log', type=Path, default=ROOT/'.venv'/'cache'/'mutation.jsonl',
        help='where each trial is kept; those of this seed are not repeated')
    parser.add_argument('--list', action='store_true', help='print the changes, and try none')
    parser.add_argument('--save', action='store_true', help='write the record of all trials in the log to bench/results/, without others')
    parser.add_argument('--output', type=Path, help='file for what the last trial printed')
    args = parser.parse_args()
    if args.save:
        from record import RESULTS,save
        trials = map(json.loads, args.log.read_text().splitlines())
        rows = list({(o['module'], o['before'], o['after']): o for o in trials}.values()) # the last trial of each change
        table,figures = summary(rows)
        return save('mutation', argparse.Namespace(data='changes of the exported code', rounds=1, results=RESULTS), table, figures)
    rows = [json.loads(o) for o in args.log.read_text().splitlines()] if args.log.exists() else []
    changes = [replacement(*o) for o in args.replace] if args.replace else draw(args.n, args.seed, args.packages)
    if args.list: sys.exit(print('\n'.join(map(str, changes))))
    rows = [o for o in rows if o['seed'] == args.seed]
    if args.again: changes = [again(o) for o in rows if not o['by']]
    elif not args.replace:
        tried = {(o['module'], o['before'], o['after']) for o in rows}
        changes = [o for o in changes if o.key not in tried]
    preload()
    with tempfile.TemporaryDirectory() as tmp:
        files = all_files() if args.again or args.replace else QUICK
        baseline = Baseline(args.log.parent/'mutation_baseline.json', copy_project(Path(tmp)/'project'), files)
        for i,change in enumerate(changes, 1):
            start = time.monotonic()
            by = trial(change, baseline, args.tests, args.seconds, args.output)
            taken = time.monotonic() - start
            print(f"{i} of {len(changes)}, {taken:.0f} s: {'noticed by ' + by if by else 'SURVIVED'}\n{change}", flush=True)
            if args.replace: continue
            rows = [o for o in rows if (o['module'], o['before'], o['after']) != change.key]
            rows.append(asdict(change) | dict(seed=args.seed, by=by, seconds=round(taken, 1)))
            args.log.parent.mkdir(parents=True, exist_ok=True)
            with open(args.log, 'a') as f: f.write(json.dumps(rows[-1]) + '\n')
        wrong = baseline.first_failure(sorted({o['by'] for o in rows if '::' in o['by']}))
        if wrong: sys.exit(f'{wrong} fails without a change')
    table,figures = summary(rows)
    for row in table: print('  '.join(str(o).rjust(14) for o in row))
    for what,(value,least) in figures.items(): print(f'{what}: {value:.3f} (required: {least})')

if __name__ == '__main__': main()

"Defaults of public functions and public constants, which users rely on: a change is made on purpose, by `python tests/test_defaults.py`"
import importlib,inspect,pkgutil
from pathlib import Path
import fashion_fastai

EXPECTED = Path(__file__).with_name('defaults.txt')
SIMPLE = int,float,bool,str,bytes,tuple,list,dict,set,frozenset,type(None)

def is_simple(value):
    "Whether a value looks the same everywhere"
    if isinstance(value, dict): return all(map(is_simple, [*value, *value.values()]))
    if isinstance(value, (tuple,list,set,frozenset)): return all(map(is_simple, value))
    return isinstance(value, SIMPLE)

def shown(value):
    if isinstance(value, (set,frozenset)): return f"{{{', '.join(sorted(map(repr, value)))}}}"
    return repr(float(f'{value:.12g}')) if isinstance(value, float) else repr(value)

def defaults():
    "A line for each public constant, and for each public function or class with defaults"
    lines = set()
    for o in pkgutil.walk_packages(fashion_fastai.__path__, 'fashion_fastai.'):
        module = o.name.removeprefix('fashion_fastai.')
        if o.ispkg or module.split('.')[0] in ('all','cli','serve'): continue # serve needs packages of its own
        loaded = importlib.import_module(o.name)
        for name in getattr(loaded, '__all__', []):
            value = getattr(loaded, name)
            if callable(value):
                try: parameters = inspect.signature(value).parameters.values()
                except (TypeError,ValueError): continue
                found = [f'{p.name}={shown(p.default)}' for p in parameters if p.default is not p.empty and is_simple(p.default)]
                if found: lines.add(f"{module}.{name}({', '.join(found)})")
            elif is_simple(value): lines.add(f'{module}.{name} = {shown(value)}')
    return sorted(lines)

def test_defaults_are_those_that_users_know():
    assert defaults() == EXPECTED.read_text(encoding='utf-8').splitlines()

if __name__ == '__main__': EXPECTED.write_text('\n'.join(defaults()) + '\n', encoding='utf-8')

"Changes of the code that are tried on notebooks and tests: what is changed, and where"
import ast,sys
from collections import Counter
from pathlib import Path
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent/'bench'))
import mutation

SOURCE = '''
"A module of 1 line"
__all__ = ['f', 1]
SIZE:int = 3 # in pixels
def f(
    a:int|None=5, # number
)->int|None:
    "Returns 3 == 3"
    if a < 1 or not a: raise ValueError(f"{a+1} is {a} - 1", a == 1)
    ax.plot(a + 1)
    b = [o*2 for o in range(a) if o]
    print(a - 1)
    return -a if a is None else b
class C:
    def g(self): return self.x & 1
'''

def changes(source): return mutation._Changes('data.files', source).changes

def test_each_comparison_operator_number_condition_and_result_is_changed_once():
    found = changes(SOURCE)
    assert Counter(o.kind for o in found) == {'constant': 5, 'comparison': 2, 'operator': 5, 'condition': 3, 'returned value': 2}
    after = [o.after.strip() for o in found]
    assert {'SIZE:int = 4 # in pixels', 'SIZE:int = 2 # in pixels'} & set(after)
    for expected in ('if a <= 1 or not a:', 'if a < 1 and not a:', 'if a < 1 or a:', 'if not (a < 1 or not a):', 'b = [o/2 for o in range(a) if o]',
            'b = [o*2 for o in range(a) if not (o)]', 'return a if a is None else b', 'return -a if a is not None else b', 'return -a if not (a is None) else b', 'return None',
            'def g(self): return None', 'def g(self): return self.x | 1'):
        assert any(o.startswith(expected) for o in after), expected
    assert {o.function for o in found} == {'','f','C.g'} and {o.line for o in found} == {4,6,9,11,13,15}

def test_text_hints_messages_decorators_and_plots_stay():
    assert changes('@cache(3)\ndef f(x:int|str)->int|str: ...\nax.plot(1 + 2)\nprint(1)\nwarn(2)\nplot(figsize=(2,3))\nfigure(size="%d" % x)\n') == []

def test_a_draw_is_that_of_its_seed_and_only_of_python():
    drawn = mutation.draw(40, 1, ['metrics','outputs'])
    assert drawn == mutation.draw(60, 1, ['metrics','outputs'])[:40] != mutation.draw(40, 2, ['metrics','outputs'])
    assert len({o.key for o in drawn}) > 30 and {o.module.split('.')[0] for o in drawn} == {'metrics','outputs'}
    for o in drawn: assert mutation.compiles(o) and o.before != o.after

def test_a_change_is_made_in_the_module_and_in_its_notebook_and_taken_back(tmp_path):
    copy = mutation.copy_project(tmp_path/'copy')
    change = mutation.replacement('convert.core', "('val', 1/9)", "('val', 2/9)")
    module,notebook = copy/change.path,copy/'nbs'/mutation.notebook_of('convert.core').name
    before = module.read_bytes(),notebook.read_bytes()
    with mutation.changed(change, copy):
        assert "('val', 2/9)" in module.read_text() and "('val', 1/9)" not in module.read_text() + notebook.read_text()
        ast.parse(module.read_text())
    assert (module.read_bytes(), notebook.read_bytes()) == before
    assert (change.function, change.kind) == ('random_splits', 'given')
    with pytest.raises(SystemExit, match='not once'): mutation.replacement('convert.core', 'return', 'pass')

def test_the_closest_tests_come_first():
    tests = mutation.Tests(mutation.ROOT)
    def names(module, old, new, n): return [o.split('::')[1] for o in tests.of(mutation.replacement(module, old, new), n)]
    assert 'test_random_splits_are_eight_one_and_one_tenths_of_every_category' in names('convert.core', "('val', 1/9)", "('val', 2/9)", 3)
    assert names('train.search', 'MAX_EPOCHS = 100', 'MAX_EPOCHS = 99', 1) and len(names('data.table', 'INVALID = 2 #', 'INVALID = 3 #', 12)) == 12

def test_the_share_is_of_the_changes_that_change_a_result(monkeypatch):
    def row(module, by, before='a'): return dict(module=module, by=by, before=before, after='b')
    rows = [row('metrics', '03_metrics.ipynb')]*2 + [row('data.files', 'tests/test_files.py::test_x'), row('data.files', 'timeout'), row('data.files', ''), row('metrics', '', 'known')]
    monkeypatch.setattr(mutation, 'no_result', lambda: {('metrics', 'known', 'b'): 'a faster way'})
    table,figures = mutation.summary(rows)
    assert table[1] == ['metrics', 3, 2, 2, 1, 0] and table[3] == ['data', 3, 2, 0, 0, 1]
    assert list(figures.values()) == [(.8, .95)]

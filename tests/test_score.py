"Scoring a submission: equal to the definition on random labels, with holes; the command's words and exit codes"
import math,re
import numpy as np,pandas as pd
import pytest
from hypothesis import given,settings,strategies as st
from conftest import refused,run_cli,run_inprocess
from fashion_fastai.core import InputError
from fashion_fastai.outputs.score import compare_rows,score_submission,submission_scores

def write(folder, categories, attributes, predicted, sets, order, compact=False):
    "Labels and a submission in another order; -1 is an empty cell"
    names = [f'images/{i}.jpg' for i in range(len(categories))]
    def cells(values): return ['' if o < 0 else str(o) for o in values]
    labels = dict(file_path=names, category_label=cells(categories))
    def indices(rows): return [' '.join(map(str, np.flatnonzero(o == 1))) for o in rows]
    if compact: labels['attribute_label'] = indices(attributes)
    else: labels |= {f'a{k}': cells(o) for k,o in enumerate(attributes.T)}
    pd.DataFrame(labels).to_csv(folder/'labels.csv', index=False)
    (folder/'out').mkdir(exist_ok=True)
    frame = pd.DataFrame(dict(file_path=names, category_label=predicted, attribute_label=indices(sets))).iloc[order]
    for o in ('category','attribute'): frame[['file_path',f'{o}_label']].to_csv(folder/'out'/f'{o}.csv', index=False)
    return folder/'labels.csv',folder/'out'

def defined_scores(categories, attributes, predicted, sets):
    "Both scores by loops over images and cells"
    right = [p == t for p,t in zip(predicted, categories) if t >= 0]
    f1 = []
    for row,own in zip(attributes, sets):
        true = {k for k,o in enumerate(row) if o == 1}
        said = {k for k,o in enumerate(own) if o == 1 and row[k] >= 0}
        if (row >= 0).any(): f1.append(2*len(true & said)/(len(true) + len(said)) if true or said else 1.)
    return [sum(o)/len(o) if o else math.nan for o in (right, f1)]

@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 2**32-1), st.booleans())
def test_scores_are_their_definition(tmp_path_factory, n, n_attributes, seed, has_holes):
    rng = np.random.default_rng(seed)
    categories,predicted = rng.integers(-has_holes, 3, n),rng.integers(0, 3, n)
    attributes,sets = rng.integers(-has_holes, 2, (n,n_attributes)),rng.integers(0, 2, (n,n_attributes))
    folder = tmp_path_factory.mktemp('score')
    paths = write(folder, categories, attributes, predicted, sets, rng.permutation(n))
    found = score_submission(*paths)
    expected = defined_scores(categories, attributes, predicted, sets)
    np.testing.assert_allclose([found['accuracy'], found['mean_f1']], expected, atol=1e-12)
    if not has_holes and attributes[:,-1].any(): # the compact form has as many attributes as its highest index says
        assert score_submission(*write(folder, categories, attributes, predicted, sets, rng.permutation(n), compact=True)) == found

@given(st.lists(st.sampled_from('abcdefg'), unique=True), st.lists(st.sampled_from('abcdefg')))
def test_rows_that_differ_are_all_named(expected, found):
    rows = compare_rows(expected, found)
    assert rows.missing == [o for o in expected if o not in found]
    assert rows.extra == list(dict.fromkeys(o for o in found if o not in expected))
    assert sorted(rows.double) == sorted({o for o in found if found.count(o) > 1})

@pytest.fixture
def files(tmp_path):
    "Labels of six images, and a perfect submission"
    categories,attributes = np.arange(6)%3,np.eye(6, 4, dtype=int)
    return write(tmp_path, categories, attributes, categories, attributes, np.arange(6))

def test_the_command(files):
    labels,out = files
    done = run_cli('score', labels, out)
    assert done.returncode == 0 and done.stderr == ''
    assert done.stdout == 'accuracy 1.0000 on 6 images (category.csv)\nmean_f1 1.0000 on 6 images (attribute.csv)\n'
    done = run_inprocess('score', labels, out/'attribute.csv')
    assert done.returncode == 0 and done.stdout == 'mean_f1 1.0000 on 6 images (attribute.csv)\n'

def test_rows_that_differ_are_exit_code_2_after_the_scores(files):
    labels,out = files
    lines = (out/'category.csv').read_text().splitlines()
    (out/'category.csv').write_text('\n'.join([*lines[:4], lines[3], 'images/9.jpg,1', *lines[5:6]]) + '\n')
    done = run_inprocess('score', labels, out)
    assert refused(done, '2 missing (images/3.jpg, images/5.jpg); 1 extra (images/9.jpg); 1 double (images/2.jpg)')
    assert f"category.csv: its rows are not those of {labels}" in done.stderr and 'attribute.csv' not in done.stderr
    assert done.stdout == 'accuracy 1.0000 on 3 images (category.csv)\nmean_f1 1.0000 on 6 images (attribute.csv)\n'
    with pytest.raises(InputError, match='its rows are not those of'): score_submission(labels, out)
    assert [o.n_scored for o in submission_scores(labels, out)] == [3,6]

@pytest.mark.parametrize('name,cells', [('category','{},0,1'), ('attribute','{},0,1'), ('category','shirts, {},0')])
def test_a_row_with_too_many_cells_is_not_scored(files, name, cells):
    "Also if all rows have as many"
    labels,out = files
    lines = [f'file_path,{name}_label', *(cells.format(f'images/{i}.jpg') for i in range(6))]
    (out/f'{name}.csv').write_text('\n'.join(lines) + '\n')
    assert refused(run_inprocess('score', labels, out), f'{name}.csv: is not a readable CSV file (line 2 has 3 cells, and the header 2; a cell with a comma needs quotation marks)')

def test_what_cannot_be_scored(files, tmp_path):
    labels,out = files
    assert refused(run_inprocess('score', labels, tmp_path/'nowhere'), 'nowhere: no such file')
    assert refused(run_inprocess('score', tmp_path/'nowhere.csv', out), 'nowhere.csv: no such file')
    (out/'attribute.csv').write_text('file_path,attribute_label\nimages/0.jpg,4\n')
    assert refused(run_inprocess('score', labels, out), "line 2: attribute_label is '4', but there are the attributes 0 to 3")

@pytest.fixture
def save(tmp_path):
    "Writes a file of lines, and returns its path"
    def save(name, *lines):
        (tmp_path/name).parent.mkdir(exist_ok=True)
        (tmp_path/name).write_text('\n'.join(lines)+'\n')
        return tmp_path/name
    return save

LABELS = 'file_path,category_label,red,long','a.jpg,0,1,0','b.jpg,1,0,1','c.jpg,,1,'
OTHER = 'file_path,category_label','a.jpg,0','a.jpg,1','b.jpg,1','d.jpg,1'

def test_only_rows_that_agree_are_scored(save):
    labels,file = save('labels.csv', *LABELS),save('other.csv', *OTHER)
    score, = submission_scores(labels, file)
    assert (score.value, score.n_scored, score.rows) == (1, 1, (['c.jpg'], ['d.jpg'], ['a.jpg']))
    with pytest.raises(InputError, match='other.csv: its rows are not those of'): score_submission(labels, file)
    assert np.isnan(submission_scores(labels, save('none.csv', 'file_path,category_label', 'x.jpg,1'))[0].value)
    assert str(compare_rows([f'{i}.jpg' for i in range(9)], [])) == '9 missing (0.jpg, 1.jpg, 2.jpg, …)'

def test_the_compact_form_and_one_part_alone_are_scored(save):
    compact = save('compact.csv', 'file_path,category_label,attribute_label', 'a.jpg,0,0', 'b.jpg,1,', 'c.jpg,2,0 1')
    one = save('one/attribute.csv', 'file_path, attribute_label', 'a.jpg,0.0', 'b.jpg,', 'c.jpg,').parent
    assert score_submission(compact, one) == dict(mean_f1=2/3) # an empty set on both sides is right
    only = save('only.csv', 'file_path,category_label', 'a.jpg,3')
    assert score_submission(only, save('category.csv', 'file_path,category_label', 'a.jpg,3.0')) == dict(accuracy=1)
    flags = save('flags.csv', 'file_path,red', 'a.jpg,Yes', 'b.jpg,0.0', 'c.jpg,nan')
    assert score_submission(flags, save('two/attribute.csv', 'file_path,attribute_label', 'a.jpg,0', 'b.jpg,', 'c.jpg,')) == dict(mean_f1=1)

def test_the_split_in_the_labels_is_no_attribute(save):
    labels = save('labels.csv', 'file_path,category_label,is_valid,red,long', 'a.jpg,0,True,1,0', 'b.jpg,1,False,0,1')
    out = save('out/attribute.csv', 'file_path,attribute_label', 'a.jpg,0', 'b.jpg,1').parent
    save('out/category.csv', 'file_path,category_label', 'a.jpg,0', 'b.jpg,1')
    assert score_submission(labels, out) == dict(accuracy=1, mean_f1=1)
    compact = save('compact.csv', 'file_path,is_valid,attribute_label', 'a.jpg,1,0', 'b.jpg,0,1')
    assert score_submission(compact, out/'attribute.csv') == dict(mean_f1=1)

@pytest.mark.parametrize('lines,reason', [(['file_path,category_label','a.jpg,x'], "line 2: category_label is 'x', not a whole number"),
    (['file_path,category_label','a.jpg,'], "line 2: category_label is ''"), (['file_path,attribute_label','a.jpg,0','b.jpg,2'], "line 3: attribute_label is '2', but there are the attributes 0 to 1"),
    (['file_path,attribute_label','','a.jpg,red'], "line 3: attribute_label is 'red', not whole numbers"), (['path,category_label','a.jpg,1'], 'has no column file_path; it has path'),
    (['file_path,label','a.jpg,1'], 'has neither category_label nor attribute_label; it has file_path, label'), (['file_path,category_label'], 'has a header, but no rows')])
def test_a_submission_that_cannot_be_scored_is_refused(save, lines, reason):
    with pytest.raises(InputError, match=re.escape(reason)): score_submission(save('labels.csv', *LABELS), save('bad.csv', *lines))

@pytest.mark.parametrize('lines,reason', [(['file_path','a.jpg'], 'has no labels'), (['file_path,category_label','a.jpg,1','a.jpg,1'], 'line 3: file_path a.jpg has occurred before'),
    (['file_path,red','a.jpg,2'], "line 2: attribute 'red' is '2', neither 0 nor 1"), (['file_path,red','a.jpg,1'], 'cannot be scored; '), (['file_path,category_label','a.jpg,one'], "category_label is 'one'")])
def test_true_labels_that_cannot_be_read_are_refused(save, lines, reason):
    with pytest.raises(InputError, match=re.escape(reason)): score_submission(save('bad.csv', *lines), save('other.csv', *OTHER))

def test_a_submission_that_is_not_there_is_refused(save, tmp_path):
    labels = save('labels.csv', *LABELS)
    with pytest.raises(InputError, match='nowhere: no such file'): score_submission(labels, tmp_path/'nowhere')
    (tmp_path/'hollow').mkdir()
    with pytest.raises(InputError, match='has neither category.csv nor attribute.csv'): score_submission(labels, tmp_path/'hollow')

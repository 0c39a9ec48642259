"What a data card and a comparison of runs say: issues to fix, verdicts, damaged and unfinished runs"
import json
import numpy as np,pandas as pd
import pytest
from fashion_fastai.core import InputError
from fashion_fastai.data.quality import label_cues
from fashion_fastai.data.stats import read_stats
from fashion_fastai.data.synthetic import draw_garments
from fashion_fastai.examples import damaged_data,example_data
from fashion_fastai.recipes.settings import read_recipe,write_recipe
from fashion_fastai.folders.run import read_run
from fashion_fastai.report.tables import compare_runs,format_runs
from fashion_fastai.report.dataset import DataCard,check_data
from fashion_fastai.report.issues import find_issues

@pytest.fixture(scope='module')
def damaged(tmp_path_factory):
    "Synthetic garments with a problem of each kind, and their statistics"
    folder = tmp_path_factory.mktemp('damaged')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder,read_stats(damaged_data('.'), progress=None)

@pytest.mark.parametrize('text, fix', [('1 of 200 images are missing, and no training starts without them: garments/train/00004.jpg', True),
    ('1 of 200 images cannot be read', True), ('1 of 20 val images (5.0%) have a near-duplicate in train', True),
    ('1 of 20 test images (5.0%) have a near-duplicate in train', True), ('2 images are near-duplicates with different categories', True),
    ('2 images are identical files', False), ('4 images have a near-duplicate', False), ('1 of 200 images have no attribute', False), ('L 1', False)])
def test_each_problem_of_a_data_folder_is_an_issue_to_fix_or_a_note(damaged, text, fix):
    assert next(o.fix for o in find_issues(damaged[1]) if text in o.text) == fix

def test_a_good_folder_has_nothing_to_fix_and_splits_and_products_are_looked_at(damaged):
    stats = damaged[1]
    assert not any(o.fix for o in find_issues(read_stats(example_data(100), progress=None)))
    def with_frame(**columns): return stats._replace(frame=stats.frame.assign(**columns))
    assert len([o for o in find_issues(with_frame(product_group=['same']*200)) if 'same product' in o.text]) == 3
    assert any('no val.csv' in o.text for o in find_issues(with_frame(split=stats.frame.split.replace('val', 'train'))))

def test_a_missing_test_image_is_counted(tmp_path):
    data = draw_garments(tmp_path/'garments', n=20)
    with (data/'test.csv').open('a') as f: f.write('garments/test/none.jpg\n')
    frame = read_stats(data, progress=None).frame.set_index('file_path')
    assert frame.split['garments/test/none.jpg'] == 'test' and frame.problem['garments/test/none.jpg'] == 'is missing'

def folder_cue(folders, label):
    "How well a label can be told from the folder alone"
    paths = [f'{o}/{i}.jpg' for i,o in enumerate(folders)]
    frame = pd.DataFrame(dict(file_path=paths)).assign(brightness=.5, sharpness=.5, height=80, width=60, n_bytes=2000)
    return label_cues(frame, np.array(label)[:,None], ['red']).loc['red','folder']

def test_a_folder_tells_a_label_by_the_share_of_its_images():
    folders = ['all']*20 + ['none']*40 + ['half']*400
    label = [1]*20 + [0]*40 + [0,0,1,1]*100
    assert folder_cue(folders, label) == pytest.approx((20*(40+200) + 200*(40+100))/(220*240)) # pairs in the right order, ties half
    assert folder_cue(np.arange(80)//2, np.arange(80)//2 % 2) == 1 # of two images each
    assert folder_cue(np.arange(80), np.arange(80) % 2) == .5 # of one image, which says nothing of others

def test_a_data_card_is_one_page_that_loads_nothing(damaged, monkeypatch):
    monkeypatch.chdir(damaged[0])
    card = DataCard(damaged[1])
    page = card.html()
    assert card.verdict == '6 issues to fix' and DataCard(read_stats(example_data(100), progress=None)).verdict == 'fine'
    assert page.count('rgba(0,114,178') == 15*14 # co-occurrences, but not on the diagonal
    assert page.count('data:image/jpeg') >= 60 and 'http' not in page and '<script' not in page
    with pytest.raises(InputError, match='garments: 6 issues to fix, the first: 1 of 200 images are missing'): check_data('garments', 'card.html', strict=True)

def test_the_card_shows_training_images_of_each_category_and_products_are_those_of_the_folder(damaged, tmp_path):
    stats = damaged[1]
    table = stats.readable.set_index('file_path')
    for name,images in zip(stats.vocab.categories, DataCard(stats)._samples(), strict=True):
        rows = table.loc[[o.title for o in images]]
        assert set(rows.split) == {'train'} and set(rows.category_label) == {stats.vocab.categories.index(name)}
    data = draw_garments(tmp_path/'garments', n=20)
    paths = [o for split in ('train','val') for o in pd.read_csv(data/f'{split}.csv').file_path]
    groups = [f'product {i//2}' for i in range(len(paths))]
    pd.DataFrame(dict(file_path=paths, group=groups)).to_csv(data/'groups.csv', index=False)
    frame = read_stats(data, progress=None).frame.set_index('file_path')
    joined = frame.product_group[paths]
    assert joined.nunique() == 9 and all(a == b for a,b in zip(joined[::2], joined[1::2]))

def fake_run(folder, accuracy, mean_f1, **settings):
    "The files of a run, without a training"
    write_recipe(read_recipe('demo', **settings), folder/'settings.ini')
    pd.DataFrame(dict(epoch=[0,1], accuracy=[accuracy/2, accuracy])).to_csv(folder/'history.csv', index=False)
    (folder/'metrics.json').write_text(json.dumps(dict(accuracy=accuracy, mean_f1=mean_f1, minutes=1.25, images_per_second=640.2)))
    return read_run(folder)

def test_a_run_is_read_and_a_folder_without_one_refused(tmp_path):
    run = fake_run(tmp_path/'first', .82, .7)
    assert (run.recipe, run.settings['arch'], run.metrics['accuracy'], len(run.history), run.problem) == ('demo', 'xresnet10', .82, 2, '')
    with pytest.raises(InputError, match='contains no run'): read_run(tmp_path)
    with pytest.raises(InputError, match='no such folder'): read_run(tmp_path/'nowhere')

def test_runs_are_sorted_by_their_scores_and_damaged_and_unfinished_ones_come_last(tmp_path):
    for name,*scores in (('first', .82, .7), ('interrupted', .9, .9), ('damaged', .9, .9)): fake_run(tmp_path/name, *scores)
    fake_run(tmp_path/'second', .85, .72, lr=.01)
    fake_run(tmp_path/'deep'/'third', .9, .6, lr=.01, stages='32x24:4')
    (tmp_path/'interrupted'/'metrics.json').unlink()
    (tmp_path/'damaged'/'metrics.json').write_text('{"accuracy": 0.9')
    write_recipe(read_recipe('demo', seed=7), tmp_path/'just started'/'settings.ini')
    (tmp_path/'other').mkdir()
    (tmp_path/'other'/'settings.ini').write_text('[DEFAULT]\nlr = 1\n[mine]\nwd = 1\n[yours]\nwd = 2\n') # recipes, not a run
    table = compare_runs(tmp_path)
    assert table.run.tolist() == ['second','first','deep/third','damaged','interrupted','just started']
    assert table.columns.tolist() == ['run','accuracy','mean_f1','minutes','images_per_second','problem','stages','lr','seed']
    assert table.problem.tolist() == ['']*3 + ['damaged: metrics.json cannot be read (JSONDecodeError)', 'unfinished: 2 epochs', 'unfinished: 0 epochs']
    assert compare_runs(tmp_path/'first').run.tolist() == ['.']
    with pytest.raises(InputError, match='contains no runs'): compare_runs(tmp_path/'other')
    text = format_runs(table)
    assert len(text.splitlines()) == 7 and 'nan' not in text.lower()
    assert text.splitlines()[-3].endswith('damaged: metrics.json cannot be read (JSONDecodeError)')

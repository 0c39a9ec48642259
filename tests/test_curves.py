"Learning curves per label: labels that need examples, have enough, or mean nothing are told apart; half of the images are trained on"
import json,shutil
import numpy as np,pandas as pd,pytest
from conftest import SHORT,refused,run_inprocess,train
from fashion_fastai.core import InputError,UNKNOWN
from fashion_fastai.data.labels import read_labels
from fashion_fastai.interpret.core import FashionInterpretation
from fashion_fastai.report.curves import MIN_POSITIVES,curve_table,expected_gains,precision_errors,read_curves,show_curves
from fashion_fastai.report.page import write_report

def made_up(n=2000, seed=0):
    "Scores of two networks for 20 usual labels, and for those that are rare, easy, noise and hardly validated"
    rng,names = np.random.default_rng(seed),[*(f'usual {k}' for k in range(20)),'rare','easy','noise','few']
    shares = np.array([*rng.uniform(.1, .3, 20), .02, .2, .2, .0005])
    actual = (rng.random((n, len(names))) < shares).astype(int)
    actual[:3,-1] = 1
    skill,better = np.array([*rng.uniform(1.5, 2.5, 20), 1.2, 8, 0, 2]),np.array([*[.25]*20, 1.3, .5, 0, 1])
    shared,own = rng.standard_normal((2, *actual.shape))
    return actual*skill + shared,actual*(skill + better) + .9*shared + .45*own,actual,names

@pytest.mark.parametrize('seed', range(3))
def test_labels_that_need_examples_have_enough_or_mean_nothing_are_told_apart(seed):
    half,whole,actual,names = made_up(seed=seed)
    table = curve_table(half, whole, actual, names, [40]*len(names)).set_index('label')
    noise = table.verdict['noise']
    assert noise in ('more do not help: are its labels right?','not clear') and table.gain['noise'] < .01
    assert table.verdict[['rare','easy','noise']].tolist() == ['label more','enough',noise]
    assert table.verdict['few'].startswith('unknown: ') and np.isnan(table.gain['few'])
    assert 'label more' in set(table.verdict[:10]) and table.index[0] == 'rare' and table.gain['rare'] > .05
    told = table.dropna(subset='gain')
    assert (told.low <= told.gain).all() and (told.gain <= told.high).all() and told.gain.is_monotonic_decreasing

def test_unknown_labels_are_left_out():
    half,whole,actual,names = made_up()
    more = np.concatenate([half, np.random.default_rng(1).random(half.shape)]),np.concatenate([whole, np.ones(whole.shape)])
    unknown = np.concatenate([actual, np.full(actual.shape, UNKNOWN)])
    before,after = (curve_table(*o, names, [1]*len(names)).set_index('label').loc[names] for o in ((half, whole, actual), (*more, unknown)))
    pd.testing.assert_frame_equal(before[['validation','half','precision']], after[['validation','half','precision']])
    nothing = curve_table(half, whole, np.full(actual.shape, UNKNOWN), names, [0]*len(names))
    assert nothing.verdict.str.startswith('unknown: 0').all() and nothing.gain.isna().all()

def test_copies_of_images_do_not_make_the_error_smaller():
    single = [o[:,:8] for o in made_up(500)[:3]]
    groups,tiled = np.tile(np.arange(500), 8),[np.tile(o, (8,1)) for o in single]
    alone,copied,single = (precision_errors(*o).mean() for o in (tiled, [*tiled, groups], single))
    assert alone < .6*single and copied == pytest.approx(single, rel=.25)

def test_a_noisy_label_is_drawn_towards_the_others():
    half,errors = np.full(6, .5),np.array([.005]*5 + [.2])
    gain,sd = expected_gains(half, half + [.1,.1,.1,.1,.1,.4], errors)
    assert gain[5] < 1.5*gain[0] and sd[5] > sd[0]
    gain,sd = expected_gains(half[:1], half[:1] + .1, errors[:1]) # a single label has nobody to learn from
    assert .05 < gain[0] < .1 and 0 < sd[0] < .1

def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path/'label_curves.csv'
    path.write_text('label,examples\na,1\n')
    with pytest.raises(InputError, match='has no column half; write it again with fashion curves RUN'): read_curves(path)
    path.write_text('label,examples,half,precision,gain,low,high,verdict\na,many,,1,,,,not clear\n')
    with pytest.raises(InputError, match='has scores that are not numbers'): read_curves(path)
    path.write_text('label,examples,half,precision,gain,low,high,verdict\n' + '<b>,1,.1,.2,.3,.1,.4,label more\n'*50)
    shown = show_curves(read_curves(path))
    assert shown.rows[0] == ['<b>','1','0.100','0.200','+30.0 (10.0 to 40.0)','label more'] and len(shown.rows) == 30 and '50' in shown.note

def copied(run, tmp_path): return shutil.copytree(run, tmp_path/'run')

def test_half_of_the_images_are_trained_on_and_the_report_says_what_they_bring(run, garments, tmp_path):
    run = copied(run, tmp_path)
    done = run_inprocess('curves', run)
    assert done.returncode == 0 and 'label_curves.csv' not in done.stderr and 'report: ' in done.stdout, done.stderr
    metrics,half = (json.loads((o/'metrics.json').read_text()) for o in (run, tmp_path/'run-half'))
    assert half['n_train'] == metrics['n_train'] - metrics['n_train']//2 and half['epochs'] == 2*metrics['epochs']
    images = [FashionInterpretation.load(o/'validation.npz').images for o in (run, tmp_path/'run-half')]
    assert images[0] == images[1]
    table,curves = read_labels(garments),read_curves(run/'label_curves.csv').set_index('label')
    assert set(curves.index) == {*table.vocab.categories, *table.vocab.attributes}
    trained = table.frame[~table.is_valid]
    assert curves.examples['red'] == trained.red.sum() and curves.examples['dress'] == (trained.category_label == table.vocab.categories.index('dress')).sum()
    is_few = curves.validation.astype(int) < MIN_POSITIVES
    assert is_few.any() and curves.gain[is_few].isna().all() and curves.gain[~is_few].notna().all()
    assert 'Examples per label' in (run/'report.html').read_text()
    assert refused(run_inprocess('curves', run), 'is finished; use --resume to compare with it, or another --out')
    done = run_inprocess('curves', run, '--resume') # it compares
    assert done.returncode == 0 and 'epoch 1/' not in done.stdout
    (run/'label_curves.csv').write_text('damaged')
    assert 'No learning curves: ' in write_report(run).read_text()

def test_of_attributes_alone_and_of_the_first_fold(garments, tmp_path):
    train(garments, tmp_path/'attributes', *SHORT, '--category-weight', '0')
    done = run_inprocess('curves', tmp_path/'attributes')
    assert done.returncode == 0 and len(read_curves(tmp_path/'attributes'/'label_curves.csv')) == len(read_labels(garments).vocab.attributes), done.stderr
    train(garments, tmp_path/'folds', *SHORT, '--folds', '2')
    fold = tmp_path/'folds'/'fold_1'
    done = run_inprocess('export', fold, '--out', tmp_path/'model', '--int8', garments) # whose split has trained images in it
    assert refused(done, 'was validated on other images') and not (tmp_path/'model').exists()
    for o in (tmp_path/'folds', fold): assert refused(run_inprocess('curves', tmp_path/'folds', '--out', o, '--resume'), 'is the run itself')
    assert refused(run_inprocess('reproduce', tmp_path/'folds', '--out', tmp_path/'folds', '--resume'), 'is the run itself')
    done = run_inprocess('curves', tmp_path/'folds', '--out', tmp_path/'half')
    assert done.returncode == 0, done.stderr
    fold,half = (json.loads((tmp_path/o/'metrics.json').read_text()) for o in ('folds/fold_1','half'))
    assert half['n_train'] == fold['n_train'] - fold['n_train']//2 and half['n_valid'] == fold['n_valid']
    assert (tmp_path/'folds'/'label_curves.csv').is_file() and 'Examples per label' in (tmp_path/'folds'/'report.html').read_text()

def test_what_cannot_be_compared_is_refused(run, garments, tmp_path):
    assert refused(run_inprocess('curves', tmp_path/'none'), 'is not a finished run')
    run = copied(run, tmp_path)
    fewer = tmp_path/'fewer'
    shutil.copytree(garments, fewer/'garments')
    frame = pd.read_csv(fewer/'garments'/'val.csv')
    frame[3:].to_csv(fewer/'garments'/'val.csv', index=False)
    metrics = json.loads((run/'metrics.json').read_text())
    def trained_on(data): (run/'metrics.json').write_text(json.dumps(dict(metrics, data=str(data))))
    trained_on(tmp_path)
    assert refused(run_inprocess('curves', run), f'{tmp_path}: there is no train.csv')
    trained_on(fewer/'garments')
    assert refused(run_inprocess('curves', run), 'validation images of')
    trained_on(garments)
    settings = (run/'settings.ini').read_text()
    (run/'settings.ini').write_text(settings.replace('teacher = no', f'teacher = {run}'))
    assert refused(run_inprocess('curves', run), 'another network (teacher) has seen all of its images')

"Training in folds and ensembles from the command line, and what folds survive"
import json,os,random,re,shutil,signal,time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
import numpy as np,pandas as pd
import pytest,torch
from fastcore.test import test_fail as fails
from filelock import FileLock
from conftest import FASHION,SHORT,run_inprocess,refused,spawn
import fashion_fastai.train.folds as folds_module,fashion_fastai.train.plan as planning
from fashion_fastai.serve.review import Review
from fashion_fastai.core import InputError
from fashion_fastai.predict.model import load_model
from fashion_fastai.train.plan import Plan
from fashion_fastai.train.core import train_run
from fashion_fastai.train.folds import _clear,assign_folds,out_of_fold,out_of_fold_table,read_folds,train_folds
from fashion_fastai.recipes.settings import read_recipe,read_recorded_recipe
from fashion_fastai.data.vocab import LabelTable
from fashion_fastai.data.labels import read_tables
from fashion_fastai.outputs.score import score_submission
from fashion_fastai.report.suspects import SUSPECT_COLUMNS,write_suspects

pytestmark = pytest.mark.slow

KEYS = [*SHORT, '--epochs', 3, '--checkpoint-minutes', 0] # a checkpoint after every batch

@pytest.fixture(scope='module')
def folds(garments, tmp_path_factory):
    "Three folds without interruption; not to be modified"
    out = tmp_path_factory.mktemp('folds')/'run'
    done = run_inprocess('train', garments, '--out', out, '--folds', 3, *KEYS)
    assert done.returncode == 0 and re.search(r'\naccuracy of the folds: 0\.\d{4} ± 0\.\d{4}\n', done.stdout) and 'out of fold: accuracy' in done.stdout, done.stdout + done.stderr
    return out

def files_of(run): return {o.relative_to(run).as_posix() for o in run.rglob('*') if o.is_file()}

def without_times(path):
    "metrics.json without what differs between two trainings with the same result"
    metrics = json.loads(path.read_text())
    for o in ('minutes','images_per_second','cache','seconds','commit'): metrics.pop(o, None)
    for o in metrics.get('folds', []): del o['minutes']
    return metrics

def assert_the_same(run, whole):
    "Whether an interrupted training ended with the bits of the other one"
    assert files_of(run) == files_of(whole) # no lock, no checkpoint, no partial file
    for o in sorted(files_of(whole)):
        if o.endswith(('.safetensors','oof.csv','folds.csv','ensemble.json','settings.ini')): assert (run/o).read_bytes() == (whole/o).read_bytes(), o
        if o.endswith('metrics.json'): assert without_times(run/o) == without_times(whole/o), o
        if o.endswith('validation.npz'):
            with np.load(run/o) as a, np.load(whole/o) as b:
                for name in a: assert np.array_equal(a[name], b[name]), (o, name)

def training(garments, out): return spawn(FASHION, 'train', garments, '--out', out, '--folds', 3, *KEYS, '--resume', stderr=-1)

def test_every_image_is_predicted_by_the_network_that_did_not_train_on_it(garments, folds):
    oof,assigned = pd.read_csv(folds/'oof.csv'),pd.read_csv(folds/'folds.csv')
    rows = pd.concat([pd.read_csv(garments/o) for o in ('train.csv','val.csv')])
    assert oof.file_path.tolist() == rows.file_path.tolist() == assigned.file_path.tolist()
    assert oof.fold.tolist() == assigned.fold.tolist() and sorted(set(oof.fold)) == [1,2,3]
    for k in (1,2,3):
        with np.load(folds/f'fold_{k}'/'validation.npz') as file: seen = {'/'.join(o.split('/')[-3:]) for o in file['images']}
        assert seen == set(oof.file_path[oof.fold == k])
        assert read_recorded_recipe(folds/f'fold_{k}'/'settings.ini').seed == read_recorded_recipe(folds/'settings.ini').seed + k
    metrics = json.loads((folds/'metrics.json').read_text())
    assert metrics['accuracy'] == pytest.approx((oof.iloc[:,2:12].values.argmax(1) == rows.category_label).mean())

def test_killed_folds_resume_bit_for_bit(garments, folds, tmp_path):
    run = tmp_path/'run'
    process = training(garments, run)
    for start in ('fold 2 of 3', 'epoch 2/'): # in the second fold
        while not process.stdout.readline().startswith(start): assert process.poll() is None
    process.kill()
    process.wait()
    assert refused(run_inprocess('train', garments, '--out', run, '--folds', 3, *KEYS), 'contains an unfinished run; use --resume to continue or --overwrite to restart')
    assert refused(run_inprocess('train', garments, '--out', run, '--folds', 4, '--resume'), 'has 3 folds, not 4')
    assert refused(run_inprocess('predict', run, garments/'test.csv', '--out', tmp_path/'out'), 'its folds are not finished')
    trained_at = (run/'fold_1'/'model.safetensors').stat().st_mtime_ns
    done = run_inprocess('train', garments, '--out', run, '--resume') # without the keys, and without the number of folds
    assert done.returncode == 0 and 'fold 1 of 3: is finished' in done.stdout and 'resuming after' in done.stdout, done.stdout + done.stderr
    assert (run/'fold_1'/'model.safetensors').stat().st_mtime_ns == trained_at # not trained again
    assert_the_same(run, folds)

@pytest.mark.soak
def test_ten_kills_at_random_moments(garments, folds, tmp_path):
    run,rng,kills = tmp_path/'run',random.Random(time.time_ns()),0
    while kills < 10:
        process = training(garments, run)
        if kills % 4: # while it trains; otherwise perhaps while it imports, or searches near-duplicates
            while not process.stdout.readline().startswith(('resuming','xresnet10 at','fold 3 of 3: is')): assert process.poll() is None, process.stderr.read()
        time.sleep(rng.uniform(0, 1.5 if kills % 4 else 6))
        process.kill()
        if process.wait() == -signal.SIGKILL: kills += 1
        else: # it was done: another one
            assert_the_same(run, folds)
            shutil.rmtree(run)
    if not (run/'metrics.json').exists():
        done = run_inprocess('train', garments, '--out', run, '--folds', 3, *KEYS, '--resume')
        assert done.returncode == 0, done.stderr
    assert_the_same(run, folds)

def test_an_ensemble_writes_the_same_files(garments, folds, run, tmp_path):
    done = run_inprocess('predict', folds, garments/'test.csv', '--out', tmp_path/'folds')
    assert done.returncode == 0 and done.stdout.startswith('20 images: '), done.stderr
    assert sorted(o.name for o in (tmp_path/'folds').iterdir()) == ['attribute.csv','category.csv','predictions.csv']
    assert score_submission(garments/'test_labels.csv', tmp_path/'folds')['mean_f1'] > .1
    members = []
    for k in (1,2,3):
        assert run_inprocess('predict', folds/f'fold_{k}', garments/'test.csv', '--out', tmp_path/f'{k}', '--precision', 'fp32').returncode == 0
        members.append(pd.read_csv(tmp_path/f'{k}'/'predictions.csv').category_probability.values)
    mean = pd.read_csv(tmp_path/'folds'/'predictions.csv').category_probability.values
    assert (mean <= np.max(members, axis=0) + .1).all()
    done = run_inprocess('predict', folds, garments/'test.csv', '--with', run, '--out', tmp_path/'both')
    assert done.returncode == 0 and 'joint decision on 20 common validation images' in done.stdout, done.stdout + done.stderr

def test_ensembles_that_are_refused(garments, folds, run, tmp_path):
    predict = 'predict',folds,garments/'test.csv','--out',tmp_path/'out'
    other = tmp_path/'garments'
    shutil.copytree(garments, other)
    for o in ('train.csv','val.csv'): (other/o).write_text((other/o).read_text().replace('belted', 'buttoned', 1))
    assert run_inprocess('train', other, '--out', tmp_path/'other', *SHORT).returncode == 0
    assert refused(run_inprocess(*predict, '--with', tmp_path/'other'), 'its attributes are not those of')
    assert refused(run_inprocess(*predict, '--with', tmp_path/'nowhere'), 'no such model')
    with pytest.raises(InputError, match='name one of its folds'): load_model(folds) # as fashion serve does
    assert refused(run_inprocess('train', garments, '--out', tmp_path/'x', '--fold', 1), '--fold 1 needs --folds')
    assert refused(run_inprocess('train', garments, '--out', folds, '--overwrite', *KEYS), 'contains a training in folds')
    (tmp_path/'plain').mkdir()
    (tmp_path/'plain'/'model.json').touch()
    assert refused(run_inprocess('train', garments, '--out', tmp_path/'plain', '--folds', 3, *KEYS), 'contains a run without folds')

@pytest.mark.parametrize('fold', ['999999999','0','4'])
def test_a_number_that_is_no_fold_makes_no_folder(garments, folds, tmp_path, fold):
    "A damaged folds.csv: each of a thousand million folds would get a folder"
    (tmp_path/'run').mkdir()
    shutil.copy(folds/'settings.ini', tmp_path/'run')
    first,*lines = (folds/'folds.csv').read_text().splitlines()
    lines = [o.replace(',3', f',{fold}') for o in lines] if fold == '4' else [lines[0].rpartition(',')[0] + f',{fold}', *lines[1:]]
    (tmp_path/'run'/'folds.csv').write_text('\n'.join([first, *lines]))
    for keys in ([], ['--folds', 3]):
        done = run_inprocess('train', garments, '--out', tmp_path/'run', '--resume', *keys)
        assert refused(done, 'folds.csv: has the folds ') and sorted(os.listdir(tmp_path/'run')) == ['folds.csv','settings.ini'], done.stderr

def test_overwrite_replaces_a_fold_that_is_a_link(garments, folds, tmp_path):
    "A fold on another disk is not taken for one of the new run, and not written to"
    shutil.copytree(folds, tmp_path/'run')
    shutil.move(tmp_path/'run'/'fold_1', tmp_path/'other')
    (tmp_path/'run'/'fold_1').symlink_to(tmp_path/'other')
    _clear(tmp_path/'run')
    assert not list((tmp_path/'run').iterdir()) and (tmp_path/'other'/'metrics.json').is_file()

def test_an_unreadable_image_is_left_out(garments, tmp_path):
    data = tmp_path/'garments'
    shutil.copytree(garments, data)
    (data/'train'/'00003.jpg').write_text('no image')
    done = run_inprocess('train', data, '--out', tmp_path/'run', '--folds', 2, *SHORT)
    assert done.returncode == 0 and '1 of 180 images cannot be read' in done.stderr, done.stderr
    assert len(pd.read_csv(tmp_path/'run'/'oof.csv')) == 179 and len(pd.read_csv(tmp_path/'run'/'folds.csv')) == 180
    assert pd.read_csv(tmp_path/'run'/'bad_images.csv').file_path.tolist() == ['garments/train/00003.jpg']

def test_folds_started_together_keep_each_others_work(garments, tmp_path, monkeypatch):
    "Planning takes a while, and each would plan something else: one plan is made, and nothing is removed"
    run,plans,trained = tmp_path/'run',[],[]
    def plan(table, minutes, recipe, world):
        plans.append(minutes)
        time.sleep(.3*len(plans))
        return Plan(replace(recipe, lr=.001*len(plans), minutes=0), minutes, 'as measured', {'40x30': 1., '48x36': 1.}, 1.)
    def train_run(data, out, recipe, resume, run_data, plan):
        assert plan['minutes'] == 1.
        trained.append((out.name, recipe.lr))
        (out/'metrics.json').write_text('{}')
    def finish(data, out, *args):
        (out/'metrics.json').write_text('{"n_valid": 180}')
        return dict(n_valid=180)
    monkeypatch.setattr(planning, 'plan_training', plan)
    for o in (train_run, finish): monkeypatch.setattr(folds_module, o.__name__ if o is train_run else '_finish', o)
    recipe = read_recipe('demo', cache='no', minutes=3.)
    def train(k): return folds_module.train_folds(garments, run, recipe, 3, resume=True, only=k)
    with ThreadPoolExecutor(3) as pool: summaries = list(pool.map(train, (1,2,3)))
    assert plans == [1.] and sorted(trained) == [(f'fold_{k}', .001) for k in (1,2,3)]
    assert dict(n_valid=180) in summaries and all((run/f'fold_{k}'/'metrics.json').is_file() for k in (1,2,3))
    assert not (run/'.lock').exists()

def test_resume_removes_nothing_and_overwrite_no_fold_that_is_trained(garments, tmp_path):
    run,model = tmp_path/'run',tmp_path/'run'/'fold_1'/'model.safetensors'
    model.parent.mkdir(parents=True)
    model.touch()
    assert refused(run_inprocess('train', garments, '--out', run, '--folds', 2, '--resume', *SHORT), 'contains a run without folds.csv; choose another folder, or use --overwrite')
    with FileLock(run/'fold_1'/'.lock'):
        assert refused(run_inprocess('train', garments, '--out', run, '--folds', 2, '--overwrite', *SHORT), 'fold_1: another process is training into this folder')
    assert refused(run_inprocess('train', garments, '--out', model.parent, '--resume', *SHORT), 'contains files of a run, but no settings.ini')
    assert model.exists() and files_of(run) == {'fold_1/model.safetensors'}

def test_an_image_that_disappears_during_the_folds_costs_nothing(garments, tmp_path, monkeypatch):
    data = shutil.copytree(garments, tmp_path/'garments')
    def later(*args):
        (data/'train'/'00003.jpg').unlink()
        return out_of_fold(*args)
    monkeypatch.setattr(folds_module, 'out_of_fold', later)
    recipe = read_recipe('demo', stages='24x18:1', precision='fp32', report=False, cache=str(tmp_path/'cache'))
    assert train_folds(data, tmp_path/'run', recipe, n=2)['data_hash']

def test_an_image_that_can_be_read_again_stays_left_out(garments, tmp_path):
    data,run = tmp_path/'garments',tmp_path/'run'
    shutil.copytree(garments, data)
    image = data/'train'/'00003.jpg'
    intact = image.read_bytes()
    image.write_text('no image')
    assert run_inprocess('train', data, '--out', run, '--folds', 2, '--fold', 1, *SHORT).returncode == 0
    image.write_bytes(intact)
    done = run_inprocess('train', data, '--out', run, '--fold', 2, '--resume')
    assert done.returncode == 0 and '1 of 180 images could not be read when the run began, and are left out' in done.stderr, done.stderr
    for o in (run, run/'fold_1', run/'fold_2'): assert pd.read_csv(o/'bad_images.csv').file_path.tolist() == ['garments/train/00003.jpg']
    assert len(pd.read_csv(run/'oof.csv')) == 179

def test_suspects_and_corrections(garments, folds, run, tmp_path):
    "From a run with folds to suspects.csv, and back into a training"
    done = run_inprocess('check', garments, '--with', folds, cwd=tmp_path)
    assert done.returncode == 0 and 'labels that are probably wrong: suspects.csv; next: ' in done.stdout, done.stderr
    assert 'Labels that are probably wrong' in (tmp_path/'garments-check.html').read_text()
    suspects = pd.read_csv(tmp_path/'suspects.csv')
    assert suspects.columns.tolist() == ['file_path','target','given','suggested','score','image'] and len(suspects) > 10
    assert set(suspects.file_path) <= set(pd.read_csv(folds/'oof.csv').file_path)
    rows = suspects.iloc[:3,:4].assign(decision=['change','drop','keep'])
    rows.to_csv(tmp_path/'corrections.csv', index=False)
    for words in ([], ['--folds', 2]):
        out = tmp_path/f'run{len(words)}'
        done = run_inprocess('train', garments, '--out', out, *SHORT, '--corrections', tmp_path/'corrections.csv', *words)
        assert done.returncode == 0 and 'corrections: 1 changed, 1 dropped, 1 kept' in done.stdout, done.stdout + done.stderr
        assert f"corrections = {tmp_path/'corrections.csv'}" in (out/'settings.ini').read_text()
    assert len(pd.read_csv(tmp_path/'run2'/'oof.csv')) == 180 - rows.file_path[rows.decision == 'drop'].nunique()
    rows.assign(given='nothing').to_csv(tmp_path/'wrong.csv', index=False)
    assert refused(run_inprocess('train', garments, '--out', tmp_path/'x', *SHORT, '--corrections', tmp_path/'wrong.csv'), "wrong.csv, line 2: given is 'nothing'")
    assert refused(run_inprocess('train', garments, '--out', tmp_path/'x', *SHORT, '--corrections', tmp_path/'none.csv'), 'none.csv: cannot be read: there is no such file')
    assert refused(run_inprocess('check', garments, '--with', tmp_path, '--out', tmp_path/'card.html'), 'validation.npz: no such file')
    assert refused(run_inprocess('review', tmp_path/'corrections.csv'), 'has no column score')

def test_two_reviews_of_one_file_keep_all_decisions(garments, tmp_path):
    paths = pd.read_csv(garments/'train.csv').file_path[:40]
    rows = [[o, 'category', 'coat', 'dress', .1, str(garments.parent/o)] for o in paths]
    write_suspects(pd.DataFrame(rows, columns=SUSPECT_COLUMNS), tmp_path/'suspects.csv')
    def decide(start):
        review = Review(tmp_path/'suspects.csv')
        for i in range(start, 40, 4): review.decide(i, 'keep')
    with ThreadPoolExecutor(4) as pool: list(pool.map(decide, range(4)))
    assert sorted(pd.read_csv(tmp_path/'corrections.csv').file_path) == sorted(paths)
    assert sorted(o.name for o in tmp_path.iterdir()) == ['corrections.csv','suspects.csv']

def known_labels(garments, folder, kind):
    "A copy of the data with one part of the labels, or with groups and unknown labels"
    data = folder/'garments'
    shutil.copytree(garments, data)
    for o in ('train.csv','val.csv'):
        rows = pd.read_csv(data/o)
        if kind == 'category': rows = rows[['file_path','category_label']]
        else:
            rows = rows.drop(columns='category_label')
            rows = rows[[*rows.columns[:3], 'belted']].astype({'belted': 'Int64'}) # two colours, and one other attribute
            rows.iloc[::3,-1] = pd.NA
        rows.to_csv(data/o, index=False)
    first,second = pd.read_csv(data/'train.csv').columns[1:3] if kind != 'category' else ('','')
    if first: (data/'attributes.csv').write_text(f'attribute,group,exactly_one\n{first},colour,0\n{second},colour,0\n')
    if first: (data/'classes.txt').unlink()
    return data

@pytest.mark.parametrize('kind', ['category','attributes'])
def test_tables_of_one_part(garments, kind, tmp_path):
    "Categories alone; attributes alone, with unknown labels and a group of which at most one holds"
    data,run = known_labels(garments, tmp_path, kind),tmp_path/'run'
    done = run_inprocess('train', data, '--out', run, '--folds', 2, *SHORT, '--report', 'yes')
    assert done.returncode == 0, done.stdout + done.stderr
    assert ('accuracy of the folds' in done.stdout) == (kind == 'category') != ('Mean F1 of the folds' in done.stdout)
    assert '<h2>Folds</h2>' in (run/'report.html').read_text()
    oof = pd.read_csv(run/'oof.csv')
    if kind == 'attributes': assert oof.shape[1] == 5 and (oof.iloc[:,2:4].sum(axis=1) < 1.0001).all()
    done = run_inprocess('predict', run, data/'test.csv', '--out', tmp_path/'out')
    assert done.returncode == 0, done.stderr
    assert sorted(o.stem for o in (tmp_path/'out').iterdir()) == ['attribute' if kind == 'attributes' else 'category', 'predictions']
    if kind == 'attributes':
        sets = pd.read_csv(tmp_path/'out'/'attribute.csv', keep_default_na=False, dtype=str).attribute_label
        assert not sets.str.contains('0 1').any() # at most one of the group
    done = run_inprocess('check', data, '--with', run, '--out', tmp_path/'card.html')
    assert done.returncode == 0, done.stderr
    suspects = pd.read_csv(tmp_path/'suspects.csv')
    assert set(suspects.target) <= ({'category'} if kind == 'category' else {'colour','belted'}) and len(suspects)
    if kind == 'attributes':
        unknown = pd.concat([pd.read_csv(data/o) for o in ('train.csv','val.csv')]).set_index('file_path').belted.isna()
        assert not unknown[suspects.file_path[suspects.target == 'belted']].any()
    suspects.iloc[:2,:4].assign(decision='change').to_csv(tmp_path/'corrections.csv', index=False)
    done = run_inprocess('train', data, '--out', tmp_path/'corrected', *SHORT, '--corrections', tmp_path/'corrections.csv')
    assert done.returncode == 0 and 'corrections: 2 changed' in done.stdout, done.stdout + done.stderr

def test_folds_are_kept_and_checked(garments, tmp_path):
    table,path = LabelTable(*read_tables(garments), garments),tmp_path/'folds.csv'
    first = assign_folds(table, path, n=3)
    assert (assign_folds(table, path, n=3) == first).all()
    fails(lambda: assign_folds(table, path, n=4), exc=InputError, contains='has 3 folds, not 4')
    fails(lambda: assign_folds(table.sample(50), path, n=3), exc=InputError, contains='its images are not those of')
    (tmp_path/'damaged.csv').write_text('file_path,fold\na.jpg,\n')
    fails(lambda: read_folds(tmp_path/'damaged.csv'), exc=InputError, contains='has no fold')
    fails(lambda: assign_folds(table, tmp_path/'many.csv', n=1000), exc=InputError, contains='too few for 1000 folds')
    assert not (tmp_path/'many.csv').exists()

def test_folds_of_other_labels_are_refused_and_probabilities_keep_their_order(garments, folds, tmp_path):
    table,numbers = LabelTable(*read_tables(garments), garments),read_folds(folds/'folds.csv').values
    interp = out_of_fold(folds, table, numbers)
    changed = table.frame.assign(category_label=[(table.categories[0] + 1) % 10, *table.categories[1:]])
    fails(lambda: out_of_fold(folds, LabelTable(changed, table.vocab, table.data), numbers), exc=InputError, contains='was trained with other labels or images')
    logits = torch.zeros(len(table), 10)
    logits[:,2] = 3e-6 # probabilities that differ by less than a millionth
    out_of_fold_table(replace(interp, logits=(logits, interp.logits[1])), table.frame.file_path, numbers).to_csv(tmp_path/'flat.csv', index=False)
    assert (pd.read_csv(tmp_path/'flat.csv').iloc[:,2:12].values.argmax(1) == 2).all()

def test_the_summary_is_that_of_the_folds(garments, folds):
    metrics,oof = json.loads((folds/'metrics.json').read_text()),pd.read_csv(folds/'oof.csv')
    table = LabelTable(*read_tables(garments), garments)
    assert metrics['n_valid'] == len(table) and [o['n_valid'] for o in metrics['folds']] == np.bincount(oof.fold)[1:].tolist()
    assert np.allclose(oof[list(table.vocab.categories)].sum(axis=1), 1, atol=1e-3)
    mean = np.mean([o['accuracy'] for o in metrics['folds']])
    assert abs(metrics['spread']['accuracy']['mean'] - mean) < 1e-9
    scores = [o['mean_f1'] for o in metrics['folds']]
    assert abs(metrics['spread']['mean_f1']['sd'] - np.sqrt(np.square(np.array(scores) - np.mean(scores)).sum()/2)) < 1e-9
    runs = [json.loads((folds/f'fold_{k}'/'metrics.json').read_text()) for k in (1,2,3)]
    assert [o['fold'] for o in metrics['folds']] == [1,2,3] and [o['minutes'] for o in metrics['folds']] == [o['minutes'] for o in runs]
    assert abs(metrics['minutes'] - sum(o['minutes'] for o in runs)) < .002 and metrics['epochs'] == runs[0]['epochs'] and metrics['size'] == runs[0]['size']
    assert abs(metrics['images_per_second'] - np.mean([o['images_per_second'] for o in runs])) < .1
    n_train = [json.loads((folds/f'fold_{k}'/'metrics.json').read_text())['n_train'] for k in (1,2,3)]
    assert [a + b['n_valid'] for a,b in zip(n_train, metrics['folds'])] == [len(table)]*3

def test_a_training_in_folds_that_is_refused(garments, folds, run, tmp_path):
    recipe = read_recipe('demo')
    def refuse(reason, *args, **kwargs): fails(lambda: train_folds(garments, *args, **kwargs), exc=InputError, contains=reason)
    refuse('contains a finished run', folds, recipe, n=3, resume=True)
    refuse('fold 4 does not exist', folds, recipe, n=3, only=4)
    fails(lambda: train_run(garments, folds, recipe, overwrite=True), exc=InputError, contains='contains a training in folds')
    for key,option in dict(parent='from', final='final', teacher='teacher').items():
        refuse(f'--{option} cannot be combined with folds', tmp_path/'new', read_recipe('demo', **{key: str(run)}), n=3)
    part = tmp_path/'part'
    part.mkdir()
    for o in ('folds.csv','settings.ini'): shutil.copy(folds/o, part/o)
    refuse('use --resume to continue', part, recipe, n=3)
    started = read_recorded_recipe(part/'settings.ini')
    refuse('was started with lr', part, replace(started, lr=.1), n=3, resume=True)
    refuse('has 3 folds, not 2', part, started, n=2, resume=True)
    (tmp_path/'plain').mkdir()
    (tmp_path/'plain'/'model.json').touch()
    refuse('contains a run without folds', tmp_path/'plain', recipe, n=3)

def test_a_report_of_folds_with_a_fixed_rule(garments, tmp_path):
    fixed = read_recipe('demo', stages='24x18:1', workers=0, cache='no', precision='fp32', report=True, rule='fixed')
    metrics = train_folds(garments, tmp_path/'run', fixed, n=2)
    report = (tmp_path/'run'/'report.html').read_text()
    assert metrics['decision']['name'] == 'fixed' and '<h2>Folds</h2>' in report and 'No heat maps' not in report

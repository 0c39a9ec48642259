"From a data folder to a run folder: what is left out, what is written, what is overwritten and resumed"
import json,shutil
from dataclasses import replace
from pathlib import Path
import pandas as pd
import pytest
from fastcore.test import test_close as close,test_eq as equal,test_fail as fails
from fashion_fastai.callback.tracking import _CALLBACKS
from fashion_fastai.core import InputError,LOGGERS
from fashion_fastai.data.vocab import LabelTable,Vocab
from fashion_fastai.data.labels import read_labels
from fashion_fastai.data.read import read_data
from fashion_fastai.folders.run import CURVES_FILE,DIVERGED_FILE,PLAN_FILE,RUN_FILES,TEACHER_FILE
from fashion_fastai.interpret.core import FashionInterpretation
from fashion_fastai.build import data_learner,recipe_learner
from fashion_fastai.predict.model import load_folder,load_model
from fashion_fastai.recipes.settings import read_recipe,read_recorded_recipe
from fashion_fastai.train import core
from fashion_fastai.train.core import train_run
from fashion_fastai.train.start import start_from,with_parent
from conftest import refused,run_inprocess,train

STAGES = '24x18:1 32x24:1'

def recipe(**keys): return read_recipe('demo', **{'stages': STAGES, 'precision': 'fp32', 'workers': 0, **keys})

@pytest.fixture(scope='module')
def trained(garments, tmp_path_factory):
    "(a run with a report, its scores)"
    out,fit = tmp_path_factory.mktemp('trained')/'run',core._Training.fit
    with pytest.MonkeyPatch.context() as patch: # as if the fit took a minute and a half
        patch.setattr(core._Training, 'fit', lambda *args: fit(*args) and 90.)
        return out,train_run(garments, out, recipe())

@pytest.fixture
def copy(garments, tmp_path): return Path(shutil.copytree(garments, tmp_path/'garments'))

def test_unreadable_images_are_left_out_if_they_are_few(copy):
    broken = copy/'train'/'00001.jpg'
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.warns(UserWarning, match='left out'):
        equal(len(data_learner(copy, recipe()).dls.train_ds), 159)
        table,packed,bad = read_data(copy, recipe(cache='no'))
    equal((len(table), packed, list(bad)), (179, None, ['garments/train/00001.jpg']))
    fails(lambda: read_data(copy, recipe(max_bad=.003)), exc=InputError, contains='1 of 180 images cannot be read, more than max_bad')

def test_the_cache_is_used_or_refused(garments, tmp_path):
    assert data_learner(garments, recipe(cache=str(tmp_path/'cache'))).dls.train.rows is not None
    assert data_learner(garments, recipe(cache='no')).dls.train.rows is None
    (tmp_path/'file').touch()
    fails(lambda: data_learner(garments, recipe(cache=str(tmp_path/'file'/'cache'))), exc=InputError, contains='images cannot be packed here')

def test_a_split_that_is_made_here_keeps_copies_together(copy):
    shutil.copy(copy/'train'/'00002.jpg', copy/'val'/'00003.jpg')
    copies = 'garments/train/00002.jpg','garments/val/00003.jpg'
    def table(**keys): return read_data(copy, recipe(cache='no', **keys)).table
    def sides(table): return [bool(v) for o,v in zip(table.frame.file_path, table.is_valid) if o in copies]
    equal(sides(table()), [False,True])
    for seed in range(3): equal(len(set(sides(table(regroup=True, seed=seed)))), 1)
    (copy/'val.csv').unlink()
    assert 10 <= table().is_valid.sum() <= 20 # a tenth of each of ten categories, rounded

def test_near_duplicates_of_a_given_validation_set_are_one_group(copy, tmp_path):
    "The folds in which the decision is tuned and scored keep them together; the search is cached"
    keys = dict(cache=str(tmp_path/'cache'))
    assert read_data(copy, recipe(**keys)).table.groups is None
    shutil.copy(copy/'val'/'00001.jpg', copy/'val'/'00003.jpg')
    learn = data_learner(copy, recipe(**keys))
    names = [Path(o.image).name for o in learn.dls.valid_ds.items]
    groups = dict(zip(names, learn.dls.valid_groups))
    assert groups['00001.jpg'] == groups['00003.jpg'] and len(set(groups.values())) == len(names) - 1
    decision = learn.tune_decision('threshold')
    folds = dict(zip(names, decision.folds))
    equal(folds['00001.jpg'], folds['00003.jpg'])
    assert len(list((tmp_path/'cache').glob('*/near_duplicates.npz'))) == 1

def test_a_plan_is_made_for_the_split_of_the_training(copy, tmp_path, monkeypatch):
    "Without val.csv near-duplicates are on one side, for both; labels are read once"
    from fashion_fastai.train import plan as planning
    (copy/'val.csv').unlink()
    planned,plan_training,read_split,reads = [],planning.plan_training,core.read_split,[]
    def plan(table, *args):
        planned.append(table.frame.copy())
        return plan_training(table, *args)
    def read(*args):
        reads.append(1)
        return read_split(*args)
    monkeypatch.setattr(planning, 'plan_training', plan)
    monkeypatch.setattr(core, 'read_split', read)
    words = '--arch', 'xresnet10', '--width', .25, '--precision', 'fp32', '--report', 'no', '--workers', 1
    done = run_inprocess('train', copy, '--out', tmp_path/'run', '--minutes', .05, *words)
    assert done.returncode == 0 and done.stdout.count('searching near-duplicates') == 1, done.stderr
    equal(len(reads), 1)
    metrics = json.loads((tmp_path/'run'/'metrics.json').read_text())
    equal(metrics['n_valid'], int(planned[0].is_valid.sum()))

def test_a_run_has_all_files_and_they_agree(trained, garments):
    out,metrics = trained
    absent = 'bad_images.csv','checkpoint.pt','label_scores.csv',CURVES_FILE,PLAN_FILE,DIVERGED_FILE,TEACHER_FILE # few labels, no bad images, no plan, nothing to resume
    equal(sorted([*(o.name for o in out.iterdir()), *absent]), sorted(RUN_FILES))
    equal(json.loads((out/'metrics.json').read_text())['accuracy'], metrics['accuracy'])
    equal(str(load_model(out).loss_func.decision.rule), metrics['decision']['rule'])
    equal(load_model(out).vocab, read_labels(garments).vocab)
    close(FashionInterpretation.load(out/'validation.npz').correct.float().mean().item(), metrics['accuracy'], 1e-6)
    close(metrics['valid_loss'], metrics['category_loss'] + 3*metrics['attribute_loss'], 1e-4)
    equal(sum(o['images'] for o in metrics['categories'].values()), metrics['n_valid'])
    rows = pd.read_csv(out/'history.csv')
    equal((metrics['epochs'], metrics['n_train'], metrics['n_valid'], tuple(metrics['size'])), (len(rows), 160, 20, (32,24)))
    close(metrics['valid_loss'], rows.valid_loss.iloc[-1], 1e-4)
    assert sum(metrics['seconds'].values()) > 0
    equal((metrics['minutes'], metrics['images_per_second']), (1.5, round(160*2/90, 1)))
    equal(['no', *_CALLBACKS], list(LOGGERS))

def test_what_was_measured_is_recorded(trained):
    used = read_recorded_recipe(trained[0]/'settings.ini')
    assert used.channels_last in (False,True) and used.compile is False and used.name == 'demo'
    equal(replace(used, channels_last=None), recipe())

def test_a_finished_run_is_not_lost_by_accident(garments, tmp_path):
    out = tmp_path/'run'
    train_run(garments, out, recipe(stages='24x18:1'))
    for resume in (False,True):
        fails(lambda: train_run(garments, out, recipe(), resume=resume), exc=InputError, contains='contains a finished run')
    before = (out/'export.pkl').stat().st_mtime_ns
    train_run(garments, out, recipe(stages='24x18:1', report='no', rule='fixed'), overwrite=True)
    assert not (out/'report.html').exists() # the report of an earlier run would be wrong here
    assert (out/'export.pkl').stat().st_mtime_ns > before
    # where the recipe says so, the rule is the recipe's threshold
    equal(json.loads((out/'metrics.json').read_text())['decision'], dict(name='fixed', rule='Threshold(0.4)'))

def test_the_head_of_a_run_is_matched_by_names(trained, garments):
    run,_ = trained
    table = read_labels(garments)
    attributes = ('new', *table.vocab.attributes[:0:-1]) # in another order, the first one replaced
    frame = table.frame.rename(columns={table.vocab.attributes[0]: 'new'})
    vocab = Vocab(table.vocab.categories, attributes)
    learn = recipe_learner(LabelTable(frame, vocab, table.data, table.images), with_parent(recipe(parent=str(run))))
    at_random = learn.model[1].attributes.weight[0].clone()
    start_from(learn, run)
    before = load_folder(run)
    for name in attributes[1:]:
        row,row_before = attributes.index(name),before.vocab.attributes.index(name)
        equal(learn.model[1].attributes.weight[row], before.model[1].attributes.weight[row_before])
    equal(learn.model[1].attributes.weight[0], at_random)
    assert all((o == before.model[0].state_dict()[key]).all() for key,o in learn.model[0].state_dict().items())

def test_training_on_from_a_run_is_recorded(run, garments, tmp_path):
    words = '--recipe','quick','--stages','24x18:1','--batch-size',32,'--report','no','--precision','fp32'
    out = train(garments, tmp_path/'second', '--from', run, *words)
    used,metrics = read_recorded_recipe(out/'settings.ini'),json.loads((out/'metrics.json').read_text())
    equal((used.arch, used.parent), ('xresnet10', str(run.resolve()))) # recipe quick has another network
    equal(metrics['parent']['run'], str(run.resolve()))
    refused(run_inprocess('train', garments, '--out', tmp_path/'third', '--from', garments, *words), 'is not a finished run; a training goes on from one of yours')
    refused(run_inprocess('train', garments, '--out', tmp_path/'third', '--from', run, '--arch', 'xresnet18', *words), 'has xresnet10; leave it out')

@pytest.mark.parametrize('option', ['--from','--final','--teacher'])
def test_a_run_that_a_training_begins_with_is_not_replaced(option, run, garments, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path/'copy'))
    before = {o.name: o.read_bytes() for o in copy.iterdir()}
    assert refused(run_inprocess('train', garments, '--out', copy, option, copy, '--overwrite'), 'the training begins with this run, which it would replace')
    assert {o.name: o.read_bytes() for o in copy.iterdir() if o.name != '.lock'} == before

def test_files_of_others_in_the_folder_of_a_run_are_kept(garments, tmp_path):
    own,words = tmp_path/'own',('--recipe','demo','--stages','24x18:1','--report','no','--precision','fp32')
    (own/'tensorboard').mkdir(parents=True)
    (own/'tensorboard'/'events').write_text('of another program')
    train(garments, own, *words)
    assert (own/'tensorboard'/'events').read_text() == 'of another program'
    for text in ('[mine]\nlr = 0.01\n[other]\nlr = 0.02\n', '[mine]\nlr = 0.01\n'):
        folder = tmp_path/'work'
        folder.mkdir(exist_ok=True)
        (folder/'settings.ini').write_text(text)
        for option in ([], ['--overwrite'], ['--overwrite','--folds',2]):
            assert refused(run_inprocess('train', garments, '--out', folder, *option), 'has a settings.ini of your own; choose another folder')
        assert (folder/'settings.ini').read_text() == text

def test_an_image_that_disappears_during_a_training_costs_nothing(copy, tmp_path, monkeypatch):
    def later(*args):
        (copy/'train'/'00003.jpg').unlink()
        return decide_and_score(*args)
    decide_and_score = core.decide_and_score
    monkeypatch.setattr(core, 'decide_and_score', later)
    assert train_run(copy, tmp_path/'run', recipe(report=False, cache=str(tmp_path/'cache')))['data_hash']

def test_a_parent_without_a_recorded_stem_has_that_of_its_time(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path/'copy'))
    config = json.loads((copy/'model.json').read_text())
    del config['architecture']['stem']
    (copy/'model.json').write_text(json.dumps(config))
    assert with_parent(read_recipe('quick', parent=str(copy))).stem == 'xresnet'

def test_no_pickle_of_a_parent_is_opened(run, garments, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path/'copy'))
    (copy/'export.pkl').write_bytes(b'not even a pickle')
    (copy/'metrics.json').unlink()
    words = '--stages','24x18:1','--batch-size',32,'--report','no'
    refused(run_inprocess('train', garments, '--out', tmp_path/'run', '--from', copy, *words), 'is not a finished run')
    (copy/'metrics.json').write_text('{}')
    assert run_inprocess('train', garments, '--out', tmp_path/'run', '--from', copy, *words).returncode == 0

@pytest.mark.parametrize('name,content,reason', [
    ('plan.json', dict(minutes=1, valid_seconds=1, train_seconds={'9x9': 1}), 'train_seconds is'), ('plan.json', dict(minutes=0, valid_seconds=1, train_seconds={}), 'minutes is 0'),
    ('plan.json', [], 'is not the plan of a run'), ('diverged.json', [], 'is not a list of divergences'), ('diverged.json', dict(diverged=5), 'diverged is 5'),
    ('diverged.json', dict(diverged=[dict(lr='fast', reason='')]), 'diverged is')])
def test_damaged_notes_of_a_run_are_refused_when_it_is_resumed(name, content, reason, tmp_path):
    from fashion_fastai.train.core import _read_divergences
    from fashion_fastai.train.plan import read_plan
    assert name in (PLAN_FILE, DIVERGED_FILE)
    (tmp_path/name).write_text(json.dumps(content))
    read = (lambda o: read_plan(o, read_recipe('demo'))) if name == PLAN_FILE else _read_divergences
    with pytest.raises(InputError, match=reason): read(tmp_path/name)

def test_other_keys_of_a_plan_are_not_used(tmp_path):
    from fashion_fastai.train.plan import read_plan
    plan = dict(minutes=1, valid_seconds=1, train_seconds={'40x30': 1, '48x36': 2})
    (tmp_path/PLAN_FILE).write_text(json.dumps(dict(plan, processes='mine')))
    assert read_plan(tmp_path/PLAN_FILE, read_recipe('demo')) == plan

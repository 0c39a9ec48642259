"Whatever takes part in a fit, a fit that was killed ends with the same bits as one that was not"
import json,shutil
from functools import partial
from pathlib import Path
import numpy as np,pandas as pd
import pytest,torch
import fashion_fastai.train.folds as folds_module
from fastai.callback.core import Callback
from fastai.callback.tracker import EarlyStoppingCallback,ReduceLROnPlateau,SaveModelCallback
from fastai.callback.training import GradientAccumulation,GradientClip
from fastai.torch_core import set_seed
from fashion_fastai.callback.blocks import BlockStats
from fashion_fastai.callback.checkpoint import Checkpoint
from fashion_fastai.callback.ema import EMA
from fashion_fastai.callback.mixup import CutMix,MixUp
from fashion_fastai.callback.profile import PhaseTimer
from fashion_fastai.callback.tta import FlipTTA
from fashion_fastai.data.labels import read_labels
from fashion_fastai.data.loader import fashion_dls
from fashion_fastai.examples import quiet
from fashion_fastai.build import fashion_learner
from fashion_fastai.model.optimizer import optimizer_func
from fashion_fastai.folders.run import STATS_FILE
from fashion_fastai.recipes.settings import read_recipe
from fashion_fastai.report.doctor import read_stats_file
from fashion_fastai.train.core import train_run
from fashion_fastai.train.folds import train_folds
from fashion_fastai.train.timing import Pace

STAGES = '24x18:1 32x24:2' # of 5 batches each

class Kill(Callback):
    "Ends a fit at a batch, like a kill: nothing is cleaned up"
    order = 100
    def __init__(self, epoch, batch): self.at = epoch,batch
    def after_batch(self):
        if self.training and (self.epoch, self.iter) == self.at: raise KeyboardInterrupt

class Slow(Pace):
    "Steps take 1.4 times as long as planned, on any machine; of this name, so that a checkpoint knows it"
    name = 'pace'
    def set_times(self): self.paces,self.elapsed = [] if self.changes else [(14.,1.4)],1.
    def _watch(self):
        super()._watch()
        self.set_times()

def pace(): return Slow(30/60, {'24x18': 3., '32x24': 4.}, 1.)

CASES = dict(plain={}, ema=dict(cbs=[partial(EMA, .9)]), mixup=dict(cbs=[partial(MixUp, .5)]), cutmix=dict(cbs=[partial(CutMix, .5)]),
    ema_mixup_and_cutmix=dict(cbs=[partial(EMA, .9), partial(MixUp, .5), partial(CutMix, .5)]),
    accumulated=dict(cbs=[partial(GradientAccumulation, 96)]), clipped=dict(cbs=[partial(GradientClip, .1)]),
    best_epoch=dict(cbs=[SaveModelCallback, partial(EMA, .9)]), early_stopping=dict(cbs=[partial(EarlyStoppingCallback, patience=2)]),
    plateau=dict(cbs=[ReduceLROnPlateau]), tta=dict(cbs=[FlipTTA]), timer=dict(cbs=[PhaseTimer]), another_pace=dict(cbs=[pace]),
    muon=dict(optimizer='muon'), ranger=dict(optimizer='ranger'), larc=dict(optimizer='larc'), sgd=dict(optimizer='sgd'),
    flat_cos=dict(schedule='flat_cos'), fractions=dict(stages='24x18:.5 32x24:2.5'), learned_weights=dict(attribute_weight=None),
    balanced=dict(attribute_balance=.5), asymmetric=dict(attribute_balance='asymmetric'),
    dropout=dict(dropout=.2), files_by_threads=dict(workers=2))

@pytest.fixture(scope='module')
def fit(garments, tmp_path_factory):
    "Fits a learner with what a case asks for"
    table,folder = read_labels(garments),tmp_path_factory.mktemp('fits')
    def fit(file, *kill, seed=1, resume=False, cbs=(), optimizer='adamw', schedule='one_cycle', stages=STAGES, workers=0, **kwargs):
        set_seed(seed)
        dls = fashion_dls(table, (32,24), 32, workers=workers)
        learn = quiet(fashion_learner(dls, 'xresnet10', .25, path=folder, opt_func=optimizer_func(optimizer), **kwargs))
        checkpoint = Checkpoint(folder/file, resume, minutes=0)
        try: learn.fit_progressive(stages, 5e-3, schedule=schedule, cbs=[checkpoint, *(make() for make in cbs), *kill])
        except KeyboardInterrupt: pass
        return learn
    return fit

@pytest.mark.parametrize('case', CASES)
def test_the_same_bits_after_a_kill(fit, case):
    whole = fit(f'{case}.pt', **CASES[case])
    everywhere = case in ('plain','ema','accumulated') # others are killed in the second epoch alone
    for at in ((0,1), (1,2), (2,4)) if everywhere else ((1,2),):
        fit(f'{case} {at}.pt', Kill(*at), **CASES[case])
        resumed = fit(f'{case} {at}.pt', seed=99, resume=True, **CASES[case])
        different = [key for key,o in whole.model.state_dict().items() if not torch.equal(o, resumed.model.state_dict()[key])]
        assert different == [], at
        assert list(map(float, whole.recorder.losses)) == list(map(float, resumed.recorder.losses))
        assert whole.recorder.lrs == resumed.recorder.lrs

def test_statistics_of_blocks_are_complete_after_a_kill(fit, tmp_path):
    whole = BlockStats()
    fit('stats.pt', cbs=[lambda: whole])
    assert whole.start and whole.table.epoch.unique().tolist() == [0,1,2]
    for at in ((0,1), (1,2), (2,4)):
        resumed = BlockStats(tmp_path/'stats.json')
        fit(f'stats {at}.pt', Kill(*at), cbs=[BlockStats])
        fit(f'stats {at}.pt', seed=99, resume=True, cbs=[lambda: resumed])
        assert resumed.start == whole.start and resumed.table.equals(whole.table), at
    start,blocks = read_stats_file(tmp_path/'stats.json')
    assert start == whole.start and len(blocks) == len(whole.table)

def test_statistics_begin_in_the_middle_of_a_fit_without_any(fit, tmp_path):
    "Its first batch is not taken for that of the fit"
    fit('earlier.pt', Kill(0,2))
    fit('earlier.pt', resume=True, cbs=[lambda: BlockStats(tmp_path/'stats.json')])
    start,blocks = read_stats_file(tmp_path/'stats.json')
    assert start == {} and blocks.epoch.unique().tolist() == [0,1,2]

def test_statistics_of_another_network_are_refused(fit):
    "A checkpoint may be a stranger's"
    stats = BlockStats()
    fit('blocks.pt', cbs=[lambda: stats])
    for samples in ([[[1.,2.]]], [['a']], [[[1.,2.]],[[1.]]]):
        stats.samples = samples
        with pytest.raises(ValueError): stats.restored()

def kill_at(monkeypatch, train_iter):
    "Let the training end before a batch, like a kill: nothing is saved"
    def killed(self):
        if self.training and not hasattr(self.learn, 'lr_finder') and self.learn.train_iter == train_iter: raise KeyboardInterrupt
    monkeypatch.setattr(Checkpoint, 'before_batch', killed, raising=False)

@pytest.fixture(scope='module')
def grouped(garments, tmp_path_factory):
    "A data folder in which three attributes exclude one another, and some labels are unknown"
    data = Path(shutil.copytree(garments, tmp_path_factory.mktemp('grouped')/'garments'))
    for o in ('train.csv','val.csv'):
        frame = pd.read_csv(data/o)
        names = list(frame.columns[2:5])
        frame[names] = np.eye(3, dtype=int)[np.arange(len(frame)) % 3]
        frame[frame.columns[6]] = frame[frame.columns[6]].astype('Int64').mask(np.arange(len(frame)) % 4 == 0)
        frame.to_csv(data/o, index=False)
    pd.DataFrame(dict(attribute=names, group='a', exactly_one=1)).to_csv(data/'attributes.csv', index=False)
    return data

# settings of a run; `run` and `folds` are finished runs, `grouped` has groups and unknown labels
RUNS = dict(settings=dict(ema=.9, mixup=.3, cutmix=.3, optimizer='muon', dropout=.1, stem='whitened', tta=True),
    pieces=dict(blur_pool=True, schedule='flat_cos', flip=False, lighting=0, label_smoothing=0, logit_adjustment=.5),
    compact=dict(channels_last=True, test_size='40x30', epochs=2, rule='threshold'), cached=dict(cache='auto', workers=2),
    learned_weights=dict(attribute_weight=None), category_alone=dict(attribute_weight=0), attributes_alone=dict(category_weight=0),
    parent=dict(parent='run'), final=dict(final='run'), final_of_folds=dict(final='folds'), teacher=dict(teacher='run'),
    teacher_in_folds=dict(teacher='folds', teacher_share=.7, teacher_temperature=2., cutmix=.5, mixup=.5), groups=dict(data='grouped'))

@pytest.fixture(scope='module')
def finished(garments, run, grouped, tmp_path_factory):
    "Runs and folders by their names"
    folds = tmp_path_factory.mktemp('finished')/'folds'
    train_folds(garments, folds, recipe_of(), n=2)
    return dict(run=str(run), folds=str(folds), grouped=grouped, garments=garments)

def recipe_of(**keys):
    plain = dict(stages=STAGES, batch_size=32, checkpoint_minutes=0, precision='fp32', channels_last=False, report=False, workers=0, cache='no')
    return read_recipe('demo', **{**({} if 'final' in keys else plain), **keys})

@pytest.mark.slow
@pytest.mark.parametrize('case', RUNS)
def test_a_run_of_any_settings_ends_with_the_same_bits(case, finished, tmp_path, monkeypatch):
    keys = {key: finished.get(o, o) if isinstance(o, str) else o for key,o in RUNS[case].items()}
    data = keys.pop('data', finished['garments'])
    whole = train_run(data, tmp_path/'whole', recipe_of(**keys))
    with monkeypatch.context() as patch:
        kill_at(patch, 7 if 'final' not in keys else 8)
        with pytest.raises(KeyboardInterrupt): train_run(data, tmp_path/'run', recipe_of(**keys))
    assert not (tmp_path/'run'/'metrics.json').exists()
    resumed = train_run(data, tmp_path/'run', recipe_of(**keys), resume=True)
    assert (tmp_path/'run'/'model.safetensors').read_bytes() == (tmp_path/'whole'/'model.safetensors').read_bytes()
    assert {o.name for o in (tmp_path/'run').iterdir()} == {o.name for o in (tmp_path/'whole').iterdir()}
    assert (tmp_path/'run'/STATS_FILE).read_text() == (tmp_path/'whole'/STATS_FILE).read_text()
    timed = 'minutes','images_per_second','seconds','teacher','cache','commit' # somebody may be working on the code
    assert {key: o for key,o in resumed.items() if key not in timed} == {key: o for key,o in whole.items() if key not in timed}

@pytest.mark.slow
def test_planned_folds_on_a_slow_machine_end_with_the_same_bits(garments, tmp_path, monkeypatch):
    "Killed in the second fold, after its rest was planned again"
    plan = dict(minutes=.5, train_seconds={'24x18': 3., '32x24': 4.}, valid_seconds=1.)
    monkeypatch.setattr(Pace, '_watch', Slow.set_times)
    monkeypatch.setattr(folds_module, 'plan_run', lambda table, recipe, n: (recipe, plan))
    recipe = recipe_of(stages='24x18:1 32x24:5')
    train_folds(garments, tmp_path/'whole', recipe, n=2)
    begun = []
    def killed(self):
        if self.training and self.learn.train_iter == 0: begun.append(1)
        if self.training and len(begun) == 2 and self.learn.train_iter == 7: raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, 'before_batch', killed, raising=False)
        with pytest.raises(KeyboardInterrupt): train_folds(garments, tmp_path/'run', recipe, n=2)
    monkeypatch.setattr(folds_module, 'plan_run', None) # a run that is resumed is not planned
    train_folds(garments, tmp_path/'run', recipe, n=2, resume=True)
    for k in (1,2):
        runs = [tmp_path/o/f'fold_{k}' for o in ('run','whole')]
        assert runs[0].joinpath('model.safetensors').read_bytes() == runs[1].joinpath('model.safetensors').read_bytes()
        plans = [json.loads((o/'metrics.json').read_text())['plan'] for o in runs]
        assert plans[0] == plans[1] and len(plans[0]['changes']) == 1
    assert (tmp_path/'run'/'oof.csv').read_bytes() == (tmp_path/'whole'/'oof.csv').read_bytes()

def test_a_slow_machine_trains_fewer_epochs_under_a_smooth_schedule(fit, capsys):
    "The learning rate makes no jump where the rest is planned again, and still ends near zero"
    learn = fit('slow.pt', cbs=[pace], stages='24x18:2 32x24:6')
    lrs,n_batches = learn.recorder.lrs,5
    assert 'steps take 1.40 times as long as planned' in capsys.readouterr().out
    assert learn.n_epoch < 8 and len(lrs) == n_batches*learn.n_epoch and lrs[-1] < .02*max(lrs)
    steps = [abs(b - a) for a,b in zip(lrs, lrs[1:])]
    assert max(steps) < .35*max(lrs)
    assert learn.history.table['size'].tolist() == ['24x18']*2 + ['32x24']*(learn.n_epoch - 2)
    assert learn.plan_changes[0]['epochs'] == learn.n_epoch

def test_looking_at_a_batch_leaves_the_stages_as_they_are(fit):
    class Look(Callback):
        run_valid = False
        def before_fit(self): self.sizes = []
        def after_pred(self):
            self.sizes.append(tuple(self.x.shape[-2:]))
            if self.iter == 1: assert self.dls.train.one_batch()[0].shape[-2:] == (32,24)
    look = Look()
    fit('look.pt', look)
    assert look.sizes == [(24,18)]*5 + [(32,24)]*10

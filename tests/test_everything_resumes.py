"Whatever takes part in a fit, a fit that was killed ends with the same bits as one that was not"
from functools import partial
import pytest,torch
from fastai.callback.core import Callback
from fastai.callback.tracker import EarlyStoppingCallback,ReduceLROnPlateau,SaveModelCallback
from fastai.callback.training import GradientAccumulation,GradientClip
from fastai.torch_core import set_seed
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
    def _watch(self):
        super()._watch()
        self.paces,self.elapsed = [] if self.changes else [(14.,1.4)],1.

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

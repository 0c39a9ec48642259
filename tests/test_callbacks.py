"What callbacks do where a notebook's example does not look"
import importlib.util
from contextlib import redirect_stdout
from io import StringIO
from types import SimpleNamespace
import pytest,torch
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.metrics import F1Score
from fastai.test_utils import synth_learner
from fastai.torch_core import set_seed
from fastcore.test import test_close as close,test_eq as equal,test_fail as fails
import fashion_fastai.callback.profile as profile
from fashion_fastai.callback.ema import EMA
from fashion_fastai.callback.history import progress_or_log
from fashion_fastai.callback.mixup import CutMix,MixUp,mix_targets,one_hot
from fashion_fastai.callback.profile import PhaseTimer
from fashion_fastai.callback.tracking import logger_callbacks
from fashion_fastai.callback.tta import mean_logits,predict_with_flip
from fashion_fastai.core import InputError
from fashion_fastai.data.groups import AttributeGroup
from fashion_fastai.data.labels import read_labels
from fashion_fastai.data.loader import fashion_dls
from fashion_fastai.distributed.ddp import DataParallel
from fashion_fastai.distributed.processes import ALONE,Processes
from fashion_fastai.examples import quiet
from fashion_fastai.build import fashion_learner
from fashion_fastai.model.loss import attribute_probabilities

@pytest.fixture
def made(garments, tmp_path):
    "Makes the smallest learner"
    table = read_labels(garments)
    def made(cbs=(), size=(32,24)):
        set_seed(0)
        return quiet(fashion_learner(fashion_dls(table, size, 32, workers=0), 'xresnet10', .25, path=tmp_path, cbs=list(cbs)))
    return made

class Interrupt(Callback):
    "Ctrl-C after the first batch"
    order = 99
    def after_batch(self): raise KeyboardInterrupt

def test_views_are_averaged_as_probabilities(made):
    a,b = [(torch.randn(4,10), torch.randn(4,15)*9) for _ in range(2)]
    mean = mean_logits([a, b])
    close(mean[0].softmax(-1), (a[0].softmax(-1) + b[0].softmax(-1))/2)
    close(mean[1].sigmoid(), (a[1].sigmoid() + b[1].sigmoid())/2)
    groups = AttributeGroup('a', (0,1,2)),AttributeGroup('b', (5,6), False)
    expected = (attribute_probabilities(a[1], 1., groups) + attribute_probabilities(b[1], 1., groups))/2
    close(attribute_probabilities(mean_logits([a, b], groups=groups)[1], 1., groups), expected, 1e-5)
    learn = made()
    with learn.no_bar(): probabilities,_ = learn.tta()
    images = torch.cat([b[0] for b in learn.dls.valid])
    learn.model.eval()
    with torch.no_grad():
        views = [learn.loss_func.activation(learn.model(o)) for o in (images, images.flip(-1))]
        close(learn.loss_func.activation(predict_with_flip(learn.model, images))[0], probabilities[0], 1e-5)
    for part in range(2): close(probabilities[part], (views[0][part] + views[1][part])/2, 1e-5)

def test_the_history_goes_on_over_all_fits(made):
    learn = made(size=(64,48))
    with learn.no_bar():
        learn.fit_progressive('32x24:1 64x48:1', 1e-3)
        learn.fit(1)
    equal([o['epoch'] for o in learn.history.rows], [0,1,2])
    equal([o.get('size') for o in learn.history.rows], ['32x24','64x48',None])
    last = learn.history.rows[-1]
    close(last['category_loss'] + learn.loss_func.attribute_weight*last['attribute_loss'], last['valid_loss'], 1e-4)

def test_lines_take_the_place_of_a_progress_bar(made):
    learn,out = made(),StringIO()
    learn.add_cb(ProgressCallback())
    learn.logger = print
    with redirect_stdout(out),progress_or_log(learn): learn.fit_one_cycle(2, 1e-3)
    equal(len(out.getvalue().splitlines()), 2)
    assert out.getvalue().startswith('epoch 1/2  train_loss ') and '\r' not in out.getvalue()
    assert isinstance(learn.progress, ProgressCallback) and learn.logger == print

@pytest.mark.parametrize('mix', [MixUp(), CutMix(1.)], ids=['mixup','cutmix'])
def test_an_image_has_the_weight_of_its_target(made, mix):
    black,white = torch.zeros(4,3,40,30),torch.ones(4,3,40,30)
    images,weight = mix.mix(white, black)
    close(images.mean((1,2,3)), weight.flatten().expand(4), 1e-5)
    equal(white, torch.ones(4,3,40,30)) # the batch itself is unchanged
    class Keep(Callback):
        order = 50
        def after_pred(self): self.targets = self.yb
    learn = made([mix, Keep()])
    with learn.no_bar(): learn.fit(1)
    learn.remove_cb(learn.keep)
    equal(one_hot(torch.tensor([1,-1]), 3).tolist(), [[0,1,0],[-1,-1,-1]])
    close(mix_targets(torch.tensor([[1.,-1,0]]), torch.tensor([[0.,1,-1]]), torch.tensor([[.75]])), torch.tensor([[.75,-1,-1]]))

def test_mixed_targets_are_probabilities(made):
    class Check(Callback):
        order,run_valid = 50,False
        def after_pred(self):
            category,attributes = self.yb
            equal((category.shape, attributes.shape), ((32,10), (32,15)))
            close(category.sum(1), torch.ones(32))
            assert ((category > 0).sum(1) <= 2).all() and ((attributes >= 0) & (attributes <= 1)).all()
    learn = made([MixUp(), Check()])
    with learn.no_bar(): learn.fit(1)

def test_averages_are_of_fits_alone(made):
    learn = made([EMA(.9)])
    with learn.no_bar():
        learn.fit_one_cycle(2, 1e-2)
        validated = learn.recorder.values[-1][1]
        close(learn.validate()[0], validated, 1e-5) # validation uses what is kept
        learn.lr_find(num_it=5, show_plot=False) # a mock training averages nothing
        close(learn.validate()[0], validated, 1e-5)
        with learn.added_cbs(Interrupt()): fails(lambda: learn.lr_find(num_it=5, show_plot=False), exc=KeyboardInterrupt)
        learn.fit_one_cycle(1, 1e-2) # an interrupted search does not disable averaging
    equal(learn.ema.n_steps, len(learn.dls.train))

def test_each_phase_gets_its_seconds(monkeypatch):
    clock = SimpleNamespace(now=0.)
    class Takes(Callback):
        "Advances a simulated clock, as if every phase took its time"
        def before_batch(self): clock.now += 2 if self.training else 0
        def after_pred(self): clock.now += 3 if self.training else 1
        def after_backward(self): clock.now += 6
        def before_step(self): clock.now += .5
        def after_epoch(self): clock.now += 1
    monkeypatch.setattr(profile, 'time', SimpleNamespace(perf_counter=lambda: clock.now))
    learn,times = synth_learner(n_trn=5, n_val=2),PhaseTimer()
    with learn.no_logging(),learn.no_bar(): learn.fit(2, cbs=[times, Takes()])
    with times.phase('decision'): clock.now += 4
    # 2 epochs of 5 steps, 2 validation batches each
    equal(times.seconds, dict(loading=20, forward=30, loss=0, backward=60, step=5, validation=4, between=2, decision=4))

def test_loggers_that_do_not_exist_or_are_not_installed():
    def use(log):
        with logger_callbacks(log, '.'): pass
    fails(lambda: use('paper'), exc=InputError, contains="log 'paper' is not known; there are no, tensorboard, wandb")
    for log in ('tensorboard','wandb'):
        if not importlib.util.find_spec(log): fails(lambda: use(log), exc=InputError, contains=f"log = {log} needs {log}, which is not installed here: pip")

def test_data_parallel_alone_changes_nothing_and_refuses_what_it_cannot_add_up(made):
    def recorded(*cbs):
        learn = made(cbs)
        with learn.no_bar(): learn.fit(1)
        return learn.recorder.values
    equal(recorded(), recorded(DataParallel(ALONE)))
    fails(lambda: recorded(DataParallel(Processes(0, 3))), contains='batch_size 32 cannot be divided among 3 processes')
    learn = made([DataParallel(ALONE)])
    learn.metrics = [F1Score()]
    fails(lambda: learn.fit(1), contains='is not a mean over images')

"What a checkpoint holds, which files are refused, and what happens when a fit diverges"
import signal
import numpy as np
import pytest,torch
from fastai.callback.core import Callback
from fastai.optimizer import ranger
from fastai.torch_core import set_seed
from fastcore.foundation import L
from fastcore.test import test_eq as equal,test_fail as fails
from fashion_fastai.callback.checkpoint import Checkpoint,Diverged
from fashion_fastai.callback.state import plain_values
from fashion_fastai.callback.ema import EMA
from fashion_fastai.callback.progressive import ProgressiveResize
from fashion_fastai.core import InputError
from fashion_fastai.data.labels import read_labels
from fashion_fastai.data.loader import fashion_dls
from fashion_fastai.examples import quiet
from fashion_fastai.build import fashion_learner
from fashion_fastai.model.optimizer import fused_adamw

@pytest.fixture
def made(garments, tmp_path):
    "Makes the smallest learner with averages"
    table = read_labels(garments)
    def made(opt_func=fused_adamw, size=(32,24), cbs=()):
        dls = fashion_dls(table, size, batch_size=32, workers=0)
        return quiet(fashion_learner(dls, 'xresnet10', .25, path=tmp_path, opt_func=opt_func, cbs=[EMA(.9), *cbs]))
    return made

def test_a_checkpoint_has_plain_types():
    equal(plain_values(dict(a=np.float64(.1), b=[torch.tensor(2), L(1,2)], c='text')), dict(a=.1, b=[2,[1,2]], c='text'))

def test_files_that_do_not_fit_are_refused(made, tmp_path):
    file = tmp_path/'checkpoint.pt'
    made(ranger).fit_progressive('32x24:1', 1e-2, cbs=Checkpoint(file))
    def refused(reason, epochs='32x24:1'):
        learn,checkpoint = made(),Checkpoint(file, resume=True)
        fails(lambda: learn.fit_progressive(epochs, 1e-2, cbs=checkpoint), exc=InputError, contains=reason)
    refused('is of a training with epochs 1, and this one has 4', epochs='32x24:4')
    refused('does not fit this learner') # it is ranger's
    raw = file.read_bytes()
    file.write_bytes(raw[:len(raw)//2])
    refused('is damaged, or no checkpoint')
    for foreign in ([1,2], dict(format=1)):
        torch.save(foreign, file)
        refused('is no checkpoint')

def test_only_a_fit_writes_a_checkpoint(made, tmp_path):
    learn,file = made(),tmp_path/'quiet.pt'
    with learn.no_bar(),learn.added_cbs(Checkpoint(file, minutes=0)):
        learn.lr_find(num_it=8, show_plot=False)
        learn.validate()
        learn.get_preds()
        assert not file.exists()
        learn.fit(1)
    assert file.exists()

class Explode(Callback):
    "From a certain batch on, the loss is NaN"
    def __init__(self, epoch, batch): self.at = epoch,batch
    def after_loss(self):
        if self.training and (self.epoch, self.iter) >= self.at:
            self.learn.loss_grad,self.learn.loss = self.loss_grad*float('nan'),self.loss*float('nan')

def diverges(learn, message, checkpoint, *cbs):
    "Assert that a fit ends with `message`"
    fails(lambda: learn.fit_one_cycle(3, 1e-2, cbs=[checkpoint, *cbs]), exc=Diverged, contains=message)

def test_a_fit_that_diverges_keeps_the_averages_of_the_last_checkpoint(made, tmp_path):
    handler,file = signal.getsignal(signal.SIGINT),tmp_path/'diverged.pt'
    set_seed(1)
    learn = made()
    diverges(learn, 'in epoch 2, batch 4 of 5', Checkpoint(file), Explode(1,3))
    good = torch.load(file, weights_only=True)
    assert good['epoch'] == 1 and dict(good['callbacks'])['ema']['in_place'] # after an epoch, the model has the averages
    assert all(torch.equal(good['model'][name], o) for name,o in learn.model.named_parameters()) # as at the end of any fit
    assert signal.getsignal(signal.SIGINT) == handler # restored after the fit

def test_a_fit_that_diverges_at_once_keeps_nothing(made, tmp_path):
    set_seed(1)
    learn = made()
    diverges(learn, 'no weights are kept', Checkpoint(tmp_path/'none.pt'), Explode(0,1))
    diverges(learn, 'and was', Checkpoint(tmp_path/'none.pt', divergence_factor=.5))

class RecordSizes(Callback):
    "Records the sizes that reach the model"
    def before_fit(self): self.seen = []
    def after_pred(self):
        note = 'train' if self.training else 'valid',tuple(self.x.shape[-2:])
        if not self.seen or self.seen[-1] != note: self.seen.append(note)

class Interrupt(Callback):
    "Ctrl-C after the first batch"
    order = 99
    def after_batch(self): raise KeyboardInterrupt

def test_stages_are_of_a_fit_alone(made):
    "An interrupted fit leaves loaders and the next fit unchanged; lr_find and predictions are never resized"
    learn,resize = made(size=(64,48), cbs=[RecordSizes()]),ProgressiveResize([((32,24),1), ((64,48),1)])
    with learn.no_bar():
        fails(lambda: learn.fit(1, cbs=[resize, Interrupt()]), exc=KeyboardInterrupt)
        equal(learn.dls.train.one_batch()[0].shape[-2:], (64,48))
        assert resize not in learn.cbs
        learn.add_cb(resize)
        with learn.added_cbs(Interrupt()): fails(lambda: learn.lr_find(num_it=6, show_plot=False), exc=KeyboardInterrupt)
        learn.fit_one_cycle(2)
        seen = [('train',(32,24)), ('valid',(64,48)), ('train',(64,48)), ('valid',(64,48))]
        equal(learn.record_sizes.seen, seen) # an interrupted search does not disable it
        turns = np.diff(np.sign(np.diff(learn.recorder.lrs)))
        equal((len(learn.recorder.lrs), turns[turns != 0].tolist()), (10, [-2])) # one rise and one fall over both stages
        learn.lr_find(num_it=6, show_plot=False)
        equal(set(learn.record_sizes.seen), {('train',(64,48))})
        learn.get_preds()
        equal(set(learn.record_sizes.seen), {('valid',(64,48))})
        learn.remove_cb(resize)
        too_large = ProgressiveResize([((96,72),1)])
        fails(lambda: learn.fit(1, cbs=too_large), exc=InputError, contains='96x72 is larger than the images of the data loaders, 64x48')

def test_the_first_batch_of_a_stage_has_its_size():
    for n in range(1, 60):
        stages = [((32,24),n), ((64,48),60-n)]
        equal(ProgressiveResize(stages).size_at(n/60), (64,48))
    fails(lambda: ProgressiveResize([]), exc=InputError, contains='needs a size')

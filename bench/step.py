"Training throughput: beside the same step on one resident batch, with either stem, and beside an epoch of plain fastai with the same body"
import statistics
from dataclasses import replace
import torch
from fastai.vision.all import Callback,CancelValidException,set_seed,xresnet18
from fashion_fastai.data.loader import pack_table
from fashion_fastai.data.labels import read_labels
from fashion_fastai.build import recipe_learner
from fashion_fastai.recipes.settings import read_recipe
from peer import peer_dls,peer_learner
from record import arguments,data_folder,ratio,rounds,save

def bare_steps(learn, batch, n):
    "`n` training steps of the learner's network, loss and optimiser on one batch, and nothing else"
    learn.model.train()
    image,*targets = (o.as_subclass(torch.Tensor) for o in batch)
    for _ in range(n):
        learn.loss_func(learn.model(image), *targets).backward()
        learn.opt.step()
        learn.opt.zero_grad()

class TrainingOnly(Callback):
    "Leaves validation out"
    def before_validate(self): raise CancelValidException

def train_epoch(learn):
    "The training half of an epoch"
    with learn.no_bar(),learn.no_logging(): learn.fit(1, cbs=TrainingOnly())

def epoch(learn):
    "A whole epoch, with validation"
    with learn.no_bar(),learn.no_logging(): learn.fit(1)

def main():
    args = arguments(__doc__, height=64, width=48, workers=2, short=4000, long=8000)
    size = (args.height, args.width)
    with data_folder(args.data) as (data,cache):
        table = read_labels(data)
        recipe = read_recipe('quick', None, stages=f'{size[0]}x{size[1]}:1', stem='xresnet')
        packed = pack_table(table, size, cache)
        ours,short = (recipe_learner(table.sample(n), recipe, packed) for n in (args.long, args.short))
        whitened = recipe_learner(table.sample(args.short), replace(recipe, stem='whitened'), packed)
        set_seed(0)
        plain_dls = peer_dls(data, size, recipe.batch_size, args.workers, args.long)
        plain = peer_learner(plain_dls, xresnet18(widen=recipe.width))
        n,batch = len(short.dls.train),short.dls.train.one_batch()
        for o in (short, whitened): train_epoch(o) # warms up, and makes the optimiser
        # many short turns, since the difference between these two is small
        close = rounds(3*args.rounds, bare=lambda: bare_steps(short, batch, n), training=lambda: train_epoch(short),
            whitened=lambda: bare_steps(whitened, batch, n))
        whole = rounds(args.rounds, ours=lambda: epoch(ours), fastai=lambda: epoch(plain))
        n_short,n_long = n*recipe.batch_size,min(args.long, len(table))
        layout = ', channels last' if ours.model.channels_last else ''
        rate = lambda o, n: n/statistics.median(o)
        rows = [[f'xresnet18 at half width, {ours.model.precision}{layout}', 'images/s'],
            ['a step on one resident batch', rate(close['bare'], n_short)],
            ['the same step with the stem whitened', rate(close['whitened'], n_short)],
            ['training', rate(close['training'], n_short)],
            ['an epoch with validation', rate(whole['ours'], n_long)],
            [f'the same of plain fastai, fp32, {args.workers} workers', rate(whole['fastai'], n_long)]]
        save('step', args, rows, {
            'steps per second with the stem whitened over those with xresnet': (ratio(close['bare'], close['whitened']), None),
            'training over the bare step': (ratio(close['bare'], close['training']), .95),
            'epoch, ours over plain fastai': (ratio(whole['fastai'], whole['ours']), 2.)})

if __name__ == '__main__': main()

"""On a GPU: training throughput beside the bare step and plain fastai. Images are enlarged from those of the data folder.

On a machine without one, a few small steps check that it works, and nothing is recorded."""
import statistics,tempfile
from pathlib import Path
import pandas as pd, torch
from fashion_fastai.data.loader import pack_table
from fashion_fastai.data.labels import LabelTable,read_labels
from fashion_fastai.learner import recipe_learner
from fashion_fastai.model.multitask import ARCHS
from fashion_fastai.recipes import read_recipe
from peer import peer_dls,peer_learner
from record import arguments,data_folder,ratio,rounds,save
from step import bare_steps,train_epoch

def repeated(table, n):
    "`table` with its training rows repeated until there are `n` of them"
    train,valid = table.frame[~table.is_valid],table.frame[table.is_valid]
    frame = pd.concat([*[train]*(n//len(train)), train[:n%len(train)], valid], ignore_index=True)
    return LabelTable(frame, table.vocab, table.data)

def main():
    args = arguments(__doc__, device='cuda', arch='xresnet50', height=128, width=128, images=45_000, batch_size=128,
        workers=16)
    if args.device == 'cuda' and not torch.cuda.is_available():
        small = dict(device='cpu', arch='xresnet10', height=32, width=32, images=256, rounds=1, workers=1)
        for name,value in dict(small, results=Path(tempfile.mkdtemp())).items(): setattr(args, name, value)
    device,size = torch.device(args.device),(args.height, args.width)
    with data_folder(args.data) as (data,cache):
        table = read_labels(data)
        packed = pack_table(table, size, cache)
        table = repeated(table, args.images)
        keys = dict(stages=f'{args.height}x{args.width}:1', arch=args.arch, batch_size=args.batch_size)
        recipe = read_recipe('gpu', None, **keys)
        ours = recipe_learner(table, recipe, packed)
        plain_dls = peer_dls(data, size, args.batch_size, args.workers).to(device)
        plain = peer_learner(plain_dls, ARCHS[args.arch]())
        def synchronised(work):
            work()
            if device.type == 'cuda': torch.cuda.synchronize()
        n,batch = len(ours.dls.train),ours.dls.train.one_batch()
        train_epoch(ours)
        taken = rounds(args.rounds, bare=lambda: synchronised(lambda: bare_steps(ours, batch, n)),
            training=lambda: synchronised(lambda: train_epoch(ours)), fastai=lambda: synchronised(lambda: train_epoch(plain)))
        n_plain = len(plain_dls.train)
        rate = lambda o, n: n*args.batch_size/statistics.median(o)
        place = 'the GPU' if packed.tensor(device).is_cuda else 'main'
        rows = [[f'{args.arch}, {args.height}x{args.width}, {ours.model.precision}', 'images/s'],
            ['a step on one resident batch', rate(taken['bare'], n)],
            [f'training, images in {place} memory', rate(taken['training'], n)],
            [f'plain fastai, fp32, {args.workers} workers', rate(taken['fastai'], n_plain)]]
        save('gpu', args, rows, {
            'training over the bare step': (ratio(taken['bare'], taken['training']), .9),
            'ours over plain fastai': (ratio(taken['fastai'], taken['training'], n/n_plain), 3)})

if __name__ == '__main__': main()

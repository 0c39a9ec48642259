"""On a GPU: training throughput beside the bare step and plain fastai. Images are enlarged from those of the data folder.

On a machine without one, a few small steps check that it works, and nothing is recorded."""
import statistics,tempfile
from pathlib import Path
import pandas as pd, torch
from fashion_fastai.data.loader import pack_table
from fashion_fastai.data.vocab import LabelTable
from fashion_fastai.data.labels import read_labels
from fashion_fastai.build import recipe_learner
from fashion_fastai.model.multitask import ARCHS
from fashion_fastai.train.plan import plan_training
from fashion_fastai.recipes.settings import read_recipe
from fashion_fastai.train.core import train_run
from peer import peer_dls,peer_learner
from record import arguments,data_folder,ratio,rounds,save
from step import bare_steps,train_epoch

def repeated(table, n):
    "`table` with its training rows repeated until there are `n` of them"
    train,valid = table.frame[~table.is_valid],table.frame[table.is_valid]
    frame = pd.concat([*[train]*(n//len(train)), train[:n%len(train)], valid], ignore_index=True)
    return LabelTable(frame, table.vocab, table.data)

def measured(args, data, cache, batch_size):
    "Images per second of (a bare step, training, plain fastai) at one batch size, the ratios, and the precision of ours"
    device,size = torch.device(args.device),(args.height, args.width)
    table = read_labels(data)
    packed = pack_table(table, size, cache)
    keys = dict(stages=f'{args.height}x{args.width}:1', arch=args.arch, batch_size=batch_size)
    ours = recipe_learner(repeated(table, args.images), read_recipe('gpu', None, **keys), packed)
    plain_dls = peer_dls(data, size, batch_size, args.workers).to(device)
    plain = peer_learner(plain_dls, ARCHS[args.arch]())
    def synchronised(work):
        work()
        if device.type == 'cuda': torch.cuda.synchronize()
    n,n_plain,batch = len(ours.dls.train),len(plain_dls.train),ours.dls.train.one_batch()
    train_epoch(ours)
    taken = rounds(args.rounds, bare=lambda: synchronised(lambda: bare_steps(ours, batch, n)),
        training=lambda: synchronised(lambda: train_epoch(ours)), fastai=lambda: synchronised(lambda: train_epoch(plain)))
    def rate(name, n): return n*batch_size/statistics.median(taken[name])
    rates = rate('bare', n),rate('training', n),rate('fastai', n_plain)
    ratios = ratio(taken['bare'], taken['training']),ratio(taken['fastai'], taken['training'], n/n_plain)
    return rates,ratios,ours.model.precision

def planned_and_real(data, cache, minutes):
    "Minutes that a plan expects, and that its training takes"
    recipe = read_recipe('quick', None, minutes=minutes, cache=str(cache), report=False)
    plan = plan_training(read_labels(data), minutes, recipe)
    with tempfile.TemporaryDirectory() as out: metrics = train_run(data, Path(out)/'run', plan.announce(minutes))
    return plan.minutes,metrics['minutes']

def main():
    args = arguments(__doc__, device='cuda', arch='xresnet50', height=128, width=128, images=45_000, batch_sizes='128 512',
        workers=16, minutes=2.)
    if args.device == 'cuda' and not torch.cuda.is_available():
        small = dict(device='cpu', arch='xresnet10', height=32, width=32, images=256, rounds=1, batch_sizes='64 128', workers=1, minutes=.1)
        for name,value in dict(small, results=Path(tempfile.mkdtemp())).items(): setattr(args, name, value)
    with data_folder(args.data) as (data,cache):
        found = {n: measured(args, data, cache, n) for n in map(int, args.batch_sizes.split())}
        planned,real = planned_and_real(data, cache, args.minutes)
    titles = 'a step on one resident batch','training',f'plain fastai, fp32, {args.workers} workers'
    header = [f'{args.arch}, {args.height}x{args.width}, images/s',
        *(f'batches of {n}, {precision}' for n,(_,_,precision) in found.items())]
    rows = [header, *([title, *(rates[i] for rates,_,_ in found.values())] for i,title in enumerate(titles))]
    figures = {}
    for n,(_,(bare,plain),_) in found.items():
        is_largest = n == max(found) # smaller batches leave a large GPU idle
        figures[f'training over the bare step, batches of {n}'] = bare,.9 if is_largest else None
        figures[f'ours over plain fastai, batches of {n}'] = plain,3 if is_largest else None
    figures['real over planned minutes'] = real/planned,None
    save('gpu', args, rows, figures)

if __name__ == '__main__': main()

"""Study: what each ingredient of training contributes, alone and on top of the basic four, and what it costs.

The validation logits of every training are kept in `--runs` as soon as it ends: a study that was stopped resumes, and several
processes may work on one study. `results/what_helps.csv` has a row for each training."""
import argparse,time
from pathlib import Path
import numpy as np,pandas as pd,torch
from fastai.basics import noop
from filelock import FileLock,Timeout
from record import RESULTS,data_folder,save
from fashion_fastai.callback.tta import mean_logits
from fashion_fastai.data.loader import pack_table
from fashion_fastai.decision.prior import best_constant_set
from fashion_fastai.decision.tune import decide
from fashion_fastai.core import atomic_write
from fashion_fastai.data.labels import read_labels
from fashion_fastai.learner import recipe_learner
from fashion_fastai.recipes import parse_size,read_recipe
from fashion_fastai.metrics import f1_per_image

BASE = dict(arch='xresnet18', width=.5, lr=.006, wd=.01, optimizer='adamw', schedule='one_cycle', attribute_weight=3,
    compile=False)
OFF = dict(flip=False, min_scale=1., lighting=0., label_smoothing=0.)
BASIC = {'mirror images': dict(flip=True), 'mild crops': dict(min_scale=.8), 'lighting': dict(lighting=.1),
    'label smoothing': dict(label_smoothing=.1)}
ALL_FOUR = {k: v for o in BASIC.values() for k,v in o.items()}
MORE = {'averaged weights (EMA)': dict(ema=.998), 'MixUp': dict(mixup=1.), 'CutMix': dict(cutmix=.5),
    'random erasing': None, # no longer a key of recipes: only its recorded rows remain
    'blurred pooling': dict(blur_pool=True), 'dropout': dict(dropout=.2), 'attribute weight 1': dict(attribute_weight=1.),
    'attribute weight 2': dict(attribute_weight=2.), 'attribute weight 6': dict(attribute_weight=6.),
    'learned weights': dict(attribute_weight=None), 'Ranger, flat-cos': dict(optimizer='ranger', schedule='flat_cos'),
    'progressive resizing': dict(small=True)}
ALONE = {'category alone': dict(attribute_weight=0.), 'attributes alone': dict(category_weight=0.)}
# name -> keys of the recipe, or None: what the study trains, in the order of its table
STUDY = {'plain': OFF, **{k: {**OFF, **v} for k,v in BASIC.items()}, 'basic': ALL_FOUR,
         **{k: None if v is None else {**ALL_FOUR, **v} for k,v in {**MORE, **ALONE}.items()}}

def views(learn, sizes):
    "The logits of the validation images at each of `sizes`, and of their mirror images"
    dl,logits = learn.dls.valid.new(),{}
    size = dl.crop.size
    try:
        for o in sizes:
            dl.crop.size = o
            for mirror in (False,True):
                batches = [(x.flip(-1) if mirror else x, *y) for x,*y in dl]
                with learn.no_bar(): category,attributes = learn.get_preds(dl=batches, act=noop)[0]
                logits[f"{'x'.join(map(str, o))}{'-mirror'*mirror}"] = torch.cat([category, attributes], 1).numpy()
    finally: dl.crop.size = size
    return logits

def train(table, packed, keys, seed, stages, test_size, out):
    "Train once, and write the logits and the minutes to `out`"
    keys = {**BASE, 'stages': stages, 'test_size': test_size, **keys, 'seed': seed}
    if keys.pop('small', False): # as many steps at two thirds of the size, at less cost
        (height,width),epochs = (int(o) for o in stages.split(':')[0].split('x')),float(stages.split(':')[1])
        keys['stages'] = f"{height*2//3}x{width*2//3}:{epochs/2:g} {height}x{width}:{epochs/2:g}"
    recipe = read_recipe('quick', **keys)
    learn = recipe_learner(table, recipe, packed)
    start,cpu = time.perf_counter(),time.process_time()
    with learn.no_bar(),learn.no_logging(): learn.fit_recipe(recipe)
    minutes = (time.perf_counter() - start)/60
    core_minutes = (time.process_time() - cpu)/60
    logits = views(learn, [recipe.sizes[-1][0], recipe.size])
    with atomic_write(out) as f:
        with f.open('wb') as file: np.savez(file, minutes=minutes, core_minutes=core_minutes, **logits)

def name_and_seed(file):
    "What the name of a training's file says"
    name,seed = file.stem.rsplit('-', 1)
    return name.replace('_', ' '),int(seed)

def score(file, table, stages, test_size):
    "The row of the training in `file`: accuracy and the cross-fitted Mean F1 of each rule; with TTA; at the larger size"
    category,attributes = (torch.tensor(o[table.is_valid]) for o in (table.categories, table.attributes))
    training_sets = torch.tensor(table.attributes[~table.is_valid])
    stored,n = np.load(file),len(table.vocab.categories)
    def logits(view): return torch.tensor(stored[view][:, :n]),torch.tensor(stored[view][:, n:])
    def scores(logits):
        accuracy = (logits[0].argmax(1) == category).float().mean().item()
        return accuracy,decide(logits, category, attributes, training_sets)
    size = stages.split()[-1].split(':')[0]
    accuracy,decision = scores(logits(size))
    mirror_accuracy,mirror = scores(mean_logits([logits(size), logits(f'{size}-mirror')]))
    large_accuracy,large = scores(logits(test_size))
    best = lambda decision: max(decision.scores.values())
    name,seed = name_and_seed(file)
    row = dict(name=name, seed=seed, accuracy=accuracy, mean_f1=best(decision), rule=decision.name, **decision.scores,
        mirror_accuracy=mirror_accuracy, mirror_mean_f1=best(mirror), large_accuracy=large_accuracy, large_mean_f1=best(large),
        minutes=float(stored['minutes']), core_minutes=float(stored['core_minutes']))
    return {k: round(v, 5) if isinstance(v, float) else v for k,v in row.items()}

def write_rows(runs, csv, *args):
    "Add the rows of new trainings in folder `runs` to `csv`; returns all its rows"
    with FileLock(runs/'table.lock'):
        table = pd.read_csv(csv) if csv.is_file() else pd.DataFrame(dict(name=[], seed=[]))
        known = set(zip(table.name, table.seed))
        new = [score(o, *args) for o in sorted(runs.glob('*.npz')) if name_and_seed(o) not in known]
        if new:
            order = list(STUDY)
            table = pd.concat([table, pd.DataFrame(new)]) if len(table) else pd.DataFrame(new)
            table = table.sort_values(['seed','name'], key=lambda o: o.map(order.index) if o.name == 'name' else o)
            with atomic_write(csv) as f: table.to_csv(f, index=False)
    return table

def summary(table):
    "A row for each name: means with standard deviations over the seeds, and minutes; without scores of an untrained part"
    def mean(o): return f'{o.mean():.4f} ± {o.std():.4f}' if len(o) > 1 else f'{o.mean():.4f}'
    rows = [['training','accuracy','mean F1','core minutes']]
    for name,o in table.groupby('name', sort=False):
        accuracy = '' if name == 'attributes alone' else mean(o.accuracy)
        mean_f1 = '' if name == 'category alone' else mean(o.mean_f1)
        rows.append([name, accuracy, mean_f1, float(o.core_minutes.mean())])
    return rows

def figures(table, labels):
    "Scores of the constant predictions, what the tuned decision brings in every training, and what sharing a body does"
    category,attributes = (torch.tensor(o) for o in (labels.categories, labels.attributes))
    train,valid = torch.tensor(~labels.is_valid),torch.tensor(labels.is_valid)
    constant = best_constant_set(attributes[train]).expand_as(attributes[valid])
    largest = (category[valid] == category[train].mode().values).float()
    both = table[table.name != 'category alone']
    found = {'accuracy of the largest class': (largest.mean().item(), None),
        'Mean F1 of the best constant label set': (f1_per_image(constant, attributes[valid]).mean().item(), None),
        'least gain in Mean F1 of a tuned decision over threshold 0.5': ((both.mean_f1-both.half).min(), 0)}
    named = dict(list(table.groupby('name')))
    if {'basic','category alone','attributes alone'} <= set(named):
        basic,category,attributes = (named[o] for o in ('basic','category alone','attributes alone'))
        both_minutes = category.core_minutes.mean() + attributes.core_minutes.mean()
        found |= {
            'accuracy of one network for both tasks, less that of one for the category':
                (basic.accuracy.mean() - category.accuracy.mean(), None),
            'Mean F1 of one network for both tasks, less that of one for the attributes':
                (basic.mean_f1.mean() - attributes.mean_f1.mean(), None),
            'cost of one network for both tasks, over two networks': (basic.core_minutes.mean()/both_minutes, None)}
    return found

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('data', nargs='?', help='folder with train.csv and val.csv (default: 6,000 synthetic garments)')
    parser.add_argument('--runs', type=Path, default='what_helps_runs', help='folder for the logits of each training')
    parser.add_argument('--results', type=Path, default=RESULTS,
        help='folder for the table (default: results/ beside the bench)')
    parser.add_argument('--stages', default='40x30:4', help='one stage: HEIGHTxWIDTH:EPOCHS (default: 40x30:4)')
    parser.add_argument('--test-size', default='48x36',
        help='HEIGHTxWIDTH, a larger size that is tried in prediction (default: 48x36)')
    parser.add_argument('--rounds', type=int, default=3, help='trainings of each, with seeds 1, 2, … (default: 3)')
    parser.add_argument('--only', nargs='+', help='names of the study (default: all)')
    args = parser.parse_args()
    for o in (args.runs, args.results): o.mkdir(parents=True, exist_ok=True)
    trained = {name: keys for name,keys in STUDY.items() if keys is not None and name in (args.only or STUDY)}
    with data_folder(args.data) as (data,cache):
        table = read_labels(data)
        packed = pack_table(table, parse_size(args.test_size), cache, progress=None)
        for seed in range(1, args.rounds+1):
            for name,keys in trained.items():
                out = args.runs/f"{name.replace(' ', '_')}-{seed}.npz"
                try:
                    with FileLock(out.with_suffix('.lock'), timeout=0):
                        if out.exists(): continue
                        train(table, packed, keys, seed, args.stages, args.test_size, out)
                        print(f'{name}, seed {seed}', flush=True)
                except Timeout: continue # another process trains it
                write_rows(args.runs, args.results/'what_helps.csv', table, args.stages, args.test_size)
        rows = write_rows(args.runs, args.results/'what_helps.csv', table, args.stages, args.test_size)
    save('what_helps', args, summary(rows), figures(rows, table))

if __name__ == '__main__': main()

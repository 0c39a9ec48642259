"""Study: the scores of a training by its data, image size, epochs and width, on which plans rest; and what single ingredients change.

Each training's row is added to `results/study.csv` when it ends: a study that was stopped resumes, and several processes (`--jobs`)
may work on one study. Times are not compared: trainings run side by side."""
import argparse,itertools,subprocess,sys,time
from dataclasses import dataclass
from pathlib import Path
import numpy as np,pandas as pd,torch
from fastai.basics import noop
from filelock import FileLock,Timeout
from torch import nn
from fashion_fastai.data.labels import read_labels
from fashion_fastai.data.loader import pack_table
from fashion_fastai.data.textures import draw_textures
from fashion_fastai.decision.tune import decide
from fashion_fastai.build import recipe_learner
from fashion_fastai.train.search import expected_deficit,two_stages
from fashion_fastai.core import fmt_size
from fashion_fastai.recipes.recipe import parse_stages
from fashion_fastai.recipes.settings import read_recipe
from record import RESULTS,save
from step import TrainingOnly

@dataclass(frozen=True)
class Arm:
    "One training: its data set, the keys of its recipe, and what is changed in the network"
    data:str
    stages:str
    keys:tuple = () # (key, value)
    change:str = '' # no_pool
    group:str = 'grid'
    @property
    def name(self): return ' '.join([self.stages, *(f'{k}={v}' for k,v in self.keys), *([self.change] if self.change else [])])

def stages(height, epochs):
    "As a plan's, of images that are three quarters as wide as high"
    return ' '.join(f'{fmt_size(size)}:{n}' for size,n in two_stages((height, height*3//4), epochs))

def arms(data, heights, epochs, widths=(.5,)):
    found = itertools.product(widths, epochs, heights)
    return [Arm(data, stages(h, n), (('width', w),)) for w,n,h in found]

QUICK,SHORT,LONG = '48x36:4 72x54:6','48x36:3 64x48:4','48x36:12 80x60:18'
def changed(group, text, change='', **keys): return Arm('catalogue', text, tuple(keys.items()), change, group)
INGREDIENTS = [changed('quick', QUICK, *change, **keys) for change,keys in [
    ((), {}), ((), dict(optimizer='muon')), ((), dict(attribute_weight=2)), ((), dict(lr=.012)), ((), dict(lr=.003)),
    (('no_pool',), dict(width=.25)), ((), dict(wd=.05)), ((), dict(batch_size=32, lr=.004)), ((), dict(batch_size=128, lr=.01)),
    ((), dict(min_scale=.9))]]
INGREDIENTS.insert(6, changed('quick', '32x24:4 48x36:6', 'no_pool'))
MORE = [changed('quick', QUICK, **keys) for keys in (dict(label_smoothing=.05), dict(ema=.995), dict(dropout=.1), dict(blur_pool='yes'),
    dict(wd=.001))]
SHORTER = [changed('short', SHORT, *change, attribute_weight=1.5, **keys) for change,keys in [
    ((), {}), ((), dict(lr=.01)), ((), dict(min_scale=.9)), ((), dict(optimizer='muon'))]]
LONGER = [changed('long', LONG, *change, attribute_weight=4, **keys) for change,keys in [
    ((), {}), ((), dict(ema=.998)), ((), dict(optimizer='muon'))]]
CATALOGUE = (48,64,80)
TEXTURES = (80,128,192)
GRID = [*arms('catalogue', CATALOGUE, (4,8,16)), *arms('textures', TEXTURES, (8,16,32)),
    *arms('catalogue 4000', CATALOGUE, (8,16,32)), *arms('catalogue 1000', CATALOGUE, (16,32,64)),
    *arms('textures 1000', TEXTURES, (16,32,64))]
WIDE = [*arms('catalogue', CATALOGUE, (4,8,16), (1,)),
    *arms('catalogue 4000', CATALOGUE, (8,16), (1,)), *arms('catalogue 1000', CATALOGUE, (16,32), (1,)),
    *arms('textures', TEXTURES, (8,16), (1,)), *arms('textures 1000', TEXTURES, (16,32), (1,))]
MUON = [Arm(o.data, o.stages, (*o.keys, ('optimizer', 'muon')), group='muon') for o in GRID[::9]] # the shortest training of each data set
SMALL = ('batch_size', 32), ('lr', .0042)
SMALL_BATCHES = [
    *(Arm(data, stages(h, 16), SMALL, group='batch')
        for data,h in (('textures 1000', 128), ('catalogue 1000', 80), ('catalogue 1000', 48))),
    # the trainings of a small budget, as a plan trains there
    *(Arm('textures 1000', stages(h, n), (('optimizer', 'muon'), *SMALL), group='batch') for h,n in ((128,16), (80,32), (80,16)))]
# (training, seed): what matters most comes first
STUDY = [(o, seed) for seeds,group in (((1,), LONGER), ((1,), GRID), ((1,), MUON), ((1,2), INGREDIENTS), ((1,2), SHORTER),
    ((1,), SMALL_BATCHES), ((1,), WIDE), ((3,), INGREDIENTS), ((3,), SHORTER), ((1,), MORE), ((2,3), LONGER), ((2,), GRID),
    ((2,), MORE), ((2,), SMALL_BATCHES))
    for seed in seeds for o in group]

def subset(table, n):
    "`table` with `n` of its training images, and all validation images"
    order = np.random.default_rng(0).permutation(np.flatnonzero(~table.is_valid))
    return table.without(np.array(table.images)[order[n:]])

class Data:
    "The data sets of the study, each read when it is needed"
    def __init__(self, catalogue, folder):
        self.catalogue,self.folder,self.tables = catalogue,Path(folder),{}
    def __getitem__(self, name):
        if name not in self.tables:
            kind,*n = name.split()
            if kind == 'textures': self.draw()
            table = read_labels(self.catalogue if kind == 'catalogue' else self.folder/'textures')
            self.tables[name] = subset(table, int(n[0])) if n else table
        return self.tables[name]
    def draw(self, n=5000):
        with FileLock(self.folder/'textures.lock'):
            if not (self.folder/'textures').exists(): draw_textures(self.folder/'textures', n=n, splits=(.78,.2,.02))
    def packed(self, name, size, workers):
        "The images of a whole set, which subsets share"
        return pack_table(self[name.split()[0]], size, self.folder/'cache', progress=None, workers=workers)

def learner(arm, table, packed, recipe):
    learn = recipe_learner(table, recipe, packed)
    if 'no_pool' in arm.change:
        body = learn.model[0]
        for i,o in enumerate(body):
            if isinstance(o, nn.MaxPool2d): body[i] = nn.Identity()
    return learn

BASE = dict(precision='fp32', optimizer='adamw', attribute_weight=3)

def train(arm, seed, data, workers):
    "The row of a training"
    recipe = read_recipe('quick', None, **{**BASE, 'stages': arm.stages, 'seed': seed, 'workers': workers, **dict(arm.keys)})
    table = data[arm.data]
    learn = learner(arm, table, data.packed(arm.data, recipe.size, workers), recipe)
    if learn.dls.device.type == 'cuda' and recipe.size[0] > 80: learn.model.to_precision('bf16', True)
    start = time.perf_counter()
    with learn.no_bar(),learn.no_logging(): learn.fit_recipe(recipe, cbs=[TrainingOnly()])
    seconds = time.perf_counter() - start
    valid = table.is_valid
    labels,sets = torch.tensor(table.categories[valid]),torch.tensor(table.attributes[valid]).float()
    training_sets = torch.tensor(table.attributes[~valid])
    def scores(o):
        accuracy = (o[0].argmax(1) == labels).float().mean().item()
        return round(accuracy, 5),round(decide(o, labels, sets, training_sets).mean_f1, 5)
    with learn.no_bar(): (accuracy,f1),(tta_accuracy,tta_f1) = scores(learn.get_preds(act=noop)[0]),scores(learn.tta(act=noop)[0])
    print(f'{arm.name}, seed {seed}: {seconds:.0f} s', flush=True)
    return dict(group=arm.group, data=arm.data, name=arm.name, seed=seed, stages=arm.stages, width=recipe.width, epochs=recipe.n_epochs,
        n_train=int((~valid).sum()), accuracy=accuracy, mean_f1=f1, tta_accuracy=tta_accuracy, tta_mean_f1=tta_f1,
        device=torch.cuda.get_device_name() if learn.dls.device.type == 'cuda' else 'CPU', precision=learn.model.precision)

def is_trained(csv, lock, arm, seed):
    "Whether the table has this training"
    with lock:
        if not csv.exists(): return False
        return [arm.group, arm.data, arm.name, seed] in pd.read_csv(csv)[['group','data','name','seed']].values.tolist()

def work(args):
    "Train what no other process has trained"
    data,csv,lock = Data(Path(args.data), args.folder),args.results/'study.csv',FileLock(args.folder/'csv.lock')
    for arm,seed in STUDY:
        if args.only and arm.group not in args.only and arm.data not in args.only: continue
        if time.time() > args.until: return
        name = f'{arm.group} {arm.data} {arm.name} {seed}'.replace(' ', '_').replace(':', '-')
        try:
            with FileLock(args.folder/f'{name}.lock', timeout=0):
                if is_trained(csv, lock, arm, seed): continue
                row = train(arm, seed, data, args.workers)
                with lock: pd.DataFrame([row]).to_csv(csv, mode='a', index=False, header=not csv.exists())
        except Timeout: continue

def gains(table):
    "Points of each score that Muon adds to AdamW, mean over the data sets"
    both = table[table.group == 'muon'].merge(table[(table.group == 'grid') & (table.width == .5)], on=['data','stages','seed'])
    names = {'accuracy': 'tta_accuracy', 'Mean F1': 'tta_mean_f1'} if len(both) else {}
    return {f'points of {name} that Muon adds, mean': (100*(both[f'{o}_x'] - both[f'{o}_y']).mean(), None) for name,o in names.items()}

def summary(table):
    "A row per data set and budget: the training of those that fit with the smallest expected deficit, and by how much the best are better"
    rows,behind = [['data','budget','by the rule','accuracy','mean F1','best accuracy','best mean F1']],[]
    for name,o in table[(table.group == 'grid') & (table.width == .5) & (table.seed == 1)].groupby('data'):
        sizes = o.stages.map(parse_stages)
        cost = sizes.map(lambda stages: sum(h*w*n for (h,w),n in stages)) # pixels of an image that pass through the network
        own = 300 if name.startswith('textures') else 80
        deficit = pd.Series([expected_deficit(s[-1][0][0]/own, *more) for s,*more in zip(sizes, o.epochs, o.n_train)], o.index)
        for budget,limit in zip(('small','middle','large'), cost.quantile([.35, .6, 1], interpolation='nearest')):
            fitting = o[cost <= limit]
            planned = fitting.loc[deficit[fitting.index].idxmin()]
            scores = [planned.tta_accuracy, planned.tta_mean_f1, fitting.tta_accuracy.max(), fitting.tta_mean_f1.max()]
            rows.append([name, budget, planned.stages, *(f'{o:.4f}' for o in scores)])
            behind.append([100*(scores[2] - scores[0]), 100*(scores[3] - scores[1])])
    accuracy,mean_f1 = np.array(behind).T
    return rows,{'points of accuracy by which the best of the grid is better, mean': (accuracy.mean(), None),
        'points of Mean F1 by which the best of the grid is better, mean': (mean_f1.mean(), None),
        'points of Mean F1 by which the best of the grid is better, median': (np.median(mean_f1), None), **gains(table)}

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('data', help='folder with train.csv and val.csv: the catalogue')
    parser.add_argument('--folder', type=Path, default='study', help='for drawn images, caches and locks (default: study)')
    parser.add_argument('--results', type=Path, default=RESULTS, help='folder for the table (default: results/ beside the bench)')
    parser.add_argument('--jobs', type=int, default=1, help='processes (default: 1)')
    parser.add_argument('--workers', type=int, default=1, help='threads of each (default: 1)')
    parser.add_argument('--minutes', type=float, default=1e6, help='begin no training after so long')
    parser.add_argument('--until', type=float, help=argparse.SUPPRESS)
    parser.add_argument('--only', nargs='+', help='groups or data sets (default: all)')
    args = parser.parse_args()
    for o in (args.folder, args.results): o.mkdir(parents=True, exist_ok=True)
    if args.until: return work(args) # one of several
    args.until = time.time() + 60*args.minutes
    words = [sys.executable, '-W', 'ignore', __file__, *sys.argv[1:], '--until', str(args.until)]
    running = [subprocess.Popen(words) for _ in range(args.jobs)]
    if any([o.wait() for o in running]): sys.exit('a process ended with an error; its rows so far are kept')
    table,args.rounds = pd.read_csv(args.results/'study.csv'),1
    gpus = ', '.join(sorted(set(table.device) - {'CPU'}))
    if (table.group == 'grid').any(): save('study', args, *summary(table), gpu=gpus or None)

if __name__ == '__main__': main()

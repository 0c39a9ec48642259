"""Study: what each ingredient of a training changes: trainings that differ in it alone, with the same seeds.

The validation logits of every training are kept in `--runs` as soon as it ends: a study that was stopped resumes, and several
processes may work on one study. `results/STUDY.csv` has a row for each training."""
import argparse,time
from pathlib import Path
import numpy as np,pandas as pd,torch
from fastai.basics import noop
from filelock import FileLock,Timeout
from record import RESULTS,data_folder,save
from fashion_fastai.data.loader import pack_table
from fashion_fastai.decision.prior import best_constant_set,known_shares
from fashion_fastai.decision.tune import decide
from fashion_fastai.core import atomic_write
from fashion_fastai.data.labels import read_labels
from fashion_fastai.data.vocab import LabelTable
from fashion_fastai.build import recipe_learner
from fashion_fastai.recipes.recipe import parse_stages
from fashion_fastai.recipes.settings import read_recipe
from fashion_fastai.metrics import average_precision,f1_per_image,f1_scores
from step import TrainingOnly
from study import subset

BASE = dict(precision='fp32', attribute_weight=3., test_size='auto') # the rest as in recipe quick
# name -> keys of the recipe that differ, in the order of the table
STUDY = {'basic': {}, 'AdamW in place of Muon': dict(optimizer='adamw'), 'without mirror images': dict(flip=False),
    'without crops': dict(min_scale=1.), 'without lighting': dict(lighting=0.), 'without label smoothing': dict(label_smoothing=0.),
    'with MixUp': dict(mixup=1.), 'category alone': dict(attribute_weight=0.), 'attributes alone': dict(category_weight=0.)}
BALANCE = {'equal weights': {}, 'power 0.25': dict(attribute_balance=.25), 'power 0.5': dict(attribute_balance=.5),
    'asymmetric': dict(attribute_balance='asymmetric')}
# what keeps a training of many epochs from learning its images by heart, and what else its minutes would buy
LONG = {'as quick': {}, 'CutMix': dict(cutmix=.5), 'CutMix in every batch': dict(cutmix=1.), 'small crops': dict(min_scale=.35, dropout=.2),
    'wide': dict(width=1.), 'wide, CutMix': dict(width=1., cutmix=.5)}
STUDIES = dict(what_helps=STUDY, balance=BALANCE, long=LONG)
N_RARE = 5 # of the attributes, whose average precision the study of balance has beside that of all

def train(table, packed, keys, seed, stages, out):
    "Train once, and write the logits and the minutes to `out`"
    recipe = read_recipe('quick', None, **{**BASE, 'stages': stages, **keys, 'seed': seed})
    learn = recipe_learner(table, recipe, packed)
    start,cpu = time.perf_counter(),time.process_time()
    with learn.no_bar(),learn.no_logging(): learn.fit_recipe(recipe, cbs=[TrainingOnly()])
    minutes = (time.perf_counter() - start)/60
    core_minutes = (time.process_time() - cpu)/60
    with learn.no_bar():
        logits = {name: joined(predict(act=noop)[0], table.vocab) for name,predict in (('images', learn.get_preds), ('tta', learn.tta))}
    with atomic_write(out) as f:
        with f.open('wb') as file: np.savez(file, minutes=minutes, core_minutes=core_minutes, **logits)

def joined(logits, vocab):
    "Logits of both parts beside each other; 0 for a part that was not trained"
    sizes = len(vocab.categories),len(vocab.attributes)
    return torch.cat([o if o.shape[1] else o.new_zeros(len(o), n) for o,n in zip(logits, sizes)], 1).numpy()

def name_and_seed(file):
    "What the name of a training's file says"
    name,seed = file.stem.rsplit('-', 1)
    return name.replace('_', ' '),int(seed)

def score(file, table):
    "The row of the training in `file`: accuracy and the cross-fitted Mean F1 of each rule; the same with mirror images"
    category,attributes = (torch.tensor(o[table.is_valid]) for o in (table.categories, table.attributes))
    training_sets = torch.tensor(table.attributes[~table.is_valid])
    stored,n = np.load(file),len(table.vocab.categories)
    def logits(view): return torch.tensor(stored[view][:, :n]),torch.tensor(stored[view][:, n:])
    def scores(logits):
        accuracy = (logits[0].argmax(1) == category).float().mean().item()
        return accuracy,decide(logits, category, attributes, training_sets)
    accuracy,decision = scores(logits('images'))
    precisions = average_precision(logits('images')[1].numpy(), attributes.numpy())
    rarest = known_shares(training_sets.numpy()).argsort()[:N_RARE]
    mirror_accuracy,mirror = scores(logits('tta'))
    name,seed = name_and_seed(file)
    row = dict(name=name, seed=seed, accuracy=accuracy, mean_f1=decision.mean_f1, rule=decision.name, **decision.scores,
        mirror_accuracy=mirror_accuracy, mirror_mean_f1=mirror.mean_f1,
        macro_f1=f1_scores(decision.predicted, attributes.numpy()).macro, mean_average_precision=float(np.nanmean(precisions)),
        rare_average_precision=float(np.nanmean(precisions[rarest])),
        minutes=float(stored['minutes']), core_minutes=float(stored['core_minutes']))
    return {k: round(v, 5) if isinstance(v, float) else v for k,v in row.items()}

def write_rows(runs, csv, table, names, setting):
    "Add the rows of new trainings in folder `runs`, all of one `setting`, to `csv`, in the order of `names`; returns all its rows"
    with FileLock(runs/'table.lock'):
        rows = pd.read_csv(csv) if csv.is_file() else pd.DataFrame(dict(name=[], seed=[], **{o: [] for o in setting}))
        same = rows[np.all([rows[key] == value for key,value in setting.items()], axis=0)] if setting else rows
        present = set(zip(same.name, same.seed))
        new = [{**setting, **score(o, table)} for o in sorted(runs.glob('*.npz')) if name_and_seed(o) not in present]
        if new:
            order = list(names)
            rows = pd.concat([rows, pd.DataFrame(new)]) if len(rows) else pd.DataFrame(new)
            rows = rows.sort_values([*setting, 'seed', 'name'], key=lambda o: o.map(order.index) if o.name == 'name' else o)
            with atomic_write(csv) as f: rows.to_csv(f, index=False)
    return rows

def summary(table):
    "A row for each name: means with standard deviations over the seeds, and minutes; without scores of an untrained part"
    def mean(o): return f'{o.mean():.4f} ± {o.std():.4f}' if len(o) > 1 else f'{o.mean():.4f}'
    rows = [['training','accuracy','mean F1','core minutes']]
    for name,o in table.groupby('name', sort=False):
        accuracy = '' if name == 'attributes alone' else mean(o.accuracy)
        mean_f1 = '' if name == 'category alone' else mean(o.mean_f1)
        rows.append([name, accuracy, mean_f1, float(o.core_minutes.mean())])
    return rows

_SCORES = dict(accuracy='accuracy', mean_f1='mean F1', mirror_accuracy='accuracy with mirror images',
    mirror_mean_f1='mean F1 with mirror images', macro_f1='macro F1', mean_average_precision='mAP',
    rare_average_precision=f'mAP of the {N_RARE} rarest')

def paired_summary(table, study, setting):
    "A row for each setting and name: means over the seeds, and differences in points from the first name, with standard errors"
    rows,first_name = [[*setting, 'training', *_SCORES.values(), 'seeds']],next(iter(study))
    for values,same in table.groupby([*setting], sort=False) if setting else [((), table)]:
        first = same[same.name == first_name].set_index('seed')
        for name,o in same.groupby('name', sort=False):
            o,cells = o.set_index('seed'),[]
            for key in _SCORES:
                points = 100*(o[key] - first[key]).dropna()
                difference = f' ({points.mean():+.2f} ± {points.sem():.2f})' if len(points) > 1 else f' ({points.mean():+.2f})'
                cells.append(f'{o[key].mean():.4f}' + (difference if name != first_name else ''))
            rows.append([*values, name, *cells, ' '.join(map(str, o.index))])
    return rows

def figures(table, labels):
    "Scores of the constant predictions, what the tuned decision brings in every training, and what sharing a body does"
    category,attributes = (torch.tensor(o) for o in (labels.categories, labels.attributes))
    train,valid = torch.tensor(~labels.is_valid),torch.tensor(labels.is_valid)
    constant = np.broadcast_to(best_constant_set(attributes[train]), attributes[valid].shape)
    largest = (category[valid] == category[train].mode().values).float()
    both = table[table.name != 'category alone']
    found = {'accuracy of the largest class': (largest.mean().item(), None),
        'Mean F1 of the best constant label set': (f1_per_image(constant, attributes[valid]).mean(), None),
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

def with_rest(table, n):
    "`table` with the training images of `subset`; all others are for validation"
    kept = set(subset(table, n).images)
    is_valid = table.is_valid | [o not in kept for o in table.images]
    return LabelTable(table.frame.assign(is_valid=is_valid), table.vocab, table.data, table.images)

def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('data', nargs='?', help='folder with train.csv and val.csv (default: 6,000 synthetic garments)')
    parser.add_argument('--runs', type=Path, default='what_helps_runs', help='folder for the logits of each training')
    parser.add_argument('--results', type=Path, default=RESULTS,
        help='folder for the table (default: results/ beside the bench)')
    parser.add_argument('--stages', default='40x30:20', help='stages of all trainings (default: 40x30:20)')
    parser.add_argument('--images', type=int, default=4000, help='training images (default: 4,000)')
    parser.add_argument('--rounds', type=int, default=4, help='trainings of each, with seeds 1, 2, … (default: 4)')
    parser.add_argument('--study', choices=STUDIES, default='what_helps',
        help='balance: weights for rare attributes; long: crops, dropout, CutMix and width in many epochs (default: what_helps)')
    parser.add_argument('--overrides', default='', help='keys of all trainings, such as width=0.25 epochs=8')
    parser.add_argument('--rest', action='store_true', help='also score the training images that are not trained on')
    parser.add_argument('--only', nargs='+', metavar='NAME', help='names of the study (default: all)')
    args = parser.parse_args()
    setting = dict(images=args.images, stages=args.stages) if args.study == 'long' else {} # its table has several
    study,csv = STUDIES[args.study],args.results/f'{args.study}.csv'
    if unknown := set(args.only or ()) - set(study): parser.error(f"no {sorted(unknown)[0]} in study {args.study}: {', '.join(study)}")
    overrides = dict(o.split('=') for o in args.overrides.split())
    for o in (args.runs, args.results): o.mkdir(parents=True, exist_ok=True)
    with data_folder(args.data) as (data,cache):
        table = read_labels(data)
        table = with_rest(table, args.images) if args.rest else subset(table, args.images)
        packed = pack_table(table, parse_stages(args.stages)[-1][0], cache, progress=None)
        for seed in range(1, args.rounds+1):
            for name in args.only or study:
                out = args.runs/f"{name.replace(' ', '_')}-{seed}.npz"
                try:
                    with FileLock(out.with_suffix('.lock'), timeout=0):
                        if out.exists(): continue
                        train(table, packed, {**overrides, **study[name]}, seed, args.stages, out)
                        print(f'{name}, seed {seed}', flush=True)
                except Timeout: continue # another process trains it
                write_rows(args.runs, csv, table, study, setting)
        rows = write_rows(args.runs, csv, table, study, setting)
    if args.study == 'what_helps': save('what_helps', args, summary(rows), figures(rows, table))
    else: save(args.study, args, paired_summary(rows, study, setting), {})

if __name__ == '__main__': main()

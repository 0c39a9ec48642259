"""Labels that `fashion suggest` saves: networks of images that it chose, beside networks of as many images at random.

Every round of labelling trains from scratch, with as many steps as all others; at random, only every second round does.
Networks are kept in `--out`: a bench that was stopped resumes."""
import tempfile
from dataclasses import replace
from pathlib import Path
import numpy as np
from fashion_fastai.data.labels import read_labels
from fashion_fastai.metrics import f1_per_image
from fashion_fastai.recipes.settings import read_recipe
from fashion_fastai.similar.embed import embed_images
from fashion_fastai.similar.suggest import suggested_rows
from curves import train
from record import arguments,save

SCORES = 'accuracy','mean F1'

def seen(run, table, rows):
    "Embeddings of some images"
    return embed_images(run, [table.images[i] for i in rows])

def scores(run, table, rows):
    "Accuracy and Mean F1, in percent"
    found = seen(run, table, rows).predictions
    f1 = f1_per_image(found.attributes, table.attributes[rows])
    return 100*np.mean(found.category == table.categories[rows]),100*f1.mean()

def more_rows(run, table, rows, n, seed):
    "`n` rows of training images that are not among `rows`: by `suggest`, or at random without a `run`"
    others = np.setdiff1d(np.flatnonzero(~table.is_valid), rows)
    if run is None: return np.random.default_rng([seed, len(rows)]).permutation(others)[:n]
    images = [table.images[i] for i in others]
    return others[suggested_rows(seen(run, table, others), n, images, [table.images[i] for i in rows], seed)]

def rounds_of(arm, table, recipe, args, out):
    "Number of labels, accuracy and Mean F1 of each round of one arm and seed; NaN where no network was trained"
    valid,found,before = np.flatnonzero(table.is_valid),[],None
    for i in range(args.steps + 1):
        run = out/(f'{arm}-{recipe.seed}-{i}' if i else f'first-{recipe.seed}')
        rows_file = run.with_suffix('.npy')
        if rows_file.is_file(): rows = np.load(rows_file)
        elif i == 0: rows = more_rows(None, table, [], args.first, recipe.seed)
        else:
            chosen = more_rows(before if arm == 'suggest' else None, table, rows, args.step, recipe.seed)
            rows = np.concatenate([rows, chosen])
        np.save(rows_file, rows)
        if arm == 'random' and i%2:
            found.append((len(rows), np.nan, np.nan))
            continue
        train(table, rows, valid[:args.deciding], run, replace(recipe, epochs=round(args.seen/len(rows))))
        found.append((len(rows), *scores(run, table, valid[args.deciding:])))
        print(arm, recipe.seed, *found[-1], flush=True)
        before = run
    return found

def line(points):
    "(slope, start) of scores by the logarithm of the labels; rows of `points` are (labels, score)"
    points = points[~np.isnan(points[:,1])]
    return np.polyfit(np.log(points[:,0]), points[:,1], 1)

def main():
    args = arguments(__doc__, out='', stages='24x18:2 40x30:3', first=1000, step=200, steps=10, seen=60_000, deciding=500,
        aim=2000) # random labels, with whose score those of the suggestions are compared
    table,out,arms = read_labels(args.data),Path(args.out or tempfile.mkdtemp()),('random','suggest')
    out.mkdir(parents=True, exist_ok=True)
    rounds = {o: [] for o in arms}
    for seed in range(1, args.rounds + 1):
        cache = str(out/f'cache-{seed}')
        recipe = read_recipe('quick', None, stages=args.stages, minutes=0, report=False, seed=seed, cache=cache)
        for arm in arms: rounds[arm].append(rounds_of(arm, table, recipe, args, out))
    random,suggest = (np.array(rounds[o]) for o in arms) # of shape (seed, round, 3)
    columns = [f'{score}, {arm}' for score in SCORES for arm in arms]
    rows = [['labels', *columns, *(f'difference in {o}' for o in SCORES)]]
    for a,b in zip(random.transpose(1, 0, 2), suggest.transpose(1, 0, 2)):
        if np.isnan(a[0,1]): rows.append([f'{a[0,0]:,.0f}', '', b[:,1].mean(), '', b[:,2].mean(), '', ''])
        else:
            means = [o[:,k].mean() for k in (1, 2) for o in (a, b)]
            gains = [b[:,k] - a[:,k] for k in (1, 2)]
            spread = [f' ± {o.std(ddof=1)/len(o)**.5:.2f}' if len(o) > 1 else '' for o in gains]
            rows.append([f'{a[0,0]:,.0f}', *means, *(f'{o.mean():+.2f}{text}' for o,text in zip(gains, spread))])
    figures = {}
    for k,name in enumerate(SCORES, 1):
        (slope,start),(own_slope,own_start) = (line(o[...,[0,k]].reshape(-1, 2)) for o in (random, suggest))
        needed = np.exp((slope*np.log(args.aim) + start - own_start)/own_slope)
        figures[f'% of labels saved at the {name} of {args.aim:,} at random'] = float(100*(1 - needed/args.aim)),None
    save('suggest', args, rows, figures)

if __name__ == '__main__': main()

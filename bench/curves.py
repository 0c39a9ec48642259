"Learning curves per label: do networks of fewer images tell what twice as many bring? Beside a linear layer on features"
import tempfile
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
import numpy as np
from fashion_fastai.data.duplicates import near_duplicate_groups
from fashion_fastai.data.vocab import LabelTable
from fashion_fastai.data.labels import read_labels
from fashion_fastai.data.read import read_images
from fashion_fastai.folders.run import is_finished
from fashion_fastai.metrics import average_precision
from fashion_fastai.recipes.settings import read_recipe
from fashion_fastai.report.curves import curve_table
from fashion_fastai.similar.embed import embed_images
from fashion_fastai.train.core import train_run
from record import arguments,save

def targets(table, rows):
    "Every label as 1, 0 or unknown, categories first"
    category = table.categories[rows,None]
    of_category = np.where(category < 0, -1, category == np.arange(len(table.vocab.categories)))
    return np.concatenate([of_category, table.attributes[rows]], 1)

def split(table, n):
    "Rows of `n` images to train on, in random order, and of the others; near-duplicates are on one side"
    groups,rng = near_duplicate_groups(table.images),np.random.default_rng(7)
    order = np.argsort(rng.permutation(groups.max() + 1)[groups], kind='stable')
    last = groups[order[n-1]]
    trained = order[:n][groups[order[:n]] != last]
    return rng.permutation(trained),np.setdiff1d(order[n:], trained)

def train(table, rows, valid, out, recipe):
    "A network of some images, in the folder `out`; those of `valid` only choose the decision"
    if is_finished(out): return
    keep = np.sort(np.concatenate([rows, valid]))
    frame = table.frame.iloc[keep].assign(is_valid=np.isin(keep, valid)).reset_index(drop=True)
    part = LabelTable(frame, table.vocab, table.data, [table.images[i] for i in keep])
    with redirect_stdout(StringIO()): train_run(table.data, out, recipe, resume=True, run_data=read_images(part, recipe))

def seen(run, table, rows):
    "Features and probabilities of some images"
    found = embed_images(run, [table.images[i] for i in rows])
    p = found.predictions
    return found.vectors.astype(float),np.concatenate([p.category_probabilities, p.attribute_probabilities], 1)

def linear_gain(features, labels, scored, actual):
    "What a linear layer on the features of all training images gains over one on half of them"
    scores = []
    for n in (len(features)//2, len(features)):
        x,y = features[:n] - features[:n].mean(0),labels[:n] - labels[:n].mean(0)
        gram = x.T@x
        weights = np.linalg.solve(gram + .01*np.trace(gram)/len(gram)*np.eye(len(gram)), x.T@y)
        scores.append(average_precision(scored@weights, actual))
    return scores[1] - scores[0]

def error(values, true): return 100*np.sqrt(np.mean((values - true)**2))

def main():
    args = arguments(__doc__, out='', seed=1, stages='32x24:3 48x36:5', sizes='1250,2500,5000,10000')
    table,sizes = read_labels(args.data),list(map(int, args.sizes.split(',')))
    order,scored = split(table, sizes[-1])
    out,actual,networks = Path(args.out or tempfile.mkdtemp()),targets(table, scored),{}
    for n in sizes:
        recipe = read_recipe('quick', stages=args.stages, minutes=0, report=False, seed=args.seed, cache=str(out/f'cache-{n}'))
        recipe = replace(recipe, epochs=recipe.n_epochs*sizes[-1]//n) # as many steps
        train(table, order[:n], scored[:500], out/f'{n}', recipe)
        networks[n] = seen(out/f'{n}', table, scored)
    names,rows,figures = [*table.vocab.categories, *table.vocab.attributes],[['', 'predicted', 'own difference', 'linear layer', 'none']],{}
    for a,b,c in zip(sizes, sizes[1:], sizes[2:]):
        labels = targets(table, order[:b])
        before,whole,after = (average_precision(networks[n][1], actual) for n in (a, b, c))
        curves = curve_table(networks[a][1], networks[b][1], actual, names, (labels == 1).sum(0)).set_index('label').loc[names]
        layer = linear_gain(seen(out/f'{b}', table, order[:b])[0], labels, networks[b][0], actual)
        is_told = curves.gain.notna().values # enough images that are scored have the label
        curves,before,whole,after,layer = (o[is_told] for o in (curves, before, whole, after, layer))
        gain,true = curves.gain.values,after - whole
        errors = [error(o, true) for o in (gain, whole - before, layer, 0)]
        rows.append([f'RMSE, {b:,} to {c:,}, points', *errors])
        rows.append(['mean gain, points', *(100*o.mean() for o in (gain, whole - before, layer)), ''])
        rows.append(['correlation', *(np.corrcoef(o, true)[0,1] for o in (gain, whole - before, layer)), ''])
        is_more,is_enough = curves.verdict.values == 'label more',curves.verdict.values == 'enough'
        figures |= {f'{c:,}: mean gain, points': (100*true.mean(), None),
            f'{c:,}: correlation with few examples': (np.corrcoef(-np.log(curves.examples), true)[0,1], None),
            f'{c:,}: % of labels to label more that gained a point': (100*np.mean(true[is_more] >= .01) if is_more.any() else 0., None),
            f'{c:,}: largest gain of labels with enough, points': (100.*max(true[is_enough], default=0.), None),
            f'{c:,}: % of gains inside the 90 % interval': (100*np.mean((curves.low <= true) & (true <= curves.high)), None)}
    save('curves', args, rows, figures)

if __name__ == '__main__': main()

"Prediction of a long list: from files beside plain fastai's `get_preds`, and from the cache beside the bare forward pass"
import statistics
from copy import deepcopy
import pandas as pd, torch
from fastai.vision.all import Learner
from fashion_fastai.data.labels import read_labels
from fashion_fastai.build import recipe_learner
from fashion_fastai.predict.model import load_model,save_model
from fashion_fastai.predict.core import predict_batches
from fashion_fastai.recipes.settings import read_recipe
from peer import loss,peer_dls
from record import arguments,data_folder,ratio,rounds,save

def drain(batches):
    "Go through all of `batches`"
    for o in batches: pass

def bare_passes(learn, batch, n):
    "`n` forward passes of the network on one batch, and nothing else"
    with torch.inference_mode():
        for _ in range(n): learn.model(batch)

def main():
    args = arguments(__doc__, height=64, width=48, workers=2, batch_size=128)
    with data_folder(args.data) as (data,cache):
        table = read_labels(data)
        recipe = read_recipe('quick', None, stages=f'{args.height}x{args.width}:1', cache='no')
        learn = recipe_learner(table, recipe)
        ours = load_model(save_model(learn, cache.parent/'model'), 'auto')
        plain_dls = peer_dls(data, recipe.size, workers=args.workers)
        plain = Learner(plain_dls, deepcopy(learn.model).to_precision('fp32'), loss_func=loss)
        frame,test = pd.read_csv(data/'train.csv'),data/'train.csv'
        n_batches = -(-len(frame)//args.batch_size)
        batch = torch.randn(args.batch_size, 3, *recipe.size)
        def get_preds():
            with plain.no_bar(): plain.get_preds(dl=plain_dls.test_dl(frame, bs=args.batch_size))
        predict = lambda **kwargs: drain(predict_batches(ours, test, batch_size=args.batch_size, **kwargs))
        predict(cache=cache)
        taken = rounds(args.rounds, cache=lambda: predict(cache=cache), bare=lambda: bare_passes(ours, batch, n_batches),
            files=lambda: predict(workers=args.workers), get_preds=get_preds)
        n,n_bare = len(frame),n_batches*args.batch_size
        rate = lambda o, n=n: n/statistics.median(o)
        rows = [['prediction','images/s'],
            ['bare forward pass on one resident batch', rate(taken['bare'], n_bare)],
            ['from the cache', rate(taken['cache'])],
            [f'from files, {args.workers} threads', rate(taken['files'])],
            [f'plain get_preds, fp32, {args.workers} workers', rate(taken['get_preds'])]]
        save('predict', args, rows, {
            'from files over plain get_preds': (ratio(taken['get_preds'], taken['files']), 3),
            'from the cache over the bare forward pass': (ratio(taken['bare'], taken['cache'], n/n_bare), .95)})

if __name__ == '__main__': main()

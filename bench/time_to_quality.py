"""Minutes from the label tables to a network of a given quality: plain fastai (xresnet18, 64x64, one-cycle), and a recipe of ours.

Each training runs in a process of its own, one after the other, and is logged as it ends; a bench that was stopped resumes from
its log (`--rounds 0` does its first part only). Plain fastai is trained to its end once, which gives its quality. In every round,
ours is trained to its end, with an empty cache, and plain fastai for one epoch, whose time is multiplied: its epochs take equally long."""
import json,shlex,statistics,tempfile,time
from pathlib import Path
from record import arguments,data_folder,in_process,ratio,save

def plain_fastai(data, seed, epochs):
    "Train the peer; its scores and seconds"
    from fastai.vision.all import set_seed,xresnet18
    from peer import peer_dls,peer_learner
    start = time.perf_counter()
    set_seed(int(seed))
    learn = peer_learner(peer_dls(Path(data)), xresnet18())
    setup = time.perf_counter() - start
    with learn.no_bar(): learn.fit_one_cycle(int(epochs), 4e-3)
    _,_,accuracy,mean_f1 = learn.recorder.values[-1]
    return dict(setup=setup, seconds=time.perf_counter()-start, accuracy=accuracy, mean_f1=mean_f1)

def ours(data, seed, recipe, *overrides):
    "Train ours with an empty cache; its scores and seconds"
    from fashion_fastai.recipes.settings import read_recipe
    from fashion_fastai.train.core import train_run
    with tempfile.TemporaryDirectory() as tmp:
        start = time.perf_counter()
        keys = dict(o.split('=', 1) for o in overrides)
        keys = {'seed': seed, 'minutes': 0, 'cache': f'{tmp}/cache', **keys} # without a plan, if none is asked for
        metrics = train_run(data, Path(tmp)/'run', read_recipe(recipe, None, **keys))
        scores = {name: metrics[name] for name in ('accuracy','mean_f1','images_per_second')}
        return dict(seconds=time.perf_counter()-start, **scores)

def main():
    args = arguments(__doc__, epochs=10, recipe='quick', overrides='', log='time_to_quality.jsonl')
    log = Path(args.log)
    done = {(o['what'], o['seed']): o for o in map(json.loads, log.read_text().splitlines())} if log.exists() else {}
    with data_folder(args.data) as (data,_):
        data = data.absolute()
        def once(what, seed, function, *words):
            if (what, seed) not in done:
                scores,_ = in_process('time_to_quality', function, data, *words)
                done[what,seed] = dict(what=what, seed=seed, **scores)
                print(done[what,seed], flush=True)
                with log.open('a') as f: f.write(json.dumps(done[what,seed]) + '\n')
            return done[what,seed]
        plain = once('plain fastai', 1, 'plain_fastai', 1, args.epochs)
        our_runs,plain_epochs = [],[]
        for i in range(1, args.rounds+1):
            our_runs.append(once('ours', i, 'ours', i, args.recipe, *shlex.split(args.overrides)))
            plain_epochs.append(once('an epoch of plain fastai', i, 'plain_fastai', i, 1))
    if not our_runs: return
    our_seconds = [o['seconds'] for o in our_runs]
    plain_seconds = [o['setup'] + (o['seconds'] - o['setup'])*args.epochs for o in plain_epochs]
    name = f'recipe {args.recipe} {args.overrides}'.strip()
    def row(name, scored, seconds): return [name, f"{scored['accuracy']:.4f}", f"{scored['mean_f1']:.4f}", seconds/60]
    rows = [['training','accuracy','mean F1','minutes'],
        *[row(f'{name}, seed {i}', o, o['seconds']) for i,o in enumerate(our_runs, 1)],
        row(f'plain fastai, xresnet18, 64x64, {args.epochs} epochs', plain, statistics.median(plain_seconds))]
    worst = min(o[k] - plain[k] for o in our_runs for k in ('accuracy','mean_f1'))
    save('time_to_quality', args, rows, {
        'time of plain fastai over ours': (ratio(plain_seconds, our_seconds), 8),
        'worst difference in accuracy or mean F1, ours less plain fastai': (worst, 0)})

if __name__ == '__main__': main()

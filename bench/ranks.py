"The scores of a training in one, two and eight processes: equal epochs, equal batches of all together, the same seeds"
import json,multiprocessing,os,statistics,sys,tempfile
from pathlib import Path
from record import arguments,save

SCORES = dict(accuracy='accuracy', mean_f1='Mean F1', valid_loss='validation loss')

def work(rank, world, port, words):
    "One process of a training, as torchrun starts it, without the seconds for imports"
    import torch
    from fashion_fastai.cli.main import main
    sys.stdout = open(os.devnull, 'w')
    torch.set_num_threads(1)
    place = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world, MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    if world > 1: os.environ.update({name: str(o) for name,o in place.items()})
    sys.exit(main(words))

def train(data, out, world, seed, port, options):
    "Scores of a training in `world` processes of one thread"
    keys = '--recipe','demo','--seed',seed,'--precision','fp32','--rule','fixed','--report','no'
    words = ['train', data, '--out', out, *keys, *options]
    fork = multiprocessing.get_context('fork') # after the imports of this process, which has computed nothing
    started = [fork.Process(target=work, args=(rank, world, port, list(map(str, words)))) for rank in range(world)]
    for o in started: o.start()
    for o in started: o.join()
    if any(o.exitcode for o in started): sys.exit(f'a training of {world} processes failed')
    metrics = json.loads((Path(out)/'metrics.json').read_text())
    return [metrics[o] for o in SCORES]

def main():
    from fashion_fastai.data.synthetic import draw_garments
    import fashion_fastai.train.core,fashion_fastai.distributed.group # noqa: F401 - once for all processes
    args = arguments(__doc__, images=4000, stages='24x18:10', width=.25, batch_size=256)
    options = '--stages',args.stages,'--width',args.width,'--batch-size',args.batch_size
    found = {1: [], 2: [], 8: []}
    with tempfile.TemporaryDirectory() as tmp:
        data = args.data or draw_garments(Path(tmp)/'garments', n=args.images, size=(40,30), splits=(.6,.35,.05))
        for seed in range(1, args.rounds + 1):
            for world,scores in found.items():
                scores.append(train(data, Path(tmp)/f'{world}-{seed}', world, seed, 29600 + 10*seed + world, options))
                found_now = ', '.join(f'{name} {o:.4f}' for name,o in zip(SCORES.values(), scores[-1]))
                print(f'seed {seed}, {world} processes: {found_now}', flush=True)
    table,figures = [['processes', *(f'{name}, mean ± sd of the seeds' for name in SCORES.values())]],{}
    for world,scores in found.items():
        columns = list(zip(*scores))
        table.append([world, *(f'{statistics.mean(o):.4f} ± {statistics.stdev(o):.4f}' for o in columns)])
        if world == 1: continue
        for name,here,alone in zip(SCORES.values(), columns, zip(*found[1])):
            differences = [a - b for a,b in zip(here, alone)]
            error = statistics.stdev(differences)/len(differences)**.5
            figures[f'{name} of {world} processes minus that of one'] = statistics.mean(differences),None
            figures[f'its standard error ({len(differences)} paired seeds), {name}, {world} processes'] = error,None
    save('ranks', args, table, figures, threads=1)

if __name__ == '__main__': main()

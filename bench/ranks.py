"The scores of a training in one, two and eight processes: equal epochs, equal batches of all together, the same seeds"
import json,os,statistics,subprocess,sys,tempfile
from pathlib import Path
from record import arguments,save

SCORES = dict(accuracy='accuracy', mean_f1='Mean F1', valid_loss='validation loss')
CODE = 'import sys; from fashion_fastai.cli.main import main; sys.exit(main(sys.argv[1:]))'

def train(data, out, world, seed, words):
    "Scores of a training in `world` processes of one thread"
    command = [sys.executable, '-W', 'ignore', '-c', CODE, 'train', data, '--out', out, '--recipe', 'demo', '--seed', seed, '--processes', world,
        '--precision', 'fp32', '--rule', 'fixed', '--report', 'no', *words]
    env = dict(os.environ, OMP_NUM_THREADS='1')
    subprocess.run(list(map(str, command)), env=env, check=True, stdout=subprocess.DEVNULL)
    metrics = json.loads((Path(out)/'metrics.json').read_text())
    return [metrics[o] for o in SCORES]

def main():
    from fashion_fastai.data.synthetic import draw_garments
    args = arguments(__doc__, images=2000, stages='32x24:6', width=.25, batch_size=64)
    words = '--stages',args.stages,'--width',args.width,'--batch-size',args.batch_size
    found = {1: [], 2: [], 8: []}
    with tempfile.TemporaryDirectory() as tmp:
        data = args.data or draw_garments(Path(tmp)/'garments', n=args.images, size=(40,30), splits=(.6,.35,.05))
        for seed in range(1, args.rounds + 1):
            for world,scores in found.items():
                scores.append(train(data, Path(tmp)/f'{world}-{seed}', world, seed, words))
                print(f'seed {seed}, {world} processes: ' + ', '.join(f'{name} {o:.4f}' for name,o in zip(SCORES.values(), scores[-1])), flush=True)
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

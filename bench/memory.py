"The most memory that predicting takes, for a short list and a long one (on Linux)"
import statistics,subprocess,sys
from pathlib import Path
import pandas as pd
from fashion_fastai.data.labels import read_labels
from fashion_fastai.learner import recipe_learner
from fashion_fastai.export import load_model,save_model
from fashion_fastai.inference import predict_batches,write_submission
from fashion_fastai.recipes import read_recipe
from record import arguments,data_folder,save

def peak_memory(model, test, out):
    "The most memory, in MB, that a process of its own needs to predict the list `test` and write the submission"
    code = 'import sys; from memory import predict_here; predict_here(*sys.argv[1:])'
    done = subprocess.run([sys.executable, '-c', code, model, test, out], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])

def predict_here(model, test, out):
    "Predict, and print the most memory that this process has had"
    write_submission(predict_batches(load_model(model), test), out)
    # not getrusage, whose ru_maxrss begins with what the parent process had
    print(next(int(o.split()[1])/1024 for o in Path('/proc/self/status').read_text().splitlines() if o.startswith('VmHWM')))

def main():
    args = arguments(__doc__, height=64, width=48, short=10_000, long=100_000)
    with data_folder(args.data) as (data,cache):
        table,folder = read_labels(data),cache.parent
        recipe = read_recipe('quick', None, stages=f'{args.height}x{args.width}:1', cache='no', precision='fp32')
        save_model(recipe_learner(table, recipe), folder/'model')
        memory = {}
        for n in (args.short, args.long):
            pd.DataFrame(dict(file_path=(table.images*(n//len(table) + 1))[:n])).to_csv(folder/'list.csv', index=False)
            memory[n] = statistics.median(peak_memory(folder/'model', folder/'list.csv', folder/'out') for _ in range(args.rounds))
            print(f"{n:,} rows: {memory[n]:.0f} MB", flush=True)
        save('memory', args, [['rows','peak memory, MB'], *[[n, o] for n,o in memory.items()]],
            {f'peak memory of {args.long:,} rows over {args.short:,}': (memory[args.long]/memory[args.short], '1.1 at the most')})

if __name__ == '__main__': main()

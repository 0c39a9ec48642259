"The most memory that predicting takes, for a short list and a long one (on Linux)"
import statistics
import pandas as pd
from fashion_fastai.data.labels import read_labels
from fashion_fastai.build import recipe_learner
from fashion_fastai.predict.model import load_model,save_model
from fashion_fastai.predict.core import predict_batches,write_submission
from fashion_fastai.recipes.settings import read_recipe
from record import arguments,data_folder,in_process,save

def predict_here(model, test, out):
    "Predict the list `test` and write the submission"
    write_submission(predict_batches(load_model(model), test), out)

def peak_memory(*words): return in_process('memory', 'predict_here', *words)[1]

def main():
    args = arguments(__doc__, height=64, width=48, short=10_000, long=100_000)
    with data_folder(args.data) as (data,cache):
        table,folder = read_labels(data),cache.parent
        recipe = read_recipe('quick', None, stages=f'{args.height}x{args.width}:1', cache='no', precision='fp32')
        save_model(recipe_learner(table, recipe), folder/'model')
        memory = {}
        for n in (args.short, args.long):
            paths = (table.images*(n//len(table) + 1))[:n]
            pd.DataFrame(dict(file_path=paths)).to_csv(folder/'list.csv', index=False)
            words = folder/'model',folder/'list.csv',folder/'out'
            memory[n] = statistics.median(peak_memory(*words) for _ in range(args.rounds))
            print(f'{n:,} rows: {memory[n]:.0f} MB', flush=True)
        growth = memory[args.long]/memory[args.short]
        save('memory', args, [['rows','peak memory, MB'], *map(list, memory.items())],
            {f'peak memory of {args.long:,} rows over {args.short:,}': (growth, '1.1 at the most')})

if __name__ == '__main__': main()

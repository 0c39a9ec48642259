"Catalogues: images per second of one process, of two parts and of Ray; ten million made-up rows from list to submission (on Linux)"
import importlib.util,os,statistics,subprocess,sys,tempfile,time
from pathlib import Path
import numpy as np
from record import arguments,data_folder,in_process,save

FASHION = Path(sys.executable).with_name('fashion')
N_CATEGORIES,N_ATTRIBUTES = 10,15

def command(*words):
    "Seconds of a `fashion` command"
    start = time.perf_counter()
    subprocess.run([FASHION, *map(str, words)], check=True, capture_output=True, env=dict(os.environ, OMP_NUM_THREADS='1'))
    return time.perf_counter() - start

def together(*commands):
    "Seconds until all of some commands are done"
    start = time.perf_counter()
    env = dict(os.environ, OMP_NUM_THREADS='1')
    def begin(words): return subprocess.Popen([FASHION, *map(str, words)], stdout=subprocess.DEVNULL, env=env)
    running = list(map(begin, commands))
    assert not any(o.wait() for o in running)
    return time.perf_counter() - start

def write_list(path, n, images):
    "A list of `n` rows over the files `images`, each under many names"
    with path.open('w') as file:
        file.write('file_path\n')
        for i in range(n): file.write(f"{'./'*(i//len(images))}{images[i % len(images)]}\n")

def throughput(args, data, folder):
    "Seconds of each way for a short and for a long list, in turns"
    images = sorted(o.relative_to(data).as_posix() for o in (data/'train').iterdir())[:1000]
    command('train', data, '--out', folder/'run', '--recipe', 'quick', '--epochs', 1, '--report', 'no', '--precision', 'fp32')
    lists = {}
    for n in (args.short, args.long):
        lists[n] = data/f'list-{n}.csv'
        write_list(lists[n], n, images)
    def predict(n, out, *more): return ['predict', folder/'run', lists[n], '--out', folder/out, '--precision', 'fp32', *more]
    def one(n): return command(*predict(n, 'one', '--workers', 2))
    def shards(n, i):
        seconds = together(*[predict(n, f'parts-{n}-{i}', '--workers', 1, '--shard', f'{k}/2') for k in (1,2)])
        return seconds + command('merge', folder/f'parts-{n}-{i}', '--out', folder/'merged')
    def ray(n, i): return command(*predict(n, f'ray-{n}-{i}', '--on', 'ray', '--actors', 2))
    ways = {'one process of two threads': lambda n, i: one(n), 'two parts in two processes, and merge': shards}
    if importlib.util.find_spec('ray'): ways['Ray, two actors, and merge'] = ray
    taken = {name: [] for name in ways}
    for i in range(args.rounds):
        for name,way in ways.items(): taken[name].append([way(n, i) for n in lists])
        print(f'round {i+1}:', {name: o[-1] for name,o in taken.items()}, flush=True)
    return taken

def plan(folder, n):
    "Seconds to identify a list of `n` paths, to copy it for Ray, and to find the parts that are missing"
    from fashion_fastai.predict.cluster import _copy_paths,count_parts
    from fashion_fastai.predict.catalogue import Catalogue
    from fashion_fastai.predict.store import Store
    from fashion_fastai.predict.parts import Job,open_job,part_name
    folder,n = Path(folder),int(n)
    with (folder/'list.csv').open('w') as file:
        file.write('file_path\n')
        file.writelines(f'images/{i:08}.jpg\n' for i in range(n))
    start = time.perf_counter()
    catalogue,store = Catalogue(folder/'list.csv'),Store(folder/'parts')
    rows,identity = catalogue.identity()
    names = [[f'{kind} {k}' for k in range(o)] for kind,o in (('category', N_CATEGORIES), ('attribute', N_ATTRIBUTES))]
    open_job(store, Job('list.csv', rows, identity, 'made up', 128, None, 'fp32', *names))
    identified = time.perf_counter()
    _copy_paths(catalogue, store)
    copied = time.perf_counter()
    n_parts = count_parts(rows, 128)
    there = set(store.names('.parquet'))
    assert rows == n and len([k for k in range(n_parts) if part_name(k+1, n_parts) not in there]) == n_parts
    return identified - start,copied - identified,time.perf_counter() - copied,n_parts

def write_parts(folder, n_parts):
    "Made-up predictions in all parts; every ten thousandth image is bad"
    import pyarrow.parquet as pq
    from fashion_fastai.predict.catalogue import Catalogue
    from fashion_fastai.predict.store import Store
    from fashion_fastai.predict.core import Predictions
    from fashion_fastai.predict.parts import part_name,read_job,shard_rows
    from fashion_fastai.predict.rows import predictions_table
    store,n_parts = Store(Path(folder)/'parts'),int(n_parts)
    job,rng = read_job(store),np.random.default_rng(0)
    paths,start = iter(Catalogue(Path(folder)/'list.csv').paths()),time.perf_counter()
    for k in range(1, n_parts+1):
        rows = shard_rows(job.rows, job.batch_size, k, n_parts)
        p,q = rng.dirichlet(np.ones(N_CATEGORIES), len(rows)).astype(np.float32),rng.random((len(rows), N_ATTRIBUTES), np.float32)
        bad = {i: 'is missing' for i,row in enumerate(rows) if row % 10_000 == 0}
        made_up = Predictions([next(paths) for _ in rows], p.argmax(1), q > .8, p, q, job.vocab, bad)
        with store.write(part_name(k, n_parts)) as f: pq.write_table(predictions_table(made_up, rows), f)
    return time.perf_counter() - start

def merge(folder):
    "Seconds to join all parts"
    from fashion_fastai.predict.parts import merge_parts
    start = time.perf_counter()
    n = merge_parts(Path(folder)/'parts', Path(folder)/'submission')
    return n,time.perf_counter() - start

def dry_run(folder, n):
    "Rows of the table for `n` made-up rows"
    planned,plan_mb = in_process('catalogue', 'plan', folder, n)
    print('planned', planned, plan_mb, flush=True)
    writing,_ = in_process('catalogue', 'write_parts', folder, planned[-1])
    print('parts written', writing, flush=True)
    (rows,seconds),merge_mb = in_process('catalogue', 'merge', folder)
    assert rows == n
    with (Path(folder)/'submission'/'category.csv').open() as file: assert sum(1 for _ in file) == n+1
    return [[f'identify a list of {n:,} paths', planned[0], plan_mb], ['copy it to Parquet', planned[1], plan_mb],
        [f'look which of {planned[3]:,} parts are there', planned[2], plan_mb], ['merge them into three CSV files', seconds, merge_mb]]

def main():
    args = arguments(__doc__, short=2000, long=12_000, rows=10_000_000, only='both')
    with tempfile.TemporaryDirectory() as tmp,data_folder(args.data, 1500) as (data,_):
        if args.only != 'rows':
            taken = throughput(args, data, Path(tmp))
            table,figures = [[f'{args.long:,} images, xresnet18 of recipe quick, fp32', 'seconds', 'images/s without the start']],{}
            for name,o in taken.items():
                # the slope leaves out what is paid once: imports, the model, the start of Ray
                rate = statistics.median((args.long - args.short)/(long - short) for short,long in o)
                table.append([name, statistics.median(long for _,long in o), rate])
                figures[f'ms per image, {name}'] = 1e3/rate,None
                figures[f'seconds that are paid once, {name}'] = statistics.median(short for short,_ in o) - args.short/rate,None
            save('catalogue', args, table, figures)
        if args.only != 'images':
            table = [['made-up rows, 10 categories and 15 attributes', 'seconds', 'peak memory, MB'], *dry_run(tmp, args.rows)]
            save('catalogue_rows', args, table, {'microseconds to merge a row': (table[-1][1]/args.rows*1e6, None)})

if __name__ == '__main__': main()

"Shared by the benches: their data, measuring side by side, and records of figures, machine and versions; run it to write bench/README.md"
import argparse,contextlib,json,platform,statistics,subprocess,sys,tempfile,time
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).parent/'results'

def arguments(description, **options):
    "The command line of a bench: the data folder, the rounds, and `options` with their defaults"
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('data', nargs='?', help='folder with train.csv and val.csv (default: 6,000 synthetic garments)')
    parser.add_argument('--rounds', type=int, default=3, help='repetitions of each measurement, in turns (default: 3)')
    parser.add_argument('--results', type=Path, default=RESULTS, help='folder for the record (default: results/ beside the bench)')
    for name,default in options.items():
        parser.add_argument(f"--{name.replace('_','-')}", type=type(default), default=default, help=f'(default: {default})')
    return parser.parse_args()

@contextlib.contextmanager
def data_folder(given, n=6000):
    "The given data folder, or a temporary one with synthetic garments; and a temporary folder for caches"
    from fashion_fastai.data.synthetic import draw_garments
    with tempfile.TemporaryDirectory() as tmp:
        yield Path(given) if given else draw_garments(Path(tmp)/'garments', n=n), Path(tmp)/'cache'

def seconds(work):
    "Seconds of a call of `work`"
    start = time.perf_counter()
    work()
    return time.perf_counter() - start

def rounds(n, **works):
    "`n` rounds in which each of `works` takes its turn, so that other load on the machine affects all alike: name -> seconds of each round"
    taken = {name: [] for name in works}
    for i in range(n):
        for name,work in works.items(): taken[name].append(seconds(work))
        print(f"round {i+1} of {n}: " + ', '.join(f'{name} {o[-1]:.2f} s' for name,o in taken.items()), flush=True)
    return taken

def memory_mb(key='VmRSS'):
    "Memory of this process in MB, now or with `VmHWM` at its peak (on Linux)"
    line = next(o for o in Path('/proc/self/status').read_text().splitlines() if o.startswith(key))
    return int(line.split()[1])/1024

def in_process(module, name, *words):
    "(result, peak memory in MB) of a function of a bench, in a process of its own (on Linux)"
    code = (f'import json,sys,record,{module} as m; o = m.{name}(*sys.argv[1:]); '
            'print(json.dumps([o, record.memory_mb("VmHWM")]))')
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, *map(str, words)], cwd=Path(__file__).parent,
        stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])

def ratio(slow, fast, weight=1.):
    "Median over the rounds of `slow` divided by `fast`, times `weight`"
    return statistics.median(a/b*weight for a,b in zip(slow, fast))

def machine():
    "Hardware and versions that the figures depend on"
    import fastai,torch
    import fashion_fastai
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    flags = Path('/proc/cpuinfo').read_text() if Path('/proc/cpuinfo').exists() else ''
    return dict(cpu=platform.processor() or platform.machine(), threads=torch.get_num_threads(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        cpu_bf16='avx512_bf16' in flags or 'amx_bf16' in flags, gpu=gpu, python=platform.python_version(), torch=torch.__version__,
        fastai=fastai.__version__, fashion_fastai=fashion_fastai.__version__)

def _text(value):
    if isinstance(value, float) and abs(value) < 100: return f'{value:,.3g}'
    return f'{value:,.0f}' if isinstance(value, (int,float)) else str(value)

def save(name, args, table, figures, **about):
    "Print and record `table` (its first row is the header) and `figures` (name -> (value, minimum or None)); `about` corrects `machine`"
    rows = [[_text(o) for o in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*rows)]
    print()
    for row in rows: print('  '.join(o.ljust(w) for o,w in zip(row, widths)))
    for what,(value,least) in figures.items():
        print(f"{what}: {value:.3f}" + ('' if least is None else f" (required: {least})"))
    data = Path(args.data).name if args.data else 'synthetic garments'
    values = {what: dict(value=round(value, 4), wanted=least) for what,(value,least) in figures.items()}
    record = dict(bench=name, date=str(date.today()), data=data, rounds=args.rounds, machine=machine() | about, table=rows, figures=values)
    args.results.mkdir(exist_ok=True, parents=True)
    (args.results/f'{name}.json').write_text(json.dumps(record, indent=1) + '\n')

HEADLINES = [ # (record, its figure, what README.md says of it)
    ('loader', 'cache over plain fastai', 'batches per second from the packed cache, over plain fastai'),
    ('loader', 'files over plain fastai', 'batches per second from files, over plain fastai'),
    ('step', 'epoch, ours over plain fastai', 'training images per second, over plain fastai'),
    ('gpu', 'ours over plain fastai, batches of 512', 'the same on an H200'),
    ('predict', 'from files over plain get_preds', 'predicted images per second from files, over plain `get_preds`'),
    ('memory', 'peak memory of 100,000 rows over 10,000', 'peak memory to predict 100,000 images, over that for 10,000')]

PURPOSES = dict(loader='Batches that reach the network', step='Training steps', pack='Packing images into the cache',
    predict='Prediction from files and cache', memory='Memory of long predictions', convert='Conversion of DeepFashion',
    deepfashion='DeepFashion end to end, 50 categories and 1,000 attributes',
    time_to_quality='Time to the scores of plain fastai',
    similar='Similar items', suggest='What to label next: labels that are saved',
    serving='Serving without PyTorch', scale='Large tables and catalogues',
    parallel='Training in two processes', ranks='Scores of a training in several processes',
    catalogue='Prediction of catalogues', catalogue_rows='Ten million rows, from list to submission',
    what_helps='Study: what each ingredient of a training contributes', gpu='Training on a GPU',
    plan='Minutes that plans expect, and that trainings take',
    balance='Study: weights for rare attributes',
    long='Study: trainings of many epochs',
    mutation='Changes of the code that notebooks and tests notice',
    study='Study: image size, epochs and data', scores='Reported minus true Mean F1, few validation images')

SCRIPTS = dict(catalogue_rows='catalogue', balance='what_helps', long='what_helps') # the bench of a record, where it has another name

def load_records():
    "Name -> record, in alphabetical order"
    return {o.stem: json.loads(o.read_text()) for o in sorted(RESULTS.glob('*.json'))}

def _markdown(header, rows):
    return '\n'.join(['| ' + ' | '.join(o) + ' |' for o in (header, ['---']*len(header), *rows)])

def ratios():
    "The headline ratios as a markdown table"
    records = load_records()
    rows = [[text, f"{records[name]['figures'][figure]['value']:.1f}"] for name,figure,text in HEADLINES]
    return _markdown(['measured side by side', 'ratio'], rows)

def _section(name, record):
    "The record as a section of bench/README.md"
    m = record['machine']
    threads = f"{m['threads']} thread{'s' if m['threads'] > 1 else ''}"
    cpu = f"{threads}, {m['cpu_capability']}{', bf16' if m['cpu_bf16'] else ''}"
    versions = f"torch {m['torch'].split('+')[0]}, fastai {m['fastai']}"
    about = f"{record['data']}; {m['gpu'] or cpu}; {versions}; {record['date']}; {record['rounds']} rounds"
    header,*rows = record['table']
    tables = [_markdown(header, rows)]
    figures = [[what, f"{o['value']:.2f}"] for what,o in record['figures'].items()]
    if figures: tables.append(_markdown(['figure', 'value'], figures))
    return '\n\n'.join([f"## {PURPOSES.get(name, name)}", f"`bench/{SCRIPTS.get(name, name)}.py`: {about}.", *tables]) + '\n'

INTRODUCTION = """# Benchmarks

Written by `python bench/record.py` from the records in `bench/results/`. What a bench compares takes turns in one run,
so ratios mean something; absolute times are those of the machine that a section names.
`make bench DATA=folder` measures on your machine and data.
"""

def page():
    "The text of bench/README.md"
    return '\n'.join([INTRODUCTION, *(_section(name, record) for name,record in load_records().items())])

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Write bench/README.md from the records')
    parser.add_argument('--ratios', action='store_true', help='print the headline ratios instead')
    if parser.parse_args().ratios: print(ratios())
    else: (Path(__file__).parent/'README.md').write_text(page(), encoding='utf-8')

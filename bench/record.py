"What the benches share: their data, measuring side by side, and a record of what was measured, on which machine, with which versions"
import argparse,contextlib,json,platform,statistics,tempfile,time
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).parent/'results'

def arguments(description, **options):
    "The command line of a bench: the data folder, the rounds, and `options` with their defaults"
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('data', nargs='?', help='folder with train.csv and val.csv (default: draws 6,000 garments)')
    parser.add_argument('--rounds', type=int, default=3, help='each measurement is taken so often, in turns (default: 3)')
    parser.add_argument('--results', type=Path, default=RESULTS, help='folder for the record (default: results/ beside the bench)')
    for name,default in options.items():
        parser.add_argument(f"--{name.replace('_','-')}", type=type(default), default=default, help=f'(default: {default})')
    return parser.parse_args()

@contextlib.contextmanager
def data_folder(given, n=6000):
    "The data folder that was given, or a temporary one with drawn garments; and a folder for caches, which is temporary in any case"
    from fashion_fastai.data.synthetic import draw_garments
    with tempfile.TemporaryDirectory() as tmp:
        yield Path(given) if given else draw_garments(Path(tmp)/'garments', n=n), Path(tmp)/'cache'

def seconds(work):
    "How long a call of `work` takes"
    start = time.perf_counter()
    work()
    return time.perf_counter() - start

def rounds(n, **works):
    "`n` rounds in which each of `works` takes its turn, so that whatever else the machine does disturbs all alike: name -> seconds of each round"
    taken = {name: [] for name in works}
    for i in range(n):
        for name,work in works.items(): taken[name].append(seconds(work))
        print(f"round {i+1} of {n}: " + ', '.join(f'{name} {o[-1]:.2f} s' for name,o in taken.items()), flush=True)
    return taken

def ratio(slow, fast, weight=1.):
    "Median over the rounds of how often `fast` goes into `slow`, times `weight`"
    return statistics.median(a/b*weight for a,b in zip(slow, fast))

def machine():
    "What the figures depend on"
    import fastai,torch
    import fashion_fastai
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    flags = Path('/proc/cpuinfo').read_text() if Path('/proc/cpuinfo').exists() else ''
    return dict(cpu=platform.processor() or platform.machine(), threads=torch.get_num_threads(), cpu_capability=torch.backends.cpu.get_cpu_capability(),
        cpu_bf16='avx512_bf16' in flags or 'amx_bf16' in flags, gpu=gpu, python=platform.python_version(), torch=torch.__version__,
        fastai=fastai.__version__, fashion_fastai=fashion_fastai.__version__)

def save(name, args, table, figures):
    "Print `table` (rows of text and numbers, the first its header) and `figures` (name -> (value, what it should be at least or None)), and record them"
    def text(o): return f'{o:,.3g}' if isinstance(o, float) and abs(o) < 100 else f'{o:,.0f}' if isinstance(o, (int,float)) else str(o)
    rows = [[text(o) for o in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*rows)]
    print()
    for row in rows: print('  '.join(o.ljust(w) for o,w in zip(row, widths)))
    for what,(value,least) in figures.items(): print(f"{what}: {value:.3f}" + ('' if least is None else f" (wanted: {least})"))
    result = dict(bench=name, date=str(date.today()), data=Path(args.data).name if args.data else 'drawn garments', rounds=args.rounds, machine=machine(), table=rows,
        figures={what: dict(value=round(value, 4), wanted=least) for what,(value,least) in figures.items()})
    args.results.mkdir(exist_ok=True, parents=True)
    (args.results/f'{name}.json').write_text(json.dumps(result, indent=1) + '\n')

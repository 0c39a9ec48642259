"The full DeepFashion benchmark, end to end: 289,222 rows, 50 categories and 1,000 attributes; few synthetic images (on Linux)"
import os,subprocess,sys,tempfile,time
from pathlib import Path
from convert import write_lists
from record import arguments,save

def run(*words):
    "(seconds, peak memory in GB) of a `fashion` command; the memory is that of its largest process"
    start = time.perf_counter()
    process = subprocess.Popen([Path(sys.executable).with_name('fashion'), *map(str, words)])
    _,status,usage = os.wait4(process.pid, 0)
    if status: sys.exit(f"fashion {' '.join(map(str, words))} failed")
    found = time.perf_counter() - start,usage.ru_maxrss/1024**2
    print(f'{words[0]}: {found[0]:.0f} s, {found[1]:.2f} GB', flush=True)
    return found

def head(path, n, target):
    "Copy the header and the first `n` rows of a table"
    with path.open() as file,target.open('w') as out: out.writelines(line for _,line in zip(range(n+1), file))

def main():
    args = arguments(__doc__, rows=289_222, attributes=1000, files=10_000, predicted=10_000)
    from fashion_fastai.data.synthetic import draw_garments
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        os.environ['XDG_CACHE_HOME'] = str(tmp/'cache')
        garments = draw_garments(tmp/'garments', n=args.files)
        src,data,out = tmp/'deepfashion',tmp/'data',tmp/'run'
        src.mkdir()
        write_lists(src, args.rows, args.attributes, sorted(garments.rglob('*.jpg')))
        tiny = '--arch','xresnet10','--width','0.25','--stages','32x24:1','--batch-size','256'
        steps = {
            'convert': ('convert', 'deepfashion', src, data, '--categories', 'all', '--attributes', 'all'),
            'check': ('check', data, '--out', tmp/'data.html'),
            'train': ('train', data, '--out', out, '--recipe', 'quick', *tiny),
            'report': ('report', out)}
        taken = {name: run(*words) for name,words in steps.items()}
        head(data/'test.csv', args.predicted, data/'some.csv')
        taken[f'predict {args.predicted:,} images'] = run('predict', out, data/'some.csv', '--out', tmp/'submission')
        sizes = {o: (tmp/o).stat().st_size/1e6 for o in ('data.html', 'run/report.html')}
    print(', '.join(f'{o}: {size:.1f} MB' for o,size in sizes.items()))
    args.data,args.rounds = 'made-up lists',1
    rows = [[name, *o] for name,o in taken.items()]
    save('deepfashion', args, [['command','seconds','peak memory, GB'], *rows],
        {'peak memory, GB': (max(memory for _,memory in taken.values()), '12 at the most')})

if __name__ == '__main__': main()

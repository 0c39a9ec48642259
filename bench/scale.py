"Large inputs: reading tables of millions of cells, near-duplicates among hundreds of thousands of images, packing a million (on Linux)"
import json,subprocess,sys,tempfile,time
from pathlib import Path
import numpy as np
from record import arguments,save

def peak_memory(): "The most memory that this process has had, in GB"; return next(int(o.split()[1])/2**20 for o in Path('/proc/self/status').read_text().splitlines() if o.startswith('VmHWM'))

def image_paths(n, n_files):
    "`n` names of `n_files` images, each of which has as many names as are needed"
    return [f"{i//n_files:b}".replace('0', './').replace('1', './/') + f'{i%n_files:04}.jpg' for i in range(n)]

def write_table(data, n, n_attributes, n_files=1000):
    "A train.csv and a val.csv with `n` rows in all, for images that are a few empty files"
    data.mkdir()
    for i in range(n_files): (data/f'{i:04}.jpg').touch()
    rng,paths = np.random.default_rng(0),image_paths(n, n_files)
    header = ','.join(['file_path','category_label',*(f'attribute {k}' for k in range(n_attributes))])
    for name,rows in (('val', range(n//10)), ('train', range(n//10, n))):
        with (data/f'{name}.csv').open('wb') as file:
            file.write(header.encode() + b'\n')
            for i in rows:
                cells = np.full(2*n_attributes, ord(','), np.uint8)
                cells[1::2] = (rng.random(n_attributes) < 3/n_attributes) + ord('0')
                cells[1 + 2*(i % n_attributes)] = ord('1')
                file.write(f'{paths[i]},{i%10}'.encode() + cells.tobytes() + b'\n')

def read_here(data):
    from fashion_fastai.data.labels import read_labels
    start = time.perf_counter()
    table = read_labels(data)
    return len(table),time.perf_counter() - start

def sketches(n):
    "Sketches of made-up images: synthetic garments laid over each other, each in a light of its own; one in a hundred is the one before, a little darker"
    from PIL import Image
    from fashion_fastai.data.synthetic import ALLOWED,CATEGORIES,draw_garment,random_attributes
    rng = np.random.default_rng(0)
    drawn = []
    for i in range(min(n, 5000)):
        category = CATEGORIES[i % len(CATEGORIES)]
        drawn.append(np.asarray(draw_garment(category, random_attributes(category, rng), i, (64,68)).resize((17,16), Image.Resampling.BILINEAR)))
    drawn,found = np.array(drawn),np.empty((n,16,17,3), np.uint8)
    for i in range(0, n, 5000):
        k = min(5000, n-i)
        a,b,share,light = rng.integers(len(drawn), size=k),rng.integers(len(drawn), size=k),rng.uniform(.6, 1, (k,1,1,1)),rng.uniform(.8, 1.1, (k,1,1,1))
        found[i:i+k] = ((drawn[a]*share + drawn[b]*(1-share))*light).clip(0, 255)
    copies = np.arange(1, n, 100)
    found[copies] = found[copies-1]*.97
    return found

def near_here(path):
    from fashion_fastai.data.duplicates import near_pairs
    found = np.load(path)
    start = time.perf_counter()
    pairs = near_pairs(found)
    seconds = time.perf_counter() - start
    copies = set(range(1, len(found), 100))
    assert len(copies & set(pairs[:,1].tolist())) > .95*len(copies)
    return len(pairs),seconds

def pack_here(folder, n):
    "All that packing does but for decoding, and finding it done"
    from fashion_fastai import cache
    folder,n = Path(folder),int(n)
    (folder/'images').mkdir()
    for i in range(1000): (folder/'images'/f'{i:04}.jpg').touch()
    paths = [f"{folder}/images/{o}" for o in image_paths(n, 1000)]
    cache._decode_into = lambda *args: {}
    start = time.perf_counter()
    assert len(cache.pack_images(paths, (2,2), folder/'packed', workers=1)) == n
    first = time.perf_counter() - start
    cache.pack_images(paths, (2,2), folder/'packed', workers=1)
    return first,time.perf_counter() - start - first

def in_a_process(name, *words):
    "What function `name` returns, and the most memory that it has needed, in a process of its own"
    code = f'import json,sys,scale; print(json.dumps([scale.{name}(*sys.argv[1:]), scale.peak_memory()]))'
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, *map(str, words)], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True, check=True)
    print(f"{name}: {done.stdout.splitlines()[-1]}", flush=True)
    return json.loads(done.stdout.splitlines()[-1])

def main():
    args = arguments(__doc__, rows=1_000_000, wide_rows=289_222, attributes=1000, sketches=200_000, images=1_000_000)
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        write_table(tmp/'long', args.rows, 15)
        write_table(tmp/'wide', args.wide_rows, args.attributes)
        np.save(tmp/'sketches.npy', sketches(args.sketches))
        (n_long,long),long_memory = in_a_process('read_here', tmp/'long')
        (n_wide,wide),wide_memory = in_a_process('read_here', tmp/'wide')
        (pairs,near),near_memory = in_a_process('near_here', tmp/'sketches.npy')
        (pack,again),pack_memory = in_a_process('pack_here', tmp, args.images)
    args.data,args.rounds = 'made-up lists',1
    save('scale', args, [['what','seconds','peak memory, GB'], [f'reading {n_long:,} rows with 15 attributes', long, long_memory], [f'reading {n_wide:,} rows with {args.attributes:,} attributes', wide, wide_memory],
        [f'near-duplicates among {args.sketches:,} images: {pairs:,} pairs', near, near_memory], [f'packing {args.images:,} images, without decoding', pack, pack_memory], ['finding them packed', again, pack_memory]],
        {'seconds to read the longer table': (max(long, wide), '60 at the most'), 'GB to read the larger table': (max(long_memory, wide_memory), '3 at the most'),
         'seconds for near-duplicates': (near, '300 at the most'), 'GB for near-duplicates': (near_memory, '2 at the most'), 'seconds to pack, without decoding': (pack, '120 at the most')})

if __name__ == '__main__': main()

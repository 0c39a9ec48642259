"Large inputs: reading tables of millions of cells, near-duplicates among hundreds of thousands of images, packing a million (on Linux)"
import tempfile,time
from pathlib import Path
import numpy as np
from record import arguments,in_process,save

def image_paths(folder, n, n_files=1000):
    "`n` names of `n_files` empty files in a new folder, which links to a folder make other names of"
    (folder/'0').mkdir(parents=True)
    for i in range(n_files): (folder/'0'/f'{i:04}.jpg').touch()
    for i in range(1, -(-n//n_files)): (folder/str(i)).symlink_to('0')
    return [f'{i//n_files}/{i%n_files:04}.jpg' for i in range(n)]

def write_table(data, n, n_attributes):
    "A train.csv and a val.csv with `n` rows in all, for images that are a few empty files"
    rng,paths = np.random.default_rng(0),image_paths(data, n)
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
    "The number of rows of a label table, and the seconds to read it"
    from fashion_fastai.data.labels import read_labels
    start = time.perf_counter()
    table = read_labels(data)
    return len(table),time.perf_counter() - start

def sketches(n):
    "Thumbnails of synthetic garments blended in pairs, under varied lighting; one in a hundred is a darker copy"
    from PIL import Image
    from fashion_fastai.data.synthetic import CATEGORIES,draw_garment,random_attributes
    rng = np.random.default_rng(0)
    garments = []
    for i in range(min(n, 5000)):
        category = CATEGORIES[i % len(CATEGORIES)]
        image = draw_garment(category, random_attributes(category, rng), i, (64,68))
        garments.append(np.asarray(image.resize((17,16), Image.Resampling.BILINEAR)))
    garments,blended = np.array(garments),np.empty((n,16,17,3), np.uint8)
    for i in range(0, n, 5000):
        k = min(5000, n-i)
        a,b = rng.integers(len(garments), size=k),rng.integers(len(garments), size=k)
        weight,light = rng.uniform(.6, 1, (k,1,1,1)),rng.uniform(.8, 1.1, (k,1,1,1))
        blended[i:i+k] = ((garments[a]*weight + garments[b]*(1-weight))*light).clip(0, 255)
    copies = np.arange(1, n, 100)
    blended[copies] = blended[copies-1]*.97
    return blended

def near_here(path):
    "The number of near-duplicate pairs, and the seconds to find them"
    from fashion_fastai.data.duplicates import near_pairs
    found = np.load(path)
    start = time.perf_counter()
    pairs = near_pairs(found)
    seconds = time.perf_counter() - start
    copies = set(range(1, len(found), 100))
    assert len(copies & set(pairs[:,1].tolist())) > .95*len(copies)
    return len(pairs),seconds

def pack_here(folder, n):
    "The seconds of packing without decoding, and of opening what is packed"
    from fashion_fastai.data import cache
    folder,n = Path(folder),int(n)
    paths = [f"{folder}/images/{o}" for o in image_paths(folder/'images', n)]
    cache._decode_into = lambda *args: {}
    start = time.perf_counter()
    assert len(cache.pack_images(paths, (2,2), folder/'packed', workers=1)) == n
    first = time.perf_counter() - start
    cache.pack_images(paths, (2,2), folder/'packed', workers=1)
    return first,time.perf_counter() - start - first

def measure(name, *words):
    "What function `name` returns, and its peak memory in GB"
    returned,memory = in_process('scale', name, *words)
    print(f'{name}: {returned}, {memory:.0f} MB', flush=True)
    return returned,memory/1024

def main():
    args = arguments(__doc__, rows=1_000_000, wide_rows=289_222, attributes=1000, sketches=200_000, images=1_000_000)
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        write_table(tmp/'long', args.rows, 15)
        write_table(tmp/'wide', args.wide_rows, args.attributes)
        np.save(tmp/'sketches.npy', sketches(args.sketches))
        (n_long,long),long_memory = measure('read_here', tmp/'long')
        (n_wide,wide),wide_memory = measure('read_here', tmp/'wide')
        (pairs,near),near_memory = measure('near_here', tmp/'sketches.npy')
        (pack,again),pack_memory = measure('pack_here', tmp, args.images)
    args.data,args.rounds = 'made-up lists',1
    table = [['what','seconds','peak memory, GB'],
        [f'reading {n_long:,} rows with 15 attributes', long, long_memory],
        [f'reading {n_wide:,} rows with {args.attributes:,} attributes', wide, wide_memory],
        [f'near-duplicates among {args.sketches:,} images: {pairs:,} pairs', near, near_memory],
        [f'packing {args.images:,} images, without decoding', pack, pack_memory],
        ['finding them packed', again, pack_memory]]
    save('scale', args, table, {
        'seconds to read the longer table': (max(long, wide), '60 at the most'),
        'GB to read the larger table': (max(long_memory, wide_memory), '3 at the most'),
        'seconds for near-duplicates': (near, '300 at the most'),
        'GB for near-duplicates': (near_memory, '2 at the most'),
        'seconds to pack, without decoding': (pack, '120 at the most')})

if __name__ == '__main__': main()

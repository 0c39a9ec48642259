"Packing images on all cores, beside one core that decodes and resizes them with PIL"
import multiprocessing,shutil,statistics
import numpy as np
from PIL import Image
from fashion_fastai.data.cache import pack_images,stored_size
from fashion_fastai.data.labels import read_labels
from record import arguments,data_folder,ratio,rounds,save

def decode(paths, size):
    "What packing does to the images, in the plainest way"
    pixels = np.empty((len(paths), *size, 3), np.uint8)
    for i,path in enumerate(paths):
        with Image.open(path) as image: pixels[i] = image.convert('RGB').resize(size[::-1], Image.Resampling.BILINEAR)

def enlarged(paths, folder, size, n):
    "Copies of `n` images at `size`, as a camera or a shop would deliver them"
    folder.mkdir()
    for i,path in enumerate(paths[:n]):
        with Image.open(path) as image: large = image.convert('RGB').resize(size[::-1], Image.Resampling.LANCZOS)
        large.save(folder/f'{i:05}.jpg', quality=90)
    return sorted(map(str, folder.glob('*.jpg')))

def main():
    args = arguments(__doc__, height=64, width=48, workers=multiprocessing.cpu_count(), large=2000)
    size = stored_size((args.height, args.width))
    with data_folder(args.data) as (data,cache):
        small = read_labels(data).images
        table,figures = [['images','one core, PIL, images/s',f'{args.workers} cores, images/s']],{}
        with_large = enlarged(small, cache.parent/'large', (600,450), args.large)
        for name,paths in (('as they are', small), ('enlarged to 600x450', with_large)):
            def pack():
                pack_images(paths, size, cache, args.workers)
                shutil.rmtree(cache)
            taken = rounds(args.rounds, pil=lambda: decode(paths, size), packing=pack)
            table.append([f'{len(paths):,} {name}', *[len(paths)/statistics.median(o) for o in taken.values()]])
            figures[f'packing over one core, images {name}'] = ratio(taken['pil'], taken['packing']),1.7
        save('pack', args, table, figures)

if __name__ == '__main__': main()

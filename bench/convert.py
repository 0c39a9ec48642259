"Conversion of lists as large as DeepFashion's: 289,222 images with 1,000 attributes each (on Linux)"
import os,statistics,tempfile,time
from pathlib import Path
import numpy as np
from record import arguments,in_process,save

def write_lists(src, n, n_attributes, files=()):
    "The lists of the coarse edition for `n` images, as long and as sparse as the real ones; the images are links to `files`, or empty"
    rng,per_product = np.random.default_rng(0),51
    names = [f'img/Product_Number_{i//per_product:05}_Dress/img_{i%per_product+1:08}.jpg' for i in range(n)]
    anno = src/'Anno_coarse'
    for o in (anno, src/'Eval'): o.mkdir()
    def write(path, header, rows): path.write_text(f'{len(rows)}\n{header}\n' + '\n'.join(rows) + '\n')
    def labelled(labels): return [f'{o:70} {k}' for o,k in zip(names, labels)]
    write(anno/'list_category_cloth.txt', 'category_name  category_type', [f'Category{k:<7}1' for k in range(50)])
    attributes = [f'attribute number {k:<8}{k%5+1}' for k in range(n_attributes)]
    write(anno/'list_attr_cloth.txt', 'attribute_name           attribute_type', attributes)
    categories = np.minimum(rng.geometric(.2, n//per_product + 1), 50)[np.arange(n)//per_product]
    write(anno/'list_category_img.txt', 'image_name category_label', labelled(categories))
    splits = rng.choice(['train','val','test'], n, p=[.72,.14,.14])
    write(src/'Eval'/'list_eval_partition.txt', 'image_name evaluation_status', labelled(splits))
    frequencies = 1/(np.arange(n_attributes) + 3)
    frequencies *= 3.3/frequencies.sum()
    with (anno/'list_attr_img.txt').open('wb') as file:
        file.write(b'%d\nimage_name attribute_labels\n' % n)
        for o in names:
            row = np.frombuffer(b'-1 '*n_attributes, np.uint8).copy()
            row[np.flatnonzero(rng.random(n_attributes) < frequencies)*3] = ord(' ')
            file.write(o.ljust(70).encode() + row.tobytes() + b'\n')
    for i,o in enumerate(names):
        image = src/'Img'/o
        if o.endswith('00000001.jpg'): image.parent.mkdir(parents=True)
        if files: os.link(files[i % len(files)], image)
        else: image.touch()

def convert_here(src, dst):
    "Convert; the number of images, and the seconds by the clock and of the processor"
    from fashion_fastai.convert.deepfashion import convert_deepfashion
    start,busy = time.perf_counter(),time.process_time()
    converted = convert_deepfashion(src, dst)
    return sum(converted.splits.values()),time.perf_counter() - start,time.process_time() - busy

def main():
    args = arguments(__doc__, rows=289_222, attributes=1000)
    taken = []
    with tempfile.TemporaryDirectory() as tmp:
        src = Path(tmp)/'deepfashion'
        src.mkdir()
        write_lists(src, args.rows, args.attributes)
        for i in range(1, args.rounds+1):
            (images,seconds,busy),memory = in_process('convert', 'convert_here', src, Path(tmp)/f'data{i}')
            taken.append((images, seconds, busy, memory))
            print(f'round {i} of {args.rounds}: {seconds:.1f} s, {busy:.1f} s of processor time, {memory:.0f} MB', flush=True)
    images,seconds,busy,memory = map(statistics.median, zip(*taken))
    args.data = 'made-up lists'
    header = ['images in the lists','attributes','images linked','seconds','of processor time','peak memory, MB']
    figures = {'seconds of processor time for all lists and links': (busy, '60 at the most'),
               'peak memory, GB': (memory/1024, '4 at the most')}
    save('convert', args, [header, [args.rows, args.attributes, images, seconds, busy, memory]], figures)

if __name__ == '__main__': main()

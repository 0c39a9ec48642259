"Converting a DeepFashion of full size, made up: 289,222 images with 1,000 attributes each (on Linux)"
import statistics,subprocess,sys,tempfile,time
from pathlib import Path
import numpy as np
from record import arguments,save

def make_up(src, n, n_attributes):
    "The lists of the coarse edition for `n` images, 51 to a product, as long and as sparse as the real ones; the images are empty files"
    rng,names = np.random.default_rng(0),[f'img/Product_Number_{i//51:05}_Dress/img_{i%51+1:08}.jpg' for i in range(n)]
    anno = src/'Anno_coarse'
    for o in (anno, src/'Eval'): o.mkdir()
    def listed(path, header, rows): path.write_text(f'{len(rows)}\n{header}\n' + '\n'.join(rows) + '\n')
    listed(anno/'list_category_cloth.txt', 'category_name  category_type', [f'Category{k:<7}1' for k in range(50)])
    listed(anno/'list_attr_cloth.txt', 'attribute_name           attribute_type', [f'attribute number {k:<8}{k%5+1}' for k in range(n_attributes)])
    categories = np.minimum(rng.geometric(.2, n//51 + 1), 50)[np.arange(n)//51]
    listed(anno/'list_category_img.txt', 'image_name category_label', [f'{o:70} {k}' for o,k in zip(names, categories)])
    listed(src/'Eval'/'list_eval_partition.txt', 'image_name evaluation_status', [f'{o:70} {k}' for o,k in zip(names, rng.choice(['train','val','test'], n, p=[.72,.14,.14]))])
    often = 1/(np.arange(n_attributes) + 3)
    often *= 3.3/often.sum()
    with (anno/'list_attr_img.txt').open('wb') as file:
        file.write(b'%d\nimage_name attribute_labels\n' % n)
        for o in names:
            row = np.frombuffer(b'-1 '*n_attributes, np.uint8).copy()
            row[np.flatnonzero(rng.random(n_attributes) < often)*3] = ord(' ')
            file.write(o.ljust(70).encode() + row.tobytes() + b'\n')
    for o in names:
        if o.endswith('00000001.jpg'): (src/'Img'/o).parent.mkdir(parents=True)
        (src/'Img'/o).touch()

def convert_here(src, dst):
    "Convert, and print the images, the seconds by the clock and of the processor, and the most memory that this process has had, in MB"
    from fashion_fastai.convert.deepfashion import convert_deepfashion
    start,busy = time.perf_counter(),time.process_time()
    made = convert_deepfashion(src, dst)
    # not getrusage, whose ru_maxrss begins with what the parent process had
    print(sum(made.splits.values()), time.perf_counter() - start, time.process_time() - busy, next(int(o.split()[1])/1024 for o in Path('/proc/self/status').read_text().splitlines() if o.startswith('VmHWM')))

def main():
    args = arguments(__doc__, rows=289_222, attributes=1000)
    taken = []
    with tempfile.TemporaryDirectory() as tmp:
        src = Path(tmp)/'deepfashion'
        src.mkdir()
        make_up(src, args.rows, args.attributes)
        for i in range(args.rounds):
            code = 'import sys; from convert import convert_here; convert_here(*sys.argv[1:])'
            done = subprocess.run([sys.executable, '-c', code, src, Path(tmp)/f'data{i}'], cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
            taken.append(list(map(float, done.stdout.splitlines()[-1].split())))
            print(f"round {i+1} of {args.rounds}: {taken[-1][1]:.1f} s, {taken[-1][2]:.1f} s of processor time, {taken[-1][3]:.0f} MB", flush=True)
    images,seconds,busy,memory = map(statistics.median, zip(*taken))
    args.data = 'made-up lists'
    save('convert', args, [['images in the lists','attributes','images linked','seconds','of processor time','peak memory, MB'], [args.rows, args.attributes, images, seconds, busy, memory]],
        {'seconds of processor time for all lists and links': (busy, '60 at the most'), 'peak memory, GB': (memory/1024, '4 at the most')})

if __name__ == '__main__': main()

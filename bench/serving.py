"Predictions with ONNX Runtime beside PyTorch: one image, batches, files, the start of a process, and what has to be installed"
import shutil,statistics,subprocess,sys,tempfile
from contextlib import contextmanager
from pathlib import Path
import numpy as np, torch
from fashion_fastai.data.image import load_pixels
from fashion_fastai.data.labels import read_labels
from fashion_fastai.predict.model import load_model
from fashion_fastai.predict.core import predict_batches
from fashion_fastai.recipes.settings import read_recipe
from fashion_fastai.predict.onnx import OnnxModel,open_session,run_graph
from fashion_fastai.export.graph import MAX_DROP,ServingGraph
from fashion_fastai.export.package import export_folder
from fashion_fastai.train.core import train_run
from record import arguments,data_folder,ratio,rounds,save,seconds
from predict import drain

ROOT = Path(__file__).parent.parent
MAIN = 'import sys; from fashion_fastai.cli.main import main; sys.exit(main(sys.argv[1:]))'

def torch_network(learn, channels_last):
    "The exported graph in PyTorch, fp32: uint8 images to probabilities"
    graph = ServingGraph(learn).eval()
    graph.model.to_precision('fp32', channels_last)
    def run(images):
        with torch.inference_mode(): return [o.numpy() for o in graph(torch.from_numpy(images))]
    return run

def onnx_network(model, threads):
    "The graph with ONNX Runtime: uint8 images to probabilities"
    session = open_session(model.graph, threads)
    return lambda images: run_graph(session, images)

def network_times(learn, model, integers, images, batch_size, n):
    "Seconds of `n` calls of each engine, in turns; PyTorch in the memory layout that is faster here"
    batch = np.resize(images, (batch_size,*images.shape[1:]))
    threads = torch.get_num_threads()
    works = dict(torch=torch_network(learn, False), torch_channels_last=torch_network(learn, True), onnx=onnx_network(model, threads))
    if integers: works['int8'] = onnx_network(integers, threads)
    taken = {name: [] for name in works}
    for _ in range(n + 3): # the first three warm up
        for name,work in works.items():
            work(batch) # meanwhile the threads of the engine before it, which wait for work, stop using the cores
            taken[name].append(seconds(lambda: work(batch)))
    taken = {name: o[3:] for name,o in taken.items()}
    other = taken.pop('torch_channels_last')
    if statistics.median(other) < statistics.median(taken['torch']): taken['torch'] = other
    return taken

def fastest(values):
    "The fastest tenth: what a call takes where other load on the machine does not interrupt it"
    return float(np.quantile(values, .1))

def first_prediction(folder, image, out, engine):
    "A process that predicts one image with `fashion predict`"
    def run():
        words = ['-W', 'ignore', '-c', MAIN, 'predict', folder, image, '--out', out, '--engine', engine]
        subprocess.run([sys.executable, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    return run

def install_megabytes():
    "Size of a fresh virtual environment for `fashion serve --api`, without PyTorch"
    with tempfile.TemporaryDirectory() as tmp:
        subprocess.run([sys.executable, '-m', 'venv', tmp], check=True)
        source = shutil.copytree(ROOT, f'{tmp}/source', ignore=shutil.ignore_patterns('.*', 'nbs', 'tests', 'build'))
        for o in (['-r', f'{source}/docker/requirements.txt'], ['--no-deps', source]):
            subprocess.run([f'{tmp}/bin/pip', 'install', '-q', *o], check=True)
        shutil.rmtree(source)
        return sum(o.stat().st_size for o in Path(tmp).rglob('*') if o.is_file() and not o.is_symlink())/1e6

@contextmanager
def exported(args, data):
    "A model folder with model_int8.onnx if that is kept, and the check of quantisation"
    with tempfile.TemporaryDirectory() as tmp:
        run = Path(args.run) if args.run else Path(tmp)/'run'
        if not args.run: train_run(data, run, read_recipe('demo', stages=args.stages, report=False))
        check = export_folder(run, Path(tmp)/'model', onnx=True, int8=data)
        print(check, flush=True)
        yield Path(tmp)/'model',check

def main():
    args = arguments(__doc__, run='', stages='40x30:4 64x48:6', install=0)
    with data_folder(args.data) as (data,_),exported(args, data) as (folder,check),tempfile.TemporaryDirectory() as tmp:
        table = read_labels(data)
        learn,model = load_model(folder, 'fp32'),OnnxModel(folder)
        integers = OnnxModel(folder, int8=True) if check.is_kept else None
        images = np.array([load_pixels(o, model.size) for o in table.images[:64]])
        one = network_times(learn, model, integers, images, 1, 60*args.rounds)
        many = network_times(learn, model, integers, images, 64, 8*args.rounds)
        test = data/'val.csv'
        lists = dict(torch=lambda: drain(predict_batches(learn, test)), onnx=lambda: drain(predict_batches(model, test)))
        if integers: lists['int8'] = lambda: drain(predict_batches(integers, test))
        files = rounds(args.rounds, **lists)
        image = Path(tmp)/'images'
        image.mkdir()
        shutil.copy(table.images[0], image)
        starts = rounds(args.rounds, **{o: first_prediction(folder, image, f'{tmp}/out', o) for o in ('torch','onnx')})
        n,sizes = table.is_valid.sum(),{o.name: o.stat().st_size/1e6 for o in folder.glob('model*.onnx')}
        rows = [['figure', *('torch fp32','onnx fp32','onnx int8')]]
        def row(what, taken, value):
            values = [value(statistics.median(taken[o])) if o in taken else '-' for o in ('torch','onnx','int8')]
            rows.append([what, *values])
        row('milliseconds for one decoded image', one, lambda o: o*1e3)
        row('milliseconds for a batch of 64', many, lambda o: o*1e3)
        row('images per second from files', files, lambda o: n/o)
        row('seconds from process start to the first prediction', starts, lambda o: o)
        rows += [['points that the mean of the scores falls by', '-', '-', check.drop],
            ['megabytes of the graph', '-', sizes['model.onnx'], sizes.get('model_int8.onnx', '-')]]
        def speedup(taken, engine, average): return average(taken['torch'])/average(taken[engine])
        figures = {'one image, onnx over torch': (speedup(one, 'onnx', statistics.median), 2),
            'one image, onnx over torch, fastest tenth of the calls': (speedup(one, 'onnx', fastest), None),
            'images per second from files, onnx over torch': (ratio(files['torch'], files['onnx']), 1),
            'time to the first prediction, torch over onnx': (ratio(starts['torch'], starts['onnx']), 3)}
        if integers:
            figures |= {'batch of 64, int8 over torch': (speedup(many, 'int8', statistics.median), 2.5),
                'batch of 64, int8 over torch, fastest tenth of the calls': (speedup(many, 'int8', fastest), None),
                f'{MAX_DROP} points over the loss by int8, if there is a loss': (MAX_DROP/max(check.drop, .01), 1),
                '4 MB over the size of model_int8.onnx': (4/sizes['model_int8.onnx'], 1)}
        if args.install:
            megabytes = install_megabytes()
            rows.append(['megabytes of the environment, without PyTorch', '-', megabytes, megabytes])
            figures['400 MB over the size of the environment'] = (400/megabytes, 1)
        save('serving', args, rows, figures)

if __name__ == '__main__': main()

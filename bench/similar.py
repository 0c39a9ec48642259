"Similar items: the speed of exact search, the recall of faiss, and how similar the nearest images are, beside pixels and colours"
import statistics,tempfile,time
from pathlib import Path
import numpy as np
from fashion_fastai.data.image import load_pixels
from fashion_fastai.data.vocab import Vocab
from fashion_fastai.data.labels import read_labels
from fashion_fastai.core import prefetch_map
from fashion_fastai.metrics import f1_per_image
from fashion_fastai.outputs.submission import Predictions
from fashion_fastai.predict.core import as_predictor,predict_batches
from fashion_fastai.predict.rows import embedding_metadata,predictions_tables,rows_schema,write_rows
from fashion_fastai.similar.embed import EmbeddingFiles,embed_images
from fashion_fastai.similar.search import ExactIndex,FaissIndex,nearest_vectors
from record import arguments,in_process,memory_mb,ratio,rounds,save,seconds

VOCAB = Vocab(('garment',), ())

def made_up(rng, centres, n):
    "Vectors of a catalogue: near one of some centres, positive as a network's are"
    vectors = centres[rng.integers(len(centres), size=n)] + .5*rng.random((n, centres.shape[1]), np.float32)
    return vectors/np.linalg.norm(vectors, axis=1, keepdims=True)

def write(path, n, n_features):
    "A file of `n` made-up embeddings"
    rng,n = np.random.default_rng(0),int(n)
    centres = np.maximum(rng.standard_normal((2000, int(n_features))), 0).astype(np.float32)
    def batches():
        for start in range(0, n, 8192):
            rows = min(8192, n - start)
            names = [f'catalogue/{i:08}.jpg' for i in range(start, start + rows)]
            empty = np.empty((rows, 0))
            probabilities = np.ones((rows, 1), np.float32),empty.astype(np.float32)
            yield Predictions(names, np.zeros(rows, int), empty.astype(bool), *probabilities, VOCAB, {}, made_up(rng, centres, rows))
    schema = rows_schema(VOCAB, int(n_features)).with_metadata(embedding_metadata('list.csv', '0'*64, int(n_features), VOCAB))
    return write_rows(path, predictions_tables(batches()), schema)

def queries_of(files, n=20):
    "Vectors that are near some of the catalogue"
    vectors = next(iter(files.tables(['embedding'])))['embedding'].combine_chunks().flatten().to_numpy().reshape(-1, files.n_features)[:n]
    noisy = vectors.astype(np.float32) + .01*np.random.default_rng(1).random(vectors.shape, np.float32)
    return noisy/np.linalg.norm(noisy, axis=1, keepdims=True)

def exact(path):
    "Seconds to open the index, milliseconds of a search (median and slowest), and MB of the imported packages before (without PyTorch)"
    imports,start = memory_mb(),time.perf_counter()
    files = EmbeddingFiles(path)
    index = ExactIndex(files)
    opened,queries = time.perf_counter() - start,queries_of(files)
    taken = [1e3*seconds(lambda: index.nearest(o[None])) for o in queries]
    return dict(opened=opened, median=statistics.median(taken), slowest=max(taken), imports=imports)

def streamed(path):
    "Seconds of one search that reads the file"
    files = EmbeddingFiles(path)
    queries = queries_of(files, 1)
    from fashion_fastai.predict.rows import column_matrix
    return seconds(lambda: nearest_vectors((column_matrix(o, 'embedding') for o in files.tables(['embedding'])), queries))

def approximate(path):
    "The same with faiss, and the share of the exact 12 nearest that it finds"
    files = EmbeddingFiles(path)
    start = time.perf_counter()
    index = FaissIndex(files)
    opened,queries = time.perf_counter() - start,queries_of(files, 200)
    taken = [1e3*seconds(lambda: index.nearest(o[None])) for o in queries[:20]]
    found,true = index.nearest(queries).rows,ExactIndex(files).nearest(queries).rows
    recall = np.mean([len(set(a) & set(b))/12 for a,b in zip(found, true)])
    return dict(opened=opened, median=statistics.median(taken), slowest=max(taken), recall=float(recall))

def unit(vectors): return vectors/np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

def colour_histograms(pixels):
    "8 x 8 x 8 colours of each image, whose square roots are compared (Hellinger)"
    codes = (pixels >> 5).astype(int)@np.array([64,8,1])
    return np.stack([np.bincount(o.ravel(), minlength=512)/o.size for o in codes])**.5

def descriptions(run, table, rows):
    "Vectors of some images by each description"
    predictor = as_predictor(run).with_features()
    images = [table.images[i] for i in rows]
    pixels = np.array(list(prefetch_map(lambda o: load_pixels(o, (32,24)), images, 2)))
    flat = pixels.reshape(len(pixels), -1).astype(np.float32)
    embedded = embed_images(predictor, images).vectors.astype(np.float32)
    colours = unit(colour_histograms(pixels).astype(np.float32))
    return dict(embeddings=embedded, colours=colours, pixels=unit(flat - flat.mean(1, keepdims=True)))

def quality(run, data):
    "Of the 12 nearest training images of each validation image: the share with its category, and Mean F1 of their attributes"
    table = read_labels(data)
    valid,training = np.flatnonzero(table.is_valid),np.flatnonzero(~table.is_valid)
    of_valid,of_training = (descriptions(run, table, o) for o in (valid, training))
    scores = {}
    for name,vectors in of_valid.items():
        found = training[nearest_vectors(np.array_split(of_training[name], 8), vectors, 12).rows]
        same = table.categories[found] == table.categories[valid][:,None]
        f1 = np.mean([f1_per_image(table.attributes[o] > 0, table.attributes[valid]) for o in found.T])
        scores[name] = 100*same.mean(),100*f1
    return scores

def embed_speed(run, data, n):
    "Images/s of predictions with embeddings over those without"
    from fashion_fastai.predict.model import load_model # PyTorch, which searches do without
    plain = as_predictor(load_model(run, 'auto'))
    test = data/'train.csv'
    def drain(predictor):
        for o in predict_batches(predictor, test): pass
    drain(plain)
    taken = rounds(n, predict=lambda: drain(plain), embed=lambda: drain(plain.with_features()))
    return ratio(taken['predict'], taken['embed'])

def main():
    args = arguments(__doc__, run='', n=1_000_000, features=256, faiss=0)
    rows,figures = [['search', 'seconds to open', 'ms, median', 'ms, slowest', 'MB']],{}
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp)/'E.parquet'
        print(f"{write(path, args.n, args.features):,} vectors, {path.stat().st_size/1e6:,.0f} MB")
        found,memory = in_process('similar', 'exact', path)
        rows.append([f'exact, {args.n:,}', found['opened'], found['median'], found['slowest'], memory])
        figures |= {'ms of an exact search': (found['median'], None), 'GB of an exact search': (memory/1024, None),
            'GB of an exact search, without the imported packages': ((memory - found['imports'])/1024, None)}
        taken,memory = in_process('similar', 'streamed', path)
        rows.append(['exact, from the file', taken, '', '', memory])
        if args.faiss:
            found,memory = in_process('similar', 'approximate', path)
            rows.append(['faiss', found['opened'], found['median'], found['slowest'], memory])
            figures['recall of faiss'] = found['recall'],None
    if args.run and args.data:
        data = Path(args.data)
        scores = quality(args.run, data)
        for name,(category,f1) in scores.items():
            figures[f'{name}: % of the 12 nearest with the category'] = category,None
            figures[f'{name}: Mean F1 of the 12 nearest'] = f1,None
        figures['points above colours'] = scores['embeddings'][0] - scores['colours'][0],10
        figures['embed / predict'] = embed_speed(args.run, data, args.rounds),.95
    save('similar', args, rows, figures)

if __name__ == '__main__': main()

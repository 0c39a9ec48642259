"Embeddings, similar items, suggestions and labels: from the command line, and what they refuse"
import base64,importlib.util,json,shutil,sys
import numpy as np,pandas as pd
import pytest
from conftest import SHORT,refused,run_inprocess,run_python
from test_serving import WITHOUT_TORCH,folder # noqa: F401 - a fixture
from fashion_fastai.core import InputError,UNKNOWN
from fashion_fastai.data.image import open_image
from fashion_fastai.data.vocab import Vocab
from fashion_fastai.data.labels import read_labels,read_tables
from fashion_fastai.data.listed import LabelFile,add_labels,read_list_labels
from fashion_fastai.data.stats import read_stats
from fashion_fastai.predict.core import predict_images
from fashion_fastai.predict.model import load_model
from fashion_fastai.predict.onnx import OnnxModel,open_session
from fashion_fastai.outputs.submission import ImageList
from fashion_fastai.report.dataset import check_data
from fashion_fastai.serve.label import Labelling
from fashion_fastai.serve.service import PredictionService
from fashion_fastai.similar.embed import EmbeddingFiles,embed_images,write_embeddings
from fashion_fastai.similar.map import see_data
from fashion_fastai.similar.search import ExactIndex,FaissIndex,SimilarItems,nearest_vectors
from fashion_fastai.similar.suggest import suggest_images

pa,pq = pytest.importorskip('pyarrow'),pytest.importorskip('pyarrow.parquet')

@pytest.fixture(scope='module')
def other_run(garments, tmp_path_factory):
    "Another network for the same labels"
    out = tmp_path_factory.mktemp('runs')/'other'
    assert run_inprocess('train', garments, '--out', out, *SHORT, '--seed', 7).returncode == 0
    return out

@pytest.fixture(scope='module')
def E(run, garments, tmp_path_factory):
    "The embeddings of the training images"
    out = tmp_path_factory.mktemp('embeddings')/'E.parquet'
    done = run_inprocess('embed', run, garments/'train.csv', '--out', out)
    assert done.returncode == 0 and f'images: {out}; next: ' in done.stdout, done.stderr
    return out

def vectors_of(path): return EmbeddingFiles(path).vectors(np.float32)

def test_embeddings_are_the_features_before_the_head(run, garments, E):
    learn,files = load_model(run, 'fp32'),EmbeddingFiles(E).read()
    weight,bias = (o.detach().numpy() for o in (learn.model[1].category.weight, learn.model[1].category.bias))
    plain = predict_images(learn, garments/'train.csv')
    assert files.file_paths == plain.file_paths and files.vectors.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(files.vectors.astype(np.float32), axis=1), 1, atol=2e-3)
    # the logits without bias point where the weights times the vectors point: the same up to the length of the features
    temperatures = np.asarray(learn.loss_func.decision.temperatures[0])
    logits = np.log(plain.category_probabilities)*temperatures
    projected = files.vectors.astype(np.float64)@weight.T
    centred = [o - o.mean(1, keepdims=True) for o in (logits - bias, projected)]
    cosines = (centred[0]*centred[1]).sum(1)/np.linalg.norm(centred[0], axis=1)/np.linalg.norm(centred[1], axis=1)
    if learn.loss_func.decision.category_offsets is None: assert cosines.min() > .99
    table = read_tables(garments).frame
    labels = table[~table.is_valid]
    assert (files.labels[0] == labels.category_label).all()
    assert (files.labels[1] == labels[list(files.vocab.attributes)].values).all()

def test_predictions_are_the_same_to_the_bit_with_embeddings(run, garments):
    from fashion_fastai.predict.core import as_predictor
    for tta in (False, True):
        predictor = as_predictor(load_model(run, 'fp32')).with_tta(tta)
        plain,embedded = (predict_images(o, garments/'val.csv') for o in (predictor, predictor.with_features()))
        for a,b in zip(plain[1:5], embedded[1:5]): np.testing.assert_array_equal(a, b)
        assert plain.features is None and embedded.features.shape == (len(plain.file_paths), predictor.with_features().n_features)

def test_the_graph_has_the_same_features(run, folder, garments): # noqa: F811 - the fixture
    torch_,onnx = (embed_images(o, garments/'val.csv') for o in (load_model(run, 'fp32'), OnnxModel(folder)))
    assert abs(torch_.vectors.astype(np.float32) - onnx.vectors).max() < 2e-3 and torch_.weights == onnx.weights
    session = open_session(str(folder/'model.onnx'), 1)
    assert [o.name for o in session.get_outputs()] == ['category','attributes','features']

def test_embedding_needs_no_torch(folder, run, garments, tmp_path): # noqa: F811 - the fixture
    code = WITHOUT_TORCH + "\nfrom fashion_fastai.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    code = code.replace("'fsspec',", '') # for Parquet
    done = run_python('-c', code, 'embed', folder, garments/'train.csv', '--engine', 'onnx', '--out', tmp_path/'E.parquet')
    assert done.returncode == 0, done.stderr
    assert run_inprocess('embed', run, garments/'train.csv', '--precision', 'fp32', '--out', tmp_path/'fp32.parquet').returncode == 0
    assert abs(vectors_of(tmp_path/'E.parquet') - vectors_of(tmp_path/'fp32.parquet')).max() < 2e-3
    image = garments.parent/pd.read_csv(garments/'train.csv').file_path[3]
    done = run_python('-c', code, 'similar', folder, image, '--in', tmp_path/'E.parquet', '--engine', 'onnx', '--json')
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)['similar'][0]['file_path'] == pd.read_csv(garments/'train.csv').file_path[3]

def test_a_folder_exported_before_is_refused(folder, garments, tmp_path): # noqa: F811 - the fixture
    import onnx
    from fashion_fastai.folders.model import file_hash
    old = shutil.copytree(folder, tmp_path/'old')
    graph = onnx.load(old/'model.onnx')
    graph.graph.output.remove(graph.graph.output[-1])
    onnx.save(graph, old/'model.onnx')
    config = json.loads((old/'config.json').read_text())
    config['files']['model.onnx'] = file_hash((old/'model.onnx').read_bytes())
    (old/'config.json').write_text(json.dumps(config))
    done = run_inprocess('embed', old, garments/'val.csv', '--engine', 'onnx', '--out', tmp_path/'E.parquet')
    assert refused(done, 'was exported by a version whose graphs have no features; export the run again')
    assert run_inprocess('predict', old, garments/'val.csv', '--engine', 'onnx', '--out', tmp_path/'out').returncode == 0

def test_parts_are_the_whole(run, garments, E, tmp_path):
    words = [run, garments/'train.csv', '--out', tmp_path/'parts', '--batch-size', 32, '--shard']
    assert run_inprocess('embed', *words, '1/3').returncode == 0
    assert refused(run_inprocess('similar', run, garments/'test'/'00001.jpg', '--in', tmp_path/'parts'), 'embed the parts that are missing')
    assert refused(run_inprocess('predict', *words, '2/3'), 'number of features')
    for k in (2, 3): done = run_inprocess('embed', *words, f'{k}/3')
    assert done.returncode == 0 and f"merge {tmp_path/'parts'} --out embeddings.parquet" in done.stdout, done.stderr
    done = run_inprocess('merge', tmp_path/'parts', '--out', tmp_path/'joined.parquet')
    assert done.returncode == 0 and '160 images' in done.stdout, done.stderr
    whole = EmbeddingFiles(E).read()
    for o in ('parts','joined.parquet'):
        again = EmbeddingFiles(tmp_path/o).read()
        assert again.file_paths == whole.file_paths and (again.labels[1] == whole.labels[1]).all() and again.weights == whole.weights
        assert abs(again.vectors.astype(np.float32) - whole.vectors).max() < 5e-3
    assert run_inprocess('merge', tmp_path/'parts', '--out', tmp_path/'submission').returncode == 0
    assert run_inprocess('predict', run, garments/'train.csv', '--out', tmp_path/'plain', '--shard', '1/1').returncode == 0
    assert refused(run_inprocess('merge', tmp_path/'plain', '--out', tmp_path/'x.parquet'), 'has predictions without embeddings')

def test_vectors_that_mean_nothing_here_are_refused(run, other_run, garments, E, tmp_path):
    image = garments/'test'/'00001.jpg'
    def similar(path, model=run): return run_inprocess('similar', model, image, '--in', path)
    assert refused(similar(E, other_run), 'has embeddings of another run (weights ')
    (tmp_path/'cut.parquet').write_bytes(E.read_bytes()[:-200])
    assert refused(similar(tmp_path/'cut.parquet'), 'is not a readable file of embeddings')
    (tmp_path/'both').mkdir()
    shutil.copy(E, tmp_path/'both'/'a.parquet')
    write_embeddings(load_model(other_run), garments/'val.csv', tmp_path/'both'/'b.parquet')
    assert refused(similar(tmp_path/'both'), 'b.parquet: has embeddings of another run than a.parquet beside it')
    table = pq.read_table(E)
    description = json.loads(table.schema.metadata[b'embedding'])
    def changed(name, **values):
        pq.write_table(table.replace_schema_metadata({'embedding': json.dumps(description | values)}), tmp_path/name)
        return tmp_path/name
    assert refused(similar(changed('size.parquet', features=64)), 'its columns are not those of embeddings of 64 features')
    assert refused(similar(changed('names.parquet', categories=['a','a'])), 'a list of names, each once')
    def replaced(name, column, values):
        i = table.column_names.index(column)
        pq.write_table(table.set_column(i, table.schema.field(i), pa.array(values, table.schema.field(i).type)), tmp_path/name)
        return tmp_path/name
    n = len(table)
    for column,value in (('category_label', 99), ('category_label', None), ('category', -1), ('attributes', [99]), ('attribute_labels', [7]*15)):
        assert refused(similar(replaced('labels.parquet', column, [value]*n)), 'it has empty cells, or unknown labels')
    vectors = table['embedding'].to_pylist()
    for value in (np.float16('nan'), np.float16('inf')):
        wrong = [*vectors[:-1], [value, *vectors[-1][1:]]]
        assert refused(similar(replaced('nan.parquet', 'embedding', wrong)), 'it has vectors that are not numbers')
    pq.write_table(table.select(['file_path']).replace_schema_metadata(None), tmp_path/'plain.parquet')
    assert refused(similar(tmp_path/'plain.parquet'), 'it has no description of embeddings')
    assert refused(similar(tmp_path/'none.parquet'), 'no such file of embeddings; fashion embed RUN LIST --out')
    assert refused(run_inprocess('embed', run, garments/'val.csv', '--out', tmp_path/'x.csv'), 'name one, such as embeddings.parquet')
    assert refused(run_inprocess('similar', run, tmp_path/'none.jpg', '--in', E), 'no such image file')

def test_a_list_whose_images_are_gone_is_refused(run, garments, tmp_path):
    images = tmp_path/'images'
    shutil.copytree(garments/'test', images)
    assert run_inprocess('embed', run, images, '--out', tmp_path/'E.parquet').returncode == 0
    shutil.rmtree(images)
    images.mkdir()
    done = run_inprocess('suggest', run, tmp_path/'E.parquet', '--out', tmp_path/'next.csv', '--data', 'no')
    assert refused(done, '20 of 20 images are gone, the first being')
    shutil.copytree(garments/'test', tmp_path/'moved')
    words = ['suggest', run, tmp_path/'E.parquet', '--n', 5, '--out', tmp_path/'next.csv', '--data', 'no', '--images', tmp_path/'moved']
    done = run_inprocess(*words)
    assert done.returncode == 0 and len(pd.read_csv(tmp_path/'next.csv')) == 5, done.stderr
    catalogue = SimilarItems(load_model(run), tmp_path/'E.parquet')
    items = catalogue.find(garments/'test'/'00001.jpg', 2)
    with pytest.raises(InputError, match='its images are gone, such as'): catalogue.thumbnails(items)
    (tmp_path/'list.csv').write_text('file_path\nimages/none.jpg\n')
    assert refused(run_inprocess('embed', run, tmp_path/'list.csv', '--out', tmp_path/'x.parquet'), '1 of 1 images are missing')

def test_similar_items_are_those_of_a_full_comparison(run, garments, E):
    paths,vectors = pd.read_csv(garments/'train.csv').file_path,vectors_of(E)
    expected = np.argsort(-(vectors@vectors[5]), kind='stable')[:4]
    done = run_inprocess('similar', run, garments.parent/paths[5], '--in', E, '--top', 4, '--json', '--precision', 'fp32')
    found = json.loads(done.stdout)['similar']
    assert found[0]['file_path'] == paths[5] and found[0]['similarity'] > .999
    assert {o['file_path'] for o in found} == set(paths[expected])
    frame = pd.read_csv(garments/'train.csv').set_index('file_path')
    vocab = EmbeddingFiles(E).vocab
    for o in found: # the labels of the list
        assert o['category'] == vocab.categories[frame.category_label[o['file_path']]]
        assert o['attributes'] == [name for name in vocab.attributes if frame.at[o['file_path'],name]]
    done = run_inprocess('similar', run, garments.parent/paths[5], '--in', E, '--top', 4)
    assert len(done.stdout.splitlines()) == 5 and paths[5] in done.stdout.splitlines()[1]

@pytest.mark.parametrize('threads', [1, 3])
def test_blocks_change_nothing(threads):
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((997, 8)).astype(np.float16)
    queries = vectors[rng.integers(997, size=5)].astype(np.float32)
    expected = np.argsort(-(queries@vectors.astype(np.float32).T), axis=1, kind='stable')[:,:12]
    for n in (1, 2, 31):
        found = nearest_vectors(np.array_split(vectors, n), queries, 12, threads)
        assert (found.rows == expected).all() and (np.diff(found.cosines) <= 0).all()

def test_faiss_finds_what_exact_search_finds(E):
    pytest.importorskip('faiss')
    files = EmbeddingFiles(E)
    queries = files.vectors(np.float32)[:20]
    found,exact = FaissIndex(files, cells=2, searched=2).nearest(queries),ExactIndex(files).nearest(queries)
    assert np.mean([len(set(a) & set(b)) for a,b in zip(found.rows, exact.rows)]) > 11.5

def test_what_a_large_catalogue_needs_is_named(E, monkeypatch):
    from fashion_fastai.similar import search
    monkeypatch.setitem(sys.modules, 'faiss', None)
    monkeypatch.setattr(search, 'MAX_EXACT', 10)
    with pytest.raises(InputError, match=r"pip install 'fashion_fastai\[similar\]'"): search.open_index(EmbeddingFiles(E))

def test_suggestions_are_uncertain_and_no_duplicates(run, garments, tmp_path):
    stock = tmp_path/'stock'
    shutil.copytree(garments/'test', stock)
    names = sorted(o.name for o in stock.iterdir())
    for i in range(5): open_image(stock/names[0]).save(stock/f'copy{i}.jpg', quality=92 - i)
    training = garments.parent/pd.read_csv(garments/'train.csv').file_path[0]
    open_image(training).save(stock/'training.jpg', quality=90)
    (stock/'broken.jpg').write_bytes(b'no image')
    done = run_inprocess('suggest', run, stock, '--n', 100, '--out', tmp_path/'next.csv', '--data', garments)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path/'next.csv')
    chosen = set(table.file_path)
    assert 'broken.jpg' not in chosen and 'training.jpg' not in chosen and len(table) == len(chosen)
    assert len(chosen & {names[0], *(f'copy{i}.jpg' for i in range(5))}) <= 1
    few = suggest_images(load_model(run), stock, 3, seed=1)
    assert len(few) == len(set(few.file_path)) == 3
    assert few.uncertainty[0] == table.uncertainty.max()

def test_labels_of_a_page_are_trained_with(run, garments, tmp_path):
    words = ['suggest', run, garments/'test.csv', '--n', 6, '--out', tmp_path/'next.csv', '--data', garments]
    assert run_inprocess(*words).returncode == 0
    vocab = read_tables(garments).vocab
    labelling = Labelling(tmp_path/'next.csv', vocab)
    for i in range(5): labelling.save(i, vocab.categories[i], [vocab.attributes[i]], [vocab.attributes[9]])
    labelling.save(5, None, [], list(vocab.attributes))
    written = pd.read_csv(tmp_path/'labels.csv')
    assert written.category_label.tolist()[:5] == [0,1,2,3,4] and written[vocab.attributes[9]].isna().all()
    for name,options in (('plain', []), ('folds', ['--folds', 2])):
        done = run_inprocess('train', garments, '--out', tmp_path/name, *SHORT, '--with-labels', tmp_path/'labels.csv', *options)
        assert done.returncode == 0 and '5 training images more; 1 without labels are left out' in done.stdout, done.stdout + done.stderr
        assert f"with_labels = {tmp_path/'labels.csv'}" in (tmp_path/name/'settings.ini').read_text()
    assert json.loads((tmp_path/'plain'/'metrics.json').read_text())['n_train'] == 165
    assert len(pd.read_csv(tmp_path/'folds'/'oof.csv')) == 185
    table = pd.read_csv(garments/'train.csv', dtype=object).assign(file_path=lambda o: [str(garments.parent/p) for p in o.file_path])
    table.loc[:3, vocab.attributes[0]] = ''
    table[written.columns].to_csv(tmp_path/'many.csv', index=False) # as the page writes it
    done = run_inprocess('convert', 'table', tmp_path/'many.csv', tmp_path/'converted', '--image', 'file_path', '--category', 'category_label',
        '--attributes', ','.join(vocab.attributes))
    assert done.returncode == 0, done.stderr
    def trained(labels): return run_inprocess('train', garments, '--out', tmp_path/'x', *SHORT, '--with-labels', labels)
    assert refused(trained(tmp_path/'none.csv'), 'there is no such file; fashion label writes labels')
    assert refused(trained(garments/'val.csv'), 'images are in')
    written.drop(columns='category_label')[['file_path']].to_csv(tmp_path/'bare.csv', index=False)
    assert refused(trained(tmp_path/'bare.csv'), 'has neither a column category_label nor one of the attributes')
    assert refused(run_inprocess('label', run, garments/'test.csv'), 'has no column image')

def test_labels_of_a_list_may_be_names_and_unknown(run, garments, tmp_path):
    vocab = read_tables(garments).vocab
    paths = pd.read_csv(garments/'train.csv').file_path.head(3)
    frame = pd.DataFrame(dict(file_path=paths, category_label=[vocab.categories[4], '', '2'], red=['1','','0']))
    frame.to_csv(garments/'some.csv', index=False)
    try: labels = embed_images(load_model(run), garments/'some.csv').labels
    finally: (garments/'some.csv').unlink()
    assert labels[0].tolist() == [4,UNKNOWN,2] and labels[1][:,vocab.attributes.index('red')].tolist() == [1,UNKNOWN,0]
    assert (np.delete(labels[1], vocab.attributes.index('red'), 1) == UNKNOWN).all()

@pytest.mark.skipif(not importlib.util.find_spec('fastapi') or not importlib.util.find_spec('httpx'), reason='fastapi or httpx is not installed')
def test_the_api_searches_the_catalogue(run, garments, E):
    from starlette.testclient import TestClient
    from fashion_fastai.serve.api import api_app
    from fashion_fastai.serve.queue import PredictionQueue
    model = load_model(run)
    paths = pd.read_csv(garments/'train.csv').file_path
    image = base64.b64encode((garments.parent/paths[2]).read_bytes()).decode()
    with TestClient(api_app(PredictionQueue(model, catalogue=SimilarItems(model, E)), 'run', {})) as client:
        answer = client.post('/similar?top=3', json=dict(images=[image, 'no image'])).json()['similar']
        assert [len(answer[0]['similar']), answer[0]['similar'][0]['file_path']] == [3, paths[2]] and answer[1]['problem'] == 'is not base64'
        assert 'category' in client.post('/predict', json=dict(images=[image])).json()['predictions'][0]
        assert client.post('/similar?top=0', json=dict(images=[image])).status_code == 400
        assert client.post('/similar?top=3', json=dict(images=['no image'])).status_code == 400
        assert '/similar' in client.get('/docs').text
    with TestClient(api_app(PredictionQueue(model), 'run', {})) as client: assert client.post('/similar', json={}).status_code == 404
    assert refused(run_inprocess('serve', run, '--images', garments), '--images needs --similar FILE')
    assert refused(run_inprocess('serve', run, '--api', '--similar', garments/'none.parquet'), 'no such file of embeddings')

def test_a_data_card_shows_what_a_network_sees(run, garments, tmp_path):
    pytest.importorskip('cleanlab')
    season = tmp_path/'season'
    season.mkdir()
    paths = [garments.parent/o for o in pd.read_csv(garments/'train.csv').file_path[:60]]
    for i,o in enumerate(paths): open_image(o).point(lambda v: int(v*.3)).save(season/f'{i}.jpg')
    done = run_inprocess('check', garments, '--with', run, '--against', season, '--out', tmp_path/'card.html')
    assert done.returncode == 0, done.stderr
    assert 'to fix: new and training images look different: a classifier tells them apart with AUC' in done.stdout
    page = (tmp_path/'card.html').read_text()
    for title in ('Map','Outliers','Differences between sets of images'): assert f'<h2>{title}</h2>' in page
    assert page.count('" tabindex="0" style="left:') == 200 and len(page) < 8_000_000 # an image each
    assert 'src="http' not in page and '<script' not in page
    assert refused(run_inprocess('check', garments, '--against', season), '--against needs --with RUN')
    done = run_inprocess('check', garments, '--with', run, '--against', tmp_path/'none', '--out', tmp_path/'x.html')
    assert refused(done, 'none: no such file or folder')

def test_a_card_of_a_folder_without_readable_images(run, garments, tmp_path):
    data = tmp_path/'garments'
    shutil.copytree(garments, data)
    for o in data.rglob('*.jpg'): o.write_bytes(b'no image')
    assert '200 of 200 images cannot be read' in str(check_data(data, tmp_path/'card.html', run=run))
    with pytest.raises(InputError, match='there are no images to predict'): predict_images(load_model(run), ImageList([], [], set()))

@pytest.mark.parametrize('kind', ['list','zip'])
def test_new_images_may_be_anywhere(kind, run, garments, tmp_path):
    season = tmp_path/'season'
    (season/'images').mkdir(parents=True)
    paths = [garments.parent/o for o in pd.read_csv(garments/'train.csv').file_path[:60]]
    for i,o in enumerate(paths): shutil.copy(o, season/'images'/f'{i}.jpg')
    if kind == 'zip': new = shutil.make_archive(str(tmp_path/'new'), 'zip', season)
    else: new = write_list(season/'new.txt', [season/'images'/f'{i}.jpg' for i in range(60)])
    seen = see_data(read_stats(garments, progress=None), run, new)
    assert len(seen.shifts[-1].rows) == len(seen.against.paths) == 60
    assert all(open_image(o).size for o in seen.against.paths[:3])

def write_list(path, lines):
    path.write_text('\n'.join(map(str, lines)))
    return path

@pytest.mark.parametrize('n', [0, -5, 101, float('nan'), None, 'many'])
def test_a_page_shows_a_sensible_number_of_items(n, run, garments, E, tmp_path):
    model = load_model(run)
    shutil.copy(garments/'test'/'00001.jpg', tmp_path/'a.jpg')
    service = PredictionService(model, model, tmp_path, tmp_path, SimilarItems(model, E))
    assert len(service.similar(dict(path=str(tmp_path/'a.jpg')), 3).rows) == 3
    with pytest.raises(InputError, match='should be from 1 to 100'): service.similar(dict(path=str(tmp_path/'a.jpg')), n)

def test_a_report_may_have_a_map(run, tmp_path):
    copy = shutil.copytree(run, tmp_path/'run')
    assert run_inprocess('report', copy).returncode == 0 and '<h2>Map</h2>' not in (copy/'report.html').read_text()
    assert run_inprocess('report', copy, '--map').returncode == 0
    page = (copy/'report.html').read_text()
    assert page.count('" tabindex="0" style="left:') == 20 and '<h2>Map</h2>' in page

def test_what_is_wrong_with_images_is_named(garments, tmp_path):
    from PIL import Image,ImageFilter
    from fashion_fastai.report.dataset import DataCard
    clean = DataCard(read_stats(garments, progress=None))
    assert not any('are dark' in o.text or 'are blurred' in o.text or 'nearly empty' in o.text or 'can be told' in o.text for o in clean.issues)
    data = tmp_path/'garments'
    shutil.copytree(garments, data)
    paths = sorted((data/'train').glob('*.jpg'))
    def change(rows, function):
        for o in paths[rows]: function(open_image(o)).save(o, quality=95)
    change(slice(0, 4), lambda o: o.filter(ImageFilter.GaussianBlur(max(o.size)/25)))
    change(slice(4, 8), lambda o: o.point(lambda v: int(v*.2)))
    change(slice(8, 12), lambda o: Image.new('RGB', o.size, 'white'))
    change(slice(12, 16), lambda o: o.resize((o.width*5, o.height)))
    issues = {o.text: o.fix for o in DataCard(read_stats(data, progress=None)).issues}
    for what in ('are blurred','are dark','are nearly empty','have an odd shape'):
        found, = [o for o in issues if what in o]
        assert 4 <= int(found.split()[0]) <= 6 and issues[found], found # an image that is stretched is a little blurred, too

def test_labels_that_files_give_away_are_named(garments, tmp_path):
    from fashion_fastai.report.issues import find_issues
    data = tmp_path/'garments'
    shutil.copytree(garments, data)
    table = pd.read_csv(data/'train.csv')
    for path,holds in zip(table.file_path, table.belted):
        if not holds: continue
        with open(tmp_path/path, 'ab') as file: file.write(bytes(20_000)) # another program wrote these
    issues = [o for o in find_issues(read_stats(data, progress=None)) if 'can be told' in o.text]
    assert [o.fix for o in issues] == [True] and "'belted' can be told from the size of the file alone" in issues[0].text

def test_categories_whose_names_are_numbers_keep_their_labels(tmp_path):
    for names in (('0','1','10','11','2','3'), ('10','20','30'), ('2','0','1'), ('007','7','x')):
        vocab = Vocab(names, ('red',))
        file = LabelFile(tmp_path/f"{'-'.join(names)}.csv", vocab)
        for i in range(len(names)): file.add({f'/images/{i}.jpg': (i, np.array([1], np.int8))})
        assert [label for label,_ in LabelFile(file.path, vocab).labels.values()] == list(range(len(names)))
    table = tmp_path/'names.csv'
    table.write_text('file_path,category_label\na.jpg,20\n')
    assert read_list_labels(table, Vocab(('10','20','30'), ()))[0].tolist() == [1] # a name, since no category has this number
    with pytest.raises(InputError, match="category_label is '20', but should be a number from 0 to 2, or empty"):
        read_list_labels(table, Vocab(('1','20','2'), ()))

def test_further_labels_are_checked_as_those_of_a_data_folder(garments, tmp_path):
    data = tmp_path/'data'
    shutil.copytree(garments, data)
    (data/'attributes.csv').write_text('attribute,group,exactly_one\nstriped,pattern,0\ndotted,pattern,0\n')
    table,labels = read_labels(data),pd.read_csv(data/'test_labels.csv', dtype=object)
    labels['file_path'] = [str(tmp_path/'data'/o.split('/', 1)[1]) for o in labels.file_path]
    def added(frame, name='more.csv'):
        frame.to_csv(tmp_path/name, index=False)
        return add_labels(table, tmp_path/name)
    only_striped = labels[['file_path']].assign(striped='1')
    assert added(only_striped).frame.dotted.values[-len(labels):].tolist() == [0]*len(labels) # it follows from the group
    for other in (labels[:1], labels[:1].assign(category_label='9'), labels[:1].assign(file_path=lambda o: o.file_path.str.replace('/data/', '/data/./'))):
        with pytest.raises(InputError, match=f'more.csv, line {len(labels)+2}: file_path .* has occurred before'):
            added(pd.concat([labels, other]))
    with pytest.raises(InputError, match="more.csv, line 3: is striped and dotted, but group 'pattern' of attributes.csv allows at most one"):
        added(pd.concat([labels[:1], labels[1:2].assign(striped='1', dotted='1')]))

def test_a_further_label_needs_a_path(garments, tmp_path):
    (tmp_path/'more.csv').write_text(f"file_path,category_label\n{next((garments/'test').iterdir())},1\n,2\n")
    with pytest.raises(InputError, match='more.csv, line 3: file_path is empty'): add_labels(read_labels(garments), tmp_path/'more.csv')

def test_labels_beside_a_column_of_paths_of_another_name(run, garments, tmp_path):
    paths = [str(garments.parent/o) for o in pd.read_csv(garments/'train.csv').file_path[:3]]
    pd.DataFrame(dict(image=paths, category_label=['2','','0'], red=['1','0',''])).to_csv(tmp_path/'list.csv', index=False)
    vocab = read_tables(garments).vocab
    categories,attributes = read_list_labels(tmp_path/'list.csv', vocab)
    assert categories.tolist() == [2, UNKNOWN, 0] and attributes[:, vocab.attributes.index('red')].tolist() == [1, 0, UNKNOWN]
    assert write_embeddings(run, tmp_path/'list.csv', tmp_path/'E.parquet') == 3

def test_attributes_of_an_item_are_its_labels_where_they_are_known(run, garments, tmp_path):
    vocab,paths = read_tables(garments).vocab,pd.read_csv(garments/'train.csv').file_path[:6]
    flags = {name: '' for name in vocab.attributes} | dict(red='0', blue='1')
    (listed := pd.DataFrame(dict(file_path=[str(garments.parent/o) for o in paths])).assign(**flags)).to_csv(tmp_path/'some.csv', index=False)
    write_embeddings(run, tmp_path/'some.csv', tmp_path/'E.parquet')
    predictions = predict_images(run, tmp_path/'some.csv').attributes
    for item in SimilarItems(run, tmp_path/'E.parquet').find(listed.file_path[0], 6):
        predicted = [name for name,holds in zip(vocab.attributes, predictions[item.row]) if holds and name not in ('red','blue')]
        assert item.attributes == [o for o in vocab.attributes if o == 'blue' or o in predicted]

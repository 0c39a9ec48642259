"Models, and what `fashion predict` accepts: images, zips, text files, addresses and lists, with or without --out; several images of one garment"
import hashlib,http.server,json,shutil,sys,threading,warnings,zipfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
import numpy as np,pandas as pd
import pytest
from conftest import refused,run_inprocess
from test_serving import folder # noqa: F401 - a fixture
from fashion_fastai.core import InputError
from fashion_fastai.data.image import open_image
from fashion_fastai.data.vocab import LabelTable,Vocab
from fashion_fastai.data.lists import read_test_list
from fashion_fastai.examples import example_table,tiny_learner
from fashion_fastai.outputs.submission import ImageList,read_image_list,write_submission
from fashion_fastai.predict.catalogue import Catalogue,import_pyarrow
from fashion_fastai.predict.core import as_predictor,garment_scores,predict_batches,predict_image,predict_images,predict_run
from fashion_fastai.decision.core import Decision
from fashion_fastai.predict.ensemble import load_ensemble,save_ensemble
from fashion_fastai.predict.inputs import input_kind,read_garments,read_inputs
from fashion_fastai.predict.job import read_job
from fashion_fastai.folders.run import MODEL_FILES
from fashion_fastai.predict.model import load_model,save_model
from fashion_fastai.predict.onnx import OnnxModel,choose_engine,open_session
from fashion_fastai.predict.store import Store,StoredImage,fetch_from_web

@pytest.fixture(scope='module')
def images(garments): return sorted((garments/'test').iterdir())[:4]

def predict(run, *words, **kwargs): return run_inprocess('predict', run, *words, '--precision', 'fp32', **kwargs)

def rows(out): return pd.read_csv(out/'predictions.csv')

def close(a, b):
    "Whether two dictionaries of probabilities agree; the memory layout of a network is measured each time, and changes last digits"
    return a.keys() == b.keys() and all(abs(a[o] - b[o]) < 1e-4 for o in a)

def test_images_are_predicted_without_a_list_as_in_python(run, images):
    done,learn = predict(run, *images, '--json'),load_model(run, 'fp32')
    assert done.returncode == 0, done.stderr
    for path,line in zip(images, done.stdout.splitlines(), strict=True):
        found,expected = json.loads(line),learn.predict(path)
        assert (found['file_path'], found['category'], found['attributes']) == (str(path), expected.category, expected.attributes)
        for o,p in expected.attribute_probabilities.items(): assert abs(found['attribute_probabilities'][o] - p) < 1e-5

def test_a_loaded_model_has_an_empty_training_and_an_empty_validation_set(run):
    dls = load_model(run, 'fp32').dls
    assert [len(o.dataset) for o in dls.loaders] == [0,0] and [o.dataset.split_idx for o in dls.loaders] == [0,1]
    assert [o.crop.split_idx for o in dls.loaders] == [None]*2 and dls.valid.crop.size == dls.train.crop.size

def test_the_table_has_a_line_per_image_with_category_and_attributes(run, images):
    head,*lines = predict(run, *images).stdout.splitlines()
    learn = load_model(run, 'fp32')
    assert head.split() == ['image','category','attributes'] and len(lines) == len(images)
    for path,line in zip(images, lines):
        expected = learn.predict(path)
        assert path.name in line and f'{expected.category} {expected.probability:.0%}' in line
        for o in expected.attributes: assert f'{o} {expected.attribute_probabilities[o]:.0%}' in line

def test_every_kind_of_input_gives_the_rows_of_the_same_images(run, garments, images, tmp_path):
    pa = pytest.importorskip('pyarrow')
    import pyarrow.parquet # noqa: F401
    (tmp_path/'list.csv').write_text('file_path\n' + ''.join(f'{o}\n' for o in images))
    (tmp_path/'list.txt').write_text('\ufeff' + '\r\n'.join(map(str, images)), encoding='utf-8')
    pa.parquet.write_table(pa.table(dict(file_path=list(map(str, images)))), tmp_path/'list.parquet')
    pa.parquet.write_table(pa.table(dict(image=[dict(bytes=o.read_bytes(), path=o.name) for o in images])), tmp_path/'bytes.parquet')
    with zipfile.ZipFile(tmp_path/'images.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
        for o in images: archive.write(o, o.name)
    (tmp_path/'images').mkdir()
    for o in images: (tmp_path/'images'/o.name).write_bytes(o.read_bytes())
    assert predict(run, *images, '--out', tmp_path/'out').returncode == 0
    expected = rows(tmp_path/'out')
    for name in ('list.csv','list.txt','list.parquet','bytes.parquet','images.zip','images'):
        done = predict(run, tmp_path/name, '--out', tmp_path/'out')
        assert done.returncode == 0, done.stderr
        assert [o.split('/')[-1] for o in rows(tmp_path/'out').file_path] == [o.name for o in images]
        assert (rows(tmp_path/'out').category == expected.category).all(), name
        np.testing.assert_allclose(rows(tmp_path/'out').iloc[:, 2:], expected.iloc[:, 2:], atol=2e-4)

def test_bad_images_are_named_and_counted_and_affect_no_other(run, images, tmp_path):
    (tmp_path/'broken.jpg').write_bytes(images[0].read_bytes()[:300])
    done = predict(run, images[0], tmp_path/'broken.jpg', '--json')
    good,bad = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 0 and '1 of 2 images cannot be read' in done.stderr and 'broken.jpg' in done.stderr
    assert 'category' in good and 'cannot be read as an image' in bad['problem'] and 'category' not in bad
    assert 'none of the 1 images can be read' in predict(run, tmp_path/'broken.jpg').stderr
    assert refused(predict(run, images[0], tmp_path/'broken.jpg', '--strict', '--out', tmp_path/'out'), 'broken.jpg: cannot be read as an image')

def test_what_is_no_image_and_no_list_is_called_by_its_name(run, images, tmp_path):
    with zipfile.ZipFile(tmp_path/'table.xlsx', 'w') as archive: archive.writestr('[Content_Types].xml', '')
    contents = dict(a=(b'%PDF-1.7', 'is a PDF'), b=(b'\x1f\x8b\x08', 'cannot be read (Compressed file ended'), c=(b'{"a": 1}', 'file_path'),
        d=(b'', 'is empty'), e=(b'\0\1\2', 'is not recognised'))
    for name,(content,reason) in contents.items():
        (tmp_path/name).write_bytes(content)
        assert refused(predict(run, tmp_path/name), reason)
    assert refused(predict(run, tmp_path/'table.xlsx'), 'is a document of an office program')
    assert refused(predict(run, tmp_path/'nothing.jpg'), 'nothing.jpg: no such file or folder')
    (tmp_path/'list.txt').write_text('a.jpg\nb.jpg\n')
    assert refused(predict(run, tmp_path/'list.txt'), '2 of 2 images are missing, the first being a.jpg')
    assert refused(predict(run, images[0], tmp_path/'list.txt'), 'name one list, folder or zip alone')

def test_a_zip_is_read_without_what_is_no_image_and_without_trust(run, images, tmp_path):
    with zipfile.ZipFile(tmp_path/'a.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.write(images[0], '../../outside.jpg')
        archive.writestr('__MACOSX/shadow.jpg', b'')
        archive.writestr('.hidden.jpg', b'')
        archive.writestr('read me.txt', 'hello')
        archive.writestr('large.jpg', bytes(60_000_000))
        archive.writestr('compressed.jpg', b'', zipfile.ZIP_LZMA)
    before = sorted(tmp_path.rglob('*'))
    done = predict(run, tmp_path/'a.zip', '--json')
    first,large,compressed = map(json.loads, done.stdout.splitlines())
    assert 'category' in first and 'more than 50 MB' in large['problem'] and 'another way' in compressed['problem']
    assert '6 files = 3 used + 3 left out' in done.stderr
    assert sorted(tmp_path.rglob('*')) == before # nothing is unpacked

@pytest.fixture
def shop(images):
    "A web server with an image, a large file, a redirection to a file of the machine, and errors; the addresses that were asked for"
    asked = []
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            places = {'/a.jpg': (200, {}, images[0].read_bytes()), '/moved': (302, {'Location': '/a.jpg'}, b''),
                '/file': (302, {'Location': f'file://{images[0]}'}, b''), '/large': (200, {'Content-Length': '900000000'}, b''), '/error': (500, {}, b'')}
            status,headers,body = places.get(self.path, (404, {}, b''))
            self.send_response(status)
            for o in headers.items(): self.send_header(*o)
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *_): pass
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}',asked
        server.shutdown()

def test_a_server_that_sends_a_byte_now_and_then_is_given_up(monkeypatch):
    "However often something arrives"
    import socket,time
    from fashion_fastai.predict import store
    monkeypatch.setattr(store, '_SECONDS', 1)
    with socket.create_server(('127.0.0.1', 0)) as server:
        def drip():
            client,_ = server.accept()
            with client,suppress(OSError):
                client.recv(2**16)
                client.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n')
                for _ in range(100):
                    client.sendall(b'x')
                    time.sleep(.1)
        threading.Thread(target=drip, daemon=True).start()
        # if it were waited for, the server's end would be another error
        with pytest.raises(InputError, match='has not arrived within 1 seconds'): store.fetch_from_web(f'http://127.0.0.1:{server.getsockname()[1]}/a.jpg')

def test_addresses_of_the_web_are_fetched_if_they_are_named_and_no_others(run, images, shop, tmp_path):
    address,asked = shop
    names = ['a.jpg','moved','file','large','error','nothing']
    (tmp_path/'list.txt').write_text(''.join(f'{address}/{o}\n' for o in names))
    found = [json.loads(o) for o in predict(run, tmp_path/'list.txt', '--json').stdout.splitlines()]
    expected = json.loads(predict(run, images[0], '--json').stdout)
    for o in found[:2]: assert close(o['category_probabilities'], expected['category_probabilities'])
    for o,reason in zip(found[2:], ('cannot be fetched', 'has more than 50 MB', 'cannot be fetched (HTTP 500)', 'cannot be fetched (HTTP 404'), strict=True):
        assert reason in o['problem'], o
    assert sorted(asked) == sorted([*(f'/{o}' for o in names), '/a.jpg'])
    (tmp_path/'list.csv').write_text(f'file_path\n{address}/a.jpg\n{images[1]}\n')
    found = [json.loads(o) for o in predict(run, tmp_path/'list.csv', '--json').stdout.splitlines()]
    assert close(found[0]['category_probabilities'], expected['category_probabilities']) and 'category' in found[1]
    for o in ('file:///etc/passwd', 'ftp://shop.example/a.jpg'):
        (tmp_path/'list.txt').write_text(o)
        with pytest.raises(InputError, match='is no address of the web'): read_inputs([tmp_path/'list.txt'])

def test_a_list_is_read_as_people_have_it(images, tmp_path):
    "Columns of other names or none, UTF-16 as Windows writes it, quotation marks, JSON; an archive in which a name occurs twice"
    names,expected = [str(o) for o in images],[str(o) for o in images]
    lines = '\n'.join(names)
    contents = {'filename.csv': f'Filename\n{lines}', 'image.csv': 'image,x\n' + ''.join(f'{o},1\n' for o in names), 'no_header.csv': lines, 'utf16.csv': f'file_path\n{lines}'.encode('utf-16'),
        'utf16.txt': '\r\n'.join(names).encode('utf-16'), 'quoted.txt': '\n'.join(f'"{o}"' for o in names), 'bom.txt': lines.encode('utf-8-sig'), 'list.json': json.dumps(names), 'lines.jsonl': '\n'.join(json.dumps(dict(path=o)) for o in names)}
    for name,content in contents.items():
        (tmp_path/name).write_bytes(content if isinstance(content, bytes) else content.encode())
        found = read_inputs([tmp_path/name])
        found = found if isinstance(found, ImageList) else read_image_list(found)
        assert [str(o) for o in found.paths] == expected, name
    with zipfile.ZipFile(tmp_path/'twice.zip', 'w') as archive,warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for o in images[:2]: archive.write(o, 'a.jpg')
    with pytest.warns(UserWarning, match='2 files = 1 used . 1 left out .replaced by a later file of the same name: 1, the first a.jpg'):
        found = read_inputs([tmp_path/'twice.zip'])
    assert found.paths[0]() == Path(images[1]).read_bytes()
    (tmp_path/'cut.zip').write_bytes((tmp_path/'twice.zip').read_bytes()[:500])
    with pytest.raises(InputError, match='is a damaged zip archive'): read_inputs([tmp_path/'cut.zip'])

def test_every_kind_of_list_may_have_addresses_and_groups(images, shop, tmp_path):
    contents = {'list.json': json.dumps, 'image.csv': lambda names: '\n'.join(['Image',*names]), 'lines.jsonl': lambda names: '\n'.join(json.dumps(dict(path=o)) for o in names)}
    names = list(map(str, images[:2]))
    for name,written in contents.items():
        (tmp_path/name).write_text(written([f'{shop[0]}/a.jpg', names[1]]))
        found = read_inputs([tmp_path/name])
        assert found.paths[0]() == images[0].read_bytes() and str(found.paths[1]) == names[1]
        (tmp_path/name).write_text(written(['s3://shop/a.jpg']))
        with pytest.raises(InputError, match=f"{name}: 's3://shop/a.jpg' is no address of the web; for an object store use Parquet"): read_inputs([tmp_path/name])
        (tmp_path/name).write_text(written(names))
        (tmp_path/'groups.csv').write_text(f'file_path,group\n{names[1]},dress\n')
        assert read_garments(tmp_path/name) == {names[1]: 'dress'}
    (tmp_path/'bare.jsonl').write_text('{"shop": "a", "kind": "b"}\n{"shop": "a", "kind": "b"}')
    with pytest.raises(InputError, match='bare.jsonl: has no column file_path'): read_garments(tmp_path/'bare.jsonl', 'shop')

def test_a_server_that_does_not_answer_is_one_line(run, tmp_path):
    done = predict(run, 'http://127.0.0.1:9/a.jpg')
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and 'cannot be fetched' in done.stderr

def test_scores_of_garments_are_of_those_with_several_images():
    "The first of two images is taken for the wrong category; a garment of one image does not count"
    predictor = SimpleNamespace(decide=lambda p, q: (p.argmax(1), q > .5))
    p,q = np.array([[.6,.4],[.1,.9],[.8,.2]]),np.array([[.4,.9],[.9,.4],[.1,.1]])
    found = garment_scores(predictor, p, q, np.array([1,1,1]), np.array([[1,1],[1,1],[1,1]]), ['a','a','b'])
    assert found == dict(images=2, garments=1, accuracy=dict(single=.5, joint=1), mean_f1=dict(single=pytest.approx(2/3), joint=1))
    assert garment_scores(predictor, p, q, np.array([1,1,1]), np.ones((3,2), int), ['a','b','c']) == {}

def test_a_file_of_a_zip_that_cannot_be_read_is_counted(garments, tmp_path):
    content = next((garments/'test').iterdir()).read_bytes()
    with zipfile.ZipFile(tmp_path/'images.zip', 'w') as archive:
        archive.writestr('a.jpg', content)
        archive.writestr('photo', content + b'the last bytes')
    raw = (tmp_path/'images.zip').read_bytes()
    (tmp_path/'images.zip').write_bytes(raw.replace(b'the last bytes', b'THE LAST BYTES')) # another checksum
    with pytest.warns(UserWarning, match=r'2 files = 1 used \+ 1 left out \(no image: 1, the first photo\)'):
        assert read_inputs([str(tmp_path/'images.zip')]).file_paths == ['a.jpg']

def test_a_path_is_an_image_by_its_bytes_or_by_its_name(garments, tmp_path):
    shutil.copy(next((garments/'test').iterdir()), tmp_path/'photo')
    (tmp_path/'damaged.jpg').write_bytes(b'\0\1\2')
    assert input_kind(tmp_path/'photo') == input_kind(tmp_path/'damaged.jpg') == 'image'

def test_the_images_of_a_garment_are_averaged_before_the_decision(run, garments, images, tmp_path):
    (tmp_path/'broken.jpg').write_bytes(b'no image')
    paths,names = [*map(str, images), str(tmp_path/'broken.jpg')],['dress','dress','skirt','','skirt']
    table = pd.DataFrame(dict(file_path=paths, product=names))
    table.to_csv(tmp_path/'list.csv', index=False)
    done,learn = predict(run, tmp_path/'list.csv', '--group', 'product', '--out', tmp_path/'out'),load_model(run, 'fp32')
    assert done.returncode == 0 and 'garments.csv' in done.stdout
    found,single = pd.read_csv(tmp_path/'out'/'garments.csv', index_col=0, keep_default_na=False),predict_images(learn, tmp_path/'list.csv')
    assert list(found.index) == ['dress','skirt'] and list(found.images) == [2,1] # the broken one does not count
    means = [single.attribute_probabilities[:2].mean(0), single.attribute_probabilities[2]]
    np.testing.assert_allclose(found[list(learn.vocab.attributes)].values, means, atol=1e-4)
    mean = single.category_probabilities[:2].mean(0)
    assert found.category['dress'] == learn.vocab.categories[mean.argmax()]
    sets = learn.loss_func.decodes((load_tensor(mean), load_tensor(means[0])))[1][0]
    assert found.attributes['dress'].split(', ') == [o for o,holds in zip(learn.vocab.attributes, sets) if holds]
    table.rename(columns=dict(product='group')).iloc[:2].to_csv(tmp_path/'groups.csv', index=False)
    assert predict(run, tmp_path/'list.csv', '--out', tmp_path/'out').returncode == 0 # groups.csv beside the list
    assert list(pd.read_csv(tmp_path/'out'/'garments.csv').garment) == ['dress']
    assert refused(predict(run, tmp_path/'list.csv', '--group', 'shop', '--out', tmp_path/'out'), "has no column 'shop'; name one with --group: file_path, product")
    assert refused(predict(run, tmp_path/'list.csv', '--group', 'product'), '--group needs --out DIR')

def load_tensor(values):
    import torch
    return torch.tensor(np.asarray(values, np.float32))[None]

def test_an_image_counts_once_for_one_garment(learn, images, tmp_path):
    names,predictor = [o.name for o in images],as_predictor(learn)
    single = predict_images(predictor, ImageList(names, [str(o) for o in images], set())).category_probabilities
    for o in images: shutil.copy(o, tmp_path)
    def written(frame, name):
        frame.to_csv(tmp_path/name, index=False) if name.endswith('.csv') else frame.to_parquet(tmp_path/name)
        test = read_inputs([tmp_path/name])
        predict_run(predictor, test, tmp_path/'out', groups=read_garments(tmp_path/name, 'product'))
        return pd.read_csv(tmp_path/'out'/'garments.csv', dtype=dict(garment=str)).set_index('garment')
    twice = pd.DataFrame(dict(file_path=[*names[:2], names[0], *names[2:]], product=[1., 1., 1., 2., None]))
    for name in ('twice.csv','twice.parquet'):
        garments = written(twice, name)
        assert garments.images.to_dict() == {'1': 2, '2': 1}
        assert abs(garments.category_probability['1'] - single[:2].mean(0).max()) < 1e-4
    for name,place in (('both.csv', 'line 4'), ('both.parquet', 'row 3')):
        with pytest.raises(InputError, match=f"{name}, {place}: {names[0]} is an image of two garments, '1' and '2'"):
            written(twice.assign(product=[1, 1, 2, 2, 2]), name)
    twice[['file_path']].to_csv(tmp_path/'list.csv', index=False)
    (tmp_path/'groups.csv').write_text(f'file_path,group\n{names[0]},a\n./{names[0]},b\n')
    with pytest.raises(InputError, match=f"groups.csv, line 3: {names[0]} is an image of two garments, 'a' and 'b'"):
        read_garments(tmp_path/'list.csv')

def test_names_that_no_table_can_hold_are_refused_in_any_list(learn, images, tmp_path):
    for name in ('a\nb.jpg','a\tb.jpg'):
        pd.DataFrame(dict(image=[*map(str, images), name])).to_parquet(tmp_path/'list.parquet')
        pd.DataFrame(dict(image=[*map(str, images), name])).to_json(tmp_path/'list.jsonl', orient='records', lines=True)
        for o in ('list.parquet','list.jsonl'):
            with pytest.raises(InputError, match=f"{o}, (row|line) 5: .*has a control character; rename it"):
                predict_run(learn, read_inputs([tmp_path/o]), tmp_path/'out')

def test_options_that_do_not_fit_together_are_refused(run, garments, tmp_path):
    test = garments/'test.csv'
    assert refused(predict(run, test, '--json', '--out', tmp_path/'out'), '--json prints predictions')
    assert refused(predict(run, test, '--shard', '1/2'), '--shard needs --out DIR')
    assert refused(predict(run, garments/'test'/'00001.jpg', '--cache', 'auto'), 'needs a CSV list or a folder')
    done = predict(run, test, '--engine', 'ray')
    assert done.returncode == 2 and done.stderr.splitlines()[0] == 'fashion: --engine ray is now --on ray, and will not be known in the next version'

@pytest.fixture(scope='module')
def learn(run): return load_model(run, 'fp32')

def test_the_loop_predicts_as_the_learner_does_for_any_batch_size_cache_and_threads(learn, garments, tmp_path):
    import torch
    test,threads = garments/'test.csv',torch.get_num_threads()
    dl = learn.dls.test_dl(read_test_list(test).image.tolist())
    for tta,get_preds in ((None, learn.get_preds), (True, learn.tta)):
        with learn.no_bar(): (p,q),*_ = get_preds(dl=dl)
        for options in ({}, dict(workers=0, batch_size=7), dict(workers=3, batch_size=7), dict(cache=tmp_path/'cache')):
            found = predict_images(learn, test, tta=tta, **options)
            np.testing.assert_allclose(found.category_probabilities, p.numpy(), atol=1e-5)
            np.testing.assert_allclose(found.attribute_probabilities, q.numpy(), atol=1e-5)
    for _ in predict_batches(learn, test, batch_size=7): break # an iteration that is given up
    assert len(list(predict_batches(learn, test, batch_size=7))) == 3 and torch.get_num_threads() == threads

def test_rows_have_the_order_of_the_list_and_may_be_repeated(learn, garments, tmp_path):
    straight = predict_images(learn, garments/'test.csv')
    order = [*np.random.default_rng(0).permutation(len(straight.file_paths)), 0]
    (tmp_path/'list.csv').write_text('file_path\n' + '\n'.join(straight.file_paths[i] for i in order))
    (tmp_path/'garments').symlink_to(garments)
    mixed = predict_images(learn, tmp_path/'list.csv', batch_size=8)
    assert mixed.file_paths == [straight.file_paths[i] for i in order]
    np.testing.assert_allclose(mixed.attribute_probabilities, straight.attribute_probabilities[order], atol=1e-5)

@pytest.mark.parametrize('options', [dict(workers=0), dict(workers=3, batch_size=2), dict(cache='cache')])
@pytest.mark.parametrize('engine', ['torch','onnx'])
def test_a_bad_image_gets_the_prior_and_is_listed(learn, folder, garments, tmp_path, options, engine): # noqa: F811
    model = learn if engine == 'torch' else OnnxModel(folder)
    options = {k: tmp_path/o if k == 'cache' else o for k,o in options.items()}
    paths = [garments/'test'/'00002.jpg', tmp_path/'broken.jpg', garments/'test'/'00001.jpg', tmp_path/'missing.jpg', garments/'test'/'00003.jpg']
    paths[1].write_bytes(paths[0].read_bytes()[:200])
    (tmp_path/'list.csv').write_text('file_path\n' + '\n'.join(map(str, paths)))
    with pytest.warns(UserWarning, match='2 of 5 images are missing or cannot be read'):
        write_submission(predict_batches(model, tmp_path/'list.csv', **options), tmp_path/'out')
    table,good = rows(tmp_path/'out'),predict_images(model, garments/'test')
    names = list(learn.vocab.attributes)
    np.testing.assert_allclose(table.iloc[[2,0,4]][names].values.astype(float), good.attribute_probabilities[:3], atol=1e-3)
    for i in (1, 3): np.testing.assert_allclose(table.iloc[i][names].values.astype(float), learn.prior.attribute_shares, atol=1e-3)
    bad = pd.read_csv(tmp_path/'out'/'bad_images.csv')
    assert bad.file_path.tolist() == [str(paths[1]), str(paths[3])] and bad.reason[1] == 'is missing'
    before = {o: o.read_bytes() for o in (tmp_path/'out').iterdir()}
    paths[3].write_bytes(paths[0].read_bytes())
    with pytest.raises(InputError, match='broken.jpg: cannot be read as an image'):
        write_submission(predict_batches(model, tmp_path/'list.csv', strict=True, **options), tmp_path/'out')
    assert {o: o.read_bytes() for o in (tmp_path/'out').iterdir()} == before # no part of a submission is written

def test_a_graph_and_its_engine_are_refused_with_a_reason(run, folder, tmp_path): # noqa: F811
    for make,reason in ((lambda: OnnxModel(folder, int8=True), 'has no model_int8.onnx'), (lambda: OnnxModel(run), 'fashion export RUN --out FOLDER --onnx'),
            (lambda: open_session(b'no graph', 1), 'cannot be used'), (lambda: choose_engine('int8', 'bf16'), 'precision bf16 needs --engine torch'),
            (lambda: OnnxModel(folder).with_tta(True), 'without test-time augmentation')):
        with pytest.raises(InputError, match=reason): make()
    shutil.copytree(folder, tmp_path/'copy')
    (tmp_path/'copy'/'model.onnx').write_bytes((folder/'model.onnx').read_bytes()[:-1])
    with pytest.raises(InputError, match='is damaged'): OnnxModel(tmp_path/'copy')

def test_both_engines_take_paths_bytes_and_images(learn, folder, images): # noqa: F811
    for model in (learn, OnnxModel(folder)):
        found = [predict_image(model, o) for o in (images[0], images[0].read_bytes(), open_image(images[0]))]
        assert found[0] == found[1] and found[0].category == found[2].category
        with pytest.raises(InputError, match='cannot be read as an image'): predict_image(model, b'no image')

def test_an_ensemble_predicts_the_mean_and_refuses_other_labels(run, garments, tmp_path):
    test,a = garments/'test.csv',predict_images(load_model(run), garments/'test.csv')
    single,twice = (predict_images(load_ensemble([run]*n), test) for n in (1, 2))
    np.testing.assert_allclose(single.category_probabilities, a.category_probabilities, atol=1e-6)
    np.testing.assert_array_equal(single.attributes, a.attributes)
    assert (twice.category == a.category).all() # the temperatures are those of both, and keep the order
    table = example_table(300)
    other = LabelTable(table.frame.rename(columns={'red': 'rouge'}), Vocab(table.vocab.categories, ('rouge', *table.vocab.attributes[1:])), table.data)
    for name,o in (('one', table), ('other', other)): save_model(tiny_learner(o), tmp_path/name)
    (tmp_path/'unfinished').mkdir()
    (tmp_path/'unfinished'/'folds.csv').touch()
    save_ensemble(tmp_path, ['fold_1','fold_2'], Decision(temperatures=(1.2,.9)))
    for models,reason in ((['one','other'], 'its attributes are not those of .*: red, rouge'), (['one','one'], 'validation.npz: no such file'),
            (['unfinished'], 'its folds are not finished'), (['.'], 'fold_1: no such model')):
        with pytest.raises(InputError, match=reason): load_ensemble([tmp_path/o for o in models])
    (tmp_path/'ensemble.json').write_text('{}')
    with pytest.raises(InputError, match='is not the description of an ensemble: it has no members'): load_ensemble([tmp_path])

def test_a_saved_model_is_the_same_model(learn, tmp_path, garments):
    image = garments/'test'/'00001.jpg'
    learn.path = tmp_path
    learn.export('model.pkl')
    save_model(learn, tmp_path/'model')
    assert sorted(o.name for o in (tmp_path/'model').iterdir()) == sorted(MODEL_FILES)
    with pytest.warns(UserWarning, match='a pickle can run any code'): pickled = load_model(tmp_path/'model.pkl', 'fp32')
    expected = learn.predict(image)
    for o in (pickled, load_model(tmp_path/'model', 'fp32'), load_model(tmp_path/'model'/'model.json', 'fp32')):
        found = o.predict(image)
        assert found[:2] == expected[:2] and close(found.attribute_probabilities, expected.attribute_probabilities)
        assert (o.vocab, str(o.loss_func.decision)) == (learn.vocab, str(learn.loss_func.decision))

def test_a_damaged_model_folder_is_refused_with_the_reason(run, tmp_path):
    about,weights = json.loads((run/'model.json').read_text()),(run/'model.safetensors').read_bytes()
    architecture = about['architecture']
    def described(**changes): return {'model.json': json.dumps({k: v for k,v in {**about, **changes}.items() if v is not ...}).encode()}
    no_tensors = {**described(weights_sha256=hashlib.sha256(b'no tensors').hexdigest()), 'model.safetensors': b'no tensors'}
    cases = [('is damaged', {'model.safetensors': weights[:10_000]}), ('is damaged', {'model.safetensors': b''}),
        ('is damaged', {'model.safetensors': weights[:1000] + bytes([weights[1000] ^ 1]) + weights[1001:]}), ('is damaged', described(weights_sha256='0'*64)),
        ('cannot be read as a model', {'model.json': (run/'model.json').read_bytes()[:100]}), ('cannot be read', {'model.safetensors': None}),
        ('no model.json', {'model.json': None}), ('is not a model', {'model.json': b'{"a": 1}'}), ('this version reads format 1', described(format=2)),
        ('it has no size', described(size=...)), ('should be', described(attributes=about['attributes'][1:])),
        ('size mismatch', described(architecture={**architecture, 'width': .75})), ("arch 'resnet' is not known", described(architecture={**architecture, 'arch': 'resnet'})),
        ("rule 'exec' is not known", described(rule=dict(name='exec'))), ('cannot be read as weights', no_tensors)]
    for i,(reason,files) in enumerate(cases):
        copy = tmp_path/str(i)
        copy.mkdir()
        for name,content in {'model.json': (run/'model.json').read_bytes(), 'model.safetensors': weights, **files}.items():
            if content is not None: (copy/name).write_bytes(content)
        with pytest.raises(InputError, match=reason): load_model(copy)

def test_a_pickle_is_loaded_only_if_it_is_named_and_says_what_it_lacks(run, tmp_path):
    import torch
    (tmp_path/'old').mkdir()
    (tmp_path/'old'/'export.pkl').write_bytes((run/'export.pkl').read_bytes())
    with pytest.raises(InputError, match='name it if you trust it'): load_model(tmp_path/'old')
    with pytest.raises(InputError, match='no such model'): load_model(tmp_path/'nothing')
    (tmp_path/'foreign.pkl').write_bytes(b'not a pickle')
    class Foreign: "Of a module that is not installed"
    Foreign.__module__,Foreign.__qualname__ = 'foreign_module','Foreign'
    sys.modules['foreign_module'] = SimpleNamespace(Foreign=Foreign)
    try: torch.save(Foreign(), tmp_path/'foreign_class.pkl')
    finally: del sys.modules['foreign_module']
    for name,reason in (('foreign.pkl', 'cannot be loaded as a model'), ('foreign_class.pkl', 'needs the module foreign_module, which is not installed here')):
        with pytest.warns(UserWarning),pytest.raises(InputError, match=reason): load_model(tmp_path/name)

def test_a_store_keeps_nothing_of_what_was_interrupted(tmp_path):
    with pytest.raises(InputError, match='nonsense'): Store('nonsense://bucket')
    with pytest.raises(KeyboardInterrupt),Store(tmp_path).write('a.txt') as file:
        file.write_text('half')
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())

def test_an_image_that_is_missing_is_bad_and_a_store_that_does_not_answer_is_an_error():
    def no_network(): raise OSError('the network is down')
    with pytest.raises(OSError, match='network'): open_image(StoredImage('a', no_network))
    with pytest.raises(InputError, match='a: is missing'): open_image(StoredImage('a', lambda: b''))
    with pytest.raises(OSError, match='cannot be fetched'): fetch_from_web('http://127.0.0.1:9/a.jpg')

def test_a_folder_without_a_job_is_no_folder_of_parts(tmp_path):
    with pytest.raises(InputError, match='has no job.json, so it is no folder of parts'): read_job(Store(tmp_path))
    (tmp_path/'job.json').write_text('{}')
    with pytest.raises(InputError, match='is not the description of a job'): read_job(Store(tmp_path))

def test_a_list_in_a_store_has_the_rows_and_images_of_its_copy_on_the_disk(garments, tmp_path):
    local,fs = Catalogue(garments/'test.csv'),Store('memory://shop').fs
    paths,(n,identity) = list(local.paths()),local.identity()
    assert Catalogue(garments/'test').identity()[0] == n == local.n_rows
    fs.pipe('/shop/lists/test.csv', (garments/'test.csv').read_bytes())
    for o in paths[:-3]: fs.pipe(f'/shop/{o}', (garments.parent/o).read_bytes())
    remote = Catalogue('memory://shop/lists/test.csv')
    remote.check(n)
    part = remote.part(range(n-4, n))
    assert remote.identity() == (n, identity) and open_image(part.paths[0]) == open_image(garments.parent/paths[-4])
    with pytest.raises(InputError, match='is missing'): open_image(part.paths[1])
    assert [o.file_paths for o in local.portions(7)] == [paths[i:i+7] for i in range(0, n, 7)]
    for name in ('lists/none.csv','none'):
        with pytest.raises(InputError, match=f'{name}: no such file'): Catalogue(f'memory://shop/{name}')

def test_parquet_without_images_is_refused(tmp_path):
    pa = import_pyarrow()
    pa.parquet.write_table(pa.table(dict(a=[1])), tmp_path/'a.parquet')
    pa.parquet.write_table(pa.table(dict(file_path=['x.jpg','y.jpg'])), tmp_path/'x.parquet')
    (tmp_path/'broken.parquet').write_text('no table')
    for name,reason in (('a', 'has no column with a path'), ('broken', 'broken.parquet: cannot be read')):
        with pytest.raises(InputError, match=reason): Catalogue(tmp_path/f'{name}.parquet')
    with pytest.raises(InputError, match='2 of 2 images are missing, the first being x.jpg'): Catalogue(tmp_path/'x.parquet').check(2)

def test_a_zip_whose_list_of_files_is_damaged_is_refused(images, tmp_path):
    with zipfile.ZipFile(tmp_path/'a.zip', 'w') as archive: archive.write(images[0], 'a.jpg')
    (tmp_path/'a.zip').write_bytes((tmp_path/'a.zip').read_bytes().replace(b'PK\1\2', b'PK\1\0'))
    with pytest.raises(InputError, match=r'a.zip: is not a readable zip \(Bad magic number for central directory\)'): read_inputs([tmp_path/'a.zip'])

def test_parquet_is_recognised_by_its_first_bytes_and_not_if_it_is_hidden(images, tmp_path):
    for name in ('l.pq','L.PARQUET','list'):
        pd.DataFrame(dict(file_path=list(map(str, images)))).to_parquet(tmp_path/name)
        assert list(read_inputs([tmp_path/name]).paths()) == list(map(str, images))
    (tmp_path/'folder').mkdir()
    shutil.copy(images[0], tmp_path/'folder')
    (tmp_path/'folder'/'._x.parquet').write_bytes(b'\0\5\x16\7')
    assert input_kind(tmp_path/'folder') == 'folder' and list(Catalogue(tmp_path/'folder').paths()) == [images[0].name]

def test_the_garments_of_a_list_in_a_store(images, tmp_path):
    fs,table = Store('memory://garments').fs,pd.DataFrame(dict(file_path=['a.jpg','b.jpg','c.jpg'], product=['dress','dress',None]))
    fs.pipe('/garments/list.csv', table.to_csv(index=False).encode())
    table.to_parquet(tmp_path/'list.parquet')
    fs.pipe('/garments/list.parquet', (tmp_path/'list.parquet').read_bytes())
    for name in ('list.csv','list.parquet'):
        assert read_garments(f'memory://garments/{name}', 'product') == {'a.jpg': 'dress', 'b.jpg': 'dress'}
        with pytest.raises(InputError, match=f'memory://garments/{name}: has no column .?shop'): read_garments(f'memory://garments/{name}', 'shop')
    assert read_garments('memory://garments/list.csv') == {}
    with pytest.raises(InputError, match='https://shop.example/a.jpg: has no column product'): read_garments('https://shop.example/a.jpg', 'product')

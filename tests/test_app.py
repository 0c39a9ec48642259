"The web page: served by the command, opened in a browser, sent valid and invalid files, ended"
import importlib.util,json,os,shutil,signal,socket,sys,threading,time,urllib.error,urllib.request,zipfile
from contextlib import contextmanager
from types import SimpleNamespace
from urllib.parse import urlsplit
import pandas as pd
import pytest
from PIL import Image
from conftest import run_inprocess,spawn_python
from fashion_fastai.serve import uploads
from fashion_fastai.serve import page as server
from fashion_fastai.data.corrections import apply_corrections
from fashion_fastai.data.labels import read_labels
from fashion_fastai.predict.model import load_model
from fashion_fastai.predict.core import predict_images

def needs(name):
    "A test is skipped without an optional package, but not where all of them should be there"
    return pytest.mark.skipif(not importlib.util.find_spec(name) and not os.environ.get('CI'), reason=f"{name} is not installed: pip install -e '.[dev,web]'")

# the command in a process that prints its network lookups, accepts small uploads only, and predicts lists slowly
SERVE = """
import socket,sys,time
import fashion_fastai.serve.page,fashion_fastai.cli.main,fashion_fastai.serve.uploads
fashion_fastai.serve.page.MAX_UPLOAD = 200*2**10
look_up,batches = socket.getaddrinfo,fashion_fastai.serve.uploads.predict_batches
def told(host, *args, **kwargs):
    if host not in ('127.0.0.1', 'localhost'): print(f'looked up {host}', file=sys.stderr, flush=True)
    return look_up(host, *args, **kwargs)
def slow(*args, **kwargs):
    for o in batches(*args, batch_size=5, **kwargs):
        time.sleep(.3)
        yield o
socket.getaddrinfo,fashion_fastai.serve.uploads.predict_batches = told,slow
sys.exit(fashion_fastai.cli.main.main(['serve', *sys.argv[1:]]))
"""

# the command where PyTorch is not installed
SERVE_WITHOUT_TORCH = """
import sys
for o in ('torch','torchvision','fastai'): sys.modules[o] = None
from fashion_fastai.cli.main import main
sys.exit(main(['serve', *sys.argv[1:]]))
"""

@contextmanager
def served(run, folder, *options, code=SERVE):
    "The command's process, the page's address, what it has said on stderr, and its temporary folder"
    temporary,err = folder/'temporary',folder/'err'
    temporary.mkdir()
    with open(err, 'a') as file:
        process = spawn_python('-W', 'ignore', '-c', code, run, *options, stderr=file, env={**os.environ, 'TMPDIR': str(temporary), 'http_proxy': 'http://127.0.0.1:9'})
        try:
            line = process.stdout.readline()
            assert ' is at http://' in line, line + err.read_text()
            yield SimpleNamespace(process=process, url=line.split(' is at ')[1].split()[0], err=err.read_text, files=lambda: [o for o in temporary.rglob('*') if o.is_file()])
        finally:
            process.kill()
            process.wait()

@pytest.fixture(scope='module')
def page(run, tmp_path_factory):
    "A page that several tests share; at the end it leaves no files"
    with served(run, tmp_path_factory.mktemp('served')) as page:
        yield page
        page.process.send_signal(signal.SIGINT)
        assert page.process.wait(timeout=300) == 130 and page.files() == []
        assert 'looked up' not in page.err() and page.err().endswith('fashion: stopped\n')

def fetched(url): return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=120)
def posted(url, body, kind='application/json'): return json.load(fetched(urllib.request.Request(url, body, {'Content-Type': kind})))

def uploaded(url, path):
    "What gradio calls a file after it was uploaded, as its browser side would say it"
    body = b'--edge\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n%s\r\n--edge--\r\n' % (path.name.encode(), path.read_bytes())
    return dict(path=posted(f'{url}gradio_api/upload', body, 'multipart/form-data; boundary=edge')[0], orig_name=path.name, meta=dict(_type='gradio.FileData'))

def submit(url, name, *data): "Add a request to the queue"; return f"{url}gradio_api/call/{name}/{posted(f'{url}gradio_api/call/{name}', json.dumps(dict(data=data)).encode())['event_id']}"

def choose_file(tab, path, text):
    "Choose a file until the page shows `text`: beside other work, it may be drawn before it listens"
    from playwright.sync_api import TimeoutError
    for is_last in (False, False, True):
        tab.set_input_files('#files input[type=file]', path)
        try: return tab.get_by_text(text).first.wait_for(timeout=120_000 if is_last else 30_000)
        except TimeoutError:
            if is_last: raise

def result_of(request):
    "'complete' and the result, or 'error' and the reason"
    with fetched(request) as lines:
        for line in lines:
            if line.startswith((b'event: complete', b'event: error')): return line.split()[1].decode(),json.loads(next(lines).split(b'data: ', 1)[1])

def ask(url, name, *data): return result_of(submit(url, name, *data))

@pytest.fixture(scope='module')
def shop(garments, tmp_path_factory):
    "A zip of the test images, and of a page that is no image"
    path = tmp_path_factory.mktemp('zip')/'shop.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        for o in sorted((garments/'test').iterdir()): archive.write(o, o.name)
        archive.writestr('page.jpg', '<html>')
    return path

def check_table(file, learn, garments):
    "Whether a table has the predictions of `predict_images` for the test images, and a row for the page that is none"
    frame,straight = pd.read_csv(file, keep_default_na=False),predict_images(learn, garments/'test')
    assert frame.file_path.tolist() == [*straight.file_paths, 'page.jpg']
    assert frame.problem.tolist() == ['']*20 + ['cannot be read as an image'] and frame.category[20] == ''
    assert frame.category.tolist()[:20] == [learn.vocab.categories[k] for k in straight.category]
    assert frame.iloc[:20, 4:-1].astype(float).values == pytest.approx(straight.attribute_probabilities, abs=1e-3)

@needs('gradio')
def test_predictions_equal_those_in_python(page, run, garments, shop):
    learn,path = load_model(run, 'auto'),garments/'test'/'00001.jpg'
    image,expected = uploaded(page.url, path),learn.predict(path)
    state,(category,attributes,overlay,rows) = ask(page.url, 'image', image, '')
    assert state == 'complete' and category['label'] == expected.category
    assert {o['label'] for o in attributes['confidences']} == set(expected.attributes)
    for o in category['confidences']: assert o['confidence'] == pytest.approx(expected.category_probabilities[o['label']], abs=1e-3)
    assert len(rows['data']) == len(learn.vocab.categories) + len(learn.vocab.attributes)
    other = ask(page.url, 'heat_map', image, expected.attributes[0])[1][0]
    images = [fetched(f"{page.url}gradio_api/file={o['path']}").read() for o in (overlay, other)]
    assert images[0] != images[1]
    state,(said,_,file) = ask(page.url, 'images', [uploaded(page.url, shop)])
    assert state == 'complete' and said == '21 images, 1 of which could not be read: see the last column.'
    check_table(fetched(f"{page.url}gradio_api/file={file['path']}"), learn, garments)
    assert [o for o in page.files() if 'lists' in o.parts] == [] # no image of a list is kept

@needs('gradio')
def test_what_is_refused(page, run, garments, tmp_path):
    (tmp_path/'page.jpg').write_text('<html>')
    (tmp_path/'large.jpg').write_bytes(bytes(200*2**10 + 1))
    Image.new('1', (9000,9000)).save(tmp_path/'wide.png')
    with zipfile.ZipFile(tmp_path/'evil.zip', 'w') as archive: archive.write(garments/'test'/'00001.jpg', '../evil.jpg')
    image = uploaded(page.url, garments/'test'/'00001.jpg')
    private = str(garments/'test'/'00002.jpg')
    for name,data,why in (('image', (uploaded(page.url, tmp_path/'page.jpg'), ''), 'page.jpg: cannot be read as an image'),
                          ('image', (uploaded(page.url, tmp_path/'wide.png'), ''), 'wide.png: has more than 64 million pixels'),
                          ('image', ({**image, 'path': image['path'] + 'x'}, ''), '00001.jpg: is no longer on the server'),
                          ('image', ({**image, 'path': private}, ''), ''), ('image', (dict(path=private), ''), '00002.jpg: only uploads are accepted'),
                          ('image', ({**image, 'path': 'https://example.com/dress.jpg'}, ''), 'only uploads are accepted'),
                          ('images', ([dict(path=private)],), ''), ('images', ([{**image, 'path': private}],), ''),
                          ('heat_map', (image, 'wings'), 'wings'), ('heat_map', (uploaded(page.url, tmp_path/'page.jpg'), ''), 'page.jpg: cannot be read'),
                          ('images', ([uploaded(page.url, tmp_path/'evil.zip')],), 'evil.zip: contains a path that leads outside'),
                          ('images', (None,), 'no images were uploaded')):
        state,result = ask(page.url, name, *data)
        assert state == 'error' and why in str(result) and 'temporary' not in str(result), (name, data, result)
    for path in ('file=https://example.com/dress.jpg', 'proxy=https://example.com/dress.jpg', f'file={private}', f"file={run/'model.json'}"):
        with pytest.raises(urllib.error.HTTPError) as refused: fetched(f'{page.url}gradio_api/{path}')
        assert refused.value.code == 403
    with pytest.raises(urllib.error.HTTPError) as refused: fetched(urllib.request.Request(page.url, headers={'Host': 'evil.example'}))
    assert refused.value.code == 421 # a name that a stranger lets lead to this machine
    with pytest.raises(urllib.error.HTTPError) as refused: uploaded(page.url, tmp_path/'large.jpg')
    assert refused.value.code == 413 and b'maximum allowed size of 204800 bytes' in refused.value.read()
    assert not [o for o in page.files() if o.name == 'evil.jpg']

@needs('gradio')
@needs('onnxruntime')
def test_the_page_of_an_onnx_graph_needs_no_torch(run, garments, shop, tmp_path):
    "Its predictions are those of PyTorch, without heat maps"
    assert run_inprocess('export', run, '--out', tmp_path/'model', '--onnx').returncode == 0
    learn,path = load_model(run, 'fp32'),garments/'test'/'00001.jpg'
    expected = learn.predict(path)
    with served(tmp_path/'model', tmp_path, code=SERVE_WITHOUT_TORCH) as page:
        state,(category,attributes,overlay,rows) = ask(page.url, 'image', uploaded(page.url, path), '')
        assert state == 'complete' and category['label'] == expected.category and overlay is None
        assert {o['label'] for o in attributes['confidences']} == set(expected.attributes)
        state,(said,_,file) = ask(page.url, 'images', [uploaded(page.url, shop)])
        assert state == 'complete' and said.startswith('21 images, 1 of which could not be read')
        check_table(fetched(f"{page.url}gradio_api/file={file['path']}"), learn, garments)

@needs('gradio')
def test_a_list_does_not_block_single_images(run, garments, shop, monkeypatch):
    "While the list of one visitor is predicted, another one gets the prediction of an image"
    batches,go_on = uploads.predict_batches,threading.Event()
    def held(*args, **kwargs):
        assert go_on.wait(120)
        yield from batches(*args, **kwargs)
    monkeypatch.setattr(uploads, 'predict_batches', held)
    def settings(): return {k: v for k,v in os.environ.items() if k.startswith('GRADIO') or k.lower() == 'no_proxy' or k == 'HF_HUB_OFFLINE'}
    before = settings()
    with server.serve_page(run) as url:
        request = submit(url, 'images', [uploaded(url, shop)])
        assert ask(url, 'image', uploaded(url, garments/'test'/'00001.jpg'), '')[0] == 'complete'
        go_on.set()
        assert result_of(request)[0] == 'complete'
    assert settings() == before

@needs('gradio')
def test_kill_in_the_middle_of_a_list(run, shop, tmp_path):
    "It ends after the present batch, and no files are left"
    with served(run, tmp_path) as page:
        submit(page.url, 'images', [uploaded(page.url, shop)])
        end = time.time() + 60
        while not [o for o in page.files() if o.name == '000019.jpg']: assert time.time() < end and not time.sleep(.02)
        page.process.send_signal(signal.SIGTERM)
        assert page.process.wait(timeout=300) == 143 and page.files() == [] and page.err() == ''

def test_the_command_is_refused(run, tmp_path, monkeypatch):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        for words,why in ((['--port', port], f'127.0.0.1, port {port}: cannot be listened at'), (['--host', '192.0.2.1'], '192.0.2.1: cannot be listened at')):
            done = run_inprocess('serve', run, *words)
            assert done.returncode == 2 and why in done.stderr and len(done.stderr.splitlines()) == 1
    monkeypatch.setitem(sys.modules, 'gradio', None)
    done = run_inprocess('serve', run)
    assert done.returncode == 2 and done.stderr == "fashion: the web page needs gradio, which is not installed here: pip install 'fashion_fastai[web]'\n"

@needs('gradio')
def test_missing_folders(run, tmp_path):
    for words,why in (([tmp_path], 'no model.json in this folder'), ([run, '--examples', tmp_path/'none'], 'none: no such folder of examples')):
        done = run_inprocess('serve', *words)
        assert done.returncode == 2 and why in done.stderr and len(done.stderr.splitlines()) == 1

@pytest.fixture(scope='module')
def browser():
    "Headless Chromium, the system's own"
    sync_api = pytest.importorskip('playwright.sync_api', reason="playwright is not installed: pip install -e '.[dev,web]'") if not os.environ.get('CI') else importlib.import_module('playwright.sync_api')
    chromium = next(filter(None, map(shutil.which, ('chromium','chromium-browser','google-chrome'))), None)
    if not chromium: (pytest.fail if os.environ.get('CI') else pytest.skip)('there is no chromium: apt-get install chromium')
    flags = 'no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update disable-sync disable-dev-shm-usage'
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[f'--{o}' for o in flags.split()])
        yield browser
        browser.close()

@contextmanager
def opened(browser, url, width):
    "A tab of the page, which asks nobody else for anything, and is no wider than the screen"
    hosts,errors = set(),[]
    tab = browser.new_page(viewport=dict(width=width, height=844))
    tab.errors = errors
    tab.set_default_timeout(120_000)
    tab.on('request', lambda o: hosts.add(urlsplit(o.url).hostname) if o.url.startswith(('http','ws')) else None)
    tab.on('console', lambda o: errors.append(o.text) if o.type == 'error' else None)
    tab.on('pageerror', lambda o: errors.append(str(o)))
    tab.goto(url)
    try:
        yield tab
        assert tab.evaluate('document.documentElement.scrollWidth') <= width and hosts == {'127.0.0.1'}
    finally: tab.close()

@needs('gradio')
@pytest.mark.parametrize('width', [1280, 390])
def test_an_image_in_a_browser(width, page, browser, run, garments, tmp_path):
    "On a desk and on a phone"
    learn,path = load_model(run, 'auto'),garments/'test'/'00001.jpg'
    expected = learn.predict(path)
    with opened(browser, page.url, width) as tab:
        tab.set_input_files('#image input[type=file]', path)
        overlay = tab.locator('#heat_map img')
        overlay.wait_for()
        assert tab.locator('#category h2').inner_text() == expected.category
        shown = tab.locator('#attributes').inner_text().split()
        for o in learn.vocab.attributes: assert (o in shown) == (o in expected.attributes)
        first = overlay.get_attribute('src')
        tab.locator('#label input').click()
        tab.get_by_role('option', name=expected.attributes[0], exact=True).click()
        tab.wait_for_function("first => document.querySelector('#heat_map img').src != first", arg=first)
        tab.locator('.gallery-item').first.click() # an example
        tab.wait_for_function("() => document.querySelector('#image img').src.includes('dress.jpg')")
        assert tab.errors == []
    (tmp_path/'page.jpg').write_text('<html>')
    with opened(browser, page.url, width) as tab:
        tab.set_input_files('#image input[type=file]', tmp_path/'page.jpg')
        tab.get_by_text('page.jpg: cannot be read as an image').wait_for()

@needs('gradio')
@pytest.mark.parametrize('width', [1280, 390])
def test_a_zip_in_a_browser(width, page, browser, run, garments, shop, tmp_path):
    with opened(browser, page.url, width) as tab:
        tab.get_by_role('tab', name='Many images').click()
        choose_file(tab, shop, 'shop.zip')
        tab.click('#start')
        with tab.expect_download() as download: tab.locator('#file a').first.click()
        check_table(download.value.path(), load_model(run, 'auto'), garments)
        assert 'page.jpg' in tab.locator('#table').inner_text() and tab.errors == []
    (tmp_path/'large.zip').write_bytes(bytes(200*2**10 + 1))
    with opened(browser, page.url, width) as tab:
        tab.get_by_role('tab', name='Many images').click()
        choose_file(tab, tmp_path/'large.zip', 'maximum allowed size of 200.0 Kb')

@needs('gradio')
@pytest.mark.parametrize('width', [1280, 390])
def test_a_review_in_a_browser(width, browser, garments, tmp_path):
    "Three keys or buttons; every decision is in the file at once, and a review is continued where it was"
    table = pd.read_csv(garments/'train.csv').head(4)
    suspects = pd.DataFrame(dict(file_path=table.file_path, target='belted', given=table.belted.map({0: 'no', 1: 'yes'}), suggested=table.belted.map({0: 'yes', 1: 'no'}),
        score=[.01,.02,.03,.04], image=[str(garments.parent/o) for o in table.file_path]))
    suspects.to_csv(tmp_path/'suspects.csv', index=False)
    def decisions(): return pd.read_csv(tmp_path/'corrections.csv').decision.tolist()
    def shows(tab, i):
        tab.locator(f'#suspect code:text("{table.file_path[i]}")').wait_for()
        tab.wait_for_function("() => document.querySelector('#image img')?.naturalWidth > 0")
    with contextmanager(reviewed)(tmp_path) as url:
        with opened(browser, url, width) as tab:
            shows(tab, 0)
            tab.keyboard.press('t')
            shows(tab, 1)
            assert decisions() == ['change']
            tab.keyboard.press('d')
            shows(tab, 2)
            tab.keyboard.press('b')
            shows(tab, 1)
            assert 'dropped' in tab.locator('#suspect').inner_text()
            tab.click('#keep')
            shows(tab, 2)
            assert decisions() == ['change','keep'] and tab.errors == []
    with contextmanager(reviewed)(tmp_path) as url:
        with opened(browser, url, width) as tab:
            shows(tab, 2)
            tab.keyboard.press('k')
            shows(tab, 3)
            tab.keyboard.press('k')
            tab.get_by_text('All 4 suspects are decided').wait_for()
            assert decisions() == ['change','keep','keep','keep'] and tab.errors == []
    assert len(apply_corrections(read_labels(garments), tmp_path/'corrections.csv')) == 180 # a training reads them

def reviewed(folder): yield from commanded('review', folder/'suspects.csv')

def commanded(*words):
    "The address of the page of a command, which Ctrl-C ends"
    code = 'import sys; from fashion_fastai.cli.main import main; sys.exit(main(sys.argv[1:]))'
    process = spawn_python('-W', 'ignore', '-c', code, *words, stderr=-1)
    try:
        line = process.stdout.readline()
        assert ' is at http://' in line, line + process.stderr.read()
        yield line.split(' is at ')[1].split()[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
        process.communicate()

@needs('gradio')
@pytest.mark.parametrize('width', [1280, 390])
def test_labelling_in_a_browser(width, browser, run, garments, tmp_path):
    "Letters choose the category, digits the attributes; every image is in the file at once, and labelling is continued where it was"
    assert run_inprocess('suggest', run, garments/'test.csv', '--n', 3, '--out', tmp_path/'next.csv', '--data', 'no').returncode == 0
    rows = pd.read_csv(tmp_path/'next.csv', keep_default_na=False)
    vocab = read_labels(garments).vocab
    def labels(): return pd.read_csv(tmp_path/'labels.csv')
    def shows(tab, i):
        tab.locator(f'#progress code:text("{rows.file_path[i]}")').wait_for()
        tab.wait_for_function("() => document.querySelector('#image img')?.naturalWidth > 0")
    def checked(tab, id): return tab.locator(f'#{id} input:checked').count()
    with contextmanager(commanded)('label', run, tmp_path/'next.csv') as url:
        with opened(browser, url, width) as tab:
            shows(tab, 0)
            assert tab.locator('#category label.selected').inner_text().strip() == rows.category[0]
            predicted = rows.loc[0, list(vocab.attributes)].astype(int)
            assert checked(tab, 'attributes') == predicted.sum()
            for key in vocab.categories[3][:3]: tab.keyboard.press(key)
            tab.keyboard.press('0')
            tab.keyboard.press('2') # switches the second attribute
            tab.keyboard.press('Shift+Digit0')
            tab.keyboard.press('Shift+Digit3') # the third is not known
            tab.wait_for_function("() => document.querySelectorAll('#unknown input:checked').length == 1")
            tab.keyboard.press('Enter')
            shows(tab, 1)
            expected = predicted.copy()
            expected.iloc[1] = 1 - expected.iloc[1]
            row = labels().iloc[0]
            assert row.category_label == 3 and pd.isna(row[vocab.attributes[2]])
            assert all(row[o] == expected[o] for o in vocab.attributes if o != vocab.attributes[2])
            tab.keyboard.press('Escape')
            shows(tab, 2)
            tab.keyboard.press('Shift+?')
            tab.keyboard.press('Enter')
            shows(tab, 1)
            assert pd.isna(labels().category_label[1]) and tab.errors == []
    with contextmanager(commanded)('label', run, tmp_path/'next.csv') as url:
        with opened(browser, url, width) as tab:
            shows(tab, 1)
            tab.keyboard.press('3') # of fifteen: a second digit may follow
            tab.keyboard.press('Enter')
            tab.get_by_text('All 3 images are labelled').wait_for()
            assert len(labels()) == 3 and tab.errors == []
            assert labels().iloc[2][vocab.attributes[2]] == 1 - int(rows.loc[1, vocab.attributes[2]])

@needs('gradio')
@pytest.mark.parametrize('width,columns', [(1280, 4), (390, 2)])
def test_similar_items_in_a_browser(width, columns, browser, run, garments, tmp_path):
    assert run_inprocess('embed', run, garments/'train.csv', '--out', tmp_path/'E.parquet').returncode == 0
    path = pd.read_csv(garments/'train.csv').file_path[1]
    with contextmanager(commanded)('serve', run, '--similar', tmp_path/'E.parquet', '--no-browser') as url:
        with opened(browser, url, width) as tab:
            title = tab.get_by_role('tab', name='Similar items')
            if width == 390: # gradio moves the tab into a menu
                tab.locator('.overflow-menu button').first.click()
                title = tab.locator('.overflow-dropdown button', has_text='Similar items')
            title.click()
            tab.set_input_files('#query input[type=file]', garments.parent/path)
            tab.wait_for_function("() => document.querySelectorAll('#similar img').length >= 12")
            tab.locator('#similar_rows').get_by_text(path).locator('visible=true').first.wait_for()
            assert tab.locator('#similar_rows').get_by_text('1.000').count() >= 1 and tab.errors == []
            places = tab.eval_on_selector_all('#similar .thumbnail-item', "all => all.map(o => o.getBoundingClientRect().left)")
            assert len(set(places)) == columns # no image is beside the screen

"The HTTP endpoint: the command in a process without PyTorch, sent valid, broken, too large and hostile requests, thousands of them, and stopped"
import base64,http.client,io,json,os,pickle,random,re,signal,socket,subprocess,sys,threading,time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack,contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit
import pandas as pd
import pytest
from PIL import Image,features
from conftest import refused,run_inprocess
from test_images import mutated,originals,saved,two_faced
from test_serving import WITHOUT_TORCH,folder # noqa: F401 - a fixture

pytest.importorskip('fastapi')

# the command in a process without PyTorch, in which a prediction can be made to take longer, or to wait while a file exists
SERVE = WITHOUT_TORCH + """
import os,time
from fashion_fastai.cli.main import main
from fashion_fastai.serve import queue
predict,seconds = queue.predict_image,float(os.environ.get('SLOW', 0))
def slow(*args, **kwargs):
    time.sleep(seconds)
    while os.path.exists(os.environ.get('HOLD', '')): time.sleep(.01)
    return predict(*args, **kwargs)
queue.predict_image = slow
sys.exit(main(sys.argv[1:]))
"""

def free_port():
    with socket.create_server(('127.0.0.1', 0)) as o: return o.getsockname()[1]

@contextmanager
def served(folder, *options, cwd=None, **env):
    "The server's process and address"
    command = [sys.executable, '-W', 'ignore', '-c', SERVE, 'serve', folder, '--api', '--port', free_port(), *options]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd,
        env={**os.environ, **{k: str(o) for k,o in env.items()}})
    try:
        line = process.stdout.readline()
        assert ' is at http://127.0.0.1:' in line, line + process.stdout.read()
        address = urlsplit(line.split(' is at ')[1].split('/docs')[0])
        yield SimpleNamespace(process=process, host=address.hostname, port=address.port)
    finally:
        process.kill()
        process.wait()

def stop(server, timeout=120):
    "End the server with SIGTERM: the numbers of requests that it accepted and predicted"
    server.process.send_signal(signal.SIGTERM)
    said,_ = server.process.communicate(timeout=timeout)
    assert server.process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)
    assert len(said.splitlines()) == 1, said # no errors
    return [int(o.replace(',', '')) for o in re.match(r'stopped: ([\d,]+) requests accepted, ([\d,]+) predicted', said).groups()]

def ask(server, path, body=None, kind=None, method=None, headers=()):
    "Status, headers and content of a response; status 0 if the connection was refused or closed without one"
    connection = http.client.HTTPConnection(server.host, server.port, timeout=120)
    try:
        connection.request(method or ('GET' if body is None else 'POST'), path, body, {**({'Content-Type': kind} if kind else {}), **dict(headers)})
        response = connection.getresponse()
        return response.status,response.headers,response.read()
    except (ConnectionError, http.client.RemoteDisconnected): return 0,{},b''
    finally: connection.close()

def form(*images):
    "The arguments of `ask` for images as files"
    part = b'--edge\r\nContent-Disposition: form-data; name="images"; filename="%s"\r\n\r\n%s\r\n'
    return '/predict',b''.join(part % o for o in images) + b'--edge--\r\n','multipart/form-data; boundary=edge'

def as_json(*images): return '/predict',json.dumps(dict(images=[base64.b64encode(o).decode() for o in images])).encode(),'application/json'

def bomb():
    "The bytes of an image of 400 million pixels"
    file = io.BytesIO()
    Image.new('1', (20_000,20_000)).save(file, 'png')
    return file.getvalue()

@pytest.fixture(scope='module')
def server(folder): # noqa: F811
    with served(folder, '--allow-host', 'shop.example') as server: yield server

@pytest.fixture(scope='module')
def expected(folder, garments, tmp_path_factory): # noqa: F811
    "`fashion predict` of the test images: name -> category, attributes, probabilities"
    out = tmp_path_factory.mktemp('expected')
    assert run_inprocess('predict', folder, garments/'test', '--out', out, '--engine', 'onnx').returncode == 0
    table,sets = pd.read_csv(out/'predictions.csv', index_col=0),pd.read_csv(out/'attribute.csv', index_col=0, dtype=str, keep_default_na=False).attribute_label
    names = list(table)[2:]
    return {o: (table.category[o], [names[int(k)] for k in sets[o].split()], dict(table.loc[o][2:])) for o in table.index}

def is_equal(found, expected):
    category,attributes,probabilities = expected
    close = all(abs(found['attribute_probabilities'][o] - p) < 1e-4 for o,p in probabilities.items())
    return (found['category'], found['attributes']) == (category, attributes) and close

def test_files_and_json_get_the_predictions_of_the_command(server, garments, expected):
    names = sorted(expected)[:3]
    images = [(garments/'test'/o).read_bytes() for o in names]
    for request in (form(*[(name.encode(), o) for name,o in zip(names, images)]), as_json(*images)):
        status,_,body = ask(server, *request)
        assert status == 200
        found = json.loads(body)['predictions']
        assert len(found) == 3 and all(is_equal(o, expected[name]) for o,name in zip(found, names))
        assert abs(sum(found[0]['category_probabilities'].values()) - 1) < 1e-5

def test_a_broken_image_does_not_affect_the_others_of_its_request(server, garments, expected):
    good = (garments/'test'/'00001.jpg').read_bytes()
    status,_,body = ask(server, *form((b'a.jpg', good[:300]), (b'b.jpg', good), (b'c.jpg', bomb())))
    found = json.loads(body)['predictions']
    assert status == 200 and is_equal(found[1], expected['00001.jpg'])
    assert 'cannot be read as an image' in found[0]['problem'] and 'more than 64 million pixels' in found[2]['problem'] and 'category' not in found[0]

def test_invalid_requests_are_refused_with_a_reason(server, garments):
    good = (garments/'test'/'00001.jpg').read_bytes()
    large = {'Content-Length': '200000000'} # a declared size is enough
    for status,reason,request in [
            (400, 'a.jpg: cannot be read as an image', form((b'a.jpg', b'<html>'))), (400, 'more than 64 million pixels', as_json(bomb())),
            (400, 'has 0 images', form()), (400, 'has 33 images', as_json(*[good]*33)), (400, 'expected JSON', ('/predict', b'{', 'application/json')),
            (400, '', ('/predict', b'no form', 'multipart/form-data; boundary=edge')), (415, 'multipart/form-data', ('/predict', good, 'image/jpeg')),
            (413, 'more than 16 MB', ('/predict', bytes(17_000_000), 'application/json')), (413, 'more than 100 MB', (*form()[:1], b'', form()[2], 'POST', large)),
            (405, '', ('/predict',)), (404, '', ('/nothing',))]:
        found,headers,body = ask(server, *request)
        assert found == status and reason in json.loads(body)['detail'], (request[0], request[2:], found, body)
    assert ask(server, *form((b'a.jpg', good)))[0] == 200

def test_health_metadata_and_description(server, folder): # noqa: F811
    status,_,body = ask(server, '/healthz')
    assert status == 200 and json.loads(body) == dict(status='ok', waiting=0, limit=64)
    found,config = json.loads(ask(server, '/metadata')[2]),json.loads((folder/'config.json').read_text())
    assert found['categories'] == config['categories'] and found['scores']['accuracy'] == config['scores']['accuracy']
    described = json.loads(ask(server, '/openapi.json')[2])
    assert set(described['paths']) == {'/predict','/healthz','/metadata'} and set(described['paths']['/predict']['post']['requestBody']['content']) == {'multipart/form-data','application/json'}
    status,headers,_ = ask(server, '/')
    assert status == 307 and headers['location'] == 'docs'
    assert ask(server, '/healthz', method='HEAD')[0] == 200
    page = ask(server, '/docs')[2].decode()
    assert 'POST /predict' in page and not re.search(r'https?://(?!127\.0\.0\.1)', page)

def load(server, images, expected, n, clients, stop_after=None):
    "Send `n` requests, every tenth broken or too large: how many there were of each (kind, status); good answers are checked"
    broken = [form((b'x.jpg', b'<html>')), form((b'x.png', bomb())), as_json(b'no image'), ('/predict', b'{', 'application/json'),
              ('/predict', bytes(17_000_000), 'application/json')]
    counts,wrong,done = Counter(),[],threading.Semaphore(0)
    def one(i):
        name = images[i%len(images)]
        if i%10 == 9: counts['broken', ask(server, *broken[i//10%len(broken)])[0]] += 1
        else:
            good = expected[name][3]
            while True:
                status,headers,body = ask(server, *(as_json(good) if i%2 else form((name.encode(), good))))
                if status != 503: break
                counts['repeated', 503] += 1
                time.sleep(float(headers['Retry-After'])/10)
            counts['good', status] += 1
            if status == 200 and not is_equal(json.loads(body)['predictions'][0], expected[name][:3]): wrong.append(i)
        done.release()
    with ThreadPoolExecutor(clients) as pool:
        futures = [pool.submit(one, i) for i in range(n)]
        if stop_after:
            for _ in range(stop_after): done.acquire()
            numbers = stop(server)
        for o in futures: o.result()
    assert wrong == []
    return (counts, *numbers) if stop_after else counts

def with_bytes(expected, garments): return {o: (*value, (garments/'test'/o).read_bytes()) for o,value in expected.items()}

def memory(server, kind='VmRSS'):
    "Resident megabytes of the server; with VmHWM the most there ever were"
    return int(re.search(kind + r':\s+(\d+)', open(f'/proc/{server.process.pid}/status').read())[1])/1e3

def test_requests_from_many_clients_are_all_answered(server, garments, expected):
    counts = load(server, sorted(expected), with_bytes(expected, garments), 200, 8)
    assert counts['good', 200] == 180
    assert sum(n for (kind,status),n in counts.items() if kind == 'broken' and status in (400, 413)) == 20, counts

@contextmanager
def unfinished_request(server):
    "A request whose body does not arrive before the block ends: it keeps its place in the queue, however slow the machine is"
    connection = http.client.HTTPConnection(server.host, server.port, timeout=120)
    connection.putrequest('POST', '/predict')
    for key,value in {'Content-Type': 'application/json', 'Content-Length': '1'}.items(): connection.putheader(key, value)
    connection.endheaders()
    try: yield
    finally:
        connection.send(b'{')
        assert connection.getresponse().status == 400
        connection.close()

def wait_for(server, waiting):
    "Return when `waiting` requests are in the queue"
    for _ in range(600):
        if json.loads(ask(server, '/healthz')[2])['waiting'] == waiting: return
        time.sleep(.1)
    raise AssertionError(f"never {waiting} requests in the queue")

def test_beyond_the_queue_requests_are_told_to_come_later(folder, garments, expected, tmp_path): # noqa: F811
    hold = tmp_path/'hold'
    with served(folder, '--queue', '2', SLOW=.1, HOLD=hold) as server,ThreadPoolExecutor(2) as pool:
        good = as_json((garments/'test'/'00001.jpg').read_bytes())
        hold.touch()
        futures = [pool.submit(ask, server, *good) for _ in range(2)]
        wait_for(server, 2)
        status,headers,_ = ask(server, *good)
        assert status == 503 and int(headers['Retry-After']) >= 1
        hold.unlink()
        assert [o.result()[0] for o in futures] == [200,200]
        wait_for(server, 0)
        assert ask(server, *good)[0] == 200
        counts = load(server, sorted(expected), with_bytes(expected, garments), 30, 8)
        assert counts['good', 200] == 27 and set(status for _,status in counts) <= {200, 400, 413, 503}, counts

def test_a_request_takes_its_place_when_it_has_arrived(folder, garments, tmp_path): # noqa: F811
    good,hold = as_json((garments/'test'/'00001.jpg').read_bytes()),tmp_path/'hold'
    with served(folder, '--queue', '1', HOLD=hold) as server,ThreadPoolExecutor(1) as pool:
        with unfinished_request(server),unfinished_request(server):
            assert ask(server, *good)[0] == 200 and json.loads(ask(server, '/healthz')[2])['waiting'] == 0
        late = socket.create_connection((server.host, server.port))
        late.sendall(b'POST /predict HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{')
        wait_for(server, 0)
        hold.touch()
        waiting = pool.submit(ask, server, *good)
        wait_for(server, 1)
        late.sendall(b'}') # it arrives while the queue is full
        assert b' 503 ' in late.recv(100)
        late.close()
        hold.unlink()
        assert waiting.result()[0] == 200

HALVES = b'', b'POST /pre', b'POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{'

def test_half_sent_requests_keep_nobody_out(server, garments):
    good = as_json((garments/'test'/'00001.jpg').read_bytes())
    with ExitStack() as stack:
        for i in range(450): stack.enter_context(socket.create_connection((server.host, server.port))).sendall(HALVES[i%3])
        assert ask(server, *good)[0] == 200 and ask(server, '/healthz')[0] == 200
        n_open = sum(o.split()[3] == '01' and o.split()[1].endswith(f':{server.port:04X}') for o in open('/proc/net/tcp').read().splitlines()[1:])
        assert n_open < 200 # the oldest were closed
    assert ask(server, *good)[0] == 200

def test_only_names_of_this_machine_and_those_given_are_answered(server):
    def status(host, path='/healthz'): return ask(server, path, headers={'Host': host})[0]
    for host in ('localhost', 'localhost:8000', '127.0.0.1:1', '[::1]:8000', 'SHOP.example', 'shop.example:80'): assert status(host) == 200
    for host in ('evil.example', 'localhost.evil.example:8000', '10.0.0.5', 'shop.example.evil.example', ''):
        assert {status(host, o) for o in ('/healthz','/metadata','/docs','/predict','/openapi.json')} == {421}

def test_values_are_counted_before_json_is_parsed(server):
    before = memory(server)
    for value in (b'0', b'[]', b'{"a":{}}'):
        status,_,body = ask(server, '/predict', b'{"images":[' + b','.join([value]*(15_000_000//(len(value) + 1))) + b']}', 'application/json')
        assert status == 400 and 'more than 1,000 values; send 1 to 32 images' in json.loads(body)['detail']
    assert memory(server) < before + 200

def test_the_pixels_of_a_request_are_limited(server):
    large = saved(Image.new('1', (8000,7900)), 'PNG')
    truncated = large[:-100]
    for image in (large, truncated):
        status,_,body = ask(server, *form(*[(b'%d.png' % i, image) for i in range(5)], (b'small.png', saved(Image.new('RGB', (30,40)), 'PNG'))))
        found = json.loads(body)['predictions']
        assert status == 200 and ['more than 256 million pixels' in o.get('problem', '') for o in found] == [False]*4 + [True, False]
        assert 'category' in found[-1]

def test_a_file_name_that_is_no_text_is_replaced(server, garments):
    part = b'--edge\r\nContent-Disposition: form-data; name="images"; filename="%s"\r\n\r\n%s\r\n--edge--\r\n'
    body = part % (rb'\\ud800.jpg', (garments/'test'/'00001.jpg').read_bytes())
    for charset in ('unicode_escape','utf-7','utf-16','hex','idna'):
        status,_,answer = ask(server, '/predict', body, f'multipart/form-data; boundary=edge; charset={charset}')
        assert status in (200, 400) and json.loads(answer), charset

def check_stop(server, garments, expected, n, clients, stop_after):
    "After SIGTERM in the middle, every request that was accepted is answered"
    counts,n_accepted,n_predicted = load(server, sorted(expected), with_bytes(expected, garments), n, clients, stop_after)
    assert 0 < counts['good', 200] == n_predicted, counts
    assert counts['good', 0] > 0 and set(o for kind,o in counts if kind == 'good') <= {0, 200}, counts # the others were never accepted
    n_refused = sum(n for (kind,status),n in counts.items() if (kind,status) == ('broken', 400)) # before it has arrived, too large a request is not accepted
    assert n_predicted + n_refused <= n_accepted <= n_predicted + n_refused + counts['broken', 0], counts

def test_what_was_accepted_is_answered_after_sigterm(folder, garments, expected): # noqa: F811
    with served(folder, SLOW=.05) as server: check_stop(server, garments, expected, 200, 16, 40)

def test_it_listens_at_this_machine_only_and_refuses_a_taken_port(server, folder): # noqa: F811
    taken = run_inprocess('serve', folder, '--api', '--engine', 'onnx', '--port', server.port)
    assert refused(taken, f'127.0.0.1, port {server.port}: cannot be listened at')
    addresses = {o.split()[1] for o in open('/proc/net/tcp').read().splitlines()[1:] if o.split()[3] == '0A'} # listening
    assert f'0100007F:{server.port:04X}' in addresses and f'00000000:{server.port:04X}' not in addresses

@pytest.mark.soak
def test_two_thousand_requests_from_sixteen_clients(folder, garments, expected): # noqa: F811
    with served(folder) as server:
        load(server, sorted(expected), with_bytes(expected, garments), 400, 16) # buffers reach their size
        before = memory(server)
        counts = load(server, sorted(expected), with_bytes(expected, garments), 2000, 16)
        print(counts, f'{before:.0f} MB before, {memory(server):.0f} MB after')
        assert counts['good', 200] == 1800
        assert sum(n for (kind,status),n in counts.items() if kind == 'broken' and status in (400, 413)) == 200, counts
        assert memory(server) < before*1.1 + 10

@pytest.mark.soak
def test_sigterm_in_the_middle_of_two_thousand_requests(folder, garments, expected): # noqa: F811
    with served(folder) as server: check_stop(server, garments, expected, 2000, 16, 500)

class Marker:
    "A pickle that writes a file"
    def __init__(self, path): self.path = path
    def __reduce__(self): return Path.touch,(self.path,)

def hostile_images(marker):
    "Files that no visitor with good intentions sends; some would write `marker`, if they were run"
    eps = f'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 40\n({marker}) (w) file closefile\nshowpage\n%%EOF\n'.encode()
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{marker}"/></svg>'.encode()
    large = [saved(Image.new(mode, (8000,8000)), 'PNG') for mode in ('1','LA','P','I;16')]
    webp = bytes.fromhex('524946461a000000574542505650384c0e0000002f3fdfcf07071011fd0f4444ff03') # 64 million pixels
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(Image.new('RGB', (8000,8000)), 'JPEG', exif=exif)
    frames = saved(Image.new('P', (4000,4000)), 'GIF', save_all=True, append_images=[Image.new('P', (4000,4000), i) for i in range(9)])
    small = [pickle.dumps(Marker(marker)), eps, svg, bomb(), two_faced(), two_faced(13_000, 13_000), frames, webp, b'', b'\0'*1000, b'PK\3\4'*99]
    if features.check('jpg_2000'): small.append(saved(Image.new('L', (4000,4000)), 'JPEG2000'))
    return small,[*large, *[o[:-100] for o in large], turned, saved(Image.new('1', (8000,8000)), 'TIFF', compression='group4')]

NAMES = b'a.jpg', b'../../../escaped.jpg', b'/tmp/escaped.jpg', rb'..\\..\\escaped.jpg', b'=1+1.jpg', b'\0.jpg', b'x'*5000, b'<script>', b'', b'%00', b'\xff\xfe', rb'\\ud800', b'a";b="'
CHARSETS = b'', b'; charset=unicode_escape', b'; charset=utf-7', b'; charset=utf-16', b'; charset=zlib', b'; charset=punycode', b'; charset=' + b'x'*999
JSON_VALUES = '0', '[]', '{}', '""', 'null', 'true', '1e999', 'NaN', '-Infinity', '9'*5000, r'"\ud800"', '"é"', '"' + 'A'*999 + '"', '{"a":[{}]}', '[[[[[[]]]]]]', '1.' + '1'*9999

def hostile_json(rng, image):
    "A body that is nearly JSON with images"
    text,size = base64.b64encode(image).decode()[:300_000],rng.choice([1,2,33,999,20_000])
    body = rng.choice([lambda: json.dumps(dict(images=[text]*rng.choice([0,1,33]))), lambda: '{"images":[' + ','.join(rng.choices(JSON_VALUES, k=min(size, 999))) + ']}',
        lambda: '{"images":' + rng.choice(JSON_VALUES) + '}', lambda: '['*size*50, lambda: '{"images":'*size, lambda: '{"images":["' + r'\/'*size*100 + '"]}',
        lambda: '{"images":[' + ','.join([rng.choice(JSON_VALUES[:5])]*size*50) + ']}', lambda: '{"images":["data:image/png;base64,' + text + '"]}',
        lambda: json.dumps(dict(images=[text, None, 1, {}, [text], text[:-1], text + '\n']))])()
    raw = body.encode(rng.choice(['utf-8','utf-8','utf-8','utf-16','utf-32','utf-8-sig']), 'surrogatepass')
    return (mutated(raw, rng) if rng.random() < .3 else raw)[:15_900_000], rng.choice(['application/json','application/json','Application/JSON; charset=x'])

def hostile_form(rng, images):
    "A body that is nearly a form with images"
    edge = rng.choice([b'edge', b'edge', b'e', b'-'*70, b'x'*300])
    part = b'--' + edge + b'\r\nContent-Disposition: form-data; name="%s"; filename="%s"%s\r\n\r\n%s\r\n'
    def headers(): return rng.choice([b'', b'', b'\r\nContent-Type: ' + b'x'*rng.choice([9,9999]), b'\r\nA: b'*rng.choice([1,99]), b'\r\nContent-Transfer-Encoding: base64'])
    parts = [part % (rng.choice([b'images', b'images', b'images', b'other']), rng.choice(NAMES), headers(), o) for o in images]
    raw = b''.join(parts) + rng.choice([b'--' + edge + b'--\r\n', b'--' + edge + b'--\r\n', b'', b'\r\n--' + edge[:-1], (b'\r\n--' + edge[:-1])*9999])
    if rng.random() < .3: raw = mutated(raw, rng)
    return raw,(b'multipart/form-data; boundary=' + rng.choice([edge, edge, edge, b'', b'other']) + rng.choice(CHARSETS)).decode()

def send_raw(server, body, rng):
    "Send a request that says something wrong of its length, or stops in the middle"
    length = rng.choice([b'Content-Length: %d' % (len(body) + 99), b'Content-Length: 5', b'Content-Length: -1', b'Content-Length: 1' + b'0'*5000, b'Transfer-Encoding: chunked'])
    with socket.create_connection((server.host, server.port), 60) as connection:
        try:
            connection.sendall(b'POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n' + length + b'\r\n\r\n' + body[:5000])
            if rng.random() < .5: connection.shutdown(socket.SHUT_WR)
            connection.settimeout(.05)
            answer = connection.recv(100)
        except OSError: return 0 # closed, or still waiting for the rest
    return int(answer.split()[1]) if answer else 0

def check_hostile(folder, garments, expected, tmp_path, n, seed, heavy):
    "Send `n` hostile bodies, `heavy` of them large to decode or parse; returns the slowest response of /healthz in seconds"
    marker,places = tmp_path/'ran',[tmp_path/o for o in ('cwd','tmp')]
    for o in places: o.mkdir()
    def files(): return {o: o.stat().st_mtime_ns for place in (folder, tmp_path) for o in place.rglob('*') if o.is_file()}
    small,large = hostile_images(marker)
    small += originals()
    slowest,ended = [],threading.Event()
    def one(server, i):
        rng = random.Random(f'{seed} {i}')
        def image(): return rng.choice([lambda: rng.choice(small), lambda: mutated(rng.choice(small), rng)])()
        if i%(n//heavy) == 0:
            many = b'{"images":[' + rng.choice([b'0,', b'[],', b'{"a":1},', b'"\\/",'])*3_000_000
            request = rng.choice([form(*[(b'a', rng.choice(large))]*rng.choice([1,1,32]))[1:], as_json(rng.choice(large))[1:], (many[:15_900_000], 'application/json')])
        else: request = rng.choice([lambda: hostile_json(rng, image()), lambda: hostile_form(rng, [image() for _ in range(rng.choice([0,1,1,3,33]))])])()
        if i%20 == 19: return send_raw(server, request[0], rng)
        return ask(server, '/predict', *request)[0]
    def watch(server):
        while not ended.wait(.02):
            since = time.monotonic()
            assert ask(server, '/healthz')[0] == 200
            slowest.append(time.monotonic() - since)
    with served(folder, cwd=places[0], TMPDIR=places[1]) as server,ThreadPoolExecutor(9) as pool:
        before,watching = files(),pool.submit(watch, server)
        try: statuses = Counter(pool.map(lambda i: one(server, i), range(n)))
        finally: ended.set()
        watching.result()
        name = sorted(expected)[0]
        status,_,body = ask(server, *form((b'a.jpg', (garments/'test'/name).read_bytes())))
        assert status == 200 and is_equal(json.loads(body)['predictions'][0], expected[name])
        peak = memory(server, 'VmHWM')
        server.process.terminate()
        said = server.process.communicate()[0]
    print(dict(statuses), f'memory at most {peak:.0f} MB, /healthz after at most {max(slowest):.2f} s')
    assert set(statuses) <= {0, 200, 400, 408, 413, 415, 503} and statuses[200] and statuses[400], statuses
    assert 'Traceback' not in said and 'Error' not in said, said
    assert peak < 1500 and files() == before # `marker` neither
    return max(slowest)

@pytest.mark.slow
def test_hostile_bodies_run_nothing_and_write_nothing(folder, garments, expected, tmp_path): # noqa: F811
    check_hostile(folder, garments, expected, tmp_path, 150, 366, 3)

@pytest.mark.soak
def test_two_thousand_hostile_bodies(folder, garments, expected, tmp_path): # noqa: F811
    assert check_hostile(folder, garments, expected, tmp_path, 2000, random.randrange(10**9), 60) < 1

def test_no_body_is_an_error_of_the_server(folder, garments): # noqa: F811
    "Requests as the application gets them, in this process"
    import asyncio
    from starlette.requests import Request
    from fashion_fastai.predict.onnx import OnnxModel
    from fashion_fastai.serve.api import api_app
    from fashion_fastai.serve.queue import PredictionQueue,Refused
    from fashion_fastai.serve.request import MAX_JSON,answer_request
    model,garment = OnnxModel(folder),(garments/'test'/'00001.jpg').read_bytes()
    queue,full = PredictionQueue(model),PredictionQueue(model, 0)
    def ask(body, kind='application/json', to=queue, **headers):
        async def receive(): return dict(type='http.request', body=body)
        headers = [(b'content-type', kind.encode()), *((k.replace('_', '-').encode(), v.encode()) for k,v in headers.items())]
        return asyncio.run(answer_request(Request(dict(type='http', app=None, headers=headers), receive), to))
    def refused_with(status, *args, **kwargs):
        with pytest.raises(Refused) as caught: ask(*args, **kwargs)
        assert caught.value.status == status, args
    images,multipart = [base64.b64encode(garment).decode(), 'no base64'],'multipart/form-data; boundary=edge'
    for body in (b'{', b'[]', b'{"images": 1}', b'{"images": []}', b'{"images": ["", 1, null]}', b'['*100_000, b'\xff', json.dumps(dict(images=images*17)).encode()):
        refused_with(400, body)
    no_name = b'--edge\r\nContent-Disposition: form-data; name="images"\r\n\r\ntext\r\n--edge--\r\n'
    for body in (b'', b'--edge--', b'--edge\r\nno header\r\n\r\n', no_name): refused_with(400, body, multipart)
    for kind in ('multipart/form-data', 'multipart/form-data; boundary=edge; charset=none'): refused_with(400, b'', kind)
    refused_with(415, garment, 'image/jpeg')
    refused_with(413, b'', content_length=str(MAX_JSON + 1))
    refused_with(413, bytes(MAX_JSON + 1))
    for value in (b'0', b'[]', b'{"a":{}}', b'""'): refused_with(400, b'{"images":[' + b','.join([value]*10**6) + b']}')
    refused_with(503, b'', to=full)
    part = b'--edge\r\nContent-Disposition: form-data; name="images"; filename="%s"\r\n\r\n%s\r\n'
    assert ask(part % (b'a.jpg', garment) + part % (b'b.jpg', b'') + b'--edge--\r\n', multipart)[1]['problem'] == 'cannot be read as an image'
    paths = api_app(queue, 'garments', model.config).openapi()['paths']
    assert set(paths) == {'/predict','/healthz','/metadata'} and '503' in paths['/predict']['post']['responses']
    queue.close()
    full.close()

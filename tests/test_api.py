"The HTTP endpoint: the command in a process without PyTorch, sent valid, broken and too large requests, thousands of them, and stopped"
import base64,http.client,io,json,os,re,signal,socket,subprocess,sys,threading,time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from urllib.parse import urlsplit
import pandas as pd
import pytest
from PIL import Image
from conftest import refused,run_inprocess
from test_serving import WITHOUT_TORCH,folder # noqa: F401 - a fixture

pytest.importorskip('fastapi')

# the command in a process without PyTorch, in which a prediction can be made to take longer
SERVE = WITHOUT_TORCH + """
import os,time
from fashion_fastai.cli.main import main
from fashion_fastai.serving.engine import OnnxModel
predict,seconds = OnnxModel.predict,float(os.environ.get('SLOW', 0))
def slow(*args, **kwargs):
    time.sleep(seconds)
    return predict(*args, **kwargs)
if seconds: OnnxModel.predict = slow
sys.exit(main(sys.argv[1:]))
"""

def free_port():
    with socket.create_server(('127.0.0.1', 0)) as o: return o.getsockname()[1]

@contextmanager
def served(folder, *options, slow=0):
    "The server's process and address"
    command = [sys.executable, '-W', 'ignore', '-c', SERVE, 'serve', folder, '--api', '--port', free_port(), *options]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, 'SLOW': str(slow)})
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
    with served(folder) as server: yield server

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

def memory(server):
    "Resident megabytes of the server"
    return int(re.search(r'VmRSS:\s+(\d+)', open(f'/proc/{server.process.pid}/status').read())[1])/1e3

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

def test_beyond_the_queue_requests_are_told_to_come_later(folder, garments, expected): # noqa: F811
    with served(folder, '--queue', '2', slow=.1) as server:
        good = as_json((garments/'test'/'00001.jpg').read_bytes())
        with unfinished_request(server),unfinished_request(server):
            wait_for(server, 2)
            status,headers,_ = ask(server, *good)
            assert status == 503 and int(headers['Retry-After']) >= 1
        wait_for(server, 0)
        assert ask(server, *good)[0] == 200
        counts = load(server, sorted(expected), with_bytes(expected, garments), 30, 8)
        assert counts['good', 200] == 27 and set(status for _,status in counts) <= {200, 400, 413, 503}, counts

def check_stop(server, garments, expected, n, clients, stop_after):
    "After SIGTERM in the middle, every request that was accepted is answered"
    counts,n_accepted,n_predicted = load(server, sorted(expected), with_bytes(expected, garments), n, clients, stop_after)
    assert 0 < counts['good', 200] == n_predicted, counts
    assert counts['good', 0] > 0 and set(o for kind,o in counts if kind == 'good') <= {0, 200}, counts # the others were never accepted
    n_refused = sum(n for (kind,status),n in counts.items() if kind == 'broken' and status in (400, 413))
    assert n_predicted + n_refused <= n_accepted <= n_predicted + n_refused + counts['broken', 0], counts

def test_what_was_accepted_is_answered_after_sigterm(folder, garments, expected): # noqa: F811
    with served(folder, slow=.05) as server: check_stop(server, garments, expected, 200, 16, 40)

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

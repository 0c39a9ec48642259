"Catalogues in parts and by Ray: kills at any moment, object storage, invalid input, a full disk"
import importlib.util,os,random,signal,socket,subprocess,sys,time
from pathlib import Path
import pandas as pd
import pytest
from conftest import FASHION,refused,run_cli,run_inprocess,spawn

pytestmark = pytest.mark.slow
needs_ray = pytest.mark.skipif(importlib.util.find_spec('ray') is None, reason='Ray is not installed (the extra [ray], 600 MB)')
needs_moto = pytest.mark.skipif(not all(map(importlib.util.find_spec, ('moto','s3fs'))), reason='moto and s3fs are not installed')

N,N_BAD,FILES = 4000,5,('category.csv','attribute.csv','predictions.csv','bad_images.csv')
OPTIONS = ['--precision', 'fp32', '--batch-size', 32, '--workers', 1]
RAY = ['--engine', 'ray', '--actors', 3] # four CPUs, one of which hands out work

@pytest.fixture(scope='module')
def catalogue(garments, tmp_path_factory):
    "A list of 4,000 images, of which five are broken"
    data = tmp_path_factory.mktemp('catalogue')
    (data/'images').mkdir()
    images = sorted((garments/'train').iterdir())
    names = [f'images/{i:05}.jpg' for i in range(N)]
    for i,name in enumerate(names): os.link(images[i % len(images)], data/name)
    for name in names[700::800]:
        (data/name).unlink()
        (data/name).write_bytes(b'no image')
    pd.DataFrame(dict(file_path=names)).to_csv(data/'list.csv', index=False)
    return data/'list.csv'

@pytest.fixture(scope='module')
def expected(run, catalogue, tmp_path_factory):
    "What one undisturbed process writes"
    out = tmp_path_factory.mktemp('expected')
    assert run_inprocess('predict', run, catalogue, '--out', out, *OPTIONS).returncode == 0
    assert len(pd.read_csv(out/'bad_images.csv')) == N_BAD
    return out

def same_files(out, expected, files=FILES): return all((out/o).read_bytes() == (expected/o).read_bytes() for o in files)

def descendants(pid):
    "(process, command) of all that `pid` started, and they in turn"
    found = []
    for task in Path(f'/proc/{pid}/task').glob('*/children'):
        for child in map(int, task.read_text().split()):
            try: command = Path(f'/proc/{child}/cmdline').read_bytes().replace(b'\0', b' ').decode()
            except OSError: continue
            found += [(child, command), *descendants(child)]
    return found

def killed_and_resumed(run, catalogue, out, whom, rng):
    "Kill the command, an actor or both when some number of parts is done; then complete the job"
    command = ['predict', run, catalogue, '--out', out, *OPTIONS, *RAY]
    process = spawn(FASHION, *command, stderr=subprocess.PIPE)
    n_parts = rng.randrange(0, 110) # of 125
    while len(list((out/'parts').glob('part-*.parquet'))) < n_parts: time.sleep(.02)
    time.sleep(rng.random()*.3 if n_parts else rng.random()*20)
    started = descendants(process.pid)
    actors = [pid for pid,o in started if o.startswith('ray::') and 'PartPredictor' in o]
    if whom != 'driver':
        for pid in rng.sample(actors, min(1, len(actors))): os.kill(pid, signal.SIGKILL)
    if whom != 'actor': process.kill()
    _,err = process.communicate(timeout=200)
    if whom == 'actor': assert process.returncode == 0 and len(err.splitlines()) == 1, err # about bad images; Ray restarts the actor
    else:
        done = run_cli(*command)
        assert done.returncode == 0 and len(done.stderr.splitlines()) == 1, done.stderr
        if n_parts: assert done.stdout.startswith('resuming after ')
    return [pid for pid,_ in started]

@needs_ray
def test_ray_writes_what_one_process_writes(run, catalogue, expected, tmp_path):
    done = run_cli('predict', run, catalogue, '--out', tmp_path/'out', *OPTIONS, *RAY, '--no-merge')
    assert done.returncode == 0 and done.stderr == '' and f'merge {tmp_path}/out/parts --out submission' in done.stdout, done.stderr
    assert os.listdir(tmp_path/'out') == ['parts']
    done = run_inprocess('merge', tmp_path/'out'/'parts', '--out', tmp_path/'merged')
    assert done.returncode == 0 and done.stderr.startswith(f'fashion: warning: {N_BAD} of 4,000 images') and same_files(tmp_path/'merged', expected)

@needs_ray
@pytest.mark.parametrize('whom,seed', [('driver', 1), ('both', 2)])
def test_every_row_is_answered_once_after_a_kill(run, catalogue, expected, tmp_path, whom, seed):
    started = killed_and_resumed(run, catalogue, tmp_path/'out', whom, random.Random(seed))
    assert same_files(tmp_path/'out', expected) and pd.read_csv(tmp_path/'out'/'category.csv').file_path.nunique() == N
    end = time.monotonic() + 60
    while any(Path(f'/proc/{o}').exists() for o in started): # nothing of Ray is left
        assert time.monotonic() < end
        time.sleep(.5)

@needs_ray
@pytest.mark.soak
@pytest.mark.parametrize('seed', range(20))
def test_twenty_kills(run, catalogue, expected, tmp_path, seed):
    killed_and_resumed(run, catalogue, tmp_path/'out', ('driver','actor','both')[seed % 3], random.Random(100+seed))
    assert same_files(tmp_path/'out', expected)

@needs_ray
def test_what_ray_refuses(run, catalogue, tmp_path):
    def refuse(reason, *words, model=run, test=catalogue): return refused(run_cli('predict', model, test, '--out', tmp_path/'out', *OPTIONS, *words), reason)
    assert refuse('--address 127.0.0.1:9: there is no Ray cluster', '--engine', 'ray', '--address', '127.0.0.1:9')
    assert refuse('--address auto: there is no Ray cluster', '--engine', 'ray', '--address', 'auto')
    assert refuse("no model.json in this folder", '--engine', 'ray', model=tmp_path)
    assert refuse('none.csv: no such file', '--engine', 'ray', test=tmp_path/'none.csv')
    for o in (['--shard', '1/2', '--engine', 'ray'], ['--engine', 'ray', '--cache', 'auto']): assert refuse('cannot be combined', *o)
    lost = tmp_path/'lost.csv'
    pd.DataFrame(dict(file_path=[f'{i}.jpg' for i in range(50)])).to_csv(lost, index=False)
    done = run_cli('predict', run, lost, '--out', tmp_path/'lost', *OPTIONS, '--engine', 'ray')
    assert refused(done, '50 of 50 images are missing, the first being 0.jpg')

@needs_ray
def test_no_progress_ends_with_a_line(run, catalogue, tmp_path):
    "An actor that stands still, as one that waits for a store that does not answer"
    command = ['predict', run, catalogue, '--out', tmp_path/'out', *OPTIONS, '--engine', 'ray', '--actors', 1, '--timeout', 4]
    process = spawn(FASHION, *command, stderr=subprocess.PIPE)
    def actors(): return [pid for pid,o in descendants(process.pid) if o.startswith('ray::') and 'PartPredictor' in o]
    while not list((tmp_path/'out'/'parts').glob('part-*.parquet')):
        if process.poll() is not None: break # it took more than four seconds to start
        time.sleep(.02)
    for pid in actors(): os.kill(pid, signal.SIGSTOP)
    _,err = process.communicate(timeout=120)
    assert process.returncode == 2 and len(err.splitlines()) == 1 and 'no progress for 4 seconds' in err and 'start the same command again' in err, err

def test_what_is_refused_without_ray(run, catalogue, tmp_path, monkeypatch):
    def predict(*words): return run_inprocess('predict', run, catalogue, '--out', tmp_path/'out', *OPTIONS, *words)
    assert refused(predict('--address', 'auto'), '--address, --actors and --no-merge need --engine ray')
    assert refused(predict('--shard', '3/2'), "--shard '3/2' should look like 3/16")
    monkeypatch.setitem(sys.modules, 'ray', None)
    assert refused(predict('--engine', 'ray'), 'pip install "fashion_fastai[ray]"')
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    assert refused(predict('--shard', '1/2'), 'pip install "fashion_fastai[parquet]"')

def test_parts_of_another_job_and_of_a_changed_list(run, garments, tmp_path):
    parts,test = tmp_path/'parts',garments.parent/'garments'/'test.csv'
    mine = tmp_path/'garments'
    mine.mkdir()
    (mine/'test.csv').write_text(test.read_text())
    (mine/'test').symlink_to(garments/'test')
    def predict(*words, shard='1/2', list='test.csv'): return run_inprocess('predict', run, mine/list, '--out', parts, *OPTIONS, '--shard', shard, *words)
    assert predict().returncode == 0
    assert refused(predict('--tta', shard='2/2'), 'contains parts of a job whose --tta was None, and is now True; choose another folder')
    rows = (mine/'test.csv').read_text().splitlines()
    (mine/'test.csv').write_text('\n'.join(rows[:-1]))
    assert refused(predict(shard='2/2'), 'contains parts of a list of 20 rows, and this one has 19; did the list change?')
    (mine/'test.csv').write_text('\n'.join([rows[0], *rows[:0:-1]]))
    assert refused(predict(shard='2/2'), 'contains parts of a list with other rows; did the list change?')
    assert refused(run_inprocess('merge', parts, '--out', tmp_path/'out'), '1 of 2 parts are missing, the first being part-00002-of-00002.parquet (--shard 2/2)')
    (mine/'test.csv').write_text('\n'.join(rows))
    assert predict(shard='2/2').returncode == 0
    assert run_inprocess('merge', parts, '--out', tmp_path/'out').returncode == 0
    assert run_inprocess('predict', run, mine/'test.csv', '--out', tmp_path/'one', *OPTIONS).returncode == 0
    assert same_files(tmp_path/'out', tmp_path/'one', FILES[:3])
    assert refused(run_inprocess('merge', tmp_path/'one', '--out', tmp_path/'two'), 'has no job.json, so it is no folder of parts')

def test_a_full_disk_in_a_part_is_one_line_and_loses_nothing(run, catalogue, tmp_path):
    "A limit on the size of files stands in for a full disk"
    limited = ("import resource,signal,sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))\n"
        "from fashion_fastai.cli.main import main\nsys.exit(main(sys.argv[1:]))")
    words = ['predict', run, catalogue, '--out', tmp_path/'parts', *OPTIONS, '--shard', '1/4']
    done = run_cli(*words, command=[sys.executable, '-W', 'ignore', '-c', limited])
    assert refused(done, 'part-00001-of-00004.parquet: cannot be written (')
    assert 'File too large' in done.stderr
    assert os.listdir(tmp_path/'parts') == ['job.json']
    assert run_cli(*words).returncode == 0

def test_a_list_that_contains_the_images(run, garments, tmp_path):
    "Parts of a Parquet file with bytes are what a list of the same files gives"
    pa = pytest.importorskip('pyarrow.parquet', reason='PyArrow is not installed')
    import pyarrow
    paths = pd.read_csv(garments/'test.csv').file_path.tolist()
    cells = [dict(bytes=(garments.parent/o).read_bytes(), path=o) for o in paths]
    cells[-1]['bytes'] = b'no image'
    pa.write_table(pyarrow.table(dict(image=cells)), tmp_path/'images.parquet', row_group_size=6)
    for k in (1,2): assert run_inprocess('predict', run, tmp_path/'images.parquet', '--out', tmp_path/'parts', *OPTIONS, '--shard', f'{k}/2').returncode == 0
    done = run_inprocess('merge', tmp_path/'parts', '--out', tmp_path/'merged')
    assert done.returncode == 0 and '1 of 20 images' in done.stderr
    local = tmp_path/'garments'
    (local/'test').mkdir(parents=True)
    for o in paths[:-1]: os.link(garments.parent/o, tmp_path/o)
    (tmp_path/paths[-1]).write_bytes(b'no image')
    (local/'test.csv').write_text((garments/'test.csv').read_text())
    assert run_inprocess('predict', run, local/'test.csv', '--out', tmp_path/'expected', *OPTIONS).returncode == 0
    assert same_files(tmp_path/'merged', tmp_path/'expected', FILES[:3])

@pytest.fixture(scope='module')
def s3():
    "The environment of an S3 server on this machine, with an empty bucket"
    with socket.socket() as o:
        o.bind(('127.0.0.1', 0))
        port = o.getsockname()[1]
    server = subprocess.Popen([sys.executable, '-m', 'moto.server', '-H', '127.0.0.1', '-p', str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    names = dict(AWS_ENDPOINT_URL=f'http://127.0.0.1:{port}', AWS_ACCESS_KEY_ID='test', AWS_SECRET_ACCESS_KEY='test', AWS_DEFAULT_REGION='us-east-1')
    with pytest.MonkeyPatch.context() as patch:
        for k,v in names.items(): patch.setenv(k, v)
        import s3fs
        end = time.monotonic() + 60
        while socket.socket().connect_ex(('127.0.0.1', port)): assert time.monotonic() < end
        fs = s3fs.S3FileSystem()
        fs.mkdir('shop')
        yield fs
    server.terminate()

@needs_moto
@needs_ray
def test_a_catalogue_in_object_storage(run, garments, tmp_path, s3):
    "Lists with paths and with images in S3, and the parts too: the answers are those for files"
    import pyarrow as pa,pyarrow.parquet as pq
    paths = pd.read_csv(garments/'test.csv').file_path.tolist()
    for o in paths[:-1]: s3.put_file(str(garments.parent/o), f'shop/{o}') # the last one is missing
    s3.put_file(str(garments/'test.csv'), 'shop/lists/test.csv')
    cells = [dict(bytes=(garments.parent/o).read_bytes() if o != paths[-1] else None, path=o) for o in paths]
    for i in (0,1):
        with s3.open(f'shop/images/{i}.parquet', 'wb') as f: pq.write_table(pa.table(dict(image=cells[10*i:][:10])), f, row_group_size=4)
    local = tmp_path/'garments'
    (local/'test').mkdir(parents=True)
    for o in paths[:-1]: os.link(garments.parent/o, tmp_path/o)
    (local/'test.csv').write_text((garments/'test.csv').read_text())
    options = ['--precision', 'fp32', '--batch-size', 4, '--workers', 1]
    assert run_inprocess('predict', run, local/'test.csv', '--out', tmp_path/'expected', *options).returncode == 0
    done = run_cli('predict', run, 's3://shop/lists/test.csv', '--out', 's3://shop/out', *options, '--engine', 'ray', '--actors', 2, '--no-merge')
    assert done.returncode == 0, done.stderr
    assert run_cli('merge', 's3://shop/out/parts', '--out', tmp_path/'paths').returncode == 0
    done = run_cli('predict', run, 's3://shop/images', '--out', tmp_path/'bytes', *options, '--engine', 'ray', '--actors', 2)
    assert done.returncode == 0, done.stderr
    for o in ('paths','bytes'): assert same_files(tmp_path/o, tmp_path/'expected')
    assert refused(run_cli('predict', run, 's3://shop/none.parquet', '--out', tmp_path/'none', *options, '--engine', 'ray'), 's3://shop/none.parquet: no such file')
    assert refused(run_cli('predict', run, 's3://shop/images', '--out', 's3://shop/out', *options, '--engine', 'ray'), 'use --no-merge')

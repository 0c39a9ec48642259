"Catalogues in parts and by Ray: kills at any moment, object storage, invalid input, a full disk"
import importlib.util,json,os,random,shutil,signal,socket,subprocess,sys,time
from dataclasses import replace
from pathlib import Path
import numpy as np,pandas as pd
import pytest,torch
from conftest import FASHION,refused,run_cli,run_inprocess,spawn
import fashion_fastai.predict.catalogue as catalogue_module,fashion_fastai.model.precision as precision_module
from fashion_fastai.callback.tta import FlipTTA
from fashion_fastai.predict.catalogue import Catalogue
from fashion_fastai.predict.store import Store
from fashion_fastai.data.augment import JitterNormalize
from fashion_fastai.decision.rules import Threshold
from fashion_fastai.decision.core import Decision
from fashion_fastai.predict.ensemble import load_ensemble
from fashion_fastai.predict.model import load_model
from fashion_fastai.predict.parts import model_identity
from fashion_fastai.examples import tiny_learner

pytestmark = pytest.mark.slow
needs_ray = pytest.mark.skipif(importlib.util.find_spec('ray') is None, reason='Ray is not installed (the extra [ray], 600 MB)')
needs_moto = pytest.mark.skipif(not all(map(importlib.util.find_spec, ('moto','s3fs'))), reason='moto and s3fs are not installed')

N,N_BAD,FILES = 4000,5,('category.csv','attribute.csv','predictions.csv','bad_images.csv')
OPTIONS = ['--precision', 'fp32', '--batch-size', 32, '--workers', 1]
RAY = ['--on', 'ray', '--actors', 3] # four CPUs, one of which hands out work

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
    assert refuse('--address 127.0.0.1:9: there is no Ray cluster', '--on', 'ray', '--address', '127.0.0.1:9')
    assert refuse('--address auto: there is no Ray cluster', '--on', 'ray', '--address', 'auto')
    assert refuse("no model.json in this folder", '--on', 'ray', model=tmp_path)
    assert refuse('none.csv: no such file', '--on', 'ray', test=tmp_path/'none.csv')
    for o in (['--shard', '1/2', '--on', 'ray'], ['--on', 'ray', '--cache', 'auto']): assert refuse('cannot be combined', *o)
    lost = tmp_path/'lost.csv'
    pd.DataFrame(dict(file_path=[f'{i}.jpg' for i in range(50)])).to_csv(lost, index=False)
    done = run_cli('predict', run, lost, '--out', tmp_path/'lost', *OPTIONS, '--on', 'ray')
    assert refused(done, '50 of 50 images are missing, the first being 0.jpg')

@needs_ray
def test_no_progress_ends_with_a_line(run, catalogue, tmp_path):
    "An actor that stands still, as one that waits for a store that does not answer"
    command = ['predict', run, catalogue, '--out', tmp_path/'out', *OPTIONS, '--on', 'ray', '--actors', 1, '--timeout', 4]
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
    assert refused(predict('--address', 'auto'), '--address, --actors and --no-merge need --on ray')
    assert refused(predict('--shard', '3/2'), "--shard '3/2' should look like 3/16")
    monkeypatch.setitem(sys.modules, 'ray', None)
    assert refused(predict('--on', 'ray'), "pip install 'fashion_fastai[ray]'")
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    assert refused(predict('--shard', '1/2'), "pip install 'fashion_fastai[parquet]'")

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

def test_a_folder_of_parts_that_somebody_else_made_ends_in_one_line(run, garments, tmp_path):
    "Whatever is in job.json, and in a part that this package did not write"
    import pyarrow as pa
    parts,name = tmp_path/'parts','part-00001-of-00001.parquet'
    predict = 'predict',run,garments/'test.csv',*OPTIONS,'--shard','1/1','--out'
    assert run_inprocess(*predict, parts).returncode == 0
    job,table = json.loads((parts/'job.json').read_text()),pa.parquet.read_table(parts/name)
    bad = tmp_path/'bad'
    bad.mkdir()
    def merge(): return run_inprocess('merge', bad, '--out', tmp_path/'out')
    shutil.copy(parts/name, bad)
    for key in job:
        for value in (None, [], 'x', -1, [1], {}):
            if job[key] == value: continue
            (bad/'job.json').write_text(json.dumps({**job, key: value}))
            for done in (merge(), run_inprocess(*predict, bad)): assert done.returncode in (0, 2), (key, value, done)
    (bad/'job.json').write_text(json.dumps({**job, 'precision': []}))
    assert refused(merge(), 'job.json: is not the description of a job: precision is []')
    shutil.copy(parts/'job.json', bad)
    def changed(column, values, kind): return table.set_column(table.column_names.index(column), column, pa.array(values*len(table), kind))
    damaged = [table.replace_schema_metadata({b'job': o}) for o in (b'[]', b'{', b'{"x": 1}', b'\xff')]
    damaged += [table.drop_columns(['category']), changed('row', ['x'], pa.string()), changed('row', [None], pa.int64()), changed('file_path', [None], pa.string())]
    damaged += [changed('category', [o], pa.int32()) for o in (999, -1, None)] + [changed('attributes', [[o]], pa.list_(pa.int32())) for o in (999, -1)]
    for o in damaged:
        pa.parquet.write_table(o, bad/name)
        assert refused(merge(), f'{name}: is no'), o.schema

def test_a_row_of_a_parquet_list_without_a_path_has_no_name(run, garments, tmp_path):
    import pyarrow as pa
    paths = pd.read_csv(garments/'test.csv').file_path.tolist()
    os.symlink(garments, tmp_path/'garments')
    pa.parquet.write_table(pa.table(dict(file_path=[None, *paths])), tmp_path/'list.parquet')
    assert next(Catalogue(tmp_path/'list.parquet').paths()) == ''
    assert predict_rows(run, 'list.parquet', tmp_path/'out', tmp_path).returncode == 0
    assert pd.read_csv(tmp_path/'out'/'merged'/'category.csv', keep_default_na=False).file_path.tolist() == ['', *paths]

def test_whatever_changes_an_answer_changes_the_identity_of_the_model():
    learn = tiny_learner()
    loss,crop,normalize = learn.loss_func,learn.dls.valid.crop,next(o for o in learn.dls.valid.after_batch.fs if isinstance(o, JitterNormalize))
    prior = learn.prior._asdict()
    seen = {model_identity(learn)}
    decisions = Decision(category_offsets=[.1]*10),Decision(temperatures=(2.,1.)),Decision(Threshold(.3))
    for o,name,value in (*((loss, 'decision', o) for o in decisions), (crop, 'size', (40,30)), (normalize, 'mean', normalize.mean + .1),
            (learn, 'prior', type(learn.prior)(**{**prior, 'category_shares': [.1]*10})), (learn, 'vocab', replace(learn.vocab, types=('x',)*15))):
        setattr(o, name, value)
        seen.add(model_identity(learn))
    learn.add_cb(FlipTTA())
    seen.add(model_identity(learn))
    with torch.no_grad(): learn.model[1].category.bias[3] += 1e-6
    seen.add(model_identity(learn))
    assert len(seen) == 10

def test_a_loaded_model_and_an_ensemble_have_an_identity(run):
    learn = load_model(run)
    assert model_identity(learn) == model_identity(load_model(run))
    identities = {model_identity(load_ensemble([run]*n, tta=tta)) for n in (1,2) for tta in (False,True)}
    assert len(identities) == 4 and model_identity(learn) not in identities

def write_images(path, cells, kind=None, **kwargs):
    "A Parquet file with a column `image`"
    pq = pytest.importorskip('pyarrow.parquet', reason='PyArrow is not installed')
    import pyarrow as pa
    pq.write_table(pa.table(dict(image=pa.array(cells, kind or pa.struct([('bytes', pa.binary()), ('path', pa.string())])))), path, **kwargs)
    return path

def bitmaps(n):
    "Images of equal size in bytes, of which nothing but their pixels differs"
    return [dict(bytes=np.random.default_rng(i).bytes(3000), path=None) for i in range(n)]

@pytest.mark.parametrize('sample', [2**28, 2**17])
def test_images_in_another_order_are_another_list(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue_module, '_SAMPLE', sample) # smaller: as of a list of gigabytes
    cells = bitmaps(200)
    other,copied = cells[:80] + cells[120:79:-1] + cells[121:],list(cells)
    identities = [Catalogue(write_images(tmp_path/'images.parquet', o, compression='none', use_dictionary=False)).identity() for o in (cells, other, copied)]
    assert identities[0] == identities[2] != identities[1]

def test_paths_that_join_to_the_same_text_are_different_lists(tmp_path):
    pytest.importorskip('pyarrow.parquet', reason='PyArrow is not installed')
    import pyarrow as pa
    identities = set()
    for paths in (["a','b",'c'], ['a',"b','c"], ['ab','c'], ['a','bc']):
        pa.parquet.write_table(pa.table(dict(file_path=paths)), tmp_path/'list.parquet')
        identities.add(Catalogue(tmp_path/'list.parquet').identity())
    assert len(identities) == 4

def test_parts_have_the_precision_of_the_first_one(run, garments, tmp_path, monkeypatch):
    "Machines on which different precisions are fastest, with a folder in common and with their own"
    monkeypatch.setattr(precision_module, 'choose_precision', lambda times: fastest) # of `auto`
    def predict(k, out, *words): return run_inprocess('predict', run, garments/'test.csv', '--out', tmp_path/out, '--batch-size', 4, '--workers', 1, '--shard', f'{k}/3', *words)
    for i,out in enumerate(('together','apart')):
        for k,fastest in ((1,('bf16',True)), (2,('fp32',False))):
            monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/f'machine-{k}'))
            assert predict(k, out if i == 0 else f'{out}-{k}').returncode == 0
    job = json.loads((tmp_path/'together'/'job.json').read_text())
    assert (job['precision'], job['channels_last']) == ('bf16', True)
    assert refused(predict(3, 'together', '--precision', 'fp32'), 'a job whose --precision was bf16, and is now fp32; choose another folder')
    assert predict(3, 'together', '--precision', 'bf16').returncode == 0
    assert run_inprocess('merge', tmp_path/'together', '--out', tmp_path/'out').returncode == 0
    assert predict(3, 'apart-1').returncode == 0
    shutil.copy(tmp_path/'apart-2'/'part-00002-of-00003.parquet', tmp_path/'apart-1')
    assert refused(run_inprocess('merge', tmp_path/'apart-1', '--out', tmp_path/'out'), 'part-00002-of-00003.parquet: is of a job whose --precision is fp32, but that of job.json is bf16')

def test_of_processes_that_start_at_once_the_first_one_describes_the_job(tmp_path):
    store = Store(tmp_path)
    store.write_first('job.json', 'first')
    store.write_first('job.json', 'second')
    assert store.read('job.json') == b'first' and os.listdir(tmp_path) == ['job.json']
    (tmp_path/'old').mkdir()
    with pytest.MonkeyPatch.context() as patch: # a file system without links
        patch.setattr(os, 'link', lambda a, b: (_ for _ in ()).throw(PermissionError(1, 'Operation not permitted')))
        Store(tmp_path/'old').write_first('job.json', 'first')
    assert os.listdir(tmp_path/'old') == ['job.json']

def predict_rows(run, test, out, cwd):
    "What a list gives as a part, merged: (result, bad images)"
    done = run_inprocess('predict', run, test, '--out', out/'parts', *OPTIONS, '--shard', '1/1', cwd=cwd)
    if done.returncode == 0: done = run_inprocess('merge', out/'parts', '--out', out/'merged', cwd=cwd)
    return done

def test_rows_with_a_path_in_place_of_bytes(run, garments, tmp_path):
    "Some images are in the list, and others beside it; the predictions are those of a list of paths"
    paths = pd.read_csv(garments/'test.csv').file_path.tolist()
    def content(i, o): return (garments.parent/o).read_bytes() if i % 3 == 0 else (None, b'')[i % 2]
    os.symlink(garments, tmp_path/'garments')
    for name,cells in (('all', [dict(bytes=None, path=o) for o in paths]), ('some', [dict(bytes=content(i, o), path=o) for i,o in enumerate(paths)])):
        done = predict_rows(run, f'{name}.parquet', tmp_path/name, write_images(tmp_path/f'{name}.parquet', cells, row_group_size=6).parent)
        assert done.returncode == 0 and done.stderr == '', done.stderr
    assert run_inprocess('predict', run, garments/'test.csv', '--out', tmp_path/'expected', *OPTIONS).returncode == 0
    for name in ('all','some'): assert same_files(tmp_path/name/'merged', tmp_path/'expected', FILES[:3])

def test_half_of_a_list_without_an_image_is_refused_whatever_kind_of_list_it_is(run, garments, tmp_path):
    import pyarrow as pa
    names = sorted(os.listdir(garments/'test'))[:20]
    for n_missing,is_refused in ((10, True), (9, False)):
        folder = tmp_path/str(n_missing)
        (folder/'images').mkdir(parents=True)
        for o in names[n_missing:]: os.link(garments/'test'/o, folder/'images'/o)
        paths = [f'images/{o}' for o in names]
        pd.DataFrame(dict(file_path=paths)).to_csv(folder/'list.csv', index=False)
        pa.parquet.write_table(pa.table(dict(file_path=paths)), folder/'paths.parquet')
        contents = [None]*n_missing + [(folder/o).read_bytes() for o in paths[n_missing:]]
        write_images(folder/'bytes.parquet', contents, pa.binary())
        write_images(folder/'empty.parquet', [o or b'' for o in contents], pa.binary())
        write_images(folder/'structs.parquet', [dict(bytes=o, path=path) for o,path in zip(contents, paths)])
        reason = f'{n_missing} of 20 images are missing, the first being '
        def check(done): assert refused(done, reason) if is_refused else done.returncode == 0 and f'{n_missing} of 20 images' in done.stderr, done
        check(run_inprocess('predict', run, 'list.csv', '--out', folder/'out', *OPTIONS, cwd=folder))
        for o in ('list.csv','paths.parquet','bytes.parquet','empty.parquet','structs.parquet'): check(predict_rows(run, o, folder/f'out-{o}', folder))

def test_a_full_disk_in_a_part_is_one_line_and_loses_nothing(run, catalogue, tmp_path):
    "A limit on the size of files stands in for a full disk"
    limited = ("import resource,signal,sys\nimport matplotlib.font_manager\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))\n"
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
    done = run_cli('predict', run, 's3://shop/lists/test.csv', '--out', 's3://shop/out', *options, '--on', 'ray', '--actors', 2, '--no-merge')
    assert done.returncode == 0, done.stderr
    assert run_cli('merge', 's3://shop/out/parts', '--out', tmp_path/'paths').returncode == 0
    done = run_cli('predict', run, 's3://shop/images', '--out', tmp_path/'bytes', *options, '--on', 'ray', '--actors', 2)
    assert done.returncode == 0, done.stderr
    for o in ('paths','bytes'): assert same_files(tmp_path/o, tmp_path/'expected')
    assert refused(run_cli('predict', run, 's3://shop/none.parquet', '--out', tmp_path/'none', *options, '--on', 'ray'), 's3://shop/none.parquet: no such file')
    assert refused(run_cli('predict', run, 's3://shop/images', '--out', 's3://shop/out', *options, '--on', 'ray'), 'use --no-merge')

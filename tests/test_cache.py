"The cache under hard conditions: killed processes, two at once, a full disk and no permission"
import os,signal,subprocess,sys,time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import pytest
from conftest import SHORT,run_inprocess,spawn_python
import fashion_fastai.data.cache as cache
from fashion_fastai.data.cache import PackedImages
from fashion_fastai.data.caches import list_caches
from fashion_fastai.predict.store import Store
from fashion_fastai.core import InputError
from fashion_fastai.data.image import load_pixels
from fashion_fastai.predict.job import Job,open_job

PACK = """
import sys,time
import fashion_fastai.data.cache as cache
from pathlib import Path
open_quickly = cache.load_pixels
def slow(*args): time.sleep(.004); return open_quickly(*args)
cache.load_pixels,cache._CHUNK,cache._SYNC_SECONDS = slow,8,0
paths = sorted(map(str, Path(sys.argv[1]).rglob('*.jpg')))
packed = cache.pack_images(paths, (40,30), sys.argv[2], workers=2)
print(len(packed))
"""

def packing(garments, folder): return spawn_python('-c', PACK, garments, folder, stderr=subprocess.STDOUT)

def whole(garments, folder):
    "Whether what lies in `folder` is what the files say"
    paths,packed = sorted(map(str, garments.rglob('*.jpg'))),PackedImages.open(folder)
    return packed is not None and all(np.array_equal(packed.pixels[i], load_pixels(o, (40,30))) for i,o in zip(packed.rows_of(paths), paths))

def wait_for(condition, seconds=60):
    "Wait until `condition` holds"
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, 'waited in vain'
        time.sleep(.01)

@pytest.mark.slow
def test_a_killed_process_loses_nothing(garments, tmp_path):
    "SIGKILL in the middle: nothing half-written is taken for whole, no process or lock stays behind, and the next one finishes the work"
    for _ in range(3):
        process = packing(garments, tmp_path/'packed')
        def done(): return [o for o in tmp_path.glob('packed/done-*.npy') if o.stat().st_size > 200 and np.load(o).sum() > 8] # a new file is empty
        wait_for(lambda: done() or process.poll() is not None)
        process.kill()
        process.wait()
        if PackedImages.open(tmp_path/'packed'): break
        assert not (tmp_path/'packed'/'index.json').exists()
    before = sum(np.load(o).sum() for o in done())
    process = packing(garments, tmp_path/'packed')
    out,_ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    if 0 < before < 200: assert f'packing {200-before} images' in out
    assert whole(garments, tmp_path/'packed')

CONTAINER = """
import os,sys,time
os.getpid = lambda: 1 # each container's first process has this number
from pathlib import Path
from fashion_fastai.core import atomic_dir,atomic_write
from fashion_fastai.data.cache import pack_images
garments,folder,k = Path(sys.argv[1]),Path(sys.argv[2]),sys.argv[3]
(folder/f'{k}.here').touch()
while len(list(folder.glob('*.here'))) < 8: time.sleep(.001)
for i in range(30):
    with atomic_write(folder/'shared.csv') as f: f.write_text(k*50_000)
    with atomic_write(folder/f'{k}_{i}.csv') as f: f.write_text(k*1000)
with atomic_dir(folder/f'data{k}') as data: (data/'train.csv').write_text(k)
print(len(pack_images(sorted(garments.rglob('*.jpg')), (40,30), folder/'packed', workers=1)))
"""

def test_eight_containers_share_a_folder(garments, tmp_path):
    "Processes with the same number: no error, and no lost file"
    stale = tmp_path/'.shared.partial-0123.csv'
    stale.write_text('seco')
    os.utime(stale, (time.time() - 2*24*3600,)*2)
    live = tmp_path/'.shared.partial-4567.csv' # on another machine
    live.write_text('seco')
    processes = [spawn_python('-c', CONTAINER, garments, tmp_path, k, stderr=subprocess.STDOUT) for k in range(8)]
    outputs = [o.communicate(timeout=120)[0] for o in processes]
    assert [o.returncode for o in processes] == [0]*8 and [o.splitlines()[-1] for o in outputs] == ['200']*8, outputs
    assert (tmp_path/'shared.csv').read_text() in [str(k)*50_000 for k in range(8)]
    for k in range(8):
        assert (tmp_path/f'data{k}'/'train.csv').read_text() == str(k)
        assert all((tmp_path/f'{k}_{i}.csv').read_text() == str(k)*1000 for i in range(30))
    assert whole(garments, tmp_path/'packed') and [o.name for o in tmp_path.glob('.*')] == [live.name]

def test_of_two_jobs_that_begin_at_once_one_is_refused(tmp_path, monkeypatch):
    "Else the parts of both would lie in one folder, and be joined"
    exists = Store.exists
    def slow(self, name):
        found = exists(self, name)
        time.sleep(.1)
        return found
    monkeypatch.setattr(Store, 'exists', slow)
    def begin(identity):
        about = dict(test='list.csv', rows=3, model='model', batch_size=2, tta=None, precision='fp32', categories=['shirt'], attributes=[])
        try: open_job(Store(tmp_path/'parts'), Job(identity=identity, **about))
        except InputError as e: return str(e)
    with ThreadPoolExecutor(2) as pool: first,second = pool.map(begin, ('a','b'))
    assert (first is None) != (second is None) and 'contains parts of a list with other rows' in (first or second)
    assert [o.name for o in (tmp_path/'parts').iterdir()] == ['job.json']

@pytest.mark.slow
def test_two_processes_at_once(garments, tmp_path):
    both = [packing(garments, tmp_path/'packed') for _ in range(2)]
    outputs = [o.communicate(timeout=120)[0] for o in both]
    assert [o.returncode for o in both] == [0,0], outputs
    assert [o.splitlines()[-1] for o in outputs] == ['200','200']
    assert sum('packing 200 images' in o for o in outputs) == 1
    assert whole(garments, tmp_path/'packed')

def test_pixels_are_on_the_disk_before_they_are_marked_as_done(garments, tmp_path, monkeypatch):
    "Else a power failure could leave marks whose images are black"
    events,sync,add = [],cache._sync,cache._DoneMarks.add
    def synced(path):
        events.append(('sync', int(next(tmp_path.glob('packed/done-*.npy'), None) is not None and np.load(next(tmp_path.glob('packed/done-*.npy'))).sum())))
        sync(path)
    def added(self, rows):
        before = int(self.done.sum())
        add(self, rows)
        events.append(('mark', int(self.done.sum()) - before))
    monkeypatch.setattr(cache, '_sync', synced)
    monkeypatch.setattr(cache._DoneMarks, 'add', added)
    monkeypatch.setattr(cache, '_CHUNK', 32)
    monkeypatch.setattr(cache, '_SYNC_SECONDS', 0)
    cache.pack_images(sorted(garments.rglob('*.jpg')), (40,30), tmp_path/'packed', workers=1, progress=None)
    assert len(events) > 10 and all(before[0] == 'sync' for before,(what,n) in zip(events, events[1:]) if what == 'mark' and n), events
    assert sum(n for what,n in events if what == 'mark') == 200

def test_an_image_whose_reading_failed_once_is_tried_again(garments, tmp_path, monkeypatch):
    "A stale handle of a network drive, say: the file is as it was"
    paths,read = sorted(map(str, garments.rglob('*.jpg'))),cache.load_pixels
    def stale(path, size):
        if path == paths[3]: raise InputError(f'{path}: cannot be read as an image (Stale file handle)')
        return read(path, size)
    monkeypatch.setattr(cache, 'load_pixels', stale)
    bad = cache.pack_images(paths, (40,30), tmp_path/'packed', workers=1)
    assert list(bad.bad) == [paths[3]]
    same = cache.pack_images(paths, (40,30), tmp_path/'packed', workers=1)
    assert list(same.bad) == [paths[3]] and len(list(tmp_path.glob('packed/*-*'))) == 1
    monkeypatch.setattr(cache, 'load_pixels', read)
    assert cache.pack_images(paths, (40,30), tmp_path/'packed', workers=1).bad == {}
    assert whole(garments, tmp_path/'packed') and not bad.pixels[3].any() # who has the old array open keeps it

@pytest.mark.slow
def test_ctrl_c_while_packing(garments, tmp_path):
    process = packing(garments, tmp_path/'packed')
    wait_for(lambda: list(tmp_path.glob('packed/done-*.npy')))
    process.send_signal(signal.SIGINT)
    out,_ = process.communicate(timeout=60)
    assert process.returncode and out.rstrip().endswith('KeyboardInterrupt'), out # the threads say nothing

def test_a_full_disk(garments, tmp_path):
    "The disk space is taken before the first image is decoded"
    code = "import resource,signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n" + PACK
    done = subprocess.run([sys.executable, '-c', code, garments, tmp_path/'packed'], capture_output=True, text=True)
    assert 'InputError' in done.stderr and 'images cannot be packed here' in done.stderr
    assert not list(tmp_path.glob('packed/*-*'))

def test_training_continues_where_no_cache_can_be_written(garments, tmp_path, monkeypatch):
    (tmp_path/'file').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'file'))
    done = run_inprocess('train', garments, '--out', tmp_path/'run', *SHORT, '--epochs', 1)
    assert done.returncode == 0 and 'images cannot be packed here' in done.stderr and 'files are opened again in every epoch' in done.stderr
    done = run_inprocess('train', garments, '--out', tmp_path/'other', *SHORT, '--epochs', 1, '--cache', tmp_path/'file')
    assert done.returncode == 2 and 'images cannot be packed here' in done.stderr

def test_the_cache_is_outside_of_the_data_folder_and_said(garments, tmp_path, cache_home):
    before = sorted(garments.rglob('*'))
    done = run_inprocess('train', garments, '--out', tmp_path/'run', *SHORT, '--epochs', 1)
    assert f'MB in {cache_home}' in done.stdout and sorted(garments.rglob('*')) == before
    done = run_inprocess('predict', tmp_path/'run', garments/'test.csv', '--out', tmp_path/'out', '--cache', tmp_path/'cache')
    assert done.returncode == 0 and 'packing 20 images' in done.stdout
    again = run_inprocess('predict', tmp_path/'run', garments/'test.csv', '--out', tmp_path/'again', '--cache', tmp_path/'cache')
    assert 'packing' not in again.stdout
    for o in ('category','attribute','predictions'): assert (tmp_path/'out'/f'{o}.csv').read_text() == (tmp_path/'again'/f'{o}.csv').read_text()

def test_new_images_are_added_at_the_end(garments, tmp_path):
    "A process that has the array open keeps what it has, and nothing is copied"
    paths = sorted(map(str, garments.rglob('*.jpg')))
    few = cache.pack_images(paths[:50], (40,30), tmp_path/'packed')
    before,file = np.array(few.pixels),next(tmp_path.glob('packed/*.raw'))
    inode = file.stat().st_ino
    cache.pack_images(paths, (40,30), tmp_path/'packed')
    assert file.stat().st_ino == inode and np.array_equal(few.pixels, before) and whole(garments, tmp_path/'packed')

def test_the_oldest_caches_make_way(tmp_path):
    for k,name in enumerate('abc'):
        folder = tmp_path/f'{name}-01234567'/'80x60'
        folder.mkdir(parents=True)
        (folder/'pixels-0.raw').write_bytes(bytes(1000))
        os.utime(folder/'pixels-0.raw', (k, k))
    (tmp_path/'other').mkdir() # of something else
    oldest = tmp_path/'a-01234567'/'80x60'
    cache.remove_oldest_caches(keep=oldest, limit=2500, home=tmp_path)
    assert [o.folder.parent.name[0] for o in list_caches(tmp_path)] == ['c','a'] and (tmp_path/'other').is_dir()

def test_caches_are_listed_and_cleared(garments, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    cache.pack_images(sorted(garments.rglob('*.jpg')), (40,30), cache.cache_folder(garments, (40,30)))
    listed = run_inprocess('cache')
    assert listed.returncode == 0 and '200 images' in listed.stdout and 'garments-' in listed.stdout
    assert run_inprocess('cache', '--clear').returncode == 0 and list_caches() == []
    assert 'no cache' in run_inprocess('cache').stdout

def test_a_cache_of_an_earlier_version_is_replaced(garments, tmp_path):
    "Its array had a header, which would be read as pixels"
    paths,folder = sorted(map(str, garments.rglob('*.jpg'))),tmp_path/'packed'
    packed = cache.pack_images(paths, (40,30), folder)
    np.save(folder/'pixels-0123.npy', packed.pixels)
    index = (folder/'index.json').read_text()
    (folder/'index.json').write_text(index.replace(packed.pixels_file.name, 'pixels-0123.npy'))
    packed.pixels_file.unlink()
    assert PackedImages.open(folder) is None
    cache.pack_images(paths, (40,30), folder)
    assert whole(garments, folder) and not (folder/'pixels-0123.npy').exists()

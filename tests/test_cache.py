"The cache under hard conditions: killed processes, two at once, no room and no permission"
import os,signal,subprocess,sys,time
import numpy as np
from conftest import SHORT,fashion,started
from fashion_fastai.cache import PackedImages
from fashion_fastai.images import pixels_of

PACK = """
import sys,time
import fashion_fastai.images,fashion_fastai.cache as cache
from pathlib import Path
open_slowly = cache.pixels_of
def slow(*args): time.sleep(.004); return open_slowly(*args)
cache.pixels_of = slow # the worker processes are forked, and so slow too
cache._CHUNK = 8
paths = sorted(map(str, Path(sys.argv[1]).rglob('*.jpg')))
packed = cache.pack_images(paths, (40,30), sys.argv[2], workers=2)
print(len(packed))
"""

def packing(garments, folder): return started(sys.executable, '-c', PACK, garments, folder, stderr=subprocess.STDOUT)

def whole(garments, folder):
    "Whether what lies in `folder` is what the files say"
    paths,packed = sorted(map(str, garments.rglob('*.jpg'))),PackedImages.open(folder)
    return packed is not None and all(np.array_equal(packed.pixels[i], pixels_of(o, (40,30))) for i,o in zip(packed.rows_of(paths), paths))

def wait_for(condition, seconds=60):
    "Wait until `condition` holds"
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, 'waited in vain'
        time.sleep(.01)

def test_a_killed_process_loses_nothing(garments, tmp_path):
    "SIGKILL in the middle: nothing half-written is taken for whole, no process or lock stays behind, and the next one finishes the work"
    for _ in range(3):
        process = packing(garments, tmp_path/'packed')
        done = lambda: [o for o in tmp_path.glob('packed/done-*.npy') if np.load(o).sum() > 8]
        wait_for(lambda: done() or process.poll() is not None)
        process.kill()
        process.wait()
        if PackedImages.open(tmp_path/'packed'): break
        assert not list(tmp_path.glob('packed/pixels-*.npy'))
    before = sum(np.load(o).sum() for o in done())
    process = packing(garments, tmp_path/'packed')
    out,_ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    if before: assert f'packing {200-before} images' in out
    assert whole(garments, tmp_path/'packed')

def test_two_processes_at_once(garments, tmp_path):
    both = [packing(garments, tmp_path/'packed') for _ in range(2)]
    outputs = [o.communicate(timeout=120)[0] for o in both]
    assert [o.returncode for o in both] == [0,0], outputs
    assert [o.splitlines()[-1] for o in outputs] == ['200','200']
    assert sum('packing 200 images' in o for o in outputs) == 1
    assert whole(garments, tmp_path/'packed')

def test_ctrl_c_while_packing(garments, tmp_path):
    process = packing(garments, tmp_path/'packed')
    wait_for(lambda: list(tmp_path.glob('packed/done-*.npy')))
    process.send_signal(signal.SIGINT)
    out,_ = process.communicate(timeout=60)
    assert out.count('KeyboardInterrupt') == 1, out # the worker processes say nothing

def test_a_full_disk(garments, tmp_path):
    "The room is taken before the first image is decoded"
    code = "import resource,signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n" + PACK
    done = subprocess.run([sys.executable, '-c', code, garments, tmp_path/'packed'], capture_output=True, text=True)
    assert 'InputError' in done.stderr and 'images cannot be packed here' in done.stderr
    assert not list(tmp_path.glob('packed/*.npy'))

def test_training_goes_on_where_no_cache_can_be_written(garments, tmp_path):
    (tmp_path/'file').touch()
    done = fashion('train', garments, '--out', tmp_path/'run', *SHORT, '--epochs', 1, env={**os.environ, 'XDG_CACHE_HOME': str(tmp_path/'file')})
    assert done.returncode == 0 and 'images cannot be packed here' in done.stderr and 'the files are opened anew' in done.stderr
    done = fashion('train', garments, '--out', tmp_path/'other', *SHORT, '--epochs', 1, '--cache', tmp_path/'file')
    assert done.returncode == 2 and 'images cannot be packed here' in done.stderr

def test_the_cache_is_outside_of_the_data_folder_and_said(garments, tmp_path, cache_home):
    before = sorted(garments.rglob('*'))
    done = fashion('train', garments, '--out', tmp_path/'run', *SHORT, '--epochs', 1)
    assert f'MB in {cache_home}' in done.stdout and sorted(garments.rglob('*')) == before
    done = fashion('predict', tmp_path/'run', garments/'test.csv', '--out', tmp_path/'out', '--cache', tmp_path/'cache')
    assert done.returncode == 0 and 'packing 20 images' in done.stdout
    again = fashion('predict', tmp_path/'run', garments/'test.csv', '--out', tmp_path/'again', '--cache', tmp_path/'cache')
    assert 'packing' not in again.stdout
    for o in ('category','attribute','predictions'): assert (tmp_path/'out'/f'{o}.csv').read_text() == (tmp_path/'again'/f'{o}.csv').read_text()

"Training in several processes: kills, Ctrl-C, silence, errors in one of them, another number of processes, and what is refused"
import json,os,re,signal,socket,subprocess,sys,time
from threading import Thread
from pathlib import Path
import pandas as pd
import pytest,torch
from torch.distributed import HashStore
from conftest import FASHION,SHORT,refused,run_cli,run_inprocess,spawn
from fastai.callback.core import Callback
from fashion_fastai.distributed import group
from fashion_fastai.distributed.processes import GroupLost,Processes
from fashion_fastai.examples import tiny_learner

pytestmark = pytest.mark.slow

KEYS = [*SHORT, '--precision', 'fp32', '--workers', 1]
INGREDIENTS = ['--stem', 'whitened', '--ema', .9, '--mixup', .5, '--dropout', .1, '--epochs', 4]
PATCHED = "import sys\n{}\nfrom fashion_fastai.cli.main import main\nsys.exit(main(sys.argv[1:]))"
TORCHRUN = [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node']

def training(garments, out, *words, n=2):
    return spawn(FASHION, 'train', garments, '--out', out, *KEYS, '--processes', n, *words, stderr=subprocess.PIPE)

def patched(code, n, *words, **kwargs):
    "A command in `n` processes under torchrun, each of which runs `code` first; returns its exit code and the lines of ours on stderr"
    done = run_cli(*words, command=[*TORCHRUN, n, '--no-python', sys.executable, '-W', 'ignore', '-c', PATCHED.format(code)], **kwargs)
    return done,[o for o in done.stderr.splitlines() if o.startswith('fashion: ')]

def same_weights(*runs):
    "Whether two runs end with the same bits (their difference would be too long to print)"
    return len({(o/'model.safetensors').read_bytes() for o in runs}) == 1

def until(process, start):
    while not (line := process.stdout.readline()).startswith(start): assert process.poll() is None and line, process.stderr.read()

def workers(process):
    "The processes that `process` started, by their number"
    pids = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
    names = {o: Path(f'/proc/{o}/comm').read_text().split() for o in pids}
    return {int(name[1]): int(o) for o,name in names.items() if name[0] == 'rank'}

def ended(process, code, reason, seconds=60):
    "Whether a command ends with one line that contains `reason`"
    _,err = process.communicate(timeout=seconds)
    lines = err.splitlines()
    assert process.returncode == code and len(lines) == 1 and re.search(reason, lines[0]), (process.returncode, err)

@pytest.fixture(scope='module')
def two(garments, tmp_path_factory):
    "A run of two processes with every ingredient"
    run = tmp_path_factory.mktemp('runs')/'two'
    done = run_cli('train', garments, '--out', run, *KEYS, *INGREDIENTS, '--processes', 2)
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert done.stdout.count('epoch 1/4') == 1 and ' in 2 processes, ' in done.stdout
    return run

def test_a_run_of_two_processes_is_like_any_other(garments, two, tmp_path):
    assert sorted(o.name for o in two.iterdir()) == ['export.pkl','history.csv','metrics.json','model.json','model.safetensors','settings.ini','stats.json','validation.npz']
    history = pd.read_csv(two/'history.csv')
    assert len(history) == 4 and history.drop(columns=['time','size']).notna().all(axis=None)
    for model in (two, two/'export.pkl'):
        assert run_inprocess('predict', model, garments/'test.csv', '--out', tmp_path/'out').returncode == 0

def test_torchrun_on_two_machines(garments, two, tmp_path):
    "Two agents on this machine, each with a process whose local number is 0; the weights are those of two processes of one agent"
    with socket.socket() as o:
        o.bind(('127.0.0.1', 0))
        port = o.getsockname()[1]
    torchrun = [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--nnodes', 2, '--nproc-per-node', 1, '--rdzv-backend', 'c10d',
        '--rdzv-endpoint', f'127.0.0.1:{port}', '--rdzv-id', 1, '--local-addr', '127.0.0.1', '--no-python']
    words = ['train', garments, '--out', tmp_path/'run', *KEYS, *INGREDIENTS]
    env = {**os.environ, 'GLOO_SOCKET_IFNAME': 'lo', 'OMP_NUM_THREADS': '1'}
    machines = [spawn(*torchrun, FASHION, *words, stderr=subprocess.PIPE, env=env) for _ in range(2)]
    outputs = [o.communicate(timeout=200) for o in machines]
    assert [o.returncode for o in machines] == [0, 0], outputs
    assert sum(out.count('epoch 4/4') for out,_ in outputs) == 1
    assert same_weights(tmp_path/'run', two)

def test_ctrl_c_and_a_kill_are_resumed_bit_for_bit(garments, two, tmp_path):
    run,more = tmp_path/'run',(*INGREDIENTS, '--checkpoint-minutes', 0)
    process = training(garments, run, *more)
    until(process, 'epoch 1/')
    process.send_signal(signal.SIGINT)
    ended(process, 130, rf'^fashion: stopped after .*; {run} is kept, use --resume to continue$')
    process = training(garments, run, *more, '--resume')
    until(process, 'resuming after')
    os.kill(workers(process)[1], signal.SIGKILL)
    ended(process, 2, r'^fashion: process 1 of 2 ended unexpectedly \(killed, or out of memory\?\); use --resume to continue$')
    done = run_cli('train', garments, '--out', run, '--resume', '--processes', 2)
    assert done.returncode == 0, done.stderr
    assert same_weights(run, two)

def test_sigterm_ends_all_as_ctrl_c_does(garments, tmp_path):
    "To the process that started them, as batch systems send it, and to the first process in its last phase"
    run = tmp_path/'run'
    process = training(garments, run, '--epochs', 50)
    until(process, 'epoch 1/')
    process.send_signal(signal.SIGTERM)
    ended(process, 143, rf'^fashion: stopped after .*; {run} is kept, use --resume to continue$')
    code = "import os,signal,fashion_fastai.train.core as train\ndef end(*args): os.kill(os.getpid(), signal.SIGTERM)\ntrain._Training.finish = end"
    done,lines = patched(code, 2, 'train', garments, '--out', tmp_path/'last', *KEYS)
    assert done.returncode and lines == [] and 'Terminated' not in done.stderr, done.stderr
    assert sorted(o.name for o in (tmp_path/'last').iterdir()) == ['checkpoint.pt','history.csv','settings.ini','stats.json']

def test_the_first_process_may_be_killed_and_the_starting_one(garments, tmp_path):
    run = tmp_path/'run'
    process = training(garments, run, '--epochs', 50)
    until(process, 'epoch 2/') # the first epoch's checkpoint is there
    os.kill(workers(process)[0], signal.SIGKILL)
    ended(process, 2, 'ended unexpectedly|not reachable')
    process = training(garments, run, '--resume', '--epochs', 50)
    until(process, 'resuming after')
    own = workers(process)
    process.kill()
    end = time.monotonic() + 60
    while any(Path(f'/proc/{o}').exists() for o in own.values()): # nobody trains on for nobody
        assert time.monotonic() < end
        time.sleep(.2)

def test_a_silent_process_ends_the_others(garments, tmp_path):
    process = training(garments, tmp_path/'run', '--epochs', 50, '--timeout', 5)
    until(process, 'epoch 1/')
    silent = workers(process)[1]
    os.kill(silent, signal.SIGSTOP)
    try: ended(process, 2, r'process 1 (of 2 ended unexpectedly|did not answer for 5 seconds).*--resume', 90)
    finally:
        if Path(f'/proc/{silent}').exists(): os.kill(silent, signal.SIGKILL)

def test_a_run_is_resumed_on_another_number_of_processes(garments, tmp_path):
    "One process and two and four: the same batches, of which none is seen twice or left out"
    run,seen = tmp_path/'run',tmp_path/'seen'
    seen.mkdir()
    code = ("import os\nfrom fashion_fastai.data.loader import FashionDL\ngather = FashionDL.gather\nrank = os.environ.get('RANK', '0')\n"
        f"file = open('{seen}/'+os.environ.get('PART', '')+'-'+rank, 'a')\n"
        "def record(self, indices):\n    if not self.dataset.split_idx: print(*indices.tolist(), file=file, flush=True)\n    return gather(self, indices)\n"
        "FashionDL.gather = record\n"
        "from fashion_fastai.callback.checkpoint import Checkpoint\nafter_batch = Checkpoint.after_batch\n"
        "def stop(self):\n    if self.training and self.learn.train_iter in (3,8) and os.environ.get('STOP'): self.stopping = True\n    after_batch(self)\n"
        "Checkpoint.after_batch = stop")
    def part(name, n, out, *words, **env):
        env = {**os.environ, 'PART': name, **env}
        done,lines = patched(code, n, 'train', garments, '--out', out, *KEYS, '--epochs', 3, *words, env=env)
        assert lines == [] or 'stopped after' in lines[0], lines
        rows = [[list(map(int, line.split())) for line in (seen/f'{name}-{rank}').read_text().splitlines()] for rank in range(n)]
        return [[image for images in zip(*step) for image in images] for step in zip(*rows)]
    whole = part('whole', 1, tmp_path/'whole')
    # batches are made ahead, so those of an interrupted part are cut at the stop
    parts = part('a', 1, run, STOP='1')[:3] + part('b', 2, run, '--resume', STOP='1')[:5] + part('c', 4, run, '--resume')
    assert len(whole) == 15 and parts == whole
    assert json.loads((run/'metrics.json').read_text())['epochs'] == 3

def test_an_error_in_one_process_is_one_line_from_the_first(garments, tmp_path):
    def failing(error): return ("import os,torch\nfrom fashion_fastai.callback.checkpoint import Checkpoint\nafter_batch = Checkpoint.after_batch\nrank = os.environ['RANK']\n"
        f"def fail(self):\n    if rank == '1' and self.learn.train_iter == 3: {error}\n    after_batch(self)\nCheckpoint.after_batch = fail")
    words = ['train', garments, '--out', tmp_path/'run', *KEYS]
    done,lines = patched(failing("raise torch.OutOfMemoryError('CUDA out of memory')"), 2, *words)
    assert lines == ['fashion: out of memory: batches of 32 images of 48x36; try --batch-size 16'] and done.returncode
    done,lines = patched(failing("raise TypeError('a bug')"), 2, *words, '--overwrite')
    assert lines == ['fashion: process 1 ended with TypeError: a bug'] and '\ta bug' in done.stderr # the traceback, in fastai's words
    # of one process alone: DDP adds up the gradients, so that all diverge
    done,lines = patched(failing("next(self.model.parameters()).data.fill_(float('nan'))"), 2, *words, '--overwrite')
    assert len(lines) == 1 and 'training diverged in epoch 1, batch' in lines[0] and done.returncode, done.stderr

def test_a_process_waits_for_its_watching_thread(garments, tmp_path):
    "C++ aborts a process whose thread is in an operation of the store while Python exits"
    code = ("import time\nfrom fashion_fastai.distributed.group import _Watch\nrun = _Watch.run\ndef slow(self):\n    run(self)\n    end = time.monotonic() + 2\n"
        "    while time.monotonic() < end: self.board.store.add('x', 1)\n_Watch.run = slow")
    done,lines = patched(code, 2, 'train', garments, '--out', tmp_path/'run', *KEYS)
    assert done.returncode == 0 and lines == [] and 'terminate called' not in done.stderr, done.stderr

@pytest.mark.parametrize('parts', ['category','attributes','unknown'])
def test_tables_of_one_part_and_unknown_labels(garments, tmp_path, parts):
    data = tmp_path/'garments'
    data.mkdir()
    for o in garments.iterdir():
        if o.is_dir(): (data/o.name).symlink_to(o)
    for name in ('train.csv','val.csv'):
        table = pd.read_csv(garments/name).astype(object)
        if parts == 'category': table = table[['file_path','category_label']]
        if parts == 'attributes': table = table.drop(columns='category_label')
        if parts == 'unknown':
            table.iloc[::3, 1] = None
            table.iloc[::2, 5:] = None
        table.to_csv(data/name, index=False)
    weights = [] if parts == 'unknown' else ['--attribute-weight', 'auto'] # learned weights
    done = run_cli('train', data, '--out', tmp_path/'run', *KEYS, *weights, '--mixup', .5, '--processes', 2)
    assert done.returncode == 0 and done.stderr == '', done.stderr
    history = pd.read_csv(tmp_path/'run'/'history.csv')
    assert len(history) == 2 and history.drop(columns=['time','size']).notna().all(axis=None)
    assert ('accuracy' in history, 'mean_f1' in history) == (parts != 'attributes', parts != 'category')

@pytest.mark.parametrize('error', [GroupLost, group._Terminated])
@pytest.mark.parametrize('event', ['before_batch','after_fit'])
def test_a_loss_of_the_group_passes_through_the_events_of_a_fit(error, event):
    "A signal may come at any moment: fastai adds to an error's text, and fails without one"
    class Lost(Callback): pass
    def lost(self): raise error
    setattr(Lost, event, lost)
    with pytest.raises(error, match='another process of the training has ended'): tiny_learner().fit(1, cbs=Lost())

def test_divergence_ends_all(garments, tmp_path):
    done = run_cli('train', garments, '--out', tmp_path/'run', *KEYS, '--lr', 99, '--epochs', 6, '--checkpoint-minutes', 0, '--processes', 2)
    assert refused(done, 'training diverged in epoch 1, batch') and (tmp_path/'run'/'model.safetensors').is_file()

def test_the_lr_finder_in_two_processes(garments, tmp_path):
    done = run_cli('lr-find', garments, '--recipe', 'demo', '--stages', '32x24:1', '--batch-size', 32, '--precision', 'fp32', '--workers', 1, '--processes', 2)
    assert done.returncode == 0 and done.stdout.count('suggested learning rate') == 1, done.stderr

def test_what_is_refused_before_it_starts(garments, two, tmp_path):
    words = ['train', garments, '--out', tmp_path/'run', *KEYS]
    assert refused(run_cli(*words, '--processes', 3), 'batch_size 32 cannot be divided among 3 processes; choose a multiple of 3, such as 30')
    assert refused(run_cli(*words, '--processes', 'some'), "--processes 'some' is not a whole number from 1 to 1024, or gpu")
    if not torch.cuda.is_available(): assert refused(run_cli(*words, '--processes', 'gpu'), '--processes gpu: there is no GPU here')
    assert not (tmp_path/'run').exists()
    assert refused(run_cli('train', garments, '--out', two, *KEYS, '--processes', 2), 'contains a finished run')
    assert refused(run_cli('train', tmp_path/'none', *words[2:], '--processes', 2), 'none: no such folder')

def test_a_first_process_that_is_not_there(garments, tmp_path):
    env = {**os.environ, 'RANK': '1', 'WORLD_SIZE': '2', 'LOCAL_RANK': '0', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': '9'}
    done = run_cli('train', garments, '--out', tmp_path/'run', *KEYS, '--timeout', 2, env=env)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith('fashion: 127.0.0.1:9: the first process was not found in 2 seconds')

def test_waiting_for_the_lock_of_a_cache_ends(garments, tmp_path):
    from filelock import FileLock
    from fashion_fastai.core import InputError
    from fashion_fastai.data.cache import _acquire
    with FileLock(tmp_path/'lock'):
        with pytest.raises(InputError, match='another process has its lock, and has written nothing for 1 seconds'): _acquire(FileLock(tmp_path/'lock', is_singleton=False), tmp_path, 1)

def test_the_first_process_leaves_last():
    "It may be the host of the store, which others still ask whether all are here"
    store,left = HashStore(),[]
    first = Processes(0, 2, 0, store)
    first.close = lambda: left.append(0)
    thread = Thread(target=first.leave)
    thread.start()
    store.add('arrived 1', 1) # the other one is here, too, but does not know yet of the first
    time.sleep(.2)
    assert left == []
    store.add('gone', 1)
    thread.join(5)
    assert left == [0]

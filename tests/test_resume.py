"What a training survives: kills, Ctrl-C, a full or read-only disk, divergence, another training beside it"
import ctypes,json,random,re,resource,shutil,signal,subprocess,sys,time
import numpy as np,pandas as pd
import pytest,torch
from conftest import FASHION,SHORT,run_cli,run_inprocess,refused,spawn,train
from fashion_fastai import learner
from fashion_fastai.callback.checkpoint import Checkpoint
from fashion_fastai.core import InputError
from fashion_fastai.folders.run import resumed_recipe
from fashion_fastai.predict.model import load_model
from fashion_fastai.recipes.settings import read_recipe,write_recipe

pytestmark = pytest.mark.slow

KEYS = [*SHORT, '--epochs', 6, '--ema', .9, '--stem', 'whitened', '--checkpoint-minutes', 0] # a checkpoint after every batch
FINISHED = ['export.pkl','history.csv','metrics.json','model.json','model.safetensors','settings.ini','stats.json','validation.npz']

def names(folder): return sorted(o.name for o in folder.iterdir())

@pytest.fixture(scope='module')
def whole(garments, tmp_path_factory):
    "A run without interruption"
    return train(garments, tmp_path_factory.mktemp('runs')/'whole', *KEYS)

def training(garments, out, *words): return spawn(FASHION, 'train', garments, '--out', out, *KEYS, *words, stderr=-1)

def assert_nothing_is_half_written(run):
    "After a kill, every file under its final name is complete"
    for o in run.glob('[!.]*'):
        if o.suffix == '.pt': torch.load(o, weights_only=True)
        elif o.suffix == '.json': json.loads(o.read_text())
        elif o.suffix == '.csv': assert pd.read_csv(o).notna().all(axis=None)
    if (run/'model.json').exists() and (run/'model.safetensors').exists() and (run/'metrics.json').exists(): load_model(run)

def assert_the_same(run, whole):
    "Whether an interrupted run ended as the other one"
    assert names(run) == FINISHED # no lock, no checkpoint, no partial file
    assert (run/'model.safetensors').read_bytes() == (whole/'model.safetensors').read_bytes()
    a,b = (pd.read_csv(o/'history.csv').drop(columns='time') for o in (run, whole))
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    a,b = (json.loads((o/'metrics.json').read_text()) for o in (run, whole))
    for o in ('minutes','images_per_second','cache','seconds'): del a[o],b[o]
    assert a == b

def test_a_killed_run_resumes_bit_for_bit(garments, whole, tmp_path):
    run = tmp_path/'run'
    process = training(garments, run)
    while not process.stdout.readline().startswith('epoch 3/'): assert process.poll() is None
    process.kill()
    process.wait()
    assert_nothing_is_half_written(run)
    assert refused(run_inprocess('train', garments, '--out', run, *KEYS), 'contains an unfinished run; use --resume to continue or --overwrite to restart')
    assert refused(run_inprocess('train', garments, '--out', run, '--resume', '--lr', .003), 'the run was started with lr 0.006, not 0.003')
    (run/'.checkpoint.partial-4194305abcde.pt').write_text('the beginning of a file, from a killed process')
    done = run_inprocess('train', garments, '--out', run, '--resume') # without the keys: they are those of the run
    assert done.returncode == 0 and re.search('resuming after [2-6] of 6 epochs', done.stdout), done.stdout + done.stderr
    assert_the_same(run, whole)
    assert refused(run_inprocess('train', garments, '--out', run, '--resume'), 'contains a finished run')

def test_ctrl_c_stops_after_the_batch_and_names_the_way_to_resume(garments, whole, tmp_path):
    run = tmp_path/'run'
    process = training(garments, run)
    while not process.stdout.readline().startswith('epoch 2/'): assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _,err = process.communicate(timeout=60)
    assert process.returncode == 130 and re.fullmatch(rf'fashion: stopped after [2-6] .*; {run} is kept, use --resume to continue\n', err), err
    assert names(run) == ['checkpoint.pt','history.csv','settings.ini','stats.json']
    done = run_inprocess('train', garments, '--out', run, *KEYS, '--resume', '--no-cache') # the source of the images changes nothing
    assert done.returncode == 0 and 'resuming after' in done.stdout, done.stdout + done.stderr
    assert_the_same(run, whole)

def test_ctrl_c_twice_stops_at_once(garments, tmp_path):
    "In the midst of a validation, say: the last checkpoint is kept"
    code = ("import os,signal,sys\nfrom fashion_fastai.model.loss import MeanF1\n"
        "def interrupt(self, learn): [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)]\n"
        "MeanF1.accumulate = interrupt\nfrom fashion_fastai.cli.main import main\nsys.exit(main(sys.argv[1:]))")
    process = spawn(sys.executable, '-W', 'ignore', '-c', code, 'train', garments, '--out', tmp_path/'run', *KEYS, stderr=-1)
    _,err = process.communicate(timeout=120)
    assert process.returncode == 130 and 'stopped at once' in err, err
    assert torch.load(tmp_path/'run'/'checkpoint.pt', weights_only=True)['n_seen'] == 5 # the whole first epoch, but for its validation

def test_sigterm_stops_after_the_batch_too(garments, tmp_path):
    "Also in the background of a shell, where Ctrl-C is ignored"
    run = tmp_path/'run'
    code = ("import os,signal,sys\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nfrom fashion_fastai.callback.checkpoint import Checkpoint\n"
        "def end(self):\n    if self.learn.train_iter == 7:\n"
        "        for _ in range(2): os.kill(os.getpid(), signal.SIGTERM) # `timeout` sends it twice\n"
        "Checkpoint.before_batch = end\nfrom fashion_fastai.cli.main import main\nsys.exit(main(sys.argv[1:]))")
    done = run_cli('train', garments, '--out', run, *KEYS, command=[sys.executable, '-W', 'ignore', '-c', code])
    assert done.returncode == 143 and done.stderr == f'fashion: stopped after 1 epochs and 3 of 5 batches; {run} is kept, use --resume to continue\n', done.stderr
    assert names(run) == ['checkpoint.pt','history.csv','settings.ini','stats.json']

@pytest.mark.soak
def test_twenty_kills_at_random_moments(garments, whole, tmp_path):
    run,rng = tmp_path/'run',random.Random(time.time_ns())
    kills = 0
    while kills < 20:
        process = training(garments, run, '--resume')
        if kills % 4: # while it trains, and not while it imports
            while not process.stdout.readline().startswith(('resuming','xresnet10 at')): assert process.poll() is None, process.stderr.read()
        time.sleep(rng.uniform(0, 1.5 if kills % 4 else 6))
        process.kill()
        if process.wait() == -signal.SIGKILL: kills += 1
        else: break # it was done
        if run.exists(): assert_nothing_is_half_written(run)
    assert kills >= 5
    if not (run/'metrics.json').exists(): assert run_inprocess('train', garments, '--out', run, *KEYS, '--resume').returncode == 0
    assert_the_same(run, whole)

def test_other_labels_are_another_run(garments, run, tmp_path):
    data,out = tmp_path/'garments',tmp_path/'run'
    shutil.copytree(garments, data)
    process = training(data, out)
    while not process.stdout.readline().startswith('epoch 1/'): assert process.poll() is None
    process.kill()
    process.wait()
    lines = (data/'train.csv').read_text().splitlines()
    (data/'train.csv').write_text('\n'.join(lines[:-1]))
    assert refused(run_inprocess('train', data, '--out', out, '--resume'), 'checkpoint.pt: is of a training with')
    state = torch.load(out/'checkpoint.pt', weights_only=True)
    (data/'train.csv').write_text('\n'.join(lines))
    bad = [('format', torch.zeros(3)), ('epoch', -1), ('n_seen', -1), ('train_iter', 'x'), ('first_loss', []), ('seconds', None), ('pct_train', {})]
    for key,value in [*bad, ('about', {**state['about'], 'epochs': torch.zeros(3)})]: # somebody else's
        torch.save({**state, key: value}, out/'checkpoint.pt')
        assert refused(run_inprocess('train', data, '--out', out, '--resume'), 'checkpoint.pt: is '), key
    torch.save(state, out/'checkpoint.pt')
    (out/'checkpoint.pt').write_bytes((out/'checkpoint.pt').read_bytes()[:1000])
    (data/'train.csv').write_text('\n'.join(lines))
    assert refused(run_inprocess('train', data, '--out', out, '--resume'), 'checkpoint.pt: is damaged, or no checkpoint')

def test_a_run_resumes_with_the_images_it_was_begun_with(garments, tmp_path, monkeypatch):
    "One that could not be read can be now, and is a near-duplicate of another, by which the split would be another; or the reverse"
    data,out = tmp_path/'garments',tmp_path/'run'
    shutil.copytree(garments, data)
    (data/'val.csv').unlink()
    bad,other = data/'train'/'00003.jpg',data/'train'/'00004.jpg'
    bad.write_text('no image')
    def stop(self): self.stopping = self.learn.train_iter == 7
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, 'before_batch', stop, raising=False)
        done = run_inprocess('train', data, '--out', out, *KEYS)
    assert done.returncode == 130 and 'is kept, use --resume' in done.stderr, done.stderr
    listed,intact = (out/'bad_images.csv').read_text(),other.read_bytes()
    bad.write_bytes(intact)
    other.write_text('no image')
    done = run_inprocess('train', data, '--out', out, '--resume')
    assert done.returncode == 2 and f'fashion: {other}: ' in done.stderr and 'the run was begun with this image: restore it to resume' in done.stderr, done.stderr
    other.write_bytes(intact)
    done = run_inprocess('train', data, '--out', out, '--resume')
    assert done.returncode == 0 and 'resuming after' in done.stdout and '1 of 160 images could not be read when the run began' in done.stderr, done.stdout + done.stderr
    assert (out/'bad_images.csv').read_text() == listed and 'train/00003.jpg' in listed

def test_two_in_one_folder(garments, tmp_path):
    process = training(garments, tmp_path/'run')
    while not process.stdout.readline().startswith('epoch 1/'): assert process.poll() is None
    process.send_signal(signal.SIGSTOP)
    try: assert refused(run_inprocess('train', garments, '--out', tmp_path/'run', '--resume'), 'another process is training into this folder')
    finally: process.kill()
    process.communicate()

def test_a_training_that_diverges(garments, tmp_path):
    run = tmp_path/'run'
    done = run_inprocess('train', garments, '--out', run, *KEYS, '--lr', 99)
    assert refused(done, 'training diverged in epoch 1, batch') and 'try a lower learning rate' in done.stderr
    assert f'they are in {run}/model.safetensors' in done.stderr and names(run) == ['checkpoint.pt','diverged.json','model.json','model.safetensors','settings.ini','stats.json']
    assert all(torch.isfinite(o).all() for o in load_model(run).model.state_dict().values())
    assert run_inprocess('predict', run, garments/'test.csv', '--out', tmp_path/'out').returncode == 0
    done = run_inprocess('train', garments, '--out', tmp_path/'other', *SHORT, '--lr', 99)
    assert refused(done, 'no weights are kept') and 'such as --resume --lr 33, to start again' in done.stderr

def test_a_fold_that_diverged_may_be_resumed_with_another_rate(tmp_path):
    recipe = read_recipe('demo')
    write_recipe(recipe, tmp_path/'settings.ini')
    lower = read_recipe('demo', lr=.002)
    with pytest.raises(InputError, match='the run was started with lr 0.006, not 0.002'): resumed_recipe(tmp_path, lower)
    (tmp_path/'fold_2').mkdir()
    (tmp_path/'fold_2'/'diverged.json').write_text('{}')
    assert resumed_recipe(tmp_path, lower).lr == .002

def test_a_run_that_diverged_before_its_first_checkpoint_starts_again(garments, tmp_path):
    run = tmp_path/'run'
    assert refused(run_inprocess('train', garments, '--out', run, *SHORT, '--lr', 99), 'no weights are kept')
    assert names(run) == ['diverged.json','settings.ini','stats.json']
    done = run_inprocess('train', garments, '--out', run, '--resume', '--lr', .003)
    assert done.returncode == 0 and 'there is no checkpoint: starting at the beginning' in done.stdout, done.stdout + done.stderr
    assert [o['lr'] for o in json.loads((run/'metrics.json').read_text())['diverged']] == [99]
    whole = train(garments, tmp_path/'whole', *SHORT, '--lr', .003)
    assert (run/'model.safetensors').read_bytes() == (whole/'model.safetensors').read_bytes()

def test_a_damaged_checkpoint_of_a_run_that_diverged_can_be_removed(garments, tmp_path):
    run = tmp_path/'run'
    assert refused(run_inprocess('train', garments, '--out', run, *KEYS, '--lr', 99), 'to go on from there')
    (run/'checkpoint.pt').write_bytes((run/'checkpoint.pt').read_bytes()[:1000])
    again = '--resume', '--lr', .003
    assert refused(run_inprocess('train', garments, '--out', run, *again), 'remove it, and --resume starts at the beginning')
    (run/'checkpoint.pt').unlink()
    done = run_inprocess('train', garments, '--out', run, *again)
    assert done.returncode == 0 and 'starting at the beginning' in done.stdout and names(run) == FINISHED, done.stdout + done.stderr

def test_a_run_that_diverged_goes_on_with_a_lower_learning_rate(garments, tmp_path, monkeypatch):
    run = tmp_path/'run'
    def explode(self):
        if self.training and self.learn.train_iter == 12: self.learn.loss_grad = self.learn.loss = self.loss_grad*float('nan')
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, 'after_loss', explode, raising=False)
        done = run_inprocess('train', garments, '--out', run, *KEYS)
    assert refused(done, 'try a lower learning rate, such as --resume --lr 0.002, to go on from there') and 'in epoch 3, batch 3 of 5' in done.stderr
    assert refused(run_inprocess('train', garments, '--out', run, '--resume', '--wd', .3), 'was started with wd')
    done = run_inprocess('train', garments, '--out', run, '--resume', '--lr', .002)
    assert done.returncode == 0 and 'resuming after 2 of 6 epochs and 2 batches' in done.stdout and names(run) == FINISHED, done.stdout + done.stderr
    metrics = json.loads((run/'metrics.json').read_text())
    assert [o['lr'] for o in metrics['diverged']] == [.006] and 'lr = 0.002' in (run/'settings.ini').read_text()

def test_a_batch_too_large_for_the_memory(garments, tmp_path):
    code = ("import resource,sys,torch,fashion_fastai.train.core\nfrom pathlib import Path\nfrom fashion_fastai.cli.main import main\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0])*resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2_000_000_000,)*2)\nsys.exit(main(sys.argv[1:]))")
    done = run_cli('train', garments, '--out', tmp_path/'run', *SHORT[:2], '--stages', '600x450:1', '--precision', 'fp32', '--batch-size', 64, '--workers', 1, command=[sys.executable, '-W', 'ignore', '-c', code])
    assert refused(done, 'out of memory: batches of 64 images of 600x450; try --batch-size 32')

def test_out_of_memory_in_the_decision_costs_no_weights(garments, tmp_path, monkeypatch):
    "The weights are saved before the rule is chosen, and the run can be finished with another rule"
    run = tmp_path/'run'
    def fail(*args, **kwargs): raise MemoryError
    with monkeypatch.context() as patch:
        patch.setattr(learner, 'decide', fail)
        done = run_inprocess('train', garments, '--out', run, *SHORT)
    advice = '--resume --rule threshold finishes the run with less memory'
    assert refused(done, f'out of memory: the weights are in {run}/model.safetensors; {advice}')
    assert names(run) == ['checkpoint.pt','history.csv','model.json','model.safetensors','settings.ini','stats.json']
    weights = (run/'model.safetensors').read_bytes()
    assert run_inprocess('predict', run, garments/'test.csv', '--out', tmp_path/'out').returncode == 0
    done = run_inprocess('train', garments, '--out', run, '--resume', '--rule', 'threshold')
    assert done.returncode == 0 and 'resuming after 2 of 2 epochs' in done.stdout, done.stdout + done.stderr
    assert names(run) == FINISHED and (run/'model.safetensors').read_bytes() == weights
    assert json.loads((run/'metrics.json').read_text())['decision']['name'] == 'threshold'
    assert 'rule = threshold' in (run/'settings.ini').read_text()

def test_hundreds_of_attributes_fit_in_memory(garments, tmp_path):
    data,rng = tmp_path/'garments',np.random.default_rng(0)
    shutil.copytree(garments, data)
    for split in ('train','val'):
        frame = pd.read_csv(data/f'{split}.csv')
        hot = pd.DataFrame((rng.random((len(frame), 700)) < .01).astype(int), columns=[f'a{i}' for i in range(700)])
        hot.a0 = 1
        pd.concat([frame.iloc[:, :2], hot], axis=1).to_csv(data/f'{split}.csv', index=False)
    limit = dict(limit=(resource.RLIMIT_AS, 9_000_000_000))
    done = run_cli('train', data, '--out', tmp_path/'run', *SHORT, '--workers', 1, **limit)
    assert done.returncode == 0, done.stderr
    assert set(json.loads((tmp_path/'run'/'metrics.json').read_text())['decision']['cross_fitted']) == {'half','threshold','per_label','expected_f1','label_sets'}

FULL = dict(limit=(resource.RLIMIT_FSIZE, 200_000)) # no file may be longer

def test_a_full_disk(garments, run, whole, tmp_path):
    "Exit code 2 and a line; what was there before is still there"
    out = tmp_path/'out'
    done = run_cli('train', garments, '--out', out, *KEYS, **FULL)
    assert refused(done, 'checkpoint.pt: cannot be written (File too large)') and names(out) == ['settings.ini']
    assert run_inprocess('train', garments, '--out', out, *KEYS, '--resume').returncode == 0 # there is space again
    assert_the_same(out, whole)
    out,test_list = tmp_path/'submission',tmp_path/'list.csv'
    test_list.write_text('file_path\n' + f"{garments/'test'/'00001.jpg'}\n"*3000)
    assert run_inprocess('predict', run, garments/'test.csv', '--out', out).returncode == 0
    before = {o: o.read_bytes() for o in out.iterdir()}
    assert refused(run_cli('predict', run, test_list, '--out', out, **FULL), 'cannot be written (File too large)')
    assert {o: o.read_bytes() for o in out.iterdir()} == before
    assert refused(run_cli('demo', '--n', 100, '--out', tmp_path/'demo', limit=(resource.RLIMIT_FSIZE, 1000)), 'File too large')

def test_folders_that_cannot_be_written(garments, run, tmp_path):
    (tmp_path/'file').touch()
    assert refused(run_inprocess('train', garments, '--out', tmp_path/'file'/'run', *SHORT), 'cannot be written')
    assert refused(run_inprocess('predict', run, garments/'test.csv', '--out', tmp_path/'file'/'out'), 'cannot be written')

@pytest.mark.skipif(sys.platform != 'linux', reason='how root is bound by permissions is known here for Linux alone')
def test_a_read_only_folder(garments, run, tmp_path):
    "As one who may read everything and write nothing"
    closed = tmp_path/'closed'
    closed.mkdir()
    (closed/'category.csv').write_text('file_path,category_label\n')
    closed.chmod(0o555)
    def drop(): ctypes.CDLL(None).prctl(24, 1) # CAP_DAC_OVERRIDE, by which root writes everywhere, for the program that is started next
    def run_real(*words): return subprocess.run(list(map(str, [FASHION, *words])), capture_output=True, text=True, preexec_fn=drop)
    assert refused(run_real('predict', run, garments/'test.csv', '--out', closed), 'cannot be written (Permission denied)')
    assert refused(run_real('train', garments, '--out', closed/'run', *SHORT, '--no-cache'), 'cannot be written (Permission denied)')
    assert names(closed) == ['category.csv'] and (closed/'category.csv').read_text() == 'file_path,category_label\n'

"What only a GPU can show: `make gpu`. Without one, the same tests run on the CPU as far as that goes, so that they are known to work"
import os,sys
import numpy as np,pandas as pd
import pytest,torch
from fastai.callback.core import Callback
from fastai.callback.training import GradientAccumulation
from conftest import run_cli,run_inprocess
from fastai.torch_core import set_seed
import fashion_fastai.callback.checkpoint as checkpoints
from fashion_fastai.data import cache
from fashion_fastai.core import OPTIMIZERS
from fashion_fastai.data.labels import read_labels
from fashion_fastai.data.loader import compute_device,pack_table
from fashion_fastai.interpret.core import grad_cam
from fashion_fastai.build import recipe_learner
from fashion_fastai.model.precision import compile_if_faster,supported_precisions,time_precisions
from fashion_fastai.recipes.settings import read_recipe
from fashion_fastai.examples import quiet
from fashion_fastai.train.timing import time_training

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8') # without it, matrix products of a GPU cannot be deterministic
ON_GPU = torch.cuda.is_available()
PRECISIONS = ('fp32','bf16','fp16') if ON_GPU else ('fp32','bf16')
LONG = [] if ON_GPU else pytest.mark.soak # what needs no GPU is not for every day
STAGES = '32x24:1 48x36:1'

@pytest.fixture(scope='module')
def table(garments): return read_labels(garments)

@pytest.fixture(scope='module')
def packed(table, tmp_path_factory): return pack_table(table, (48,36), tmp_path_factory.mktemp('packed'), workers=1)

def made(table, packed, **settings):
    "A learner of a recipe, always with the same weights"
    recipe = read_recipe('demo', **{'stages': STAGES, 'batch_size': 32, 'workers': 0, 'precision': 'fp32', **settings})
    return quiet(recipe_learner(table, recipe, packed)),recipe

class Checkpoint(checkpoints.Checkpoint): # of this name, by which the learner finds it
    "A checkpoint that behaves as if Ctrl-C were pressed in batch `n`"
    n = None
    def after_batch(self):
        if self.training and self.learn.train_iter == self.n: self.stopping = True
        super().after_batch()

class ScalerStates(Callback):
    "Keeps the state of the gradient scaler of fp16 after each epoch"
    def __init__(self, states): self.states = states
    def after_epoch(self): self.states.append(self.learn.scaler.state_dict())

@pytest.fixture
def deterministic():
    "Kernels of a GPU add in the same order each time"
    before = torch.are_deterministic_algorithms_enabled(),torch.backends.cudnn.deterministic
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.deterministic = before[1]

def fitted(table, packed, file, stop=None, resume=False, **settings):
    "A learner after a fit, which may stop early or be a resumed one"
    learn,recipe = made(table, packed, **settings)
    checkpoint = Checkpoint(file, resume, minutes=60)
    checkpoint.n = stop
    learn.states = [] # of the gradient scaler, which is gone after the fit
    cbs = [ScalerStates(learn.states)] if learn.model.precision == 'fp16' else []
    try: learn.fit_recipe(recipe, cbs=[checkpoint, *cbs])
    except KeyboardInterrupt: assert stop
    return learn

def weights(learn): return torch.cat([o.detach().float().cpu().flatten() for o in learn.model.parameters()])

def test_the_device(): assert compute_device().type == ('cuda' if ON_GPU else 'cpu')

@pytest.mark.parametrize('optimizer,precision', [*(pytest.param(o, 'fp32', marks=[] if o in ('muon','ranger','larc') else LONG) for o in OPTIMIZERS),
    *(('adamw', o) for o in PRECISIONS[1:])])
def test_training_and_resume(optimizer, precision, table, packed, tmp_path, deterministic):
    settings = dict(optimizer=optimizer, precision=precision, ema=.9, lr=.002)
    whole = fitted(table, packed, tmp_path/'whole.pt', **settings)
    fitted(table, packed, tmp_path/'part.pt', stop=7, **settings)
    resumed = fitted(table, packed, tmp_path/'part.pt', resume=True, **settings)
    a,b = weights(whole),weights(resumed)
    assert whole.model.precision == precision and torch.isfinite(a).all()
    assert torch.equal(a, b)
    if precision == 'fp16': assert whole.states[-1] == resumed.states[-1] and whole.states[-1]['scale'] > 0

@pytest.mark.parametrize('precision', PRECISIONS)
def test_recorded_steps_give_the_same_weights(precision, table, packed, deterministic):
    "Through two sizes, averaged weights and gradients that are accumulated over two batches; fp16 has an autocast of fastai's, and is not recorded"
    is_recorded = ON_GPU and precision != 'fp16'
    def trained(records, cbs=()):
        learn,recipe = made(table, packed, precision=precision, ema=.9)
        if not records: learn.model.graphs = None
        learn.fit_recipe(recipe, cbs=list(cbs))
        graphs = learn.model.graphs
        assert (graphs is not None and graphs.is_on and graphs.passes is not None) == (records and is_recorded)
        return weights(learn)
    assert torch.equal(trained(True), trained(False))
    accumulated = [trained(o, [GradientAccumulation(64)]) for o in (True,False)]
    assert torch.equal(*accumulated)

def test_images_in_the_memory_of_the_gpu_and_in_pinned_memory(table, packed, monkeypatch):
    "Both give the same batches; on a CPU there is one way"
    def batches():
        learn,_ = made(table, pack_table(table, (48,36), packed.folder.parent.parent, workers=1))
        dl = learn.dls.train
        set_seed(3)
        found = [tuple(o.cpu() for o in batch) for batch in dl]
        return found,dl.packed.tensor(dl.device).is_cuda
    resident,is_resident = batches()
    monkeypatch.setattr(cache, 'fits_on_gpu', lambda *args: False)
    pinned,is_pinned_resident = batches()
    assert is_resident == ON_GPU and not is_pinned_resident
    for a,b in zip(resident, pinned):
        assert len(a) == 3 and all(torch.allclose(x.float(), y.float(), atol=1e-5) for x,y in zip(a, b))

@pytest.mark.parametrize('precision', PRECISIONS)
def test_memory_layouts_agree(precision, table, packed):
    learn,_ = made(table, packed)
    images = torch.randn(16, 3, 48, 36, device=learn.dls.device)
    learn.model.eval()
    with torch.inference_mode():
        expected = learn.model.to_precision('fp32', False)(images)
        for channels_last in (False,True):
            found = learn.model.to_precision(precision, channels_last)(images)
            for a,b in zip(found, expected): assert (a - b).abs().max() < (1e-3 if precision == 'fp32' else .1)

def test_precisions_are_timed(table, packed):
    learn,_ = made(table, packed)
    times = time_precisions(learn.model, (32,24), 16, max_seconds=1)
    assert {o for o,_ in times} == set(supported_precisions(compute_device())) and all(o > 0 for o in times.values())

@pytest.mark.skipif(not ON_GPU, reason='compiling on a CPU needs a C++ compiler, and takes minutes')
def test_compile(table, packed, capsys):
    learn,_ = made(table, packed)
    used = compile_if_faster(learn.model, (48,36), 32)
    assert 'does not work' not in capsys.readouterr().out
    learn.fit(1)
    assert used in (True,False) and torch.isfinite(weights(learn)).all()

def test_sizes_tta_and_heat_maps(table, packed):
    learn,recipe = made(table, packed, tta='yes', mixup=.5, cutmix=.5, ema=.9)
    learn.fit_recipe(recipe)
    assert learn.history.table['size'].tolist() == ['32x24','48x36']
    with learn.no_bar(): a,b = learn.get_preds()[0][0],learn.tta()[0][0]
    assert torch.allclose(a, b, atol=1e-4) # once is enough
    heat = grad_cam(learn, table.images[0])
    assert torch.isfinite(torch.as_tensor(heat)).all()
    learn.tune_decision('threshold')
    assert learn.predict(table.images[0]).category in learn.vocab.categories

def test_the_commands(garments, tmp_path):
    "One process per GPU, by NCCL; prediction gives what the learner gives"
    n = 'gpu' if ON_GPU else 1
    done = run_cli('train', garments, '--out', tmp_path/'run', '--recipe', 'demo', '--stages', STAGES, '--batch-size', 32, '--processes', n, '--report', 'no')
    assert done.returncode == 0 and f"on {'cuda' if ON_GPU else 'cpu'}" in done.stdout and ' in 1 processes' in done.stdout, done.stderr
    assert run_inprocess('predict', tmp_path/'run', garments/'test.csv', '--out', tmp_path/'a', '--precision', 'fp32').returncode == 0
    assert run_inprocess('predict', tmp_path/'run', garments/'test.csv', '--out', tmp_path/'b', '--precision', 'fp32', '--cache', tmp_path/'cache').returncode == 0
    a,b = (pd.read_csv(tmp_path/o/'predictions.csv') for o in 'ab')
    assert np.allclose(a.iloc[:,2:], b.iloc[:,2:], atol=1e-3)

# NCCL wants a GPU for each process; gloo does not, and reduces what is on a GPU, too
SHARED_GPU = '''
import os,sys,torch.distributed as dist
from fashion_fastai.cli.main import main
os.environ['LOCAL_RANK'] = '0' # both use the first GPU
init = dist.init_process_group
dist.init_process_group = lambda kind, **kwargs: init('gloo', **kwargs)
sys.exit(main(sys.argv[1:]))
'''

def test_two_processes_share_a_gpu(garments, tmp_path):
    "Both train on it, and give the losses of one process on the same batches, within the noise of their crops"
    (tmp_path/'main.py').write_text(SHARED_GPU)
    words = [garments, '--recipe', 'demo', '--stages', STAGES, '--batch-size', 32, '--report', 'no', '--precision', 'fp32']
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', 2, tmp_path/'main.py']
    done = run_cli('train', *words, '--out', tmp_path/'two', command=torchrun)
    assert done.returncode == 0 and f"on {'cuda' if ON_GPU else 'cpu'}" in done.stdout and ' in 2 processes' in done.stdout, done.stderr
    assert run_inprocess('train', *words, '--out', tmp_path/'one').returncode == 0
    two,one = (pd.read_csv(tmp_path/o/'history.csv') for o in ('two','one'))
    assert np.allclose(two.train_loss, one.train_loss, rtol=.15) and np.allclose(two.valid_loss, one.valid_loss, rtol=.15)

def test_timing_leaves_the_memory_of_the_gpu_as_it_was(table):
    def held(): return torch.cuda.memory_reserved() if ON_GPU else 0
    recipe = read_recipe('demo', precision='fp32', batch_size=64)
    time_training(table, recipe, (32,24), .05) # keeps the work spaces of its libraries
    before = held()
    for _ in range(2): assert time_training(table, recipe, (64,48), .05).train > 0
    assert held() <= before + 2**21

def test_a_planned_training(garments, tmp_path):
    length = ['--minutes', 1] if ON_GPU else ['--minutes', .1, '--arch', 'xresnet10', '--width', .25]
    done = run_inprocess('train', garments, '--out', tmp_path/'run', '--recipe', 'gpu', *length, '--epochs', 1, '--report', 'no')
    assert done.returncode == 0 and 'plan: xresnet' in done.stdout, done.stderr
    assert 'minutes = 0' in (tmp_path/'run'/'settings.ini').read_text()

@pytest.mark.skipif(not ON_GPU, reason='memory of a GPU')
def test_out_of_memory_is_one_line(garments, tmp_path):
    words = ['--recipe', 'demo', '--arch', 'xresnet50', '--stages', '400x300:1', '--batch-size', 128, '--precision', 'fp32']
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2e9/torch.cuda.get_device_properties(0).total_memory)
    try: done = run_inprocess('train', garments, '--out', tmp_path/'run', *words)
    finally: torch.cuda.set_per_process_memory_fraction(1.)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith('fashion: out of memory: batches of 128 images'), done.stderr

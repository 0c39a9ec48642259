"Curves in TensorBoard and in Weights & Biases, where these are installed (pip install '.[log]'),and a clear error where they are not"
import importlib.util,os
import pytest
from conftest import SHORT,run_cli,run_inprocess,refused

def needs(package): return pytest.mark.skipif(not importlib.util.find_spec(package), reason=f"{package} is not installed here (pip install '.[log]')")

@needs('tensorboard')
def test_tensorboard(garments, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    done = run_inprocess('train', garments, '--out', tmp_path/'run', *SHORT, '--log', 'tensorboard')
    assert done.returncode == 0, done.stderr
    curves = EventAccumulator(str(tmp_path/'run'/'tensorboard')).Reload()
    assert {'train_loss','valid_loss','category_loss','attribute_loss','accuracy','mean_f1','lr_0'} <= set(curves.Tags()['scalars'])
    assert len(curves.Scalars('accuracy')) == 2
    assert run_inprocess('train', garments, '--out', tmp_path/'run', *SHORT, '--epochs', 1, '--overwrite').returncode == 0
    assert not (tmp_path/'run'/'tensorboard').exists() # old curves beside a new run would mislead

@needs('wandb')
def test_wandb_offline(garments, tmp_path):
    done = run_cli('train', garments, '--out', tmp_path/'run', *SHORT, '--log', 'wandb', env={**os.environ, 'WANDB_MODE': 'offline', 'WANDB_SILENT': 'true'})
    assert done.returncode == 0, done.stderr
    assert list((tmp_path/'run'/'wandb').glob('offline-run-*/*.wandb')) and (tmp_path/'run'/'metrics.json').is_file()

@needs('wandb')
def test_wandb_without_an_account_is_a_clear_error(garments, tmp_path):
    env = {k: v for k,v in os.environ.items() if not k.startswith('WANDB')}
    done = run_cli('train', garments, '--out', tmp_path/'run', *SHORT, '--log', 'wandb', env={**env, 'HOME': str(tmp_path), 'WANDB_SILENT': 'true', 'WANDB_BASE_URL': 'http://127.0.0.1:9'})
    assert done.returncode == 2 and 'WANDB_MODE=offline' in done.stderr and 'Traceback' not in done.stderr, done.stderr
    assert not (tmp_path/'run'/'settings.ini').exists()

@pytest.mark.parametrize('log', ['tensorboard','wandb'])
def test_a_package_that_is_missing(log, garments, tmp_path):
    if importlib.util.find_spec(log): pytest.skip(f'{log} is installed here')
    assert refused(run_inprocess('train', garments, '--out', tmp_path/'run', *SHORT, '--log', log), f"log = {log} needs {log}, which is not installed here: pip install 'fashion_fastai[log]'")
    assert not (tmp_path/'run').exists()

def test_an_unknown_tracker(garments, tmp_path):
    assert refused(run_inprocess('train', garments, '--out', tmp_path/'run', *SHORT, '--log', 'paper'), 'log is paper, but should be no, tensorboard or wandb')

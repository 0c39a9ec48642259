"What is different on Windows and macOS, with the names of the system replaced: locks, signals, pipes, links, and the device"
import importlib,os,select,signal,warnings
from types import SimpleNamespace
import pytest,torch
from fashion_fastai import core
from fashion_fastai.cli import main as command
from fashion_fastai.core import InputError,locked
from fashion_fastai.data import loader
from fashion_fastai.data.loader import compute_device
from fashion_fastai.model.multitask import multi_task_model
from fashion_fastai.model.precision import set_precision

class Windows:
    "The module os with the name that it has on Windows"
    name = 'nt'
    def __getattr__(self, name): return getattr(os, name)

def test_a_lock_file_is_removed_by_whoever_can(tmp_path, monkeypatch):
    with locked(tmp_path/'run'/'.lock', 'busy'): assert (tmp_path/'run'/'.lock').exists()
    assert not (tmp_path/'run').exists()
    monkeypatch.setattr(core, 'os', Windows()) # where an open file cannot be removed
    with locked(tmp_path/'.lock', 'busy'):
        with pytest.raises(InputError, match='busy'):
            with locked(tmp_path/'.lock', 'busy'): pass
    with locked(tmp_path/'.lock', 'busy'): pass # it can be locked again

def test_signals_that_windows_lacks_are_left_out(monkeypatch):
    there = {o: getattr(signal, o) for o in dir(signal) if o != 'SIGHUP'}
    source = importlib.util.find_spec('fashion_fastai.core').loader.get_source('fashion_fastai.core')
    line = next(o for o in source.splitlines() if o.startswith('STOP_SIGNALS'))
    names = dict(signal=SimpleNamespace(**there))
    exec(line, names)
    assert names['STOP_SIGNALS'] == [signal.SIGINT, signal.SIGTERM]

def test_a_closed_pipe_is_noticed_without_poll(monkeypatch):
    monkeypatch.delattr(select, 'poll')
    assert command._is_unread(BrokenPipeError()) and not command._is_unread(ValueError())

class TestDevice:
    @pytest.fixture(autouse=True)
    def fresh(self): loader._warn_of_mps.cache_clear()

    def test_the_variable_chooses(self, monkeypatch):
        monkeypatch.setattr(loader, 'default_device', lambda: torch.device('cuda', 0))
        assert compute_device() == torch.device('cuda', 0)
        monkeypatch.setenv('FASHION_DEVICE', 'cpu')
        assert compute_device() == torch.device('cpu')

    @pytest.mark.parametrize('asked,reason', [('tpu', "is 'tpu', but should be cpu, cuda, mps"), ('mps', 'is mps, which this machine'), ('cuda', 'is cuda, which this machine')])
    def test_what_is_not_here_is_refused(self, asked, reason, monkeypatch):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
        monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: False)
        monkeypatch.setenv('FASHION_DEVICE', asked)
        with pytest.raises(InputError, match=reason): compute_device()

    def test_mps_is_used_only_when_asked_for_and_warned_of_once(self, monkeypatch):
        monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)
        monkeypatch.setattr(loader, 'default_device', lambda: torch.device('mps'))
        assert compute_device() == torch.device('cpu') # fastai's own choice on a Mac
        monkeypatch.setenv('FASHION_DEVICE', 'mps')
        with pytest.warns(UserWarning, match='untested'): assert compute_device() == torch.device('mps')
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            compute_device()

    def test_precision_is_not_timed_on_mps(self, tmp_path, monkeypatch):
        model = multi_task_model(2, 2, 'xresnet10', width=.25)
        monkeypatch.setattr('fashion_fastai.model.precision.next', lambda o: SimpleNamespace(device=torch.device('mps')), raising=False)
        monkeypatch.setattr('fashion_fastai.model.precision.time_precisions', lambda *args, **kwargs: pytest.fail('timed'))
        assert set_precision(model, 'auto', (32,24), cache_dir=tmp_path).precision == 'fp32'

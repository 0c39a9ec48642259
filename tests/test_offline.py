"No network at run time, and nothing pretrained"
import subprocess,sys
import torch
from conftest import SHORT
from fashion_fastai.model.multitask import ARCHS,multi_task_model
from fastai.torch_core import set_seed

GUARD = """
import socket,sys
def refuse(*args, **kwargs): raise SystemExit('the network was used')
connect = socket.socket.connect
def guarded(self, address):
    return connect(self, address) if self.family == socket.AF_UNIX else refuse() # processes of one machine talk by these
socket.socket.connect = socket.socket.connect_ex = guarded
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refuse
from fashion_fastai.cli.main import main
sys.exit(main(sys.argv[1:]))
"""

def guarded(*words, code=GUARD):
    "Run a command line in a process that exits when it uses the network"
    return subprocess.run([sys.executable, '-c', code, *map(str, words)], capture_output=True, text=True, timeout=300)

def test_the_whole_loop_without_a_network(garments, tmp_path):
    assert guarded('train', garments, '--out', tmp_path/'run', *SHORT, '--workers', 1).returncode == 0
    done = guarded('predict', tmp_path/'run', garments/'test.csv', '--out', tmp_path/'out')
    assert done.returncode == 0, done.stderr

def test_the_guard_guards():
    for ask in ("__import__('urllib.request').request.urlopen('http://127.0.0.1:9')", "socket.create_connection(('127.0.0.1', 9))", "socket.socket().connect(('127.0.0.1', 9))"):
        code = GUARD.split('from fashion_fastai')[0] + ask
        assert 'the network was used' in guarded(code=code).stderr

def test_weights_are_random():
    def weights(arch, seed):
        set_seed(seed)
        return torch.cat([p.flatten() for p in multi_task_model(10, 15, arch, .5).parameters() if p.ndim > 1])
    for arch in ('xresnet10', 'xresnet18', 'xresnet50', 'xse_resnext50'):
        a,b = weights(arch, 1),weights(arch, 2)
        assert torch.equal(a, weights(arch, 1)) and (a == b).float().mean() < .01 # some weights start at zero whatever the seed

def test_every_body_can_be_built():
    "On the device `meta`, where tensors have shapes but no values"
    for arch in ARCHS:
        with torch.device('meta'): model = multi_task_model(3, 4, arch, .5).eval()
        assert model(torch.zeros(1,3,64,48, device='meta'))[1].shape == (1,4), arch

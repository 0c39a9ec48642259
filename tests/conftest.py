"What the tests share: a small drawn catalogue, a run trained on it by the command line, and the command itself"
import io,os,signal,subprocess,sys
from contextlib import contextmanager,redirect_stderr,redirect_stdout
from pathlib import Path
from types import SimpleNamespace
import pytest
from fashion_fastai.cli import main
from fashion_fastai.data.synthetic import draw_garments

SHORT = ['--recipe', 'demo', '--stages', '32x24:1 48x36:1', '--batch-size', '32', '--report', 'no']

def fashion(*words, cwd=None, command=(Path(sys.executable).with_name('fashion'),), **kwargs):
    "Run the installed `fashion` command, or another `command` in its place, as a user would, with its output captured"
    return subprocess.run(list(map(str, [*command, *words])), cwd=cwd, capture_output=True, text=True, timeout=300, **kwargs)

def refused(done, why):
    "Whether a command was refused with exit code 2 and one line on stderr that says `why`"
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1 and why in done.stderr, done.stderr
    return True

def started(*words, **kwargs):
    "A process that runs beside the test and can be interrupted, even where the tests themselves, in a shell's background, are deaf to Ctrl-C"
    return subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **kwargs)

@contextmanager
def chdir(path):
    "Work in folder `path` for a while (Python 3.11 has this in contextlib)"
    before = os.getcwd()
    os.chdir(path)
    try: yield
    finally: os.chdir(before)

def here(*words, cwd=None):
    "The same in this process, which spares the imports; for commands that are refused"
    out,err = io.StringIO(),io.StringIO()
    with chdir(cwd or '.'),redirect_stdout(out),redirect_stderr(err): code = main(list(map(str, words)))
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())

@pytest.fixture(scope='session', autouse=True)
def cache_home(tmp_path_factory):
    "A folder for caches in place of the user's own, here and in the processes that are started"
    folder = tmp_path_factory.mktemp('cache')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(folder))
        yield folder/'fashion_fastai'

@pytest.fixture(scope='session')
def garments(tmp_path_factory):
    "A folder of 200 drawn garments in the competition's layout"
    return draw_garments(tmp_path_factory.mktemp('data')/'garments', n=200)

@pytest.fixture(scope='session')
def run(garments, tmp_path_factory):
    "The folder of a short run"
    out = tmp_path_factory.mktemp('runs')/'short'
    done = fashion('train', garments, '--out', out, *SHORT)
    assert done.returncode == 0, done.stderr
    return out

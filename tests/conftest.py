"Shared by the tests: a small synthetic catalogue, a run trained on it, and the command line as a process or inside this one"
import io,re,signal,subprocess,sys
from contextlib import redirect_stderr,redirect_stdout,suppress
from pathlib import Path
from types import SimpleNamespace
import forked,pytest
from fashion_fastai import core
from fashion_fastai.cli.main import main
from fashion_fastai.data.synthetic import draw_garments
from fashion_fastai.examples import working_folder

FASHION = Path(sys.executable).with_name('fashion')
SHORT = ['--recipe', 'demo', '--stages', '32x24:1 48x36:1', '--batch-size', '32', '--report', 'no']

# Windows has none of these: files of tests that use them are left out there
_POSIX = r'\bimport[\w, ]* ?(pty|resource|fcntl)\b|preexec_fn|os\.(fork|mkfifo|setsid|kill)\b|/proc/|SIGKILL|SIGHUP|symlink|chmod|run_cli|spawn'

def needs_posix(path):
    "Whether a file of tests needs processes, signals, links or permissions of POSIX"
    return re.search(_POSIX, path.read_text(encoding='utf-8')) is not None

collect_ignore = [o.name for o in Path(__file__).parent.glob('test_*.py') if sys.platform == 'win32' and needs_posix(o)]

def run_cli(*words, command=(FASHION,), **kwargs):
    "Run the installed `fashion` command, or another `command` of Python, in a process, with its output captured"
    return forked.run([*command, *words], **kwargs)

def run_python(*words, **kwargs):
    "Run Python in a process of its own, which has imported nothing"
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, timeout=300, **kwargs)

def run_inprocess(*words, cwd=None):
    "The same in this process, without the seconds for imports"
    out,err = io.StringIO(),io.StringIO()
    with working_folder(cwd or '.'),redirect_stdout(out),redirect_stderr(err): code = main(list(map(str, words)))
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())

def refused(done, reason):
    "Whether a command ended with exit code 2 and one line on stderr that contains `reason`"
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1 and reason in done.stderr, done.stderr
    return True

def spawn(*words, **kwargs):
    "A process beside the test"
    return forked.Forked(words, stdout=subprocess.PIPE, **kwargs)

def spawn_python(*words, **kwargs):
    "The same with a Python of its own, which Ctrl-C interrupts even where the tests run in a shell's background, which ignores it"
    def restore(): signal.signal(signal.SIGINT, signal.SIG_DFL)
    command = [sys.executable, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=restore, **kwargs)

@pytest.fixture(scope='session', autouse=True)
def cache_home(tmp_path_factory):
    "A folder for caches in place of the user's own, here and in processes that are started; it shares the examples, which take minutes to train"
    folder,examples = tmp_path_factory.mktemp('cache'),core.cache_home()/'examples'
    with suppress(OSError): # Windows allows no links
        examples.mkdir(parents=True, exist_ok=True)
        (folder/'fashion_fastai').mkdir()
        (folder/'fashion_fastai'/'examples').symlink_to(examples, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(folder))
        yield folder/'fashion_fastai'

@pytest.fixture(scope='session')
def garments(tmp_path_factory):
    "A data folder of 200 synthetic garments"
    return draw_garments(tmp_path_factory.mktemp('data')/'garments', n=200)

def train(garments, out, *options):
    "Train into folder `out`, which is returned"
    done = run_inprocess('train', garments, '--out', out, *options)
    assert done.returncode == 0, done.stderr
    return out

@pytest.fixture(scope='session')
def run(garments, tmp_path_factory):
    "A short run; not to be modified"
    return train(garments, tmp_path_factory.mktemp('runs')/'short', *SHORT)

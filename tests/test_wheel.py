"What is installed works from any folder: source archive, wheel and editable install, and the image's environment without PyTorch"
import http.client,json,os,pty,re,shutil,signal,socket,subprocess,sys,venv
from pathlib import Path
from zipfile import ZipFile
import pytest
import pandas as pd
from filelock import FileLock
from conftest import run_inprocess
from fashion_fastai.tutorials import TUTORIALS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {k: v for k,v in os.environ.items() if k != 'PYTHONPATH'}

def build(source, out, *options):
    "The wheel of a source folder; nothing is fetched"
    command = [sys.executable, '-m', 'build', '--no-isolation', *options, '--outdir', out, source]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    wheel, = out.glob('*.whl')
    return wheel

@pytest.fixture(scope='module')
def source(tmp_path_factory):
    "A copy of the checkout"
    ignored = shutil.ignore_patterns('.git', '.venv', '__pycache__', '*.egg-info', 'build', 'dist', 'fashion_demo', 'runs', '_proc')
    return shutil.copytree(ROOT, tmp_path_factory.mktemp('checkout')/'source', symlinks=True, ignore=ignored)

@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory):
    "A wheel that is built from the source archive, so that both are whole"
    return build(source, tmp_path_factory.mktemp('dist'))

def in_folder(folder, home, *words):
    "Run a command of the environment `home` in `folder`"
    command = [home/'bin'/words[0], *map(str, words[1:])]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)

def install(home, *words):
    "Install by pip, from this machine alone"
    done = in_folder(home, home, 'python', '-m', 'pip', 'install', '-q', '--no-deps', '--no-index', *words)
    assert done.returncode == 0, done.stderr

@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "An environment beside that of the tests: its packages are seen, but what is installed here comes first"
    home = tmp_path_factory.mktemp('environment')
    venv.create(home, with_pip=True)
    site, = (home/'lib').glob('python*/site-packages')
    (site/'tests.pth').write_text('\n'.join(o for o in sys.path if o.endswith('-packages')))
    return home

def where_it_is(folder, home):
    done = in_folder(folder, home, 'python', '-c', 'import fashion_fastai; print(fashion_fastai.__file__)')
    return Path(done.stdout.strip())

def test_the_wheel_works_in_an_empty_folder(run, garments, home, wheel, tmp_path):
    install(home, wheel)
    assert where_it_is(tmp_path, home).is_relative_to(home)
    assert 'lr-find' in in_folder(tmp_path, home, 'fashion', '--help').stdout
    assert '48x36' in in_folder(tmp_path, home, 'fashion', 'train', '--help').stdout # the shipped settings.ini came along
    done = in_folder(tmp_path, home, 'fashion', 'predict', run, garments/'test.csv', '--out', 'out')
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(tmp_path/'out'/'category.csv')) == 20
    for name in TUTORIALS: # from the wheel, with the records that a notebook reads
        done = in_folder(tmp_path, home, 'fashion', 'tutorial', name, '--no-open')
        assert done.returncode == 0 and (tmp_path/f'{name}.ipynb').is_file(), done.stderr
    where = in_folder(tmp_path, home, 'python', '-c', 'from fashion_fastai.tutorials import records_folder as o; print(o())').stdout.strip()
    assert Path(where).is_relative_to(home) and sorted(o.name for o in Path(where).iterdir()) == ['study.csv','what_helps.csv','what_helps.json']

def test_an_editable_install_reads_the_settings_of_its_checkout(home, source, tmp_path):
    install(home, '--no-build-isolation', '-e', source)
    assert where_it_is(tmp_path, home).is_relative_to(source)
    (source/'settings.ini').write_text((ROOT/'settings.ini').read_text() + '[changed]\n')
    help_text = in_folder(tmp_path, home, 'fashion', 'train', '--help').stdout
    assert '48x36' in help_text and 'changed' in help_text

def test_the_wheel_has_all_files_and_requirements_of_the_package(wheel):
    with ZipFile(wheel) as file:
        found = {o for o in file.namelist() if '.dist-info/' not in o}
        metadata = next(file.read(o).decode() for o in file.namelist() if o.endswith('/METADATA'))
        entry_points = next(file.read(o).decode() for o in file.namelist() if o.endswith('/entry_points.txt'))
        assert file.read('fashion_fastai/settings.ini') == (ROOT/'settings.ini').read_bytes()
    files = [o for o in (ROOT/'fashion_fastai').rglob('*') if o.is_file() and '__pycache__' not in o.parts]
    added = ['settings.ini', *(f'notebooks/{o}.ipynb' for o in TUTORIALS), 'records/what_helps.json', 'records/what_helps.csv', 'records/study.csv']
    assert found == {o.relative_to(ROOT).as_posix() for o in files} | {f'fashion_fastai/{o}' for o in added}
    required = [o for o in re.findall('^Requires-Dist: (.*)', metadata, re.M) if 'extra ==' not in o]
    def normal(o): return sorted(re.split(r'(?=[<>=])', o, maxsplit=1)[1].split(',')),re.split('[<>=]', o)[0]
    assert sorted(map(normal, required)) == sorted(map(normal, (ROOT/'requirements.txt').read_text().splitlines()))
    assert 'fashion_fastai._modidx:d' in entry_points and 'fashion_fastai.cli.main:main' in entry_points

def test_no_file_of_the_project_is_a_link():
    "The builder of the image does not follow one to outside of a copied folder, and Git on Windows writes a text file"
    files = [o for name in ('fashion_fastai','nbs','tests','bench','docs','docker') for o in (ROOT/name).rglob('*')]
    assert [o for o in [*ROOT.glob('[!.]*'), *files] if o.is_symlink()] == []

def copied_files():
    "The paths that docker/Dockerfile copies into the image -> where to"
    lines = re.findall('^COPY (.*)', (ROOT/'docker'/'Dockerfile').read_text(), re.M)
    return {o: Path(line.split()[-1]) for line in lines for o in line.split()[:-1]}

@pytest.fixture(scope='module')
def serving(source, tmp_path_factory):
    "The package as the image has it: built from the copied files alone, beside an environment of docker/requirements.txt, which is kept"
    home,requirements = Path(sys.prefix)/'serving',ROOT/'docker'/'requirements.txt'
    ready = home/'requirements.txt'
    with FileLock(f'{home}.lock'):
        if not ready.is_file() or ready.read_bytes() != requirements.read_bytes():
            venv.create(home, with_pip=True, clear=True)
            done = in_folder(home, home, 'python', '-m', 'pip', 'install', '-q', '-r', requirements)
            if done.returncode and not os.environ.get('CI'): pytest.skip(f'nothing can be installed: {done.stderr}')
            assert done.returncode == 0, done.stderr
            ready.write_bytes(requirements.read_bytes())
    image = tmp_path_factory.mktemp('image')
    for name,target in copied_files().items():
        target = image/target.relative_to('/')
        if (source/name).is_dir(): shutil.copytree(source/name, target)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source/name, target)
    site = image/'site'
    install(home, '--target', site, build(image/'src', image/'dist', '--wheel'))
    return site

@pytest.fixture(scope='module')
def model(run, tmp_path_factory):
    "An exported model"
    out = tmp_path_factory.mktemp('exported')/'garments'
    done = run_inprocess('export', run, '--out', out, '--onnx')
    assert done.returncode == 0, done.stderr
    return out

def serving_command(site, *words): return dict(args=[site/'bin'/'fashion', *map(str, words)], cwd=site.parent, env={**ENVIRONMENT, 'PYTHONPATH': str(site)})

def test_the_image_gets_what_the_package_needs_and_nothing_more(serving, wheel):
    installed = {o.relative_to(serving).as_posix() for o in (serving/'fashion_fastai').rglob('*') if o.is_file() and '__pycache__' not in o.parts}
    with ZipFile(wheel) as file: assert installed == {o for o in file.namelist() if o.startswith('fashion_fastai/')}
    lines = [o for o in (ROOT/'.dockerignore').read_text().splitlines() if o and o[0] != '#']
    assert lines[0] == '*' and {o[1:] for o in lines if o[0] == '!'} == set(copied_files())

def test_predict_works_in_the_image_also_at_a_terminal(serving, model, garments, tmp_path):
    command = serving_command(serving, 'predict', model, garments/'test.csv', '--engine', 'onnx', '--out', tmp_path/'out')
    done = subprocess.run(**command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    terminal,stdout = pty.openpty()
    done = subprocess.run(**{**command, 'args': [*command['args'][:-1], str(tmp_path/'terminal')]}, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=300)
    os.close(terminal),os.close(stdout)
    assert done.returncode == 0, done.stderr
    for o in ('out','terminal'): assert len(pd.read_csv(tmp_path/o/'category.csv')) == 20

def test_the_api_works_in_the_image(serving, model, garments):
    with socket.create_server(('127.0.0.1', 0)) as o: port = o.getsockname()[1]
    command = serving_command(serving, 'serve', model, '--api', '--engine', 'onnx', '--port', port)
    with subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            line = process.stdout.readline()
            assert f'is at http://127.0.0.1:{port}/docs' in line, line + process.stdout.read()
            connection = http.client.HTTPConnection('127.0.0.1', port, timeout=120)
            image = (garments/'test'/'00003.jpg').read_bytes()
            body = b'--edge\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n' + image + b'\r\n--edge--\r\n'
            connection.request('POST', '/predict', body, {'Content-Type': 'multipart/form-data; boundary=edge'})
            response = connection.getresponse()
            predictions = json.loads(response.read())
            assert response.status == 200 and 'category' in str(predictions), predictions
        finally: process.send_signal(signal.SIGTERM)

def test_torch_is_not_in_the_image(serving):
    assert in_folder(serving, Path(sys.prefix)/'serving', 'python', '-c', 'import torch').returncode == 1

"Folders that somebody else made: whatever is in them, no code runs, nothing is written elsewhere, and errors are one line"
import configparser,json,os,pickle,random,resource,shutil,signal
from contextlib import contextmanager
from pathlib import Path
import numpy as np
import pytest
from safetensors.numpy import load_file,save
from conftest import SHORT,refused,run_inprocess,train
from fashion_fastai.core import InputError,read_regular
from fashion_fastai.data.image import open_image
from fashion_fastai.predict.ensemble import save_ensemble
from fashion_fastai.predict.model import load_folder,load_model
from fashion_fastai.interpret.core import FashionInterpretation
from fashion_fastai.recipes.recipe import parse_stages
from fashion_fastai.folders.run import read_run
from fashion_fastai.predict.onnx import OnnxModel
from fashion_fastai.folders.model import file_hash,read_config

class Canary:
    "A pickle that writes a file when it is loaded"
    def __init__(self, path): self.path = str(path)
    def __reduce__(self): return os.mkdir, (self.path,)

def edit_json(path, change):
    "Let `change` modify the content of a JSON file"
    content = json.loads(path.read_text(encoding='utf-8'))
    changed = change(content)
    path.unlink() # it may be a link to the original
    path.write_text(json.dumps(content if changed is None else changed), encoding='utf-8')

def copy(source, target):
    "A copy of a folder, whose files are links to the originals"
    return Path(shutil.copytree(source, target, copy_function=os.link))

def list_files(folder): return sorted(str(o) for o in Path(folder).rglob('*'))

@pytest.fixture(scope='module')
def ensemble(run, tmp_path_factory):
    "Two runs that predict together; not to be modified"
    out = tmp_path_factory.mktemp('folds')/'folds'
    for o in ('fold_1','fold_2'): shutil.copytree(run, out/o)
    learn = load_model(run)
    save_ensemble(out, ['fold_1','fold_2'], learn.loss_func.decision)
    for o in ('metrics.json','settings.ini','validation.npz','history.csv'): shutil.copy(run/o, out/o)
    folds = [dict(fold=k, accuracy=.5, mean_f1=.5, n_valid=10, minutes=1.) for k in (1, 2)]
    spread = {o: dict(mean=.5, sd=.01) for o in ('accuracy','mean_f1')}
    edit_json(out/'metrics.json', lambda o: {**o, 'folds': folds, 'spread': spread})
    return out

@pytest.fixture(scope='module')
def exported(run, tmp_path_factory):
    "A model folder; not to be modified"
    out = tmp_path_factory.mktemp('exported')/'model'
    assert run_inprocess('export', run, '--out', out, '--card').returncode == 0
    return out

@pytest.fixture(scope='module')
def images(garments, tmp_path_factory):
    "A folder of three images"
    out = tmp_path_factory.mktemp('images')
    for o in sorted((garments/'test').iterdir())[:3]: shutil.copy(o, out)
    return out

# ---- what was found

@pytest.mark.parametrize('member', ['w.bin','../elsewhere','/absolute','fold_1/../../elsewhere','','.','a\0b',['fold_1'],None])
def test_members_of_an_ensemble_are_folders_beside_it(ensemble, run, garments, tmp_path, member):
    for place in ('stranger','elsewhere'):
        (tmp_path/place).mkdir()
        (tmp_path/place/'w.bin').write_bytes(pickle.dumps(Canary(tmp_path/'ran')))
    if member == '/absolute': member = str(tmp_path/'elsewhere'/'w.bin')
    if member == '../elsewhere': member = '../elsewhere/w.bin'
    (tmp_path/'stranger'/'ensemble.json').write_text(json.dumps(dict(format=1, members=[member], rule=None, temperatures=[1.,1.])))
    done = run_inprocess('predict', tmp_path/'stranger', garments/'test.csv', '--out', tmp_path/'out')
    assert refused(done, 'ensemble.json: is not the description of an ensemble: members is' if member != 'w.bin' else 'w.bin')
    assert not (tmp_path/'ran').exists()

def test_a_pickle_is_loaded_where_it_is_named(run, garments, tmp_path):
    (tmp_path/'w.bin').write_bytes(pickle.dumps(Canary(tmp_path/'ran')))
    assert refused(run_inprocess('predict', tmp_path, garments/'test.csv', '--out', tmp_path/'out'), 'there is no config.json')
    assert not (tmp_path/'ran').exists()
    done = run_inprocess('predict', run/'export.pkl', garments/'test.csv', '--out', tmp_path/'out')
    assert done.returncode == 0 and 'a pickle can run any code' in done.stderr

def test_a_hub_folder_is_copied_into_its_target_alone(exported, tmp_path):
    pytest.importorskip('huggingface_hub')
    from fashion_fastai.export.package import HubModel
    stranger = copy(exported, tmp_path/'stranger')
    (tmp_path/'evil').write_bytes(b'evil')
    (stranger/'Makefile').write_bytes(b'evil')
    edit_json(stranger/'config.json', lambda o: {**o, 'files': {**o['files'], 'Makefile': file_hash(b'evil')}})
    HubModel.from_pretrained(stranger).save_pretrained(tmp_path/'saved') # none of the files that this package writes
    assert sorted(o.name for o in (tmp_path/'saved').iterdir()) == ['README.md','config.json','model.safetensors']
    for name in ('../evil', str(tmp_path/'evil'), '..', 'a/b'):
        edit_json(stranger/'config.json', lambda o: {**o, 'files': {**o['files'], name: file_hash(b'evil')}})
        with pytest.raises(InputError, match='config.json: is not a model.s description: files is'): HubModel.from_pretrained(stranger)

@pytest.mark.parametrize('key,value,reason', [
    ('size', [10**9,10**9], 'size is [1000000000, 1000000000], but should be height and width, from 1 to 2048'),
    ('size', ['48',36], 'size is'), ('constant', [], 'constant is []'), ('temperatures', [0,1], 'temperatures is [0, 1]'),
    ('architecture', dict(arch='xresnet10', width=10**9), 'architecture is'), ('rule', 'half', "rule is 'half'"),
    ('rule', dict(name='LabelSets', sets=[[1]], log_weights=[0]), 'rule is'), ('rule', dict(name='exec'), "rule 'exec' is not known"),
    ('categories', 'dress', "categories is 'dress'"), ('categories', ['x']*10, 'but should be a list of names, each once'),
    ('files', [], 'files is []'), ('versions', None, 'versions is None'), ('mean', [.5]*2, 'mean is')])
def test_a_value_of_a_wrong_type_is_named_when_the_description_is_read(run, tmp_path, key, value, reason):
    stranger = copy(run, tmp_path/'stranger')
    edit_json(stranger/'model.json', lambda o: {**o, key: value})
    with pytest.raises(InputError) as e: load_folder(stranger)
    assert reason in str(e.value) and str(e.value).startswith(f'{stranger/"model.json"}: ')

def test_labels_that_do_not_fit_the_weights_cost_no_memory(run, tmp_path):
    "A million categories would be a matrix of a gigabyte"
    stranger = copy(run, tmp_path/'stranger')
    def change(o): return {**o, 'categories': [f'c{k}' for k in range(10**6)], 'constant': {**o['constant'], 'category_shares': [0]*10**6}}
    edit_json(stranger/'model.json', change)
    before = peak_memory()
    with pytest.raises(InputError, match='size mismatch'): load_folder(stranger)
    assert peak_memory() - before < 700_000 # kB: the names themselves

@pytest.mark.parametrize('value', [np.nan, np.inf, 1e30])
def test_weights_without_a_meaning_end_in_one_line(run, garments, tmp_path, value):
    stranger = copy(run, tmp_path/'stranger')
    weights = load_file(stranger/'model.safetensors')
    content = save({k: np.full_like(o, value) if k.endswith('weight') else o for k,o in weights.items()})
    (stranger/'model.safetensors').unlink()
    (stranger/'model.safetensors').write_bytes(content)
    edit_json(stranger/'model.json', lambda o: {**o, 'weights_sha256': file_hash(content), 'rule': dict(name='ExpectedF1')})
    done = run_inprocess('predict', stranger, garments/'test.csv', '--out', tmp_path/'out', '--precision', 'fp32')
    assert refused(done, 'NaN') and not (tmp_path/'out'/'predictions.csv').exists()

def test_a_link_to_a_device_is_not_read(run, tmp_path):
    for name in ('model.safetensors','model.json','metrics.json','settings.ini','history.csv','validation.npz'):
        stranger = copy(run, tmp_path/name)
        (stranger/name).unlink()
        (stranger/name).symlink_to('/dev/zero')
        found = read_run(stranger)
        assert found.problem == ('' if name[0] in 'mv' and name != 'metrics.json' else f'damaged: {name} cannot be read: it is not a regular file')
        with pytest.raises(InputError):
            if name.startswith('model'): load_folder(stranger)
            elif name == 'validation.npz': FashionInterpretation.load(stranger/name)
            else: read_regular(stranger/name)

def test_a_pipe_is_no_image(tmp_path):
    "A report opens the images that validation.npz names"
    os.mkfifo(tmp_path/'pipe.jpg')
    with limit_seconds(60),pytest.raises(InputError, match='not a regular file'): open_image(tmp_path/'pipe.jpg')

def test_a_small_file_of_predictions_does_not_fill_the_memory(run, tmp_path):
    found = dict(np.load(run/'validation.npz'))
    np.savez_compressed(tmp_path/'bomb.npz', **{**found, 'category_logits': np.zeros((6000, 5000), np.float32)}) # 120 MB of zeros
    assert (tmp_path/'bomb.npz').stat().st_size < 10**6
    with pytest.raises(InputError, match='unpacks to 12'): FashionInterpretation.load(tmp_path/'bomb.npz')
    np.savez(tmp_path/'pickle.npz', **{**found, 'images': np.array([Canary(tmp_path/'ran')], object)})
    with pytest.raises(InputError, match='cannot be read'): FashionInterpretation.load(tmp_path/'pickle.npz')
    assert not (tmp_path/'ran').exists()

def test_scores_of_wrong_types_are_a_problem_of_the_run(run, exported, tmp_path):
    for i,(key,value) in enumerate([('accuracy', 'high'), ('categories', []), ('minutes', {}), ('data', 1), ('folds', [{}]), ('decision', 'half'), ('plan', []),
            ('plan', {'changes': 1}), ('garments', {'accuracy': {'single': .5}}), ('folds', 1)]):
        stranger = copy(run, tmp_path/f'runs/{i}')
        edit_json(stranger/'metrics.json', lambda o: {**o, key: value})
        assert refused(run_inprocess('export', stranger, '--out', tmp_path/f'out{i}', '--card'), 'metrics.json: is not the scores of a run')
    done = run_inprocess('runs', tmp_path/'runs')
    assert done.returncode == 0 and done.stdout.count('damaged: metrics.json is not the scores of a run') == 10, done.stdout
    (stranger/'settings.ini').unlink()
    (stranger/'settings.ini').write_text('[demo]\nrecipe = a\nrun = b\nproblem = c\nstages = 1\n')
    assert run_inprocess('runs', tmp_path/'runs').returncode == 0

def test_epochs_without_end_are_no_stage():
    for text in ('32x24:' + '9'*400, '32x24:' + '9'*5000):
        with pytest.raises(InputError, match='should look like'): parse_stages(text)

# ---- the model card

def test_names_on_the_card_are_shown_as_they_are(run, tmp_path):
    from fashion_fastai.export.card import model_card
    config,metrics = (json.loads((run/o).read_text()) for o in ('model.json','metrics.json'))
    bad = '<script>alert(1)</script>','a\nb\n## heading','[link](javascript:x)','`code` | $x$','snow_white _x_'
    names = [*bad, *config['attributes'][len(bad):]]
    scores = dict(zip(names, metrics['attributes'].values()))
    groups = [dict(name='<b>\ncolour', members=[0,1], exactly_one=True)]
    card = model_card('<i>title\n# x', dict(config, attributes=names, groups=groups), dict(metrics, attributes=scores))
    assert '<script>' not in card and '&lt;script&gt;alert(1)&lt;/script&gt; |' in card and '# &lt;i&gt;title \\# x\n' in card
    assert '\n## heading' not in card and '| a b \\#\\# heading |' in card and '(&lt;b&gt; colour): ' in card
    assert '\\[link\\](javascript:x) |' in card and '| \\`code\\` \\| \\$x\\$ |' in card and '| snow_white \\_x\\_ |' in card

def test_the_card_describes_the_data_of_the_training_alone(run, garments, tmp_path):
    "Not those of a folder with the same relative path, nor those with other labels; a name may be a category and an attribute"
    metrics = json.loads((run/'metrics.json').read_text())
    assert metrics['data'] == str(garments.resolve())
    def card(change, name, **files):
        stranger = copy(run, tmp_path/name)
        edit_json(stranger/'metrics.json', change)
        for o,changed in files.items(): edit_json(stranger/f'{o}.json', changed)
        done = run_inprocess('export', stranger, '--out', tmp_path/f'{name}_model', '--card', cwd=garments.parent)
        assert done.returncode == 0, done.stderr
        return (tmp_path/f'{name}_model'/'README.md').read_text(),done.stderr
    assert 'not at hand' in card(lambda o: {**o, 'data': garments.name}, 'relative')[0]
    other = Path(shutil.copytree(garments, tmp_path/'other'))
    for name in ('train.csv','val.csv'): (other/name).write_text((other/name).read_text().replace(',red,', ',crimson,', 1))
    text,said = card(lambda o: {**o, 'data': str(other)}, 'labels')
    assert 'not at hand' in text and 'its labels are not those of the model' in said
    # a category is called as an attribute is
    for name in ('train.csv','val.csv'): (other/name).write_text((other/name).read_text().replace(',crimson,', ',dress,', 1))
    def rename(o): return {**o, 'attributes': ['dress', *o['attributes'][1:]]}
    def rescore(o): return {**o, 'data': str(other), 'attributes': {'dress' if k == 'red' else k: v for k,v in o['attributes'].items()}}
    assert card(rescore, 'twice', model=rename)[0].count('| dress |') == 2

# ---- fuzz

@contextmanager
def limit_seconds(n):
    "Fail if the block takes longer, as it would at a pipe that nobody writes into"
    def stop(*args): raise TimeoutError(f'more than {n} seconds')
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(n)
    try: yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

DEEP = json.loads('['*500 + ']'*500)
def hostile_values(guard):
    "Values that no honest file has in most places"
    return [None, True, -1, 0, 2, 10**12, -1e308, 10**400, float('nan'), float('inf'), '', 'x', '1', '..', '../guard/evil', str(guard/'evil'), 'w.bin', 'a\0b',
        'a\nb', '<script>alert(1)</script>', '\ud800', '$a^_$', 'x'*100_000, '=1+1', [], {}, [[]], DEEP, [None], [1e308]*3, [-1]*15, [[1]*15]*3, ['x']*10, ['../guard/evil'],
        list(range(1000)), [10**9,10**9], dict(name='exec'), dict(a=DEEP), {'../guard/evil': 'x'}, dict(name='ExpectedF1', allow_empty=True), [dict(name='x', members=[0,99], exactly_one=True)]]

def places(value, path=()):
    "The path of every value in a JSON file; of long lists, some"
    yield path
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    for key,o in items if len(items) <= 16 else [*items[:3], items[-1]]: yield from places(o, (*path, key))

def set_value(content, path, value):
    "Replace the value at `path`; ... removes it"
    if not path: return value
    *parents,key = path
    inner = content
    for o in parents: inner = inner[o]
    if value is not ...: inner[key] = value
    else: del inner[key]
    return content

def replaced(path, rng, guard):
    "A file becomes something else: a pickle, a link, a pipe, a folder, endless, damaged"
    raw = path.read_bytes()
    path.unlink()
    what = rng.choice(['pickle','device','outside','pipe','folder','sparse','empty','cut','byte','nested','missing','loop'])
    if what == 'pickle': path.write_bytes(pickle.dumps(Canary(guard/'ran')))
    if what == 'device': path.symlink_to('/dev/zero')
    if what == 'outside': path.symlink_to(guard/'secret')
    if what == 'pipe': os.mkfifo(path)
    if what == 'folder': path.mkdir()
    if what == 'sparse':
        with path.open('wb') as f: f.truncate(10**13)
    if what == 'empty': path.touch()
    if what == 'cut': path.write_bytes(raw[:rng.randrange(1, len(raw) + 1)])
    if what == 'byte':
        at = rng.randrange(len(raw))
        path.write_bytes(raw[:at] + rng.randbytes(8) + raw[at+8:])
    if what == 'nested': path.write_text('['*10**6)
    if what == 'loop': path.symlink_to(path.name)
    return what

def changed_json(path, rng, guard):
    "One value becomes hostile, or is missing"
    content = json.loads(path.read_text(encoding='utf-8'))
    place,value = rng.choice(list(places(content))),rng.choice([..., *hostile_values(guard)])
    if not place and value is ...: value = {}
    content = json.dumps(set_value(content, place, value))
    path.unlink()
    path.write_text(content)
    return f'{place} = {str(value)[:60]}'

def changed_ini(path, rng, guard):
    "One setting becomes hostile, or is missing, or is there twice"
    ini = configparser.RawConfigParser()
    ini.read_string(path.read_text())
    name, = ini.sections()
    lines = [f'[{name}]', *(f'{k} = {o}' for k,o in ini[name].items())]
    i,value = rng.randrange(len(lines)),rng.choice(['', '-1', 'nan', 'inf', '9'*400, '9'*5000, 'x', '../guard/evil', str(guard/'evil'), 'a\0b', 'yes', '%(x)s', '[', '1\n  2', '\x1b[2J', '٣'])
    key = lines[i].split(' = ')[0]
    lines[i:i+1] = rng.choice([[], [lines[i]]*2, [f'{key} = {value}'], [f'{value} = 1'], [f'[{value}]'], [value]])
    path.unlink()
    path.write_text('\n'.join(lines), encoding='utf-8')
    return f'line {i}: {lines[i:i+1]}'[:100]

def changed_csv(path, rng, guard):
    "One cell becomes hostile"
    rows = [o.split(',') for o in path.read_text().splitlines()]
    row = rng.choice(rows)
    row[rng.randrange(len(row))] = rng.choice(['', 'nan', 'inf', '-1e308', '1e308', 'x', '9'*400, '"', 'a\0b', '../guard/evil', '0', 'x'*10**5, '1,2'])
    path.unlink()
    path.write_text('\n'.join(map(','.join, rows)))
    return 'a cell'

def changed_npz(path, rng, guard):
    "One array becomes hostile, or is missing"
    arrays = dict(np.load(path))
    key = rng.choice(list(arrays))
    o = arrays[key]
    paths = np.array([rng.choice(['/dev/zero', str(guard/'pipe'), str(guard/'secret'), 'a\0b', '../guard/evil', '/'])]*len(o)) if o.ndim else o
    options = [..., np.array([Canary(guard/'ran')], object), np.zeros(0), np.zeros((0,10**9)), np.zeros((3000,3000), np.float32), np.array(1.), o.astype(str), paths, o[:1],
        np.concatenate([o, o]), o[None], np.array(['x'*10**5]*len(o)), np.array(['[[1,2,3]]']), np.array(['['*10**5])]
    if o.dtype.kind in 'fi': options += [np.full_like(o, k) for k in (-1, 0, 1, 100)]
    if o.dtype.kind == 'f': options += [np.full_like(o, k) for k in (np.nan, np.inf, 1e30)]
    value = options[rng.randrange(len(options))]
    arrays = {k: v for k,v in {**arrays, key: value}.items() if v is not ...}
    path.unlink()
    np.savez_compressed(path, **arrays)
    return f'{key} = {str(value)[:60]}'

CHANGES = {'.json': changed_json, '.ini': changed_ini, '.csv': changed_csv, '.npz': changed_npz}

def change_one(folder, rng, guard):
    "Make one file of a folder hostile; returns which and how"
    path = rng.choice([o for o in sorted(folder.rglob('*')) if o.is_file() and o.name not in ('export.pkl','report.html','README.md')])
    change = CHANGES.get(path.suffix)
    if change is None or rng.random() < .15: change = replaced
    if change is replaced and rng.random() < .3 and path.suffix in ('.json','.ini'): # a pickle under a name that the file mentions
        (folder/'w.bin').write_bytes(pickle.dumps(Canary(guard/'ran')))
    return path,f'{path.relative_to(folder)}: {change(path, rng, guard)}'

def commands(folder, path, images, out, rng):
    "What is done with a folder in which the file at `path` is hostile"
    with_report = path.name in ('metrics.json','settings.ini','history.csv','validation.npz')
    predict = 'predict',folder,images,'--out',out/'predictions','--batch-size','2','--workers','1'
    if (folder/'model.onnx').exists() and rng.random() < .5: yield (*predict,'--engine','onnx')
    elif not with_report or rng.random() < .2: yield predict
    if with_report: yield 'runs',folder.parent
    if with_report and rng.random() < .15: yield 'report',folder # its figures take seconds
    if not with_report or path.name == 'metrics.json': yield 'export',folder,'--out',out/'exported',*(['--card'] if rng.random() < .7 else [])
    if path.name == 'validation.npz': yield 'predict',folder,*predict[2:],'--with',folder

def serve(folder):
    "What the servers read of a folder"
    try: config = read_config(folder/('config.json' if (folder/'config.json').exists() else 'model.json'))
    except InputError: return
    json.dumps(config, allow_nan=False).encode('utf-8') # as /metadata answers
    if (folder/'model.onnx').exists():
        try: OnnxModel(folder)
        except InputError: pass

MAX_MEMORY = 1_500_000 # kB, unless another test of this process had more
def peak_memory(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def fuzz(sources, images, tmp_path, seed):
    "Make one of `sources` hostile, and use it"
    rng,peak = random.Random(seed),peak_memory()
    guard,out,runs = (tmp_path/o for o in ('guard','out','runs'))
    for o in (guard, out, runs): o.mkdir(parents=True)
    (guard/'secret').write_text('secret')
    os.mkfifo(guard/'pipe')
    folder = copy(rng.choice(sources), runs/'stranger')
    path,what = change_one(folder, rng, guard)
    if path.parent != folder and rng.random() < .5: folder = path.parent # a fold by itself
    before = list_files(guard)
    for words in commands(folder, path, images, out, rng):
        try:
            with limit_seconds(120): done = run_inprocess(*words, cwd=guard)
        except BaseException as e: raise AssertionError(f'seed {seed}, {what}: {words[0]} raised {type(e).__name__}: {e}') from e
        assert done.returncode == 0 or done.returncode == 2 and len(done.stderr.splitlines()) >= 1, (seed, what, words, done)
        if done.returncode == 2: assert done.stderr.splitlines()[-1].startswith('fashion: '), (seed, what, done.stderr)
    try: serve(folder)
    except BaseException as e: raise AssertionError(f'seed {seed}, {what}: serving raised {type(e).__name__}: {e}') from e
    assert list_files(guard) == before and (guard/'secret').read_text() == 'secret', (seed, what)
    assert {o.name for o in tmp_path.iterdir()} == {'guard','out','runs'} and {o.name for o in runs.iterdir()} == {'stranger'}, (seed, what)
    assert peak_memory() <= max(peak, MAX_MEMORY), (seed, what)
    shutil.rmtree(tmp_path)

def test_hostile_folders_do_no_harm(run, ensemble, exported, images, tmp_path):
    "Some of two thousand; the others are in `make soak`"
    for seed in range(40): fuzz([run, ensemble, exported], images, tmp_path/str(seed), seed)

@pytest.mark.soak
def test_two_thousand_hostile_folders_do_no_harm(run, garments, images, tmp_path):
    folds = train(garments, tmp_path/'folds', *SHORT, '--folds', '2') # as the product itself makes them
    assert run_inprocess('export', run, '--out', tmp_path/'model', '--onnx', '--card').returncode == 0
    for seed in range(2000): fuzz([run, folds, tmp_path/'model'], images, tmp_path/str(seed), seed)

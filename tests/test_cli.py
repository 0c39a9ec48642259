"The command line as a user calls it: processes, exit codes, files"
import io,json,os,shutil,subprocess,sys
from contextlib import redirect_stdout
import numpy as np,pandas as pd
import pytest,torch
from conftest import FASHION,SHORT,run_cli,run_inprocess,run_python,refused
from fashion_fastai.cli.main import COMMANDS,main
from fashion_fastai.data import cache
from fashion_fastai.data.read import read_data
from fashion_fastai.interpret.core import FashionInterpretation
from fashion_fastai.predict.model import load_model
from fashion_fastai.recipes.settings import read_recipe
from fashion_fastai.outputs.score import score_submission

HEAVY = 'torch','fastai','pandas','numpy','PIL','matplotlib'

def imported_by(*words):
    "(finished process, heavy packages imported) of a command line in a Python of its own"
    code = ("import sys; from fashion_fastai.cli.main import main\n"
            f"try: code = main({list(words)})\n"
            "except SystemExit as e: code = e.code\n"
            f"print(code, *[o for o in {HEAVY} if o in sys.modules])")
    done = run_python('-c', code)
    code,*imported = done.stdout.splitlines()[-1].split()
    return done,int(code),imported

def test_help_imports_nothing_heavy():
    done,code,imported = imported_by('--help')
    assert code == 0 and done.stderr == '' and imported == []
    listed = [o.split()[0] for o in done.stdout.splitlines() if o.startswith('    ') and o[4] != ' ']
    assert listed == list(COMMANDS)

@pytest.mark.parametrize('command', COMMANDS)
def test_the_help_of_a_command_imports_nothing_heavy(command):
    _,code,imported = imported_by(command, '--help')
    assert code == 0 and imported == []

@pytest.mark.parametrize('words', [['fly'], [], ['--lr'], ['train', 'DATA'], ['predict', 'RUN'], ['score', 'LABELS'], ['serve', 'RUN', '--port', '0'], ['tutorial', 'fly']],
    ids=' '.join)
def test_an_error_in_the_command_line_imports_nothing_heavy(words):
    done,code,imported = imported_by(*words)
    assert code == 2 and 'fashion' in done.stderr and imported == []

@pytest.mark.parametrize('words', ['train {} --out r', 'lr-find {}', 'tune {} --minutes 1', 'predict {} a.jpg', 'embed {} a.csv --out e.parquet', 'similar {} a.jpg --in e.parquet',
    'suggest {} a.csv --out s.csv', 'export {} --out e', 'report {}', 'doctor {}'])
def test_a_folder_that_is_none_is_an_error_before_the_imports_that_take_seconds(words, tmp_path):
    done,code,imported = imported_by(*words.format(tmp_path/'nowhere').split())
    assert code == 2 and 'nowhere: no such ' in done.stderr and not {'torch','fastai'} & set(imported)

def test_the_first_line_of_a_demo_comes_before_the_slow_imports():
    code = ("import builtins,sys; from fashion_fastai.cli.main import main\n"
            f"def end(text, **kwargs): sys.exit(text + ' ' + str([o for o in {HEAVY} if o in sys.modules]))\n"
            "builtins.print = end; main(['demo'])")
    assert run_python('-c', code).stderr == 'demo: data, a training and a submission in fashion_demo; one or two minutes on two CPU cores []\n'

def test_train_leaves_a_run_folder(run):
    assert sorted(o.name for o in run.iterdir()) == ['export.pkl','history.csv','metrics.json','model.json','model.safetensors','settings.ini','stats.json','validation.npz']
    history,metrics = pd.read_csv(run/'history.csv'),json.loads((run/'metrics.json').read_text())
    assert list(history['size']) == ['32x24','48x36'] and {'category_loss','attribute_loss','accuracy','mean_f1'} <= set(history)
    assert metrics['accuracy'] == pytest.approx(history.accuracy.iloc[-1]) and (metrics['n_train'], metrics['n_valid']) == (160, 20)
    assert 'stages = 32x24:1 48x36:1' in (run/'settings.ini').read_text()

@pytest.mark.slow
def test_output_is_plain_where_there_is_no_terminal(garments, tmp_path):
    done = run_cli('train', garments, '--out', tmp_path/'run', *SHORT)
    assert done.returncode == 0 and done.stderr == ''
    assert not set('\r\x1b█') & set(done.stdout)
    lines = done.stdout.splitlines()
    assert sum(o.startswith('epoch ') for o in lines) == 2 and 'validation: accuracy' in lines[-2]

def test_the_same_seed_gives_the_same_run(run, garments, tmp_path):
    again,other = tmp_path/'again',tmp_path/'other'
    assert run_inprocess('train', garments, '--out', again, *SHORT).returncode == 0
    assert run_inprocess('train', garments, '--out', other, *SHORT, '--seed', 7).returncode == 0
    losses = [pd.read_csv(o/'history.csv', dtype=str)[['train_loss','valid_loss']].values.tolist() for o in (run, again, other)]
    assert losses[0] == losses[1] != losses[2]

def test_the_same_seed_gives_the_same_run_without_a_cache(run, garments, tmp_path):
    assert run_inprocess('train', garments, '--out', tmp_path/'run', *SHORT, '--no-cache', '--workers', 2).returncode == 0
    losses = [pd.read_csv(o/'history.csv', dtype=str)[['train_loss','valid_loss']].values.tolist() for o in (run, tmp_path/'run')]
    assert losses[0] == losses[1]
    assert [json.loads((o/'metrics.json').read_text())['cache'] for o in (run, tmp_path/'run')] == [True, False]

def test_predict_writes_a_row_for_every_row(run, garments, tmp_path):
    done = run_inprocess('predict', run, garments/'test.csv', '--out', tmp_path, '--tta')
    assert done.returncode == 0 and done.stderr == '', done.stderr
    test_list = pd.read_csv(garments/'test.csv').file_path.tolist()
    category,attribute,table = (pd.read_csv(tmp_path/f'{o}.csv') for o in ('category','attribute','predictions'))
    assert list(category) == ['file_path','category_label'] and list(attribute) == ['file_path','attribute_label']
    names = pd.read_csv(garments/'train.csv', nrows=0).columns[2:].tolist()
    assert list(table) == ['file_path','category','category_probability',*names]
    for frame in (category, attribute, table): assert frame.file_path.tolist() == test_list
    assert attribute.attribute_label.notna().all()
    assert (table[names] >= 0).all(axis=None) and (table[names] <= 1).all(axis=None)
    assert set(score_submission(garments/'test_labels.csv', tmp_path)) == {'accuracy','mean_f1'}

@pytest.mark.parametrize('options', [['--rule', 'fixed'], ['--rule', 'fixed', '--tta', 'yes']], ids=' '.join)
def test_predict_scores_what_training_said(options, garments, tmp_path):
    run = tmp_path/'run'
    assert run_inprocess('train', garments, '--out', run, *SHORT, *options).returncode == 0
    done = run_inprocess('predict', run/'export.pkl', garments/'val.csv', '--out', tmp_path)
    assert done.returncode == 0 and 'a pickle can run any code' in done.stderr and len(done.stderr.splitlines()) == 1
    scores,metrics = score_submission(garments/'val.csv', tmp_path),json.loads((run/'metrics.json').read_text())
    for o in scores: assert scores[o] == pytest.approx(metrics[o], abs=1e-6)

def test_the_tuned_decision_is_what_predict_uses(run, garments, tmp_path):
    metrics = json.loads((run/'metrics.json').read_text())
    interp = FashionInterpretation.load(run/'validation.npz') # label sets of rules that were chosen and tuned on other images
    assert metrics['mean_f1'] == pytest.approx(np.nanmean(interp.f1_per_image), abs=1e-6)
    assert len(interp.fold_temperatures) == interp.folds.max() + 1
    assert run_inprocess('predict', run, garments/'val.csv', '--out', tmp_path).returncode == 0
    learn,rows = load_model(run),(tmp_path/'attribute.csv').read_text().splitlines()[1:]
    probabilities = torch.tensor(pd.read_csv(tmp_path/'predictions.csv').iloc[:, 3:].values).float()
    assert str(learn.loss_func.decision.rule) == metrics['decision']['rule']
    answers = [set(np.flatnonzero(o).tolist()) for o in learn.loss_func.decision.rule(probabilities)]
    same = sum({int(k) for k in row.split(',')[1].split()} == answer for row,answer in zip(rows, answers))
    assert same >= len(rows) - 1 # the table's probabilities are rounded

def test_predict_a_folder_of_odd_images(run, tmp_path):
    from PIL import Image
    folder = tmp_path/'my images'
    (folder/'more').mkdir(parents=True)
    image = Image.new('RGB', (300,400), 'red')
    for name,mode in {'a,b.jpg': 'L', 'ünï "x".png': 'RGBA', 'more/C.JPEG': 'CMYK', 'p.gif': 'P'}.items(): image.convert(mode).save(folder/name)
    image.save(folder/'moving.gif', save_all=True, append_images=[Image.new('RGB', (300,400), 'blue')])
    image.save(folder/'w.webp')
    Image.new('I;16', (30,40), 40_000).save(folder/'sixteen bits.png')
    Image.new('RGB', (1,1), 'red').save(folder/'one pixel.png')
    exif = Image.Exif()
    exif[0x0112] = 6 # lies on its side
    image.save(folder/'turned.jpg', exif=exif)
    # what is no image, or none that should be opened
    jpeg = (folder/'turned.jpg').read_bytes()
    for name,raw in {'cut.jpg': jpeg[:len(jpeg)//2], 'empty.jpg': b'', 'text.jpg': b'a shirt', 'page.jpg': b'<!doctype html><html><body>404</body></html>'}.items(): (folder/name).write_bytes(raw)
    Image.new('1', (20_000, 20_000)).save(folder/'bomb.png')
    bad = {'bomb.png','cut.jpg','empty.jpg','text.jpg','page.jpg'}
    done = run_inprocess('predict', run, folder, '--out', tmp_path/'out')
    assert done.returncode == 0 and '5 of 14 images are missing or cannot be read' in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    predicted = pd.read_csv(tmp_path/'out'/'category.csv').file_path.tolist()
    assert predicted == sorted(o.relative_to(folder).as_posix() for o in folder.rglob('*.*')) and 'ünï "x".png' in predicted and 'a,b.jpg' in predicted
    assert set(pd.read_csv(tmp_path/'out'/'bad_images.csv').file_path) == bad
    table = pd.read_csv(tmp_path/'out'/'predictions.csv').set_index('file_path')
    assert table.loc[sorted(bad)].nunique().max() == 1 and table.loc[['w.webp','one pixel.png']].iloc[:, 2:].ne(table.loc['cut.jpg'].iloc[2:]).any(axis=None)

@pytest.mark.slow
def test_lr_find(garments, tmp_path):
    done = run_inprocess('lr-find', garments, '--out', tmp_path/'lr', *SHORT)
    assert done.returncode == 0 and 'suggested learning rate: ' in done.stdout, done.stderr
    assert sorted(o.name for o in (tmp_path/'lr').iterdir()) == ['lr_find.csv','lr_find.png']
    assert list((tmp_path/'lr').parent.iterdir()) == [tmp_path/'lr'] # nothing is left lying about

@pytest.mark.slow
def test_demo(tmp_path):
    done = run_cli('demo', '--n', 100, '--stages', '32x24:1', '--batch-size', 16, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path/'fashion_demo'
    for o in ('garments/train.csv', 'run/export.pkl', 'run/report.html', 'submission/category.csv', 'submission/attribute.csv'): assert (out/o).is_file()
    for o in ('accuracy', 'Everything is in fashion_demo', 'Try next'): assert o in done.stdout
    assert refused(run_cli('demo', '--n', 100, '--stages', '32x24:1', cwd=tmp_path), 'contains a finished run')

@pytest.mark.slow
def test_a_settings_file_in_the_working_folder(garments, tmp_path):
    (tmp_path/'settings.ini').write_text('[mine]\nstages = 32x24:1\narch = xresnet10\nwidth = .25\nworkers = 0\nbatch_size = 16\n')
    assert run_inprocess('train', garments, '--out', 'run', '--recipe', 'mine', cwd=tmp_path).returncode == 0
    assert 'width = 0.25' in (tmp_path/'run'/'settings.ini').read_text()
    assert refused(run_inprocess('train', garments, '--out', 'run', '--recipe', 'mine', cwd=tmp_path), 'contains a finished run')
    assert refused(run_inprocess('train', garments, '--out', 'other', '--recipe', 'yours', cwd=tmp_path), "there are demo, quick, full, gpu, mine")

def test_a_strangers_settings_file_breaks_nothing(garments, tmp_path):
    stranger = tmp_path/'settings.ini'
    for text in ('[DEFAULT]\nlib_name = shop\nseed = 3\nversion = 1\n', 'no section\n', '[a]\nx = %(y)s\nx = 2\n'):
        stranger.write_text(text)
        done = run_inprocess('train', garments, '--out', tmp_path/'run', *SHORT, '--epochs', 1, '--overwrite', cwd=tmp_path)
        assert done.returncode == 0 and done.stdout.startswith(f'settings: {stranger} has no recipe, and is ignored\n'), done.stdout + done.stderr
    assert 'seed = 42' in (tmp_path/'run'/'settings.ini').read_text()
    assert run_cli('train', '--help', cwd=tmp_path).returncode == 0
    stranger.write_text('[mine]\nstages = 32x24:1\nwidht = .25\n') # one's own, with a slip
    assert refused(run_inprocess('train', garments, '--out', tmp_path/'other', '--recipe', 'mine', cwd=tmp_path), 'unknown key widht')

def test_the_settings_file_that_counts_is_said(garments, run, tmp_path):
    "In a run folder, its own settings would override the recipe"
    shutil.copy(run/'settings.ini', tmp_path/'settings.ini')
    done = run_inprocess('train', garments, '--out', 'again', '--recipe', 'demo', '--epochs', 1, '--report', 'no', cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith(f"settings: {tmp_path/'settings.ini'}\n"), done.stdout

def test_an_attribute_may_be_called_category(garments, tmp_path):
    data = tmp_path/'garments'
    shutil.copytree(garments, data)
    for o in ('train','val'): (data/f'{o}.csv').write_text((data/f'{o}.csv').read_text().replace(',red,', ',category,', 1))
    assert run_inprocess('train', data, '--out', tmp_path/'run', *SHORT, '--epochs', 1).returncode == 0
    done = run_inprocess('predict', tmp_path/'run', data/'test.csv', '--out', tmp_path/'out')
    assert done.returncode == 0, done.stderr
    assert list(pd.read_csv(tmp_path/'out'/'predictions.csv'))[:4] == ['file_path','category','category_probability','category (attribute)']

def test_a_submission_with_an_empty_label_set_can_be_scored(garments, tmp_path):
    labels = pd.read_csv(garments/'test_labels.csv')
    labels[['file_path','category_label']].to_csv(tmp_path/'category.csv', index=False)
    sets = [' '.join(str(k) for k,o in enumerate(row) if o) for row in labels.iloc[:, 2:].values]
    pd.DataFrame(dict(file_path=labels.file_path, attribute_label=['', *sets[1:]])).to_csv(tmp_path/'attribute.csv', index=False)
    assert score_submission(garments/'test_labels.csv', tmp_path) == dict(accuracy=1., mean_f1=pytest.approx(19/20))

def test_no_val_csv(garments, tmp_path):
    data = tmp_path/'garments'
    data.mkdir()
    shutil.copytree(garments/'train', data/'train')
    for o in ('train.csv','classes.txt'): shutil.copy(garments/o, data/o)
    done = run_inprocess('train', data, '--out', tmp_path/'run', *SHORT, '--epochs', 1)
    assert done.returncode == 0 and '144 training and 16 validation images' in done.stdout, done.stdout + done.stderr

@pytest.mark.parametrize('line,why', [
    ('garments/train/00001.jpg,11,1'+',0'*14, 'line 2: category_label is 11, but classes.txt names the labels 0 to 9'),
    ('garments/train/00001.jpg,1,2'+',0'*14, "line 2: attribute 'red' is '2', neither 0 nor 1"),
    ('garments/train/nowhere.jpg,1,1'+',0'*14, 'images are missing, the first being garments/train/nowhere.jpg')])
def test_bad_labels(garments, tmp_path, line, why):
    data = tmp_path/'garments'
    shutil.copytree(garments, data)
    header = (data/'train.csv').read_text().splitlines()[0]
    (data/'train.csv').write_text(f'{header}\n{line}\n')
    assert refused(run_inprocess('train', data, '--out', tmp_path/'run', *SHORT), why)
    assert not (tmp_path/'run').exists()

def test_a_row_without_attributes_is_only_warned_of(garments, tmp_path):
    data = tmp_path/'garments'
    shutil.copytree(garments, data)
    lines = (data/'train.csv').read_text().splitlines()
    lines[4] = lines[4].rsplit(',', 15)[0] + ',0'*15
    (data/'train.csv').write_text('\n'.join(lines))
    done = run_inprocess('train', data, '--out', tmp_path/'run', *SHORT, '--epochs', 1)
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith('fashion: warning: ') and 'train.csv, line 5: has no attribute' in done.stderr

@pytest.mark.parametrize('unbuffered', ['','1'])
@pytest.mark.parametrize('command', ['runs', '--help', 'refused'])
def test_output_that_nobody_reads_ends_a_command_quietly(command, unbuffered, run):
    words = dict(runs=['runs', run.parent], refused=['runs', run.parent/'none']).get(command, [command])
    read,write = os.pipe()
    os.close(read)
    done = subprocess.run(list(map(str, [FASHION, *words])), stdout=write, stderr=subprocess.PIPE, text=True, env=dict(os.environ, PYTHONUNBUFFERED=unbuffered))
    os.close(write)
    if command == 'refused': assert refused(done, 'none: no such folder') # nothing was printed before
    else: assert done.stderr == '' and done.returncode in ((0,141) if command == '--help' else (141,)), done.stderr # argparse itself ignores it

def test_a_full_disk_behind_the_output_is_one_line(run):
    with open('/dev/full', 'w') as full: done = subprocess.run([FASHION, 'runs', run.parent], stdout=full, stderr=subprocess.PIPE, text=True)
    assert refused(done, 'No space left on device')

def test_output_that_nobody_reads_is_no_full_disk(garments, tmp_path, monkeypatch):
    def closed(*args, **kwargs): raise BrokenPipeError(32, 'Broken pipe')
    monkeypatch.setattr(cache, 'print', closed, raising=False)
    with pytest.raises(BrokenPipeError): cache.pack_images(sorted((garments/'test').iterdir()), (16,12), tmp_path/'cache', 0)

@pytest.mark.slow
def test_a_demo_makes_as_many_garments_as_asked_for(tmp_path):
    words = ['demo', '--out', tmp_path/'demo', *SHORT]
    assert run_inprocess(*words, '--n', 103).returncode == 0
    assert refused(run_inprocess(*words, '--n', 104, '--overwrite'), 'has 103 garments, and --n asks for 104; choose another folder, or leave out --n')
    for more in (['--n', 103], []):
        done = run_inprocess(*words, *more, '--overwrite')
        assert done.returncode == 0 and '1 of 3: using the garments' in done.stdout, done.stderr

def test_any_path_can_be_that_of_a_bad_image(garments, run, tmp_path):
    "A path with what separates a path from a reason, in every list of bad images"
    data,name = tmp_path/'spring: summer',': is missing: a.jpg'
    for o in ('train','test'): (data/o).mkdir(parents=True)
    for i,o in enumerate(sorted((garments/'test').iterdir())[:5]): (data/f'test/{i}.jpg').symlink_to(o)
    (data/'test'/name).write_text('no image')
    for options in ([], ['--cache', tmp_path/'cache'], ['--shard', '1/1']):
        done = run_inprocess('predict', run, data/'test', '--out', tmp_path/'out', *options)
        if '--shard' in options: done = run_inprocess('merge', tmp_path/'out', '--out', tmp_path/'out')
        assert done.returncode == 0, done.stderr
        bad = pd.read_csv(tmp_path/'out'/'bad_images.csv')
        assert bad.values.tolist() == [[name, 'cannot be read as an image (unknown format)']]
    rows = pd.read_csv(garments/'train.csv').head(30)
    for o in rows.file_path: (data/'train'/o.split('/')[-1]).symlink_to(garments.parent/o)
    rows.file_path = 'train/' + rows.file_path.str.split('/').str[-1]
    (data/'train'/name).write_text('no image')
    rows.loc[0,'file_path'] = f'train/{name}'
    rows.to_csv(data/'train.csv', index=False)
    for cache in ('no', tmp_path/'cache'):
        with pytest.warns(UserWarning, match='1 of 30 images'): found = read_data(data, read_recipe('demo', cache=cache, max_bad=.1))
        assert found.bad == {f'train/{name}': 'cannot be read as an image (unknown format)'}

def test_a_list_of_which_no_image_can_be_read_is_refused(run, tmp_path):
    (tmp_path/'images').mkdir()
    for i in range(3): (tmp_path/'images'/f'{i}.jpg').write_bytes(b'')
    for options in ([], ['--cache', tmp_path/'cache']):
        done = run_inprocess('predict', run, tmp_path/'images', '--out', tmp_path/'out', *options)
        assert refused(done, 'nothing is written, since none of the 3 images can be read; the first, 0.jpg: cannot be read as an image (')
    assert not list((tmp_path/'out').glob('*')) and str(tmp_path/'images') not in done.stderr

def test_bad_images(garments, run, tmp_path):
    data = tmp_path/'garments'
    shutil.copytree(garments, data)
    (data/'test'/'00003.jpg').write_text('no image')
    assert refused(run_inprocess('predict', run, data/'test.csv', '--out', tmp_path/'out', '--strict'), '00003.jpg: cannot be read as an image')
    done = run_inprocess('predict', run, data/'test.csv', '--out', tmp_path/'out')
    assert done.returncode == 0 and done.stderr.startswith('fashion: warning: 1 of 20 images are missing or cannot be read') and len(done.stderr.splitlines()) == 1
    assert pd.read_csv(tmp_path/'out'/'bad_images.csv').file_path.tolist() == ['garments/test/00003.jpg']
    for o in ('category','attribute'): assert len(pd.read_csv(tmp_path/'out'/f'{o}.csv').dropna()) == 20
    (data/'test'/'00004.jpg').unlink() # a missing image is treated as one that cannot be read
    for options in ([], ['--cache', tmp_path/'cache']):
        done = run_inprocess('predict', run, data/'test.csv', '--out', tmp_path/'out', *options)
        assert done.returncode == 0 and '2 of 20 images are missing or cannot be read' in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
        bad = pd.read_csv(tmp_path/'out'/'bad_images.csv')
        assert bad.file_path.tolist() == ['garments/test/00003.jpg','garments/test/00004.jpg'] and bad.reason[1] == 'is missing'
        assert len(pd.read_csv(tmp_path/'out'/'category.csv').dropna()) == 20
    assert refused(run_inprocess('predict', run, data/'test.csv', '--out', tmp_path/'out', '--strict'), '1 of 20 images are missing, the first being garments/test/00004.jpg')
    for i in range(5, 15): (data/'test'/f'{i:05}.jpg').unlink() # most of the list: a wrong folder
    assert refused(run_inprocess('predict', run, data/'test.csv', '--out', tmp_path/'out'), '11 of 20 images are missing, the first being garments/test/00004.jpg')
    (data/'train'/'00005.jpg').write_bytes((data/'train'/'00005.jpg').read_bytes()[:300])
    for options in ([], ['--no-cache', '--overwrite']):
        done = run_inprocess('train', data, '--out', tmp_path/'run', *SHORT, *options)
        assert done.returncode == 0 and '1 of 180 images cannot be read, and are left out' in done.stderr and '00005.jpg' in done.stderr
        assert json.loads((tmp_path/'run'/'metrics.json').read_text())['n_train'] == 159
        assert pd.read_csv(tmp_path/'run'/'bad_images.csv').file_path.tolist() == ['garments/train/00005.jpg']
    assert refused(run_inprocess('train', data, '--out', tmp_path/'other', *SHORT, '--max-bad', 0.001), '1 of 180 images cannot be read, more than max_bad')
    assert not (tmp_path/'other').exists()

TWICE = """
import os,signal,sys,tempfile
import fashion_fastai.convert.write as write
from fashion_fastai.cli.main import COMMANDS,main
class Terminated(write._Writer):
    "SIGTERM while the third image is written, and again while the temporary folder is removed, as `timeout` sends it"
    n = 0
    def write(self, *args):
        Terminated.n += 1
        if Terminated.n == 3:
            print(os.listdir(os.path.dirname(sys.argv[4])), flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
        return super().write(*args)
def cleanup(self, remove=tempfile.TemporaryDirectory.cleanup):
    os.kill(os.getpid(), signal.SIGTERM)
    remove(self)
write._Writer,tempfile.TemporaryDirectory.cleanup = Terminated,cleanup
sys.exit(main(sys.argv[1:]))
"""

@pytest.mark.slow
def test_sigterm_leaves_nothing_behind(garments, tmp_path):
    (tmp_path/'out').mkdir()
    words = 'convert','table',garments/'train.csv',tmp_path/'out'/'data','--images',garments.parent,'--category','category_label','--copy'
    killed = tmp_path/'out'/'.data.partial-killed' # what a process left that was killed otherwise
    (killed/'data').mkdir(parents=True)
    done = run_cli(*words, command=[sys.executable, '-W', 'ignore', '-c', TWICE])
    assert done.returncode == 143 and done.stderr == '' and 'The data is in' not in done.stdout, done.stderr
    assert done.stdout.count('.data.partial-') == 1 and killed.name not in done.stdout, done.stdout # it was there
    assert list((tmp_path/'out').iterdir()) == []

@pytest.mark.parametrize('encoding', ['cp1252','ascii'])
def test_a_console_that_lacks_a_character_shows_escapes(garments, tmp_path, encoding):
    data = tmp_path/'garments'
    shutil.copytree(garments, data)
    (data/'classes.txt').write_text((data/'classes.txt').read_text().replace('dress', 'платье'), encoding='utf-8')
    console = io.TextIOWrapper(io.BytesIO(), encoding)
    with redirect_stdout(console): assert main(['check', str(data), '--out', str(tmp_path/'card.html')]) == 0
    console.flush()
    assert r'\u043f\u043b' in console.buffer.getvalue().decode(encoding)
    assert 'платье' in (tmp_path/'card.html').read_text(encoding='utf-8')

BAD_NAMES = b'caf\xe9.jpg',b'\xb7\xfe\xd7\xb0.jpg',b'a\rb.jpg',b'a\nb.jpg' # not UTF-8, GBK, and control characters

def test_images_whose_names_no_table_can_hold_are_left_out_and_counted(garments, run, tmp_path):
    folder = tmp_path/'images'
    shutil.copytree(garments/'test', folder)
    for o in BAD_NAMES: shutil.copy(folder/'00001.jpg', os.fsencode(folder) + b'/' + o)
    said = rf"fashion: warning: {folder}: 4 of 24 images are left out: the name 'a\nb.jpg' has a control character; rename it"
    done = run_inprocess('predict', run, folder, '--out', tmp_path/'out')
    assert (done.returncode, done.stderr) == (0, said + '\n') and '20 images' in done.stdout
    for o in ('category','attribute','predictions'): assert pd.read_csv(tmp_path/'out'/f'{o}.csv').file_path.tolist() == [f'{i:05}.jpg' for i in range(1, 21)]
    assert refused(run_inprocess('predict', run, folder, '--out', tmp_path/'strict', '--strict'), 'has a control character; rename it')
    done = run_inprocess('predict', run, folder, '--out', tmp_path/'parts', '--shard', '1/1')
    assert (done.returncode, done.stderr) == (0, said + '\n') and '20 images' in done.stdout
    for o in folder.glob('0*'): o.unlink()
    assert refused(run_inprocess('predict', run, folder, '--out', tmp_path/'none'), 'rename it')

def test_a_list_with_a_name_that_would_make_two_rows_is_refused(garments, run, tmp_path):
    data = tmp_path/'garments'
    shutil.copytree(garments, data)
    for o in ('test','train'):
        (data/o/'00001.jpg').rename(data/o/'a\rb.jpg')
        text = (data/f'{o}.csv').read_text().replace(f'garments/{o}/00001.jpg', f'"garments/{o}/a\rb.jpg"')
        (data/f'{o}.csv').write_text(text, newline='')
    words = 'predict', run, data/'test.csv', '--out', tmp_path/'out'
    assert refused(run_inprocess(*words), r"test.csv, line 2: file_path 'garments/test/a\rb.jpg' has a control character; rename it")
    assert refused(run_inprocess(*words, '--shard', '1/1'), r"row 1: file_path 'garments/test/a\rb.jpg' has a control character")
    for o in (['check', data], ['train', data, '--out', tmp_path/'run', *SHORT]): assert refused(run_inprocess(*o), 'train.csv, line 2: file_path')
    frame = pd.DataFrame(dict(path=['00002.jpg', 'a\x85b.jpg'], image=[(data/'test'/'00002.jpg').read_bytes()]*2))
    for columns in (['path'], ['path','image']): # Parquet, by names and with the images
        frame[columns].to_parquet(data/'test'/'list.parquet')
        done = run_inprocess('predict', run, data/'test'/'list.parquet', '--out', tmp_path/columns[-1], '--shard', '1/1')
        assert refused(done, r"list.parquet, row 2: file_path 'a\x85b.jpg' has a control character")

def test_arguments_and_folders_that_are_not_utf8_are_refused(garments, run, tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9')
    shutil.copytree(garments, folder)
    (tmp_path/'linked').symlink_to(folder)
    reason = r"caf\udce9' is not UTF-8; rename it"
    for o in (folder, tmp_path/'linked'): assert refused(run_inprocess('check', o, '--out', tmp_path/'card.html'), reason)
    assert refused(run_inprocess('check', '.', cwd=folder), reason)
    shutil.copytree(run, tmp_path/'runs'/os.path.basename(folder))
    done = run_inprocess('runs', tmp_path/'runs', '--csv', tmp_path/'runs.csv')
    assert done.returncode == 0 and r'caf\udce9' in done.stdout and pd.read_csv(tmp_path/'runs.csv').run[0] == r'caf\udce9', done.stderr

def test_outputs_do_not_replace_what_the_user_would_miss(run, garments, tmp_path):
    pytest.importorskip('pyarrow')
    images = [str(garments.parent/o) for o in pd.read_csv(garments/'test.csv').file_path]
    pd.DataFrame(dict(file_path=images)).to_csv(tmp_path/'list.csv', index=False)
    pd.DataFrame(dict(file_path=images)).to_parquet(tmp_path/'list.parquet')
    shutil.copy(garments/'train.csv', tmp_path/'train.csv')
    table,parquet = tmp_path/'list.csv',tmp_path/'list.parquet'
    for out,command in (('list.csv', ['suggest', run, table, '--out']), ('train.csv', ['suggest', run, table, '--out']),
            ('list.parquet', ['embed', run, parquet, '--out']), ('train.csv', ['runs', run.parent, '--csv']), ('train.csv', ['check', garments, '--out'])):
        before = (tmp_path/out).read_bytes()
        reason = 'is read, and would be replaced' if 'list' in out else 'exists, and was not written by this command'
        assert refused(run_inprocess(*command, tmp_path/out), f'{out}: {reason}; choose another name, or remove it first')
        assert (tmp_path/out).read_bytes() == before
    for name in ('category.csv','garments.csv','bad_images.csv'):
        (tmp_path/'mine').mkdir(exist_ok=True)
        (tmp_path/'mine'/name).write_text('product,price\n1,2\n')
        assert refused(run_inprocess('predict', run, table, '--out', tmp_path/'mine'), f'{name}: exists, and was not written by this command')
        (tmp_path/'mine'/name).unlink()
    (tmp_path/'export.json').write_text('[{"id": 1, "annotations": []}]')
    for name,reason in (('export.json', 'exists, and was not written'), ('tasks.xml', 'is the name of the interface')):
        done = run_inprocess('suggest', run, table, '--n', 2, '--out', tmp_path/'some.csv', '--label-studio', tmp_path/name)
        assert refused(done, f'{name}: {reason}')
    (tmp_path/'suspects.csv').write_text('mine')
    assert refused(run_inprocess('check', garments, '--with', run, '--out', tmp_path/'page.html'), 'suspects.csv: exists, and was not written')
    (tmp_path/'tasks.xml').write_text('<View>mine</View>')
    for _ in range(2): # its own tasks are replaced, an interface stays
        done = run_inprocess('suggest', run, table, '--n', 2, '--out', tmp_path/'some.csv', '--label-studio', tmp_path/'tasks.json')
        assert done.returncode == 0 and (tmp_path/'tasks.xml').read_text() == '<View>mine</View>' and 'tasks.xml: is kept' in done.stdout, done.stderr
    pd.DataFrame(dict(price=[3])).to_parquet(tmp_path/'prices.parquet')
    assert refused(run_inprocess('embed', run, table, '--out', tmp_path/'prices.parquet'), 'prices.parquet: exists, and is not of embeddings')
    for _ in range(2): # its own file is replaced
        assert run_inprocess('embed', run, table, '--out', tmp_path/'E.parquet').returncode == 0
        assert run_inprocess('runs', run.parent, '--csv', tmp_path/'runs.csv').returncode == 0
        assert run_inprocess('suggest', run, table, '--n', 2, '--out', tmp_path/'next.csv').returncode == 0
        assert run_inprocess('check', garments, '--out', tmp_path/'card.html').returncode == 0
    assert refused(run_inprocess('predict', run, table, '--out', run), 'is a run, whose bad_images.csv would be replaced')
    for folds in ([], ['--folds', 2]):
        assert refused(run_inprocess('train', garments, '--out', garments, '--overwrite', *folds), 'is a data folder; choose another folder for the run')
    parts = tmp_path/'parts'
    assert run_inprocess('embed', run, table, '--shard', '1/1', '--out', parts).returncode == 0
    part = next(parts.glob('*.parquet'))
    assert refused(run_inprocess('merge', parts, '--out', part), 'is read, and would be replaced')

def test_an_empty_word_is_not_the_working_directory(run, garments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (['train', garments, '--out', '', *SHORT], ['train', garments, '--out=', *SHORT], ['predict', run, ''], ['predict', '', garments/'test']):
        assert refused(run_inprocess(*words), 'as of a variable that is not set; write its value, or leave it out')
    assert not list(tmp_path.iterdir())

def test_parquet_files_that_are_no_list_together_are_refused(run, garments, tmp_path):
    pytest.importorskip('pyarrow')
    pd.DataFrame(dict(file_path=['a.jpg'])).to_parquet(tmp_path/'b.parquet')
    pd.DataFrame(dict(other=[1])).to_parquet(tmp_path/'a.parquet')
    assert refused(run_inprocess('predict', run, tmp_path), 'a.parquet: has no column file_path, as b.parquet beside it has; they are no list')

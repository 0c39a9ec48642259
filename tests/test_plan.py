"Trainings that are planned for some minutes: from the command line to the run"
import json,math
import pytest,torch
from conftest import refused,run_cli,run_inprocess
from fashion_fastai.core import InputError
from fashion_fastai.data.labels import read_labels
from fashion_fastai.data.synthetic import draw_garments
from fashion_fastai.recipes.settings import read_recipe,read_recorded_recipe
from fashion_fastai.train import core,folds,plan,search,timing
from fashion_fastai.train.plan import plan_recipe,plan_training
from fashion_fastai.train.search import typical_size
from fashion_fastai.train.timing import time_training

KEYS = ['--precision','fp32','--report','no','--workers',1]
SMALL = ['--arch','xresnet10','--width',.25] # where the network is not the question

def train(garments, out, *words): return run_inprocess('train', garments, '--out', out, *KEYS, *words)

def recorded(run): return read_recorded_recipe(run/'settings.ini')

@pytest.fixture(scope='module')
def slow_machine():
    "Times of a machine on which plans are short: where the times are not the question, they are not measured"
    def timed(table, recipe, size, *args): return timing.Timing(3e-5*math.prod(size), 1e-6, 'fp32', False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, 'time_training', timed)
        patch.setattr(timing.Pace, '_watch', lambda self: None) # steps are faster here
        yield

@pytest.fixture(scope='module')
def planned(garments, tmp_path_factory, slow_machine):
    "A planned run, and what the command printed"
    out = tmp_path_factory.mktemp('planned')/'run'
    done = train(garments, out, '--minutes', .1, '--seed', 3)
    assert done.returncode == 0, done.stderr
    return out,done.stdout

def test_images_on_a_gpu_are_planned_with_all_their_bytes(monkeypatch):
    asked = []
    monkeypatch.setattr(timing, 'fits_on_gpu', lambda n_bytes, device: asked.append(n_bytes)) # there is no room
    pixels = timing._Pixels((60,45), 1000)
    assert pixels.tensor(torch.device('cuda')) is pixels.images and asked == [1000*60*45*3]

def test_the_plan_comes_first_and_is_recorded(planned):
    run,printed = planned
    recipe = recorded(run)
    labels,plan = printed.splitlines()[:2]
    assert labels.startswith('LabelTable: ') # labels are read before the plan, and images after it
    assert plan.startswith(f'plan: {recipe.arch} × {recipe.width:g}, {recipe.stages}, ') and ' of 0.1 minutes' in plan
    assert recipe.minutes == 0 and recipe.seed == 3 and recipe.tta
    metrics = json.loads((run/'metrics.json').read_text())
    assert metrics['epochs'] == recipe.n_epochs == len((run/'history.csv').read_text().splitlines()) - 1

def test_a_planned_recipe_gives_the_same_weights_without_a_plan(planned, garments, tmp_path):
    run,_ = planned
    assert run_inprocess('train', garments, '--out', tmp_path/'run', '--settings', run/'settings.ini', '--recipe', 'quick').returncode == 0
    assert (tmp_path/'run'/'model.safetensors').read_bytes() == (run/'model.safetensors').read_bytes()

def test_given_keys_are_kept(garments, tmp_path, slow_machine):
    words = '--minutes', .1, '--arch', 'xresnet10', '--width', .25, '--stages', '24x18:1 32x24:2', '--tta', 'no', '--batch-size', 32, '--lr', .002
    done = train(garments, tmp_path/'run', *words)
    assert done.returncode == 0, done.stderr
    recipe = recorded(tmp_path/'run')
    assert (recipe.arch, recipe.width, recipe.stages, recipe.tta, recipe.batch_size, recipe.lr) == ('xresnet10', .25, '24x18:1 32x24:2', False, 32, .002)
    assert recipe.epochs and f'over {recipe.epochs} epochs' in done.stdout

def test_minutes_of_a_recipe_give_way_to_stages(garments, tmp_path, slow_machine):
    settings = tmp_path/'mine.ini'
    settings.write_text('[mine]\nstages = 24x18:1\nminutes = .1\n')
    done = train(garments, tmp_path/'planned', '--settings', settings, '--recipe', 'mine', *SMALL)
    assert done.returncode == 0 and ' of 0.1 minutes' in done.stdout, done.stderr
    for words in (['--stages', '32x24:2'], ['--epochs', 2]):
        run = tmp_path/words[0]
        done = train(garments, run, '--settings', settings, '--recipe', 'mine', *words, *SMALL)
        assert done.returncode == 0 and 'plan:' not in done.stdout, done.stderr
        assert recorded(run).n_epochs == 2 and recorded(run).minutes == 0
    done = train(garments, tmp_path/'gpu', '--recipe', 'gpu', *SMALL, '--stages', '24x18:1', '--batch-size', 32)
    assert done.returncode == 0 and 'plan:' not in done.stdout, done.stderr

def test_resume_does_not_plan_again(planned, garments, tmp_path):
    run,_ = planned
    assert refused(train(garments, run, '--minutes', .1), 'contains a finished run')
    part = tmp_path/'part'
    part.mkdir()
    (part/'settings.ini').write_bytes((run/'settings.ini').read_bytes()) # as a kill leaves it after the plan
    assert refused(train(garments, part, '--minutes', .1), 'contains an unfinished run')
    assert refused(train(garments, part, '--minutes', .1, '--resume', '--lr', .001), 'was started with lr')
    done = train(garments, part, '--minutes', .1, '--resume', '--seed', 3)
    assert done.returncode == 0 and 'plan:' not in done.stdout, done.stderr
    assert (part/'model.safetensors').read_bytes() == (run/'model.safetensors').read_bytes()

def test_folds_share_the_minutes(garments, tmp_path, slow_machine):
    done = train(garments, tmp_path/'run', '--minutes', .12, '--folds', 2, *SMALL)
    assert done.returncode == 0 and ' of 0.06 minutes' in done.stdout and done.stdout.count('plan:') == 1, done.stderr
    assert recorded(tmp_path/'run').stages == recorded(tmp_path/'run'/'fold_2').stages
    plans = [json.loads((tmp_path/o/'plan.json').read_text()) for o in ('run','run/fold_1','run/fold_2')]
    assert plans[0] == plans[1] == plans[2] and plans[0]['minutes'] == .06

def test_the_pace_of_each_fold_is_watched(garments, tmp_path, monkeypatch):
    "Where steps take longer than planned, each fold trains fewer epochs, and the summary says so"
    def slow(self): self.paces,self.elapsed = [] if self.changes else [(14.,1.4)],1.
    monkeypatch.setattr(timing.Pace, '_watch', slow)
    plan = dict(minutes=.5, train_seconds={'24x18': 3., '32x24': 4.}, valid_seconds=1.)
    monkeypatch.setattr(folds, 'plan_run', lambda table, recipe, n: (recipe, plan))
    done = train(garments, tmp_path/'run', '--folds', 2, '--recipe', 'demo', '--stages', '24x18:2 32x24:6', '--batch-size', 32)
    assert done.returncode == 0 and done.stdout.count('steps take 1.40 times as long as planned') == 2, done.stdout + done.stderr
    metrics = json.loads((tmp_path/'run'/'metrics.json').read_text())
    changes = metrics['plan']['changes']
    assert [o['fold'] for o in changes] == [1,2] and {o['epochs'] for o in changes} == {json.loads((tmp_path/'run'/'fold_1'/'metrics.json').read_text())['epochs']}
    assert changes[0]['epochs'] < 8

def test_what_cannot_be_planned(garments, tmp_path, slow_machine):
    assert refused(train(garments, tmp_path/'run', '--minutes', 1e-6), '1e-06 minutes are too few: an epoch of 160 images at 24x18 would take 0.')
    assert refused(train(garments, tmp_path/'run', '--minutes', .01, '--epochs', 90), '0.01 minutes are too few: 90 epochs of 160 images at ')
    assert refused(train(garments, tmp_path/'run', '--minutes', -1), 'minutes is -1.0, but should be at least 0')
    assert refused(train(garments, tmp_path/'run', '--minutes', 'soon'), "minutes is 'soon', not a number")
    assert not (tmp_path/'run').exists()

def test_an_lr_find_of_a_planned_network(garments, tmp_path, slow_machine):
    done = run_inprocess('lr-find', garments, '--minutes', .1, '--precision', 'fp32', *SMALL)
    assert done.returncode == 0 and '\nplan: ' in done.stdout and 'suggested learning rate' in done.stdout, done.stderr

@pytest.mark.slow
def test_several_processes_train_one_plan(garments, tmp_path):
    done = run_cli('train', garments, '--out', tmp_path/'run', '--minutes', .1, '--processes', 2, *SMALL, *KEYS)
    assert done.returncode == 0 and done.stdout.count('plan:') == 1, done.stdout + done.stderr
    metrics = json.loads((tmp_path/'run'/'metrics.json').read_text())
    planned = [recorded(tmp_path/'run').n_epochs, *(o['epochs'] for o in metrics['plan']['changes'])] # by a machine that slows down
    assert metrics['epochs'] == planned[-1] == len((tmp_path/'run'/'history.csv').read_text().splitlines()) - 1

def test_files_are_timed_where_there_is_no_cache(garments, monkeypatch):
    "And a cache that does not fit into memory costs the time of its disk"
    table,size = read_labels(garments),(24,18)
    opened,load = [],timing.recipe_learner
    def learner(table, recipe, packed, *args):
        opened.append(packed is None)
        return load(table, recipe, packed, *args)
    monkeypatch.setattr(timing, 'recipe_learner', learner)
    for cache in ('auto','no'): time_training(table, read_recipe('demo', None, precision='fp32', cache=cache, workers=0), size, .05)
    assert opened == [False,True]
    monkeypatch.setattr(timing, '_free_bytes', lambda: 0)
    assert timing._disk_seconds(1000, (80,60), 'auto') > 0

def test_a_cache_that_cannot_be_written_is_planned_for(garments, tmp_path, monkeypatch, slow_machine):
    (tmp_path/'file').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'file'))
    done = train(garments, tmp_path/'run', '--minutes', .1, *SMALL)
    assert done.returncode == 0 and done.stdout.count('plan:') == 2 and 'planning again' in done.stdout, done.stderr
    assert recorded(tmp_path/'run').cache == 'no'

def test_narrow_images_can_be_planned(tmp_path, slow_machine):
    from PIL import Image
    data = draw_garments(tmp_path/'garments', n=60)
    for o in data.rglob('*.jpg'): Image.open(o).resize((2,600)).save(o)
    table = read_labels(data)
    assert typical_size(table.images) == (300,1)
    recipe = plan_training(table, .05, read_recipe('quick', None, precision='fp32', minutes=.05)).recipe
    assert recipe.sizes[-1][0][1] >= 1

def test_given_keys_that_a_plan_once_lost(garments, tmp_path, slow_machine):
    done = train(garments, tmp_path/'auto', '--minutes', .1, '--epochs', 'auto', *SMALL)
    assert done.returncode == 0 and 'plan:' in done.stdout, done.stderr
    done = train(garments, tmp_path/'size', '--minutes', .1, '--test-size', '96x72', *SMALL)
    assert done.returncode == 0 and recorded(tmp_path/'size').test_size == '96x72', done.stderr
    metrics = json.loads((tmp_path/'size'/'metrics.json').read_text())
    assert metrics['size'] == [96,72]

def test_a_plan_stands_if_half_the_batch_does_not_fit(garments, monkeypatch):
    def timed(table, recipe, size, seconds, world):
        assert world == 1 # process, unless it is told
        return timing.Timing(size[0]*size[1]*1e-6*(64/recipe.batch_size)**4, 1e-6, 'fp32', False)
    monkeypatch.setattr(plan, 'time_training', timed)
    table = read_labels(garments)
    minutes = 1.01*160*24*18*1e-6/60 # for one epoch of the smallest images, in batches of 64
    assert plan_training(table, minutes, read_recipe('quick', None, minutes=minutes)).recipe.batch_size == 64

def test_images_are_mixed_where_a_plan_has_many_epochs(garments, tmp_path, monkeypatch, capsys):
    def timed(table, recipe, size, *args): return timing.Timing(1e-6*size[0]*size[1], 1e-6, 'fp32', False)
    monkeypatch.setattr(plan, 'time_training', timed)
    monkeypatch.setattr(search, 'MANY_EPOCHS', .2) # 71 epochs of 160 images
    def planned(minutes, settings=None, **keys):
        recipe = plan_recipe(read_labels(garments), minutes, settings=settings, **keys)
        return recipe.n_epochs,recipe.cutmix,'CutMix in 50% of batches' in capsys.readouterr().out
    assert planned(.05)[1:] == (0, False) and planned(.05)[0] < 71
    assert planned(1) == (100, .5, True)
    assert planned(1, cutmix=.1)[1:] == (.1, False) and planned(1, mixup=.2)[1:] == (0, False)
    settings = tmp_path/'mine.ini'
    for key,share in (('cutmix', .3), ('mixup', 0.)): # what a settings file mixes stays as it is
        settings.write_text(f'[quick]\n{key} = .3\n')
        assert planned(1, settings)[1:] == (share, False)

def test_what_cannot_be_trained_is_refused_before_anything_is_read(garments, tmp_path, monkeypatch):
    def fail(*args): raise AssertionError('labels were read')
    monkeypatch.setattr(core, 'read_split', fail)
    for words,reason in ((['--arch','vgg'], "arch 'vgg' is not known"), (['--corrections','none.csv'], 'none.csv: cannot be read'),
        (['--stages','2400x1800:1'], 'are too large'), (['--cache', garments/'train.csv'], 'images cannot be packed here')):
        assert refused(train(garments, tmp_path/'run', *words), reason)

def test_what_was_measured_is_recorded_and_repeated(garments, tmp_path, monkeypatch):
    words = '--recipe','demo','--stages','24x18:1','--batch-size',32
    assert train(garments, tmp_path/'run', *words).returncode == 0
    first = recorded(tmp_path/'run')
    assert first.channels_last in (False,True) and first.compile is False
    given = train(garments, tmp_path/'other', *words, '--channels-last', 'no' if first.channels_last else 'yes')
    assert given.returncode == 0 and recorded(tmp_path/'other').channels_last is not first.channels_last

def test_fewer_images_than_a_batch_can_be_timed(tmp_path):
    few = read_labels(draw_garments(tmp_path/'garments', n=12))
    timing = time_training(few, read_recipe('demo', None, precision='fp32', tta='yes'), (24,18), seconds=.05)
    assert timing.train >= 0 and timing.valid >= 0

def test_sizes_of_large_turned_and_missing_images(tmp_path):
    from PIL import Image
    from fashion_fastai.train.search import typical_size
    Image.new('RGB', (4000,3000)).save(tmp_path/'large.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (80,60)).save(tmp_path/'turned.jpg', exif=exif)
    assert typical_size([tmp_path/'large.png']) == (225,300)
    assert typical_size([tmp_path/'turned.jpg', tmp_path/'missing.jpg']) == (80,60)
    with pytest.raises(InputError, match='could be opened'): typical_size([tmp_path/'missing.jpg'])

def test_a_plan_keeps_what_is_given(garments, slow_machine):
    table,keys = read_labels(garments),dict(settings=None, precision='fp32')
    kept = plan_recipe(table, .5, stages='24x18:1 32x24:1', arch='xresnet10', tta='no', batch_size=32, **keys)
    assert (kept.stages, kept.arch, kept.tta, kept.batch_size) == ('24x18:1 32x24:1', 'xresnet10', False, 32) and kept.epochs > 2
    few = plan_recipe(table, .1, epochs=3, lr=.002, **keys)
    assert (few.n_epochs, few.lr) == (3, .002)

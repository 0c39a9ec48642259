"Trainings that are planned for some minutes: from the command line to the run"
import json
from types import SimpleNamespace
import pytest
from conftest import refused,run_cli,run_inprocess
from fashion_fastai.recipes import read_recipe,read_recorded_recipe
from fashion_fastai.train.core import planned_recipe

KEYS = ['--precision','fp32','--report','no','--workers',1]

def train(garments, out, *words): return run_inprocess('train', garments, '--out', out, *KEYS, *words)

def recorded(run): return read_recorded_recipe(run/'settings.ini')[1]

@pytest.fixture(scope='module')
def planned(garments, tmp_path_factory):
    "A planned run, and what the command printed"
    out = tmp_path_factory.mktemp('planned')/'run'
    done = train(garments, out, '--minutes', .1, '--seed', 3)
    assert done.returncode == 0, done.stderr
    return out,done.stdout

def test_the_plan_comes_first_and_is_recorded(planned):
    run,printed = planned
    recipe = recorded(run)
    assert printed.startswith(f'plan: {recipe.arch} × {recipe.width:g}, {recipe.stages}, ') and ' of 0.1 minutes' in printed.splitlines()[0]
    assert recipe.minutes == 0 and recipe.seed == 3 and recipe.tta
    metrics = json.loads((run/'metrics.json').read_text())
    assert metrics['epochs'] == recipe.n_epochs == len((run/'history.csv').read_text().splitlines()) - 1

def test_a_planned_recipe_gives_the_same_weights_without_a_plan(planned, garments, tmp_path):
    run,_ = planned
    assert run_inprocess('train', garments, '--out', tmp_path/'run', '--settings', run/'settings.ini', '--recipe', 'quick').returncode == 0
    assert (tmp_path/'run'/'model.safetensors').read_bytes() == (run/'model.safetensors').read_bytes()

def test_given_keys_are_kept(garments, tmp_path):
    words = '--minutes', .1, '--arch', 'xresnet10', '--width', .25, '--stages', '24x18:1 32x24:2', '--tta', 'no', '--batch-size', 32, '--lr', .002
    done = train(garments, tmp_path/'run', *words)
    assert done.returncode == 0, done.stderr
    recipe = recorded(tmp_path/'run')
    assert (recipe.arch, recipe.width, recipe.stages, recipe.tta, recipe.batch_size, recipe.lr) == ('xresnet10', .25, '24x18:1 32x24:2', False, 32, .002)
    assert recipe.epochs and f'over {recipe.epochs} epochs' in done.stdout

def test_minutes_of_a_recipe_give_way_to_stages(garments, tmp_path):
    settings = tmp_path/'mine.ini'
    settings.write_text('[mine]\nstages = 24x18:1\nminutes = .1\n')
    done = train(garments, tmp_path/'planned', '--settings', settings, '--recipe', 'mine')
    assert done.returncode == 0 and ' of 0.1 minutes' in done.stdout, done.stderr
    for words in (['--stages', '32x24:2'], ['--epochs', 2]):
        run = tmp_path/words[0]
        done = train(garments, run, '--settings', settings, '--recipe', 'mine', *words)
        assert done.returncode == 0 and 'plan:' not in done.stdout, done.stderr
        assert recorded(run).n_epochs == 2 and recorded(run).minutes == 0
    done = train(garments, tmp_path/'gpu', '--recipe', 'gpu', '--arch', 'xresnet10', '--width', .25, '--stages', '24x18:1', '--batch-size', 32)
    assert done.returncode == 0 and 'plan:' not in done.stdout, done.stderr
    kept = planned_recipe(garments, read_recipe('gpu', None), processes=SimpleNamespace(is_alone=False))
    assert (kept.minutes, kept.stages) == (0, '128x96:20 192x144:10')

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

def test_folds_share_the_minutes(garments, tmp_path):
    done = train(garments, tmp_path/'run', '--minutes', .12, '--folds', 2)
    assert done.returncode == 0 and ' of 0.06 minutes' in done.stdout and done.stdout.count('plan:') == 1, done.stderr
    assert recorded(tmp_path/'run').stages == recorded(tmp_path/'run'/'fold_2').stages

def test_what_cannot_be_planned(garments, tmp_path):
    assert refused(train(garments, tmp_path/'run', '--minutes', 1e-6), '1e-06 minutes are too few: an epoch of 160 images at 24x18 would take 0.')
    assert refused(train(garments, tmp_path/'run', '--minutes', .01, '--epochs', 90), '0.01 minutes are too few: 90 epochs of 160 images at ')
    assert refused(train(garments, tmp_path/'run', '--minutes', -1), 'minutes is -1.0, but should be at least 0')
    assert refused(train(garments, tmp_path/'run', '--minutes', 'soon'), "minutes is 'soon', not a number")
    assert not (tmp_path/'run').exists()

def test_an_lr_find_of_a_planned_network(garments, tmp_path):
    done = run_inprocess('lr-find', garments, '--minutes', .1, '--precision', 'fp32')
    assert done.returncode == 0 and done.stdout.startswith('plan: ') and 'suggested learning rate' in done.stdout, done.stderr

def test_several_processes_are_refused_with_one_line(garments, tmp_path):
    done = run_cli('train', garments, '--out', tmp_path/'run', '--minutes', .1, '--processes', 2, *KEYS)
    assert refused(done, 'a training in several processes cannot be planned; give it stages in place of minutes')

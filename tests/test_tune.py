"`fashion tune`: the search chooses on training images alone, continues after a kill, and calls noise noise"
import json,re
from dataclasses import replace
from types import SimpleNamespace
import numpy as np,pandas as pd,pytest
from conftest import run_inprocess
from fashion_fastai.core import InputError
from fashion_fastai.data.read import read_data
from fashion_fastai.recipes.settings import add_recipe,read_recipe
from fashion_fastai.train import tune as module
from fashion_fastai.train.tune import TUNABLE,TunePlan,gain_of,plan_tuning,rung_epochs,sample_trials,search_split,tune

RECIPE = dict(stages='32x24:3', cache='no')

def test_trials_begin_with_the_recipe_and_are_valid():
    recipe = read_recipe('quick')
    trials = sample_trials(recipe, list(TUNABLE), 40)
    assert trials[0] == {key: getattr(recipe, key) for key in TUNABLE} and trials == sample_trials(recipe, list(TUNABLE), 40)
    for o in trials: read_recipe('quick', **{k: v for k,v in o.items()}) # each is valid
    rates = np.log([o['lr'] for o in trials[1:]])
    assert rates.min() < np.log(.006/4) and rates.max() > np.log(.006*4) and {o['stem'] for o in trials} == {'xresnet','whitened'}
    with pytest.raises(InputError, match="key 'seed' cannot be tuned; choose from lr"): sample_trials(recipe, ['lr','seed'], 3)

def test_the_plan_fits_into_the_minutes():
    recipe = read_recipe('quick')
    assert rung_epochs(10) == [1,3,10] and rung_epochs(2) == [1,2] and rung_epochs(1) == [1]
    for minutes in (10, 30, 60, 600):
        plan = plan_tuning(recipe, minutes, .2)
        search,comparison = np.dot(plan.trials, plan.epochs)*.2,4*plan.epochs[-1]*.2
        assert comparison <= .4*minutes and search <= .75*minutes and plan.trials == sorted(plan.trials, reverse=True), minutes
    assert plan.epochs[-1] == 10 # of the recipe, and no more
    for epochs,least in ((10, 5), (1, 5)):
        short = replace(recipe, epochs=epochs)
        with pytest.raises(InputError, match=f'2 minutes are too few to tune: an epoch takes 0.5; give at least {least}$'): plan_tuning(short, 2, .5)
        assert plan_tuning(short, least, .5).trials[0] >= 3

def test_the_search_sees_no_validation_image(garments):
    run_data = read_data(garments, read_recipe('demo', **RECIPE))
    searched,table = search_split(run_data).table,run_data.table
    validation = set(table.frame.file_path[table.is_valid])
    assert validation and not validation & set(searched.frame.file_path) and len(searched) == (~table.is_valid).sum()
    assert .1 < searched.is_valid.mean() < .2 and (searched.categories == table.categories[~table.is_valid]).all()

class Fake:
    "Stands in for trainings: a trial's score is a function of its settings"
    def __init__(self, monkeypatch, score, noise=.3):
        self.trained,self.score,self.noise = [],score,noise
        monkeypatch.setattr(module, 'train_run', self.train)
        monkeypatch.setattr(module.FashionInterpretation, 'load', self.load)

    def train(self, data, out, recipe, resume, run_data):
        self.trained.append((out, recipe, run_data.table))
        score = self.score(recipe)
        metrics = dict(accuracy=score, mean_f1=score, minutes=.01*recipe.epochs)
        (out/'settings.json').write_text(json.dumps(dict(score=score, seed=recipe.seed)))
        (out/'metrics.json').write_text(json.dumps(metrics))

    def load(self, path):
        content = json.loads((path.parent/'settings.json').read_text())
        values = content['score'] + self.noise*np.random.default_rng(content['seed']).standard_normal(300)
        return SimpleNamespace(is_correct=values, f1_per_image=values)

def around(best): return lambda recipe: .9 - .1*abs(np.log(recipe.lr/best))

def test_the_best_settings_are_found_and_written(garments, tmp_path, monkeypatch):
    fake = Fake(monkeypatch, around(.02))
    words = ['tune', garments, '--keys', 'lr', '--minutes', '2', '--recipe', 'demo', '--stages', '32x24:9', '--cache', 'no', '--out', tmp_path/'tune']
    done = run_inprocess(*words, cwd=tmp_path)
    assert done.returncode == 0 and 'more than noise' in done.stdout, done.stderr
    tuned = read_recipe('tuned', tmp_path/'settings.ini')
    assert tuned.lr == pytest.approx(.02, rel=.15) and tuned.stages == '32x24:9' and tuned.arch == 'xresnet10'
    table = pd.read_csv(tmp_path/'tune'/'tune.csv')
    n = table.groupby('rung').size().tolist()
    assert n[0] > n[1] > n[2] >= 1 and (tmp_path/'tune'/'tune.png').stat().st_size > 5000
    assert table[table.trial == 0].rung.tolist() == [1,2,3] # the recipe is in each rung
    comparison = [(o.parent.name == 'comparison', recipe.seed, len(t)) for o,recipe,t in fake.trained]
    assert {seed for is_last,seed,_ in comparison if is_last} == {43,44} and {seed for is_last,seed,_ in comparison if not is_last} == {42}
    assert len({n for is_last,_,n in comparison}) == 2 # all training images only at the end

def test_noise_is_called_noise_and_changes_no_settings(garments, tmp_path, monkeypatch):
    def luck(recipe): return .5 + .02*np.random.default_rng([recipe.seed, int(1e6*recipe.lr)]).standard_normal()
    Fake(monkeypatch, luck)
    done = run_inprocess('tune', garments, '--keys', 'lr,wd', '--minutes', '1', '--recipe', 'demo', '--stages', '32x24:3', '--cache', 'no', '--out', 'tune', cwd=tmp_path)
    assert done.returncode == 0 and 'this is noise: keep the recipe' in done.stdout, done.stdout + done.stderr
    assert not (tmp_path/'settings.ini').exists()

def test_a_killed_search_continues_where_it_was(garments, tmp_path, monkeypatch):
    fake = Fake(monkeypatch, around(.02))
    recipe = read_recipe('demo', **RECIPE)
    whole = tune(garments, tmp_path/'whole', recipe, ['lr'], 1)
    n,train = len(fake.trained),fake.train
    def killed(data, out, *args, **kwargs):
        if len(fake.trained) == n + 5: raise KeyboardInterrupt
        train(data, out, *args, **kwargs)
    monkeypatch.setattr(module, 'train_run', killed)
    with pytest.raises(KeyboardInterrupt): tune(garments, tmp_path/'killed', recipe, ['lr'], 1)
    def resumed(data, out, recipe, resume, run_data):
        assert resume # a trial that was killed in an epoch continues there
        train(data, out, recipe, resume, run_data)
    monkeypatch.setattr(module, 'train_run', resumed)
    assert tune(garments, tmp_path/'killed', recipe, ['lr'], 1) == whole and len(fake.trained) == 2*n # nothing was trained twice
    assert pd.read_csv(tmp_path/'killed'/'tune.csv').equals(pd.read_csv(tmp_path/'whole'/'tune.csv'))
    with pytest.raises(InputError, match='contains another search'): tune(garments, tmp_path/'killed', recipe, ['wd'], 1)

def test_settings_are_numbers_however_they_are_written(garments, tmp_path, monkeypatch):
    "1 of Python is 1.0 of a settings file"
    Fake(monkeypatch, around(.02))
    found = [tune(garments, tmp_path/'tune', read_recipe('demo', width=o, **RECIPE), ['lr'], minutes) for o,minutes in ((1, 1), (1., 1.))]
    assert found[0] == found[1]

def test_the_best_settings_are_trained_as_they_were_compared(garments, tmp_path, monkeypatch):
    "Without the plan of recipe gpu, which would choose another network and other stages"
    Fake(monkeypatch, around(.03))
    recipe = read_recipe('gpu', cache='no')
    tune(garments, tmp_path/'tune', recipe, ['lr'], 20)
    tuned = read_recipe('tuned', tmp_path/'tune'/'best.ini')
    assert recipe.is_planned and not tuned.is_planned and (tuned.stages, tuned.batch_size) == (recipe.stages, recipe.batch_size)

def test_a_final_fit_is_not_tuned(garments, tmp_path):
    with pytest.raises(InputError, match='a final fit cannot be tuned'): tune(garments, tmp_path, read_recipe('demo', final='run'), ['lr'], 1)

@pytest.mark.slow
def test_a_network_that_the_parent_does_not_have_loses(run, garments, tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'plan_tuning', lambda *args: TunePlan([1], [3]))
    recipe = read_recipe('demo', parent=str(run), stages='24x18:1', rule='fixed')
    tune(garments, tmp_path/'tune', recipe, ['arch'], 60)
    table = pd.read_csv(tmp_path/'tune'/'tune.csv').set_index('arch')
    assert table.score.notna().to_dict() == {o: o == 'xresnet10' for o in table.index} and len(table) > 1

def test_a_trial_that_diverges_loses(garments, tmp_path, monkeypatch):
    fake = Fake(monkeypatch, around(.006))
    train = fake.train
    def diverging(data, out, recipe, *args, **kwargs):
        if recipe.lr > .01: raise InputError('training diverged')
        train(data, out, recipe, *args, **kwargs)
    monkeypatch.setattr(module, 'train_run', diverging)
    gain = tune(garments, tmp_path/'tune', read_recipe('demo', **RECIPE), ['lr'], 1)
    table = pd.read_csv(tmp_path/'tune'/'tune.csv')
    assert gain.values['lr'] <= .01 and table[table.lr > .01].score.isna().all() and table.lr.max() > .01

def test_a_fault_of_the_recipe_itself_ends_the_search(garments, tmp_path, monkeypatch):
    def failing(*args, **kwargs): raise InputError('out of memory')
    monkeypatch.setattr(module, 'train_run', failing)
    with pytest.raises(InputError, match='out of memory'): tune(garments, tmp_path/'tune', read_recipe('demo', **RECIPE), ['lr'], 1)

def test_gains_are_noise_unless_images_and_seeds_agree():
    rng = np.random.default_rng(0)
    def gains(*means): return [dict(accuracy=rng.normal(o, .1, 1000), mean_f1=rng.normal(o, .1, 1000)) for o in means]
    assert not gain_of(gains(.05, .05), {}).is_noise and gain_of(gains(0., 0.), {}).is_noise
    assert gain_of(gains(.05, -.03), {}).is_noise # the seeds contradict each other
    only = [dict(accuracy=np.full(100, np.nan), mean_f1=rng.normal(.05, .1, 100)) for _ in range(2)]
    assert list(gain_of(only, {}).scores) == ['mean_f1']

def test_a_recipe_is_added_to_settings_that_are_kept(tmp_path):
    file,recipe = tmp_path/'settings.ini',read_recipe('quick', lr=.01, attribute_weight='auto')
    file.write_text('# mine\n[DEFAULT]\nwd = 0.05\n')
    add_recipe(SimpleNamespace(name='tuned', settings=recipe.settings), file)
    text = file.read_text()
    assert text.startswith('# mine\n[DEFAULT]\nwd = 0.05\n\n[tuned]\n') and read_recipe('tuned', file) == recipe
    with pytest.raises(InputError, match="there is a recipe 'tuned' already"): add_recipe(SimpleNamespace(name='tuned', settings=recipe.settings), file)
    assert file.read_text() == text

@pytest.mark.slow
def test_a_real_search(garments, tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'plan_tuning', lambda *args: TunePlan([1,2], [3,1])) # however slow the machine is
    words = ['tune', garments, '--keys', 'lr,stem', '--minutes', '60', '--recipe', 'demo', '--stages', '24x18:2', '--rule', 'fixed', '--out', 'tune']
    done = run_inprocess(*words, cwd=tmp_path)
    assert done.returncode == 0 and re.search('on the validation images, over 2 seeds|keep the recipe', done.stdout), done.stderr
    runs = run_inprocess('runs', tmp_path/'tune')
    assert runs.returncode == 0 and 'rung_1/trial_01' in runs.stdout

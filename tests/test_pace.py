"Plans by value, without a training: what is expected, which stages fit, and how a plan follows the real speed"
import math
from dataclasses import replace
from types import SimpleNamespace
import numpy as np
import pytest
from fashion_fastai.callback.progressive import ProgressiveResize
from fashion_fastai.core import InputError
from fashion_fastai.recipes.settings import read_recipe
from fashion_fastai.train import plan,timing
from fashion_fastai.train.plan import NETWORKS,better_batch_size,with_batch_size
from fashion_fastai.train.search import Candidate,Search,expected_deficit,possible_sizes,two_stages,useful_epochs
from fashion_fastai.train.timing import Pace,Timing

def test_epochs_and_deficits_are_those_of_the_study():
    assert useful_epochs(13_800) == 22.5 and useful_epochs(1_380) == pytest.approx(22.5*10**.62)
    assert expected_deficit(1, 22.5, 13_800) == 2 and expected_deficit(.5, 11.25, 13_800) == 6

@pytest.mark.parametrize('size, epochs, stages', [((80,60), 10, [((53,40), 4), ((80,60), 6)]), ((80,60), 2, [((80,60), 2)]), ((80,60), 3, [((53,40), 1), ((80,60), 2)]),
    ((1,1), 5, [((1,1), 2), ((1,1), 3)]), ((300,2), 5, [((200,1), 2), ((300,2), 3)])])
def test_two_fifths_of_the_epochs_are_at_two_thirds_of_the_size(size, epochs, stages): assert two_stages(size, epochs) == stages

@pytest.mark.parametrize('own_size, sizes', [((80,60), [(h, round(h*.75)) for h in (*range(24, 80, 4), 80)]), ((26,13), [(24,12), (26,13)]), ((24,18), [(24,18)]), ((20,30), [(20,30)]),
    ((60,1), [(h, 1) for h in (*range(24, 60, 4), 60)])])
def test_sizes_go_up_to_the_images_own(own_size, sizes): assert possible_sizes(own_size) == sizes

def pixels(size, n=1e-6): return Timing(train=size[0]*size[1]*n, valid=size[0]*size[1]*n/4, precision='fp32')

def test_a_training_of_one_epoch_is_a_plan():
    search = Search((80,60), 1000, 100, pixels)
    least = search.candidate((24,18), 1)
    assert least.stages == [((24,18), 1)] and least.seconds == pytest.approx((1000 + 100/4)*24*18e-6)
    assert search.best(least.seconds*1.001) == least and search.best(least.seconds*.999) is None

@pytest.mark.parametrize('seconds', [3, 20, 90, 700])
@pytest.mark.parametrize('n_train', [300, 5000])
def test_the_best_plan_is_the_best_of_all_that_fit(seconds, n_train):
    search = Search((80,60), n_train, 100, pixels)
    fitting = []
    for height in (*range(24, 80, 4), 80):
        for epochs in range(1, 101):
            size,first = (height, round(height*.75)),epochs*2//5
            small = (height*2//3)*(size[1]*2//3)*first
            taken = (n_train*(small + math.prod(size)*(epochs - first)) + 100*epochs*math.prod(size)/4)*1e-6
            if taken <= seconds: fitting.append((expected_deficit(height/80, epochs, n_train), epochs, height, taken))
    best = search.best(seconds)
    assert (best.deficit, best.epochs, best.stages[-1][0][0], best.seconds) == pytest.approx(min(fitting)) and best.scale == best.stages[-1][0][0]/80

def test_what_a_recipe_gives_is_kept_in_the_search():
    recipe = read_recipe('quick', None, stages='16x12:1')
    def search(**given): return Search((80,60), 1000, 100, pixels, replace(recipe, given=tuple(given), **given))
    assert {o.epochs for o in [search(epochs=3).best(o) for o in (20, 200)]} == {3}
    by_size = search(test_size='40x30')
    assert [by_size.sizes[0], by_size.sizes[-1], by_size.test_size] == [(24,18), (40,30), (40,30)]
    assert by_size.candidate((24,18), 1).seconds == pytest.approx(1000*24*18e-6 + 100*40*30e-6/4)
    staged = search(stages='24x18:1 32x24:3').best(30)
    assert [o for o,_ in staged.stages] == [(24,18), (32,24)] and [n for _,n in staged.stages] == pytest.approx([staged.epochs/4, staged.epochs*3/4])
    with pytest.raises(InputError, match='test_size 20x15 is too small'): search(test_size='20x15')
    assert search(test_size='auto').sizes == possible_sizes((80,60))

@pytest.mark.parametrize('batch_size, steps, size, better', [(64, 599, (80,60), 32), (64, 600, (80,60), 64), (32, 10, (80,60), 32), (128, 599, (80,60), 64), (63, 10, (80,60), 63),
    (64, 1600, (56,42), 128), (64, 1599, (56,42), 64), (64, 1600, (57,42), 64), (65, 1600, (56,42), 65), (32, 1600, (56,42), 64)])
def test_batches_suit_the_steps_and_the_images(batch_size, steps, size, better, monkeypatch):
    monkeypatch.setattr(plan, 'compute_device', lambda: SimpleNamespace(type='cpu'))
    recipe = read_recipe('quick', None, batch_size=batch_size, optimizer='muon')
    candidate = Candidate([((24,18), 1), (size, 9)], 1., 10, 0., 0.)
    n_train = steps*batch_size/10
    assert better_batch_size(recipe, candidate, n_train) == better
    if better > batch_size: # each condition counts
        monkeypatch.setattr(plan, 'compute_device', lambda: SimpleNamespace(type='cuda'))
        assert better_batch_size(recipe, candidate, n_train) == batch_size
        monkeypatch.undo()
        assert better_batch_size(read_recipe('quick', None, batch_size=batch_size, optimizer='adam'), candidate, n_train) == batch_size

def test_the_learning_rate_follows_the_root_of_the_batch():
    recipe = read_recipe('quick', None, batch_size=64, lr=.004)
    assert [with_batch_size(recipe, o).lr for o in (16, 64, 256)] == [.002, .004, .008] and with_batch_size(recipe, 16).batch_size == 16
    assert NETWORKS == [('xresnet18', .5), ('xresnet18', 1.), ('xresnet34', 1.), ('xresnet50', 1.)]

class Training:
    "A training of a plan with a clock of its own, whose steps take `factor` times as long as planned; the first two take longer"
    def __init__(self, monkeypatch, factor, minutes=2.2, stages=(((24,18), 4), ((32,24), 8)), n_batches=20, **planned):
        self.factor,self.now = factor,100.
        self.patch = monkeypatch
        self.seconds = planned or {'24x18': 6., '32x24': 10.}
        self.pace = Pace(minutes, self.seconds, 2.)
        self.n_batches,self.resize,self.rates,self.sizes = n_batches,ProgressiveResize(list(stages)),[],[]
        self.pace.learn = self.learn = SimpleNamespace(n_epoch=round(sum(n for _,n in stages)), epoch=0, pct_train=0., training=True,
            progressive_resize=self.resize, dls=SimpleNamespace(train=range(n_batches)))

    def run(self, epochs=None):
        pace,learn,start = self.pace,self.learn,self.now
        self.patch.setattr(timing.time, 'perf_counter', lambda: self.now)
        if not learn.epoch: pace.before_fit()
        while learn.epoch < learn.n_epoch and (epochs is None or learn.epoch < epochs):
            learn.pct_train = learn.epoch/learn.n_epoch
            pace.before_train()
            for learn.iter in range(self.n_batches):
                learn.pct_train = (learn.epoch + learn.iter/self.n_batches)/learn.n_epoch
                pace.before_batch()
                self.rates.append(learn.pct_train)
                size = self.resize.size_at((learn.epoch + learn.iter/self.n_batches)/learn.n_epoch)
                self.sizes.append(size)
                self.now += self.factor*self.seconds[f'{size[0]}x{size[1]}']/self.n_batches*(1 + .5*(learn.iter < 2))
                pace.after_batch()
            self.now += self.factor*2
            pace.after_epoch()
            learn.epoch += 1
        pace.after_fit()
        return self.now - start

@pytest.mark.parametrize('factor', [.5, .8, 1.25, 1.5, 1.8])
def test_a_plan_whose_steps_take_another_time_is_planned_again_and_ends_in_its_time(factor, monkeypatch, capsys):
    training = Training(monkeypatch, factor)
    taken = training.run()
    [change] = training.learn.plan_changes
    assert change['factor'] == pytest.approx(factor, abs=.01) and change['epochs'] == training.learn.n_epoch and change['epoch'] <= 4
    assert f"take {factor:.2f} times as long as planned: {change['epochs']} epochs in place of 12" in capsys.readouterr().out
    assert 132 - factor*14 < taken < 132*1.04 # one epoch more would not fit; the first steps of each epoch are slower
    assert training.rates == sorted(training.rates) and training.rates[-1] == pytest.approx(1 - 1/len(training.rates), abs=.03)
    assert training.sizes == sorted(training.sizes) and training.sizes[-1] == (32,24)
    n_small,n_large = (training.sizes.count(o)/20 for o in ((24,18), (32,24)))
    assert n_large >= n_small - change['epoch'] and (n_small == 4 or factor > 1)

@pytest.mark.parametrize('factor', [.9, 1., 1.1])
def test_a_small_difference_changes_no_plan(factor, monkeypatch):
    training = Training(monkeypatch, factor)
    training.run()
    assert training.learn.plan_changes == [] and training.learn.n_epoch == 12 and training.sizes.count((24,18)) == 80

def test_few_seconds_change_no_plan(monkeypatch):
    short = Training(monkeypatch, 1.5, minutes=.2, **{'24x18': .6, '32x24': 1.})
    short.pace.valid_seconds = .2
    short.run(8) # ten seconds are not watched yet
    assert short.learn.plan_changes == []

def test_a_machine_that_slows_down_in_the_second_half_still_ends_in_time(monkeypatch):
    late = Training(monkeypatch, 1., minutes=4., stages=(((24,18), 8), ((32,24), 16)))
    late.run(16)
    assert late.learn.plan_changes == []
    late.factor = 3.
    late.run()
    assert late.learn.n_epoch < 24 and late.now - 100 < 240 + 3*12 # an epoch

def test_a_short_disturbance_changes_no_plan(monkeypatch):
    "Four slow steps in twenty are not the speed of the machine"
    disturbed = Training(monkeypatch, 1.)
    look = disturbed.pace.after_batch
    def after_batch():
        if disturbed.learn.epoch < 3 and 6 <= disturbed.learn.iter < 10: disturbed.now += .6 # three times as slow
        look()
    disturbed.pace.after_batch = after_batch
    disturbed.run(5)
    assert disturbed.learn.plan_changes == [] and disturbed.learn.n_epoch == 12

def test_a_change_is_followed_after_a_resume(monkeypatch):
    whole = Training(monkeypatch, 1.5)
    whole.run()
    half,rest = Training(monkeypatch, 1.5),Training(monkeypatch, 1.5)
    half.run(4)
    rest.pace.before_fit()
    for name in Pace.state_attrs: setattr(rest.pace, name, getattr(half.pace, name))
    rest.learn.epoch = 4
    rest.pace.restored()
    assert rest.learn.n_epoch == whole.learn.n_epoch and rest.pace.train_seconds == half.pace.train_seconds and rest.pace.valid_seconds == half.pace.valid_seconds
    rest.run()
    assert [*half.rates, *rest.rates] == whole.rates and [*half.sizes, *rest.sizes] == whole.sizes
    for wrong in ([12, .5, 12, half.pace.change[3]], [-1, .5, 12, half.pace.change[3]], [1, 1.5, 12, half.pace.change[3]], [1, .5, 12, [[[9,9], 1]]], [1, .5, 10**6 + 1, half.pace.change[3]]):
        rest.pace.change = wrong
        with pytest.raises(ValueError, match='a plan of'): rest.pace.restored()

class Table:
    "As much of a label table as a plan needs"
    def __init__(self, n, n_valid): self.images,self.is_valid = [],np.arange(n) < n_valid
    def __len__(self): return len(self.is_valid)

COST = {('xresnet18', .5): 1., ('xresnet18', 1.): 3., ('xresnet34', 1.): 6., ('xresnet50', 1.): 9.}

@pytest.fixture
def planner(monkeypatch):
    "Plans for a machine that takes a microsecond per pixel with the smallest network; returns (table, minutes, …) -> plan, and what was timed"
    timed = []
    def time_training(table, recipe, size, seconds, world):
        timed.append((recipe.arch, recipe.width, size, recipe.batch_size, recipe.precision, world))
        cost = COST.get((recipe.arch, recipe.width), 1.)*math.prod(size)*1e-6
        return Timing(cost*(100/recipe.batch_size)**gpu['gain'], cost/4, 'bf16', True)
    gpu = dict(gain=0.)
    monkeypatch.setattr(plan, 'time_training', time_training)
    monkeypatch.setattr(plan, 'typical_size', lambda images: (80,60))
    monkeypatch.setattr(plan, 'compute_device', lambda: SimpleNamespace(type='cuda' if gpu['gain'] else 'cpu'))
    def make(minutes, table=Table(1100, 100), world=1, gain=0., **given):
        gpu['gain'] = gain
        recipe = replace(read_recipe('quick', None), given=tuple(given), minutes=minutes, **given)
        return plan.plan_training(table, minutes, recipe, world)
    return make,timed

def test_the_network_grows_with_the_minutes(planner):
    make,timed = planner
    networks = [(o.recipe.arch, o.recipe.width) for o in map(make, (1, 20, 40, 60, 1000))]
    assert networks[0] == ('xresnet18', .5) and networks[-1] == ('xresnet50', 1.)
    order = list(map(NETWORKS.index, networks))
    assert order == sorted(order) and len(set(order)) > 3
    for minutes in (1, 20, 40, 60, 1000):
        timed.clear()
        planned = make(minutes)
        search = Search((80,60), 1000, 100, lambda o: Timing(1e-6*COST[planned.recipe.arch, planned.recipe.width]*math.prod(o), .25e-6*COST[planned.recipe.arch, planned.recipe.width]*math.prod(o), ''))
        best = search.best(60*minutes)
        assert minutes >= planned.minutes == pytest.approx(best.seconds/60) and planned.recipe.stages == ' '.join(f'{h}x{w}:{n}' for (h,w),n in best.stages)
        assert planned.valid_seconds == pytest.approx(100*search.timing(best.stages[-1][0]).valid)
        assert planned.train_seconds == pytest.approx({f'{h}x{w}': 1000*search.timing((h,w)).train for (h,w),_ in best.stages})
        assert (planned.recipe.tta, planned.recipe.minutes, planned.recipe.epochs, planned.recipe.test_size) == (True, 0, None, 'auto')
        assert f'1,000 images of 80x60, {1/search.timing(best.stages[-1][0]).train:,.0f} per second at ' in planned.reason
        assert f"{best.scale:.0%} of their height, and {best.epochs} of about {useful_epochs(1000):.0f} epochs" in planned.reason
        precisions = [o[4] for o in timed if o[:2] == (planned.recipe.arch, planned.recipe.width)]
        assert precisions[0] == 'auto' and set(precisions[1:]) <= {'bf16','auto'} # chosen once

def test_a_plan_says_what_the_least_would_take(planner):
    make,_ = planner
    with pytest.raises(InputError, match='0.001 minutes are too few: an epoch of 1,000 images at 24x18 would take 0.0074'): make(.001)
    with pytest.raises(InputError, match='0.01 minutes are too few: 7 epochs of 1,000 images at 24x18 would take 0.044'): make(.01, epochs=7)

def test_given_network_batch_rate_and_length_are_kept(planner):
    make,timed = planner
    kept = make(1000, arch='xresnet34', width=1., lr=.0123, tta=False).recipe
    assert (kept.arch, kept.width, kept.lr, kept.tta) == ('xresnet34', 1., .0123, False) and {o[:2] for o in timed} == {('xresnet34', 1.)}
    staged = make(1., stages='24x18:1 32x24:3').recipe
    assert staged.stages == '24x18:1 32x24:3' and staged.epochs == make(1., stages='24x18:1 32x24:3').recipe.epochs > 4
    assert make(1., batch_size=48).recipe.batch_size == 48 and make(1., test_size='96x72').recipe.test_size == '96x72'

def test_processes_divide_the_batch(planner):
    make,timed = planner
    recipe = make(1., world=3).recipe
    assert recipe.batch_size % 3 == 0 and recipe.batch_size in (63,126) and {o[5] for o in timed} == {3}
    assert make(1., world=80).recipe.batch_size == 80

def test_a_gpu_is_filled_until_larger_batches_are_not_clearly_faster(planner):
    make,timed = planner
    table = Table(22_000, 2000)
    assert make(60., table, gain=1.).recipe.batch_size == 1024 # half the time, each time, at most 1024
    assert make(60., table, gain=.33).recipe.batch_size == 1024 and make(60., table, gain=.31).recipe.batch_size == 64 # 20 % less, or not
    assert make(5., Table(1100, 100), gain=1.).recipe.batch_size <= 64 # an eighth of the images at the most
    assert make(5., table, gain=1., batch_size=64).recipe.batch_size == 64

def test_times_between_two_sizes_follow_the_pixels(monkeypatch):
    calls = []
    def time_training(table, recipe, size, seconds, world):
        calls.append((size, seconds))
        return Timing({(24,18): 1., (80,60): 21.}[size], 2., 'fp32', False)
    monkeypatch.setattr(plan, 'time_training', time_training)
    timings = plan._Timings(None, read_recipe('quick', None), .5, 1)
    for o in ((24,18), (80,60), (24,18)): timings.measure(o)
    assert calls == [((24,18), .5), ((80,60), .5)]
    middle = (24*18 + 80*60)/2
    assert timings((1,middle)).train == pytest.approx(11) and timings((80,60)).train == 21 and timings((24,18)) == Timing(1., 2., 'fp32', False)
    assert timings((12,18)).train == pytest.approx(.5) and timings((160,60)) == pytest.approx(Timing(42., 4., 'fp32', False)[:2] + ('fp32', False)) # beyond: by pixels
    assert timings.is_close((82,60)) and timings.is_close((76,60)) and not timings.is_close((92,60)) and not timings.is_close((70,60))

def test_a_cache_beyond_memory_waits_for_the_disk_for_the_part_that_does_not_fit(monkeypatch, tmp_path):
    ticks = iter(range(100))
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: float(next(ticks))) # reading takes a second
    row = 80*60*3
    for free,part in ((0, 1.), (500*row, .5), (900*row, .1), (1000*row, 0.), (5000*row, 0.)):
        monkeypatch.setattr(timing, '_free_bytes', lambda: free)
        assert timing._disk_seconds(1000, (80,60), str(tmp_path/'cache')) == pytest.approx(part/200)
    (tmp_path/'file').touch()
    monkeypatch.setattr(timing, '_free_bytes', lambda: 0)
    assert timing._disk_seconds(1000, (80,60), str(tmp_path/'file')) == 0. # it cannot be written
    assert not list((tmp_path/'cache').iterdir())

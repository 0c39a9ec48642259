"Plans by value, without a training: what is expected, which stages fit, and how a plan follows the real speed"
import math
from dataclasses import replace
from types import SimpleNamespace
import pytest
from fashion_fastai.callback.progressive import ProgressiveResize
from fashion_fastai.core import InputError
from fashion_fastai.recipes import read_recipe
from fashion_fastai.train import timing
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
    from fashion_fastai.train import plan
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
    def __init__(self, monkeypatch, factor, minutes=2., stages=(((24,18), 4), ((32,24), 8)), n_batches=20, **planned):
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
            pace.after_train()
            self.now += self.factor*2
            pace.after_epoch()
            learn.epoch += 1
        pace.after_fit()
        return self.now - start

@pytest.mark.parametrize('factor', [.5, .8, 1.25, 1.5, 1.8])
def test_a_plan_whose_steps_take_another_time_is_planned_again_and_ends_in_its_time(factor, monkeypatch, capsys):
    training = Training(monkeypatch, factor)
    assert 120 == 12*2 + 4*6 + 8*10 - 8 # seconds of the plan, of two minutes
    taken = training.run()
    [change] = training.learn.plan_changes
    assert change['factor'] == pytest.approx(factor, abs=.01) and change['epochs'] == training.learn.n_epoch and change['epoch'] <= 3
    assert f"take {factor:.2f} times as long as planned: {change['epochs']} epochs in place of 12" in capsys.readouterr().out
    assert 120 - factor*14 < taken < 120*1.04 # one epoch more would not fit; the first steps of each epoch are slower
    assert training.rates == sorted(training.rates) and training.rates[-1] == pytest.approx(1 - 1/len(training.rates), abs=.03)
    assert training.sizes == sorted(training.sizes) and training.sizes[-1] == (32,24)
    n_small,n_large = (training.sizes.count(o)/20 for o in ((24,18), (32,24)))
    assert n_large >= n_small - change['epoch'] and (n_small == 4 or factor > 1)

@pytest.mark.parametrize('factor', [.9, 1., 1.1])
def test_a_small_difference_changes_no_plan(factor, monkeypatch):
    training = Training(monkeypatch, factor)
    training.run()
    assert training.learn.plan_changes == [] and training.learn.n_epoch == 12 and training.sizes.count((24,18)) == 80

def test_few_seconds_and_the_second_half_change_no_plan(monkeypatch):
    short = Training(monkeypatch, 1.5, minutes=.2, **{'24x18': .6, '32x24': 1.})
    short.pace.valid_seconds = .2
    short.run() # ten seconds are never watched
    assert short.learn.plan_changes == []
    late = Training(monkeypatch, 1.)
    late.run(7)
    late.factor = 3.
    late.run()
    assert late.learn.plan_changes == []

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

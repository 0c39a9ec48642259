"A planned training keeps its minutes on a machine that is slower or faster than planned, under a simulated clock"
from types import SimpleNamespace
import pytest
from fashion_fastai.callback.progressive import ProgressiveResize
from fashion_fastai.train import timing
from fashion_fastai.train.timing import Pace

def simulated(monkeypatch, seconds, minutes=2., epochs=8):
    "A training of one size whose steps are planned to take a second each, and take `seconds(step)`; (epochs, minutes it took, changes)"
    clock,steps = SimpleNamespace(now=0.),40
    monkeypatch.setattr(timing, 'time', SimpleNamespace(perf_counter=lambda: clock.now))
    pace = Pace(minutes, {'32x24': float(steps)}, 1.)
    dls = SimpleNamespace(train=range(steps))
    learn = SimpleNamespace(n_epoch=epochs, dls=dls, pct_train=0., iter=0, n_iter=steps, epoch=0, training=True)
    pace.learn = learn
    learn.progressive_resize = ProgressiveResize([((32,24), epochs)])
    pace.before_fit()
    while learn.epoch < learn.n_epoch:
        pace.before_train()
        for i in range(steps):
            learn.iter = i
            pace.before_batch()
            clock.now += seconds(learn.epoch*steps + i)
            pace.after_batch()
        clock.now += 1.
        pace.after_epoch()
        learn.epoch += 1
    return learn.n_epoch,clock.now/60,pace.changes

@pytest.mark.parametrize('minutes,epochs', [(3.,4), (6.,8), (30.,43)])
@pytest.mark.parametrize('slower', [.5, .8, 1., 1.3, 2., 3.])
def test_minutes_are_kept_whatever_the_speed(monkeypatch, minutes, epochs, slower):
    "Within an epoch of the minutes, if at least two epochs fit"
    n,took,changes = simulated(monkeypatch, lambda step: slower, minutes, epochs)
    epoch = (40*slower + 1)/60
    assert took <= max(1.1*minutes, 2*epoch + .01), (n, took)
    if not changes: assert abs(slower - 1) <= .15
    else: assert took > minutes - 1.6*epoch, (n, took)

def test_a_short_disturbance_changes_nothing(monkeypatch):
    "Ten slow steps in forty are not the speed of the machine"
    n,took,changes = simulated(monkeypatch, lambda step: 4. if 12 <= step < 17 else 1., 6., 8)
    assert changes == [] and n == 8

def test_a_machine_that_slows_down_late_still_ends_in_time(monkeypatch):
    n,took,changes = simulated(monkeypatch, lambda step: 1. if step < 260 else 4., 10., 14)
    assert len(changes) == 1 and n < 14 and took < 10 + .5*(4*40 + 1)/60 # half of an epoch, as it is then

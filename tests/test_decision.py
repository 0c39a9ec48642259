"Decision rules with many attributes: the same sets as by brute force, in bounded memory, and skipped where they would take too long"
import itertools
import numpy as np
import pytest,torch
from fashion_fastai.decision import rules,tune
from fashion_fastai.decision.prior import best_constant_set
from fashion_fastai.decision.rules import ExpectedF1,LabelSets,Threshold
from fashion_fastai.decision.tune import best_label_sets,best_threshold,best_thresholds,decide
from fashion_fastai.metrics import f1_per_image

def made_up(n, m, empty=False, seed=0):
    "Probabilities and labels of `n` images with `m` attributes; at least one each, unless `empty`"
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(m, generator=rng) - np.log(max(m, 4)/3) + 1.5*torch.randn(n, m, generator=rng)
    labels = torch.rand(n, m, generator=rng) < logits.sigmoid()
    if not empty: labels[torch.arange(n), logits.argmax(1)] = True
    return (logits + .5*torch.randn(n, m, generator=rng)).sigmoid(),labels

def mean_f1(rule, p, y): return f1_per_image(rule(p), y).mean().item()

@pytest.mark.parametrize('empty', [False, True])
def test_the_best_threshold_is_the_best_of_all_that_are_tried(empty):
    p,y = made_up(300, 7, empty)
    candidates = [Threshold(o, allow_empty) for allow_empty in ((False,True) if empty else (False,)) for o in tune.THRESHOLDS]
    best = best_threshold(p, y, may_be_empty=empty)
    assert mean_f1(best, p, y) == pytest.approx(max(mean_f1(o, p, y) for o in candidates), abs=1e-6)

@pytest.mark.parametrize('empty', [False, True])
def test_thresholds_of_each_attribute_are_those_of_a_search_one_by_one(empty):
    p,y = made_up(300, 7, empty)
    found,start = best_thresholds(p, y, empty),best_threshold(p, y, empty)
    thresholds = [start.threshold]*7
    for i in [*range(7)]*2:
        def f1(o): return mean_f1(Threshold([*thresholds[:i], o, *thresholds[i+1:]], start.allow_empty), p, y)
        best = max(tune.THRESHOLDS[::2], key=f1)
        if f1(best) > f1(thresholds[i]) + 1e-7: thresholds[i] = best
    assert found.threshold == thresholds and found.allow_empty == start.allow_empty

def expected_f1_by_brute_force(p, chosen):
    "Expected F1 of the set `chosen` over all true sets, if attributes are independent"
    total = 0.
    for true in itertools.product((False,True), repeat=len(p)):
        chance = np.prod([o if t else 1-o for o,t in zip(p, true)])
        n = sum(chosen)+sum(true)
        total += chance*(2*sum(c and t for c,t in zip(chosen, true))/n if n else 1.)
    return total

@pytest.mark.parametrize('allow_empty', [False, True])
def test_expected_f1_equals_brute_force(allow_empty):
    rng = np.random.default_rng(0)
    for m in range(1, 7):
        p = rng.random(m)**3
        sets = [o for o in itertools.product((False,True), repeat=m) if allow_empty or any(o)]
        chosen = ExpectedF1(allow_empty)(torch.tensor(p)[None])[0].tolist()
        assert expected_f1_by_brute_force(p, chosen) == pytest.approx(max(expected_f1_by_brute_force(p, o) for o in sets), abs=1e-12)

def test_chunks_change_nothing(monkeypatch):
    p,y = made_up(200, 90, empty=True)
    def sets(): return [rule(p) for rule in (ExpectedF1(True), best_threshold(p, y, True), best_label_sets(y, p, y))]
    whole = sets()
    monkeypatch.setattr(rules, '_CHUNK_VALUES', 20_000)
    assert all(torch.equal(a, b) for a,b in zip(whole, sets()))

def test_the_best_constant_set_equals_brute_force():
    for seed in range(5):
        _,y = made_up(40, 5, empty=True, seed=seed)
        def score(o): return f1_per_image(torch.tensor(o).expand_as(y), y).mean().item()
        assert score(best_constant_set(y).tolist()) == pytest.approx(max(map(score, itertools.product((False,True), repeat=5))), abs=1e-6)

def test_label_sets_may_be_empty_only_where_training_labels_are():
    p,y = made_up(500, 6, empty=True)
    sure = torch.full((1,6), .001)
    assert LabelSets.from_labels(y)(sure).sum() == 0
    assert LabelSets.from_labels(y[y.any(1)])(sure).sum() >= 1

def test_rules_that_take_too_long_are_skipped_with_a_line(capsys, monkeypatch):
    p,y = made_up(200, 40)
    category = torch.zeros(200, dtype=torch.long)
    logits = torch.zeros(200,2),torch.logit(p)
    monkeypatch.setattr(tune, '_MAX_MINUTES', 1e-4)
    decision = decide(logits, category, y, y)
    said = capsys.readouterr().out
    assert 'label_sets' not in decision.scores and 'threshold' in decision.scores
    assert 'rule label_sets is skipped: 200 images with 40 attributes would take about' in said
    assert decide(logits, category, y, y, 'label_sets').name == 'label_sets' # what is asked for by name is done

@pytest.mark.slow
def test_a_thousand_attributes_need_little_memory():
    import resource
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    p,y = made_up(600, 1000)
    decision = decide((torch.zeros(600,2), torch.logit(p)), torch.zeros(600, dtype=torch.long), y, y)
    assert set(decision.scores) == {'half','threshold','per_label','expected_f1','label_sets'}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_500_000 # KB

"Decision rules: the same sets as by brute force and on every engine, in bounded memory, skipped where they would take too long, scored honestly"
import itertools,json,runpy
import numpy as np
import pytest,torch
from fashion_fastai.core import InputError
from fashion_fastai.data.groups import AttributeGroup
from fashion_fastai.decision import fit,rules,tune
from fashion_fastai.decision.prior import adjustment_effect,best_constant_set,constant_prediction,known_shares
from fashion_fastai.decision.rules import ExpectedF1,Grouped,LabelSets,Threshold,rule_from_params,rule_params
from fashion_fastai.decision.core import Decision
from fashion_fastai.decision.tune import decide,fold_of_each
from fashion_fastai.decision.fit import best_label_sets,best_temperatures,best_threshold,best_thresholds,exponent_rules,label_set_totals,threshold_scores
from fashion_fastai.metrics import f1_per_image
from fashion_fastai.model.loss import MultiTaskLoss

def made_up(n, m, empty=False, seed=0):
    "Probabilities and labels of `n` images with `m` attributes; at least one each, unless `empty`"
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal(m) - np.log(max(m, 4)/3) + 1.5*rng.standard_normal((n, m))
    labels = rng.random((n, m)) < 1/(1 + np.exp(-logits))
    if not empty: labels[np.arange(n), logits.argmax(1)] = True
    return (1/(1 + np.exp(-logits - .5*rng.standard_normal((n, m))))).astype(np.float32),labels.astype(int)

def tensors(p, y): return (torch.zeros(len(y), 2), torch.logit(torch.from_numpy(p))),torch.zeros(len(y), dtype=torch.long),torch.from_numpy(y)

def mean_f1(rule, p, y): return np.nanmean(f1_per_image(rule(p), y))

@pytest.mark.parametrize('empty', [False, True])
def test_the_best_threshold_is_the_best_of_all_that_are_tried(empty):
    p,y = made_up(300, 7, empty)
    candidates = [Threshold(o, allow_empty) for allow_empty in ((False,True) if empty else (False,)) for o in tune.THRESHOLDS]
    best = best_threshold(p, y, may_be_empty=empty)
    assert mean_f1(best, p, y) == pytest.approx(max(mean_f1(o, p, y) for o in candidates), abs=1e-6)

@pytest.mark.parametrize('empty', [False, True])
def test_scores_of_thresholds_are_those_of_the_metric_with_unknown_labels(empty):
    rng = np.random.default_rng(0)
    p,y = rng.random((60,5)),rng.integers(-1, 2, (60,5))
    p,y = p[(y >= 0).any(1)],y[(y >= 0).any(1)]
    expected = [mean_f1(Threshold(o, empty), p, y) for o in tune.THRESHOLDS]
    assert threshold_scores(p, y, empty) == pytest.approx(expected, abs=1e-9)
    assert mean_f1(best_thresholds(p, y, empty), p, y) >= max(expected) - 1e-9

@pytest.mark.parametrize('empty', [False, True])
def test_thresholds_of_each_attribute_are_those_of_a_search_one_by_one(empty):
    p,y = made_up(300, 7, empty)
    tuned,start = best_thresholds(p, y, empty),best_threshold(p, y, empty)
    thresholds = [start.threshold]*7
    for i in [*range(7)]*2:
        def f1(o): return mean_f1(Threshold([*thresholds[:i], o, *thresholds[i+1:]], start.allow_empty), p, y)
        best = max(tune.THRESHOLDS[::2], key=f1)
        if f1(best) > f1(thresholds[i]) + 1e-7: thresholds[i] = best
    assert tuned.threshold == thresholds and tuned.allow_empty == start.allow_empty

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
        chosen = ExpectedF1(allow_empty)(p[None])[0].tolist()
        assert expected_f1_by_brute_force(p, chosen) == pytest.approx(max(expected_f1_by_brute_force(p, o) for o in sets), abs=1e-12)

def label_sets_by_brute_force(rule, p):
    "The highest expected F1 of any set, and a function from a set to its expected F1, for one image"
    p = p.clip(1e-6, 1 - 1e-6)
    log_odds = np.log(p/(1-p))
    scores = rule.sets@log_odds + rule.exponent*rule.log_weights
    chance = np.exp(scores - scores.max())
    def expected(chosen):
        n = rule.sets.sum(1) + np.sum(chosen)
        f1 = np.where(n == 0, 1., 2*(rule.sets & np.array(chosen, bool)).sum(1)/np.maximum(n, 1))
        return (chance*f1).sum()/chance.sum()
    sets = [o for o in itertools.product((0,1), repeat=len(p)) if rule.allow_empty or any(o)]
    return max(map(expected, sets)),expected

@pytest.mark.parametrize('spread', [1, 400], ids=['shared', 'weights beyond float32'])
def test_label_sets_have_the_highest_expected_f1_of_all_sets(spread):
    rng = np.random.default_rng(0)
    for m in range(1, 12, 2):
        sets = np.unique(rng.random((20,m)) < .4, axis=0)
        if not sets.any(): sets[0,0] = True
        weights = rng.standard_normal(len(sets))*spread
        for exponent in (0.,.5,1.):
            rule,p = LabelSets(sets, weights, exponent),rng.random((5,m)).astype(np.float32)
            for row,chosen in zip(p, rule(p)):
                best,expected = label_sets_by_brute_force(rule, row.astype(float))
                assert expected(chosen) == pytest.approx(best, abs=1e-5)

def test_label_sets_of_all_sets_are_those_of_independent_attributes():
    every = np.array(list(itertools.product((0,1), repeat=4)))
    p = np.random.default_rng(0).random((50,4)).astype(np.float32)
    assert (LabelSets(every, np.zeros(16))(p) == ExpectedF1(True)(p)).all()
    assert len(LabelSets.from_labels(every, max_n=5).sets) == 5

def test_weights_of_label_sets_are_their_frequencies_over_those_of_independent_attributes():
    rule = LabelSets.from_labels(np.array([[1,0],[1,1],[0,1],[1,0]]))
    red,blue = 4/6,3/6 # smoothed: 3 of 4, and 2 of 4
    expected = {(1,0): (2/4)/(red*(1-blue)), (1,1): (1/4)/(red*blue), (0,1): (1/4)/((1-red)*blue)}
    assert {tuple(o): w for o,w in zip(rule.sets.astype(int).tolist(), np.exp(rule.log_weights))} == pytest.approx(expected)

def test_many_attributes_are_predicted_if_many_are_certain(): # more than the sizes that are tried first
    assert ExpectedF1()(np.full((3,90), .9)).all()
    assert LabelSets(np.ones((1,90), bool), [0.])(np.full((3,90), .9)).all()

def a_rule_of_each_kind(m=6):
    _,y = made_up(200, m)
    groups = AttributeGroup('one', (0,1,2)),AttributeGroup('at most', (3,4), False)
    plain = Threshold(.3),Threshold(np.linspace(.2, .7, m).tolist()),Threshold(.4, True),ExpectedF1(),ExpectedF1(True),LabelSets.from_labels(y)
    return [*plain, *(Grouped.from_groups(o, groups) for o in plain)]

@pytest.mark.parametrize('rule', a_rule_of_each_kind(), ids=repr)
def test_pytorch_and_onnx_decide_ties_alike(rule):
    # probabilities on a grid that includes every threshold, many of them equal
    p = np.round(np.random.default_rng(0).random((400,6)), 1).astype(np.float32)
    _,by_torch = MultiTaskLoss(decision=Decision(rule)).decodes((torch.zeros(400, 2), torch.from_numpy(p)))
    from_json = Decision.from_params(json.loads(json.dumps(Decision(rule).params()))) # as `OnnxModel` reads it
    assert (by_torch.numpy() == from_json.rule(p)).all()
    assert rule(p[:0]).shape == (0,6) and rule(p)[:9].tolist() == rule(p[:9]).tolist() # whatever the others are

def test_of_equal_probabilities_the_first_is_predicted():
    assert Threshold(.5)(np.full((1,3), .2)).tolist() == [[True,False,False]]
    assert Threshold(.2)(np.full((1,3), np.float32(.2))).all() # at the threshold

def test_the_file_of_the_rules_runs_without_the_package():
    alone = runpy.run_path(rules.__file__)
    assert alone['rule_from_params'](dict(name='Threshold', threshold=.4))(np.array([[.5,.3]])).tolist() == [[True,False]]

@pytest.mark.parametrize('rule, is_empty', [(Threshold(.5), False), (ExpectedF1(), False), (LabelSets([[0,0,0,1]], [0.]), False),
    (LabelSets([[0,0,0,0],[0,0,0,1]], [5.,-5.]), True)], ids=repr)
def test_no_group_and_no_other_attribute_is_a_set_only_if_the_rule_allows_it(rule, is_empty):
    nothing = Grouped.from_groups(rule, (AttributeGroup('all', (0,1,2,3), False),))(np.array([[.1,.3,.05,.1]])) # none of them: .45
    assert nothing.tolist() == [[False, not is_empty, False, False]]

def test_a_member_of_a_group_holds_if_it_is_more_probable_than_none():
    rule = Grouped.from_groups(Threshold(.9, True), (AttributeGroup('sleeve', (0,1), False),))
    assert rule(np.array([[.6,.1,.2], [.1,.45,.95], [.3,.2,.2]])).tolist() == [[True,False,False], [False,True,True], [False,False,False]]

def test_a_group_has_one_member_whatever_the_other_rule_says():
    rng,sleeves = np.random.default_rng(0),AttributeGroup('sleeve', (0,1,2))
    p = rng.random((50,4))
    p[:,:3] /= p[:,:3].sum(1, keepdims=True)
    for rule in (Threshold(.05), ExpectedF1(), LabelSets.from_labels(rng.random((100,4)) < .5)):
        assert (Grouped.from_groups(rule, (sleeves,))(p)[:,:3].sum(1) == 1).all()
        assert Grouped.from_groups(rule, ()) is rule

def test_rules_of_another_kind_are_refused():
    with pytest.raises(InputError, match='cannot be written as text'): rule_params(lambda p: p > .5)
    with pytest.raises(InputError, match="rule 'exec' is not known"): rule_from_params(dict(name='exec'))
    assert rule_from_params(None)(np.array([[.6,.4],[.1,.2]])).tolist() == [[True,False],[False,False]]
    with pytest.raises(InputError, match='not numbers'): ExpectedF1()(np.full((1,3), np.nan))

def test_chunks_change_nothing(monkeypatch):
    p,y = made_up(200, 90, empty=True)
    def sets(): return [rule(p) for rule in (ExpectedF1(True), best_threshold(p, y, True), best_label_sets(y, p, y))]
    whole = sets()
    monkeypatch.setattr(rules, '_CHUNK_VALUES', 20_000)
    assert all((a == b).all() for a,b in zip(whole, sets()))

def test_the_best_constant_set_equals_brute_force():
    for seed in range(5):
        _,y = made_up(40, 5, empty=True, seed=seed)
        def score(o): return f1_per_image(np.broadcast_to(o, y.shape), y).mean()
        assert score(best_constant_set(y)) == pytest.approx(max(map(score, itertools.product((False,True), repeat=5))), abs=1e-6)

def test_the_best_constant_set_of_unknown_labels_is_the_best_of_the_most_frequent():
    _,y = made_up(200, 6)
    y[np.random.default_rng(0).random(y.shape) < .3] = -1
    order = np.argsort(-known_shares(y))
    def score(o): return np.nanmean(f1_per_image(np.broadcast_to(o, y.shape), y))
    assert score(best_constant_set(y)) == pytest.approx(max(score(np.isin(range(6), order[:k])) for k in range(1, 7)))
    assert known_shares([[1,-1],[0,-1],[-1,1]]).tolist() == [.5,1]
    assert constant_prediction([0,-1,1,1], y[:4], 3).category_shares[2] == 0
    assert best_constant_set(np.zeros((5,0))).shape == (0,)

def test_categories_that_are_unknown_or_absent_do_not_count_in_an_adjustment():
    rng,category = np.random.default_rng(0),np.repeat([0,1], [900,100])
    logits = np.stack([np.zeros(1000), rng.standard_normal(1000) + 2*category - 3], 1)
    masked = np.where(np.arange(1000) < 500, -1, category)
    assert adjustment_effect(logits, masked, [.9,.1]).images.tolist() == [400,100]
    assert adjustment_effect(logits, np.zeros(1000, int), [.9,.1]).recall.isna().tolist() == [False,True]
    assert adjustment_effect(logits, category, [.9,.1], 0.).eval('recall == adjusted').all()

def test_label_sets_may_be_empty_only_where_training_labels_are():
    p,y = made_up(500, 6, empty=True)
    sure = np.full((1,6), .001)
    assert LabelSets.from_labels(y)(sure).sum() == 0
    assert LabelSets.from_labels(y[y.any(1)])(sure).sum() >= 1

def test_rules_that_take_too_long_are_skipped_with_a_line(capsys, monkeypatch):
    p,y = made_up(200, 40)
    logits,category,labels = tensors(p, y)
    monkeypatch.setattr(tune, '_MAX_MINUTES', 1e-4)
    decision = decide(logits, category, labels, labels)
    said = capsys.readouterr().out
    assert 'label_sets' not in decision.scores and 'threshold' in decision.scores
    assert 'rule label_sets is skipped: 200 images with 40 attributes would take about' in said
    assert decide(logits, category, labels, labels, 'label_sets').name == 'label_sets' # what is asked for by name is done

def test_no_image_is_scored_by_a_rule_that_saw_its_labels():
    p,y = made_up(60, 5)
    logits,category,labels = tensors(p, y)
    before = decide(logits, category, labels, labels)
    for k in np.unique(before.folds): # the labels of one fold change; what is predicted for it does not
        changed = labels.clone()
        changed[torch.from_numpy(before.folds == k)] = 1 - changed[torch.from_numpy(before.folds == k)]
        after = decide(logits, category, changed, labels)
        assert (after.predicted[before.folds == k] == before.predicted[before.folds == k]).all()
        assert after.fold_temperatures[k] == before.fold_temperatures[k]

def test_the_setting_of_a_fold_is_the_best_on_the_other_folds():
    totals,folds = np.random.default_rng(0).random((6,4)),np.arange(40) % 4
    candidate = tune._Candidate(lambda p, y: range(6), lambda settings, p, y: totals[:,int(p[0,0])])
    best,total = candidate.fit(folds[:,None].astype(float), folds[:,None], folds)
    assert best == totals.sum(1).argmax()
    assert total == pytest.approx(sum(totals[np.delete(totals, k, 1).sum(1).argmax(), k] for k in range(4)))

def test_images_of_one_group_are_in_one_fold():
    groups = np.random.default_rng(0).integers(0, 40, 300).astype(str)
    folds = fold_of_each(300, 5, groups)
    assert all(len(set(folds[groups == o])) == 1 for o in set(groups)) and (abs(np.bincount(folds) - 60) < 15).all()
    assert np.bincount(fold_of_each(103)).tolist() in ([21,21,21,20,20],) or np.ptp(np.bincount(fold_of_each(103))) <= 1
    assert fold_of_each(10, 5, ['a']*9 + ['b']).max() == 1 # fewer folds than asked for
    p,y = made_up(60, 5)
    decision = decide(*tensors(p, y), None, image_groups=np.arange(60)//4)
    assert all(len(set(o)) == 1 for o in decision.folds.reshape(-1, 4))

def test_a_rule_is_tuned_on_its_own_label_sets_or_by_name_or_refused():
    p,y = made_up(500, 6)
    logits,category,labels = tensors(p, y)
    own = decide(logits, category, labels, None)
    assert set(own.scores) == {'half','threshold','per_label','expected_f1','label_sets'} and own.scores['half'] < max(own.scores.values()) < 1
    assert decide(logits, category, labels, labels, 'expected_f1').name == 'expected_f1'
    with pytest.raises(InputError, match='there are auto, half'): decide(logits, category, labels, labels, 'best')
    with pytest.raises(InputError, match='3 validation images are too few'): decide([o[:3] for o in logits], category[:3], labels[:3], labels)
    unknown = labels.clone()
    unknown[:400,0] = -1
    with pytest.raises(InputError, match='rule label_sets cannot be tuned: 100 of 500 training images have no unknown label'):
        decide(logits, category, labels, unknown, 'label_sets')

def test_label_sets_that_are_unknown_are_refused_without_training_sets_too():
    p,y = made_up(60, 3)
    y[:,0] = -1
    with pytest.raises(InputError, match='rule label_sets cannot be tuned: 0 of 60 training images have no unknown label'):
        decide(*tensors(p, y), None, 'label_sets')

def test_where_nothing_can_be_tuned_the_empty_set_is_predicted_if_training_labels_are():
    p,unknown = np.full((20,3), .01, np.float32),np.full((20,3), -1)
    for sets,n in ((np.zeros((9,3), int), 0), (np.eye(3, dtype=int), 1)):
        assert decide(*tensors(p, unknown), torch.from_numpy(sets)).predicted.sum(1).tolist() == [n]*20

def test_parts_without_labels_get_temperatures_of_one_and_no_scores():
    no_attributes = decide((torch.randn(20,4), torch.zeros(20,0)), torch.randint(4, (20,)), torch.zeros(20,0), torch.zeros(30,0))
    assert (no_attributes.scores, no_attributes.temperatures[1], no_attributes.predicted.shape) == ({}, 1., (20,0))
    unknown = decide((torch.randn(20,4), torch.randn(20,2)), torch.full((20,), -1), torch.full((20,2), -1), torch.ones(30,2).int())
    assert (unknown.scores, unknown.temperatures) == ({}, (1.,1.))

@pytest.mark.slow
def test_a_thousand_attributes_need_little_memory():
    import resource
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    p,y = made_up(600, 1000)
    logits,category,labels = tensors(p, y)
    decision = decide(logits, category, labels, labels)
    assert set(decision.scores) == {'half','threshold','per_label','expected_f1','label_sets'}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_500_000 # KB

def test_what_is_tried_and_its_costs_by_value():
    assert tune.THRESHOLDS == pytest.approx([.05 + .02*i for i in range(46)])
    assert [o.exponent for o in exponent_rules(np.eye(3, dtype=int))] == [0,.125,.25,.375,.5,.75,1]
    def minutes(n, m, folds): return {name: 60*tune._estimate_minutes(name, n, m, folds) for name in ('half','threshold','per_label','expected_f1','label_sets')}
    assert minutes(1000, 100, 5) == pytest.approx(dict(half=.006, threshold=.012, per_label=.6, expected_f1=.6, label_sets=6*8*1000*100*64e-8))
    assert minutes(100_000, 10, 3)['label_sets'] == pytest.approx(4*(7*50_000 + 100_000)*10*10e-8) # of a sample
    assert [len(np.unique(decide(*tensors(*made_up(n, 3)), None).folds)) for n in (7, 10, 99, 100)] == [7,10,10,5]

def test_temperatures_are_of_their_own_part_and_within_their_bounds():
    torch.manual_seed(0)
    logits,group = torch.randn(3000, 4)*2,AttributeGroup('one', (0,2))
    labels = torch.bernoulli(logits.sigmoid())
    of_group = torch.multinomial(logits[:,[0,2]].softmax(1), 1)
    labels[:,[0,2]] = torch.zeros(3000, 2).scatter_(1, of_group, 1.)
    given = logits*torch.tensor([2.,.5,2.,.5])
    category = torch.full((3000,), -1)
    assert best_temperatures((torch.zeros(3000, 2), logits*3), category, labels)[0] == 1.
    one,each = best_temperatures((torch.zeros(3000, 2), given), category, labels, (group,))
    assert one == 1. and each == pytest.approx([2.,.5,2.,.5], rel=.15) and each[0] == each[2] and each[1] == each[3]
    sure = torch.cat([logits*1000, logits/1000])
    assert best_temperatures((torch.zeros(3000, 2), sure[:3000]), category, labels)[1] == pytest.approx(10, rel=.01)
    assert best_temperatures((torch.zeros(3000, 2), sure[3000:]), category, labels)[1] == pytest.approx(.1, rel=.01)

def test_exponents_are_tuned_on_a_sample_of_many_images(monkeypatch):
    p,y = made_up(600, 6)
    label_rules = exponent_rules(y)
    every = [f1_per_image(o, y).sum() for o in label_rules[0].with_exponents(p, [o.exponent for o in label_rules])]
    assert label_set_totals(label_rules, p, y) == pytest.approx(every)
    monkeypatch.setattr(fit, 'TUNED_VALUES', 600*6//3)
    third = [3*f1_per_image(o, y[::3]).sum() for o in label_rules[0].with_exponents(p[::3], [o.exponent for o in label_rules])]
    assert label_set_totals(label_rules, p, y) == pytest.approx(third)

def test_the_empty_set_is_chosen_where_most_sets_are_empty():
    rng = np.random.default_rng(0)
    y = (rng.random((400,5)) < .04).astype(int)
    p = np.where(y, .9, .1*rng.random((400,5))).astype(np.float32)
    decision = decide(*tensors(p, y), None, 'threshold')
    assert decision.rule.allow_empty and decision.mean_f1 > .95 and not decision.rule(np.full((1,5), .01)).any()
    assert not best_constant_set(y).any() and best_constant_set(np.zeros((5,3), int)).tolist() == [False]*3
    assert decide(*tensors(*made_up(400, 5)), None, 'threshold').rule.allow_empty is False

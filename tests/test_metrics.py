"Scores by their definitions with unknown labels, intervals, losses, and what a learner of two targets reports of them"
from functools import partial
from types import SimpleNamespace
import numpy as np
import pytest,torch
import torch.nn.functional as F
from fashion_fastai.data.groups import AttributeGroup
from fashion_fastai.metrics import (average_precision,effective_size,f1_per_image,f1_scores,label_scores,mean_average_precision,mean_interval,
    mean_known,recall_at_k,top_k_accuracy,wilson_interval)
from fashion_fastai.model.loss import (CategoryAccuracy,KnownLoss,MeanF1,MultiTaskLoss,PartLoss,attribute_loss,attribute_probabilities,
    category_loss,group_loss,label_weights)

def test_f1_is_that_of_the_known_columns_image_by_image():
    rng = np.random.default_rng(0)
    for _ in range(20):
        actual,predicted = rng.integers(-1, 2, (6,4)),rng.integers(0, 2, (6,4))
        for f1,x,y in zip(f1_per_image(predicted, actual), predicted, actual):
            if not (y >= 0).any(): assert np.isnan(f1)
            else: assert f1 == f1_per_image(x[None,y >= 0], y[None,y >= 0])[0]
    assert f1_per_image([[0,0]], [[0,0]])[0] == 1 and np.isnan(mean_known(f1_per_image([[1]], [[-1]])))

def test_labels_that_are_unknown_count_in_no_score():
    scores = label_scores(['red','blue'], [[1,0],[1,1]], [[1,-1],[-1,1]])
    assert scores.known.tolist() == [1,1] and scores.precision.tolist() == [1.,1.]
    assert label_scores(['a','b'], [0,1,1], [0,-1,1]).known.tolist() == [2,2]
    assert label_scores(['dress','skirt','coat'], [0,0,1,1], [0,0,0,1]).f1.tolist() == pytest.approx([.8,2/3,0])
    assert f1_scores([[1,0],[1,0]], [[1,0],[-1,0]]) == (.5, 1) and f1_scores([[1,0],[1,0]], [[1,-1],[-1,-1]]) == (1, 1)
    assert np.isnan(f1_scores([[1]], [[-1]])).all()

def test_ranking_metrics_without_labels_with_nan_and_with_ties():
    scores,sets = np.array([[.9,.8,.1,.2], [.1,.2,.8,.7]]),np.array([[1,0,1,0], [-1,1,0,1]])
    assert np.isnan(top_k_accuracy(scores, np.full(2, -1), 1)) and np.isnan(recall_at_k(scores, np.zeros((2,4), int), 2))
    assert top_k_accuracy(np.full((2,3), np.nan), np.array([0,1]), 2) == 0 and top_k_accuracy(scores, np.array([0,1]), 9) == 1
    assert recall_at_k(np.zeros((1,3)), np.array([[0,0,1]]), 2) == 0 and recall_at_k(np.zeros((1,3)), np.array([[0,1,0]]), 2) == 1
    assert average_precision(scores, sets).tolist() == [1,.5,.5,1]
    assert np.isnan(average_precision(scores, [[0,-1,0,-1]]*2)).all() and np.isnan(mean_average_precision(scores, np.zeros((2,4))))
    assert average_precision(np.empty((0,3)), np.empty((0,3))).shape == (3,)

def test_chunks_of_a_ranking_change_nothing(monkeypatch):
    many = np.random.default_rng(0).random((3000,7))
    whole = recall_at_k(many, many > .7, 2)
    monkeypatch.setattr('fashion_fastai.metrics._CELLS_AT_ONCE', 70)
    assert recall_at_k(many, many > .7, 2) == whole

def test_the_interval_of_an_accuracy_is_wilsons():
    assert wilson_interval(.9, 50) == pytest.approx((.7864,.9565), abs=1e-4) # Newcombe's formula, by hand
    correct = np.arange(200) < 190
    assert mean_interval(correct) == pytest.approx(wilson_interval(.95, 200))
    for n in (1, 20):
        low,high = mean_interval([1.]*n)
        assert low < 1 and high == pytest.approx(1) # all right is not certainty

def test_images_of_one_group_count_as_one():
    values = np.random.default_rng(0).integers(0, 2, 300).astype(float)
    assert effective_size(np.repeat(values, 4), np.arange(1200)//4) == pytest.approx(effective_size(values))
    assert mean_interval(np.repeat(values, 4), np.repeat(np.arange(300).astype(str), 4)) == pytest.approx(mean_interval(values))
    assert effective_size(values, np.arange(300)) == pytest.approx(300)

def coverage(draw, mean, n, repetitions=1000):
    intervals = np.array([mean_interval(*draw(n)) for _ in range(repetitions)])
    return ((intervals[:,0] <= mean) & (mean <= intervals[:,1])).mean()

VALUES = np.array([0, .4, .5, 2/3, .8, 6/7, 1])

@pytest.mark.parametrize('chances', [[.04,.05,.08,.2,.25,.1,.28], [.12,.12,.15,.25,.2,.06,.1], [.35,.2,.18,.15,.08,.02,.02]], ids=['.76','.6','.37'])
@pytest.mark.parametrize('n', [10, 30, 100, 1000])
def test_intervals_of_mean_f1_contain_the_true_score_as_often_as_they_say(chances, n):
    rng = np.random.default_rng(0)
    assert .92 < coverage(lambda n: (rng.choice(VALUES, n, p=chances), None), VALUES@chances, n) < .98

def test_intervals_of_grouped_images_contain_the_true_score_as_often_as_they_say():
    rng,chances = np.random.default_rng(0),[.04,.05,.08,.2,.25,.1,.28]
    def draw(n):
        groups = np.repeat(np.arange(n), rng.integers(1, 7, n))[:n]
        return rng.choice(VALUES, n, p=chances)[groups],groups
    assert .92 < coverage(draw, VALUES@chances, 300) < .98

def value_of(metric, *batches, loss=MultiTaskLoss()):
    metric.reset()
    for pred,yb in batches: metric.accumulate(SimpleNamespace(pred=pred, yb=yb, loss_func=loss, to_detach=lambda o: o.detach()))
    return metric.value

@pytest.mark.parametrize('seed', range(5))
def test_a_loss_is_the_mean_over_all_known_labels_however_batches_differ_in_them(seed):
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(50, 4, generator=rng),torch.randn(50, 6, generator=rng)
    category,attributes = torch.randint(-1, 4, (50,), generator=rng),torch.randint(-1, 2, (50,6), generator=rng)
    attributes[:30][torch.rand(30, 6, generator=rng) < .93] = -1
    rows = slice(0,20),slice(20,30),slice(30,50)
    batches = [(tuple(o[r] for o in logits), (category[r], attributes[r])) for r in rows]
    parts = PartLoss(category_loss),PartLoss(partial(attribute_loss, groups=()))
    values = [value_of(o, *batches) for o in parts]
    assert values == pytest.approx([category_loss(logits, category).item(), attribute_loss(logits, category, attributes).item()], rel=1e-5)
    assert KnownLoss([(1., parts[0]), (3., parts[1])]).value == pytest.approx(MultiTaskLoss(3.)(logits, category, attributes).item(), rel=1e-5)
    correct = (logits[0].argmax(1) == category)[category >= 0]
    assert value_of(CategoryAccuracy(), *batches) == pytest.approx(correct.float().mean().item())
    f1 = f1_per_image(logits[1] > 0, attributes)
    assert value_of(MeanF1(), *batches) == pytest.approx(np.nanmean(f1))

@pytest.mark.parametrize('seed', range(10))
def test_losses_are_those_of_the_known_labels_by_hand(seed):
    rng = torch.Generator().manual_seed(seed)
    logits,label = torch.randn(8, 5, generator=rng),torch.randint(-1, 5, (8,), generator=rng)
    known = label >= 0
    assert category_loss((logits, None), label, label_smoothing=.1) == pytest.approx(F.cross_entropy(logits[known], label[known], label_smoothing=.1).item(), rel=1e-5)
    labels = torch.randint(-1, 2, (8,5), generator=rng)
    cells = F.binary_cross_entropy_with_logits(logits, labels.float().clamp(min=0), reduction='none')
    assert attribute_loss((None, logits), None, labels) == pytest.approx(cells[labels >= 0].mean().item(), rel=1e-5)
    per_image = [c[o >= 0].mean().item() if (o >= 0).any() else 0. for c,o in zip(cells, labels)]
    assert attribute_loss((None, logits), None, labels, reduction='none').tolist() == pytest.approx(per_image, rel=1e-5)

def test_a_batch_without_a_known_label_has_no_loss_and_no_gradient():
    logits = torch.randn(4, 5, requires_grad=True)
    nothing = torch.full((4,), -1),torch.full((4,5), -1)
    (category_loss((logits, None), nothing[0], label_smoothing=.1) + attribute_loss((None, logits), None, nothing[1])).backward()
    assert (logits.grad == 0).all()
    assert category_loss((torch.zeros(4, 0), None), nothing[0]) == 0 # no categories at all
    mixed,logits = torch.tensor([[.3,.7,0],[-1,-1,-1]]),torch.randn(2, 3)
    assert category_loss((logits, None), mixed) == pytest.approx(F.cross_entropy(logits[:1], mixed[:1]).item())

def test_losses_of_groups_are_minus_the_log_probability_of_what_remains_possible():
    torch.manual_seed(0)
    logits,target = torch.randn(6, 4),torch.tensor([[1,0,0,1],[0,1,0,0],[0,0,1,1],[-1,0,0,1],[0,-1,-1,1],[-1,-1,-1,-1]])
    log_p = logits[:,:3].log_softmax(1)
    expected = -torch.stack([log_p[0,0], log_p[1,1], log_p[2,2], log_p[3,0], log_p[4,1:3].logsumexp(0), torch.tensor(0.)])
    assert group_loss(logits[:,:3], target[:,:3].float()).tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    ungrouped = F.binary_cross_entropy_with_logits(logits[:5,3], target[:5,3].float(), reduction='none')
    groups = AttributeGroup('colour', (0,1,2)),
    assert attribute_loss((None, logits), None, target, groups=groups) == pytest.approx((expected.sum() + ungrouped.sum()).item()/17, rel=1e-5) # 17 are known
    at_most = torch.cat([logits[:,:3], torch.zeros(6,1)], 1).log_softmax(1)
    assert group_loss(logits[:1,:3], torch.zeros(1,3), exactly_one=False).item() == pytest.approx(-at_most[0,3].item(), rel=1e-5)
    assert group_loss(logits[:1,:3], torch.tensor([[0.,-1,0]]), exactly_one=False).item() == pytest.approx(-at_most[0,[1,3]].logsumexp(0).item(), rel=1e-5)
    mixed = torch.tensor([[.6,.4,0]])
    assert group_loss(logits[:1,:3], mixed).item() == pytest.approx(-(mixed[0,:2]*log_p[0,:2]).sum().item(), rel=1e-5)

def test_probabilities_of_a_group_add_up_to_one_or_less():
    logits = torch.randn(5, 4)
    assert attribute_probabilities(logits, 1., (AttributeGroup('a', (0,1,2)),))[:,:3].sum(1).tolist() == pytest.approx([1.]*5)
    assert (attribute_probabilities(logits, [2.,2.,2.,1.], (AttributeGroup('a', (0,1,2), False),))[:,:3].sum(1) < 1).all()

def test_validation_is_neither_smoothed_nor_weighted_by_learned_weights():
    pred = torch.randn(6, 3, requires_grad=True),torch.randn(6, 2, requires_grad=True)
    labels = torch.randint(3, (6,)),torch.randint(2, (6,2))
    learned = MultiTaskLoss(log_variances=torch.tensor([0.,-2.]).requires_grad_())
    smooth,plain = MultiTaskLoss(label_smoothing=.1),MultiTaskLoss(label_smoothing=0)
    assert smooth(pred, *labels) != plain(pred, *labels) != learned(pred, *labels)
    with torch.no_grad(): detached = tuple(o*1 for o in pred)
    assert smooth(detached, *labels) == plain(detached, *labels) == learned(detached, *labels) == pytest.approx(plain(pred, *labels).item())
    learned(pred, *labels).backward()
    assert (learned.log_variances.grad != 0).all()

@pytest.mark.parametrize('power', [0, .25, .5, 1])
def test_weights_of_rare_labels_are_larger_and_one_in_the_mean(power):
    labels = np.random.default_rng(0).choice([-1,0,1], (500,4), p=[.2,.6,.2]).astype(np.int8)
    labels[labels[:,1] == 1,1] = np.resize([1,0,0,0], (labels[:,1] == 1).sum())
    labels[:,3] = np.minimum(labels[:,3], 0) # never holds
    n_true,n_known = (labels == 1).sum(0),(labels >= 0).sum(0)
    weights = label_weights(labels, power)
    assert (weights*n_true).sum() == pytest.approx(n_true.sum()) and weights[3] == 1
    assert weights[1]/weights[0] == pytest.approx((n_true[0]/n_known[0]/(n_true[1]/n_known[1]))**power)
    known = labels[(labels >= 0).all(1)]
    padded = np.concatenate([known, np.full((900,4), -1, np.int8)]) # of which nothing is known
    assert label_weights(padded, power).tolist() == label_weights(known, power).tolist()
    assert (label_weights(np.zeros((5,2), np.int8), power) == 1).all() and label_weights(labels[:,:0], power).shape == (0,)

def test_balanced_losses_by_hand():
    torch.manual_seed(0)
    logits,labels,weights = torch.randn(8, 4),torch.randint(-1, 2, (8,4)),torch.tensor([.5,1,2,3])
    shifted,known = logits + weights.log(),labels >= 0
    weighted = -(labels*weights*F.logsigmoid(shifted) + (1 - labels)*F.logsigmoid(-shifted))
    assert attribute_loss((None, logits), None, labels, balance=weights) == pytest.approx(weighted[known].mean().item(), rel=1e-5)
    p = logits.sigmoid()
    wrong = (p - .05).clamp(min=0)
    asymmetric = -torch.where(labels == 1, p.log(), wrong**4*(1 - wrong).log())
    assert attribute_loss((None, logits), None, labels, balance='asymmetric') == pytest.approx(asymmetric[known].mean().item(), rel=1e-5)
    assert attribute_loss((None, logits), None, labels, balance=torch.ones(4)) == pytest.approx(attribute_loss((None, logits), None, labels).item(), rel=1e-5)
    extreme = torch.tensor([[-80.,80]], requires_grad=True)
    for balance in ('asymmetric', torch.tensor([1e4,1e-4])):
        loss = attribute_loss((None, extreme.repeat(2, 1)), None, torch.tensor([[1,0],[0,1]]), balance=balance)
        loss.backward()
        assert loss.isfinite() and extreme.grad.isfinite().all()

@pytest.mark.parametrize('exactly_one', [True, False])
def test_weights_in_a_group_leave_its_probabilities_calibrated(exactly_one):
    "The gradient of the weighted loss is zero at the true frequencies"
    shares = torch.tensor([.6,.3,.1] if exactly_one else [.5,.2,.1]) # of the members; at most one: the rest has none of them
    counts = (shares*100).round().int().tolist()
    target = torch.cat([torch.eye(3).repeat_interleave(torch.tensor(counts), 0), torch.zeros(100 - sum(counts), 3)])
    logits = (shares.log() - (0 if exactly_one else torch.tensor(.2).log())).requires_grad_()
    group_loss(logits.expand(100, 3), target, exactly_one, torch.tensor([.5,1,4])).mean().backward()
    assert logits.grad.abs().max() < 1e-6

def test_only_the_training_loss_is_balanced():
    pred,labels = (torch.randn(6, 3, requires_grad=True),torch.randn(6, 2, requires_grad=True)),(torch.randint(3, (6,)),torch.randint(2, (6,2)))
    plain,balanced = MultiTaskLoss(),MultiTaskLoss(balance=torch.tensor([.5,3]))
    assert plain(pred, *labels) != balanced(pred, *labels)
    with torch.no_grad(): detached = tuple(o*1 for o in pred)
    assert plain(detached, *labels) == balanced(detached, *labels)

def test_a_model_of_attributes_alone_predicts_no_category():
    loss = MultiTaskLoss()
    assert loss.decodes(loss.activation((torch.zeros(2,0), torch.ones(2,3))))[0].tolist() == [-1,-1]

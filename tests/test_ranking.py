"Ranking metrics against scikit-learn and against their definitions, over random masks of unknown labels"
import math
import numpy as np
from hypothesis import given,settings,strategies as st
from sklearn.metrics import average_precision_score,f1_score,top_k_accuracy_score
from fashion_fastai.metrics import average_precision,f1_scores,mean_average_precision,recall_at_k,recall_per_type,top_k_accuracy

def same(a, b): return (math.isnan(a) and math.isnan(b)) or abs(a - b) <= 1e-12

@st.composite
def scored_labels(draw, min_rows=0):
    "Scores with or without ties, and attributes of which some are unknown"
    n,n_attributes = draw(st.integers(min_rows, 30)),draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32-1)))
    scores = rng.random((n,n_attributes)).astype(draw(st.sampled_from(['float32','float64'])))
    if draw(st.booleans()): scores = np.round(scores, 1)
    labels = (rng.random(scores.shape) < draw(st.floats(0, 1))).astype(np.int8)
    labels[rng.random(scores.shape) < draw(st.floats(0, 1))] = -1
    return scores,labels

@settings(deadline=None, max_examples=200)
@given(scored_labels())
def test_average_precision_is_that_of_scikit_learn(data):
    scores,labels = data
    found = average_precision(scores, labels)
    assert found.shape == (scores.shape[1],)
    for value,score,label in zip(found, scores.T, labels.T):
        known = label >= 0
        expected = average_precision_score(label[known], score[known]) if (label == 1).any() else math.nan
        assert same(value, expected)
    defined = found[~np.isnan(found)]
    assert same(mean_average_precision(scores, labels), defined.mean() if len(defined) else math.nan)

def recall_by_definition(scores, labels, k):
    n_found = n_true = 0
    for score,label in zip(scores, labels):
        ranked = sorted((o for o in range(len(label)) if label[o] >= 0), key=lambda o: (-score[o], o))
        n_found += sum(label[o] == 1 for o in ranked[:k])
        n_true += sum(o == 1 for o in label)
    return n_found/n_true if n_true else math.nan

@settings(deadline=None, max_examples=200)
@given(scored_labels(), st.integers(1, 9))
def test_recall_is_its_definition(data, k):
    scores,labels = data
    assert same(recall_at_k(scores, labels, k), recall_by_definition(scores, labels, k))
    types = ['style' if i%3 else 'part' for i in range(scores.shape[1])]
    by_type = recall_per_type(scores, labels, k, types)
    assert list(by_type) == list(dict.fromkeys(types))
    for kind,value in by_type.items():
        columns = [i for i,o in enumerate(types) if o == kind]
        assert same(value, recall_by_definition(scores[:,columns], labels[:,columns], k))

@settings(deadline=None, max_examples=200)
@given(st.integers(1, 30), st.integers(3, 8), st.integers(1, 9), st.integers(0, 2**32-1))
def test_top_k_accuracy_is_that_of_scikit_learn(n, n_categories, k, seed):
    rng = np.random.default_rng(seed)
    scores = rng.random((n,n_categories)) # without ties, which scikit-learn ranks the other way
    labels = rng.integers(-1, n_categories, n)
    known = labels >= 0
    if not known.any(): assert math.isnan(top_k_accuracy(scores, labels, k))
    else:
        expected = 1. if k >= n_categories else top_k_accuracy_score(labels[known], scores[known], k=k, labels=range(n_categories))
        assert same(top_k_accuracy(scores, labels, k), expected)
    tied = np.round(scores, 1)
    assert same(top_k_accuracy(tied, labels, 1), (tied.argmax(1) == labels)[known].mean() if known.any() else math.nan)

@settings(deadline=None, max_examples=200)
@given(scored_labels(min_rows=1))
def test_f1_is_that_of_scikit_learn(data):
    scores,labels = data
    predicted,known = scores > .5,labels >= 0
    found = f1_scores(predicted, labels)
    if not known.any(): assert math.isnan(found.macro) and math.isnan(found.micro)
    else:
        per_attribute = [f1_score(t[o], p[o], zero_division=0) for t,p,o in zip(labels.T, predicted.T, known.T) if o.any()]
        assert same(found.macro, np.mean(per_attribute))
        assert same(found.micro, f1_score(labels[known], predicted[known], zero_division=0))

def test_f1_of_full_labels_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    predicted,actual = rng.random((50,6)) < .4,rng.random((50,6)) < .3
    found = f1_scores(predicted, actual)
    for average in ('macro','micro'): assert same(getattr(found, average), f1_score(actual, predicted, average=average))

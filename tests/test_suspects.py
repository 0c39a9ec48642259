"Labels that are probably wrong: unknown ones are not judged, groups are one target, and other people's files are refused"
import sys
import numpy as np
import pytest,torch
from fashion_fastai.core import InputError,UNKNOWN
from fashion_fastai.data.corrections import label_targets
from fashion_fastai.data.groups import AttributeGroup
from fashion_fastai.data.vocab import Vocab
from fashion_fastai.data.labels import read_tables
from fashion_fastai.examples import example_data,example_run
from fashion_fastai.interpret.core import FashionInterpretation
from fashion_fastai.report.suspects import SUSPECT_COLUMNS,find_suspects,read_suspects,suspicious_rows,write_suspects

@pytest.fixture
def given_and_probabilities():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 600)
    given = np.where(np.arange(600) < 18, (true + 1) % 3, true)
    return given,rng.dirichlet([1,1,1], 600)*.5 + np.eye(3)[true]*.5

def test_unknown_and_absent_labels_are_no_suspects(given_and_probabilities):
    pytest.importorskip('cleanlab')
    given,p = given_and_probabilities
    unknown = np.where(np.arange(600) < 9, UNKNOWN, given)
    assert suspicious_rows(unknown, p).row.min() >= 9
    for labels,n_labels in ((UNKNOWN, 3), (UNKNOWN, 0), (0, 3)):
        assert len(suspicious_rows(np.full(5, labels), np.ones((5,n_labels)))) == 0
    four = suspicious_rows(np.where(given == 2, 3, given), np.insert(p, 2, 0., axis=1)) # no image has label 2
    assert four.row.tolist() == suspicious_rows(given, p).row.tolist() and set(four.suggested) == {0,1,3}

def test_only_the_ratios_of_the_probabilities_matter(given_and_probabilities):
    pytest.importorskip('cleanlab')
    given,p = given_and_probabilities
    expected,weighted = suspicious_rows(given, p),suspicious_rows(given, p*np.linspace(.1, .9, 600)[:,None]) # as of a group of attributes
    assert len(expected) > 10 and weighted.row.tolist() == expected.row.tolist()
    assert weighted.score.tolist() == pytest.approx(expected.score.tolist())

@pytest.mark.parametrize('seed', range(4))
def test_without_cleanlab_the_suspects_are_the_same(seed, given_and_probabilities, monkeypatch):
    rng,(given,p) = np.random.default_rng(seed),given_and_probabilities
    p = p**(1 + seed)*rng.uniform(.5, 1, p.shape) # of other networks
    def rows(): return suspicious_rows(given, p).row.tolist()
    monkeypatch.setitem(sys.modules, 'cleanlab.filter', None)
    ours = rows()
    n_planted = len(set(ours) & set(range(18)))
    assert n_planted >= 12
    monkeypatch.undo()
    pytest.importorskip('cleanlab')
    theirs = rows()
    # the numbers per class are rounded
    assert len(set(ours) ^ set(theirs)) <= 3 and n_planted >= len(set(theirs) & set(range(18))) - 1

@pytest.mark.parametrize('exactly_one', [False, True])
def test_a_group_is_one_target_with_none_of_them_if_that_is_allowed(exactly_one, tmp_path, monkeypatch):
    from fashion_fastai.report import suspects
    vocab = Vocab((), ('red','blue','belted'), (AttributeGroup('colour', (0,1), exactly_one),))
    logits = torch.zeros(1, 0),torch.tensor([[1.,2.,3.]])
    interp = FashionInterpretation(vocab, [''], logits, torch.full((1,), UNKNOWN), torch.full((1,3), UNKNOWN), torch.zeros(1, 3).bool())
    predictions = object.__new__(suspects._RunPredictions)
    predictions.vocab = vocab
    predictions.of_categories,predictions.of_attributes = (o.numpy() for o in interp.probabilities())
    targets = label_targets(vocab)
    expected = torch.tensor([1.,2.] if exactly_one else [1.,2.,0.]).softmax(0).tolist()
    assert predictions.probabilities(targets['colour'])[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert predictions.probabilities(targets['belted'])[0,1] == pytest.approx(torch.tensor(3.).sigmoid().item())

def test_suspects_are_validation_images_and_can_be_read_again(tmp_path):
    pytest.importorskip('cleanlab')
    suspects,(frame,_) = find_suspects(example_data(1000), example_run()),read_tables(example_data(1000))
    assert suspects.file_path.isin(frame.file_path[frame.is_valid]).all() and suspects.score.is_monotonic_increasing
    assert (suspects.given != suspects.suggested).all() and {'category','red'} & set(suspects.target)
    write_suspects(suspects, tmp_path/'suspects.csv')
    again = read_suspects(tmp_path/'suspects.csv')
    assert again.columns.tolist() == SUSPECT_COLUMNS and again.file_path.tolist() == suspects.file_path.tolist()
    write_suspects(suspects.assign(image='/nowhere.jpg'), tmp_path/'moved.csv')
    for path,problem in ((tmp_path/'none.csv', 'no such file; fashion check DATA --with RUN writes it'), (tmp_path/'moved.csv', 'none of its images exists'),
            (example_data(1000)/'test.csv', 'has no column target')):
        with pytest.raises(InputError, match=problem): read_suspects(path)
    with pytest.raises(InputError, match='was it trained on another folder?'): find_suspects(example_data(300), example_run())

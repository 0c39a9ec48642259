"What a learner does where a notebook's example does not look: files that change, predictions within a fit, other devices"
import numpy as np,pandas as pd
import pytest,torch
from PIL import Image
from fastai.basics import noop
from fastai.callback.core import Callback
from fastai.callback.tracker import EarlyStoppingCallback,ReduceLROnPlateau,SaveModelCallback
from fastai.optimizer import Lookahead,RAdam,ranger
from fastai.torch_core import set_seed
import fashion_fastai.data.loader as loader
from fashion_fastai.callback.checkpoint import Checkpoint
from fashion_fastai.callback.state import optimizer_to_device,random_states,restore_random_states
from fashion_fastai.core import InputError
from fashion_fastai.data.loader import fashion_dls,pack_table
from fashion_fastai.interpret.core import FashionInterpretation,grad_cam
from fashion_fastai.interpret.scores import run_scores
from fashion_fastai.data.vocab import LabelTable
from fashion_fastai.data.labels import read_labels
from fashion_fastai.build import fashion_learner,recipe_learner
from fashion_fastai.model.loss import attribute_loss,category_loss,label_weights
from fashion_fastai.recipes.settings import read_recipe
from fashion_fastai.callback.profile import PhaseTimer
from fashion_fastai.model.multitask import multi_task_model
from fashion_fastai.callback.ema import EMA
from fashion_fastai.decision.rules import Threshold
from fashion_fastai.decision.core import Decision
from fashion_fastai.predict.model import load_model

@pytest.fixture(scope='module')
def table(garments): return read_labels(garments)

def made(table, tmp_path, packed=None, **kwargs):
    "A learner with random weights, the same each time"
    set_seed(1)
    learn = fashion_learner(fashion_dls(table, (32,24), 32, packed, workers=0), 'xresnet10', path=tmp_path, **kwargs)
    learn.logger = lambda *args: None
    return learn

def small(table, tmp_path, **kwargs):
    "The same, of fewer weights"
    return made(table, tmp_path, width=.25, **kwargs)

def test_a_single_image_is_opened_also_where_it_is_in_the_cache(table, tmp_path):
    path = tmp_path/'image.jpg'
    Image.open(table.images[0]).save(path)
    own = read_labels(table.data)
    own.images[0] = str(path)
    learn = made(own, tmp_path, pack_table(own, (32,24), tmp_path/'cache'))
    assert learn.dls.train.rows is not None
    before,heat = learn.predict(path),grad_cam(learn, path)
    Image.open(table.images[1]).save(path)
    after = learn.predict(path)
    assert after.category_probabilities != before.category_probabilities
    assert after.category_probabilities == pytest.approx(learn.predict(table.images[1]).category_probabilities, abs=.02) # saved once more as JPEG
    assert not torch.equal(grad_cam(learn, path), heat)
    dl = learn.dls.test_dl([str(path)])
    assert dl.packed is None and torch.equal(dl.one_batch()[0], learn.dls.test_dl([Image.open(path)]).one_batch()[0])

def test_whatever_holds_an_image_can_be_predicted(table, tmp_path):
    learn,path = made(table, tmp_path),table.images[0]
    pixels,raw = np.asarray(Image.open(path)),open(path, 'rb').read()
    expected = learn.predict(path)
    tensor = torch.tensor(pixels)
    for item in (raw, pixels, tensor, tensor.permute(2,0,1), tensor/255., Image.open(path), str(path)):
        assert learn.predict(item).category_probabilities == pytest.approx(expected.category_probabilities, abs=1e-5)

@pytest.mark.parametrize('kind', [np.array, pd.Series, lambda o: pd.Series(o, index=range(7, 7+len(o))), tuple, lambda o: [open(p, 'rb').read() for p in o]])
def test_a_list_of_any_kind_can_be_predicted(kind, table, tmp_path):
    learn,paths = made(table, tmp_path),table.images[:5]
    with learn.no_bar(): expected,found = (learn.get_preds(dl=learn.dls.test_dl(o))[0][0] for o in (paths, kind(paths)))
    assert torch.equal(expected, found)

class PredictWithin(Callback):
    "Predictions after every epoch, and at the beginning of each validation"
    order,busy = 90,False
    def predict(self):
        if self.busy: return
        self.busy = True
        random,numpy = torch.get_rng_state(),np.random.get_state()
        with self.learn.no_bar(): self.learn.get_preds(dl=self.dls.valid.new(shuffle=False))
        torch.set_rng_state(random)
        np.random.set_state(numpy)
        self.busy = False
    def before_validate(self): self.predict()
    def after_epoch(self): self.predict()

def test_a_prediction_within_a_fit_disturbs_nothing(table, tmp_path):
    weights,histories = [],[]
    for cbs in ([], [PredictWithin()]):
        learn = made(table, tmp_path, cbs=[EMA(.9), *cbs])
        with learn.no_bar(): learn.fit_one_cycle(2, 1e-2)
        weights.append(torch.cat([o.detach().flatten().float() for o in learn.model.state_dict().values()]))
        histories.append(learn.history.table.drop(columns='time'))
    assert torch.equal(*weights)
    pd.testing.assert_frame_equal(*histories)

@pytest.mark.parametrize('cbs', [lambda: [SaveModelCallback(with_opt=True), EarlyStoppingCallback(patience=1)], lambda: [SaveModelCallback(), ReduceLROnPlateau()],
    lambda: [SaveModelCallback(at_end=True)], lambda: [SaveModelCallback(every_epoch=True)]])
def test_averages_are_what_fastai_saves_and_restores(cbs, table, tmp_path):
    learn,(save,*others) = small(table, tmp_path, cbs=[EMA(.9)]),cbs()
    with learn.no_bar():
        learn.fit_one_cycle(3, 1e-2, cbs=[save, *others])
        losses = [o[1] for o in learn.recorder.values]
        expected = losses[-1] if save.at_end or save.every_epoch else min(losses)
        assert learn.validate()[0] == pytest.approx(expected, rel=1e-5)
        assert learn.ema.weights == learn.ema.averages == []
        saved = {f'model_{i}': o for i,o in enumerate(losses)} if save.every_epoch else dict(model=expected)
        other = small(table, tmp_path)
        for name,o in saved.items(): assert other.load(name, with_opt=False).validate()[0] == pytest.approx(o, rel=1e-5)

def test_weights_of_rare_attributes_come_from_the_training_images_alone(garments, tmp_path):
    table = read_labels(garments)
    learn = small(table, tmp_path, attribute_balance=.5)
    assert learn.loss_func.balance.tolist() == pytest.approx(label_weights(table.attributes[~table.is_valid], .5).tolist(), rel=1e-5)
    learn.export('balanced.pkl')
    assert torch.equal(load_model(tmp_path/'balanced.pkl').loss_func.balance, learn.loss_func.balance)
    assert small(table, tmp_path).loss_func.balance is None and small(table, tmp_path, attribute_balance='asymmetric').loss_func.balance == 'asymmetric'
    with pytest.raises(InputError, match="attribute_balance is 'focal', but should be"): small(table, tmp_path, attribute_balance='focal')

@pytest.mark.parametrize('with_opt', [True, False])
def test_a_saved_learner_keeps_its_decision(with_opt, table, tmp_path):
    learn = small(table, tmp_path, logit_adjustment=.5)
    with learn.no_bar(): learn.fit(1)
    learn.tune_decision('per_label')
    expected = learn.predict(table.images[0])
    learn.save('tuned', with_opt=with_opt)
    learn.export('tuned.pkl')
    other = small(table, tmp_path)
    default = other.loss_func.decision.rule
    for found in (other.load('tuned', with_opt=with_opt), load_model(tmp_path/'tuned.pkl')):
        assert found.loss_func.decision.temperatures == learn.loss_func.decision.temperatures and repr(found.loss_func.decision.rule) == repr(learn.loss_func.decision.rule) != repr(default)
        prediction = found.predict(table.images[0])
        assert prediction.attributes == expected.attributes and prediction.category_probabilities == pytest.approx(expected.category_probabilities, abs=1e-6)
    torch.save(small(table, tmp_path).model.state_dict(), tmp_path/'models'/'weights.pth') # of fastai's own learner
    assert repr(other.load('weights', with_opt=False).loss_func.decision.rule) == repr(learn.loss_func.decision.rule)

def test_a_rule_of_ones_own_is_not_saved_but_the_weights_are(table, tmp_path):
    learn = small(table, tmp_path)
    learn.loss_func.decision = Decision(lambda p: p > .7)
    with pytest.warns(UserWarning, match='rule and temperatures are not saved'): learn.save('own')
    with learn.no_bar(): learn.lr_find(num_it=12, show_plot=False) # which saves the weights, without a warning
    other = small(table, tmp_path)
    other.loss_func.decision = Decision(Threshold(.3))
    assert other.load('own').loss_func.decision.rule.threshold == .3

def test_a_validation_within_a_fit_is_refused(table, tmp_path):
    class ValidateWithin(Callback):
        def after_epoch(self): self.learn.validate()
    learn = made(table, tmp_path, cbs=[ValidateWithin()])
    with learn.no_bar(),pytest.raises(RuntimeError, match='use `get_preds`'): learn.fit(1)
    learn.remove_cb(ValidateWithin)
    with learn.no_bar(): assert len(learn.validate()) == 5

def test_a_checkpoint_of_somebody_else_sets_nothing_but_the_state_of_a_training(table, tmp_path):
    def fit(**kwargs):
        learn = made(table, tmp_path)
        with learn.no_bar(): learn.fit(1, cbs=Checkpoint(tmp_path/'checkpoint.pt', **kwargs))
    fit()
    state = torch.load(tmp_path/'checkpoint.pt', weights_only=True)
    fit(resume=True)
    for key,value in (('callbacks', [['checkpoint', dict(file=str(tmp_path/'evil.pt'))]]), ('callbacks', [['recorder', 1]]), ('precision', 1),
                      ('smooth_loss', None), ('orders', [1,2]), ('random', {}), ('epoch', '1'), ('about', [])):
        torch.save({**state, key: value}, tmp_path/'checkpoint.pt')
        with pytest.raises(InputError, match='checkpoint.pt: (does not fit this learner|is no checkpoint)'): fit(resume=True)
    assert not (tmp_path/'evil.pt').exists()

@pytest.mark.parametrize('opt_func', [RAdam, ranger])
def test_a_restored_optimizer_works_on_the_device_of_its_weights(opt_func):
    "The device `meta` stands for a GPU"
    weight = torch.nn.Parameter(torch.zeros(3))
    opt = opt_func([weight], lr=.1)
    for _ in range(7):
        weight.grad = torch.ones(3)
        opt.step()
    state = opt.state_dict()
    there = opt_func([torch.nn.Parameter(torch.zeros(3, device='meta'))], lr=.1)
    there.load_state_dict(state)
    optimizer_to_device(there)
    inner = there.opt if isinstance(there, Lookahead) else there
    tensors = [o for state in inner.state.values() for o in state.values() if isinstance(o, torch.Tensor)]
    if isinstance(there, Lookahead): tensors += [o for group in there.slow_weights for o in group]
    assert len(tensors) > 1 and all(o.is_meta for o in tensors)

def test_random_states_of_more_devices_than_there_are():
    states = random_states()
    states['torch_cuda_state'] = [torch.zeros(16, dtype=torch.uint8)]*8
    restore_random_states(states)

@pytest.mark.parametrize('precision,expected', [('fp32', torch.bfloat16), ('bf16', torch.bfloat16)])
def test_an_autocast_around_the_model_holds(precision, expected):
    model,seen = multi_task_model(3, 4, 'xresnet10', .5).to_precision(precision),[]
    model[0][0][0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast('cpu', torch.bfloat16): logits = model(torch.zeros(2,3,32,24))
    assert seen == [expected] and logits[0].dtype == torch.float32
    model(torch.zeros(2,3,32,24))
    assert seen[1] == (torch.float32 if precision == 'fp32' else torch.bfloat16)

def test_cuda_or_cpu_but_no_other_device(table, monkeypatch):
    monkeypatch.setattr(loader, 'default_device', lambda: torch.device('mps', 0))
    assert fashion_dls(table, (32,24)).device == torch.device('cpu')

def test_loaders_take_the_names_that_fastai_has(table):
    assert fashion_dls(table, size=32, bs=8, workers=0).one_batch()[0].shape == (8,3,32,32)

class SteppingClock:
    "Tells the time of a device that is far behind: each mark is a second after the one before"
    def __init__(self): self.now,self.n_waited = 0,0
    def mark(self):
        self.now += 1
        return self.now
    def seconds(self, a, b):
        self.n_waited += 1
        return float(b-a)

def test_phases_are_timed_by_the_clock_of_the_device(table, tmp_path):
    times,learn = PhaseTimer(),made(table, tmp_path)
    class UseClock(Callback):
        order = 100
        def before_fit(self): times.clock,times.marks = SteppingClock(),[('', 0)]
    with learn.no_bar(): learn.fit(1, cbs=[times, UseClock()])
    n = len(learn.dls.train)
    assert {k: o for k,o in times.seconds.items() if k != 'between'} == dict(loading=n, forward=n, loss=n, backward=n, step=n, validation=1)
    assert times.clock.n_waited == sum(times.seconds.values())

def test_multi_hot_labels_are_kept_as_bytes(table, tmp_path):
    learn = made(table, tmp_path)
    assert learn.dls.train.targets[1].dtype == torch.int8 and learn.dls.train.one_batch()[2].dtype == torch.float32

def test_the_empty_set_is_predicted_where_training_labels_have_it(table, tmp_path):
    one = read_labels(table.data)
    one.frame,one.vocab = one.frame[['file_path','category_label','belted','is_valid']],type(one.vocab)(one.vocab.categories, ('belted',))
    assert 0 < one.attributes.mean() < 1
    learn = made(one, tmp_path)
    for rule in ('half','threshold','per_label','expected_f1','label_sets'):
        decision = learn.tune_decision(rule)
        sure = torch.tensor([[.001],[.999]])
        assert decision.rule(sure).tolist() == [[False],[True]], rule
    assert made(table, tmp_path).loss_func.decision.rule(torch.zeros(1,15)).sum() == 1 # here every image has some attribute

@pytest.mark.parametrize('kept, settings', [('attributes', dict(category_weight=0)), ('categories', dict(attribute_weight=0)),
    ('attributes', dict(category_weight=0, attribute_weight='auto'))])
def test_a_part_that_is_not_trained_is_neither_predicted_nor_scored(kept, settings, table, tmp_path):
    recipe = read_recipe('demo', stages='32x24:1', rule='fixed', **settings)
    learn = recipe_learner(table, recipe, path=tmp_path)
    with learn.no_bar(): learn.fit_recipe(recipe)
    row = learn.history.rows[-1]
    assert np.isfinite(row['valid_loss']) and ({'accuracy','category_loss'} <= set(row)) == (kept == 'categories')
    scores = run_scores(FashionInterpretation.from_learner(learn))
    assert ('accuracy' in scores, 'mean_f1' in scores) == (kept == 'categories', kept == 'attributes')
    prediction = learn.predict(table.images[0])
    assert bool(prediction.category) == (kept == 'categories') and bool(prediction.attribute_probabilities) == (kept == 'attributes')
    with pytest.raises(InputError, match='nothing to train'): recipe_learner(table, read_recipe('demo', category_weight=0, attribute_weight=0))

def test_the_validation_loss_is_the_mean_over_known_labels(table, tmp_path):
    holes = LabelTable(table.frame.copy(), table.vocab, table.data, table.images)
    holes.frame.loc[holes.frame.index[::3],'category_label'] = -1
    holes.frame.loc[holes.frame.index[:len(holes)//2],list(table.vocab.attributes)[2:]] = -1
    learn = made(holes, tmp_path)
    with learn.no_bar():
        learn.fit(1)
        logits,targets = learn.get_preds(act=noop)
    row = learn.history.rows[-1]
    expected = category_loss(logits, targets[0]).item(),attribute_loss(logits, *targets).item()
    assert (row['category_loss'], row['attribute_loss']) == pytest.approx(expected, rel=1e-4)
    assert row['valid_loss'] == pytest.approx(expected[0] + learn.loss_func.attribute_weight*expected[1], rel=1e-4)

def test_training_images_are_interpreted_without_random_augmentation(table, tmp_path):
    learn = made(table, tmp_path)
    first,second = (FashionInterpretation.from_learner(learn, ds_idx=0) for _ in range(2))
    assert torch.equal(first.logits[1], second.logits[1])
    assert first.images == [o.image for o in table.rows if not o.is_valid]
    with learn.no_bar(): expected,_ = learn.get_preds(dl=learn.dls.test_dl(first.images), act=noop)
    assert torch.allclose(first.logits[1], expected[1], atol=1e-5)

def test_predict_returns_the_image_as_the_network_sees_it(table, tmp_path):
    learn = made(table, tmp_path)
    image,prediction = learn.predict(table.images[0], with_input=True)
    assert tuple(image.shape[-2:]) == learn.dls.valid.crop.size and prediction == learn.predict(table.images[0])

def test_interpretations_of_one_target_name_what_to_use(table, tmp_path):
    from fastai.interpret import ClassificationInterpretation
    with pytest.raises(InputError, match='FashionInterpretation.from_learner'): ClassificationInterpretation.from_learner(made(table, tmp_path))

def test_label_sets_of_unknown_labels_are_refused_before_the_training(table):
    holes = LabelTable(table.frame.copy(), table.vocab, table.data, table.images)
    holes.frame['red'] = -1
    with pytest.raises(InputError, match='rule label_sets cannot be tuned: 0 of'): recipe_learner(holes, read_recipe('demo', rule='label_sets'))

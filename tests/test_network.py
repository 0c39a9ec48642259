"The network: its layers and what whitening computes, precisions, optimizers; the filters stay as they are in a training"
import json
from copy import deepcopy
import numpy as np
import pytest,torch
from torch import nn
from torch.nn import functional as F
from fastai.torch_core import set_seed
from fastai.vision.models.xresnet import xresnet18
from fashion_fastai.callback.ema import EMA
from fashion_fastai.core import InputError,OPTIMIZERS
from fashion_fastai.data.labels import read_labels
from fashion_fastai.data.loader import fashion_dls,pack_table
from fashion_fastai.export.graph import export_onnx
from fashion_fastai.build import fashion_learner,recipe_learner
from fashion_fastai.model import precision as precision_module
from fashion_fastai.model.conv import Conv3x3,conv_small,with_conv3x3
from fashion_fastai.model.multitask import MaxBlurPool,WhitenedPatches,multi_task_model,xresnet_body
from fashion_fastai.model.optimizer import fused_adamw,muon,optimizer_func
from fashion_fastai.model.precision import set_precision
from fashion_fastai.predict.model import load_model,save_model
from fashion_fastai.predict.onnx import open_session
from fashion_fastai.recipes.settings import read_recipe,read_recorded_recipe,write_recipe
from fashion_fastai.train.timing import time_training

@pytest.fixture(scope='module')
def table(garments): return read_labels(garments)

def whitened_learner(table, tmp_path, **kwargs):
    "A learner with random weights but for its first layer, the same each time"
    set_seed(1)
    learn = fashion_learner(fashion_dls(table, (32,24), 32, workers=0), 'xresnet10', .25, stem='whitened', path=tmp_path, **kwargs)
    learn.logger = lambda *args: None
    return learn

def outputs(patches, images):
    "What the filters find, before ReLU and without the border: shape (number of patches, number of filters)"
    positive,negative = patches(images)[...,1:-1,1:-1].chunk(2, dim=1)
    return (positive - negative).movedim(1, -1).flatten(0, 2)

def covariance_of_patches(images):
    return F.unfold(images.double(), 4, stride=2).movedim(1, -1).flatten(0, 1).T.cov(correction=0)

def test_all_filters_together_are_a_root_of_the_inverse_covariance():
    torch.manual_seed(0)
    images = torch.randn(3, 3, 30, 22) @ torch.randn(22, 22) # pixels of a row are correlated
    patches = WhitenedPatches(48)
    patches.whiten(images, noise=.5)
    filters = patches.weight[:48].flatten(1).double()
    inverse = torch.linalg.inv(covariance_of_patches(images[...,1:,1:]) + .5*torch.eye(48))
    torch.testing.assert_close(filters.T @ filters, inverse, rtol=1e-4, atol=1e-5)

def test_outputs_of_patches_with_a_known_covariance_have_the_identity():
    torch.manual_seed(0)
    spreads = torch.tensor([3.,1.,.2]).view(3, 1, 1) # of independent pixels: 16 eigenvalues of each of 9, 1 and .04
    seen,others = (spreads*torch.randn(200, 3, 64, 48) + 5 for _ in range(2))
    patches = WhitenedPatches(24)
    patches.whiten(seen)
    assert patches.weight[:24].flatten(1).norm(dim=1).tolist() == pytest.approx([1/3]*16 + [1.]*8, rel=.03)
    torch.testing.assert_close(outputs(patches, others).T.cov(), torch.eye(24), rtol=0, atol=.03)

@pytest.mark.parametrize('pixels', [torch.zeros(2, 3, 16, 16), torch.full((1, 3, 5, 5), 2.6), torch.ones(3, 3, 2, 1)])
def test_images_without_any_contrast_give_finite_filters(pixels):
    patches = WhitenedPatches()
    patches.whiten(pixels)
    assert patches.weight.isfinite().all() and patches(pixels).isfinite().all()

@pytest.mark.parametrize('size', [(64,48), (45,33), (44,33), (7,9), (1,1)])
def test_maps_are_as_large_as_those_of_fastais_stem(size):
    images = torch.zeros(1, 3, *size)
    for blur_pool in (False,True):
        bodies = [xresnet_body('xresnet10', .25, blur_pool, stem).eval() for stem in ('xresnet','whitened')]
        assert len({body[:4](images).shape for body in bodies}) == len({body(images).shape for body in bodies}) == 1

def test_an_unknown_stem_is_named():
    with pytest.raises(InputError, match="stem 'white' is not known; there are xresnet, whitened"): multi_task_model(2, 3, stem='white')

def test_the_whitened_stem_leaves_the_random_weights_of_the_other_layers_as_they_are():
    def stages(stem):
        torch.manual_seed(3)
        return multi_task_model(2, 3, 'xresnet10', stem=stem)[0][4:].state_dict().values()
    assert all(map(torch.equal, stages('xresnet'), stages('whitened')))

@pytest.mark.parametrize('precision', ['fp32','bf16'])
def test_a_training_does_not_change_the_filters(precision, table, tmp_path):
    learn = whitened_learner(table, tmp_path, cbs=[EMA(.9)], opt_func=muon, precision=precision)
    before = learn.model[0][0].weight.clone()
    second = learn.model[0][1].weight.detach().clone()
    learn.freeze()
    learn.unfreeze()
    learn.model.requires_grad_(True)
    with learn.no_bar(): learn.fit_one_cycle(2, 1e-2)
    assert torch.equal(learn.model[0][0].weight, before) and not torch.equal(learn.model[0][1].weight, second)

def test_the_filters_depend_on_the_training_images_and_neither_on_the_seed_nor_on_the_cache(table, tmp_path):
    recipe = read_recipe('demo', stages='32x24:1', stem='whitened', precision='fp32')
    packed = pack_table(table, recipe.size, tmp_path)
    other_seed = read_recipe('demo', stages='32x24:1', stem='whitened', seed=7, precision='fp32')
    options = (recipe, packed), (recipe, None), (other_seed, packed)
    filters = [recipe_learner(table, *o).model[0][0].weight for o in options]
    assert torch.equal(filters[0], filters[1]) and torch.equal(filters[0], filters[2])
    swapped = read_labels(table.data)
    swapped.frame['is_valid'] = ~swapped.frame.is_valid
    assert not torch.equal(recipe_learner(swapped, recipe, packed).model[0][0].weight, filters[0])

def test_a_whitened_network_is_saved_loaded_and_exported(table, tmp_path):
    learn,image = whitened_learner(table, tmp_path, tta=True),table.images[0]
    expected = learn.predict(image)
    loaded = load_model(save_model(learn, tmp_path/'model'))
    assert torch.equal(loaded.model[0][0].weight, learn.model[0][0].weight)
    assert loaded.predict(image).attribute_probabilities == expected.attribute_probabilities
    export_onnx(learn, tmp_path/'model.onnx')
    pixels = learn.dls.train.open([image]).numpy()
    category,attributes,_ = open_session(str(tmp_path/'model.onnx'), 1).run(None, dict(images=pixels))
    np.testing.assert_allclose(category[0], list(expected.category_probabilities.values()), atol=1e-5)
    np.testing.assert_allclose(attributes[0], list(expected.attribute_probabilities.values()), atol=1e-5)

def test_a_model_of_before_there_were_stems_predicts_as_it_did(table, tmp_path):
    set_seed(1)
    learn = fashion_learner(fashion_dls(table, (32,24), 32, workers=0), 'xresnet10', .25, path=tmp_path)
    file = save_model(learn, tmp_path/'model')/'model.json'
    description = json.loads(file.read_text())
    assert description['architecture'].pop('stem') == 'xresnet'
    file.write_text(json.dumps(description))
    image = table.images[0]
    assert load_model(tmp_path/'model').predict(image).category_probabilities == learn.predict(image).category_probabilities

def test_a_training_is_timed_without_its_images(table):
    recipe = read_recipe('demo', stem='whitened', precision='fp32', batch_size=16)
    assert time_training(table, recipe, (16,12), seconds=.01).train > 0

def test_a_run_of_before_there_were_stems_has_fastais(tmp_path):
    file = tmp_path/'settings.ini'
    write_recipe(read_recipe('quick'), file)
    file.write_text('\n'.join(o for o in file.read_text().splitlines() if not o.startswith('stem')))
    assert read_recorded_recipe(file).stem == 'xresnet'

def passes(conv, size, stride, n=3, channels=8):
    "Outputs of a convolution of 3×3 cells, and the gradients of its maps and weights"
    torch.manual_seed(0)
    maps,weight = torch.randn(n, channels, *size),torch.randn(channels, channels, 3, 3)/(9*channels)**.5
    maps,weight = (o.to(memory_format=torch.channels_last).requires_grad_() for o in (maps, weight))
    outputs = conv(maps, weight, stride=stride)
    outputs.backward(torch.linspace(-1, 1, outputs.numel()).view_as(outputs))
    return outputs,maps.grad,weight.grad

@pytest.mark.parametrize('stride,size', [(2,(2,2)), (2,(3,3)), (2,(4,3)), (2,(5,4)), (1,(1,3)), (2,(1,1))])
def test_convolutions_over_few_cells_are_those_of_pytorch_at_all_borders(stride, size):
    def plain(maps, weight, stride): return F.conv2d(maps, weight, stride=stride, padding=1)
    for a,b in zip(passes(conv_small, size, stride), passes(plain, size, stride)): torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)

def test_maps_that_are_contiguous_are_convolved_too():
    layer,maps = Conv3x3(4, 128, 3, padding=1, bias=False),torch.randn(2, 4, 2, 2)
    torch.testing.assert_close(layer(maps), F.conv2d(maps, layer.weight, padding=1), rtol=1e-4, atol=1e-5)
    assert layer(torch.randn(2, 4, 9, 7)).shape == (2, 128, 9, 7)

def test_predictions_and_bf16_have_the_bits_of_pytorchs_convolutions():
    plain = xresnet18(widen=.5, act_cls=nn.Tanh).eval()
    fast,images = with_conv3x3(deepcopy(plain)),torch.randn(4, 3, 64, 48)
    with torch.no_grad(): assert torch.equal(plain(images), fast(images))
    layer,maps = Conv3x3(4, 128, 3, padding=1, bias=False).bfloat16(),torch.randn(2, 4, 2, 2).bfloat16()
    assert torch.equal(layer(maps), F.conv2d(maps, layer.weight, padding=1))

def test_other_convolutions_are_not_replaced():
    others = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, bias=False, padding_mode='reflect'), nn.Conv2d(4, 4, 3, 3, 1, bias=False))
    assert not any(isinstance(o, Conv3x3) for o in with_conv3x3(others))

@pytest.mark.parametrize('arch,width,reason', [('resnet18', .5, "arch 'resnet18' is not known"), ('xresnet18', .1, 'width is 0.1'),
    ('xresnext18', .3, 'cannot be built at width 0.3')])
def test_networks_that_cannot_be_built_are_refused(arch, width, reason):
    with pytest.raises(InputError, match=reason): xresnet_body(arch, width)

@pytest.mark.parametrize('stem', ['xresnet','whitened'])
def test_pooling_with_a_blur_moves_less_with_the_image(stem):
    body = xresnet_body('xresnet10', .25, blur_pool=True, stem=stem)
    assert sum(isinstance(o, MaxBlurPool) for o in body.modules()) == 1 and not any(isinstance(o, nn.MaxPool2d) for o in body[4:].modules())
    for size in ((48,36), (47,35), (9,7)):
        zeros = torch.zeros(1, 8, *size)
        assert MaxBlurPool()(zeros).shape == nn.MaxPool2d(3, 2, 1)(zeros).shape
    torch.testing.assert_close(MaxBlurPool()(torch.ones(1, 8, 12, 10)), torch.ones(1, 8, 6, 5))
    torch.manual_seed(0)
    noise = torch.randn(32, 3, 64, 48)
    def change(pool): return (pool(noise) - pool(noise.roll(-1, -1))).std()
    assert change(MaxBlurPool()) < .7*change(nn.MaxPool2d(3, 2, 1))

@pytest.mark.parametrize('stem', ['xresnet','whitened'])
def test_precision_and_layout_change_logits_by_rounding_only_and_no_weights(stem):
    torch.manual_seed(0)
    model,images = multi_task_model(10, 15, 'xresnet10', width=.5, stem=stem).eval(),torch.randn(8, 3, 64, 48)
    with torch.no_grad():
        plain = model(images)[1]
        for precision,tolerance in (('fp32', 1e-4), ('bf16', .02)):
            category,attributes = model.to_precision(precision, channels_last=True)(images)
            torch.testing.assert_close(attributes, plain, rtol=0, atol=tolerance)
            assert category.dtype == attributes.dtype == torch.float32
    assert {o.dtype for o in model.parameters()} == {torch.float32}
    with pytest.raises(InputError, match="precision 'half' is not known; there are fp32, bf16, fp16"): model.to_precision('half')

def test_random_weights_depend_on_the_seed_only():
    def weights(seed):
        set_seed(seed)
        return torch.cat([o.flatten() for o in multi_task_model(10, 15, 'xresnet10', width=.5, stem='whitened').state_dict().values()])
    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))

@pytest.mark.parametrize('keys', [dict(blur_pool=True), dict(stem='whitened', learned_weights=True), dict(dropout=.2)])
def test_a_network_is_built_again_from_its_architecture(keys):
    model = multi_task_model(10, 15, 'xresnet10', width=.25, **keys)
    assert str(multi_task_model(10, 15, **model.architecture)) == str(model)
    assert model.architecture == dict(arch='xresnet10', dropout=0., learned_weights=False, width=.25, blur_pool=False, stem='xresnet') | keys

@pytest.fixture(scope='module')
def network(): return multi_task_model(10, 15, 'xresnet10', width=.25)

def test_a_measured_precision_is_read_from_its_file_the_next_time(network, tmp_path):
    file,size = tmp_path/'precision.json',(32,24)
    set_precision(network, 'auto', size, 16, cache_dir=tmp_path)
    choices = json.loads(file.read_text())
    assert list(choices.values()) == [[network.precision, network.channels_last]]
    file.write_text(json.dumps({k: ['bf16', True] for k in choices}))
    set_precision(network, 'auto', size, 16, cache_dir=tmp_path)
    assert (network.precision, network.channels_last) == ('bf16', True)
    file.write_text('{') # a damaged file is replaced
    assert set_precision(network, 'fp32', size, 16, cache_dir=tmp_path).precision == 'fp32' and len(json.loads(file.read_text())) == 1
    assert set_precision(network, 'bf16', size, 16, cache_dir=file/'no folder').precision == 'bf16' # which cannot be written

@pytest.mark.parametrize('precision,reason', [('fp8', "precision is 'fp8'"), ('fp16', 'needs a GPU')])
def test_a_precision_that_is_not_there_is_refused(network, precision, reason):
    with pytest.raises(InputError, match=reason): set_precision(network, precision, (48,36))

@pytest.mark.parametrize('batch_size,few,seconds,expected', [
    (64, 8, {('fp32',False): 1., ('fp32',True): .9, ('bf16',False): 40., ('bf16',True): 9.}, ['fp32']),
    (1, 2, {('fp32',False): 1., ('fp32',True): .9, ('bf16',False): 40., ('bf16',True): .5}, ['fp32','bf16'])]) # BatchNorm needs two images
def test_a_precision_that_is_far_slower_is_timed_with_few_images_only(batch_size, few, seconds, expected, network, tmp_path, monkeypatch):
    calls = []
    def fake_times(model, size, batch_size, training, precisions=None, **kwargs):
        calls.append((batch_size, precisions))
        return seconds
    monkeypatch.setattr(precision_module, 'time_precisions', fake_times)
    set_precision(network, 'auto', (32,24), batch_size, cache_dir=tmp_path)
    assert calls == [(few, None), (batch_size, expected)]

def test_every_optimizer_takes_a_learning_rate_and_others_are_refused():
    weight = nn.Parameter(torch.ones(2))
    for name in OPTIMIZERS: assert optimizer_func(name)([weight], lr=.1).hypers[0]['lr'] == .1, name
    with pytest.raises(InputError, match="optimizer 'adma' is not known"): optimizer_func('adma')

def step(layer, opt, maps):
    layer(maps).square().mean().backward()
    opt.step()
    opt.zero_grad()

def test_muon_leaves_all_weights_but_large_convolutions_to_adamw():
    "Weights of single pixels, of colours, of many channels, biases"
    def trained(optimizer):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 129, 3), nn.Flatten(), nn.Linear(129, 2))
        opt = optimizer([list(layers.parameters())], lr=.01)
        for _ in range(3): step(layers, opt, torch.randn(4, 3, 5, 5))
        return layers.parameters()
    assert all(map(torch.equal, trained(muon), trained(fused_adamw)))

def test_the_state_of_muon_is_saved_and_restored():
    def made():
        torch.manual_seed(0)
        layer = nn.Conv2d(8, 16, 3)
        return layer,muon([list(layer.parameters())], lr=.01)
    def train(layer, opt):
        for i in range(3): step(layer, opt, torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(i)))
    (layer,opt),(other,restored) = made(),made()
    train(layer, opt)
    other.load_state_dict(layer.state_dict())
    restored.load_state_dict(deepcopy(opt.state_dict()))
    for o in ((layer, opt), (other, restored)): train(*o)
    assert torch.equal(layer.weight, other.weight) and 'momentum' in opt.state_dict()['state'][0]

"Which values of a recipe are refused, and what a settings file may say"
import pytest,torch
from fastcore.test import test_eq as equal,test_fail as fails
from fashion_fastai.core import InputError
from fashion_fastai.recipes.recipe import parse_stages
from fashion_fastai.train import start
from fashion_fastai.recipes.settings import SHIPPED,read_recipe,read_recorded_recipe,recipe_names,write_recipe

def refused(contains, *args, **kwargs): fails(lambda: read_recipe(*args, **kwargs), exc=InputError, contains=contains)

@pytest.mark.parametrize('text', ['', '64', '64x48', '64:4', '64x48:-1', '64x48:0', '64x0:4', '96x72:2 64x48:2'])
def test_stages_that_are_no_schedule(text): fails(lambda: parse_stages(text), exc=InputError, contains='stages')

def test_a_refusal_shows_what_stages_look_like():
    fails(lambda: parse_stages('64,48:3'), contains='should look like 48x36:4 64x48:4')

@pytest.mark.parametrize(['key','value','reason'], [('precision', 'fp8', 'precision is fp8, but should be auto, fp32, bf16 or fp16'),
    ('test_size', '80', "size '80' should look like 80x60"), ('test_size', '60x60', 'test_size 60x60 is smaller than the last stage, 72x54'),
    ('log', 'paper', 'log is paper, but should be no, tensorboard or wandb'), ('lr', -1, 'lr is -1, but should be more than 0'),
    ('lr', 'fast', "lr is 'fast', not a number"), ('workers', 'many', 'not a whole number or auto'),
    ('channels_last', 'maybe', "channels_last is 'maybe', not yes or no or auto"), ('stages', '3000x2000:1', 'images of 3000x2000 are too large'),
    ('attribute_balance', '2', 'attribute_balance is 2.0, but should be from 0 to 1, or asymmetric'), ('attribute_balance', 'nan', 'attribute_balance is nan'),
    ('attribute_balance', 'focal', 'attribute_balance is focal, but should be from 0 to 1, or asymmetric'),
    ('threshold', '2', 'threshold is 2.0, but should be between 0 and 1'), ('parent', '', 'parent is , but should be no or the folder of a run')])
def test_values_that_are_refused(key, value, reason): refused(reason, 'quick', **{key: value})

def test_values_are_text_or_of_their_type():
    equal(read_recipe('quick', epochs='3', flip='no').n_epochs, 3)
    equal(read_recipe('quick', lr=1e-3).lr, 1e-3)
    equal(read_recipe('quick', attribute_weight='auto').attribute_weight, None)
    equal([read_recipe('quick', attribute_balance=o).attribute_balance for o in ('.5',.5,'asymmetric','0')], [.5,.5,'asymmetric',0])
    equal([read_recipe('quick', compile=o).compile for o in ('auto','yes','no')], [None,True,False])
    equal(read_recipe('quick', test_size='80x60').size, (80,60))
    for name in recipe_names(): assert read_recipe(name).size[0] >= 32

def test_names_that_do_not_exist():
    refused("unknown recipe 'slow'; there are demo, quick", 'slow')
    refused('unknown key learning_rate; the keys are arch, width', 'quick', learning_rate='1')
    refused('unknown key given', 'quick', given='lr') # a field that is no key

def test_files_that_are_no_recipes(tmp_path):
    mine = tmp_path/'mine.ini'
    invalid = {'[quick]\nlrr = 1': 'unknown key lrr', '[quick]\nlr = 1\nlr = 2': 'is not a settings file', 'lr = 1': 'is not a settings file'}
    for text,why in invalid.items():
        mine.write_text(text)
        refused(why, 'quick', mine)
    refused('no such settings file', 'quick', tmp_path/'none.ini')
    fails(lambda: read_recorded_recipe(SHIPPED), exc=InputError, contains='is not the settings file of a run, which has one recipe')

def test_a_recorded_recipe_is_the_same_however_it_is_read(tmp_path):
    used,path = read_recipe('quick', epochs=2, seed=7, channels_last=True),tmp_path/'used.ini'
    write_recipe(used, path)
    equal(read_recipe('quick', path), used)
    equal((read_recorded_recipe(path).name, read_recorded_recipe(path).given), ('quick', ()))

@pytest.mark.parametrize('text,minutes', [('[quick]\nstages = 64x48:1', 0), ('[quick]\nepochs = 3', 0), ('[DEFAULT]\nepochs = 3', 0), ('[quick]\nepochs = 3\nminutes = 5', 5),
    ('[quick]\nepochs = auto', 10), ('[DEFAULT]\nstages = 64x48:1', 10), ('[quick]\nlr = .1', 10), ('[quick]\nminutes = 3', 3)])
def test_minutes_give_way_to_a_length_in_settings_of_ones_own(text, minutes, tmp_path):
    (tmp_path/'mine.ini').write_text(text)
    equal(read_recipe('quick', tmp_path/'mine.ini').minutes, minutes)

def test_minutes_give_way_to_a_length_that_is_given():
    assert read_recipe('gpu').is_planned and read_recipe('gpu', epochs='auto').is_planned
    assert not read_recipe('gpu', stages='64x48:1').is_planned and not read_recipe('gpu', epochs=2).is_planned
    assert read_recipe('gpu', epochs=2, minutes=1).is_planned and read_recipe('quick').is_planned and not read_recipe('full').is_planned
    assert read_recipe('gpu', epochs=2).minutes == 0 and read_recipe('gpu', epochs=2, minutes=1).minutes == 1 # what is not planned is not recorded
    equal([read_recipe('gpu', **o).fixed_batch_size for o in ({}, dict(batch_size=64), dict(minutes=0))], [0,64,128])

def test_a_precision_of_gpus_is_refused_where_there_is_none(monkeypatch):
    recipe = read_recipe('quick', precision='fp16')
    monkeypatch.setattr(start, 'compute_device', lambda: torch.device('cpu'))
    fails(lambda: start.check_recipe(recipe), exc=InputError, contains='precision fp16 needs a GPU')
    monkeypatch.setattr(start, 'compute_device', lambda: torch.device('cuda'))
    start.check_recipe(recipe)

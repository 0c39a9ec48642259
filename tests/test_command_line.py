"The command line and the files of a model folder: each invalid value is refused in one line"
import argparse,json
import pytest
from conftest import refused,run_inprocess
from fashion_fastai.cli.core import at_least,port_number
from fashion_fastai.cli.main import main
from fashion_fastai.core import InputError
from fashion_fastai.folders.model import (are_names,are_temperatures,check_values,config_path,file_hash,is_number,is_plain_name,is_rule,read_config,
    read_file,read_json)
from fashion_fastai.recipes.settings import recipe_defaults

def test_numbers_and_ports_of_options():
    assert at_least(1)('12') == 12 and port_number('8000') == 8000
    for parse,texts,reason in ((at_least(1), ('0','-1','1.5','x'), 'not a whole number of at least 1'), (port_number, ('0','65536','http'), 'not a port')):
        for text in texts:
            with pytest.raises(argparse.ArgumentTypeError, match=reason): parse(text)

def test_each_key_of_a_recipe_is_an_option(capsys):
    with pytest.raises(SystemExit) as caught: run_inprocess_help('train')
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for key in recipe_defaults(): assert f"--{dict(parent='from').get(key, key).replace('_','-')} " in out

def run_inprocess_help(command): main([command, '--help'])

@pytest.mark.parametrize('words,near', [('train DATA --out RUN --epocs 1', '--epochs'), ('predict RUN LIST --out OUT --batchsize 2', '--batch-size'),
    ('convert table T OUT --categry kind', '--category'), ('demo garments', '')])
def test_unknown_words_are_the_error_of_their_command(words, near, capsys):
    with pytest.raises(SystemExit) as caught: main(words.split())
    lines = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and len(lines) == 1 and lines[0].startswith(f"fashion {words.split()[0]}") and ': error: unrecognized arguments: ' in lines[0], lines
    assert (f'did you mean {near}?' in lines[0]) == bool(near)

@pytest.mark.parametrize('words,reason', [
    ('train DATA --out RUN', 'train.csv: no such file'), ('train DATA --out RUN --recipe slow', "unknown recipe 'slow'; there are demo, quick"),
    ('train DATA --out RUN --lr fast', "lr is 'fast', not a number"), ('predict RUN DATA --out DATA', 'no such model'), ('check DATA', 'train.csv: no such file'),
    ('convert deepfashion DATA DATA/data', 'has neither a folder Anno_coarse nor Anno nor Anno_fine'), ('report DATA', 'contains no run'), ('runs DATA', 'contains no runs')])
def test_invalid_input_is_one_line_and_exit_code_2(words, reason, tmp_path):
    (tmp_path/'DATA').mkdir()
    assert refused(run_inprocess(*words.split(), cwd=tmp_path), reason)

@pytest.mark.parametrize('words', ['train DATA --out RUN --lrr 1', 'fly', '', 'convert x SRC DST', 'predict RUN TEST --out DIR --batch-size 0', 'convert products SRC'])
def test_words_that_the_parser_does_not_know_end_with_2(words):
    with pytest.raises(SystemExit) as caught: main(words.split())
    assert caught.value.code == 2

def test_values_of_json_files(tmp_path):
    checks = [('minutes', is_number, 'a number'), ('accuracy', lambda o: is_number(o, 0, 1), 'a number from 0 to 1')]
    for text,reason in (('{', 'cannot be read as scores'), ('[]', 'is not scores'), ('['*100_000, 'cannot be read'), ('{"a": "\\ud800"}', 'surrogates not allowed'),
            ('{"a": ' + '9'*5000 + '}', 'cannot be read'), ('{"a": {"b": 1}}', 'it has no minutes')):
        (tmp_path/'other.json').write_text(text)
        with pytest.raises(InputError, match=reason): check_values('FILE', 'scores', read_json(tmp_path/'other.json', 'scores'), checks)
    check_values('FILE', 'scores', {}, checks, optional=('minutes','accuracy'))
    for o in ('fold_1','a b.onnx','..a','日本'): assert is_plain_name(o)
    for o in ('','.','..','a/b','/a','..\\a','C:a','a\0','a\nb', 'a'*256, None, 1, ['a']): assert not is_plain_name(o)
    for o in (True, '1', None, float('nan'), float('inf'), 10**400, [1]): assert not is_number(o)

def test_rules_and_temperatures_of_a_description():
    sets = dict(name='LabelSets', sets=[[0,1],[1,1]], log_weights=[.1,.2], exponent=.5)
    for o in (None, dict(name='Threshold'), dict(name='ExpectedF1', allow_empty=True), sets, dict(name='Grouped', rule=sets, groups=[[[0,1],True]])): assert is_rule(o, 2)
    for o in ([], 'Threshold', dict(name='Threshold', threshold='x'), dict(name='ExpectedF1', allow_empty=1), dict(sets, sets=[[0,1]]), dict(sets, sets=[[0,2],[1,1]]),
            dict(sets, sets=[], log_weights=[]), dict(name='LabelSets'), dict(name='Grouped', rule=None, groups=[]), dict(name='Threshold', other=1),
            dict(name='Grouped', rule=sets, groups=[[[0,2],True]]), dict(name='Grouped', rule=sets, groups=[[[0,0],True]]),
            dict(name='Grouped', rule=dict(name='Grouped', rule=sets, groups=[]), groups=[])): assert not is_rule(o, 2), o
    for o in ('exec', None, ['Threshold'], {}):
        with pytest.raises(InputError, match='is not known'): is_rule(dict(name=o), 2)
    for o in ([1.,2], [.5,[1.,2.]]): assert are_temperatures(o, 2)
    for o in (1., [1.], [0.,1.], [1.,float('inf')], [1.,[1.]], [1.,1.,1.], ['1',1.]): assert not are_temperatures(o, 2)

def test_the_description_of_a_model(tmp_path):
    description = dict(format=1, categories=['top','dress'], attributes=['red'], size=[72,54], mean=[.5,.5,.5], std=[.2,.2,.2],
        architecture=dict(arch='xresnet10', width=.5), rule=dict(name='Threshold', threshold=.4), temperatures=[1.2,.9], tta=False,
        precision='fp32', channels_last=False, constant=dict(category_shares=[.6,.4], attribute_shares=[.1], attributes=[1]), versions={})
    for text,reason in (('{', 'cannot be read as a model'), ('[]', 'is not a model'), ('{"format": 2}', 'this version reads format 1')):
        (tmp_path/'config.json').write_text(text)
        with pytest.raises(InputError, match=reason): read_config(tmp_path/'config.json')
    for reason,changes in {'it has no size': dict(size=...), 'it has no categories and no attributes': dict(categories=[], attributes=[]),
            'should be a list of names': dict(categories=['top',None]), r'size is \[10000, 1\]': dict(size=[10_000,1]), r'precision is \[\]': dict(precision=[]),
            'files is': dict(files={'../evil': 'hash'}), 'architecture is': dict(architecture=dict(arch='xresnet10', width=10**9)),
            'groups is': dict(groups=[dict(name='colour', members=[0,1], exactly_one=True)]), 'constant is': dict(constant=[]),
            "rule 'exec' is not known": dict(rule=dict(name='exec'))}.items():
        (tmp_path/'config.json').write_text(json.dumps({k: o for k,o in dict(description, **changes).items() if o is not ...}))
        with pytest.raises(InputError, match=reason): read_config(tmp_path/'config.json')

def test_files_of_a_model_folder(tmp_path):
    with pytest.raises(InputError, match='no model.json in this folder'): config_path(tmp_path)
    with pytest.raises(InputError, match='no such model'): config_path(tmp_path/'none')
    (tmp_path/'model.json').write_text('{"format": 1}')
    assert config_path(tmp_path).name == 'model.json'
    (tmp_path/'model.safetensors').write_bytes(b'w')
    assert read_file(tmp_path, 'model.safetensors', dict(weights_sha256=file_hash(b'w'))) == b'w'
    with pytest.raises(InputError, match='is damaged, or does not belong to the model.json'): read_file(tmp_path, 'model.safetensors', {})
    with pytest.raises(InputError, match='cannot be read'): read_file(tmp_path, 'model_int8.onnx', {})

def test_a_folder_of_another_kind_is_called_by_its_name(tmp_path):
    runs,data,images = tmp_path/'runs',tmp_path/'data',tmp_path/'images'
    for o in (runs/'done', runs/'begun', data/'train', images/'dress'): o.mkdir(parents=True)
    (runs/'done'/'model.json').write_text('{}')
    (runs/'begun'/'settings.ini').write_text('')
    (data/'train.csv').write_text('')
    tables = tmp_path/'tables'
    (tables/'img').mkdir(parents=True)
    (tables/'list.parquet').write_text('')
    for folder,reason in ((runs/'begun', 'if it is a run, it is not finished; fashion train'), (data, 'it is a data folder; name'),
        (runs, f"it is a folder of runs; name one of them, such as {runs/'done'}"), (images, 'name the folder of a finished run')):
        with pytest.raises(InputError, match='there is no config.json') as caught: config_path(folder)
        assert reason in str(caught.value)
    for folder,reason in ((images, f'per category: fashion convert folders {images} '), (data/'train', f'there is one in {data}'), (tables, f"fashion convert table {tables/'list.parquet'}"), (runs/'done', 'train.csv: no such file')):
        assert refused(run_inprocess('check', folder), reason)

def test_names_of_a_stranger_do_not_command_the_terminal():
    assert are_names(['Kleid','日本','a,b','']) and not any(are_names(['dress', o]) for o in ('\x1b[2J','a\nb','\x9b2J','\u2028','dress'))

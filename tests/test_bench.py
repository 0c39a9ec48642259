"The benches run and record what they say they measure; how fast anything is, is not for tests to say"
import json,sys
from pathlib import Path
import forked,numpy as np,pytest

pytestmark = pytest.mark.slow

BENCH = Path(__file__).parent.parent/'bench'
SMALL = ['--rounds', '1', '--height', '32', '--width', '24']

@pytest.mark.parametrize('name,options', [('loader', []), ('step', []), ('pack', ['--large', '10']), ('predict', []), ('memory', ['--short', '50', '--long', '100']),
    ('gpu', ['--device', 'cpu', '--arch', 'xresnet10', '--images', '200', '--batch-sizes', '16 32', '--workers', '1', '--minutes', '.1']),
    ('serving', ['--stages', '32x24:1']), ('curves', ['--stages', '24x18:1', '--sizes', '20,40,60,80']), ('scores', ['--repetitions', '2', '--sizes', '12 20']),
    ('similar', ['--n', '2000', '--features', '32']),
    ('suggest', ['--stages', '24x18:1', '--first', '40', '--step', '10', '--steps', '2', '--seen', '60', '--deciding', '10', '--aim', '50']),
    ('time_to_quality', ['--recipe', 'demo', '--overrides', 'epochs=1', '--epochs', '1'])])
def test_bench(name, options, garments, tmp_path):
    size = SMALL[:2] if name in ('time_to_quality','serving','scores','curves','suggest','similar') else SMALL
    done = forked.run([sys.executable, '-W', 'ignore', BENCH/f'{name}.py', garments, *size, *options, '--results', tmp_path/'results'], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path/'results'/f'{name}.json').read_text())
    assert result['figures'] and all(isinstance(o['value'], float) and o['value'] == o['value'] for o in result['figures'].values())
    assert len(result['table']) > 2 and len(set(map(len, result['table']))) == 1
    assert {'torch','fastai','fashion_fastai','cpu','threads'} <= set(result['machine']) and result['data'] == 'garments'

def test_the_study_goes_on_where_it_was(garments, tmp_path):
    def study(*names):
        command = [sys.executable, '-W', 'ignore', BENCH/'what_helps.py', garments, '--only', *names, '--rounds', '1', '--stages', '32x24:1', '--images', '100', '--runs', tmp_path/'runs', '--results', tmp_path/'results']
        done = forked.run(command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return [o for o in done.stdout.splitlines() if ', seed ' in o],(tmp_path/'results'/'what_helps.csv').read_text().splitlines()
    trained,rows = study('basic')
    assert trained == ['basic, seed 1'] and len(rows) == 2
    trained,more = study('basic', 'with MixUp', 'category alone', 'attributes alone')
    assert trained == ['with MixUp, seed 1', 'category alone, seed 1', 'attributes alone, seed 1'] and more[:2] == rows and len(more) == 5
    result = json.loads((tmp_path/'results'/'what_helps.json').read_text())
    assert len(result['table']) == 5 and len(result['figures']) == 6

def test_the_study_of_balance_compares_seeds_in_pairs(garments, tmp_path):
    command = [sys.executable, '-W', 'ignore', BENCH/'what_helps.py', garments, '--study', 'balance', '--rounds', '2', '--stages', '32x24:1', '--images', '100', '--runs', tmp_path/'runs', '--results', tmp_path/'results']
    done = forked.run(command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path/'results'/'balance.json').read_text())
    assert [o[0] for o in result['table'][1:]] == ['equal weights','power 0.25','power 0.5','asymmetric'] and result['table'][1][-1] == '1 2'
    assert all('±' in o for o in result['table'][2][1:-1]) and not any('±' in o for o in result['table'][1])

def test_the_study_of_many_epochs_compares_within_a_setting(garments, tmp_path):
    for n in (60,100):
        command = [sys.executable, '-W', 'ignore', BENCH/'what_helps.py', garments, '--study', 'long', '--only', 'as quick', 'CutMix', '--rounds', '1', '--stages', '24x18:1', '--images', n,
            '--rest', '--runs', tmp_path/f'runs_{n}', '--results', tmp_path/'results']
        done = forked.run(command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    header,*rows = json.loads((tmp_path/'results'/'long.json').read_text())['table']
    assert header[:3] == ['images','stages','training'] and [o[:3] for o in rows] == [[n, '24x18:1', name] for n in ('60','100') for name in ('as quick','CutMix')]
    assert all(('(' in o[3]) == (o[2] == 'CutMix') for o in rows)
    logits = [np.load(tmp_path/f'runs_{n}'/'CutMix-1.npz')['images'] for n in (60,100)]
    assert [len(o) for o in logits] == [120, 80] # of the 180 that are labelled

def test_the_study_of_plans(tmp_path):
    "Its parts: each data set can be read, each change of a network trains, and the summary compares what is there"
    code = """
import sys; sys.path.insert(0, sys.argv[1])
import pandas as pd, study
from dataclasses import replace
from pathlib import Path
from fashion_fastai.data.synthetic import draw_garments
data = study.Data(draw_garments('garments', n=100), Path('.'))
data.draw = lambda: study.draw_textures('textures', n=60, size=(60,45)) if not Path('textures').exists() else None
arms = [study.GRID[0], *(o for o in study.INGREDIENTS if o.change == 'no_pool'), *study.MUON[:1]] + [study.Arm('textures 30', '24x18:1'), study.Arm('catalogue 50', '24x18:1')]
rows = [study.train(replace(o, stages='24x18:1 32x24:1'), 1, data, 1) for o in arms]
assert [o['n_train'] for o in rows[-2:]] == [30, 50] and all(0 <= o['accuracy'] <= 1 and 0 < o['tta_mean_f1'] <= 1 for o in rows)
# a study that was stopped goes on: what is in the table is not trained again
from argparse import Namespace
args = Namespace(data='garments', folder=Path('.'), results=Path('results'), workers=1, only=None, until=1e12)
args.results.mkdir()
short = [replace(study.GRID[0], stages=f'24x18:{n}') for n in (1, 2)]
study.STUDY = [(short[0], 1)]
study.work(args)
study.STUDY = [(o, 1) for o in short]
study.work(args)
assert pd.read_csv('results/study.csv').epochs.tolist() == [1, 2]
assert all(study.is_trained(Path(sys.argv[1])/'results'/'study.csv', study.FileLock('lock'), o, 1) for o in study.GRID[:9]) # the names are those of the record
table = pd.read_csv(Path(sys.argv[1])/'results'/'study.csv')
table,figures = study.summary(table)
assert len(table) == 16 and all(value >= 0 for value,_ in figures.values())
"""
    done = forked.run([sys.executable, '-W', 'ignore', '-c', code, BENCH], cwd=tmp_path)
    assert done.returncode == 0, done.stderr

def test_scale(tmp_path):
    options = ['--rows', '3000', '--wide-rows', '500', '--attributes', '40', '--sketches', '2000', '--images', '2000']
    done = forked.run([sys.executable, '-W', 'ignore', BENCH/'scale.py', *options, '--results', tmp_path/'results'], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path/'results'/'scale.json').read_text())
    assert len(result['figures']) == 5 and len(result['table']) == 6 and all(o['value'] > 0 for o in result['figures'].values())

def test_the_full_benchmark(tmp_path):
    options = ['--rows', '400', '--attributes', '40', '--files', '40', '--predicted', '20']
    done = forked.run([sys.executable, '-W', 'ignore', BENCH/'deepfashion.py', *options, '--results', tmp_path/'results'], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path/'results'/'deepfashion.json').read_text())
    assert [o[0] for o in result['table'][1:]] == ['convert','check','train','report','predict 20 images'] and all(o['value'] > 0 for o in result['figures'].values())

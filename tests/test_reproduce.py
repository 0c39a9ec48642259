"A run is trained again from its settings: bits agree on the same machine, and what differs is named"
import json,shutil,subprocess
from dataclasses import replace
from pathlib import Path
import numpy as np,pandas as pd,pytest
from conftest import refused,run_inprocess,train
from fashion_fastai.data.labels import read_labels
from fashion_fastai.interpret.core import FashionInterpretation
from fashion_fastai.metrics import SCORES
from fashion_fastai.train import provenance
from fashion_fastai.train.provenance import all_versions,data_hash,source_commit
from fashion_fastai.train.reproduce import Reproduction,compare_reproduction,score_difference

ROOT = Path(__file__).parent.parent

def test_a_run_records_what_it_depends_on(run, garments):
    metrics = json.loads((run/'metrics.json').read_text())
    assert metrics['data_hash'] == data_hash(read_labels(garments)) and metrics['versions'] == all_versions()
    assert {'torch','fastai','numpy','pillow','python'} <= set(metrics['versions']) and metrics['commit'] == source_commit()

def test_the_hash_of_data_changes_with_labels_and_images_alone(garments, tmp_path):
    copy = shutil.copytree(garments, tmp_path/'garments')
    before = data_hash(read_labels(garments))
    assert data_hash(read_labels(copy)) == before
    lines = (copy/'train.csv').read_text().splitlines()
    (copy/'train.csv').write_text('\n'.join([lines[0], *lines[2:]]))
    without_row = data_hash(read_labels(copy))
    (copy/'train.csv').write_text('\n'.join(lines))
    image = copy/'train'/'00007.jpg'
    changed = bytearray(image.read_bytes())
    changed[-3] ^= 1
    image.write_bytes(changed) # of the same size
    assert len({before, without_row, data_hash(read_labels(copy))}) == 3

def test_the_commit_is_that_of_the_package_and_of_nothing_else(tmp_path, monkeypatch):
    if not (ROOT/'.git').exists(): pytest.skip('this is not a checkout')
    head = subprocess.run(['git','rev-parse','HEAD'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert source_commit().removesuffix('-modified') == head
    inside = tmp_path/'site-packages'/'fashion_fastai'
    inside.mkdir(parents=True)
    subprocess.run(['git','init','-q'], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance.fashion_fastai, '__file__', str(inside/'__init__.py'))
    assert source_commit() == '' # installed in the environment of another project
    monkeypatch.setenv('PATH', '')
    assert source_commit() == ''

@pytest.mark.slow
def test_the_bits_agree_on_the_same_machine(run, tmp_path):
    done = run_inprocess('reproduce', run, '--out', tmp_path/'again')
    assert done.returncode == 0 and 'the weights agree bit for bit' in done.stdout and 'are the same' in done.stdout, done.stdout + done.stderr
    assert refused(run_inprocess('reproduce', run, '--out', tmp_path/'again'), 'is finished; use --resume to compare with it, or another --out')
    done = run_inprocess('reproduce', run, '--out', tmp_path/'again', '--resume') # it compares
    assert done.returncode == 0 and 'bit for bit' in done.stdout

@pytest.mark.slow
def test_other_data_is_named_before_the_training(run, garments, tmp_path):
    copy = shutil.copytree(garments, tmp_path/'garments')
    frame = pd.read_csv(copy/'train.csv')
    frame.assign(category_label=np.roll(frame.category_label, 1)).to_csv(copy/'train.csv', index=False)
    done = run_inprocess('reproduce', run, '--data', copy, '--out', tmp_path/'again')
    first,second = (done.stdout.index(o) for o in ('differs: data:', 'epoch 1/'))
    assert first < second and 'the weights differ' in done.stdout

@pytest.mark.slow
def test_a_final_fit_is_repeated_with_all_images(run, garments, tmp_path):
    final = train(garments, tmp_path/'final', '--final', run, '--workers', 2)
    done = run_inprocess('reproduce', final)
    assert done.returncode == 0 and 'the weights agree bit for bit' in done.stdout and 'no scores of its own' in done.stdout, done.stderr
    again,before = (json.loads((tmp_path/o/'metrics.json').read_text()) for o in ('final-again','final'))
    assert again['n_train'] == before['n_train'] == 180 and again['data_hash'] == before['data_hash']
    weights = tmp_path/'final-again'/'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-1] + b'?')
    assert refused(run_inprocess('reproduce', final, '--resume'), 'the repetition does not agree') # there are no scores to agree

def copied(run, folder, **changes):
    "A copy of a run with other values in metrics.json"
    copy = shutil.copytree(run, folder)
    metrics = json.loads((copy/'metrics.json').read_text())
    (copy/'metrics.json').write_text(json.dumps({**metrics, **changes}))
    return copy

def test_what_differs_is_named(run, tmp_path):
    versions = dict(json.loads((run/'metrics.json').read_text())['versions'], torch='2.6.0')
    result = compare_reproduction(copied(run, tmp_path/'before', versions=versions, commit='abc', device='cuda'), run)
    assert result.same_bits and len(result.differences) == 3
    for o in ('versions: torch: 2.6.0, now ', 'commit: abc, now', 'device: cuda, now cpu'): assert o in str(result)
    assert compare_reproduction(run, run).differences == []

def test_weights_that_differ_are_seen(run, tmp_path):
    copy = copied(run, tmp_path/'copy')
    weights = bytearray((copy/'model.safetensors').read_bytes())
    weights[-1] ^= 1
    (copy/'model.safetensors').write_bytes(weights)
    result = compare_reproduction(run, copy)
    assert not result.same_bits and result.agrees and 'the scores agree' in str(result)

def test_scores_agree_within_two_standard_errors():
    rng = np.random.default_rng(0)
    before = (rng.random(2000) < .8).astype(float)
    flipped = np.where(rng.random(2000) < .05, 1 - before, before)
    fallen = np.where(rng.random(2000) < .1, 0., before)
    for after,agrees in ((before, True), (fallen, False)):
        difference,error = score_difference(before, after)
        assert Reproduction(False, dict(accuracy=(0., 0., difference, error)), []).agrees == agrees
    difference,error = score_difference(before, flipped)
    assert error == pytest.approx(np.std(flipped - before, ddof=1)/2000**.5)
    assert score_difference(np.array([1., np.nan, 0.]), np.array([1., 1., 1.]))[0] == .5 and set(SCORES) == {'accuracy','mean_f1'}

def test_what_cannot_be_reproduced_is_refused(run, garments, tmp_path):
    assert refused(run_inprocess('reproduce', garments), 'is not a finished run')
    assert refused(run_inprocess('reproduce', run, '--data', tmp_path), 'name the folder of the run\'s data with --data')
    copy,again = (shutil.copytree(run, tmp_path/o) for o in ('copy','again'))
    assert refused(run_inprocess('reproduce', copy, '--out', again), 'is finished; use --resume to compare with it, or another --out')
    interp = FashionInterpretation.load(copy/'validation.npz')
    replace(interp, images=[*interp.images[:-1], 'another.jpg']).save(copy/'validation.npz')
    assert refused(run_inprocess('reproduce', copy, '--out', tmp_path/'new'), 'was validated on other images than those of')
    (copy/'model.safetensors').unlink()
    assert refused(run_inprocess('reproduce', copy, '--out', tmp_path/'new'), 'has no model.safetensors')
    assert not (tmp_path/'new').exists()

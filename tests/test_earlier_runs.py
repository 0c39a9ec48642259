"What a training takes from a finished run: settings and decision of a final fit, probabilities of a teacher"
import json,shutil,time
import numpy as np,pandas as pd
import pytest,torch
from conftest import SHORT,refused,run_inprocess,train
from fashion_fastai.build import data_learner
from fashion_fastai.callback.teacher import Teacher
from fashion_fastai.core import InputError,UNKNOWN
from fashion_fastai.data.groups import AttributeGroup
from fashion_fastai.data.labels import read_labels
from fashion_fastai.examples import tiny_learner
from fashion_fastai.export.package import HubModel
from fashion_fastai.predict.model import load_model
from fashion_fastai.recipes.settings import read_recipe,read_recorded_recipe
from fashion_fastai.train.core import lr_find_run,train_run
from fashion_fastai.train.teacher import TeacherLogits,teacher_logits

pytestmark = pytest.mark.slow

def metrics_of(run): return json.loads((run/'metrics.json').read_text())

@pytest.fixture(scope='module')
def folds(garments, tmp_path_factory):
    "A run of three folds; not to be modified"
    return train(garments, tmp_path_factory.mktemp('runs')/'folds', '--folds', 3, *SHORT)

@pytest.fixture(scope='module')
def final(garments, run, tmp_path_factory):
    "(the final fit of a run, what the command printed)"
    out = tmp_path_factory.mktemp('runs')/'final'
    done = run_inprocess('train', garments, '--out', out, '--final', run, '--report', 'yes')
    assert done.returncode == 0, done.stderr
    return out,done.stdout

def test_a_final_fit_has_the_settings_and_the_decision_of_its_run(final, run, garments):
    out,printed = final
    used,before = read_recorded_recipe(out/'settings.ini').settings,read_recorded_recipe(run/'settings.ini').settings
    assert {key for key in used if used[key] != before[key]} == {'final','report'} and used['final'] == str(run.resolve())
    assert load_model(out).loss_func.decision.params() == load_model(run).loss_func.decision.params()
    metrics,earlier = metrics_of(out),metrics_of(run)
    assert (metrics['n_train'], metrics['n_valid']) == (180, 0) and len(read_labels(garments)) == 180
    assert not {'accuracy','mean_f1','valid_loss','decision'} & set(metrics)
    assert {o: metrics['final']['metrics'][o] for o in ('accuracy','mean_f1','n_train')} == {o: earlier[o] for o in ('accuracy','mean_f1','n_train')}
    assert f'without validation: scores, rule and temperatures are those of {run.resolve()}, which was trained on 160.' in printed
    assert f"its validation: accuracy {earlier['accuracy']:.4f}" in printed
    assert 'valid_loss' not in pd.read_csv(out/'history.csv') and not (out/'validation.npz').exists()
    learn = load_model(out/'export.pkl')
    assert learn.recorder.valid_metrics

def test_a_final_fit_is_a_model_like_any_other(final, run, garments, tmp_path):
    out,_ = final
    assert run_inprocess('predict', out, garments/'test.csv', '--out', tmp_path/'predicted').returncode == 0
    done = run_inprocess('export', out, '--out', tmp_path/'small', '--card', '--int8', garments)
    assert done.returncode == 0 and 'on images that it was trained on' in (tmp_path/'small'/'README.md').read_text(), done.stderr
    done = run_inprocess('export', out, '--out', tmp_path/'model', '--card')
    assert done.returncode == 0, done.stderr
    card,report = (tmp_path/'model'/'README.md').read_text(),(out/'report.html').read_text()
    for text in (card, report): assert 'A final fit on all 180 labelled images, without validation' in text
    assert 'model-index' not in card and f"{metrics_of(run)['accuracy']:.4f}" in card
    assert 'accuracy' not in json.loads((tmp_path/'model'/'config.json').read_text())['scores']
    HubModel.from_pretrained(tmp_path/'model').save_pretrained(tmp_path/'copy')
    assert load_model(tmp_path/'copy').vocab == load_model(out).vocab
    shutil.copytree(run, tmp_path/'runs'/'first')
    shutil.copytree(out, tmp_path/'runs'/'last')
    done = run_inprocess('runs', tmp_path/'runs')
    last, = [o for o in done.stdout.splitlines() if o.split()[0] == 'last']
    assert last.endswith('final fit, without validation') and f"{metrics_of(run)['accuracy']:.4f}" not in last
    done = run_inprocess('predict', out, garments/'test.csv', '--with', run, '--out', tmp_path/'joint')
    assert refused(done, 'validation.npz')

def test_a_final_fit_of_folds_decides_as_they_do_together(folds, garments, tmp_path):
    out = train(garments, tmp_path/'last', '--final', folds)
    ensemble = json.loads((folds/'ensemble.json').read_text())
    params = load_model(out).loss_func.decision.params()
    assert {o: params[o] for o in ('rule','temperatures')} == {o: ensemble[o] for o in ('rule','temperatures')}
    assert metrics_of(out)['final']['metrics']['mean_f1'] == metrics_of(folds)['mean_f1']

def test_final_fits_that_are_refused(final, run, garments, tmp_path):
    def refuse(reason, *words, data=garments): assert refused(run_inprocess('train', data, '--out', tmp_path/'run', *words), reason)
    refuse(f'lr is 0.1, but {run.resolve()} has 0.006; leave it out', '--final', run, '--lr', .1)
    refuse(f'minutes is 5.0, but {run.resolve()} has 0.0; leave it out', '--final', run, '--minutes', 5)
    refuse(f'is a final fit; name the run whose settings it has: {run.resolve()}', '--final', final[0])
    refuse('is not a finished run', '--final', garments)
    refuse('cannot be combined with folds', '--final', run, '--folds', 3)
    other = shutil.copytree(garments, tmp_path/'other'/garments.name)
    for o in ('train.csv','val.csv'): pd.read_csv(other/o).rename(columns={'red': 'crimson'}, errors='raise').to_csv(other/o, index=False)
    refuse('its attributes are not those of', '--final', run, data=other)
    refuse('its attributes are not those of', '--teacher', run, *SHORT, data=other)
    assert not (tmp_path/'run'/'metrics.json').exists()

def test_the_minutes_of_a_teacher_count(run, garments, tmp_path):
    done = run_inprocess('train', garments, '--out', tmp_path/'run', '--teacher', run, '--teacher-share', .3, *SHORT)
    assert done.returncode == 0 and "of them the teacher's" in done.stdout and 'teacher: ' not in done.stdout, done.stderr
    metrics,used = metrics_of(tmp_path/'run'),read_recorded_recipe(tmp_path/'run'/'settings.ini')
    assert metrics['teacher']['run'] == used.teacher == str(run.resolve()) and used.teacher_share == .3
    assert metrics['minutes'] > metrics['teacher']['minutes'] >= metrics_of(run)['minutes']
    assert metrics['teacher']['weights_sha256'] and not (tmp_path/'run'/'teacher.npz').exists()
    second = train(garments, tmp_path/'second', '--teacher', tmp_path/'run', *SHORT) # has the minutes of both
    assert metrics_of(second)['teacher']['minutes'] >= metrics['minutes']
    plain = train(garments, tmp_path/'plain', *SHORT)
    assert (plain/'model.safetensors').read_bytes() != (second/'model.safetensors').read_bytes()

def test_a_teacher_is_the_mean_of_both_views(run, garments):
    table = read_labels(garments)
    learn,rows = load_model(run),np.flatnonzero(~table.is_valid)
    start = time.perf_counter()
    found = teacher_logits(run, table)
    assert 0 < found.minutes - json.loads((run/'metrics.json').read_text())['minutes'] <= (time.perf_counter() - start)/60 # of its predictions
    dl = learn.dls.test_dl([table.images[i] for i in rows], bs=32)
    with learn.no_bar(): (p,q),*_ = learn.tta(dl=dl)
    assert torch.allclose(found.tensors[0].softmax(1), p.float(), atol=1e-5)
    assert torch.allclose(found.tensors[1].sigmoid(), q.float(), atol=1e-5)

def test_a_teacher_in_folds_predicts_each_image_by_the_network_that_did_not_see_it(folds, garments, capsys):
    table = read_labels(garments)
    found = teacher_logits(folds, table)
    assert '20 of 20 validation images are not among those that' in capsys.readouterr().out
    oof = pd.read_csv(folds/'oof.csv').set_index('file_path')
    expected = oof.loc[table.frame.file_path[~table.is_valid], list(table.vocab.categories)].values
    assert np.allclose(found.tensors[0].softmax(1), expected, atol=1e-5)
    table.frame.loc[3, 'file_path'] = 'another.jpg'
    with pytest.raises(InputError, match='has no out-of-fold prediction of 1 training images, such as another.jpg'): teacher_logits(folds, table)

def test_a_teacher_in_folds_knows_the_images_that_are_left(folds, garments, tmp_path):
    "rows that corrections dropped are in folds.csv, and have no prediction"
    copy = shutil.copytree(folds, tmp_path/'folds')
    with (copy/'folds.csv').open('a') as f: f.write('garments/train/dropped.jpg,,1\n')
    table = read_labels(garments)
    assert torch.equal(teacher_logits(copy, table).tensors[0], teacher_logits(folds, table).tensors[0])

def test_the_lr_finder_leaves_no_soft_targets():
    learn = tiny_learner()
    n = len(learn.dls.train.items)
    teacher = Teacher((torch.zeros(n, 10), torch.zeros(n, 15)))
    with learn.no_bar(),learn.added_cbs([teacher]): learn.lr_find(num_it=3, show_plot=False)
    assert learn.dls.train.soft_targets is None

def test_the_targets_of_a_training_with_a_teacher():
    "A weighted mean of label and probability; unknown labels stay unknown; groups share their probability; nothing is left after the fit"
    learn = tiny_learner()
    labels,attributes = learn.dls.train.targets
    labels[0],attributes[1,2] = UNKNOWN,UNKNOWN
    group = AttributeGroup('a', (0,1,2), True)
    learn.loss_func.groups = group,
    p,q = torch.randn(len(labels), len(learn.vocab.categories)),torch.randn(attributes.shape)
    teacher = Teacher((p,q), .25, 2.)
    with learn.no_bar(): learn.fit(1, 1e-3, cbs=[teacher])
    assert teacher.targets is None and learn.dls.train.soft_targets is None
    teacher.learn = learn
    teacher.before_fit()
    category,sets = (o.float() for o in teacher.targets)
    assert (category[0] == UNKNOWN).all() and sets[1,2] == UNKNOWN
    assert torch.allclose(category[5], .25*(p[5]/2).softmax(0) + .75*torch.eye(p.shape[1])[labels[5]], atol=1e-3)
    assert torch.allclose(sets[5,3:], .25*(q[5,3:]/2).sigmoid() + .75*attributes[5,3:], atol=1e-3)
    assert torch.allclose(sets[5,:3], .25*(q[5,:3]/2).softmax(0) + .75*attributes[5,:3], atol=1e-3)
    with pytest.raises(InputError, match='the teacher has predictions of 3 images, but 240 are trained on'):
        with learn.no_bar(): learn.fit(1, cbs=[Teacher((p[:3],q[:3]))])

def test_a_teacher_without_a_share_changes_nothing(garments):
    def losses(*cbs):
        learn = data_learner(garments, read_recipe('demo', stages='24x18:1', batch_size=32, precision='fp32', cache='no', workers=0))
        with learn.no_bar(),learn.no_logging(): learn.fit(1, 1e-3, cbs=list(cbs))
        return torch.stack(learn.recorder.losses)
    n = int((~read_labels(garments).is_valid).sum())
    assert torch.allclose(losses(), losses(Teacher((torch.zeros(n, 10), torch.zeros(n, 15)), 0.)), rtol=1e-3)

def test_damaged_predictions_of_a_teacher(garments, tmp_path):
    table,file = read_labels(garments),tmp_path/'teacher.npz'
    n = int((~table.is_valid).sum())
    def save(a, b): TeacherLogits(np.zeros(a, np.float32), np.zeros(b, np.float32), 1.).save(file)
    save((n,10), (n,15))
    assert TeacherLogits.load(file, table).minutes == 1
    for a,b in (((n,9), (n,15)), ((n-1,10), (n-1,15))):
        save(a, b)
        with pytest.raises(InputError, match='is of other images or labels'): TeacherLogits.load(file, table)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match='cannot be read as predictions of a teacher'): TeacherLogits.load(file, table)

def test_the_lr_finder_of_a_training_with_a_teacher(run, garments):
    keys = dict(batch_size=32, precision='fp32', cache='no', workers=0, stages='24x18:1', width=.25)
    assert 1e-7 < lr_find_run(garments, read_recipe('demo', teacher=str(run), **keys)) < 10

def test_a_final_fit_with_bad_images_and_without_val_csv(run, garments, tmp_path):
    data = shutil.copytree(garments, tmp_path/'garments')
    rows = pd.concat([pd.read_csv(data/o) for o in ('train.csv','val.csv')])
    rows.to_csv(data/'train.csv', index=False)
    (data/'val.csv').unlink()
    (data/'train'/'00002.jpg').write_bytes(b'no image')
    with pytest.warns(UserWarning, match='left out'): metrics = train_run(data, tmp_path/'run', read_recipe(final=str(run)))
    assert metrics['n_train'] == 179

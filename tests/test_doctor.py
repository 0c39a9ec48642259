"`fashion doctor`: faults that are planted into short trainings are named, and trainings without a fault are not"
import json,shutil
import numpy as np,pandas as pd,pytest,torch
from conftest import refused,run_inprocess,train
from fashion_fastai.callback.blocks import BlockStats,network_blocks
from fashion_fastai.data.augment import JitterNormalize
from fashion_fastai.data.stats import read_stats
from fashion_fastai.data.synthetic import draw_garments
from fashion_fastai.examples import example_data,tiny_learner
from fashion_fastai.folders.run import STATS_FILE
from fashion_fastai.model.multitask import multi_task_model
from fashion_fastai.report.doctor import MAX_UPDATE,data_findings,rate_findings,read_stats_file,run_findings,training_findings
from fashion_fastai.train.core import recipe_learner
from fashion_fastai.train.doctor import doctor,start_findings

# long enough to learn something of 700 garments
SHORT = ['--recipe','demo','--stages','32x24:6','--width','.25','--optimizer','muon','--rule','fixed','--report','no','--precision','fp32','--channels-last','no']
ONE_EPOCH = ['--epochs','1']

@pytest.fixture(scope='module')
def data(tmp_path_factory): return draw_garments(tmp_path_factory.mktemp('data')/'garments', n=700, splits=(.7,.2,.1))

@pytest.fixture(scope='module')
def clean(data, tmp_path_factory): return train(data, tmp_path_factory.mktemp('runs')/'clean', *SHORT)

def names(run): return {o.name for o in run_findings(run)}

def test_a_training_without_a_fault_has_no_findings(clean):
    assert run_findings(clean) == []
    assert 'nothing found' in run_inprocess('doctor', clean).stdout

@pytest.mark.slow
@pytest.mark.parametrize('options', [['--optimizer','adamw','--lr','.02'], ['--stem','whitened','--ema','.9'], ['--lr','.002','--mixup','.5']])
def test_other_settings_are_no_fault(options, data, tmp_path):
    "A network may have learned nothing yet"
    assert names(train(data, tmp_path/'run', *SHORT, '--epochs', '3', *options)) <= {'learned_nothing'}

@pytest.mark.slow
def test_recipe_quick_has_no_findings(tmp_path):
    assert run_findings(train(example_data(1500), tmp_path/'run', '--recipe', 'quick', '--stages', '32x24:4', '--rule', 'fixed', '--report', 'no')) == []

def test_statistics_are_recorded_for_every_block_and_epoch(clean):
    start,blocks = read_stats_file(clean/STATS_FILE)
    assert len(blocks) == 6*blocks.block.nunique() and {'body.0','body.4','head.category','head.attributes'} <= set(blocks.block)
    assert (blocks.gradient_norm > 0).all() and blocks.update_ratio.between(1e-9, 10).all()
    assert blocks[blocks.block == 'body.4'].dead_relus.between(0, .5).all() and blocks[blocks.block == 'head.category'].dead_relus.isna().all()
    assert start['low'] < 0 < start['high'] and abs(start['loss']/start['expected_loss'] - 1) < .1

@pytest.mark.slow
class TestPlantedFaults:
    @pytest.mark.parametrize('options', [['--optimizer','adamw'], ['--stem','whitened']])
    def test_a_learning_rate_thirty_times_too_high(self, options, data, tmp_path):
        done = run_inprocess('train', data, '--out', tmp_path/'run', *SHORT, '--epochs', '2', '--lr', '.18', *options) # it may diverge
        assert done.returncode in (0, 2)
        finding = next(o for o in run_findings(tmp_path/'run') if o.name == 'learning_rate')
        assert '--lr' in finding.advice and '0.18' in finding.text

    def test_a_learning_rate_that_moves_nothing(self, data, tmp_path):
        assert 'learning_rate' in names(train(data, tmp_path/'run', *SHORT, *ONE_EPOCH, '--lr', '1e-7'))

    def test_labels_that_do_not_belong_to_their_images(self, data, tmp_path):
        shutil.copytree(data, tmp_path/'garments')
        frame = pd.read_csv(data/'train.csv')
        labels = frame.columns[1:]
        frame[labels] = frame[labels].sample(frac=1, random_state=0).values
        frame.to_csv(tmp_path/'garments'/'train.csv', index=False)
        found = names(train(tmp_path/'garments', tmp_path/'run', *SHORT))
        assert 'learned_nothing' in found and not {'frozen','input_range','learning_rate'} & found

    @pytest.mark.parametrize('stats', [((0,)*3, (1,)*3), ((0,)*3, (1/255,)*3)]) # pixels from 0 to 1, and from 0 to 255
    def test_inputs_that_are_not_normalised(self, stats, data, tmp_path, monkeypatch):
        init = JitterNormalize.__init__
        monkeypatch.setattr(JitterNormalize, '__init__', lambda self, lighting=.1: init(self, lighting, stats))
        assert names(train(data, tmp_path/'run', *SHORT, *ONE_EPOCH)) >= {'input_range'}

    def test_half_of_the_network_is_frozen(self, data, tmp_path, monkeypatch):
        def half_frozen(*args, **kwargs):
            learn = recipe_learner(*args, **kwargs)
            for o in learn.model[0][:5]: o.requires_grad_(False)
            return learn
        monkeypatch.setattr('fashion_fastai.train.core.recipe_learner', half_frozen)
        run = train(data, tmp_path/'run', *SHORT, *ONE_EPOCH)
        finding = next(o for o in run_findings(run) if o.name == 'frozen')
        assert 'body.0, body.1, body.2, body.4' in finding.text and 'body.5' not in finding.text

    def test_one_class_only(self, data, tmp_path):
        shutil.copytree(data, tmp_path/'garments')
        for o in ('train.csv','val.csv'): pd.read_csv(data/o).assign(category_label=0).to_csv(tmp_path/'garments'/o, index=False)
        run = train(tmp_path/'garments', tmp_path/'run', *SHORT, *ONE_EPOCH)
        finding = next(o for o in run_findings(run) if o.name == 'one_class')
        assert 'all training images have the category top' in finding.text
        assert 'one_class' in {o.name for o in doctor(tmp_path/'garments')}

class TestData:
    @pytest.mark.slow
    def test_a_folder_without_a_fault(self, data):
        done = run_inprocess('doctor', data, '--recipe', 'demo', '--stages', '32x24:2')
        assert done.returncode == 0 and 'nothing found' in done.stdout, done.stdout

    @pytest.mark.slow
    def test_a_recipe_that_goes_on_from_a_run(self, data, clean):
        done = run_inprocess('doctor', data, '--from', clean, '--stages', '32x24:2') # whose network is not that of quick
        assert done.returncode == 0 and 'start loss' not in done.stdout, done.stderr
        assert refused(run_inprocess('doctor', data, '--from', data), 'is not a finished run')
        assert refused(run_inprocess('doctor', data, '--precision', 'fp16'), 'precision fp16 needs a GPU')

    @pytest.mark.slow
    def test_a_learning_rate_above_the_finders_curve(self, data):
        done = run_inprocess('doctor', data, '--recipe', 'demo', '--stages', '32x24:2', '--lr', '3', '--strict')
        assert 'learning rate: the learning rate is 3; the finder suggests' in done.stdout
        assert refused(done, '1 finding')

    @pytest.mark.parametrize('column', ['size','mode','file'])
    def test_what_tells_the_category_beside_the_garment(self, column, data, monkeypatch):
        stats = read_stats(data, progress=None)
        frame = stats.frame.copy()
        if column == 'size': frame['height'] = 60 + frame.category_label.clip(0)
        if column == 'mode': frame['mode'] = ['ABCDEFGHIJ'[k] for k in frame.category_label]
        if column == 'file':
            size_of = dict(zip(frame.image, 1000*frame.category_label + np.arange(len(frame))/len(frame)))
            monkeypatch.setattr('fashion_fastai.report.doctor._file_sizes', lambda images: np.array([size_of[o]//1000 for o in images]))
        found = [o for o in data_findings(stats._replace(frame=frame)) if o.name == 'leak']
        assert len(found) == 1 and dict(size='size of the image', mode='mode', file='size of the file')[column] in found[0].text

    def test_copies_across_the_split_are_named(self, data, tmp_path):
        shutil.copytree(data, tmp_path/'garments')
        for o in list((tmp_path/'garments'/'val').iterdir())[:10]: shutil.copy(tmp_path/'garments'/'train'/'00001.jpg', o)
        assert any('near-duplicate in train' in o.text for o in data_findings(read_stats(tmp_path/'garments', progress=None)))

    def test_a_folder_of_neither_kind(self, tmp_path): assert refused(run_inprocess('doctor', tmp_path), 'neither a run folder nor a data folder')

class TestRules:
    start = dict(loss=4.4, expected_loss=4.4, mean=.1, std=1., low=-2., high=2.5)
    def blocks(self, **values):
        return pd.DataFrame([dict(dict(epoch=0, block=o, gradient_norm=1., update_ratio=.02, dead_relus=0.), **values) for o in ('body.0','body.4','head.category')])

    @pytest.mark.parametrize('changes,name', [(dict(loss=6.), 'start_loss'), (dict(low=0.), 'input_range'), (dict(std=30.), 'input_range'), (dict(mean=5.), 'input_range')])
    def test_the_start(self, changes, name):
        assert training_findings(self.start, self.blocks(), .006) == []
        assert [o.name for o in training_findings(dict(self.start, **changes), self.blocks(), .006)] == [name]

    def test_a_training_from_trained_weights_begins_low(self):
        assert training_findings(dict(self.start, loss=1.), self.blocks(), .006, from_parent=True) == []

    @pytest.mark.parametrize('changes,name', [(dict(update_ratio=2*MAX_UPDATE), 'learning_rate'), (dict(update_ratio=1e-7), 'learning_rate'),
        (dict(update_ratio=0.), 'frozen'), (dict(dead_relus=.9), 'dead_relus')])
    def test_the_blocks(self, changes, name):
        assert [o.name for o in training_findings(self.start, self.blocks(**changes), .006)] == [name]

    def test_the_finders_curve(self):
        rates = np.geomspace(1e-6, 1, 100)
        losses = 3 - np.tanh(100*rates) + 20*rates**2
        for lr,n in ((.006, 0), (.05, 0), (1., 1), (1e-6, 1)): assert len(rate_findings(lr, .004, (rates, losses))) == n, lr

def test_dead_relus_are_counted():
    learn,stats = tiny_learner(),BlockStats()
    with torch.no_grad(): # BatchNorm's bias is far below 0: every output of the last stage's ReLUs is 0
        for o in learn.model[0][7].modules():
            if isinstance(o, torch.nn.BatchNorm2d): o.bias.fill_(-100)
    with learn.no_logging(),learn.no_bar(): learn.fit(1, 1e-6, cbs=stats)
    dead = stats.table.set_index('block').dead_relus
    assert dead['body.7'] == 1 and dead['body.4'] < .5
    assert 'body.7' in next(o for o in training_findings(stats.start, stats.table, 1e-6) if o.name == 'dead_relus').text

def test_examining_a_learner_leaves_it_as_it_was():
    learn = tiny_learner()
    before,state = [o.clone() for o in learn.model.state_dict().values()],torch.get_rng_state()
    learn.model[1].category.weight.data *= 1000
    assert 'start_loss' in {o.name for o in start_findings(learn)}
    learn.model[1].category.weight.data /= 1000
    assert all(torch.allclose(a.float(), b.float()) for a,b in zip(before, learn.model.state_dict().values())) and torch.equal(state, torch.get_rng_state())

def test_blocks_without_matrices_are_left_out():
    assert list(network_blocks(multi_task_model(3, 0, 'xresnet10', stem='whitened')))[0] == 'body.1' # the filters are frozen, and no parameters
    assert 'head.attributes' not in network_blocks(multi_task_model(3, 0, 'xresnet10'))

@pytest.mark.parametrize('content,reason', [('{', 'cannot be read'), ('{}', 'it has no start'), ('{"start": {"loss": "x"}, "blocks": []}', 'start is'),
    ('{"start": {"loss": 1}, "blocks": []}', 'start is'), (dict(blocks=[dict(epoch=0)]), 'blocks is'), (dict(blocks=[dict(epoch=0, block='a', gradient_norm=1, update_ratio=-1, dead_relus=None)]), 'blocks is')])
def test_damaged_statistics_are_named_in_one_line(content, reason, clean, tmp_path):
    shutil.copytree(clean, tmp_path/'run')
    text = content if isinstance(content, str) else json.dumps(dict(start=TestRules.start, **content))
    (tmp_path/'run'/STATS_FILE).write_text(text)
    assert refused(run_inprocess('doctor', tmp_path/'run'), reason)
    (tmp_path/'run'/'validation.npz').unlink() # without the figures
    done = run_inprocess('report', tmp_path/'run') # the rest of the report is written
    assert done.returncode == 0 and 'No findings' in (tmp_path/'run'/'report.html').read_text(encoding='utf-8')

def test_the_report_has_the_findings(clean, tmp_path):
    shutil.copytree(clean, tmp_path/'run')
    content = json.loads((tmp_path/'run'/STATS_FILE).read_text())
    for o in content['blocks']: o['update_ratio'] = 2.
    (tmp_path/'run'/'validation.npz').unlink() # without the figures
    (tmp_path/'run'/STATS_FILE).write_text(json.dumps(content))
    assert run_inprocess('report', tmp_path/'run').returncode == 0
    assert 'a step changes the weights by 2 of their norm' in (tmp_path/'run'/'report.html').read_text(encoding='utf-8')

def test_a_run_of_an_older_version_has_no_statistics(clean, tmp_path):
    shutil.copytree(clean, tmp_path/'run')
    (tmp_path/'run'/STATS_FILE).unlink()
    assert run_findings(tmp_path/'run') == []

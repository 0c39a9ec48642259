"Model folders in processes without PyTorch: the same predictions, the card's own program, the hub"
import json,re
from types import SimpleNamespace
import numpy as np
import pandas as pd
import pytest,torch
from conftest import SHORT,refused,run_inprocess,run_python,train
from fashion_fastai.callback.tta import predict_with_flip
from fashion_fastai.core import InputError
from fashion_fastai.data.cache import stored_size
from fashion_fastai.data.image import load_pixels
from fashion_fastai.data.groups import AttributeGroup
from fashion_fastai.data.labels import read_labels
from fashion_fastai.data.vocab import Vocab
from fashion_fastai.decision.core import Decision
from fashion_fastai.examples import tiny_learner
from fashion_fastai.export.graph import ServingGraph,export_onnx
from fashion_fastai.folders.model import FEATURES,PARTS
from fashion_fastai.model.loss import MultiTaskLoss
from fashion_fastai.model.multitask import multi_task_model
from fashion_fastai.predict.model import load_model
from fashion_fastai.predict.core import predict_images
from fashion_fastai.predict.onnx import OnnxModel,open_session,run_graph

# a process in which importing PyTorch, or what a serving environment does not have, fails
WITHOUT_TORCH = """
import sys
for o in ('torch','torchvision','fastai','fastprogress','scipy','sklearn','matplotlib','fsspec','yaml','jinja2','safetensors','onnx','onnxscript'):
    sys.modules[o] = None
"""

def without_torch(code, *words, **kwargs):
    "The result of `code` in such a process"
    done = run_python('-W', 'ignore', '-c', WITHOUT_TORCH + code, *words, **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout

@pytest.fixture(scope='session')
def folder(run, tmp_path_factory):
    "A model folder with graph and card; not to be modified"
    out = tmp_path_factory.mktemp('exported')/'garments'
    done = run_inprocess('export', run, '--out', out, '--onnx', '--card', '--license', 'cc-by-4.0')
    assert done.returncode == 0, done.stderr
    assert 'model.onnx' in done.stdout and 'README.md' in done.stdout
    return out

def arrays(model, test):
    "The predictions of a list, with ONNX Runtime, as one `Predictions`"
    return predict_images(model, test)

def same_predictions(run, folder, test):
    "Whether both engines predict the same categories and label sets, and probabilities within 1e-4"
    torch_,onnx = predict_images(load_model(run, 'fp32'), test),arrays(OnnxModel(folder), test)
    assert len(torch_.file_paths) == len(onnx.file_paths) > 0
    for a,b in zip(torch_[1:3], onnx[1:3]): np.testing.assert_array_equal(a, b)
    for a,b in zip(torch_[3:5], onnx[3:5]): assert a.shape == b.shape and (not a.size or abs(a - b).max() < 1e-4)
    return onnx

def test_predict_without_torch_writes_the_same_files(run, folder, garments, tmp_path):
    code = "from fashion_fastai.cli.main import main\nassert main(sys.argv[1:]) == 0\n"
    said = without_torch(code, 'predict', folder, garments/'test.csv', '--out', tmp_path/'onnx')
    assert '20 images' in said
    assert run_inprocess('predict', run, garments/'test.csv', '--out', tmp_path/'torch', '--precision', 'fp32').returncode == 0
    for name in ('category.csv','attribute.csv'): assert (tmp_path/'onnx'/name).read_bytes() == (tmp_path/'torch'/name).read_bytes()
    a,b = (pd.read_csv(tmp_path/o/'predictions.csv') for o in ('onnx','torch'))
    assert abs(a.iloc[:, 2:].values.astype(float) - b.iloc[:, 2:].values.astype(float)).max() < 2e-4

def test_torch_is_not_imported_where_it_is_installed(folder, garments, tmp_path):
    code = "import sys\nfrom fashion_fastai.cli.main import main\nassert main(sys.argv[1:]) == 0\nprint([o for o in sys.modules if o.split('.')[0] in ('torch','fastai')])"
    done = run_python('-c', code, 'predict', folder, garments/'test', '--out', tmp_path, '--engine', 'onnx')
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == '[]', done.stdout + done.stderr

def test_engines_that_are_not_there_are_named(run, folder, garments, tmp_path):
    def predict(model, *options): return run_inprocess('predict', model, garments/'test', '--out', tmp_path, *options)
    assert refused(predict(run, '--engine', 'onnx'), 'has no model.onnx; write a folder with it: fashion export RUN --out FOLDER --onnx')
    assert refused(predict(folder, '--engine', 'int8'), 'fashion export RUN --out FOLDER --int8 DATA')
    assert refused(predict(folder, '--engine', 'onnx', '--precision', 'bf16'), 'precision bf16 needs --engine torch')
    assert list(tmp_path.iterdir()) == []

def test_export_writes_all_or_nothing(run, folder, garments, tmp_path):
    assert refused(run_inprocess('export', run, '--out', folder), 'is not an empty folder')
    assert refused(run_inprocess('export', run, '--out', tmp_path/'x', '--int8', tmp_path), 'train.csv')
    assert refused(run_inprocess('export', tmp_path, '--out', tmp_path/'x'), 'no config.json')
    assert list(tmp_path.iterdir()) == []

def test_a_damaged_folder_is_refused(folder, tmp_path):
    for o in folder.iterdir(): (tmp_path/o.name).write_bytes(o.read_bytes())
    for name,options in (('model.onnx', ['--engine', 'onnx']), ('model.safetensors', ['--engine', 'torch'])):
        content = bytearray((tmp_path/name).read_bytes())
        content[len(content)//2] ^= 1
        (tmp_path/name).write_bytes(content)
        assert refused(run_inprocess('predict', tmp_path, tmp_path, '--out', tmp_path/'out', *options), f'{name}: is damaged')

PROGRAM = re.compile(r'```python\n(import json\n.*?)```', re.S)

def test_the_program_on_the_card_predicts(folder, garments, tmp_path):
    card,image = (folder/'README.md').read_text(),garments/'test'/'00003.jpg'
    for name in ('config.json','model.onnx','rules.py'): (tmp_path/name).write_bytes((folder/name).read_bytes())
    (tmp_path/'garment.jpg').write_bytes(image.read_bytes())
    # without this package, too
    said = without_torch("sys.modules['fashion_fastai'] = sys.modules['pandas'] = None\nsys.path.insert(0, '.')\n" + PROGRAM.search(card)[1], cwd=tmp_path)
    expected = OnnxModel(folder).predict(image)
    assert said.splitlines() == [expected.category, str(expected.attributes)]

def test_all_validation_images_are_predicted_alike(run, folder, garments):
    same_predictions(run, folder, garments/'val.csv')

def variant(garments, out, columns, groups=False):
    "A data folder with some of the columns of synthetic garments, every tenth label unknown"
    out.mkdir()
    for split in ('train','val','test'): (out/split).symlink_to(garments/split)
    for name in ('train.csv','val.csv'):
        frame = pd.read_csv(garments/name, dtype=str)
        attributes = list(frame)[2:]
        keep = [o for o in frame if o == 'file_path' or columns(o)]
        for i,o in enumerate(keep[1:]): frame.loc[i%10::10, o] = ''
        frame['file_path'] = [str(garments.parent/o) for o in frame.file_path]
        frame.replace({o: {'': None} for o in keep[1:]})[keep].dropna(how='all', subset=keep[1:]).to_csv(out/name, index=False)
    if (garments/'classes.txt').is_file() and columns('category_label'): (out/'classes.txt').write_bytes((garments/'classes.txt').read_bytes())
    if groups: (out/'attributes.csv').write_text('attribute,group,exactly_one\n' + ''.join(f'{o},sleeves,0\n' for o in attributes if 'sleeve' in o))
    return out

@pytest.mark.slow
@pytest.mark.parametrize('name,columns,groups', [('categories', lambda o: o == 'category_label', False), ('attributes', lambda o: o != 'category_label', True),
                                                 ('both', lambda o: True, True)])
def test_groups_and_models_of_one_part(garments, tmp_path, name, columns, groups):
    data = variant(garments, tmp_path/'data', columns, groups)
    run = train(data, tmp_path/'run', *SHORT)
    done = run_inprocess('export', run, '--out', tmp_path/'model', '--onnx', '--int8', data, '--card')
    assert done.returncode == 0, done.stderr
    assert 'int8 kept' in done.stdout or 'int8 not kept' in done.stdout
    found = same_predictions(run, tmp_path/'model', garments/'val')
    config,vocab = json.loads((tmp_path/'model'/'config.json').read_text()),read_labels(data).vocab
    assert (len(vocab.categories) > 0, len(vocab.attributes) > 0) == (name != 'attributes', name != 'categories')
    if groups:
        members, = (o['members'] for o in config['groups'])
        assert len(members) > 1 and set(found.attributes[:,members].sum(1)) <= {0, 1}
        assert config['rule']['name'] == 'Grouped' and (found.attribute_probabilities[:,members].sum(1) <= 1 + 1e-5).all()
    card = (tmp_path/'model'/'README.md').read_text()
    compile(PROGRAM.search(card)[1], 'card', 'exec')
    assert ('## Categories' in card, '## Attributes' in card) == (name != 'attributes', name != 'categories')
    code = "from fashion_fastai.cli.main import main\nassert main(sys.argv[1:]) == 0\n"
    without_torch(code, 'predict', tmp_path/'model', garments/'test.csv', '--out', tmp_path/'out')
    wanted = {'predictions.csv'} | ({'category.csv'} if vocab.categories else set()) | ({'attribute.csv'} if vocab.attributes else set())
    assert {o.name for o in (tmp_path/'out').iterdir()} == wanted

GROUPS = AttributeGroup('colour', (0,2,3)),AttributeGroup('sleeves', (1,5), False)

@pytest.mark.parametrize('n_categories,n_attributes,groups,kwargs', [(3, 6, GROUPS, dict(flip_tta=True)), (3, 0, (), {}), (0, 6, GROUPS, {})],
    ids=['groups and mirror images', 'categories', 'attributes'])
def test_a_graph_gives_the_probabilities_of_its_network(tmp_path, n_categories, n_attributes, groups, kwargs):
    model = multi_task_model(n_categories, n_attributes, 'xresnet10', width=.25).eval()
    decision = Decision(temperatures=(1.3, [.5 + k/10 for k in range(n_attributes)]))
    vocab = Vocab(tuple('abc'[:n_categories]), tuple('uvwxyz'[:n_attributes]), groups)
    learn = SimpleNamespace(model=model, loss_func=MultiTaskLoss(groups=groups, decision=decision), vocab=vocab, dls=tiny_learner().dls, **kwargs)
    export_onnx(learn, tmp_path/'model.onnx')
    session,graph = open_session(str(tmp_path/'model.onnx'), 1),ServingGraph(learn)
    parts = [name for name,o in zip(PARTS, (vocab.categories, vocab.attributes)) if o]
    assert [o.name for o in session.get_outputs()] == [*parts, FEATURES]
    images = torch.randint(0, 256, (5,*graph.stored,3), dtype=torch.uint8)
    outputs = run_graph(session, images.numpy())
    with torch.inference_mode():
        x = graph.resize(images.permute(0,3,1,2).float())*graph.scale + graph.shift
        logits = predict_with_flip(model, x, groups) if kwargs else model(x)
        for a,b in zip(outputs, learn.loss_func.activation(logits)): np.testing.assert_allclose(a, b.numpy(), atol=1e-5)
    if groups: np.testing.assert_allclose(outputs[1][:,[0,2,3]].sum(1), np.ones(5), atol=1e-5)

LOAD = """
import socket,sys,torch
def refuse(*args, **kwargs): raise OSError('no network')
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from fashion_fastai.export.package import HubModel
model = HubModel.from_pretrained(sys.argv[1]).learn.model.eval()
with torch.inference_mode(): torch.save(model(torch.load(sys.argv[2])), sys.argv[3])
"""

def test_a_saved_model_is_loaded_offline_bit_for_bit(run, folder, tmp_path):
    pytest.importorskip('huggingface_hub')
    import torch
    from fashion_fastai.export.package import HubModel
    images = torch.randn(8, 3, 48, 36, generator=torch.Generator().manual_seed(0))
    HubModel.from_pretrained(folder).save_pretrained(tmp_path/'saved')
    assert {o.name: o.read_bytes() for o in (tmp_path/'saved').iterdir()} == {o.name: o.read_bytes() for o in folder.iterdir()}
    torch.save(images, tmp_path/'images.pt')
    with torch.inference_mode(): expected = load_model(run).model.eval()(images)
    done = run_python('-W', 'ignore', '-c', LOAD, tmp_path/'saved', tmp_path/'images.pt', tmp_path/'out.pt')
    assert done.returncode == 0, done.stderr
    for a,b in zip(expected, torch.load(tmp_path/'out.pt')): assert torch.equal(a, b)

def test_the_serving_environment_needs_nothing_else(pytestconfig):
    "docker/requirements.txt has the versions of requirements.txt and of the extras"
    def lines(path): return [o for o in (pytestconfig.rootpath/path).read_text().splitlines() if o and o[0] != '#']
    known = set(lines('requirements.txt')) | set(re.findall(r'"([^"]+)"', (pytestconfig.rootpath/'pyproject.toml').read_text()))
    found = lines('docker/requirements.txt')
    assert found and set(found) <= known
    assert not {'torch','fastai','torchvision','scipy','scikit-learn'} & {re.split('[<>=]', o)[0] for o in found}

@pytest.mark.parametrize('size', [(32,24), (48,36), (36,27), (64,48), (80,60), (97,45), (192,144), (300,200)])
def test_the_graph_resizes_as_the_training_does_bit_for_bit(size):
    import torch
    from fashion_fastai.data.augment import squish
    from fashion_fastai.export.graph import ResizePixels
    images = torch.randint(0, 256, (2,*stored_size(size),3), dtype=torch.uint8).permute(0, 3, 1, 2)
    images[1] = 255
    assert torch.equal(ResizePixels(stored_size(size), size)(images.float()), squish(images, size).float())
    with pytest.raises(InputError, match='cannot be exported'): ResizePixels((80,60), (8,6))

@pytest.mark.parametrize('shape', [(2,3,9,7), (2,3,8,7), (2,3,5,4), (1,2,6,6)])
def test_pooling_without_ceil_mode_is_that_with_it(shape):
    import torch
    from fashion_fastai.export.graph import PairPool
    x = torch.randn(shape)
    torch.testing.assert_close(PairPool()(x), torch.nn.AvgPool2d(2, ceil_mode=True)(x), atol=1e-6, rtol=0)

@pytest.mark.parametrize('options', [dict(tta=True, blur_pool=True, attribute_weight=None), dict(arch='xse_resnext18', width=1.), dict(arch='xresnet50', dropout=.2)])
def test_other_networks_are_exported_with_equal_probabilities(options, garments, tmp_path):
    from fashion_fastai.examples import tiny_learner
    from fashion_fastai.export.graph import export_onnx
    learn,image = tiny_learner(**options),garments/'test'/'00001.jpg'
    export_onnx(learn, tmp_path/'model.onnx')
    p,q = open_session(str(tmp_path/'model.onnx'), 1).run(['category','attributes'], dict(images=load_pixels(image, stored_size((32,24)))[None]))
    expected = learn.predict(image)
    np.testing.assert_allclose(p[0], list(expected.category_probabilities.values()), atol=1e-5)
    np.testing.assert_allclose(q[0], list(expected.attribute_probabilities.values()), atol=1e-5)

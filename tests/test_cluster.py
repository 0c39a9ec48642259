"What a prediction by Ray does around Ray, with a stand-in that runs everything in this process; with Ray itself: test_batch.py"
import logging,os,socket,sys
from types import ModuleType,SimpleNamespace
import numpy as np
import pytest
from fashion_fastai.core import InputError
from fashion_fastai.examples import copy_data,tiny_learner
from fashion_fastai.predict import cluster
from fashion_fastai.predict.cluster import Pool,_Cluster,count_parts,plan_pool,predict_catalogue,ray_cluster
from fashion_fastai.predict.core import predict_run
from fashion_fastai.predict.model import save_model

class Handle:
    "A class or function that runs elsewhere"
    def __init__(self, ray, made, options=None): self.ray,self.made,self.given = ray,made,options or {}
    def options(self, **kwargs): return Handle(self.ray, self.made, kwargs)
    def remote(self, *args):
        self.ray.calls.append((self.made.__name__, self.given))
        if not isinstance(self.made, type): return lambda: self.made(*args)
        actor = self.made(*args)
        if isinstance(actor, cluster._Progress):
            return SimpleNamespace(actor=actor, add=SimpleNamespace(remote=actor.add), count=SimpleNamespace(remote=lambda: actor.count))
        return actor

class FakeRay(ModuleType):
    "As much of Ray as is used"
    def __init__(self, resources):
        super().__init__('ray')
        self.resources,self.calls,self.running,self.fails = resources,[],None,None
        self.exceptions = SimpleNamespace(RayError=type('RayError', (Exception,), {}))
        self.data = self
        self.context = SimpleNamespace(enable_progress_bars=True, print_on_execution_start=True)
        self.DataContext = SimpleNamespace(get_current=lambda: self.context)
    def init(self, address, **options):
        if self.fails: raise self.fails
        os.write(2, b'Ray says something')
        self.running = address,options
    def shutdown(self): self.running = None
    def cluster_resources(self): return self.resources
    def remote(self, made): return Handle(self, made)
    def get(self, task, timeout): return task()
    def from_items(self, items, override_num_blocks):
        assert len(items) == override_num_blocks
        self.items = items
        return self
    def ActorPoolStrategy(self, size): return size
    def map_batches(self, predictor, fn_constructor_args, batch_size, batch_format, compute, num_cpus, num_gpus):
        assert (batch_size, batch_format) == (1, 'numpy')
        self.calls.append((compute, num_cpus, num_gpus))
        self.predictors = [predictor(*fn_constructor_args) for _ in range(compute)]
        return self
    def iter_rows(self):
        for i,o in enumerate(self.items):
            found = self.predictors[i % len(self.predictors)]({key: np.array([value]) for key,value in o.items()})
            yield {key: value[0] for key,value in found.items()}

@pytest.fixture
def ray(monkeypatch):
    fake = FakeRay(dict(CPU=3.))
    for name in ('ray','ray.data'): monkeypatch.setitem(sys.modules, name, fake)
    for name in ('RAY_USAGE_STATS_ENABLED','RAY_BACKEND_LOG_LEVEL','RAY_ENABLE_AUTO_CONNECT'): monkeypatch.delenv(name, raising=False)
    return fake

@pytest.fixture
def folder(tmp_path, monkeypatch):
    data = copy_data(tmp_path, 200)
    (data/'test'/'00003.jpg').write_text('no image')
    save_model(tiny_learner(), tmp_path/'run')
    monkeypatch.chdir(tmp_path)
    return tmp_path,data

def predicted(folder): return {o.name: o.read_bytes() for o in folder.iterdir() if o.is_file()}

def test_a_catalogue_by_actors_is_that_of_one_process_and_resumes(ray, folder, capsys):
    tmp,data = folder
    options = dict(precision='fp32', batch_size=4, workers=1)
    n = predict_run(tmp/'run', data/'test.csv', tmp/'one', **options)
    assert predict_catalogue('run', data/'test.csv', 'ray', **options, actors=2) == n == 20
    assert predicted(tmp/'ray') == predicted(tmp/'one') and ray.running is None
    assert (2, 1, 0) in ray.calls and ('_Progress', dict(num_cpus=0, max_restarts=-1)) in ray.calls
    assert ray.predictors[0].progress.actor.n == 5 # batches
    parts = sorted(o.name for o in (tmp/'ray'/'parts').glob('part-*.parquet'))
    assert len(parts) == 5 and 'resuming' not in capsys.readouterr().out
    (tmp/'ray'/'parts'/parts[1]).unlink()
    ray.calls.clear()
    assert predict_catalogue('run', data/'test.csv', 'ray', **options, actors=2) == n and predicted(tmp/'ray') == predicted(tmp/'one')
    assert [o['part'] for o in ray.items] == [2] and 'resuming after 4 of 5 parts' in capsys.readouterr().out
    ray.items = None
    predict_catalogue('run', data/'test.csv', 'ray', **options, actors=2)
    assert ray.items is None # nothing is left to do

def test_what_an_actor_meets_ends_the_prediction_in_one_line(ray, folder):
    tmp,data = folder
    with pytest.raises(InputError, match='part 1 of 5: .*00003.jpg.*; start the same command again to continue'):
        predict_catalogue('run', data/'test.csv', 'strict', precision='fp32', batch_size=4, workers=1, actors=1, strict=True)
    def broken(): raise ray.exceptions.RayError('first line\nan actor died')
    ray.iter_rows = broken
    with pytest.raises(InputError, match=r'Ray ended the prediction \(RayError: an actor died\); start the same command again'):
        predict_catalogue('run', data/'test.csv', 'dead', precision='fp32', batch_size=4, workers=1, actors=1)
    assert ray.running is None
    with pytest.raises(InputError, match='use --no-merge, and then: fashion merge memory://out/parts --out DIR'): predict_catalogue('run', data/'test.csv', 'memory://out')

def test_the_precision_is_chosen_where_the_actors_are(ray, folder):
    tmp,data = folder
    listener = socket.create_server(('127.0.0.1', 0))
    address = f'127.0.0.1:{listener.getsockname()[1]}'
    ray.resources = dict(CPU=8., GPU=2.)
    predict_catalogue('run', data/'test.csv', 'far', batch_size=4, address=address)
    assert ('_choose_precision', dict(num_cpus=1, num_gpus=1)) in ray.calls and (2, 1, 1) in ray.calls
    ray.calls.clear()
    predict_catalogue('run', data/'test.csv', 'here', batch_size=4, merge=False)
    assert '_choose_precision' not in [o[0] for o in ray.calls] and not (tmp/'here'/'category.csv').exists()
    with listener: pass

def test_ray_is_quiet_and_ends_with_the_block(ray, capfd):
    with ray_cluster() as running:
        assert running is ray and ray.running[0] == 'local' and ray.running[1]['num_cpus'] == os.cpu_count() + 1
        assert (ray.running[1]['object_store_memory'], ray.running[1]['include_dashboard'], ray.running[1]['log_to_driver']) == (10**8, False, False)
        assert not ray.context.enable_progress_bars and not ray.context.print_on_execution_start
        assert logging.getLogger('ray').level == logging.CRITICAL and os.environ['RAY_USAGE_STATS_ENABLED'] == os.environ['RAY_ENABLE_AUTO_CONNECT'] == '0'
        os.write(2, b'heard')
    assert ray.running is None and capfd.readouterr().err == 'heard'
    with ray_cluster(n_cpus=5): assert ray.running[1]['num_cpus'] == 5
    with ray_cluster('auto'): assert ray.running[0] == 'auto' and not {'num_cpus','object_store_memory'} & set(ray.running[1])
    ray.fails = ConnectionError('nobody\nthere')
    with pytest.raises(InputError, match=r'Ray does not start on this machine \(nobody there\)'):
        with ray_cluster(): pass
    with pytest.raises(InputError, match=r'--address auto: there is no Ray cluster that can be joined \(nobody there\)'):
        with ray_cluster('auto'): pass
    for address in ('somewhere', 'ray://somewhere:10001', ':6379', 'host:', 'host:six'):
        with pytest.raises(InputError, match='should be auto, or look like 10.0.0.1:6379'):
            with ray_cluster(address): pass
    with pytest.raises(InputError, match=r'--address 127.0.0.1:9: there is no Ray cluster \(.*; start one there: ray start --head'):
        with ray_cluster('127.0.0.1:9'): pass
    with pytest.raises(InputError, match='there is no Ray cluster'):
        with ray_cluster('127.0.0.1:99999999'): pass

@pytest.mark.parametrize('text, reason', [('one line', 'one line'), ('a trace\n of lines\nno memory\n', 'no memory'), ('', '')])
def test_an_error_of_ray_ends_in_its_last_line(text, reason):
    assert f'(ValueError: {reason}); start the same command again' in str(_Cluster(None, None, 1).as_input_error(ValueError(text)))

@pytest.mark.parametrize('rows, batch_size, parts', [(1, 128, 1), (1000, 128, 8), (128*256, 128, 256), (128*256 + 1, 128, 256), (4096*256 + 1, 128, 257), (10**7, 128, 2442), (10**9, 128, 50_000), (300, 1, 256)])
def test_parts_are_many_but_not_too_many(rows, batch_size, parts): assert count_parts(rows, batch_size) == parts

@pytest.mark.parametrize('resources, actors, cpus, pool', [(dict(CPU=5), None, 1, Pool(4, 1, 0)), (dict(CPU=9), None, 4, Pool(2, 4, 0)), (dict(CPU=64, GPU=8), None, 1, Pool(8, 1, 1)),
    (dict(CPU=4, GPU=8), None, 1, Pool(3, 1, 1)), (dict(CPU=5), 4, 1, Pool(4, 1, 0)), (dict(CPU=16, GPU=2), 2, 7, Pool(2, 7, 1)), (dict(CPU=8, GPU=1), None, 1, Pool(1, 1, 1)),
    (dict(CPU=4), 4, 1, '4 actors of 1 CPUs, and one to hand out work, need 5 CPUs, but the cluster has 4 CPUs and 0 GPUs'), (dict(CPU=1), None, 1, '1 actors of 1 CPUs'), ({}, None, 1, 'the cluster has 0 CPUs'),
    (dict(CPU=16, GPU=2), 3, 1, '3 actors need a GPU each, but the cluster has 16 CPUs and 2 GPUs; set --actors 2')])
def test_a_pool_fits_its_cluster(resources, actors, cpus, pool):
    if isinstance(pool, Pool): assert plan_pool(resources, actors, cpus) == pool
    else:
        with pytest.raises(InputError, match=pool): plan_pool(resources, actors, cpus)

"Training in several processes: a step of two processes of one thread beside one process of two threads, and what they exchange"
import json,os,statistics,subprocess,sys,time
from pathlib import Path
from record import arguments,data_folder,machine,save

def _learner(data, cache, precision, size, batch_size):
    "A learner of recipe quick with an optimizer, and its first batch"
    from fastai.torch_core import set_seed
    from fashion_fastai.data.labels import read_labels
    from fashion_fastai.data.loader import pack_table
    from fashion_fastai.build import recipe_learner
    from fashion_fastai.recipes.settings import read_recipe
    height,width = size
    recipe = read_recipe('quick', None, stages=f'{height}x{width}:1', batch_size=batch_size, precision=precision, workers=1)
    table = read_labels(data).sample(2000)
    learn = recipe_learner(table, recipe, pack_table(table, size, cache, workers=1))
    learn.create_opt()
    set_seed(0)
    return learn,learn.dls.train.one_batch()

def _loopback_bytes():
    "Bytes that this machine has sent to itself"
    line = next(o for o in Path('/proc/net/dev').read_text().splitlines() if o.strip().startswith('lo:'))
    return int(line.split(':')[1].split()[0])

def worker(data, cache, precision, height, width, batch_size):
    "Take as many steps as each line of stdin says, with the processes that were started with this one, and print their seconds"
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1) # messages of this package and of gloo
    rank,world = int(os.environ['RANK']),int(os.environ['WORLD_SIZE'])
    torch.set_num_threads(2//world)
    learn,batch = _learner(data, cache, precision, (int(height),int(width)), int(batch_size))
    image,*targets = (o.as_subclass(torch.Tensor)[rank::world] for o in batch)
    model = learn.model.train()
    n_bytes = sum(o.numel()*o.element_size() for o in model.parameters())
    if world > 1:
        dist.init_process_group('gloo')
        model = DistributedDataParallel(model)
        model.broadcast_buffers = False # as in distributed.ddp
    def step():
        learn.loss_func(model(image), *targets).backward()
        learn.opt.step()
        learn.opt.zero_grad()
    print(json.dumps(n_bytes), file=answers, flush=True)
    for line in sys.stdin:
        if world > 1: dist.barrier()
        start,before = time.perf_counter(),_loopback_bytes()
        for _ in range(int(line)): step()
        print(json.dumps([time.perf_counter() - start, _loopback_bytes() - before]), file=answers, flush=True)

class Group:
    "Processes that take steps when told to, and otherwise wait"
    def __init__(self, world, port, *words):
        code = 'import sys,parallel; parallel.worker(*sys.argv[1:])'
        env = dict(os.environ, MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), WORLD_SIZE=str(world), OMP_NUM_THREADS=str(2//world))
        self.processes = [subprocess.Popen([sys.executable, '-W', 'ignore', '-c', code, *map(str, words)], cwd=Path(__file__).parent,
            env=env | {'RANK': str(i)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for i in range(world)]
        self.n_bytes = [json.loads(o.stdout.readline()) for o in self.processes][0]
    def steps(self, n):
        "(seconds, bytes sent on this machine) of a step"
        for o in self.processes: print(n, file=o.stdin, flush=True)
        found = [json.loads(o.stdout.readline()) for o in self.processes]
        return max(o[0] for o in found)/n,found[0][1]/n
    def close(self):
        for o in self.processes: o.stdin.close()
        for o in self.processes: o.wait()

def main():
    args = arguments(__doc__, height=64, width=48, batch_size=64, steps=10, turns=15)
    header = ['xresnet18 at half width', 'one process of two threads, ms', 'two of one thread, ms', 'lost',
        'MB of gradients', 'MB sent per step']
    table,figures = [header],{}
    with data_folder(args.data, 1500) as (data,cache):
        for i,precision in enumerate(('fp32','bf16') if machine()['cpu_bf16'] else ('fp32',)): # emulated bf16 is slow
            words = data.absolute(),cache.absolute(),precision,args.height,args.width,args.batch_size
            one,two = Group(1, 29511+2*i, *words),Group(2, 29512+2*i, *words)
            taken = [(one.steps(args.steps)[0], *two.steps(args.steps)) for _ in range(args.turns)]
            taken = taken[2:] # the first two warm up
            lost = statistics.median(b/a for a,b,_ in taken) - 1
            ms = [1e3*statistics.median(o) for o in list(zip(*taken))[:2]]
            sent = statistics.median(o[2] for o in taken)
            what = f'{precision}, {args.height}x{args.width}, batches of {args.batch_size}'
            table.append([what, *ms, f'{lost:+.1%}', two.n_bytes/1e6, sent/1e6])
            figures[f'a step of two processes over one of two threads, {precision}'] = 1+lost,None
            one.close(),two.close()
    save('parallel', args, table, figures)

if __name__ == '__main__': main()

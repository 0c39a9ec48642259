"""Processes that are forked from a server in which the slow imports are done, with the interface of `subprocess`

A command that starts Python imports for five seconds before it does anything. Whoever tests what happens at the start or the end of
Python itself, or with packages missing, uses `subprocess`."""
import multiprocessing,os,runpy,signal,subprocess,sys,threading,time
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path

_IMPORTED = ['fashion_fastai.all','fashion_fastai.cli.main','fashion_fastai.train.core','fashion_fastai.train.folds','fashion_fastai.report.page',
    'fashion_fastai.export.package','torch.distributed.launcher.api','torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler']
if sys.platform == 'linux': # elsewhere, `Forked` is a process like any other
    import resource
    from multiprocessing.reduction import DupFd
    _SERVER = multiprocessing.get_context('forkserver')
    _SERVER.set_forkserver_preload(_IMPORTED)

class _Fd:
    "A file descriptor that is sent to the process when it starts"
    def __init__(self, fd): self.fd = fd
    def __reduce__(self): return _received,(DupFd(self.fd),)

def _received(dup): return dup.detach()

def _run_python(words):
    "Run a command line: of Python, whose options -W and -u are left out, or a script such as `fashion`"
    if words[0] == sys.executable: words = words[1:]
    while words[0] in ('-W','-u'): words = words[2 if words[0] == '-W' else 1:]
    option,rest = words[0],words[1:]
    if option == '-c':
        sys.argv = ['-c', *rest[1:]]
        exec(compile(rest[0], '<string>', 'exec'), {'__name__': '__main__'})
    elif option == '-m':
        sys.argv = rest
        runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, os.path.dirname(os.path.abspath(option)))
        runpy.run_path(option, run_name='__main__')

def _child(words, stdin, stdout, stderr, cwd, env, limit):
    "What the process does: it becomes the command"
    for fd,target in zip((stdin, stdout, stderr), range(3)): os.dup2(fd, target)
    kept = {0, 1, 2, resource_tracker.getfd()}
    for fd in map(int, os.listdir('/proc/self/fd')): # such as the sockets of the process that started this one
        if fd not in kept:
            with suppress(OSError): os.close(fd)
    if 'RANK' in env: # of torchrun: a session of its own, and a name by which a test can find it
        os.setsid()
        Path('/proc/self/comm').write_text(f"rank {env['RANK']}")
    multiprocessing.set_start_method('fork' if sys.platform == 'linux' else None, force=True)
    for name in (signal.SIGTERM, signal.SIGHUP): signal.signal(name, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    if cwd: os.chdir(cwd)
    if limit: resource.setrlimit(limit[0], limit[1:]*2)
    sys.stdin,sys.stdout,sys.stderr = open(0),open(1, 'w'),open(2, 'w', buffering=1, errors='backslashreplace')
    handler = sys.modules['torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler']
    handler.SubprocessHandler._popen = lambda self, args, env: Forked(args, env=env, start='fork')
    _run_python(words)

class Forked:
    "A process that runs the command `words`, as `subprocess.Popen` would"
    def __init__(self, words, stdout=None, stderr=None, cwd=None, env=None, limit=None, start='forkserver'):
        pipes = {}
        def fd(name, value, default):
            if value == subprocess.STDOUT: return fd('stdout', stdout, 1)
            if value != subprocess.PIPE: return default if value is None else value if isinstance(value, int) else value.fileno()
            if name not in pipes: pipes[name] = os.pipe()
            return pipes[name][1]
        with open(os.devnull) as nothing:
            fds = [nothing.fileno(), fd('stdout', stdout, 1), fd('stderr', stderr, 2)]
            if start == 'forkserver': fds = map(_Fd, fds)
            environment = dict(os.environ if env is None else env)
            context = multiprocessing.get_context(start)
            self.process = context.Process(target=_child, args=(list(map(str, words)), *fds, cwd and str(cwd), environment, limit))
            self.process.start()
        self.pid,self.stdout,self.stderr = self.process.pid,None,None
        for name,(read,write) in pipes.items():
            os.close(write)
            setattr(self, name, open(read))

    @property
    def returncode(self): return self.process.exitcode

    def poll(self): return self.process.exitcode

    def wait(self, timeout=None):
        end = time.monotonic() + (1e9 if timeout is None else timeout)
        while self.returncode is None:
            if time.monotonic() > end: raise subprocess.TimeoutExpired('command', timeout)
            time.sleep(.01)
        return self.returncode

    def communicate(self, timeout=None):
        texts = {}
        def read(name): texts[name] = getattr(self, name).read()
        threads = [threading.Thread(target=read, args=[o], daemon=True) for o in ('stdout','stderr') if getattr(self, o)]
        for o in threads: o.start()
        self.wait(timeout)
        for o in threads: o.join(timeout)
        return texts.get('stdout'),texts.get('stderr')

    def send_signal(self, number):
        if self.poll() is None: os.kill(self.pid, number)

    def terminate(self): self.send_signal(signal.SIGTERM)
    def kill(self): self.send_signal(signal.SIGKILL)

class _Plain(subprocess.Popen):
    "The same as `Forked` on systems without a fork server, where each command imports for itself"
    def __init__(self, words, limit=None, **kwargs):
        name,*rest = map(str, words)
        command = [name, *rest] if name == sys.executable else [sys.executable, name, *rest] # a script such as `fashion`
        super().__init__(command, text=True, **kwargs)

if sys.platform != 'linux': Forked = _Plain

def run(words, timeout=300, **kwargs):
    "`subprocess.run` of the command `words` with the output captured"
    process = Forked(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
    try: out,err = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(words, process.returncode, out, err)

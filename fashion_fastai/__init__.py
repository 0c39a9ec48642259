__version__ = "0.1.0"

def _wait_briefly():
    "Let OpenMP's threads give their core away soon when they wait: a step beside other programs is several times as fast"
    import os,sys
    is_set = {'GOMP_SPINCOUNT','OMP_WAIT_POLICY'} & os.environ.keys() # by the user
    if 'torch' not in sys.modules and not is_set: os.environ['GOMP_SPINCOUNT'] = '10000'

_wait_briefly() # before PyTorch is imported, which reads it once

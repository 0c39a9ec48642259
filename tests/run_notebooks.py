"""Run the notebooks named on the command line in two processes, each of which imports the slow packages once: `python tests/run_notebooks.py [FILE …]`.

A tutorial is run as its reader has it: the copy of `fashion tutorial`, with its slow cells, in an empty folder, in which it
leaves nothing behind."""
import sys,tempfile
from concurrent.futures import ProcessPoolExecutor,as_completed
from pathlib import Path
from nbdev.test import test_nb
from fashion_fastai.tutorials import copy_tutorial

NBS = Path(__file__).resolve().parent.parent/'nbs'
SLOWEST = 'train.plan','wrong_and_right','what_went_wrong','folds_and_ensembles','first_run','competition','progressive_resizing','learner' # begin with these

def run(path):
    "Whether a notebook passed, and its seconds"
    if path.parent.name != 'tutorials': return test_nb(path)
    with tempfile.TemporaryDirectory() as folder:
        passed,seconds = test_nb(copy_tutorial(path.stem, folder))
        left = sorted(o.name for o in Path(folder).iterdir() if o.name != path.name)
    if left: print(f'{path.name} leaves {left} behind', file=sys.stderr)
    return passed and not left,seconds

def main(names):
    paths = [Path(o).resolve() for o in names] or [o for o in sorted(NBS.rglob('*.ipynb')) if '_serve.' not in o.name]
    paths.sort(key=lambda o: next((i for i,name in enumerate(SLOWEST) if o.stem.endswith(name)), len(SLOWEST)))
    with ProcessPoolExecutor(2) as pool:
        runs = {pool.submit(run, o): o for o in paths}
        failed = []
        for o in as_completed(runs):
            passed,seconds = o.result()
            print(f"{'passed' if passed else 'FAILED'} {seconds:6.1f} s  {runs[o].relative_to(NBS)}", flush=True)
            if not passed: failed.append(runs[o].name)
    if failed: sys.exit(f"{len(failed)} of {len(paths)} notebooks failed: {', '.join(failed)}")

if __name__ == '__main__':
    from run_notebooks import main # a notebook takes the place of `__main__` in the process that runs it
    main(sys.argv[1:])

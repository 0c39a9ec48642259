"Run the notebooks named on the command line in two processes, each of which imports the slow packages once: `python tests/run_notebooks.py [FILE …]`"
import sys
from concurrent.futures import ProcessPoolExecutor,as_completed
from pathlib import Path
from nbdev.test import test_nb

NBS = Path(__file__).resolve().parent.parent/'nbs'
SLOWEST = 'train.plan','wrong_and_right','what_went_wrong','folds_and_ensembles','first_run','competition','progressive_resizing','learner' # begin with these

def main(names):
    paths = [Path(o).resolve() for o in names] or [o for o in sorted(NBS.rglob('*.ipynb')) if '_serve.' not in o.name]
    paths.sort(key=lambda o: next((i for i,name in enumerate(SLOWEST) if o.stem.endswith(name)), len(SLOWEST)))
    with ProcessPoolExecutor(2) as pool:
        runs = {pool.submit(test_nb, o): o for o in paths}
        failed = []
        for o in as_completed(runs):
            passed,seconds = o.result()
            print(f"{'passed' if passed else 'FAILED'} {seconds:6.1f} s  {runs[o].relative_to(NBS)}", flush=True)
            if not passed: failed.append(runs[o].name)
    if failed: sys.exit(f"{len(failed)} of {len(paths)} notebooks failed: {', '.join(failed)}")

if __name__ == '__main__': main(sys.argv[1:])

"""Minutes that plans expect, and that their trainings take: a data folder and textures, with and without packed images,
and a machine that becomes slower as soon as the training has begun"""
import subprocess,sys,tempfile
from pathlib import Path
from fashion_fastai.core import fmt_size
from fashion_fastai.data.textures import draw_textures
from fashion_fastai.distributed.processes import ALONE
from fashion_fastai.recipes.settings import read_recipe
from fashion_fastai.train.core import train_run
from record import arguments,data_folder,save

# waits for a file, then computes until it is killed
BUSY = 'import sys,time; from pathlib import Path\nwhile not Path(sys.argv[1]).exists(): time.sleep(.1)\nwhile True: pass'

class Remembering(type(ALONE)):
    "The only process, which keeps the plan that is made"
    def from_first(self, make, what):
        self.plan = made = super().from_first(make, what)
        return made

    @property
    def minutes(self):
        "That the plan expects"
        recipe,times = self.plan
        return (sum(times['train_seconds'][fmt_size(size)]*n for size,n in recipe.sizes) + times['valid_seconds']*recipe.n_epochs)/60

def planned_and_real(data, minutes, is_slowed=False, **keys):
    "(planned minutes, real ones, how often the rest was planned again) of one training"
    recipe = read_recipe('quick', None, minutes=minutes, report=False, **keys)
    with tempfile.TemporaryDirectory() as tmp:
        out,processes = Path(tmp)/'run',Remembering()
        busy = subprocess.Popen([sys.executable, '-c', BUSY, str(out/'settings.ini')]) if is_slowed else None
        try: metrics = train_run(data, out, recipe, processes=processes)
        finally:
            if busy: busy.kill()
    return processes.minutes,metrics['minutes'],len((metrics.get('plan') or {}).get('changes', []))

def main():
    args = arguments(__doc__, minutes=3., textures=4000)
    rows,figures = [['training','given minutes','planned','real','planned again']],{}
    with data_folder(args.data) as (data,cache),tempfile.TemporaryDirectory() as tmp:
        textures = draw_textures(Path(tmp)/'textures', n=args.textures)
        packed,files = dict(cache=str(cache)),dict(cache='no')
        cases = [('images of the folder, packed', data, 1, packed), ('the same, twice the minutes', data, 2, packed),
            ('the same, slower from the first step on', data, 1, dict(packed, is_slowed=True)),
            ('the same, files', data, 1, files), ('textures, packed', textures, 1, packed),
            ('textures, files', textures, 1, files)]
        for name,folder,times,keys in cases:
            planned,real,n_changes = planned_and_real(folder, times*args.minutes, **keys)
            print(f'{name}: planned {planned:.2f}, real {real:.2f}, {n_changes} changes', flush=True)
            rows.append([name, f'{times*args.minutes:g}', f'{planned:.2f}', f'{real:.2f}', n_changes])
            figures[f'real over planned minutes, {name}'] = real/planned,None
    save('plan', args, rows, figures)

if __name__ == '__main__': main()

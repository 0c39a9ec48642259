"Images per second, ready for a training step: ours from the cache and from files, plain fastai, torchvision with PyTorch's DataLoader"
import statistics
import torch
from fastai.vision.all import set_seed
from torchvision import transforms as T
from PIL import Image
from fashion_fastai.data.loader import fashion_dls,pack_table
from fashion_fastai.data.labels import read_labels
from peer import peer_dls
from record import arguments,data_folder,ratio,rounds,save

class SourceImages(torch.utils.data.Dataset):
    "What a PyTorch user writes"
    def __init__(self, table, size):
        self.rows = [o for o in table.rows if not o.is_valid]
        self.categories = dict(zip(table.vocab.categories, range(len(table.vocab.categories))))
        self.tfm = T.Compose([T.RandomResizedCrop(size, scale=(.7,1), ratio=(.68,.83)), T.RandomHorizontalFlip(),
            T.ColorJitter(.1,.1), T.ToTensor(), T.Normalize([.485,.456,.406], [.229,.224,.225])])
    def __len__(self): return len(self.rows)
    def __getitem__(self, i):
        row = self.rows[i]
        with Image.open(row.image) as image: pixels = self.tfm(image.convert('RGB'))
        return pixels,self.categories[row.category],torch.tensor(row.attributes).float()

def drain(batches):
    "Go through all of `batches`, as a training would"
    for o in batches: pass

def main():
    args = arguments(__doc__, height=64, width=48, workers=2)
    size = (args.height, args.width)
    with data_folder(args.data) as (data,cache):
        table = read_labels(data)
        set_seed(0)
        cached = fashion_dls(table, size, packed=pack_table(table, size, cache))
        files = fashion_dls(table, size, workers=args.workers)
        plain = peer_dls(data, size, workers=args.workers)
        torch_loader = torch.utils.data.DataLoader(SourceImages(table, size), 64, shuffle=True, drop_last=True,
            num_workers=args.workers)
        taken = rounds(args.rounds, cache=lambda: drain(cached.train), files=lambda: drain(files.train),
            fastai=lambda: drain(plain.train), torchvision=lambda: drain(torch_loader))
        n = len(cached.train)*64
        names = dict(cache='ours, from the cache', files=f'ours, from files, {args.workers} threads',
            fastai=f'plain fastai, {args.workers} workers', torchvision=f'torchvision and DataLoader, {args.workers} workers')
        save('loader', args, [['loader','images/s'], *[[names[k], n/statistics.median(v)] for k,v in taken.items()]], {
            'cache over plain fastai': (ratio(taken['fastai'], taken['cache']), None),
            'files over plain fastai': (ratio(taken['fastai'], taken['files']), None)})

if __name__ == '__main__': main()

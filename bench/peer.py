"The peer of the benches: what a fastai user writes in one notebook for these tables, without anything of this toolkit"
from pathlib import Path
import pandas as pd
from fastai.vision.all import (AdaptiveAvgPool,CategoryBlock,ColSplitter,DataBlock,F,Flatten,ImageBlock,Learner,
    MultiCategoryBlock,Normalize,Resize,aug_transforms,create_body,imagenet_stats,nn,num_features_model)

class Heads(nn.Module):
    "Two linear layers beside each other"
    def __init__(self, n_features, n_categories, n_attributes):
        super().__init__()
        self.category,self.attributes = nn.Linear(n_features, n_categories),nn.Linear(n_features, n_attributes)
    def forward(self, x): return self.category(x),self.attributes(x)

def loss(pred, category, attributes):
    return F.cross_entropy(pred[0], category) + F.binary_cross_entropy_with_logits(pred[1], attributes.float())
def accuracy(pred, category, attributes): return (pred[0].argmax(1) == category).float().mean()
def mean_f1(pred, category, attributes):
    chosen,actual = pred[1] > 0,attributes.bool()
    return (2*(chosen & actual).sum(1)/(chosen.sum(1) + actual.sum(1)).clamp(min=1)).float().mean()

def peer_dls(
    data:Path, # folder with train.csv and val.csv, its parent being where file_path starts
    size:int|tuple=64, # pixels
    batch_size:int=64, # images in a batch
    workers:int=2, # processes that open images
    n:int|None=None, # rows to keep of all, at random
):
    "Plain fastai's data loaders"
    frames = [pd.read_csv(data/f'{o}.csv').assign(is_valid=o == 'val') for o in ('train','val')]
    frame = pd.concat(frames, ignore_index=True)
    if n: frame = frame.sample(min(n, len(frame)), random_state=0, ignore_index=True)
    names = [o for o in frame if o not in ('file_path','category_label','is_valid')]
    categories = list(range(frame.category_label.max()+1))
    blocks = ImageBlock,CategoryBlock(vocab=categories, sort=False),MultiCategoryBlock(encoded=True, vocab=names)
    block = DataBlock(blocks, n_inp=1, splitter=ColSplitter(),
        get_x=lambda r: data.absolute().parent/r['file_path'],
        get_y=[lambda r: r['category_label'], lambda r: r[names].values.astype(float)],
        item_tfms=Resize(size, method='squish'),
        batch_tfms=[*aug_transforms(size=size), Normalize.from_stats(*imagenet_stats)])
    return block.dataloaders(frame, bs=batch_size, num_workers=workers)

def peer_learner(
    dls, # from `peer_dls`
    body:nn.Module, # an xresnet without weights, as fastai builds it
):
    "Plain fastai's learner"
    body = create_body(body, pretrained=False)
    n_categories,n_attributes = map(len, dls.vocab)
    model = nn.Sequential(body, AdaptiveAvgPool(1), Flatten(), Heads(num_features_model(body), n_categories, n_attributes))
    return Learner(dls, model, loss_func=loss, metrics=[accuracy,mean_f1])

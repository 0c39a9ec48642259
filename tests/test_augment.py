"Augmentation: sizes as Pillow makes them, crops within their limits, mirror images, lighting"
import math
import numpy as np
import pytest,torch
from PIL import Image
from fastai.data.transforms import Normalize
from fastai.torch_core import TensorImage,set_seed
from fastai.vision.core import imagenet_stats
from fashion_fastai.data.augment import BatchResizedCrop,JitterNormalize,random_box,squish
from fashion_fastai.data.synthetic import draw_garment

@pytest.fixture(scope='module')
def garments(): return [draw_garment(k, [k%4], seed=k, size=(80,60)) for k in range(8)]

@pytest.fixture(scope='module')
def batch(garments): return TensorImage(torch.tensor(np.stack(garments)).permute(0, 3, 1, 2))

def test_a_batch_is_resized_as_pillow_does(garments, batch):
    assert torch.equal(squish(batch, (80,60)), batch)
    for image,garment in zip(squish(batch, (64,48)), garments):
        by_pillow = np.array(garment.resize((48,64), Image.Resampling.BILINEAR))
        assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - by_pillow).max() <= 2 # two roundings to whole bytes

def test_random_crops_keep_to_their_area_their_aspect_and_the_image():
    set_seed(0)
    for _ in range(1000):
        boxes = random_box(800, 600, .7)
        h,w = (o.stop - o.start for o in boxes)
        assert .7 <= h*w/(800*600) <= 1 or max(h/800, w/600) == 1 # a stretched box may reach the border
        assert abs(math.log(h/800/(w/600))) < math.log(1.11) and boxes[0].start >= 0 and boxes[0].stop <= 800 and boxes[1].stop <= 600
    rows,columns = random_box(800, 600, .04, .04, max_stretch=1)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (160,120)

def test_half_of_the_images_are_mirrored_and_else_unchanged(batch):
    set_seed(0)
    assert torch.equal(BatchResizedCrop((80,60), min_scale=1, flip=False)(batch, split_idx=0), batch)
    images = BatchResizedCrop((80,60), min_scale=1)(batch, split_idx=0)
    is_mirrored = [not torch.equal(a, b) for a,b in zip(images, batch)]
    assert 0 < sum(is_mirrored) < 8
    for a,b,mirrored in zip(images, batch, is_mirrored): assert torch.equal(a, b.flip(-1) if mirrored else b)

def test_pixels_are_normalised_as_fastai_does(batch):
    normalised = JitterNormalize()(batch, split_idx=1)
    torch.testing.assert_close(normalised, Normalize.from_stats(*imagenet_stats, cuda=False)(TensorImage(batch/255)), rtol=0, atol=1e-5)
    torch.testing.assert_close(JitterNormalize(lighting=0)(batch, split_idx=0), normalised, rtol=0, atol=1e-6)

def test_lighting_stays_within_its_limit():
    set_seed(0)
    light = JitterNormalize()
    lit = light.decode(light(TensorImage(torch.full((64,3,2,2), 255//2)), split_idx=0)) # mid-grey shows the brightness alone
    assert type(lit) is TensorImage and .02 < (lit - .5).abs().mean() < .08 and (lit - .5).abs().max() < .11

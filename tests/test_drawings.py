"Synthetic garments look as they did: figures of benches, tutorials and tests are of these images"
from pathlib import Path
import numpy as np,pandas as pd
import pytest
from PIL import Image
from fashion_fastai.core import InputError
from fashion_fastai.data.synthetic import ATTRIBUTES,CATEGORIES,GROUPS,contact_sheet,draw_garment,draw_garments,random_attributes
from fashion_fastai.data.textures import TEXTURES,TEXTURE_ATTRIBUTES,draw_texture,draw_textures

EXPECTED = Path(__file__).with_name('drawings.png') # written by `python tests/test_drawings.py`

def sheet():
    "Twelve garments of each category, and three of each texture, at a fifth of their size"
    rng = np.random.default_rng(0)
    images = [draw_garment(o, random_attributes(o, rng), seed=i) for o in CATEGORIES for i in range(12)]
    images += [draw_texture(o, np.random.default_rng(i), size=(80,60))[0] for o in TEXTURES for i in range(3)]
    return contact_sheet([o.reduce(5) for o in images], cols=15, gap=0)

def test_garments_and_textures_look_as_they_did():
    found,expected = (np.asarray(o).astype(int) for o in (sheet(), Image.open(EXPECTED)))
    assert found.shape == expected.shape == (160,180,3)
    assert np.abs(found - expected).max() <= 2 # another release of Pillow may round edges otherwise

def labels(folder):
    "Categories and attributes of all images, in order, and the rows of the tables"
    tables = [pd.read_csv(folder/f'{o}.csv') for o in ('train','val','test_labels')]
    table = pd.concat(tables, ignore_index=True)
    return table.category_label.values,table.iloc[:,2:].values,[len(o) for o in tables]

@pytest.mark.parametrize('draw, names, options', [(draw_garments, ATTRIBUTES, dict(label_noise=0.)), (draw_textures, TEXTURE_ATTRIBUTES, {})])
def test_categories_are_balanced_and_attributes_are_those_that_a_garment_may_have(draw, names, options, tmp_path):
    categories,attributes,sizes = labels(draw(tmp_path/'data', n=100, size=(8,6), splits=(.7,.2,.1), **options))
    assert sizes == [70,20,10] and np.bincount(categories).tolist() == [10]*10
    colours = attributes[:,[i for i,o in enumerate(names) if o in GROUPS['colour']]]
    assert (colours.sum(1) == 1).all() and (colours.sum(0) > 3).all() and attributes.any(0).all()
    for group in GROUPS.values(): assert attributes[:,[i for i,o in enumerate(names) if o in group]].sum(1).max() <= 1

def test_label_noise_changes_that_fraction_of_the_categories_and_swaps_an_attribute_of_that_fraction(tmp_path):
    true,true_sets,_ = labels(draw_garments(tmp_path/'true', n=600, size=(8,6), label_noise=0.))
    noisy,noisy_sets,_ = labels(draw_garments(tmp_path/'noisy', n=600, size=(8,6), label_noise=.3))
    is_swapped = (true_sets != noisy_sets).any(1)
    assert abs((true != noisy).mean() - .3) < .06 and abs(is_swapped.mean() - .3) < .06
    assert (np.bincount(noisy[true != noisy], minlength=10) > 5).all() # any other category
    assert ((true_sets != noisy_sets)[is_swapped].sum(1) == 2).all() and (true_sets.sum(1) == noisy_sets.sum(1)).all()
    assert abs(((true != noisy) & is_swapped).mean() - .09) < .05 # independently
    lost,won = ((true_sets > noisy_sets).sum(0), (true_sets < noisy_sets).sum(0))
    assert (lost > 0).sum() > 12 and (won > 0).sum() > 12 # some are rare

def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(InputError, match='needs three fractions with the sum 1'): draw_garments(tmp_path/'a', n=10, splits=(.8,.1,.2))
    with pytest.raises(InputError, match='9 garments are too few'): draw_garments(tmp_path/'a', n=9, splits=(.95,.04,.01))
    _,_,sizes = labels(draw_garments(tmp_path/'b', n=10, size=(8,6)))
    assert sizes == [8,1,1]

if __name__ == '__main__': sheet().save(EXPECTED)

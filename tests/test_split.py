"Validation splits: near the fraction that was asked for, however small the categories are"
import numpy as np
import pytest
from PIL import Image
from fashion_fastai.core import InputError
from fashion_fastai.data.labels import read_labels
from fashion_fastai.data.split import grouped_split,stratified_folds,stratified_split

@pytest.mark.parametrize('size', [2, 3, 5, 9, 40])
@pytest.mark.parametrize('group_size', [1, 2])
def test_small_categories_share_the_validation_images(size, group_size):
    categories = np.repeat(range(60), size*group_size)
    groups = np.arange(len(categories))//group_size
    for seed in range(3):
        is_valid = grouped_split(categories, groups, seed=seed)
        assert .07 <= is_valid.mean() <= .13
        assert (np.bincount(categories[~is_valid], minlength=60) > 0).all() # a category that was never seen cannot be predicted
        assert not np.intersect1d(groups[is_valid], groups[~is_valid]).size

def test_a_split_has_the_fraction_as_exactly_as_it_can_be():
    for seed in range(5):
        sizes = np.random.default_rng(seed).integers(1, 80, 30)
        is_valid = stratified_split(np.repeat(range(30), sizes), seed=seed)
        assert is_valid.sum() == round(.1*sizes.sum())
        per_category = np.bincount(np.repeat(range(30), sizes)[is_valid], minlength=30)
        assert (abs(per_category - .1*sizes) < 1).all() and (per_category[sizes == 1] == 0).all()
    assert stratified_split([0,0,1,1]).sum() == 1 and stratified_split([0,1,2]).sum() == 0
    assert stratified_split([True]*10 + [False]*90, 1.).all()
    assert np.bincount(np.repeat([0,1], [10,90])[stratified_split([True]*10 + [False]*90, .02, minimum=1)]).tolist() == [1,1]

def test_folds_of_small_categories_in_groups_are_as_many_as_asked_for():
    categories = np.repeat(range(50), 4)
    folds = stratified_folds(categories, np.arange(200)//2, 10)
    assert np.bincount(folds).min() >= 10 and len(np.unique(folds)) == 10

def test_categories_of_one_image_get_their_own_reason(tmp_path):
    for i in range(10): Image.new('RGB', (8,8)).save(tmp_path/f'{i}.jpg')
    (tmp_path/'train.csv').write_text('file_path,category_label\n' + ''.join(f'{i}.jpg,{i}\n' for i in range(10)))
    with pytest.raises(InputError, match='each of its 10 categories has a single image, which stays in training'): read_labels(tmp_path)

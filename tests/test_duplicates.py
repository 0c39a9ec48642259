"Near-duplicates: what is kept of a search, and when it is done again"
import os,shutil
import numpy as np
import pytest
from PIL import Image
from fashion_fastai.data.duplicates import near_duplicate_groups,near_pairs,read_info
from fashion_fastai.data.read import read_data
from fashion_fastai.data.split import connected_groups
from fashion_fastai.recipes.settings import read_recipe

@pytest.fixture
def images(garments, tmp_path):
    "Three images, of which the second is a copy of the first, and the third no image"
    for name,source in (('a','00001'), ('b','00001'), ('d','00002')): shutil.copy(garments/'train'/f'{source}.jpg', tmp_path/f'{name}.jpg')
    (tmp_path/'c.jpg').write_bytes(b'no image')
    return [tmp_path/f'{o}.jpg' for o in 'abcd']

def search(images):
    "The groups, and whether all images were read for them"
    read = []
    def progress(items, total=None):
        read.append(total)
        return items
    groups = near_duplicate_groups(images, 1, progress, cache=images[0].parent/'cache')
    assert np.array_equal(groups, near_duplicate_groups(images, 1, None))
    return groups.tolist(),bool(read)

def test_groups_are_kept_until_a_file_changes(images):
    assert search(images) == ([0,0,1,2], True) and search(images) == ([0,0,1,2], False)
    assert search(images[:2]) == ([0,0], True)
    assert search(images) == ([0,0,1,2], True)
    shutil.copy(images[3], images[1])
    assert search(images) == ([0,1,2,1], True)

def test_an_image_that_could_not_be_read_is_tried_again(images, monkeypatch):
    images[2].write_bytes(images[0].read_bytes())
    os.chmod(images[2], 0)
    from fashion_fastai.data import duplicates
    read_info,broken = duplicates.read_info,True
    def read(path, *args):
        if broken and str(path) == str(images[2]): raise duplicates.InputError(f'{path}: cannot be read as an image (Input/output error)')
        return read_info(path, *args)
    monkeypatch.setattr(duplicates, 'read_info', read)
    assert search(images) == ([0,0,1,2], True) and search(images) == ([0,0,1,2], False)
    os.chmod(images[2], 0o600)
    broken = False
    assert search(images) == ([0,0,0,1], True)

@pytest.mark.parametrize('damage', [b'', b'PK\3\4', bytes(1000)])
def test_a_damaged_file_of_groups_costs_a_search(damage, images):
    search(images)
    (images[0].parent/'cache'/'near_duplicates.npz').write_bytes(damage)
    assert search(images) == ([0,0,1,2], True) and search(images) == ([0,0,1,2], False)

def test_a_folder_that_cannot_be_written_costs_a_search(images):
    (images[0].parent/'cache').write_text('a file')
    assert search(images) == search(images) == ([0,0,1,2], True)

def test_a_training_without_a_validation_set_searches_once(garments, tmp_path, monkeypatch):
    shutil.copytree(garments, tmp_path/'garments')
    (tmp_path/'garments'/'val.csv').unlink()
    (tmp_path/'garments'/'groups.csv').unlink(missing_ok=True)
    from fashion_fastai.data import duplicates
    searches,near_pairs = [],duplicates.near_pairs
    monkeypatch.setattr(duplicates, 'near_pairs', lambda *args: searches.append(1) or near_pairs(*args))
    recipe = read_recipe('demo', cache=str(tmp_path/'cache'), regroup='yes')
    splits = [read_data(tmp_path/'garments', recipe).table.is_valid.tolist() for _ in range(2)]
    assert splits[0] == splits[1] and searches == [1]
    read_data(tmp_path/'garments', read_recipe('demo', cache='no', regroup='yes'))
    assert searches == [1,1]

def test_pairs_of_images_that_are_the_same_or_nearly():
    assert near_pairs(np.zeros((0,16,17,3), np.uint8)).shape == (0,2)
    many = np.random.default_rng(0).integers(0, 256, (2000,16,17,3), dtype=np.uint8)
    assert near_pairs(np.repeat(many[:1], 3, 0)).tolist() == [[0,1],[0,2]]
    many[1500:] = many[:500]
    many[1500:,0,0,0] //= 2
    assert near_pairs(many).tolist() == [[i,1500+i] for i in range(500)]
    dark = many[:1]//2
    assert near_pairs(np.concatenate([dark, dark + 60])).tolist() == [[0,1]] # brighter

def test_a_thumbnail_is_made_of_an_image_four_times_as_large(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64,68,3), dtype=np.uint8))
    image.save(tmp_path/'noise.png')
    assert np.array_equal(read_info(tmp_path/'noise.png').thumbnail, image.resize((17,16), Image.Resampling.BILINEAR))

def with_swapped_neighbours(thumbnail, n):
    "A copy in which `n` pairs of pixels are swapped, each of which changes one bit of the difference hash"
    copy = thumbnail.copy()
    for row,column in [(row, column) for row in range(16) for column in range(1, 15, 3)][:n]:
        copy[row,[column,column+1]] = thumbnail[row,[column+1,column]]
    return copy

def test_near_duplicates_differ_in_at_most_28_bits_of_the_hash():
    ramp = np.repeat((np.arange(17)[None] + 12*np.arange(16)[:,None])[...,None], 3, 2).astype(np.uint8)
    for n,expected in ((28, [[0,1]]), (29, [])):
        assert near_pairs(np.stack([ramp, with_swapped_neighbours(ramp, n)])).tolist() == expected

def test_a_large_group_is_connected_by_fewer_pairs():
    close = np.repeat(np.random.default_rng(0).integers(0, 256, (1,16,17,3), dtype=np.uint8), 40, 0)
    close[range(40),0,0,0] = range(40)
    assert len(near_pairs(close)) == 40*39//2
    few = near_pairs(close, max_n=5)
    assert len(few) < 40*39//4 and np.unique(connected_groups(few, 40)).tolist() == [0]

def test_synthetic_garments_all_differ(garments):
    images = sorted(garments.rglob('*.jpg'))[:100]
    assert len(np.unique(near_duplicate_groups(images, progress=None))) == 100

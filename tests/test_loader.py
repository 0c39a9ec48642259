"From the label table to batches: the same pixels and labels from files, threads and the cache"
import numpy as np
import pytest,torch
from PIL import Image
from fastai.torch_core import set_seed
from fastcore.test import test_eq as equal,test_fail as fails
from fashion_fastai.core import InputError,UNKNOWN,prefetch_map
from fashion_fastai.data.cache import stored_size
from fashion_fastai.data.vocab import LabelTable
from fashion_fastai.data.labels import read_labels
from fashion_fastai.data.loader import GarmentImage,fashion_dls,get_attributes,get_category,get_image,get_is_valid,pack_table

SIZE = 64,48

@pytest.fixture(scope='module')
def table(garments): return read_labels(garments)

@pytest.fixture(scope='module')
def packed(table, tmp_path_factory): return pack_table(table, SIZE, tmp_path_factory.mktemp('cache'), progress=None)

def test_an_image_of_any_kind_is_opened(table):
    image = GarmentImage.create(table.images[0])
    equal(np.array(GarmentImage.create(np.array(image))), np.array(image))
    equal(GarmentImage.create(table.images[0], size=(40,30)).size, (30,40)) # PIL's order is (width, height)
    fails(lambda: GarmentImage.create(table.data/'train.csv'), exc=InputError, contains='train.csv: cannot be read as an image')

def test_getters_read_a_row_and_pass_other_images_on(table):
    row = table.rows[0]
    equal((get_image(row), get_image(row.image), get_category(row)), (row.image, row.image, table.vocab.categories[table.categories[0]]))
    equal((get_attributes(row), get_is_valid(row)), (table.attributes[0], False))

def test_threads_keep_the_order_and_raise_what_they_meet():
    for threads in (1,3): equal(list(prefetch_map(lambda o: o**2, range(9), threads)), [o**2 for o in range(9)])
    equal(list(prefetch_map(lambda o: o**2, [])), [])
    fails(lambda: list(prefetch_map(lambda o: 1/o, [1,0])), exc=ZeroDivisionError)

@pytest.mark.parametrize('workers', [0,1,3])
def test_a_loader_raises_what_its_threads_meet_unless_bad_images_are_listed(table, workers, tmp_path):
    damaged = tmp_path/'damaged.jpg'
    damaged.write_bytes(b'no image')
    dls = fashion_dls(table, SIZE, workers=workers)
    files = [*dls.valid.items[:2], damaged]
    dl = dls.test_dl(files, bs=2)
    with pytest.raises(InputError, match='damaged.jpg: cannot be read as an image'): list(dl)
    dl.bad = {}
    images = torch.cat([b[0] for b in dl])
    assert list(dl.bad) == [str(damaged)] and len(images) == 3
    assert len(images[2].flatten(1).unique(dim=1)[0]) == 1 != len(images[1].flatten(1).unique(dim=1)[0]) # black, and not

def test_targets_are_those_of_the_table_in_its_order(table):
    dls = fashion_dls(table, SIZE, workers=0)
    equal([list(o) for o in dls.vocab], [list(table.vocab.categories), list(table.vocab.attributes)])
    valid = table.frame[table.is_valid].reset_index(drop=True)
    equal(torch.cat([b[1] for b in dls.valid]), torch.tensor(valid.category_label))
    equal(torch.cat([b[2] for b in dls.valid]).numpy(), table.attributes[table.is_valid])
    # a row of the dataset is the same as in fastai
    batch,(image,category,attributes) = dls.valid.one_batch(),dls.valid_ds[0]
    equal(image.size, stored_size(SIZE)[::-1])
    equal((batch[1][0], batch[2][0]), (category, attributes))
    equal(dls.train.dataset.splits[1], np.flatnonzero(table.is_valid))

def test_unknown_labels_stay_unknown(table):
    holes = LabelTable(table.frame.assign(category_label=UNKNOWN, red=np.int8(UNKNOWN)), table.vocab, table.data)
    dls = fashion_dls(holes, workers=0)
    batch = dls.one_batch()
    equal((batch[1].unique().tolist(), batch[2].dtype), ([UNKNOWN], torch.float32))
    equal(dls.decode_batch(batch, max_n=1)[0][1], '?')
    equal(int(dls.valid_ds[0][1]), UNKNOWN)

def test_a_test_loader_takes_paths_and_images(table, packed):
    files,plain = [o.image for o in table.rows if o.is_valid],fashion_dls(table, SIZE, workers=0)
    expected = plain.valid.one_batch()[0]
    for dls in (plain, fashion_dls(table, SIZE, packed=packed)):
        equal(dls.test_dl(files[:3]).one_batch()[0], expected[:3])
        equal(dls.test_dl([Image.open(files[0])]).one_batch()[0], expected[:1]) # not packed

def test_a_small_training_set_is_one_batch(table):
    equal(len(fashion_dls(table.sample(20), workers=0).train), 1)

@pytest.mark.parametrize('split', [0,1])
def test_files_threads_and_cache_give_the_same_batches(table, packed, split):
    def batches(**kwargs):
        set_seed(1)
        return list(fashion_dls(table, SIZE, **kwargs)[split])
    expected = batches(packed=packed)
    for a,b in [o for workers in (0,1,3) for o in zip(batches(workers=workers), expected, strict=True)]:
        for part,other in zip(a, b): equal(part, other)
        equal(list(map(type, a)), list(map(type, b)))

def test_a_cache_of_another_size_is_refused_and_none_is_exported(table, packed):
    dls = fashion_dls(table, SIZE, packed=packed)
    assert dls.train.rows is not None
    equal(dls.new_empty().train.packed, None)
    fails(lambda: fashion_dls(table, (128,96), packed=packed), exc=InputError, contains='packed for another size: 128x96 needs 144x108')

def test_sizes_hold_for_one_pass_also_when_it_is_interrupted(table, packed):
    sizes = [(32,24), (48,36)]
    for dls in (fashion_dls(table, SIZE, workers=0), fashion_dls(table, SIZE, packed=packed)):
        def passed(loader): return [tuple(b[0].shape[2:]) for b in loader]
        dls.train.sizes = sizes
        equal(passed(dls.train), sizes)
        dls.train.sizes = sizes
        for b in dls.train: break
        equal(tuple(b[0].shape[2:]), sizes[0])
        equal(passed([*dls.train, *dls.valid]), [SIZE]*3)
        dls.train.sizes = sizes
        equal(tuple(dls.train.one_batch()[0].shape[2:]), SIZE) # a batch to look at takes nothing from the epoch
        equal(passed(dls.train), sizes)

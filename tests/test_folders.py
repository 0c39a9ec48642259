"Folders of categories, attributes beside them, and what a conversion of them writes"
from pathlib import Path
import numpy as np,pandas as pd
import pytest
from fastcore.test import test_eq as eq,test_fail as fails
from PIL import Image
from fashion_fastai.core import InputError
from fashion_fastai.convert.folders import convert_folders,find_folder_images,read_folder_attributes

KINDS = 'dress','skirt','tee'

def make_images(*names):
    "Small images of random colours"
    rng = np.random.default_rng(0)
    for o in names:
        Path(o).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (20,30), tuple(map(int, rng.integers(0, 256, 3)))).save(o)

@pytest.fixture(autouse=True)
def shop(tmp_path, monkeypatch):
    "A working directory with 30 images of each of three kinds, and a table of attributes for 20 of each"
    monkeypatch.chdir(tmp_path)
    make_images(*(f'shop/{kind}/{i:02}.jpg' for kind in KINDS for i in range(30)))
    rows = [f"{kind}/{i:02}.jpg,{i%2},{'' if i%3 else 1}" for kind in KINDS for i in range(20)]
    Path('attributes.csv').write_text('\n'.join(['filename,striped,long', *rows]))

def test_folders_above_the_categories_may_differ_for_test():
    make_images('split/train/images/tee/a.jpg', 'split/train/images/hat/b.jpg', 'split/val/images/tee/c.jpg', 'split/test/tee/d.jpg')
    found = find_folder_images('split')
    eq(sorted(zip(found.names, found.categories, found.splits)), [('test/tee/d.jpg','tee','test'), ('train/images/hat/b.jpg','hat','train'),
        ('train/images/tee/a.jpg','tee','train'), ('val/images/tee/c.jpg','tee','val')])

def test_of_folders_in_several_categories_one_line_is_printed(capsys):
    make_images('inside/hat/a.jpg', *(f'inside/{kind}/{part}/{i}.jpg' for kind in ('tee','skirt') for part in ('front','back') for i in range(2)))
    find_folder_images('inside')
    said = capsys.readouterr().out
    assert 'the folders in them, back, front, are not told apart' in said and 'has its images in folders' not in said

def test_images_are_found_in_folders_of_categories_and_other_layouts_are_refused():
    found = find_folder_images('shop')
    eq((len(found.names), found.names[0], found.splits, found.files.left_out), (90, 'shop/dress/00.jpg'[5:], None, {}))
    make_images('split/train/tee/a.jpg', 'split/train/tee/deep/b.PNG', 'split/train/loose.jpg', 'split/Valid/tee/c.jpg', 'split/test/d.jpg', 'split/train/.cache/e.jpg', 'split/train/tee/._a.jpg')
    Path('split/train/tee/notes.txt').touch()
    found = find_folder_images('split')
    eq(sorted(zip(found.names, found.categories, found.splits)), [('Valid/tee/c.jpg','tee','val'), ('test/d.jpg','','test'), ('train/tee/a.jpg','tee','train'), ('train/tee/deep/b.PNG','tee','train')])
    eq(found.files.left_out['outside of the folders of categories'].n, 1)
    def refused(reason, src, *images, folders=()):
        make_images(*images)
        for o in folders: Path(o).mkdir(parents=True)
        fails(lambda: find_folder_images(src), exc=InputError, contains=reason)
    refused('no such folder', 'nowhere')
    refused('flat: has no folders; it should have one for each category', 'flat', 'flat/a.jpg')
    refused("hollow: the folder of the category 'skirt' has no images", 'hollow', 'hollow/tee/a.jpg', folders=['hollow/skirt'])
    refused('has a folder val, but none that is called train', 'valonly', 'valonly/val/tee/a.jpg')
    refused('the folders val and validation are both val', 'twice', *(f'twice/{o}/tee/a.jpg' for o in ('train','val','validation')))
    refused('has no folders', 'hidden', 'hidden/.git/a.jpg')
    refused('new/val/skirt: this category has no folder of training images', 'new', 'new/train/tee/a.jpg', 'new/val/skirt/a.jpg', 'new/val/tee/b.jpg')
    make_images('deep/train/tee/a.jpg', 'deep/test/images/b.jpg')       # folders of a test set that are no categories
    eq(find_folder_images('deep').categories, ['tee',''])

def test_attributes_are_read_for_each_image_and_errors_name_the_line():
    attributes = read_folder_attributes('attributes.csv', find_folder_images('shop').names)
    eq(attributes.multi_hot[:4], [[0,1], [1,-1], [0,-1], [1,1]])
    eq((attributes.multi_hot[20:30] == -1).all(), True)
    def read(text, names=('train/tee/a.jpg','train/tee/b.jpg','val/tee/a.jpg')):
        Path('bad.csv').write_text(text)
        return read_folder_attributes('bad.csv', list(names))
    eq(read('file_path,red\n./train/tee/a.jpg,1\nb.jpg,0\nelsewhere.jpg,1\n').multi_hot, [[1],[0],[-1]])
    eq(read('file_path,red\n./train/tee/a.jpg,1\nb.jpg,0\nelsewhere.jpg,1\n').n_unused, 1)
    boxed = read('image;x1;y1;x2;y2\nb.jpg;1;2;3;4\n')
    eq((boxed.multi_hot, boxed.boxes, boxed.where(1)), (None, [[0,0,0,0], [1,2,3,4], [0,0,0,0]], 'bad.csv, line 2'))
    for text,reason in [('name,red\na,1\n', 'has no column file_path or filename; it has name, red'), ('file_path\na.jpg\n', 'has no columns of attributes'),
                        ('file_path,red\nb.jpg,2\n', "line 2: attribute 'red' is '2', neither 0 nor 1"), ('file_path,red\na.jpg,1\n', "line 2: 'a.jpg' is the name of several images, such as train/tee/a.jpg and val/tee/a.jpg; name the folder, too"),
                        ('file_path,red\nb.jpg,1\ntee/b.jpg,0\n', "line 3: 'tee/b.jpg' has a row before, bad.csv, line 2"), ('file_path,red\nc.jpg,1\n', "no row names an image, the first being 'c.jpg'; file_path should be such as train/tee/a.jpg"),
                        ('file_path,is_valid\nb.jpg,1\n', "'is_valid' cannot be the name"), ('file_path,red\n', 'no row names an image'),
                        ('file_path,x1,y1,x2,y2\nb.jpg,1,1,1,1\n', "line 2: the box '1,1,1,1' is empty")]:
        fails(lambda: read(text), exc=InputError, contains=reason)

def test_a_conversion_writes_the_labels_splits_and_crops_of_its_folders():
    convert_folders('shop', 'data', attributes='attributes.csv')
    tables = {o: pd.read_csv(f'data/{o}.csv') for o in ('train','val','test_labels')}
    table = pd.concat(tables.values())
    eq((len(table), table.striped.isna().sum(), table.long.sum(), list(table)), (90, 30, 21, ['file_path','category_label','striped','long']))
    for o in table.itertuples():
        source = Path(o.file_path).resolve()
        eq(source.parent.name, KINDS[o.category_label])
        i = int(source.stem)
        eq([None if v != v else v for v in (o.striped, o.long)], [i%2 if i < 20 else None, 1 if i < 20 and i%3 == 0 else None])
    # a category alone, given splits and names, a test set with and without labels
    make_images(*(f'given/{split}/{kind}/{kind}{i}.png' for split in ('train','valid') for kind in KINDS for i in range(3)), *(f'given/test/{i}.jpg' for i in range(4)))
    summary = convert_folders('given', 'kept', keep_names=True, copy=True, categories='tee,dress')
    eq((summary.splits, summary.categories, summary.left_out['of other categories'], summary.attributes), (dict(train=6, val=6, test=4), dict(tee=6, dress=6), 6, {}))
    eq(pd.read_csv('kept/val.csv').sort_values('file_path').values.tolist(), [[f'kept/val/{kind}/{kind}{i}.png', label] for kind,label in (('dress',1),('tee',0)) for i in range(3)])
    eq(sorted(o.name for o in Path('kept').iterdir()), ['classes.txt','test','test.csv','train','train.csv','val','val.csv'])
    eq(len(pd.read_csv('kept/test.csv')), 4)
    make_images(*(f'given/test/{kind}/{i}.jpg' for kind in KINDS for i in range(2)))
    summary = convert_folders('given', 'labelled')
    eq((summary.splits, summary.left_out['outside of the folders of categories'], len(pd.read_csv('labelled/test_labels.csv'))), (dict(train=9, val=9, test=6), 4, 6))
    # products stay together; boxes crop
    make_images(*(f'nested/{kind}/p{p}/{i}.jpg' for kind in KINDS for p in range(20) for i in range(2)))
    summary = convert_folders('nested', 'products')
    eq((summary.garments, summary.shared), (60, 0))
    Path('boxes.csv').write_text('\n'.join(['file_path,x1,y1,x2,y2', *(f'{o},0,0,10,15' for o in find_folder_images('shop').names[:-1])]))
    summary = convert_folders('shop', 'cropped', attributes='boxes.csv', group_fn=lambda paths: [Path(o).name for o in paths])
    sizes = [Image.open(o).size for split in ('train','val','test') for o in pd.read_csv(f'cropped/{split}.csv').file_path]
    eq((sizes.count((10,15)), sizes.count((20,30)), summary.garments), (89, 1, 30))
    Path('boxes.csv').write_text('file_path,x1,y1,x2,y2\ntee/00.jpg,20,0,30,15\n')
    for reason,kwargs in [("boxes.csv, line 2: the box '20,0,30,15' is outside of its image of 20x30 pixels", dict(attributes='boxes.csv')), ('has no columns x1,y1,x2,y2 to crop to', dict(crop=0.)),
                          ("there is no category 'cape'", dict(categories='cape')), ('no.csv: no such file', dict(attributes='no.csv'))]:
        fails(lambda: convert_folders('shop', 'no', **kwargs), exc=InputError, contains=reason)
    make_images('case/Tee/a.jpg', 'case/tee/a.jpg')
    fails(lambda: convert_folders('case', 'no'), exc=InputError, contains="case: the categories 'Tee' and 'tee' differ only in case")
    assert not Path('no').exists()

def test_rows_without_an_image_are_counted_with_the_first_of_them(capsys):
    with open('attributes.csv', 'a') as file: file.write('\ngone.jpg,1,1\nlost.jpg,0,0\n')
    summary = convert_folders('shop', 'data', attributes='attributes.csv')
    said = 'attributes.csv: 62 rows = 60 used + 2 left out (rows without an image: 2, the first attributes.csv, line 62)'
    assert said in capsys.readouterr().out and summary.left_out['rows without an image'] == 2

@pytest.mark.parametrize('box, margin, size', [('0,0,10,10', .1, (11,11)), ('5,20,20,30', .2, (18,12)), ('3,4,9,9', 0, (6,5)), ('0,0,20,30', 10, (20,30))])
def test_a_crop_has_its_margin_and_ends_at_the_borders(box, margin, size):
    names = [o for o in find_folder_images('shop').names]
    Path('boxes.csv').write_text('file_path,x1,y1,x2,y2\n' + ''.join(f'{o},{box}\n' for o in names))
    convert_folders('shop', 'data', attributes='boxes.csv', crop=margin)
    eq({Image.open(o).size for o in pd.read_csv('data/train.csv').file_path}, {size})

"Converting and checking as a user calls them: processes, exit codes, files"
import json,os,shutil,subprocess,sys
from pathlib import Path
import numpy as np,pandas as pd
import pytest
from PIL import Image
from conftest import SHORT,run_inprocess
from fashion_fastai.convert.core import SourceImages,attribute_info,parse_boxes,random_splits,select_labels,with_suffix
from fashion_fastai.convert.write import write_images
from fashion_fastai.core import InputError
from test_cli import refused

BENCH = Path(__file__).parent.parent/'bench'

@pytest.fixture(scope='module')
def deepfashion(tmp_path_factory):
    "The coarse edition for 600 images, which are empty files but for a third"
    src = tmp_path_factory.mktemp('deepfashion')
    code = 'import sys; from pathlib import Path; from convert import write_lists; write_lists(Path(sys.argv[1]), 600, 30)'
    subprocess.run([sys.executable, '-c', code, src], cwd=BENCH, check=True)
    rng = np.random.default_rng(0)
    for o in sorted(src.glob('Img/img/*/*.jpg'))[::3]: Image.fromarray(rng.integers(0, 256, (12,9,3), dtype=np.uint8)).resize((45,60)).save(o)
    return src

def table_of(data): return pd.concat([pd.read_csv(data/f'{o}.csv') for o in ('train','val','test_labels')], ignore_index=True)

def test_deepfashion(deepfashion, tmp_path):
    done = run_inprocess('convert', 'deepfashion', deepfashion, tmp_path/'data', '--categories', 3, '--attributes', 5)
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert not set('\r\x1b█') & set(done.stdout) and '0.0% of the test images show a garment of the training set' in done.stdout
    table = table_of(tmp_path/'data')
    assert table.shape[1] == 2 + 5 and (table.iloc[:, 2:].sum(axis=1) > 0).all() and set(table.category_label) == {0,1,2}
    originals = [(tmp_path/o).resolve() for o in table.file_path]
    assert all(o.is_file() and o.is_relative_to(deepfashion.resolve()) for o in originals) and len(set(originals)) == len(table)
    listed = [o.split() for o in (deepfashion/'Anno_coarse'/'list_attr_img.txt').read_text().splitlines()[2:]]
    names = [o.rsplit(None, 1)[0].strip() for o in (deepfashion/'Anno_coarse'/'list_attr_cloth.txt').read_text().splitlines()[2:]]
    present = {o[0]: {a for a,v in zip(names, o[1:]) if v == '1'} for o in listed}
    for original,row in zip(originals, table.itertuples(index=False)):
        key = original.relative_to((deepfashion/'Img').resolve()).as_posix()
        assert {a for a,v in zip(table.columns[2:], list(row)[2:]) if v} == present[key] & set(table.columns[2:])
    assert run_inprocess('convert', 'deepfashion', deepfashion, tmp_path/'again', '--categories', 3, '--attributes', 5).returncode == 0
    for o in ('train','val','test_labels','groups'): assert (tmp_path/'again'/f'{o}.csv').read_text().replace('again/', 'data/') == (tmp_path/'data'/f'{o}.csv').read_text()
    done = run_inprocess('check', tmp_path/'data', '--out', tmp_path/'card.html')
    assert done.returncode == 0 and 'cannot be read, and training leaves them out' in done.stdout and 'the same product' not in done.stdout

def test_deepfashion_that_is_damaged(deepfashion, tmp_path):
    src = tmp_path/'src'
    shutil.copytree(deepfashion, src)
    path = src/'Anno_coarse'/'list_attr_img.txt'
    lines = path.read_text().splitlines()
    def convert(*options): return run_inprocess('convert', 'deepfashion', src, tmp_path/'data', *options)
    path.write_text('\n'.join(lines[:400])+'\n')
    assert refused(convert(), 'list_attr_img.txt: its first line states 600 rows, but it has 398; is the file complete?')
    path.write_text('\n'.join([*lines[:99], lines[99].rsplit(None, 1)[0], *lines[100:]])+'\n')
    assert refused(convert(), 'list_attr_img.txt, line 100: has 30 columns, not 31')
    path.write_text('\n'.join([*lines[:99], lines[99].replace('Product', 'Produce'), *lines[100:]])+'\n')
    assert refused(convert(), 'list_attr_img.txt: has other images than list_category_img.txt')
    path.unlink()
    assert refused(convert(), 'list_attr_img.txt: no such file')
    path.write_text('\n'.join(lines)+'\n')
    assert refused(convert('--crop', .1), 'list_bbox.txt: no such file')
    assert refused(convert('--crop', -1), 'crop is -1.0, but should be from 0 to 10')
    assert refused(convert('--categories', 'Skirt'), "there is no category 'Skirt'")
    assert refused(convert('--images', src/'Eval'), 'and the others are missing; name the folder that contains `img` with --images')
    assert refused(run_inprocess('convert', 'deepfashion', src, src), 'is not an empty folder')
    assert not (tmp_path/'data').exists() and sorted(o.name for o in tmp_path.iterdir()) == ['src'] # nothing is left lying about

@pytest.mark.parametrize('name', ['../../escaped.jpg','/tmp/escaped.jpg','a/../../../escaped.jpg','..','','a\rb.jpg','a\0.jpg'])
def test_no_kept_name_leads_out_of_the_data_folder(tmp_path, name):
    Image.new('RGB', (4,4)).save(tmp_path/'a.jpg')
    images = SourceImages([tmp_path/'a.jpg']*3, ['a.jpg','b.jpg',name], np.zeros(3, int), None, np.arange(3), np.array(['train','val','test']))
    before = sorted(tmp_path.rglob('*'))
    for copy in (False, True):
        with pytest.raises(InputError, match='(is not a path inside of the data folder;|has a control character; rename it, or) do not keep the names'):
            write_images(tmp_path/'deep'/'data', images, ['tee'], [], keep_names=True, copy=copy)
    assert [o for o in sorted(tmp_path.rglob('*')) if o.name != 'deep'] == before
    images = images._replace(names=['a.jpg','./a.jpg','folder/b.jpg'], splits=np.array(['train','train','val']))
    with pytest.raises(InputError, match='two images would be called train/a.jpg'): write_images(tmp_path/'data', images, ['tee'], [], keep_names=True)

def test_a_kept_name_that_gets_a_suffix_overwrites_no_other_image(tmp_path):
    "A name without a suffix is saved as .jpg when it is cropped"
    Image.new('RGB', (4,4)).save(tmp_path/'a.jpg')
    splits,boxes = np.array(['train','train','val']),np.array([[0,0,2,2.]]*3)
    images = SourceImages([tmp_path/'a.jpg']*3, ['a','a.jpg','b'], np.zeros(3, int), None, np.arange(3), splits, boxes=boxes)
    with pytest.raises(InputError, match='two images would be called train/a.jpg; do not keep the names'):
        write_images(tmp_path/'data', images, ['tee'], [], keep_names=True)
    write_images(tmp_path/'data', images._replace(names=['a','c.jpg','b']), ['tee'], [], keep_names=True)
    assert pd.read_csv(tmp_path/'data'/'train.csv').file_path.tolist() == ['data/train/c.jpg','data/train/a.jpg'] and (tmp_path/'data'/'val'/'b.jpg').is_file()

def test_a_benchmark_whose_names_lead_out_of_it_is_refused(deepfashion, tmp_path):
    src = tmp_path/'src'
    shutil.copytree(deepfashion, src)
    first = (src/'Anno_coarse'/'list_category_img.txt').read_text().splitlines()[2].split()[0]
    name = '../../../escaped.jpg'
    (src/'Img'/name).resolve().parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(src/'Img'/first, src/'Img'/name)
    for file in (*(src/'Anno_coarse').iterdir(), *(src/'Eval').iterdir()): file.write_text(file.read_text().replace(first, name))
    done = run_inprocess('convert', 'deepfashion', src, tmp_path/'out'/'data', '--categories', 3, '--attributes', 5, '--keep-names')
    assert refused(done, f"an image is called '{name}'") and not (tmp_path/'out'/'data').exists()

def test_products_and_check(garments, tmp_path):
    shop = tmp_path/'shop'
    shutil.copytree(garments/'train', shop/'images')
    rows = [f"{o.stem},{['Men','Women'][i%2]},{['Tees','Jeans','Kurtas'][i%3]},{['Red','Blue','Green'][i%3]},Casual,Product {i}" for i,o in enumerate(sorted((shop/'images').iterdir()))]
    rows[3] += ', and more'
    shutil.copy(shop/'images'/'00001.jpg', shop/'images'/'copy.jpg')
    (shop/'styles.csv').write_text('\n'.join(['id,gender,articleType,baseColour,usage,productDisplayName', *rows, 'copy,Men,Tees,Red,Casual,Another name', '5,Men'])+'\n')
    done = run_inprocess('convert', 'products', shop, tmp_path/'data', '--copy')
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert '161 images of 160 garments' in done.stdout and '1 lines have more cells' in done.stdout and '1 in lines with too few cells (the first: ' in done.stdout
    table = table_of(tmp_path/'data')
    assert len(table) == 161 and not any((tmp_path/o).is_symlink() for o in table.file_path)
    done = run_inprocess('check', tmp_path/'data', '--strict', cwd=tmp_path)
    assert done.returncode == 2 and '2 images are identical files' in done.stdout, done.stdout + done.stderr
    assert '1 issue to fix, the first: attributes that every training image has: Casual' in done.stderr and len(done.stderr.splitlines()) == 1
    assert 'have a near-duplicate in' not in done.stdout and 'page: data-check.html' in done.stdout and (tmp_path/'data-check.html').read_text().startswith('<!doctype html>')
    done = run_inprocess('train', tmp_path/'data', '--out', tmp_path/'run', *SHORT, '--epochs', 1, '--regroup', 'yes')
    assert done.returncode == 0 and 'searching near-duplicates' in done.stdout and json.loads((tmp_path/'run'/'metrics.json').read_text())['n_valid'] in range(10, 20), done.stderr

def test_names_that_are_not_utf8(garments, tmp_path):
    images,odd = sorted((garments/'train').iterdir())[:60],os.fsdecode(b'caf\xe9')
    for i,o in enumerate(images):
        name = tmp_path/'folders'/'ab'[i%2]/(f'{odd}.jpg' if i == 7 else o.name)
        name.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(o, name)
    def convert(*words): return run_inprocess('convert', 'folders', tmp_path/'folders', *words)
    done = convert(tmp_path/'data') # numbers take the place of names
    assert done.returncode == 0 and len(table_of(tmp_path/'data')) == 60, done.stderr
    said = r"caf\udce9.jpg' is not UTF-8; rename it, or do not keep the names"
    assert refused(convert(tmp_path/'kept', '--keep-names'), said) and not (tmp_path/'kept').exists()
    rows = [f'{o.stem},{"ab"[i%2]},red' for i,o in enumerate(images)]
    (tmp_path/'shop'/'images'/odd).mkdir(parents=True)
    for i,o in enumerate(images): shutil.copy(o, tmp_path/'shop'/'images'/(odd if i < 2 else '')/o.name)
    (tmp_path/'shop'/'styles.csv').write_text('\n'.join(['id,kind,colour', *rows]) + '\n')
    done = run_inprocess('convert', 'products', tmp_path/'shop', tmp_path/'products', '--category', 'kind', '--attributes', 'colour')
    assert done.returncode == 0 and '2 without an image' in done.stdout and '2 of 60 images are left out: the name' in done.stderr, done.stderr
    (tmp_path/'folders'/'a').rename(tmp_path/'folders'/odd)
    assert refused(convert(tmp_path/'other'), r"the name of the category 'caf\udce9' is not UTF-8; rename it")

def test_check_reports_what_a_training_would_refuse(garments, tmp_path):
    data = tmp_path/'garments'
    shutil.copytree(garments, data)
    for o in ('val.csv','test.csv','test_labels.csv'): (data/o).unlink()
    (data/'train'/'00001.jpg').unlink()
    (data/'train'/'00002.jpg').write_text('no image')
    (data/'train'/'00003.jpg').write_bytes(b'')
    done = run_inprocess('check', data, '--out', tmp_path/'new'/'card.html')
    assert done.returncode == 0 and done.stderr == '' and 'verdict: 2 issues to fix' in done.stdout
    for o in ('1 of 160 images are missing', '2 of 160 images cannot be read', 'there is no val.csv'): assert o in done.stdout
    page = (tmp_path/'new'/'card.html').read_text()
    assert '00002.jpg: cannot be read as an image' in page and 'http' not in page
    assert refused(run_inprocess('check', data, '--out', tmp_path/'new'/'card.html', '--strict'), '2 issues to fix, the first: 1 of 160 images are missing')
    (tmp_path/'file').touch()
    assert refused(run_inprocess('check', data, '--out', tmp_path/'file'/'card.html'), 'cannot be written')
    for o in (data/'train').iterdir(): o.unlink()
    done = run_inprocess('check', data, '--out', tmp_path/'card.html')
    assert done.returncode == 0 and '160 of 160 images are missing' in done.stdout

@pytest.mark.slow
def test_bench(tmp_path):
    done = subprocess.run([sys.executable, '-W', 'ignore', BENCH/'convert.py', '--rounds', '1', '--rows', '3000', '--attributes', '20', '--results', tmp_path/'results'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path/'results'/'convert.json').read_text())
    assert len(result['figures']) == 2 and result['table'][1][:2] == ['3,000','20'] and all(o['value'] > 0 for o in result['figures'].values())

def test_labels_are_selected_by_number_or_name():
    names,counts = ['skirt','tee','dress','cape'],[5,7,7,0]
    assert select_labels(names, counts, '9') == [1,2,0] and select_labels(names, counts, 'cape') == [3]
    with pytest.raises(InputError, match="there is no category 'skrt'; there are skirt, "): select_labels(['skirt','tee'], [5,7], 'skrt')
    for wanted in ('all', 3):
        with pytest.raises(InputError, match='no category has images'): select_labels(['skirt'], [0], wanted)

def test_boxes_are_four_numbers_in_order_or_empty():
    def parse(*box): return parse_boxes([[o] for o in box], lambda i: f'boxes.csv, line {i+2}').tolist()
    assert parse(1, 2., '3', 4) == [[1,2,3,4]] and parse(None, np.nan, '', None) == [[0,0,0,0]]
    for box in (('1','x','3','4'), ('1','','3','4'), (1,2,float('inf'),4)):
        with pytest.raises(InputError, match='is not the four numbers x1,y1,x2,y2'): parse(*box)
    for box in ((5,5,5,9), (9,5,5,9), (.1,.1,.5,.9)):
        with pytest.raises(InputError, match='is empty: it should be'): parse(*box)
    with pytest.raises(InputError, match="boxes.csv, line 2: the box 'a,2,3,4' is not"): parse('a',2,3,4)

def test_a_name_gets_the_suffix_of_its_true_format_if_its_own_is_another():
    names = ('a', '.png'), ('a', None), ('a.png', '.png'), ('a.jpeg', '.jpg'), ('a.png', '.jpg'), ('a.bin', None), ('a.TIFF', '.tif')
    assert [with_suffix(*o) for o in names] == ['a.png', 'a.jpg', 'a.png', 'a.jpeg', 'a.png.jpg', 'a.bin', 'a.TIFF']

def test_attributes_exclude_one_another_where_no_image_has_two():
    labels = np.array([[1,0,1], [0,1,0], [0,0,1]])
    assert attribute_info(labels[:2], ['red','blue','long'], ['colour','colour','']).exactly_one.tolist() == ['1','1','']
    assert attribute_info(labels, ['red','blue','long'], ['a','','a']) is None # red and long hold for one image
    assert attribute_info(labels, ['red','blue','long'], ['']*3, ['shape']*3).type.tolist() == ['shape']*3

def test_too_few_images_for_three_splits():
    with pytest.raises(InputError, match='2 images of 1 garments are too few for three splits'): random_splits(np.zeros(2), np.zeros(2))

@pytest.mark.parametrize('group_size', [1, 2, 5])
def test_random_splits_are_eight_one_and_one_tenths_of_every_category(group_size):
    n = 1000*group_size
    categories,groups = np.arange(n)//group_size%4,np.arange(n)//group_size
    splits = random_splits(categories, groups, seed=3)
    for k in range(4):
        for split,share in (('train',.8), ('val',.1), ('test',.1)): assert abs((splits[categories == k] == split).mean() - share) < .005
    assert pd.Series(splits).groupby(groups).nunique().eq(1).all()
    assert (random_splits(categories, groups, seed=3) == splits).all() and (random_splits(categories, groups, seed=4) != splits).any()

"Converting other people's folders and tables as a user calls it"
import csv,json,sys
from pathlib import Path
import numpy as np,pandas as pd
import pytest
from PIL import Image
from conftest import refused,run_inprocess
from fashion_fastai.data.labels import read_labels

@pytest.fixture(scope='module')
def catalogue(garments):
    "The labelled images of the synthetic garments: path, category, and a column per attribute"
    classes = (garments/'classes.txt').read_text().split()
    parts = {split: pd.read_csv(garments/f'{file}.csv') for split,file in (('train','train'), ('val','val'), ('test','test_labels'))}
    table = pd.concat([o.assign(split=split) for split,o in parts.items()], ignore_index=True)
    table.insert(0, 'path', [garments.parent/o for o in table.file_path])
    table.insert(1, 'category', [classes[k] for k in table.category_label])
    return table.drop(columns=['file_path','category_label'])

def originals(data, file):
    "The source of each linked image in a table of a data folder"
    return {o: (data.parent/o).resolve() for o in pd.read_csv(data/file).file_path}

@pytest.mark.parametrize('with_splits', [False, True])
def test_folders(with_splits, catalogue, tmp_path):
    src = tmp_path/'src'
    for o in catalogue.itertuples():
        folder = src/(dict(val='validation').get(o.split, o.split) if with_splits else '')/o.category
        folder.mkdir(parents=True, exist_ok=True)
        (folder/f'{o.split}_{o.path.name}').symlink_to(o.path)
    done = run_inprocess('convert', 'folders', src, tmp_path/'data')
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert 'attributes' not in done.stdout and 'left out: nothing' in done.stdout
    classes = (tmp_path/'data'/'classes.txt').read_text().split()
    assert classes == sorted(set(catalogue.category))
    category = dict(zip(catalogue.path.map(Path.resolve), catalogue.category))
    n = 0
    for split,file in (('train','train.csv'), ('val','val.csv'), ('test','test_labels.csv')):
        frame = pd.read_csv(tmp_path/'data'/file)
        assert list(frame) == ['file_path','category_label']
        for (file_path,source),label in zip(originals(tmp_path/'data', file).items(), frame.category_label):
            assert category[source] == classes[label] and file_path.startswith(f'data/{split}/')
            if with_splits: assert source.parent.name == split
        n += len(frame)
    assert n == len(catalogue) == 200
    assert pd.read_csv(tmp_path/'data'/'test.csv').file_path.tolist() == pd.read_csv(tmp_path/'data'/'test_labels.csv').file_path.tolist()
    assert refused(run_inprocess('convert', 'folders', src, tmp_path/'data'), 'is not an empty folder')

def test_folders_with_attributes(catalogue, tmp_path):
    for o in catalogue.itertuples():
        (tmp_path/'src'/o.category).mkdir(parents=True, exist_ok=True)
        (tmp_path/'src'/o.category/f'{o.Index}.jpg').symlink_to(o.path)
    attributes = catalogue.drop(columns=['path','category','split'])
    attributes.insert(0, 'filename', [f'{i}.jpg' for i in attributes.index])
    attributes.to_csv(tmp_path/'attributes.csv', index=False)
    done = run_inprocess('convert', 'folders', tmp_path/'src', tmp_path/'data', '--attributes', tmp_path/'attributes.csv')
    assert done.returncode == 0, done.stderr
    frame,names = pd.read_csv(tmp_path/'data'/'train.csv'),list(attributes)[1:]
    row_of = {o.resolve(): i for i,o in enumerate(catalogue.path)}
    rows = [row_of[o] for o in originals(tmp_path/'data', 'train.csv').values()]
    assert list(frame)[2:] == names and (frame[names].values == catalogue.loc[rows, names].values).all()
    assert read_labels(tmp_path/'data').vocab.attributes == tuple(names)
    # with holes in the file, the same cells are empty
    holes = np.random.default_rng(0).random(attributes[names].shape) < .3
    attributes[names] = attributes[names].astype('Int64').mask(holes)
    attributes.to_csv(tmp_path/'attributes.csv', index=False)
    assert run_inprocess('convert', 'folders', tmp_path/'src', tmp_path/'holes', '--attributes', tmp_path/'attributes.csv').returncode == 0
    frame = pd.read_csv(tmp_path/'holes'/'train.csv')
    rows = [row_of[o] for o in originals(tmp_path/'holes', 'train.csv').values()]
    expected = catalogue.loc[rows, names].astype(float).mask(holes[rows])
    np.testing.assert_array_equal(frame[names].values.astype(float), expected.values)

def test_folders_that_cannot_be_converted(tmp_path):
    def convert(src, *options): return run_inprocess('convert', 'folders', tmp_path/src, tmp_path/'data', *options)
    def image(name):
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (4,4)).save(tmp_path/name)
    assert refused(convert('nowhere'), 'nowhere: no such folder')
    image('flat/a.jpg')
    assert refused(convert('flat'), 'flat: has no folders; it should have one for each category')
    for o in ('Tee','tee'): image(f'case/{o}/a.jpg')
    assert refused(convert('case'), "the categories 'Tee' and 'tee' differ only in case; rename one of them")
    image('hollow/tee/a.jpg')
    (tmp_path/'hollow'/'skirt').mkdir()
    assert refused(convert('hollow'), "the folder of the category 'skirt' has no images")
    image('few/tee/a.jpg')
    assert refused(convert('few'), '1 images of 1 products are too few for three splits')
    assert refused(convert('few', '--crop', .1), 'has no columns x1,y1,x2,y2 to crop to')
    assert not (tmp_path/'data').exists()

def write_parquet(path, rows, features=None):
    "Rows as a Parquet file, with features as the library `datasets` describes them"
    pa,pq = pytest.importorskip('pyarrow'),pytest.importorskip('pyarrow.parquet')
    table = pa.Table.from_pylist(rows)
    if features: table = table.replace_schema_metadata({'huggingface': json.dumps({'info': {'features': features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=50)
    return path

def test_a_dataset_of_parquet_files(catalogue, tmp_path):
    names,attributes = sorted(set(catalogue.category), reverse=True),list(catalogue)[2:-1]
    features = dict(label=dict(names=names, _type='ClassLabel'), tags=dict(feature=dict(names=attributes, _type='ClassLabel'), _type='Sequence'))
    def row(o):
        tags = [k for k,name in enumerate(attributes) if catalogue[name][o.Index]]
        return dict(image=dict(bytes=o.path.read_bytes(), path=None), label=names.index(o.category), tags=tags)
    by_bytes = {o.path.read_bytes(): o.Index for o in catalogue.itertuples()}
    for split,part in catalogue.groupby('split'):
        rows,name = list(map(row, part.itertuples())),dict(val='validation').get(split, split)
        for k in range(2): write_parquet(tmp_path/'hub'/'data'/f'{name}-{k:05}-of-00002.parquet', rows[k::2], features)
    done = run_inprocess('convert', 'table', tmp_path/'hub', tmp_path/'data', '--category', 'label', '--attributes', 'tags')
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert (tmp_path/'data'/'classes.txt').read_text().split() == names
    n_parts = 0
    for split,file in (('train','train'), ('val','val'), ('test','test_labels')):
        frame = pd.read_csv(tmp_path/'data'/f'{file}.csv')
        rows = [by_bytes[(tmp_path/o).read_bytes()] for o in frame.file_path]
        assert sorted(rows) == catalogue.index[catalogue.split == split].tolist()
        assert [names[k] for k in frame.category_label] == catalogue.category[rows].tolist()
        assert set(frame.columns[2:]) == set(attributes)
        assert (frame[attributes].values == catalogue.loc[rows, attributes].values).all()
        n_parts += 1
    assert n_parts == 3 and read_labels(tmp_path/'data').vocab.categories == tuple(names)

def test_a_table_of_paths_with_boxes_and_holes(catalogue, tmp_path):
    table = catalogue.assign(x1=5, y1=10, x2=45, y2=60)
    table.loc[::4, 'category'] = ''
    table.loc[1::4, ['x1','y1','x2','y2']] = None
    table.to_csv(tmp_path/'list.csv', index=False)
    attributes = list(catalogue)[2:-1]
    done = run_inprocess('convert', 'table', tmp_path/'list.csv', tmp_path/'data', '--category', 'category', '--split', 'split',
        '--attributes', ','.join(attributes), '--keep-names', '--crop', '.1')
    assert done.returncode == 0, done.stderr
    assert '25.0% of the categories' in done.stdout
    for split,file in (('train','train'), ('val','val'), ('test','test_labels')):
        frame = pd.read_csv(tmp_path/'data'/f'{file}.csv').set_index('file_path')
        part = table[table.split == split]
        assert len(frame) == len(part)
        for o in part.itertuples():
            found = frame.loc[f'data/{split}/{o.path.name}']
            assert (found[attributes].values == catalogue.loc[o.Index, attributes].values).all()
            assert pd.isna(found.category_label) == (o.category == '')
            full = Image.open(o.path).size
            assert Image.open(tmp_path/'data'/split/o.path.name).size == (full if pd.isna(o.x1) else (48,60))

def test_tables_that_cannot_be_converted(catalogue, tmp_path, monkeypatch):
    catalogue.to_csv(tmp_path/'list.csv', index=False)
    def convert(*options, src='list.csv'): return run_inprocess('convert', 'table', tmp_path/src, tmp_path/'data', *options)
    assert refused(convert(), 'list.csv: name a column with --category, or columns with --attributes: path, category, ')
    assert refused(convert('--category', 'kind'), "has no column 'kind'; name one with --category: path, ")
    assert refused(convert('--category', 'category', '--split', 'category'), 'but should be train, val or test')
    assert refused(convert('--category', 'category', '--images', tmp_path/'none', '--image', 'category'), 'name the folder of the images with --images')
    assert refused(convert('--attributes', 'category:many'), "'many' is not a number of names")
    assert refused(convert('--category', 'category', src='no.csv'), 'no.csv: no such file')
    source = catalogue.path[0]
    for cells,reason in [('0,0,x,9', "line 2: the box '0,0,x,9' is not the four numbers x1,y1,x2,y2"), ('9,9,9,9', "line 2: the box '9,9,9,9' is empty"),
                         ('900,0,910,9', "line 2: the box '900,0,910,9' is outside of its image")]:
        (tmp_path/'boxes.csv').write_text('path,kind,split,x1,y1,x2,y2\n' + f'{source},tee,train,{cells}\n')
        assert refused(convert('--category', 'kind', '--split', 'split', src='boxes.csv'), reason)
    broken = write_parquet(tmp_path/'broken.parquet', [dict(image=b'no image', kind='tee') for _ in range(40)])
    assert refused(convert('--category', 'kind', src=broken.name), "broken.parquet, row 1: column 'image' has bytes, but not those of an image")
    broken.write_bytes(broken.read_bytes()[:-20])
    assert refused(convert('--category', 'kind', src=broken.name), 'broken.parquet: cannot be read as Parquet')
    monkeypatch.setitem(sys.modules, 'pyarrow', None)
    assert refused(convert('--category', 'kind', src=broken.name), "pip install 'fashion_fastai[parquet]'")
    assert not (tmp_path/'data').exists() and not list(tmp_path.glob('.data*'))

@pytest.mark.parametrize('line_break', ['\n','\r','\x0c','\x85','\u2028'])
def test_a_line_break_in_a_name_makes_no_other_class(tmp_path, line_break):
    "In a table, a product table and the names of folders; the same name with a space is the same class"
    names = [f'coat{line_break}(outdoor)','coat (outdoor)','dress','skirt']
    for i in range(60):
        for folder in ('images',f'folders/{names[i%4]}'):
            (tmp_path/folder).mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (4,4), (4*i,0,0)).save(tmp_path/folder/f'{i}.png')
    rows = [dict(id=i, file=f'images/{i}.png', kind=names[i%4], colour=[f'red{line_break}|blue','blue'][i%2]) for i in range(60)]
    pd.DataFrame(rows).rename(columns={'kind': f'the{line_break}kind'}).to_csv(tmp_path/'table.csv', index=False, quoting=csv.QUOTE_ALL)
    for name,options in dict(table=('table.csv','--image','file','--category','the kind'), products=('table.csv','--category','the kind'), folders=('folders',)).items():
        words = ['convert', name, tmp_path/options[0], tmp_path/'out'/name, *options[1:], *(('--attributes','colour') if name != 'folders' else ())]
        assert run_inprocess(*words).returncode == 0
        vocab = read_labels(tmp_path/'out'/name).vocab
        assert sorted(vocab.categories) == ['coat (outdoor)','dress','skirt']
        assert sorted(vocab.attributes) == ([] if name == 'folders' else ['blue','red'])
        tables = pd.concat([pd.read_csv(tmp_path/'out'/name/f'{o}.csv') for o in ('train','val','test_labels')])
        for o in tables.itertuples():
            original = int((tmp_path/'out'/o.file_path).resolve().stem)
            assert vocab.categories[o.category_label] == ' '.join(names[original%4].split())

@pytest.mark.parametrize('description', [b'', b'{', b'\xff', b'[]', b'{"info": 1}', b'{"info": {"features": []}}', b'{"info": {"features": {"kind": {"_type": "ClassLabel"}}}}',
    b'{"info": {"features": {"kind": {"_type": "ClassLabel", "names": [1, null]}}}}', b'{"info": {"features": {"kind": {"_type": "ClassLabel", "names": 7}}}}', b'['*100_000])
def test_a_damaged_description_of_a_parquet_table_is_refused(tmp_path, description):
    pa,pq = pytest.importorskip('pyarrow'),pytest.importorskip('pyarrow.parquet')
    pq.write_table(pa.table(dict(image=['a.png'], kind=['0'])).replace_schema_metadata({'huggingface': description}), tmp_path/'table.parquet')
    done = run_inprocess('convert', 'table', tmp_path/'table.parquet', tmp_path/'data', '--category', 'kind')
    assert refused(done, 'table.parquet: its description of the columns, named huggingface, is damaged')

def test_the_paths_of_a_table_start_in_one_folder(tmp_path, monkeypatch):
    "The folder of the images, else the working directory, also for the paths in cells that have no bytes"
    names = [f'{i}.png' for i in range(60)]
    for folder in ('shop','work'):
        (tmp_path/folder).mkdir()
        for i,o in enumerate(names): Image.new('RGB', (4,4), (4*i,0,100*(folder == 'work'))).save(tmp_path/folder/o)
    monkeypatch.chdir(tmp_path/'work')
    rows = [dict(image=o, kind='ab'[i%2]) for i,o in enumerate(names)]
    pd.DataFrame(rows).to_csv(tmp_path/'shop'/'table.csv', index=False)
    write_parquet(tmp_path/'shop'/'table.parquet', [dict(image=dict(bytes=None, path=o['image']), kind=o['kind']) for o in rows])
    for file in ('table.csv','table.parquet'):
        def convert(out): return run_inprocess('convert', 'table', tmp_path/'shop'/file, tmp_path/out, '--category', 'kind', '--copy', cwd=tmp_path/'work')
        assert convert(file).returncode == 0
        paths = pd.concat([pd.read_csv(tmp_path/file/f'{o}.csv') for o in ('train','val','test')]).file_path
        assert len(paths) == 60 and all(np.asarray(Image.open(tmp_path/o))[0,0,2] == 0 for o in paths)
        (tmp_path/'shop'/names[30]).rename(tmp_path/'aside.png')
        assert refused(convert('none'), f" in {tmp_path/'shop'}, such as 0.png, and 1 only in ., such as {names[30]}; a table has one root")
        (tmp_path/'aside.png').rename(tmp_path/'shop'/names[30])

def test_a_name_of_several_images_is_no_product(tmp_path):
    for o in ('a/1.png','b/1.png','2.png','b/2.png','c/3.png'):
        (tmp_path/'images'/o).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (4,4)).save(tmp_path/'images'/o)
    def convert(*ids):
        (tmp_path/'styles.csv').write_text('id,articleType,baseColour\n' + ''.join(f'{o},tee,red\n' for o in ids))
        return run_inprocess('convert', 'products', tmp_path, tmp_path/'data', '--attributes', 'baseColour')
    several = f"styles.csv: id '1' is the name of several images, {tmp_path/'images'/'a'/'1.png'} and {tmp_path/'images'/'b'/'1.png'}"
    assert refused(convert('3', '1'), several)
    assert refused(convert('3', '2.png', 'a/1.png'), '3 images of') # whole names are names of one image; these are too few to split

def test_one_unreadable_image_is_copied_and_reported(tmp_path):
    rng = np.random.default_rng(0)
    def encoded(i):
        path = tmp_path/'image.png'
        Image.fromarray(rng.integers(0, 256, (8,6,3), dtype=np.uint8)).save(path)
        return b'broken' if i == 7 else path.read_bytes()
    write_parquet(tmp_path/'table.parquet', [dict(image=None if i == 3 else encoded(i), kind='ab'[i%2], red=[True,False,None][i%3]) for i in range(90)])
    done = run_inprocess('convert', 'table', tmp_path/'table.parquet', tmp_path/'data', '--category', 'kind', '--attributes', 'red')
    assert done.returncode == 0, done.stderr
    assert '1 images cannot be read, and were copied as they are' in done.stdout and '1 whose image is missing' in done.stdout
    table = pd.concat([pd.read_csv(tmp_path/'data'/f'{o}.csv') for o in ('train','val','test_labels')])
    assert len(table) == 89 and table.red.isna().sum() == 30 and sorted(Path(o).suffix for o in table.file_path) == ['.jpg'] + ['.png']*88

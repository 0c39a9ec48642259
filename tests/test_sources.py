"Converting other people's folders and tables as a user calls it"
import csv,io,json,re,shutil,sys,warnings
from pathlib import Path
from zipfile import ZipFile
import numpy as np,pandas as pd
import pytest
from PIL import Image
from conftest import refused,run_inprocess
from fashion_fastai.core import InputError
from fashion_fastai.data.labels import read_labels
from fashion_fastai.data.records import read_json
from fashion_fastai.predict.catalogue import Catalogue

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
    assert refused(convert('few'), '1 images of 1 garments are too few for three splits')
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
                         ('900,0,910,9', "line 2: the box '900,0,910,9' is outside of its image"), ('-9,0,0,9', "line 2: the box '-9,0,0,9' is outside of its image")]:
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

def not_utf8(path, column, where):
    "A Parquet file with a byte in `column` that is no UTF-8, in a cell or in its name"
    pa,pq = pytest.importorskip('pyarrow'),pytest.importorskip('pyarrow.parquet')
    texts = {name: [b'a.png',b'b\xffd.png' if where == 'cell' and name == column else b'b.png'] for name in ('image','kind')}
    names = [f'{o}1' if where == 'name' and o == column else o for o in texts]
    pq.write_table(pa.table([pa.array(o).view(pa.string()) for o in texts.values()], names=names), path)
    if where == 'name': path.write_bytes(path.read_bytes().replace(f'{column}1'.encode(), column.encode() + b'\xff'))
    return path

@pytest.mark.parametrize('where', ['cell','name'])
@pytest.mark.parametrize('column', ['image','kind'])
def test_parquet_with_texts_that_are_not_utf8_is_refused(column, where, tmp_path):
    table = not_utf8(tmp_path/'table.parquet', column, where)
    done = run_inprocess('convert', 'table', table, tmp_path/'data', '--category', 'kind')
    assert refused(done, 'table.parquet: cannot be read as Parquet')
    if column == 'kind' and where == 'cell': return # which a list to predict does not need
    with pytest.raises(InputError, match='table.parquet: cannot be read'): list(Catalogue(table).paths())

@pytest.mark.parametrize('row', [dict(image='a.png', kind='\ud800'), dict(image='b\udc00.png', kind='b'), dict(image='a.png', kind=['b', {'c': '\udfff'}])])
@pytest.mark.parametrize('layout', ['lines','list','annotations'])
def test_half_of_a_surrogate_pair_is_refused(layout, row, tmp_path):
    "JSON can escape it, and no file can contain it"
    good,path = dict(image='c.png', kind='\U0001f457'),tmp_path/'table.json' # a dress, which is a pair
    if layout == 'lines': path.write_text('\n'.join(map(json.dumps, [good, row])))
    elif layout == 'list': path.write_text(json.dumps([good, row]))
    else: path.write_text(json.dumps(dict(images=[dict(id=1, file_name=row['image'])], annotations=[], info=row['kind'])))
    done = run_inprocess('convert', 'table', path, tmp_path/'data', '--category', 'kind')
    assert refused(done, f"table.json{', line 2' if layout == 'lines' else ', line 1' if layout == 'annotations' else ''}: has half of a surrogate pair")

def test_a_spreadsheet_without_a_sheet_is_empty(tmp_path):
    openpyxl,file = pytest.importorskip('openpyxl'),tmp_path/'table.xlsx'
    openpyxl.Workbook().save(tmp_path/'whole.xlsx')
    with ZipFile(tmp_path/'whole.xlsx') as whole,ZipFile(file, 'w') as damaged:
        for o in whole.namelist(): damaged.writestr(o, re.sub(rb'<sheet .*?/>', b'', whole.read(o)))
    assert refused(run_inprocess('convert', 'table', file, tmp_path/'data', '--category', 'kind'), 'table.xlsx: is empty')

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

def test_paths_beside_empty_bytes_tell_where_images_are(tmp_path, monkeypatch):
    for o in ('lists','work'): (tmp_path/o).mkdir()
    for i in range(3): Image.new('RGB', (4,4)).save(tmp_path/'work'/f'{i}.png')
    monkeypatch.chdir(tmp_path/'work')
    names = [f'{i}.png' for i in range(3)]
    for rows in ([dict(image=dict(bytes=None, path=o)) for o in names], [dict(image=dict(bytes=None, path=None), file_path=o) for o in names]):
        listed = Catalogue(write_parquet(tmp_path/'lists'/'list.parquet', rows))
        assert Path(listed.root).resolve() == tmp_path/'work'
        assert [Path(o).resolve().name for o in listed.part(range(3)).paths] == names

def test_a_name_that_cannot_be_written_is_refused_with_its_row(tmp_path):
    for rows in ([dict(file_path=o) for o in ('a.png','b.png','c\n.png')], [dict(image=b'x', file_path=o) for o in ('a.png','b.png','c\n.png')]):
        listed = Catalogue(write_parquet(tmp_path/'list.parquet', rows))
        with pytest.raises(InputError, match='list.parquet, row 3: file_path'): listed.part(range(1, 3))

def test_a_part_of_a_table_without_images_is_left_out(tmp_path):
    "Rows are read 64 at a time; the second part has no image at all"
    picture = io.BytesIO()
    Image.new('RGB', (4,4)).save(picture, 'PNG')
    path = write_parquet(tmp_path/'table.parquet', [dict(image=dict(bytes=picture.getvalue() if i//64 != 1 else None, path=None), kind='ab'[i%2]) for i in range(150)])
    done = run_inprocess('convert', 'table', path, tmp_path/'data', '--category', 'kind')
    assert done.returncode == 0 and '150 rows = 86 used + 64 left out' in done.stdout, done.stdout + done.stderr

def test_a_name_of_several_images_is_no_product(tmp_path):
    for o in ('a/1.png','b/1.png','2.png','b/2.png','c/3.png'):
        (tmp_path/'images'/o).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (4,4)).save(tmp_path/'images'/o)
    def convert(*ids):
        (tmp_path/'styles.csv').write_text('id,articleType,baseColour\n' + ''.join(f'{o},tee,red\n' for o in ids))
        return run_inprocess('convert', 'products', tmp_path, tmp_path/'data', '--attributes', 'baseColour')
    several = f"styles.csv, line 3: '1' is the name of several images, {tmp_path/'images'/'a'/'1.png'} and {tmp_path/'images'/'b'/'1.png'}"
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

# --- what people's tables look like

@pytest.fixture(scope='module')
def shelf(tmp_path_factory):
    "A folder with 40 images, img/1.png to img/40.png"
    folder = tmp_path_factory.mktemp('shelf')
    (folder/'img').mkdir()
    for i in range(1, 41): Image.new('RGB', (20,30), (6*i,0,0)).save(folder/'img'/f'{i}.png')
    return folder

def rows_of(data):
    "{number of the image: {category, attributes …}} of a data folder whose names were kept; None where unknown"
    with warnings.catch_warnings():
        warnings.simplefilter('ignore') # of rows without an attribute
        read_labels(data) # a training reads it
    frames = [pd.read_csv(data/f'{o}.csv', dtype=str) for o in ('train','val','test_labels') if (data/f'{o}.csv').is_file()]
    classes = (data/'classes.txt').read_text().split('\n') if (data/'classes.txt').is_file() else []
    found = {}
    for o in pd.concat(frames).to_dict('records'):
        row = {k: None if pd.isna(v) else int(v) for k,v in o.items() if k != 'file_path'}
        if row.get('category_label') is not None: row['category_label'] = classes[row['category_label']]
        found[int(Path(o['file_path']).stem)] = row
    return found

def converted(shelf, tmp_path, columns, *options, file='t.csv', kind='table', **kwargs):
    "The rows of a converted table with columns {name: cells}, and what was printed; or the refusal"
    n = len(next(iter(columns.values())))
    if 'image' not in columns: columns = dict(image=[f'img/{i}.png' for i in range(1, n+1)]) | columns
    path = shelf/file
    with path.open('w', newline='') as f: csv.writer(f, **kwargs).writerows([list(columns), *zip(*columns.values())])
    out = tmp_path/'out'
    if out.exists(): shutil.rmtree(out)
    done = run_inprocess('convert', kind, path, out, *options, '--keep-names')
    if done.returncode == 0: return rows_of(out),done.stdout
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    return None,done.stderr

FLAG_SPELLINGS = [('1','0',''), ('1.0','0.0',''), ('True','False','nan'), ('yes','no','NA'), ('YES','No','None'), ('Y','N',''), ('1','-1',''), ('1.0','-1.0','NaN'), (' 1 ','0 ','-'), ('1','0','-1'), ('true','0','null')]

@pytest.mark.parametrize('yes,no,unknown', FLAG_SPELLINGS)
def test_flags_are_flags_in_any_usual_spelling(shelf, tmp_path, yes, no, unknown):
    cells = [[no,yes,unknown][i%3] for i in range(40)] # the first cell is no 1
    found,_ = converted(shelf, tmp_path, dict(kind=['tee','skirt']*20, red=cells), '--category', 'kind', '--attributes', 'red')
    assert {k: o['red'] for k,o in found.items()} == {i+1: [0,1,None][i%3] for i in range(40)}

SETS = [['red'], ['long','red'], [], ['blue'], ['blue','long','wide'], ['wide'], ['wide','long'], ['long'], ['red','blue','wide'], ['red','wide']]
LISTS = {'bars': '|'.join, 'semicolons': '; '.join, 'commas': ','.join, 'spaces': ' '.join, 'json': json.dumps, 'python': repr, 'bare': lambda o: f"[{', '.join(o)}]",
         'numpy': lambda o: '[' + ' '.join(map(repr, o)) + ']', 'sets': lambda o: repr(set(o)) if o else '[]', 'tuples': lambda o: repr(tuple(o))}

@pytest.mark.parametrize('spelling', LISTS)
@pytest.mark.parametrize('numbers', [False, True])
def test_lists_are_lists_in_any_usual_spelling(shelf, tmp_path, spelling, numbers):
    names = ['red','blue','long','wide']
    sets = [[str(names.index(o)) for o in s] if numbers else s for s in SETS]*4
    found,_ = converted(shelf, tmp_path, dict(tags=list(map(LISTS[spelling], sets)), red=[str(i%2) for i in range(40)]), '--attributes', 'tags,red')
    for k,o in found.items():
        own = set(sets[k-1])
        if spelling in ('bars','semicolons','commas','spaces') and not own: assert all(v is None for c,v in o.items() if c != 'red') # an empty cell
        else: assert {c.removeprefix('tags ') for c in o if o[c] == 1 and c != 'red'} == own, (o, own)

def test_one_name_per_cell_stays_one_name(shelf, tmp_path):
    colours = ['Navy Blue','Off White','Sea Green','Red']*10
    found,_ = converted(shelf, tmp_path, dict(colour=colours), '--attributes', 'colour')
    assert {k: [c for c in o if o[c]] for k,o in found.items()} == {i+1: [colours[i]] for i in range(40)}
    found,_ = converted(shelf, tmp_path, dict(size=['38','40','42','44']*10), '--attributes', 'size')
    assert {k: [c for c in o if o[c]] for k,o in found.items()} == {i+1: [['38','40','42','44'][i%4]] for i in range(40)}

def test_what_cannot_be_decided_is_refused_with_what_was_seen(shelf, tmp_path):
    def refusal(cells, *options): return converted(shelf, tmp_path, dict(tags=cells), '--attributes', 'tags', *options)[1]
    assert "'Navy Blue' may be one name or several" in refusal(['Navy','Blue','Navy Blue','Navy']*10)
    assert "t.csv, line 4: attribute 'tags' is '2', neither 0 nor 1" in refusal(['0','1','2','1']*10)
    assert 'name a part of it' not in refusal(['a','b']*20)
    for cell in ('[1, 0, 1, 0]', '1 0 1 0', '[True, False, True, False]'):
        assert "line 2: 'tags' has lists of 4 flags, such as 1 0 1 0; write a column of 0 and 1 for each attribute" in refusal([cell, cell[::-1] if cell[0] != '[' else cell]*20)
    for cell in ("{'colour': 'red', 'size': 3}", '{"colour": "red"}', '[{"name": "red"}]'): assert "line 2: 'tags' has objects, such as " in refusal([cell, '']*20)
    pairs = [f'{a}{s}{b}' for s in '/&+' for a in 'abcd' for b in 'abcd' if a < b]
    for s in '/&+': assert "may be one name or several; say so with --separator" in refusal([o for o in pairs if s in o]*3 + ['a','b','c','d'])
    found,_ = converted(shelf, tmp_path, dict(tags=['T-shirt/top','Black & White','Trouser','Bag']*10), '--attributes', 'tags') # whose parts are no names
    assert len(found[1]) == 4
    found,_ = converted(shelf, tmp_path, dict(tags=['"red, dark","blue"', '"blue"']*20), '--attributes', 'tags')
    assert {k for k,v in found[1].items() if v} == {'red, dark','blue'}
    found,_ = converted(shelf, tmp_path, dict(tags=['Navy','Blue','Navy Blue','Navy']*10), '--attributes', 'tags', '--separator', ' ')
    assert {c for c in found[3] if found[3][c]} == {'Navy','Blue'}
    found,_ = converted(shelf, tmp_path, dict(tags=['Navy','Blue','Navy Blue','Navy']*10), '--attributes', 'tags', '--separator', 'none')
    assert {c for c in found[3] if found[3][c]} == {'Navy Blue'}

@pytest.mark.parametrize('missing', ['','nan','NaN','NA','None','null','-','#N/A','\\N'])
def test_missing_categories_are_unknown_and_numbers_are_one_class(shelf, tmp_path, missing):
    found,_ = converted(shelf, tmp_path, dict(kind=[['3','3.0','4',missing][i%4] for i in range(40)], red=['0','1']*20), '--category', 'kind', '--attributes', 'red')
    assert {k: o['category_label'] for k,o in found.items()} == {i+1: ['3','3','4',None][i%4] for i in range(40)}

def test_labels_are_chosen_among_the_rows_with_an_image(shelf, tmp_path):
    images = [f'img/{i}.png' for i in range(1, 41)] + [f'img/gone {i}.png' for i in range(60)]
    kinds = ['tee']*20 + ['skirt']*15 + ['cape']*5 + ['hat']*60
    found,said = converted(shelf, tmp_path, dict(image=images, kind=kinds, tags=['a']*20 + ['b']*20 + ['gone']*60), '--category', 'kind', '--categories', 2, '--attributes', 'tags:2')
    assert {o['category_label'] for o in found.values()} == {'tee','skirt'} and set(found[1]) == {'category_label','a','b'}
    assert '100 rows = 35 used + 65 left out: 60 without an image (the first: ' in said and 't.csv, line 42), 5 of other categories (the first: ' in said

def test_several_rows_of_one_image_are_joined_or_refused(shelf, tmp_path):
    columns = dict(image=[f'img/{i}.png' for i in range(1, 41) for _ in range(2)], kind=[['tee','skirt'][i//2%2] for i in range(80)], tags=[['red','long'][i%2] for i in range(80)])
    found,said = converted(shelf, tmp_path, columns, '--category', 'kind', '--attributes', 'tags')
    assert len(found) == 40 and all(o['red'] == o['long'] == 1 for o in found.values()) and '80 rows = 80 used, 40 of them joined' in said
    columns['kind'][1] = 'skirt'
    assert "line 3: the category of " in (refusal := converted(shelf, tmp_path, columns, '--category', 'kind')[1]) and "'skirt', but 'tee' in " in refusal and '--rows first' in refusal
    found,_ = converted(shelf, tmp_path, columns, '--category', 'kind', '--attributes', 'tags', '--rows', 'first')
    assert all((o['red'], o['long']) == (1,0) for o in found.values()) and found[1]['category_label'] == 'tee'
    boxes = dict(x1=[0]*80, y1=[0]*80, x2=[5 + 5*(i%2) for i in range(80)], y2=[9]*80)
    found,_ = converted(shelf, tmp_path, columns | boxes, '--category', 'kind', '--attributes', 'tags', '--rows', 'largest')
    assert all((o['red'], o['long']) == (0,1) for o in found.values()) and found[1]['category_label'] == 'skirt'
    assert Image.open(next((tmp_path/'out').rglob('1.png'))).size == (10,9)

def test_an_attribute_that_is_never_denied_is_pointed_at(shelf, tmp_path):
    _,said = converted(shelf, tmp_path, dict(kind=['tee','skirt']*20, red=['1','']*20, long=['1','0']*20), '--category', 'kind', '--attributes', 'red,long')
    assert 'an empty cell is unknown, and no other one says no: red; if it means that an attribute does not hold, write 0 in these' in said

def test_a_folder_in_a_category_is_a_split_everywhere_or_nowhere(tmp_path):
    def write(*names):
        for i,o in enumerate(names):
            (tmp_path/o).parent.mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (4,4), (i,0,0)).save(tmp_path/o)
    write(*(f'some/{c}/{s}/{i}.jpg' for c in ('tee','skirt') for s in ('train','test') for i in range(6)), 'some/coat/1.jpg')
    assert refused(run_inprocess('convert', 'folders', tmp_path/'some', tmp_path/'no'), 'is in a folder of a split, but coat/1.jpg is not; move it into one, too')
    write(*(f'shop/{c}/{s}/{i}.jpg' for c in ('men','women') for s in ('tee','skirt') for i in range(9)))
    done = run_inprocess('convert', 'folders', tmp_path/'shop', tmp_path/'data')
    assert done.returncode == 0 and 'the categories are men, women; the folders in them, skirt, tee, are not told apart' in done.stdout

def test_nested_lists_of_one_name_are_a_name_and_objects_are_not(shelf, tmp_path):
    rows = [dict(image=f'img/{i}.png', kind=[[['tee','skirt'][i%2]]], about=dict(kind='tee')) for i in range(1, 41)]
    (shelf/'nested.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    def convert(column): return run_inprocess('convert', 'table', shelf/'nested.jsonl', tmp_path/'nested', '--category', column, '--keep-names')
    assert refused(convert('about'), "line 1: 'about' has objects; name a part of them, such as about.kind")
    assert convert('kind').returncode == 0 and rows_of(tmp_path/'nested') == {i: dict(category_label=['tee','skirt'][i%2]) for i in range(1, 41)}

def test_other_layouts_of_json_and_what_is_no_table_are_named(shelf, tmp_path):
    frame = pd.DataFrame(dict(image=[f'img/{i}.png' for i in range(1, 41)], kind=['tee','skirt']*20))
    for orient in ('columns','index','split','table'):
        frame.to_json(shelf/'pandas.json', orient=orient)
        assert refused(run_inprocess('convert', 'table', shelf/'pandas.json', tmp_path/'no', '--category', 'kind'), "is one JSON object; JSON lines, a list of objects (pandas: orient='records')"), orient
    frame.to_json(shelf/'pandas.json', orient='values')
    assert refused(run_inprocess('convert', 'table', shelf/'pandas.json', tmp_path/'no', '--category', 'kind'), 'pandas.json, row 1: is not an object')
    import io,tarfile
    with tarfile.open(shelf/'images.tar.gz', 'w:gz') as archive: archive.addfile(tarfile.TarInfo('a.jpg'), io.BytesIO())
    assert refused(run_inprocess('convert', 'table', shelf/'images.tar.gz', tmp_path/'no', '--category', 'kind'), 'is a tar archive, not a table')
    (shelf/'old.xls').write_text('<table><tr><th>image</th></tr></table>')
    assert refused(run_inprocess('convert', 'table', shelf/'old.xls', tmp_path/'no', '--category', 'kind'), 'is an HTML page, not a table')
    (shelf/'title.csv').write_text('My shop\nimage,kind\nimg/1.png,tee\n')
    assert refused(run_inprocess('convert', 'table', shelf/'title.csv', tmp_path/'no', '--category', 'kind'), 'My shop; are there lines above the header?')

def test_paths_with_a_query_lead_to_the_file(shelf, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        found,_ = converted(shelf, tmp_path, dict(image=[f'img/{i}.png?v=1' for i in range(1, 41)], kind=['tee','skirt']*20), '--category', 'kind')
    assert len(found) == 40
    found,_ = converted(shelf, tmp_path, dict(image=[f'https://cdn.example.com/a%20b/{i}.png?w=5' for i in range(1, 41)], kind=['tee','skirt']*20), '--category', 'kind')
    assert len(found) == 40
    found,_ = converted(shelf, tmp_path, dict(image=[f'http://[shop/{i}.png#front' for i in range(1, 41)], kind=['tee','skirt']*20), '--category', 'kind')
    assert len(found) == 40 # whatever the server is called
    refusal = converted(shelf, tmp_path, dict(image=[f'img/{i}.png\u200b' for i in range(1, 41)], kind=['tee','skirt']*20), '--category', 'kind')[1]
    assert "there is no image 'img/1.png\\u200b'" in refusal # which would look the same

def test_ids_that_name_no_image_are_shown_beside_one_that_is_there(tmp_path):
    (tmp_path/'images').mkdir()
    for i in range(30): Image.new('RGB', (4,4), (8*i,0,0)).save(tmp_path/'images'/f'{i:06}.jpg')
    def convert(write, out='data'):
        (tmp_path/'styles.csv').write_text('id,articleType,baseColour\n' + ''.join(f'{write(i)},{"ab"[i%2]},red\n' for i in range(30)))
        return run_inprocess('convert', 'products', tmp_path, tmp_path/out, '--attributes', 'baseColour')
    for write in (str, float): assert refused(convert(write), f"line 2: there is no image 0; name the folder of the images with --images; in {tmp_path/'images'} there is 000000.jpg")
    for k,write in enumerate((lambda i: f'{i:06}.JPG', lambda i: f'images/{i:06}.jpg', lambda i: f'{i:06}', lambda i: f'C:\\shop\\{i:06}.jpg')): assert convert(write, f'data{k}').returncode == 0
    (tmp_path/'styles.csv').write_text(',id,articleType,baseColour,\n' + ''.join(f'{i},{i:06},{"ab"[i%2]},red,\n' for i in range(30))) # pandas' index, and a column without name and content
    done = run_inprocess('convert', 'products', tmp_path, tmp_path/'index', '--attributes', 'baseColour')
    assert done.returncode == 0 and '30 rows = 30 used + 0 left out' in done.stdout, done.stderr

def test_a_table_in_any_dialect_and_container(shelf, tmp_path):
    columns = dict(image=[f'img/{i}.png' for i in range(1, 41)], kind=['décolleté','skirt']*20)
    expected = {i+1: dict(category_label=columns['kind'][i]) for i in range(40)}
    rows = [dict(zip(columns, o)) for o in zip(*columns.values())]
    text = '\n'.join([','.join(columns), *(','.join(o.values()) for o in rows)]) + '\n'
    import gzip
    contents = {'utf8.csv': text.encode(), 'bom.csv': text.encode('utf-8-sig'), 'utf16.csv': text.encode('utf-16'), 'semicolons.csv': text.replace(',', ';').encode(), 'tabs.tsv': text.replace(',', '\t').encode(),
        'sep.csv': b'sep=;\r\n' + text.replace(',', ';').encode(), 'zipped.csv.gz': gzip.compress(text.encode()), 'no suffix': text.encode(),
        'lines.jsonl': '\n'.join(map(json.dumps, rows)).encode(), 'list.json': json.dumps(rows, indent=1).encode()}
    for name,raw in contents.items():
        (shelf/name).write_bytes(raw)
        done = run_inprocess('convert', 'table', shelf/name, tmp_path/name, '--category', 'kind', '--keep-names')
        assert done.returncode == 0 and done.stderr == '' and rows_of(tmp_path/name) == expected, (name, done.stderr)
    (shelf/'latin.csv').write_bytes(text.encode('cp1252'))
    convert = 'convert', 'table', shelf/'latin.csv', tmp_path/'latin', '--category', 'kind', '--keep-names'
    assert refused(run_inprocess(*convert), "latin.csv, line 2: the byte 0xe9 after 'img/1.png,d' is not UTF-8; name the table's encoding, such as --encoding cp1252")
    assert run_inprocess(*convert, '--encoding', 'cp1252').returncode == 0 and rows_of(tmp_path/'latin') == expected

def test_a_spreadsheet(shelf, tmp_path):
    openpyxl = pytest.importorskip('openpyxl')
    book = openpyxl.Workbook()
    for row in [['image','kind','red',None], *([f'img/{i}.png', ['tee',3][i%2], [True,0,None][i%3]] for i in range(1, 41))]: book.active.append(row)
    book.create_sheet('notes', 0).append(['a sheet without rows'])
    book.save(shelf/'catalogue.csv') # whatever its suffix says
    done = run_inprocess('convert', 'table', shelf/'catalogue.csv', tmp_path/'data', '--category', 'kind', '--attributes', 'red', '--keep-names')
    assert done.returncode == 0 and "the sheet 'Sheet' is read, one of 2" in done.stdout, done.stderr
    assert rows_of(tmp_path/'data') == {i: dict(category_label=['tee','3'][i%2], red=[1,0,None][i%3]) for i in range(1, 41)}

def test_image_folders_with_their_tables(shelf, tmp_path):
    "metadata of the library datasets, and the classes of Roboflow: the same name in another folder is another image"
    for kind,write in dict(lines=lambda rows: ('metadata.jsonl', '\n'.join(json.dumps(o) for o in rows)),
                           classes=lambda rows: ('_classes.csv', 'filename, red, blue\n' + ''.join(f"{o['file_name']}, {int(o['label'] == 'red')}, {int(o['label'] == 'blue')}\n" for o in rows))).items():
        for k,split in enumerate(('train','valid','test')):
            folder = tmp_path/kind/split
            folder.mkdir(parents=True)
            rows = [dict(file_name=f'{i}.png', label=['red','blue'][(i+k)%2]) for i in range(8)]
            for i in range(8): Image.new('RGB', (4,4), (20*i,100*k,0)).save(folder/f'{i}.png')
            name,text = write(rows)
            (folder/name).write_text(text)
        done = run_inprocess('convert', 'table', tmp_path/kind, tmp_path/f'{kind}-data', *(('--attributes', 'label') if kind == 'lines' else ()), '--copy')
        assert done.returncode == 0 and '24 rows = 24 used' in done.stdout and 'train 8, val 8, test 8' in done.stdout, done.stderr
        for k,split in enumerate(('train','val','test_labels')):
            for o in pd.read_csv(tmp_path/f'{kind}-data'/f'{split}.csv').itertuples():
                r,g,_ = Image.open(tmp_path/o.file_path).getpixel((0,0))
                assert g == 100*k and [o.red, o.blue] == [1 - (r//20+k)%2, (r//20+k)%2]

def test_annotations_in_the_layout_of_coco(shelf, tmp_path):
    content = dict(images=[dict(id=i, file_name=f'img/{i}.png') for i in range(1, 41)], categories=[dict(id=9, name='tee'), dict(id=4, name='skirt')], attributes=[dict(id=5, name='red'), dict(id=7, name='long')],
        annotations=[dict(image_id=i, category_id=[9,4][i%2], attribute_ids=[[5],[5,7],[]][i%3]) for i in range(1, 39)])
    (shelf/'coco.json').write_text(json.dumps(content))
    def convert(out='data', *options): return run_inprocess('convert', 'table', shelf/'coco.json', tmp_path/out, '--keep-names', *options)
    done = convert()
    assert done.returncode == 0 and '40 rows = 38 used + 2 left out: 2 without a label' in done.stdout, done.stderr
    assert rows_of(tmp_path/'data') == {i: dict(category_label=['tee','skirt'][i%2], long=int(i%3 == 1), red=int(i%3 < 2)) for i in range(1, 39)}
    for o in content['annotations']: o['bbox'] = [2,3,10,20]
    (shelf/'coco.json').write_text(json.dumps(content))
    assert convert('crops').returncode == 0 and Image.open(next((tmp_path/'crops').rglob('1.png'))).size == (10,20)
    content['annotations'][3]['category_id'] = 8
    (shelf/'coco.json').write_text(json.dumps(content))
    assert refused(convert('none'), 'coco.json, annotation 4: there is no 8 in its list of categories')

def test_attributes_of_an_annotation_may_be_flags_by_name_and_its_box_is_numbers(tmp_path, capsys):
    def read(**keys):
        content = dict(images=[dict(id=1, file_name='a.png')], annotations=[dict(image_id=1, **keys)])
        (tmp_path/'coco.json').write_text(json.dumps(content))
        return read_json(tmp_path/'coco.json').rows[0]
    flags = dict(red=1, blue=0, long=True, short=False, warm='Yes', cold='no', wide=1., new=None, old='')
    assert read(attributes=flags)['attributes'] == ['red','long','warm','wide']
    content = dict(images=[dict(id=1, file_name='a.png')], annotations=[dict(image_id=1, attributes=o) for o in
        (dict(red=1, colour='green', rotation=1.), dict(red=True, colour='b'*9999, rotation=45.))])
    (tmp_path/'coco.json').write_text(json.dumps(content))
    assert [o['attributes'] for o in read_json(tmp_path/'coco.json').rows] == [['red'],['red']] # the first rotation looks like a flag
    assert "2 attributes of annotations are not read, since their values are no flags: colour 'green', rotation 45.0" in capsys.readouterr().out
    assert read(bbox=[1, 2.5, 3, 4]) == dict(file_name='a.png', x1=1, y1=2.5, x2=4, y2=6.5)
    for box in (['1','2','3','4'], [1, 2, None, 4], [True, 2, 3, 4]):
        with pytest.raises(InputError, match='coco.json, annotation 1: its bbox is .*, but should be four numbers'): read(bbox=box)

def test_parts_of_structs(shelf, tmp_path):
    rows = [dict(image=f'img/{i}.png', about=dict(kind=['tee','skirt'][i%2]), objects=[dict(colour='red'), dict(colour=['blue','red'][i%2])]) for i in range(1, 41)]
    (shelf/'structs.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    write_parquet(shelf/'structs.parquet', rows)
    for name in ('structs.jsonl','structs.parquet'):
        def convert(*options): return run_inprocess('convert', 'table', shelf/name, tmp_path/name, '--keep-names', *options)
        assert refused(convert('--attributes', 'objects'), "'objects' has objects; name a part of them, such as objects.colour")
        done = convert('--category', 'about.kind', '--attributes', 'objects.colour')
        assert done.returncode == 0, done.stderr
        assert rows_of(tmp_path/name) == {i: dict(category_label=['tee','skirt'][i%2], blue=int(i%2 == 0), red=1) for i in range(1, 41)}

def test_only_some_rows(shelf, tmp_path):
    found,said = converted(shelf, tmp_path, dict(kind=['tee','skirt']*20, season=['summer','winter','all  year','']*10), '--category', 'kind', '--only', 'season=summer|all year')
    assert sorted(found) == [i+1 for i in range(40) if i%4 in (0,2)] and '40 rows = 20 used + 20 left out: 20 not selected (the first: ' in said
    assert "only 'season' should look like COLUMN=VALUE" in converted(shelf, tmp_path, dict(kind=['tee']*40), '--category', 'kind', '--only', 'season')[1]

def test_tables_of_other_things_are_called_by_their_names(shelf, tmp_path):
    def refusal(**columns): return converted(shelf, tmp_path, columns, '--category', 'label')[1]
    assert "line 2: 'http://shop.example/1.jpg' is a URL; download the images" in refusal(image=['http://shop.example/1.jpg']*3, label=['a','b','c'])
    (shelf/'pixels.csv').write_text(','.join(['label', *(f'pixel{i}' for i in range(1, 785))]) + '\n' + ','.join(['1']*785) + '\n')
    assert refused(run_inprocess('convert', 'table', shelf/'pixels.csv', tmp_path/'no', '--category', 'label'), 'its columns are pixels (label, pixel1, pixel2, pixel3, … (785 in all)), not images')
    (shelf/'wide.csv').write_text(','.join(['image', *(f'c{i}' for i in range(30))]) + '\n')
    assert refused(run_inprocess('convert', 'table', shelf/'wide.csv', tmp_path/'no', '--category', 'label'), 'c8, … (31 in all)')

"Tables as people really write them, and as nobody should: each is read rightly, or refused by one clear line"
import csv,gzip,io,os,re,shutil,unicodedata,warnings
from contextlib import contextmanager,redirect_stderr,redirect_stdout
import numpy as np, pandas as pd
import pytest
from PIL import Image
from hypothesis import HealthCheck,given,settings,strategies as st
from fashion_fastai.core import InputError
from fashion_fastai.predict.catalogue import Catalogue
from fashion_fastai.data.corrections import apply_corrections
from fashion_fastai.data.table import INVALID,read_rows,reject_rows
from fashion_fastai.data.parse import reject_sparse
from fashion_fastai.data.lists import read_test_list
from fashion_fastai.data.labels import read_groups,read_labels,read_tables,write_labels
from fashion_fastai.serve.review import Review
from fashion_fastai.cli.main import main
from fashion_fastai.convert.folders import read_folder_attributes
from fashion_fastai.train.folds import read_folds
from fashion_fastai.outputs.score import score_submission,submission_scores
from fashion_fastai.outputs.submission import read_image_list
from fashion_fastai.report.suspects import read_suspects

CLASSES = ['shirt','trousers','skirt']
ATTRIBUTES = ['red','long sleeve','wool']
ROWS = [['garments/train/0.jpg','0','1','0','0'], ['garments/train/a b.jpg','1','0','1','1'], ['garments/train/c,d.jpg','2','1','1','0'], ['garments/train/ünï.jpg','1','0','0','1'],
        ["garments/train/o'neil.jpg",'0','0','1','0'], ['garments/train/5.jpg','2','1','1','1']]
HEADER = ['file_path','category_label',*ATTRIBUTES]

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    "A folder with the photos of `ROWS`, empty files, since nobody opens them here"
    data = tmp_path_factory.mktemp('tables')/'garments'
    (data/'train').mkdir(parents=True)
    for file_path,*_ in ROWS: (data.parent/file_path).touch()
    (data/'classes.txt').write_text('\n'.join(CLASSES))
    return data

def as_csv(rows, separator=',', end='\n', quoting=csv.QUOTE_MINIMAL):
    "Rows of cells as the text of a CSV"
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator=end, quoting=quoting).writerows(rows)
    return out.getvalue()

def read(data, raw):
    "The table in the bytes `raw` as {path of the image: [category, attributes …]}, or why it is refused"
    (data/'train.csv').write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning) # of rows without an attribute
        try: table = read_labels(data)
        except InputError as e:
            assert str(e) and len(str(e).splitlines()) == 1 and 'garments' in str(e), str(e)
            return str(e)
    labels = {os.path.realpath(image): [int(k), *map(int, a)] for image,k,a in zip(table.images, table.categories, table.attributes)}
    assert len(labels) == len(table) and table.vocab.categories == tuple(CLASSES)
    return labels

TRUTH = {row[0]: [int(o) for o in row[1:]] for row in ROWS}
def truth(data): return {os.path.realpath(data.parent/k): v for k,v in TRUTH.items()}

# what changes nothing in the meaning of a table
HARMLESS = dict(
    as_it_is=lambda rows: rows, stray_spaces=lambda rows: [[f' {o}  ' if i else o for i,o in enumerate(row)] for row in rows],
    absolute=lambda rows, data=None: [rows[0]] + [[str(data.parent/row[0]), *row[1:]] for row in rows[1:]],
    up_and_down=lambda rows: [rows[0]] + [[f'garments/../garments/./{row[0].removeprefix("garments/")}', *row[1:]] for row in rows[1:]],
    from_the_folder=lambda rows: [rows[0]] + [[row[0].removeprefix('garments/'), *row[1:]] for row in rows[1:]],
    other_flags=lambda rows: [rows[0], *([row[0], f'{row[1]}.0', *([{'0': 'No', '1': 'yes'}, {'0': '0.0', '1': '1.0'}, {'0': 'FALSE', '1': 'True'}][i%3].get(o, o) for o in row[2:])] for i,row in enumerate(rows[1:]))],
    no_name_and_no_content=lambda rows: [[*row, '', ''] for row in rows],
    empty_lines=lambda rows: [rows[0], [], *rows[1:3], [' ']*len(rows[0]), *rows[3:], ['']*len(rows[0]), []])

@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(name=st.sampled_from(sorted(HARMLESS)), bom=st.booleans(), end=st.sampled_from(['\n','\r\n']), quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]), compact=st.booleans(), separator=st.sampled_from([',',',',';','\t']),
       zipped=st.sampled_from([False,False,True]))
def test_harmless_oddities_are_read_rightly(data, name, bom, end, quoting, compact, separator, zipped):
    rows = [HEADER, *ROWS]
    if compact: rows = [['file_path','category_label','attribute_label']] + [[*row[:2], ' '.join(str(k) for k,o in enumerate(row[2:]) if o == '1')] for row in ROWS]
    if compact and name == 'other_flags': name = 'as_it_is'
    rows = HARMLESS[name](rows, **({'data': data} if name == 'absolute' else {}))
    text = as_csv(rows, separator=separator, end=end, quoting=quoting)
    raw = text.encode('utf-16') if bom and separator == ';' else ('\ufeff' if bom else '').encode() + text.encode()
    if zipped: raw = gzip.compress(raw)
    found = read(data, raw)
    assert found == truth(data), found

@pytest.mark.parametrize('change,why', [
    (lambda rows: [['path',*HEADER[1:]], *rows[1:]], 'has no column file_path; it has path, category_label'),
    (lambda rows: [[HEADER[0],'category',*HEADER[2:]], *rows[1:]], "has no column category_label, but one named 'category'"),
    (lambda rows: [row[:1] for row in rows], 'has neither a column category_label nor attribute columns'),
    (lambda rows: [[*HEADER[:3],'red','wool'], *rows[1:]], "column 'red' occurs twice"),
    (lambda rows: [*rows, rows[1]], 'garments/train/0.jpg has occurred before'),
    (lambda rows: [*rows[:2], [rows[2][0],'1.5',*rows[2][2:]], *rows[3:]], "line 3: category_label is '1.5', not a whole number"),
    (lambda rows: [*rows[:2], [rows[2][0],'3',*rows[2][2:]], *rows[3:]], 'line 3: category_label is 3, but classes.txt names the labels 0 to 2'),
    (lambda rows: [*rows[:2], [rows[2][0],'-1',*rows[2][2:]], *rows[3:]], "line 3: category_label is '-1'"),
    (lambda rows: [*rows[:2], [*rows[2][:2],'maybe','0','1'], *rows[3:]], "line 3: attribute 'red' is 'maybe', neither 0 nor 1"),
    (lambda rows: [*rows[:2], [*rows[2][:2],'0.5','0','1'], *rows[3:]], "line 3: attribute 'red' is '0.5', neither 0 nor 1"),
    (lambda rows: [*rows[:2], rows[2][:4], *rows[3:]], "line 3: attribute 'wool' is 'missing', neither 0 nor 1"),
    (lambda rows: [*rows[:2], [rows[2][0],'','','',''], *rows[3:]], 'line 3: nothing is known, neither the category nor an attribute'),
    (lambda rows: [rows[0], *([*row[:3],'',row[4]] for row in rows[1:])], "column 'long sleeve' is empty in all rows"),
    (lambda rows: [rows[0], *([row[0],'',*row[2:]] for row in rows[1:])], "column 'category_label' is empty in all rows"),
    (lambda rows: [[*rows[0],''], *([*row,'1'] for row in rows[1:])], "line 2: column 6 has '1', but no name"),
    (lambda rows: [['',*rows[0]], *([str(i),*row] for i,row in enumerate(rows[1:]))], "line 2: column 1 has '0', but no name; if it is pandas' index, leave it out: to_csv(index=False)"),
    (lambda rows: [['Unnamed: 0',*rows[0]], *([str(i),*row] for i,row in enumerate(rows[1:]))], "column 'Unnamed: 0' is pandas' index; leave it out"),
    (lambda rows: [[*rows[0],'note'], *([*row,''] for row in rows[1:])], "column 'note' is empty in all rows"),
    (lambda rows: [*rows[:2], [*rows[2],'1'], *rows[3:]], 'is not a readable CSV file'),
    (lambda rows: [*rows[:2], ['garments/train/nowhere.jpg',*rows[2][1:]], *rows[3:]], 'images are missing, the first being garments/train/nowhere.jpg'),
    (lambda rows: [*rows[:2], ['',*rows[2][1:]], *rows[3:]], 'line 3: file_path is empty'),
    (lambda rows: rows[:1], 'has a header, but no rows'), (lambda rows: [], 'is empty')])
def test_what_is_wrong_is_named(data, change, why):
    found = read(data, as_csv(change([HEADER, *ROWS])).encode())
    assert isinstance(found, str) and why in found, found

def test_empty_cells_are_unknown_labels(data):
    rows = [HEADER, [ROWS[0][0],'','1','','0'], [ROWS[1][0],'1','','',''], *ROWS[2:]]
    found = read(data, as_csv(rows).encode())
    for row,expected in ((ROWS[0], [-1,1,-1,0]), (ROWS[1], [1,-1,-1,-1]), (ROWS[2], [2,1,1,0])): assert found[os.path.realpath(data.parent/row[0])] == expected

def test_tables_of_one_part_are_read(data):
    only_category = read(data, as_csv([row[:2] for row in [HEADER, *ROWS]]).encode())
    assert only_category == {k: v[:1] for k,v in truth(data).items()}
    (data/'train.csv').write_bytes(as_csv([[row[0], *row[2:]] for row in [HEADER, *ROWS]]).encode())
    table = read_labels(data)
    assert table.vocab.categories == () and (table.categories == -1).all()
    assert {os.path.realpath(image): a.tolist() for image,a in zip(table.images, table.attributes)} == {k: v[1:] for k,v in truth(data).items()}

BREAKS = ['\r\n','\r','\x0b','\x0c','\x1c','\x85','\u2028','\u2029'] # what `str.splitlines` takes for the end of a line, and `\n`

@pytest.mark.parametrize('line_break', ['\n',*BREAKS])
def test_a_line_break_in_a_name_is_a_space(tmp_path, line_break):
    "The classes after it keep their numbers; the name is the same in the header and in attributes.csv"
    classes = CLASSES if line_break in '\r\n' else [f'coat{line_break}(outdoor)', *CLASSES]
    (tmp_path/'classes.txt').write_bytes('\r\n'.join(classes).encode())
    (tmp_path/'train.csv').write_bytes(as_csv([['file_path','category_label',f'long{line_break}sleeve','red'], ['a.jpg','0','1','0'], ['b.jpg',str(len(classes)-1),'0','1']], quoting=csv.QUOTE_ALL).encode())
    (tmp_path/'attributes.csv').write_bytes(as_csv([['attribute','group'], [f'long {line_break}sleeve',f'a{line_break}group'], ['red','a group']], quoting=csv.QUOTE_ALL).encode())
    vocab = read_tables(tmp_path).vocab
    assert vocab.categories == tuple(o.replace(line_break, ' ') for o in classes) and vocab.attributes == ('long sleeve','red')
    assert [(o.name, o.members) for o in vocab.groups] == [('a group',(0,1))]

def test_a_control_character_in_a_name_is_refused(tmp_path):
    def refused(reason):
        with pytest.raises(InputError, match=reason): read_tables(tmp_path)
    (tmp_path/'train.csv').write_text('file_path,category_label,red\na.jpg,0,1\nb.jpg,1,0\n')
    (tmp_path/'classes.txt').write_text('shirt\ntrou\x1bsers\n')
    refused(r"classes.txt, line 2: 'trou\\x1bsers' contains a control character; remove it")
    (tmp_path/'classes.txt').unlink()
    (tmp_path/'train.csv').write_text('file_path,category_label,re\x07d\na.jpg,0,1\nb.jpg,1,0\n')
    refused(r"train.csv: 're\\x07d' contains a control character")

def test_written_names_are_read_again(tmp_path):
    "Whatever calls `write_labels`: names on one line each"
    frame = pd.DataFrame({'file_path': ['a.jpg','b.jpg'], 'category_label': [0,1], 'long\nsleeve': [1,0], 'wool': [0,1]})
    info = pd.DataFrame(dict(attribute=['long\nsleeve','wool'], group=['a\u2028group']*2))
    write_labels(tmp_path, dict(train=frame), ['coat\n(outdoor)','skirt'], attributes=info)
    vocab = read_tables(tmp_path).vocab
    assert (vocab.categories, vocab.attributes, vocab.groups[0].name) == (('coat (outdoor)','skirt'), ('long sleeve','wool'), 'a group')

def test_a_file_that_is_no_table_is_called_by_its_name(data):
    for raw,why in ((b'\xff\xd8\xff\xe0 pixels', 'is an image, not a CSV file'), (b'PK\x03\x04', 'is a zip archive'), (b'PAR1', 'is a Parquet file'), (b'{"file_path": "a.jpg"}', 'is a JSON file'),
                    (b'<!DOCTYPE html><html>', 'is an HTML page'), (b'%PDF-1.7', 'is a PDF document'), (b'\x00'*100, 'contains zero bytes'),
                    (as_csv([HEADER, *ROWS]).encode('utf-16-le'), 'if it is a table in UTF-16, name the encoding'), (b'\xff\xfe\x00', 'is not a text in utf-16')):
        assert why in read(data, raw), raw

def test_another_encoding_is_refused_with_line_byte_and_remedy(data):
    raw = as_csv([HEADER, *ROWS]).encode('cp1252')
    assert "train.csv, line 5: the byte 0xfc after 'garments/train/' is not UTF-8; name the table's encoding, such as --encoding cp1252, or save it as UTF-8" in read(data, raw)

@pytest.mark.parametrize('cell,following', [('"1','0'), ('"14 inch','0'), ('"','1"')])
def test_a_stray_quotation_mark_swallows_no_row(data, cell, following):
    lines = as_csv([HEADER, *ROWS]).splitlines()
    lines[2] = f'garments/train/a b.jpg,1,{cell},1,1'
    lines[5] = f'{ROWS[4][0]},0,"{following},1,0'
    found = read(data, ('\n'.join(lines)+'\n').encode())
    assert isinstance(found, str) and 'line 3' in found, found
    lines[5] = f'{ROWS[4][0]},0,{following},1,0"'
    found = read(data, ('\n'.join(lines)+'\n').encode())
    assert isinstance(found, str) and 'line 3' in found, found

@pytest.mark.parametrize('write', [lambda o: o.replace('/', '\\'), lambda o: o.replace(' ', '%20').replace('ü', '%C3%BC'), lambda o: o.replace('.jpg', '.JPG'),
    lambda o: unicodedata.normalize('NFD', o), lambda o: o.replace('garments/', 'old name/'), lambda o: f'/kaggle/input/{o}', lambda o: 'C:\\shop\\' + o.replace('/', '\\')])
def test_paths_of_other_systems_are_used_with_a_line(data, write):
    (data/'train.csv').write_bytes(as_csv([HEADER, *([write(row[0]), *row[1:]] for row in ROWS)]).encode())
    with pytest.warns(UserWarning, match='paths are used in another spelling, such as'): table = read_labels(data)
    labels = {os.path.realpath(image): [int(k), *map(int, a)] for image,k,a in zip(table.images, table.categories, table.attributes)}
    assert labels == truth(data)

def test_no_other_spelling_gives_two_rows_one_image(tmp_path):
    make_images(tmp_path/'shop', 'train/1.jpg', 'front/2.jpg', '3.jpg')
    for names in (['train/1.jpg','train/1.JPG'], ['front/2.jpg','back/3.jpg'], ['old/front/9.jpg','old/back/9.jpg']):
        with pytest.raises(InputError, match='images are missing'): read_labels(table_of(tmp_path/'shop', *names))

def make_images(folder, *names):
    for o in names:
        (folder/o).parent.mkdir(parents=True, exist_ok=True)
        (folder/o).touch()

def table_of(folder, *names, file='train.csv'):
    "A label table with two categories, and `names` as its images"
    folder.mkdir(parents=True, exist_ok=True)
    (folder/file).write_text('file_path,category_label\n' + ''.join(f'{o},{i%2}\n' for i,o in enumerate(names)))
    return folder

NAMES = [f'train/{i}.jpg' for i in range(20)]

@pytest.mark.parametrize('beside', [NAMES, NAMES[:5], NAMES[15:]])
def test_a_data_set_beside_it_lends_a_table_no_image(tmp_path, monkeypatch, beside):
    "The data folder comes before its parent and the working directory, for all rows"
    make_images(tmp_path/'shop', *NAMES)
    make_images(tmp_path, *beside)
    make_images(tmp_path/'work', *beside)
    monkeypatch.chdir(tmp_path/'work')
    data = table_of(tmp_path/'shop', *NAMES[:15])
    table_of(data, *NAMES[15:], file='val.csv')
    assert read_labels(data).images == [str(data/o) for o in NAMES]
    (data/'test.csv').write_text('\n'.join(['file_path',*NAMES]))
    assert read_image_list(data/'test.csv').paths == [str(data/o) for o in NAMES]
    catalogue = Catalogue(data/'test.csv')
    assert catalogue.part(range(12, 20)).paths == [str(data/o) for o in NAMES[12:]]

def test_a_part_of_a_table_keeps_the_images_of_the_whole(tmp_path):
    "Five of twenty images lie below the data folder, too: the parent is the root of all, and of these five"
    names = [f'shop/{o}' for o in NAMES]
    make_images(tmp_path, *names)
    make_images(tmp_path/'shop', *names[:5])
    table = read_labels(table_of(tmp_path/'shop', *names))
    assert table.images == [str(tmp_path/o) for o in names]
    dropped = [o for o,is_valid in zip(table.images[5:], table.is_valid[5:]) if not is_valid]
    assert table.without(dropped).images == [o for o in table.images if o not in dropped]
    (tmp_path/'shop'/'corrections.csv').write_text(f'file_path,target,given,suggested,decision\n{names[0]},category,category_0,category_1,change\n')
    corrected = apply_corrections(table, tmp_path/'shop'/'corrections.csv')
    assert corrected.images == table.images and corrected.categories[0] == 1
    (tmp_path/'shop'/'list.csv').write_text('\n'.join(['file_path',*names]))
    assert Catalogue(tmp_path/'shop'/'list.csv').part(range(5)).paths == table.images[:5]

def test_images_in_two_folders_are_refused_by_both_names(tmp_path):
    make_images(tmp_path/'shop', *NAMES[:15])
    make_images(tmp_path, *NAMES[12:])
    data = table_of(tmp_path/'shop', *NAMES)
    reason = f"its images are in two folders: 15 in {data}, such as train/0.jpg, and 5 only in {tmp_path}, such as train/15.jpg; a table has one root"
    with pytest.raises(InputError, match=re.escape(reason)): read_labels(data)
    with pytest.raises(InputError, match=re.escape(f'train.csv: {reason}')): read_test_list(data/'train.csv', strict=False)
    with pytest.raises(InputError, match=re.escape('such as train/15.jpg')): Catalogue(data/'train.csv').check(20)
    make_images(tmp_path, *NAMES[:12]) # now the parent has all: of another data set, since most are in the data folder
    with pytest.raises(InputError, match=re.escape(reason)): read_labels(data)

def test_a_later_part_of_a_long_list_takes_no_image_from_another_folder(tmp_path):
    "Some rows, spread over the list, tell its root; a row that is only elsewhere is refused when its part is read"
    names = [f'{i}.jpg' for i in range(1000)]
    make_images(tmp_path/'lists', *names)
    (tmp_path/'lists'/'list.csv').write_text('\n'.join(['file_path',*names]))
    (tmp_path/'lists'/'501.jpg').rename(tmp_path/'501.jpg')
    catalogue = Catalogue(tmp_path/'lists'/'list.csv')
    catalogue.check(1000)
    assert catalogue.part(range(300, 400)).paths == [str(tmp_path/'lists'/o) for o in names[300:400]]
    with pytest.raises(InputError, match='such as 501.jpg'): catalogue.part(range(500, 600))

def test_groups_name_images_from_any_folder(tmp_path):
    "Relative to the folder, to its parent, through a link, or absolute: a group stays on one side of the split"
    data = tmp_path/'shop'
    make_images(tmp_path, *(f'shop/{o}' for o in NAMES))
    (tmp_path/'link').symlink_to(data)
    table_of(data, *(f'shop/{o}' for o in NAMES))
    groups = np.arange(20)//2
    for prefix in ('shop/','',f'{data}/',f"{tmp_path/'link'}/"):
        (data/'groups.csv').write_text('file_path,group\n' + ''.join(f'{prefix}{o},g{k}\n' for o,k in zip(NAMES, groups)))
        is_valid = read_labels(data).is_valid
        assert is_valid.any() and (is_valid[::2] == is_valid[1::2]).all(), prefix
        assert read_groups([f'shop/{o}' for o in NAMES], data, 2).tolist() == [f'g{k}' for k in groups]

def test_rows_of_groups_that_name_no_image_are_refused(tmp_path):
    make_images(tmp_path/'shop', *NAMES)
    data = table_of(tmp_path/'shop', *NAMES[:18])
    (data/'test.csv').write_text(f'file_path\n{NAMES[18]}\n')
    def refused(lines, reason):
        (data/'groups.csv').write_text('\n'.join(['file_path,group',*lines]))
        with pytest.raises(InputError, match=re.escape(f'groups.csv, line {reason}')): read_labels(data)
    refused([f'{NAMES[0]},a', 'train/x.jpg,a', 'y.jpg,b'], "3: 'train/x.jpg' is none of the images in train.csv, val.csv or test.csv, such as train/0.jpg; correct it, or remove the row (and so in 1 more rows)")
    refused([f'{NAMES[18]},a', f'{NAMES[19]},a'], f"3: '{NAMES[19]}' is none of the images")
    refused([f'{NAMES[0]},a', f'{data/NAMES[0]},b'], f"3: file_path {data/NAMES[0]} has occurred before")

def test_groups_on_both_sides_of_val_csv_are_named(tmp_path):
    make_images(tmp_path/'shop', *NAMES)
    data = table_of(tmp_path/'shop', *NAMES[:15])
    table_of(data, *NAMES[15:], file='val.csv')
    (data/'groups.csv').write_text('file_path,group\n' + ''.join(f'{o},g{i//2}\n' for i,o in enumerate(NAMES)))
    with pytest.warns(UserWarning, match=r'groups.csv: is not used, since val.csv gives the split; 1 group lies in both train.csv and val.csv \(g7\); --regroup yes splits again'):
        assert read_labels(data).is_valid.tolist() == [False]*15 + [True]*5
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        is_valid = read_labels(data, regroup=True).is_valid
        assert (is_valid[::2] == is_valid[1::2]).all()
        table_of(data, *NAMES[:14])
        table_of(data, *NAMES[14:], file='val.csv')
        read_labels(data)

def test_corrections_name_images_from_any_folder(tmp_path):
    make_images(tmp_path, *(f'shop/{o}' for o in NAMES))
    data = table_of(tmp_path/'shop', *(f'shop/{o}' for o in NAMES))
    table,file = read_labels(data),tmp_path/'elsewhere'/'corrections.csv'
    file.parent.mkdir()
    def write(*names): file.write_text('file_path,target,given,suggested,decision\n' + ''.join(f'{o},category,category_0,category_1,change\n' for o in names))
    write(NAMES[0], NAMES[2], data/NAMES[4]) # relative to the data folder, and absolute
    assert apply_corrections(table, file).categories[:6].tolist() == [1,1,1,1,1,1]
    write(NAMES[0], f'shop/{NAMES[0]}')
    with pytest.raises(InputError, match='its images are in two folders|has occurred before'): apply_corrections(table, file)
    write('train/nowhere.jpg')
    with pytest.raises(InputError, match="line 2: 'train/nowhere.jpg' is not in the tables"): apply_corrections(table, file)

def test_a_comma_without_quotation_marks_is_refused_everywhere(tmp_path):
    "By training, prediction, prediction in parts, scoring and review alike; with quotation marks it is part of the name"
    suspects = 'file_path,target,given,suggested,score,image\n{},category,a,b,.1,x.jpg\n'
    make_images(tmp_path, 'shirts, blue.jpg', 'b.jpg')
    def read_list(file): return [read_image_list(file).file_paths, list(Catalogue(file).paths())]
    readers = {'train.csv': ('file_path,category_label\n{},0\nb.jpg,1\n', lambda o: read_tables(o.parent).frame.file_path.tolist()),
               'test.csv': ('file_path\n{}\nb.jpg\n', read_list), 'suspects.csv': (suspects, read_suspects)}
    for file,(text,read) in readers.items():
        (tmp_path/file).write_text(text.format('shirts, blue.jpg'))
        with pytest.raises(InputError, match=f'{file}: is not a readable CSV file .line 2 has .* a cell with a comma needs quotation marks'): read(tmp_path/file)
        if file == 'test.csv':
            with pytest.raises(InputError, match='a cell with a comma needs quotation marks'): Catalogue(tmp_path/file).identity()
        if file == 'suspects.csv': continue
        (tmp_path/file).write_text(text.format('"shirts, blue.jpg"'))
        names = ['shirts, blue.jpg','b.jpg']
        assert read(tmp_path/file) == ([names, names] if file == 'test.csv' else names)

@pytest.mark.parametrize('labels', [[0,1_000_000], [1010000+7*i for i in range(6)], [281,3], [0,5]])
def test_numbers_that_are_no_labels_are_refused_at_once(tmp_path, labels):
    "With the way out; with classes.txt they are what they are"
    rows = ''.join(f'{i}.jpg,{k}\n' for i,k in enumerate(labels))
    (tmp_path/'train.csv').write_text(f'file_path,category_label\n{rows}')
    reason = f'train.csv, line {labels.index(max(labels))+2}: category_label has {max(labels)}, but only {len(labels)} of the labels 0 to {max(labels):,} occur; name all of them in classes.txt'
    with pytest.raises(InputError, match=re.escape(reason)) as e: read_tables(tmp_path)
    assert 'fashion convert table' in str(e.value)
    if max(labels) > 1000: return
    (tmp_path/'classes.txt').write_text(''.join(f'class {k}\n' for k in range(max(labels)+1)))
    assert read_tables(tmp_path).frame.category_label.tolist() == labels

def test_numbers_that_are_no_attributes_are_refused_at_once(tmp_path):
    def write(*sets): (tmp_path/'train.csv').write_text('file_path,category_label,attribute_label\n' + ''.join(f'{i}.jpg,{i},{o}\n' for i,o in enumerate(sets)))
    submission = tmp_path/'attribute.csv'
    submission.write_text('file_path,attribute_label\n0.jpg,3\n1.jpg,3\n')
    for high in (1001, 999_999_999):
        write('3 7', f'3 {high}')
        with pytest.raises(InputError, match=f'line 3: attribute_label has {high}, but only 3 of the labels 0 to {high:,} occur; number them from 0'): read_tables(tmp_path)
        with pytest.raises(InputError, match=f'line 3: attribute_label has {high}'): score_submission(tmp_path/'train.csv', submission)
    write('0 14', '5')
    assert len(read_tables(tmp_path).vocab.attributes) == 15

def rows_of(raw):
    "The stripped cells of a table that are not empty, as Python's own reader finds them, by the separator that gives most columns"
    text = raw.decode('utf-8-sig')
    def read(separator): return [[o.strip() for o in row] for row in csv.reader(io.StringIO(text, newline=''), delimiter=separator, skipinitialspace=True)]
    def width(separator): return len(next(csv.reader([text.lstrip().splitlines()[0]], delimiter=separator, skipinitialspace=True)))
    return [row for row in read(max(',;\t', key=width)) if any(row)]

def says(raw):
    "What Python's own reader finds in a table, as {file_path: [category, attributes in the header's order]}; an empty cell is -1, one that is no label None"
    words = dict(true=1, yes=1, false=0, no=0)
    def number(o):
        if o in ('','nan','NaN','NA','None','-'): return -1
        whole = o.removesuffix('.0')
        return int(whole) if whole.isascii() and whole.isdecimal() else words.get(o.lower())
    header,*rows = rows_of(raw)
    header = [o.replace('\ufeff', '') for o in header] # which nobody sees
    named = [dict(zip(header, row)) for row in rows]
    attributes = [o for o in header if o and o not in ('file_path','category_label')]
    return {o['file_path']: [number(o.get('category_label', '')), *(number(o.get(a, 'missing')) for a in attributes)] for o in named}

CELLS = st.sampled_from(['', ' ', '0', '1', '2', '3', '-1', '1.0', '1e0', 'nan', 'NaN', 'None', 'True', '01', '+1', '１', '²', '"', "'", '1,', '0x1', '99999999999', 'garments/train/0.jpg', '../garments/train/5.jpg', 'ünï', '\x00', '\ufeff1', '1\n', '\r']) | st.text(max_size=4)

@st.composite
def tables(draw):
    "A table with some of its cells, columns, lines or bytes changed"
    rows = [list(row) for row in draw(st.sampled_from([[HEADER, *ROWS], [HEADER[:3], *(row[:3] for row in ROWS)]]))]
    for _ in range(draw(st.integers(0, 3))):
        i,what = draw(st.integers(0, len(rows)-1)),draw(st.sampled_from(['cell','drop','twice','swap','column','short','long']))
        if what == 'cell' and rows[i]: rows[i][draw(st.integers(0, len(rows[i])-1))] = draw(CELLS)
        if what == 'drop' and len(rows) > 1: rows.pop(i)
        if what == 'twice': rows.insert(i, list(rows[i]))
        if what == 'swap': rows[i],rows[-1] = rows[-1],rows[i]
        if what == 'column': rows = [row[:2][::-1] + row[2:] for row in rows]
        if what == 'short': rows[i] = rows[i][:-1]
        if what == 'long': rows[i] = [*rows[i], draw(CELLS)]
    raw = as_csv(rows, draw(st.sampled_from([',',',',',',';','\t'])), draw(st.sampled_from(['\n','\n','\r\n','\r'])), draw(st.sampled_from([csv.QUOTE_MINIMAL,csv.QUOTE_ALL]))).encode('utf-8', 'surrogatepass')
    for _ in range(draw(st.integers(0, 2))): # and then somebody's editor
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(st.sampled_from([b'', b'"', b',', b'\n', b'\r', b'\x00', b'\xff', b' ', b'1', b'\xef\xbb\xbf'])) + raw[at + draw(st.integers(0, 2)):]
    return raw

def check_table(data, raw):
    "Read rightly or refused: never a traceback, never a label that the file does not say"
    found = read(data, raw)
    if isinstance(found, str): return
    said = {}
    for file_path,labels in says(raw).items():
        for root in (data.parent, data):
            if os.path.isfile(root/file_path): said.setdefault(os.path.realpath(root/file_path), labels)
    for image,labels in found.items(): assert labels == said[image], (image, labels, said.get(image))

fuzz = dict(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

@settings(max_examples=150, derandomize=True, **fuzz)
@given(raw=tables())
def test_no_broken_table_gives_a_wrong_label(data, raw): check_table(data, raw)

@pytest.mark.soak
@settings(max_examples=10_000, **fuzz)
@given(raw=tables())
def test_ten_thousand_broken_tables(data, raw): check_table(data, raw)

HOSTILE = ['', ' ', '.', '..', '../../../escaped.jpg', '/tmp/escaped.jpg', 'a/../../../../escaped.jpg', 'C:\\escaped.jpg', 'img/0.png', './img/0.png', '0.png', '../in/img/1.png', 'memory://x.jpg',
           'a'*140_000, 'a/'*3000, '9'*5000, '99999999999', '999999999', '10000', '5', '3', '-1', '1.0', '1e999', 'inf', 'nan', 'None', 'true', '１', '²', '+1', '1_0',
           '\x00', 'a\x00.jpg', 'a\nb', 'a\rb', '\x85', '\u2028', '\x1b[2J', '\x7f', '=1+1', '"', '""', "'", ',', ',,,', ';', '\t', '|', '|||', 'red|red', 'a'*9+'|'+'b'*9,
           '[]', '{}', 'file_path', 'category_label', 'attribute_label', 'is_valid', 'group', 'attribute', 'train', 'validation', '\u202e', '<script>', '\ufeff', 'ünï', '\ud800']

def hostile_folder(root):
    "Every kind of table in `root`/in, valid, with twelve small images; returns {file: rows}"
    rng,data = np.random.default_rng(0),root/'in'
    names = [f'{i}.png' for i in range(12)]
    for folder in ('img','images','folders/tee','folders/skirt','deep/img/p'):
        (data/folder).mkdir(parents=True, exist_ok=True)
        for i,o in enumerate(names): Image.fromarray(rng.integers(0, 256, (8,6,3), dtype=np.uint8)).save(data/folder/(o if folder != 'folders/skirt' else f's{o}'))
    def rows(*columns): return [[f'img/{o}', *(f(i) for f in columns)] for i,o in enumerate(names)]
    category,flag,tags = lambda i: str(i%3),lambda i: str(i%2),lambda i: ['dark|long','','long','dark|dark'][i%4]
    labels = [['file_path','category_label','red','long'], *rows(category, flag, lambda i: '' if i == 1 else str(1-i%2))]
    attributes = [['file_path','red','long'], *([f'{"" if i%2 else "s"}{o}', flag(i), ''] for i,o in enumerate(names))]
    deep_names = [f'img/p/{o}' for o in names]
    def listed(head, *columns): return [*head, *([o, *(f(i) for f in columns)] for i,o in enumerate(deep_names))]
    lists = {'category_cloth': [['3'], ['category_name','type'], ['tee','1'], ['skirt','2'], ['coat','3']], 'attr_cloth': [['2'], ['attribute_name','type'], ['red  line','1'], ['long','2']],
             'category_img': listed([['12'], ['image_name','label']], lambda i: str(i%3+1)), 'attr_img': listed([['12'], ['image_name','labels']], lambda i: '1', lambda i: str(i%3-1)),
             'bbox': listed([['12'], ['image_name','box']], *[lambda i, o=o: o for o in ('0','0','5','7')])}
    return {'train.csv': labels[:10], 'val.csv': [labels[0], *labels[10:]], 'test.csv': [['file_path'], *([o[0]] for o in labels[3:])], 'classes.txt': [['tee'],['skirt'],['coat']],
            'attributes.csv': [['attribute','group','exactly_one','type'], ['red','look','0','colour'], ['long','look','0','shape']], 'groups.csv': [['file_path','group'], *rows(lambda i: f'g{i//2}')],
            'corrections.csv': [['file_path','target','given','suggested','decision'], ['img/0.png','category','tee','skirt','change'], ['img/1.png','category','skirt','tee','drop']],
            'suspects.csv': [['file_path','target','given','suggested','score','image'], ['img/0.png','category','tee','skirt','.1',str(data/'img'/'0.png')]], 'folds.csv': [['file_path','fold'], *rows(lambda i: str(i%2+1))],
            'category.csv': [['file_path','category_label'], *rows(category)], 'attribute.csv': [['file_path','attribute_label'], *rows(lambda i: ['0 1','','1'][i%3])],
            'compact.csv': [['file_path','category_label','attribute_label'], *rows(category, lambda i: ['0 1','','1'][i%3])],
            'table.csv': [['image','kind','red','tags','split','x1','y1','x2','y2'], *rows(lambda i: ['tee','skirt',''][i%3], flag, tags, lambda i: ['train','train','val','test'][i%4], *[lambda i, o=o: o for o in ('0','0','5','7')])],
            'styles.csv': [['id','articleType','baseColour','productDisplayName'], *([str(i), ['Tee','Skirt'][i%2], tags(i) or 'Blue', f'Product {i}'] for i in range(12))],
            'extra.csv': attributes, **{f'deep/Anno_coarse/list_{o}.txt': lists[o] for o in lists}, 'deep/Eval/list_eval_partition.txt': listed([['12'], ['image_name','split']], lambda i: ['train','train','val','test'][i%4])}

def training(data):
    table = read_labels(data)
    apply_corrections(table, data/'corrections.csv')
    read_labels(data, regroup=True)

def scoring(data):
    for labels in ('train.csv','compact.csv'):
        for o in ('category.csv','attribute.csv'): submission_scores(data/labels, data/o)

def listing(data):
    read_image_list(data/'test.csv')
    catalogue = Catalogue(data/'test.csv')
    n,_ = catalogue.identity()
    catalogue.check(n)
    catalogue.part(range(n))

def reviewing(data): Review(data/'suspects.csv', data/'corrections.csv').page(0)

def converting(kind, src, *options):
    def convert(data):
        with redirect_stdout(io.StringIO()): code = convert_command(['convert', kind, str(data/src), str(data.parent/'out'/'data'), *options])
        assert code in (0, 2)
    return convert

def convert_command(words):
    with redirect_stderr(io.StringIO()) as err: code = main(words)
    assert code == 0 or len(err.getvalue().splitlines()) == 1, err.getvalue()
    return code

LABEL_FILES,LISTS = ('train.csv','val.csv','test.csv','classes.txt','attributes.csv','groups.csv','corrections.csv'),tuple(f'deep/Anno_coarse/list_{o}.txt' for o in ('category_cloth','category_img','attr_cloth','attr_img','bbox'))
READERS = dict(training=(training, LABEL_FILES), listing=(listing, ('test.csv',)), scoring=(scoring, ('train.csv','compact.csv','category.csv','attribute.csv')), folds=(lambda data: read_folds(data/'folds.csv'), ('folds.csv',)),
               reviewing=(reviewing, ('suspects.csv','corrections.csv')), table=(converting('table', 'table.csv', '--category', 'kind', '--attributes', 'red,tags:2', '--split', 'split', '--keep-names'), ('table.csv',)),
               products=(converting('products', 'styles.csv', '--attributes', 'baseColour', '--keep-names'), ('styles.csv',)), folders=(lambda data: read_folder_attributes(data/'extra.csv', [f'tee/{i}.png' for i in range(12)] + [f'skirt/s{i}.png' for i in range(12)]), ('extra.csv',)),
               deepfashion=(converting('deepfashion', 'deep', '--keep-names', '--crop', '.1', '--split', 'authors', '--categories', 'all', '--attributes', 'all'), (*LISTS, 'deep/Eval/list_eval_partition.txt')))

@st.composite
def hostile_files(draw):
    "(reader, {file: bytes}): one to three of its files are hostile"
    reader = draw(st.sampled_from(sorted(READERS)))
    files = {}
    for file in draw(st.lists(st.sampled_from(READERS[reader][1]), min_size=1, max_size=3, unique=True)):
        rows = [list(o) for o in VALID[file]]
        for _ in range(draw(st.integers(1, 3))):
            i,what = draw(st.integers(0, len(rows)-1)),draw(st.sampled_from(['cell','cell','cell','column','header','drop','twice','short','long','many','wide']))
            value = draw(st.sampled_from(HOSTILE) | st.text(max_size=5))
            if what == 'header': i = 0
            if what in ('cell','header') and rows[i]: rows[i][draw(st.integers(0, len(rows[i])-1))] = value
            if what == 'column':
                k = draw(st.integers(0, len(rows[0])-1)) if rows[0] else 0
                rows = [rows[0], *([*o[:k], value, *o[k+1:]] for o in rows[1:])]
            if what == 'drop' and len(rows) > 1: rows.pop(i)
            if what == 'twice': rows.insert(i, list(rows[i]))
            if what == 'short': rows[i] = rows[i][:-1]
            if what == 'long': rows[i] = [*rows[i], value]
            if what == 'many': rows += [[f'{value[:20]}{j}', *rows[-1][1:]] for j in range(3000)]
            if what == 'wide': rows = [[*o, *(f'{value[:20]}{j}' if n == 0 else '1' for j in range(3000))] for n,o in enumerate(rows[:12])]
        separator = ',' if file.endswith('.csv') else '   '
        quoted = file.endswith('.csv') and draw(st.booleans())
        raw = (as_csv(rows, draw(st.sampled_from([',',',',',',';'])), quoting=csv.QUOTE_ALL) if quoted else '\n'.join(map(separator.join, rows))).encode('utf-8', 'surrogatepass')
        for _ in range(draw(st.integers(0, 1))):
            at = draw(st.integers(0, len(raw)))
            raw = raw[:at] + draw(st.sampled_from([b'', b'"', b',', b'\n', b'\r', b'\x00', b'\xff', b'\xef\xbb\xbf', b'PAR1'])) + raw[at + draw(st.integers(0, 3)):]
        files[file] = draw(st.sampled_from([raw]*8 + [b'', b'\x00'*100, raw.decode('utf-8', 'replace').encode('utf-16'), b'PAR1' + raw, raw[:len(raw)//2]]))
    return reader,files

VALID = {} # filled by the fixture: {file: rows}

@pytest.fixture(scope='module')
def hostile(tmp_path_factory):
    "A folder whose tables become hostile one after the other"
    root = tmp_path_factory.mktemp('hostile')/'a'/'b'
    VALID.update(hostile_folder(root))
    for file in VALID: write_table(root/'in'/file, VALID[file])
    for name,(reader,_) in READERS.items(): # all of them read the valid files
        reader(root/'in')
        assert (root/'out'/'data'/'train.csv').is_file() == (name in ('table','products','deepfashion'))
        shutil.rmtree(root/'out', ignore_errors=True)
    return root

def write_table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((as_csv(rows) if path.suffix == '.csv' else '\n'.join(map('   '.join, rows))+'\n').encode())

@contextmanager
def limited_memory(n_bytes):
    "Inside the block, this process cannot have `n_bytes` more of memory than now"
    resource = pytest.importorskip('resource')
    before,hard = resource.getrlimit(resource.RLIMIT_DATA)
    used = next(int(o.split()[1])*1024 for o in open('/proc/self/status') if o.startswith('VmData'))
    resource.setrlimit(resource.RLIMIT_DATA, (used + n_bytes, hard))
    try: yield
    finally: resource.setrlimit(resource.RLIMIT_DATA, (before, hard))

def check_hostile(root, reader, files):
    "Read, or refused in one line: never a traceback, never a file outside of the output folder, never gigabytes"
    def everything(): return sorted((str(o), o.lstat().st_size) for o in root.parent.parent.rglob('*') if root/'out' not in (o, *o.parents))
    for file,raw in files.items(): (root/'in'/file).write_bytes(raw)
    before = everything()
    try:
        with limited_memory(10**9),warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try: READERS[reader][0](root/'in')
            except InputError as e: assert str(e) and len(str(e).splitlines()) == 1
        assert everything() == before and not os.path.exists('/tmp/escaped.jpg')
        assert all(o.resolve().is_relative_to(root) for o in (root/'out').rglob('*') if o.is_file())
    finally:
        shutil.rmtree(root/'out', ignore_errors=True)
        for file in files: write_table(root/'in'/file, VALID[file])

@settings(max_examples=60, derandomize=True, **fuzz)
@given(found=hostile_files())
def test_no_hostile_table_ends_in_a_traceback(hostile, found): check_hostile(hostile, *found)

@pytest.mark.soak
@settings(max_examples=2000, **fuzz)
@given(found=hostile_files())
def test_two_thousand_hostile_tables(hostile, found): check_hostile(hostile, *found)

@settings(max_examples=60, derandomize=True, **fuzz)
@given(raw=tables())
def test_no_broken_test_list_loses_a_row(data, raw):
    (data/'test.csv').write_bytes(raw)
    try: frame = read_test_list(data/'test.csv')
    except InputError as e:
        assert str(e) and len(str(e).splitlines()) == 1
        return
    header,*rows = rows_of(raw)
    header = [o.replace('\ufeff', '') for o in header] # which nobody sees
    assert frame.file_path.tolist() == [dict(zip(header, row)).get('file_path', '') for row in rows]

@pytest.mark.soak
def test_two_million_rows(tmp_path):
    "Each image is named once; linked folders make other names for it"
    data,n = tmp_path/'large',2_000_000
    (data/'0').mkdir(parents=True)
    for i in range(2000): (data/'0'/f'{i}.jpg').touch()
    for i in range(1, 1000): (data/str(i)).symlink_to('0')
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(dict(file_path=[f'{i//2000}/{i%2000}.jpg' for i in range(n)], category_label=rng.integers(0, 10, n)))
    for k in range(15): frame[f'attribute {k}'] = (rng.random(n) < .3).astype(int) if k else 1
    frame.to_csv(data/'train.csv', index=False)
    table = read_labels(data)
    assert len(table) == n and (table.categories == frame.category_label).all() and (table.attributes == frame.iloc[:, 2:]).all(axis=None)

def test_a_column_is_valid_splits_as_in_fastai(data, tmp_path):
    "In train.csv without val.csv, in any spelling of flags; it is no attribute"
    shutil.copytree(data, tmp_path/'garments')
    data,frame = tmp_path/'garments',pd.DataFrame(ROWS, columns=HEADER)
    flags = np.arange(len(frame)) % 4 == 0
    for spelling in (flags, flags.astype(int), np.where(flags, 'yes', 'no')):
        frame.assign(is_valid=spelling).to_csv(data/'train.csv', index=False)
        table = read_labels(data)
        assert table.is_valid.tolist() == flags.tolist() and 'is_valid' not in table.vocab.attributes
    frame.assign(is_valid='maybe').to_csv(data/'train.csv', index=False)
    with pytest.raises(InputError, match="train.csv, line 2: is_valid is 'maybe', but should be 0 or 1"): read_labels(data)
    frame.assign(is_valid=flags).to_csv(data/'train.csv', index=False)
    frame.to_csv(data/'val.csv', index=False)
    with pytest.raises(InputError, match='has a column is_valid, and there is a val.csv; keep one of them'): read_labels(data)

@pytest.mark.parametrize('cells', [['1','0',''], [' ','1','0'], ['y','0','1'], ['0','Y','N'], ['1','','yes'], ['0.0','1','-'], ['TRUE','false','NA']])
def test_a_cell_counts_as_what_it_says_whatever_stands_beside_it(cells, tmp_path):
    "Rows of single characters are read by another way than the others"
    flags = {'': -1, '-': -1, 'na': -1, '1': 1, 'y': 1, 'yes': 1, 'true': 1} # others: 0
    rows = [cells, ['1','0','1'], cells[::-1], ['','',''], cells]
    path = tmp_path/'flags.csv'
    path.write_text(as_csv([['file_path','a','b','c'], *(['x.jpg', *o] for o in rows)]))
    read = read_rows(path, ['file_path'])
    assert read.flags.tolist() == [[flags.get(o.strip().lower(), 0) for o in row] for row in rows] and read.invalid is None
    for wrong in ('2','x','10'):
        path.write_text(as_csv([['file_path','a','b','c'], ['x.jpg','1','0','1'], ['y.jpg','1',wrong,''], ['z.jpg','x','0','1']]))
        read = read_rows(path, ['file_path'])
        assert read.invalid == (1, 'b', wrong) and read.flags[:2].tolist() == [[1,0,1], [1,INVALID,-1]]

@pytest.mark.parametrize('labels, is_sparse', [([0,1,2], False), ([0,3], False), ([0,4], True), ([1], False), ([2], True), ([0,1,5], False), ([0,1,6], True), ([], False)])
def test_labels_are_sparse_if_less_than_half_of_them_occur(labels, is_sparse):
    def check(): reject_sparse([('a.csv', [2,3,4]), ('b.csv', [2,3])], np.array(labels, int), len(labels), 'category_label', 'do something')
    if not is_sparse: return check()
    expected = f'a.csv, line {2 + np.argmax(labels)}: category_label has {max(labels)}, but only {len(labels)} of the labels 0 to {max(labels)} occur; do something'
    with pytest.raises(InputError, match=expected): check()

def test_the_first_bad_row_is_named_with_its_file_and_line():
    places,bad = [('a.csv', [2,4]), ('b.csv', [3,5,6])],np.zeros(5, bool)
    reject_rows(places, bad, None)
    for row,expected in enumerate(['a.csv, line 2: 0', 'a.csv, line 4: 1', 'b.csv, line 3: 2', 'b.csv, line 5: 3', 'b.csv, line 6: 4']):
        with pytest.raises(InputError) as e: reject_rows(places, np.arange(5) >= row, str)
        assert str(e.value) == expected + (f' (and so in {4-row} more rows)' if row < 4 else '')

def test_a_bar_separates_cells_only_in_a_header_with_bars(tmp_path):
    path = tmp_path/'list.csv'
    path.write_text('file_path\na|b.jpg\nc.jpg\n')
    assert read_rows(path, ['file_path']).texts['file_path'].tolist() == ['a|b.jpg','c.jpg']
    path.write_text('file_path|red\na.jpg|1\n')
    assert read_rows(path, ['file_path']).texts['file_path'].tolist() == ['a.jpg']

"Tables and folders whose labels would be read wrong without a word, in spellings that strangers use"
import json
from pathlib import Path
import numpy as np,pandas as pd
import pytest
from PIL import Image
from conftest import refused,run_inprocess
from fashion_fastai.convert import cells
from fashion_fastai.convert.cells import find_separator
from fashion_fastai.core import InputError
from fashion_fastai.data.labels import read_labels
from fashion_fastai.data.split import split_of
from fashion_fastai.data.table import cell_text
from test_sources import SETS,converted,rows_of,shelf # noqa: F401, a fixture

@pytest.mark.parametrize('yes,no', [('x',''), ('X',''), ('✓','✗'), ('on','off'), ('T','F'), ('t','f')])
def test_marks_of_forms_are_flags(shelf, tmp_path, yes, no):
    found,_ = converted(shelf, tmp_path, dict(kind=['tee','skirt']*20, red=[yes,no]*20), '--category', 'kind', '--attributes', 'red')
    assert {k: o['red'] for k,o in found.items()} == {i+1: [1,0 if no else None][i%2] for i in range(40)}

@pytest.mark.parametrize('one,other', [('1','2'), ('0','255'), ('true','unknown'), ('no','striped')])
def test_a_flag_beside_one_other_value_is_refused(shelf, tmp_path, one, other):
    refusal = converted(shelf, tmp_path, dict(red=[one,other]*20), '--attributes', 'red')[1]
    assert f"line 3: attribute 'red' is '{other}', neither 0 nor 1; 'red:99' would take" in refusal
    found,_ = converted(shelf, tmp_path, dict(red=[one,other]*20), '--attributes', 'red:99')
    assert set(found[1]) == {one,other}

SPELLINGS = {'line breaks': '\n'.join, 'tabs': '\t'.join, 'full width': '，'.join, 'ideographic': '、'.join, 'quoted': lambda o: ', '.join(map(repr, o)),
             'curly': lambda o: '[' + ', '.join(f'“{p}”' for p in o) + ']', 'numpy': lambda o: f'array({o}, dtype=object)', 'frozen': lambda o: f'frozenset({set(o)})',
             'scalars': lambda o: '[' + ', '.join(f"np.str_('{p}')" for p in o) + ']'}

@pytest.mark.parametrize('spelling', SPELLINGS)
def test_lists_in_rarer_spellings(shelf, tmp_path, spelling):
    sets = [o for o in SETS if o]*4
    found,_ = converted(shelf, tmp_path, dict(tags=list(map(SPELLINGS[spelling], sets))), '--attributes', 'tags')
    assert {k: {name for name,v in o.items() if v} for k,o in found.items()} == {i+1: set(o) for i,o in enumerate(sets)}

@pytest.mark.parametrize('separator', [' - ','-','_',':',' > ','·',' and ','. '])
def test_other_marks_between_repeated_names_are_asked_about(separator):
    cells = [separator.join(o) for o in SETS if o] + ['long' + separator + 'blue' + separator + 'red']
    with pytest.raises(ValueError) as e: find_separator(cells)
    assert e.value.args[1].strip() == separator.strip()

def test_names_with_marks_stay_names():
    for names in (['T-shirt','V-neck','A-line','Crew'], ['35','35.5','36','36.5','37','37.5'], ['coat\n(outdoor)','tee','skirt'],
                  ['light-blue','dark-blue','light-red','dark-red'], ['Navy Blue','Off White','Sea Green','Red']): assert find_separator(names) is None, names

def test_what_cannot_be_seen_makes_no_other_label(shelf, tmp_path):
    kinds = ['décolleté','de\u0301collete\u0301','tee\u200b','\ufefftee']*10
    found,_ = converted(shelf, tmp_path, dict(kind=kinds, tags=kinds), '--category', 'kind', '--attributes', 'tags')
    assert {k: o['category_label'] for k,o in found.items()} == {i+1: ['décolleté','décolleté','tee','tee'][i%4] for i in range(40)}
    assert set(found[1]) == {'category_label','décolleté','tee'}
    assert "names 'Red' and 'red' differ only in case" in converted(shelf, tmp_path, dict(tags=['Red','red']*20), '--attributes', 'tags')[1]

def test_a_category_is_one_name(shelf, tmp_path):
    def convert(kinds): return converted(shelf, tmp_path, dict(kind=kinds*(40//len(kinds))), '--category', 'kind')
    assert {o['category_label'] for o in convert(["['tee']",'["skirt"]'])[0].values()} == {'tee','skirt'}
    assert "line 2: kind has several values, tee, skirt; one is expected" in convert(["['tee', 'skirt']","['skirt']"])[1]
    for several in ('tee|skirt','tee, skirt'): assert f"the category '{several}' looks like several, tee, skirt" in convert([several,'tee','skirt','coat'])[1]
    assert {o['category_label'] for o in convert(['Shirts, Blouses','Skirts'])[0].values()} == {'Shirts, Blouses','Skirts'}
    found,said = convert(['-1','0','1','2'])
    assert len(found) == 30 and 'the category -1 is taken for unknown' in said
    assert "all images are of one category, 'tee'" in convert(['tee'])[1]
    assert "column 'kind' is empty in all 40 rows" in convert([''])[1]

def test_a_csv_reader_that_takes_no_line_breaks_is_done_without(monkeypatch):
    "as that of Python 3.13"
    def reader(*args, **kwargs): raise ValueError('bad delimiter value')
    monkeypatch.setattr(cells.csv, 'reader', reader)
    assert cells.split_names('6" heel\nred', '\n') == ['6" heel','red']

@pytest.mark.parametrize('missing', ['?','--','n.a.','#REF!','#DIV/0!','NaT'])
def test_errors_of_a_spreadsheet_and_question_marks_are_no_names(missing): assert cell_text(missing) == ''

def test_columns_that_are_not_used_are_pointed_at(shelf, tmp_path):
    columns = dict(kind=['tee','skirt']*20, split=['train','val']*20, is_valid=['True','False']*20, xmin=['1']*40, ymin=['1']*40, xmax=['9']*40, ymax=['9']*40, red=['']*40)
    _,said = converted(shelf, tmp_path, columns, '--category', 'kind')
    assert "the column 'split' is not used; --split split keeps a split" in said and 'xmin,ymin,xmax,ymax are not used' in said
    _,said = converted(shelf, tmp_path, columns, '--category', 'kind', '--split', 'is_valid')
    assert 'train 20, val 20' in said and 'keeps a split' not in said and pd.read_csv(tmp_path/'out'/'val.csv').file_path.str.contains('/1.png').any()
    assert "attribute 'red' is empty in all 40 rows" in converted(shelf, tmp_path, columns, '--attributes', 'red')[1]
    only_boxes = {o: columns[o] for o in ('kind','xmin','ymin','xmax','ymax')}
    assert 'xmin,ymin,xmax,ymax are not used' in converted(shelf, tmp_path, only_boxes, '--category', 'kind')[1]
    boxes = dict(kind=['tee','skirt']*20) | {o: ['NA']*40 for o in ('x1','y1','x2','y2')}
    assert len(converted(shelf, tmp_path, boxes, '--category', 'kind')[0]) == 40

def test_headers_and_containers_are_recognised(shelf, tmp_path):
    def refusal(content, name='strange.csv'):
        (shelf/name).write_bytes(content)
        done = run_inprocess('convert', 'table', shelf/name, tmp_path/'no', '--category', 'kind')
        assert done.returncode == 2 and len(done.stderr) < 500, done.stderr
        return done.stderr
    rows = ''.join(f'img/{i}.png,{"ab"[i%2]}\n' for i in range(1, 41))
    assert 'its first line looks like a row' in refusal(rows.encode())
    assert 'are there lines above the header?' in refusal(b'# mine, 2024\nimage,kind\n' + rows.encode())
    assert 'a column of row names a name in the header' in refusal(b'image,kind\n1,img/1.png,a\n')
    assert 'is one JSON object' in refusal(json.dumps({f'img/{i}.png': 'a' for i in range(9)}).encode())
    assert 'is an ORC file' in refusal(b'ORC\0' + bytes(100)) and 'is a pickle' in refusal(b'\x80\2' + bytes(100))
    assert 'there is no image data:image/png' in refusal(b'image,kind\n"data:image/png;base64,' + b'A'*5000 + b'",a\n')
    (shelf/'blank.csv').write_text('\n\nimage,kind\n' + rows)
    done = run_inprocess('convert', 'table', shelf/'blank.csv', tmp_path/'blank', '--category', 'kind', '--keep-names')
    assert done.returncode == 0 and len(rows_of(tmp_path/'blank')) == 40
    (shelf/'blank.csv').write_text('\n\nimage,kind\n' + rows + 'img/1.png,a,b\n')
    assert 'blank.csv, line 44: has 3 cells' in run_inprocess('convert', 'table', shelf/'blank.csv', tmp_path/'no', '--category', 'kind').stderr

def test_bytes_of_any_type_in_parquet(shelf, tmp_path):
    pa,pq = pytest.importorskip('pyarrow'),pytest.importorskip('pyarrow.parquet')
    raws = [(shelf/'img'/f'{i}.png').read_bytes() for i in range(1, 41)]
    pq.write_table(pa.table(dict(image=pa.array(raws, pa.binary_view()), kind=[b'tee',b'skirt']*20)), shelf/'views.parquet')
    done = run_inprocess('convert', 'table', shelf/'views.parquet', tmp_path/'views', '--category', 'kind')
    assert done.returncode == 0 and 'categories: skirt 20, tee 20' in done.stdout, done.stderr
    pq.write_table(pa.table(dict(image=[f'img/{i}.png' for i in range(1, 41)], tags=[[.1*i,.5] for i in range(40)])), shelf/'vectors.parquet')
    assert refused(run_inprocess('convert', 'table', shelf/'vectors.parquet', tmp_path/'no', '--attributes', 'tags'), "'tags' has 0.5, which is no name of an attribute")

# --- data folders

@pytest.fixture
def small(tmp_path):
    "A data folder of 12 images"
    (tmp_path/'img').mkdir()
    for i in range(12): Image.new('RGB', (4,4), (20*i,0,0)).save(tmp_path/'img'/f'{i}.png')
    (tmp_path/'train.csv').write_text('file_path,category_label\n' + ''.join(f'img/{i}.png,{i%3}\n' for i in range(12)))
    return tmp_path

def reason(data):
    with pytest.raises(InputError) as e: read_labels(data)
    return str(e.value)

@pytest.mark.parametrize('lines', ['0 tee|1 skirt|2 coat', '2 tee|1 skirt|0 coat', '1. tee|2. skirt|3. coat', 'tee,0|skirt,1|coat,2', 'id,name|0,tee|1,skirt|2,coat'])
def test_numbers_in_classes_are_refused(small, lines):
    (small/'classes.txt').write_text(lines.replace('|', '\n'))
    assert 'has a number; write the names in the order of their numbers' in reason(small)

def test_the_first_line_of_classes_is_a_name(small):
    for first in ('3','# names'):
        (small/'classes.txt').write_text(f'{first}\ntee\nskirt\ncoat\n')
        assert f"classes.txt, line 1: '{first}' is no name of a category" in reason(small)
    for names in (['Type 1','Type 2','Type 3'], ['3','4','5'], ['3 pieces','2 pieces','1 pieces'], ['90s','70s','80s']):
        (small/'classes.txt').write_text('\n'.join(names))
        assert list(read_labels(small).vocab.categories) == names

def test_labels_from_one_are_named(small):
    (small/'classes.txt').write_text('tee\nskirt\ncoat\n')
    (small/'train.csv').write_text('file_path,category_label\n' + ''.join(f'img/{i}.png,{1+i%3}\n' for i in range(12)))
    assert 'are they numbered from 1? subtract 1' in reason(small)

@pytest.mark.parametrize('name', ['label','class','target','y','Label'])
def test_a_category_under_another_name_is_no_attribute(small, name):
    (small/'train.csv').write_text(f'file_path,{name},red\n' + ''.join(f'img/{i}.png,{i%2},1\n' for i in range(12)))
    assert f"has no column category_label, but one named '{name}'; rename it" in reason(small)

def test_two_spellings_of_a_path_are_one_image(small):
    (small/'val.csv').write_text('file_path,category_label\n./img/3.png,1\n')
    assert "'img/3.png' and './img/3.png' are one image; an image has one row" in reason(small)

# --- folders

@pytest.mark.parametrize('name,split', [('train_images','train'), ('Test Set','test'), ('valset','val'), ('validation-data','val'), ('trainers','None'), ('dataset','None')])
def test_folders_of_splits_may_say_what_they_hold(name, split): assert str(split_of(name)) == split

def test_folders_that_may_be_the_categories_are_pointed_at(tmp_path):
    def write(*names):
        for i,o in enumerate(names):
            (tmp_path/o).parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(i).integers(0, 256, (20,20,3), np.uint8)
            Image.fromarray(noise).save(tmp_path/o)
    write(*(f'masked/images/{c}/{i}.png' for c in ('tee','skirt') for i in range(12)), *(f'masked/masks/{i}.png' for i in range(12)))
    write(*(f'shop/train/{c}/{s}/{i}.png' for c in ('men','women') for s in ('tee',c) for i in range(9)))
    done = run_inprocess('convert', 'folders', tmp_path/'masked', tmp_path/'a')
    assert done.returncode == 0 and f"if these are the categories, name {tmp_path/'masked'/'images'}" in done.stdout
    done = run_inprocess('convert', 'folders', tmp_path/'shop', tmp_path/'b')
    assert done.returncode == 0 and 'the folders in them, tee, are not told apart' in done.stdout
    (tmp_path/'list.csv').write_text('filename,red\nT0,1\n')
    assert refused(run_inprocess('convert', 'folders', tmp_path/'masked', tmp_path/'c', '--attributes', tmp_path/'list.csv'), "no row names an image, the first being 'T0'")

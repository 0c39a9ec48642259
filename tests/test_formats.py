"Tables of all formats with random damage: no traceback, no row that is not counted, no label that is not in its row"
import csv,gzip,io,json,re,shutil,unicodedata,warnings
from contextlib import redirect_stdout
from pathlib import Path
import pandas as pd
import pytest
from PIL import Image
from hypothesis import HealthCheck,given,settings,strategies as st
from fashion_fastai.convert.table import convert_table
from fashion_fastai.core import InputError

N = 24
COLUMNS = ['image','kind','red','tags','split']
ROWS = [dict(image=f'img/{i}.png', kind=['tee','skirt','coat'][i%3], red=str(i%2), tags=['dark|long','','long','wide|dark'][i%4], split=['train','train','val','test'][i%4])
        for i in range(N)]

def as_csv(rows, separator=','):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator='\n')
    writer.writerows([COLUMNS, *([o.get(c, '') for c in COLUMNS] for o in rows)])
    return out.getvalue().encode('utf-8', 'surrogatepass')

def as_parquet(rows):
    pa,pq = pytest.importorskip('pyarrow'),pytest.importorskip('pyarrow.parquet')
    file = io.BytesIO()
    pq.write_table(pa.table({c: pa.array([o.get(c) for o in rows], pa.string()) for c in COLUMNS}), file)
    return file.getvalue()

def as_sheet(rows):
    openpyxl = pytest.importorskip('openpyxl')
    book,file = openpyxl.Workbook(),io.BytesIO()
    def cell(text): return re.sub(r'[\x00-\x08\x0b-\x1f]', '', text) # which a spreadsheet cannot hold
    for o in rows: o |= {k: cell(v) for k,v in o.items()}
    for o in [COLUMNS, *([o.get(c) for c in COLUMNS] for o in rows)]: book.active.append(o)
    book.save(file)
    return file.getvalue()

def as_annotations(rows):
    "COCO's layout: a row is an image with its annotation"
    names = sorted({o.get('kind', '') for o in rows})
    tags = sorted({t for o in rows for t in o.get('tags', '').split('|') if t})
    content = dict(images=[dict(id=i, file_name=o.get('image', '')) for i,o in enumerate(rows)], categories=[dict(id=k, name=o) for k,o in enumerate(names)],
        attributes=[dict(id=k, name=o) for k,o in enumerate(tags)])
    content['annotations'] = [dict(image_id=i, category_id=names.index(o.get('kind', '')), attribute_ids=[tags.index(t) for t in o.get('tags', '').split('|') if t]) for i,o in enumerate(rows)]
    return json.dumps(content).encode()

FORMATS = dict(csv=as_csv, semicolons=lambda rows: gzip.compress(as_csv(rows, ';')), parquet=as_parquet,
    lines=lambda rows: '\n'.join(map(json.dumps, rows)).encode(), sheet=as_sheet, annotations=as_annotations)
TEXT = 'csv','lines','annotations'

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A folder with the images of `ROWS`"
    folder = tmp_path_factory.mktemp('formats')
    (folder/'img').mkdir()
    for i in range(N): Image.new('RGB', (4,6), (10*i,0,0)).save(folder/'img'/f'{i}.png')
    return folder

VALUES = st.sampled_from(['', ' ', 'nan', 'None', '0', '1', '1.0', '-1', 'yes', 'No', 'maybe', '7', 'tee', 'Tee', ' tee ', 'tee,skirt', 'tee|coat', 'long dark', "['long', 'dark']", '["long"]', '[]', '[', '{', '"', '"x', '14"', 'a\nb',
    'img/3.png', 'img\\4.png', 'img/5.PNG', '6.png', '7', '007', 'img/none.png', 'train', 'holdout', '\x00', '\x07', '\u2028', 'ünï', '=1+1', 'http://x.example/1.png', 'http://[x/1.png', 'a'*300]) | st.text(st.characters(exclude_categories=['Cs']), max_size=6)

@st.composite
def damaged(draw):
    "(rows, positions and bytes that are changed afterwards)"
    rows = [dict(o) for o in ROWS]
    for _ in range(draw(st.integers(1, 4))):
        i,what = draw(st.integers(0, len(rows)-1)),draw(st.sampled_from(['cell','cell','cell','drop','twice','column']))
        column = draw(st.sampled_from(COLUMNS))
        if what == 'cell': rows[i][column] = draw(VALUES)
        if what == 'column':
            value = draw(VALUES)
            for o in rows: o[column] = value
        if what == 'drop' and len(rows) > 1: rows.pop(i)
        if what == 'twice': rows.insert(i, dict(rows[draw(st.integers(0, len(rows)-1))]))
    edits = [(draw(st.floats(0, 1)), draw(st.sampled_from([b'', b'"', b',', b'\n', b'\x00', b'\xff', b'1', b'}']))) for _ in range(draw(st.sampled_from([0,0,0,1,2])))]
    return rows,edits

INVISIBLE = '\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\ufeff\xad'

def seen(text): return unicodedata.normalize('NFC', ' '.join(text.translate(dict.fromkeys(map(ord, INVISIBLE))).split()))

def names_in(cell):
    "All names that a cell may have: 1.0 is 1"
    parts = [*re.split(r'''[|;,\s\[\]"'{}()]''', cell), *re.split('[|;,]', cell), cell]
    return {name for o in parts for name in (seen(o), seen(o).removesuffix('.0'))}

def check(folder, name, rows, edits):
    raw = FORMATS[name](rows)
    for at,new in edits:
        at = int(at*len(raw))
        raw = raw[:at] + new + raw[at+1:]
    (folder/'table').write_bytes(raw)
    shutil.rmtree(folder/'out', ignore_errors=True)
    options = dict(category='kind', attributes='red,tags', split='split')
    if name == 'annotations': options = dict(category='category', attributes='attributes')
    with redirect_stdout(io.StringIO()),warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: summary = convert_table(folder/'table', folder/'out', **options, keep_names=True)
        except InputError as e:
            assert str(e) and len(str(e).splitlines()) == 1
            return False
    tables = [pd.read_csv(folder/'out'/f'{o}.csv', dtype=str, keep_default_na=False) for o in ('train','val','test_labels','test') if (folder/'out'/f'{o}.csv').is_file()]
    tables = [o for o in tables if len(o.columns) > 1] or tables
    assert summary.n_rows == sum(summary.splits.values()) + summary.n_joined + sum(summary.left_out.values())
    assert set(summary.left_out) <= set(summary.first)
    if edits: return True
    assert summary.n_rows == sum(any(str(v).strip() for v in o.values()) for o in rows)
    classes = (folder/'out'/'classes.txt').read_text().split('\n')
    rows_of = {}
    for o in rows:
        image = re.split(r'[/\\]', o['image'])[-1].strip().lower().removesuffix('.png')
        rows_of.setdefault(image.removesuffix('.0'), []).append(o)
    for table in tables:
        for o in table.to_dict('records'):
            own = rows_of[Path(o['file_path']).stem]
            if o.get('category_label'):
                cells = [p['kind'] for p in own]
                whole = {x for o in cells for x in (seen(o), seen(o).removesuffix('.0'))}
                listed = {x for o in cells if o.strip()[:1] in ('[','{') for x in names_in(o)} # a list of one
                assert classes[int(o['category_label'])] in whole | listed
            for column,value in o.items():
                if column in ('file_path','category_label') or value != '1': continue
                says_yes = column in ('red','tags') and any(p[column].strip().lower() in ('1','1.0','yes','y','true','t','x','on') for p in own)
                is_named = any({column, column.removeprefix(f'{c} ')} & names_in(p[c]) for p in own for c in ('red','tags'))
                assert says_yes or is_named, (column, own)
    return True

fuzz = dict(deadline=None, suppress_health_check=list(HealthCheck))

@pytest.mark.parametrize('name', FORMATS)
def test_a_whole_table_is_read_rightly(folder, name):
    assert check(folder, name, ROWS, [])

@pytest.mark.parametrize('name', FORMATS)
@settings(max_examples=40, derandomize=True, **fuzz)
@given(found=damaged())
def test_damage_is_read_rightly_or_refused(folder, name, found): check(folder, name, *found)

@pytest.mark.slow
@pytest.mark.parametrize('name', FORMATS)
@settings(max_examples=100, **fuzz)
@given(found=damaged())
def test_a_hundred_damaged_tables_of_each_format(folder, name, found): check(folder, name, *found)

@pytest.mark.soak
@pytest.mark.parametrize('name', FORMATS)
@settings(max_examples=5000, **fuzz)
@given(found=damaged())
def test_five_thousand_damaged_tables_of_each_format(folder, name, found): check(folder, name, *found)

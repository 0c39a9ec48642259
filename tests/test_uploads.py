"Zips from anybody: what a header says of its entry is not believed"
import csv,io,resource,shutil,struct,zipfile
from types import SimpleNamespace
import pytest
from fashion_fastai.serve import uploads
from fashion_fastai.serve.service import PredictionService,example_images
from fashion_fastai.core import InputError
from fashion_fastai.data.labels import Vocab

def lying_zip(path, kind, n_bytes=300_000_000):
    "A zip of one entry that unpacks to `n_bytes`, and says that it has 100"
    with zipfile.ZipFile(path, 'w', kind) as archive:
        with archive.open('a.jpg', 'w', force_zip64=False) as file:
            for _ in range(n_bytes//10_000_000): file.write(bytes(10_000_000))
    raw = bytearray(path.read_bytes())
    size = struct.pack('<I', n_bytes)
    while (at := raw.find(size)) >= 0: raw[at:at+4] = struct.pack('<I', 100)
    path.write_bytes(raw)
    return path

@pytest.mark.slow
@pytest.mark.parametrize('kind', [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=['deflated','bz2','lzma'])
def test_a_zip_bomb_with_a_lying_header(kind, tmp_path):
    path = lying_zip(tmp_path/'bomb.zip', kind)
    assert path.stat().st_size < 2_000_000
    (tmp_path/'out').mkdir()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    names,bad,_ = uploads.collect_images([('bomb.zip', path)], tmp_path/'out')
    assert names == ['a.jpg'] and list(bad) == [0]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000 # KB

def test_a_name_that_would_make_two_rows_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path/'images.zip', 'w') as archive: archive.writestr('a\rb.jpg', b'image')
    with pytest.raises(InputError, match='has a control character'): uploads.collect_images([('images.zip', tmp_path/'images.zip')], tmp_path)

def test_an_image_whose_name_no_page_can_show_is_no_example(garments, tmp_path):
    for o in ('a.jpg','\udce9.jpg'): shutil.copy(garments/'test'/'00001.jpg', tmp_path/o)
    with pytest.warns(UserWarning, match='is not UTF-8'): assert example_images(tmp_path, tmp_path) == [tmp_path/'a.jpg']

def test_no_name_in_the_table_of_the_page_is_a_formula(tmp_path):
    "Whether commas or semicolons end a cell; other names are not changed"
    names = ['=1+1.jpg', '+a.jpg', '-b.jpg', '@c.jpg', ' =d.jpg', '＝f.jpg', 'g;=1+1.jpg', 'h,=1+1.jpg', 'i";"=1+1.jpg', 'k=1.jpg', "'l.jpg"]
    with zipfile.ZipFile(tmp_path/'a.zip', 'w') as archive:
        for o in names: archive.writestr(o, '<html>')
    model = SimpleNamespace(vocab=Vocab(('=coat',), ('@red','+blue','long')))
    page = PredictionService(model, model, tmp_path, tmp_path).images([dict(orig_name='a.zip', path=str(tmp_path/'a.zip'))])
    with open(page.file, encoding='utf-8', newline='') as file: text = file.read()
    for delimiter in ',;':
        cells = [cell for row in csv.reader(io.StringIO(text), delimiter=delimiter) for cell in row]
        assert [o for o in cells if o.lstrip().startswith(('=','+','-','@','＝'))] == []
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ['file_path', 'category', 'category_probability', 'attributes', "'@red", "'+blue", 'long', 'problem']
    assert [o[0] for o in rows[1:]] == [f"'{o}" for o in names[:6]] + names[6:] and rows[1][-1] == 'cannot be read as an image'
    assert page.rows.file_path.tolist() == names # the page itself shows them as they are

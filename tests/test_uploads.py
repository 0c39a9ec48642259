"Zips from anybody: what a header says of its entry is not believed"
import base64,csv,io,resource,shutil,struct,zipfile
from types import SimpleNamespace
import pytest
from PIL import Image
from fashion_fastai.serve import uploads
from fashion_fastai.serve.service import PredictionService,example_images
from fashion_fastai.core import InputError
from fashion_fastai.data.vocab import Vocab

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
    model = SimpleNamespace(vocab=Vocab(('=coat',), ('@red','+blue','long')), prior=None, size=(32,24), is_parallel=True, sharing=None, learn=None)
    model.with_tta = lambda tta: model
    page = PredictionService(model, model, tmp_path, tmp_path).images([dict(orig_name='a.zip', path=str(tmp_path/'a.zip'))])
    with open(page.file, encoding='utf-8', newline='') as file: text = file.read()
    for delimiter in ',;':
        cells = [cell for row in csv.reader(io.StringIO(text), delimiter=delimiter) for cell in row]
        assert [o for o in cells if o.lstrip().startswith(('=','+','-','@','＝'))] == []
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ['file_path', 'category', 'category_probability', 'attributes', "'@red", "'+blue", 'long', 'problem']
    assert [o[0] for o in rows[1:]] == [f"'{o}" for o in names[:6]] + names[6:] and rows[1][-1] == 'cannot be read as an image'
    assert page.rows.file_path.tolist() == names # the page itself shows them as they are

def encoded(width, height, format='png', mode='1'):
    "The bytes of a white image"
    file = io.BytesIO()
    Image.new(mode, (width,height), 'white').save(file, format)
    return file.getvalue()

def test_images_are_checked_by_their_headers():
    for format in ('jpeg','png','webp','bmp','gif','tiff'): uploads.check_image(encoded(8, 8, format, 'RGB'), 'dress')
    pixels,unreadable = 'has more than 64 million pixels','cannot be read as an image'
    for wrong,why in [(encoded(20_000, 20_000), pixels), (encoded(8001, 8000), pixels), (encoded(8, 8, 'eps', 'RGB'), unreadable),
                      (encoded(8000, 4001, 'webp', 'RGB'), 'has more than 32 million pixels'), (b'<html>404</html>', unreadable), (bytes(uploads.MAX_BYTES+1), 'has 50 MB')]:
        with pytest.raises(InputError, match=f'dress.png: {why}'): uploads.check_image(wrong, 'dress.png')

@pytest.fixture
def zips(garments, tmp_path):
    "Makes zips, and collects the images of uploads"
    class Zips:
        path,intact = garments/'test'/'00001.jpg',(garments/'test'/'00001.jpg').read_bytes()
        def make(self, name, files):
            with zipfile.ZipFile(tmp_path/name, 'w', zipfile.ZIP_DEFLATED) as archive:
                for o,content in files.items(): archive.writestr(o, content)
            return name,tmp_path/name
        def collect(self, *given):
            shutil.rmtree(tmp_path/'out', ignore_errors=True)
            (tmp_path/'out').mkdir()
            images = uploads.collect_images(given, tmp_path/'out')
            return *images,sorted(o.name for o in (tmp_path/'out').iterdir())
        def refused(self, why, *given):
            with pytest.raises(InputError, match=why): self.collect(*given)
    return Zips()

def test_names_and_problems_of_a_zip(zips, tmp_path):
    files = {'coats/1.jpg': zips.intact, 'coats/notes.txt': b'none', 'skirts/1.JPG': zips.intact, '__MACOSX/coats/._1.jpg': b'', 'huge.png': encoded(20_000, 20_000),
             'page.jpg': b'<html>', 'IMG_1': zips.intact}
    names,bad,listed,_ = zips.collect(zips.make('summer.zip', files), ('mine.jpg', zips.path), ('list.csv', zips.path))
    assert names == ['coats/1.jpg', 'skirts/1.JPG', 'huge.png', 'page.jpg', 'IMG_1', 'mine.jpg']
    assert bad == {2: 'has more than 64 million pixels; reduce its size first', 3: 'cannot be read as an image'}
    assert str(listed) == '9 files = 6 used + 3 left out (no image: 2, the first coats/notes.txt; hidden: 1, the first __MACOSX/coats/._1.jpg)'
    for path in ('../out.jpg', '/etc/out.jpg', r'..\out.jpg', r'C:\out.jpg', 'a/../../out.jpg'):
        zips.refused('evil.zip: contains a path that leads outside', zips.make('evil.zip', {path: zips.intact}))
    assert list(tmp_path.glob('**/out.jpg')) == []
    zips.refused('no images in none.zip.*; 1 files = 0 used', zips.make('none.zip', {'a.txt': b''}))
    zips.refused('garment.zip: is not a readable zip', ('garment.zip', zips.path))

def test_a_zip_is_recognised_by_its_first_bytes(zips):
    _,path = zips.make('summer.zip', {'a.jpg': zips.intact})
    assert zips.collect(('summer', path))[0] == ['a.jpg'] and zips.collect(('a.jpg', path))[1] == {0: 'cannot be read as an image'}

def test_the_limits_of_an_upload_are_enforced(zips, tmp_path, monkeypatch):
    "By the sizes in the directory of a zip, which reading then enforces"
    intact = zips.intact
    (tmp_path/'page.jpg').write_bytes(b'<html>')
    with monkeypatch.context() as patch:
        for name,value in dict(MAX_UNPACKED=4*len(intact)-1, MAX_FILES=7, MAX_BYTES=2*len(intact)).items(): patch.setattr(uploads, name, value)
        zips.refused('bomb.zip: exceeds the', zips.make('bomb.zip', {f'{i}.jpg': intact for i in range(4)}))
        zips.refused('a.jpg: exceeds the', *[('a.jpg', zips.path)]*4)
        zips.refused('long.zip: contains more than 7 files', zips.make('long.zip', {f'{i}.txt': b'' for i in range(8)}))
        zips.refused('more than 7 images at once', *[('a.jpg', tmp_path/'page.jpg')]*8)
        names,bad,*_ = zips.collect(zips.make('large.zip', {'large.jpg': bytes(2*len(intact)+1), 'small.jpg': intact}))
        assert list(bad) == [0] and 'has 0 MB' in bad[0]
    monkeypatch.setattr(uploads, 'MAX_UNPACKED_PIXELS', 20_000_000)
    million = encoded(3000, 3000)
    assert len(zips.collect(zips.make('few.zip', {f'{i}.png': million for i in range(2)}))[0]) == 2
    too_many = '2.png: exceeds the 20 million pixels of images that can be predicted at once; upload fewer at a time'
    zips.refused(too_many, zips.make('many.zip', {f'{i}.png': million for i in range(3)}))
    zips.refused(too_many, zips.make('cut.zip', {f'{i}.png': million[:-50] for i in range(3)})) # they are decoded, too

def test_a_zip_that_is_damaged_in_one_place_loses_that_image_only(zips):
    _,path = zips.make('damaged.zip', {'a.jpg': zips.intact, 'b.jpg': zips.intact})
    raw = bytearray(path.read_bytes())
    raw[100] ^= 255
    path.write_bytes(raw)
    names,bad,_,files = zips.collect(('damaged.zip', path))
    assert (names, list(bad), files) == (['a.jpg','b.jpg'], [0], ['000001.jpg'])

RAW = bytes(range(250, 256))*3 + b'?'

@pytest.mark.parametrize('text', [base64.b64encode(RAW).decode(), base64.b64encode(RAW).decode().rstrip('='), base64.urlsafe_b64encode(RAW).decode(), base64.encodebytes(RAW).decode(),
    'data:image/jpeg;base64,' + base64.b64encode(RAW).decode(), 'DATA:;base64,' + base64.urlsafe_b64encode(RAW).decode().rstrip('='), ' ' + base64.b64encode(RAW).decode().replace('/', '%2F') + '\r\n'])
def test_base64_is_read_in_its_usual_forms(text): assert uploads.decode_base64(text, 'image 0') == RAW

@pytest.mark.parametrize('text', ['no base64', 'abcde', 'ab=cd', 'data:image/jpeg,abcd', 'é', 'http://a.b/c.jpg', None, 1, ['abcd'], {}])
def test_other_text_is_not_base64(text):
    with pytest.raises(InputError, match='^image 0: is not base64$'): uploads.decode_base64(text, 'image 0')

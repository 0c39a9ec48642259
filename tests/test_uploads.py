"Zips from anybody: what a header says of its entry is not believed"
import resource,shutil,struct,zipfile
import pytest
from fashion_fastai.app import uploads
from fashion_fastai.app.service import example_images
from fashion_fastai.core import InputError

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
    names,bad = uploads.collect_images([('bomb.zip', path)], tmp_path/'out')
    assert names == ['a.jpg'] and list(bad) == [0]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000 # KB

def test_a_name_that_would_make_two_rows_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path/'images.zip', 'w') as archive: archive.writestr('a\rb.jpg', b'image')
    with pytest.raises(InputError, match='has a control character'): uploads.collect_images([('images.zip', tmp_path/'images.zip')], tmp_path)

def test_an_image_whose_name_no_page_can_show_is_no_example(garments, tmp_path):
    for o in ('a.jpg','\udce9.jpg'): shutil.copy(garments/'test'/'00001.jpg', tmp_path/o)
    with pytest.warns(UserWarning, match='is not UTF-8'): assert example_images(tmp_path, tmp_path) == [tmp_path/'a.jpg']

"Damaged images of every format: read, or refused as an image that cannot be read, and nothing else"
import io,random,struct,warnings
import numpy as np
import pytest
from PIL import Image
from conftest import run_inprocess
from fashion_fastai.data.duplicates import read_info
from fashion_fastai.core import InputError
from fashion_fastai.data.synthetic import draw_garment
from fashion_fastai.data.image import open_image

def saved(image, format, **kwargs):
    file = io.BytesIO()
    image.save(file, format, **kwargs)
    return file.getvalue()

EXIF = Image.Exif()
EXIF.update({0x0112: 6, 0x010e: 'a description', 0x8769: {0x9003: '2020:01:01 00:00:00', 0xa002: 30}, 0x8825: {1: 'N', 2: (1.,2.,3.)}, 0x011a: 72.})

def originals():
    "An image in all formats, modes and kinds of compression that the toolkit meets, with EXIF blocks where they can be"
    image = draw_garment('dress', ['red','dotted'], seed=1, size=(40,30))
    exif = EXIF.tobytes()
    files = [saved(image, 'JPEG', exif=exif), saved(image, 'JPEG', progressive=True), saved(image.convert('CMYK'), 'JPEG'), saved(image.convert('L'), 'JPEG')]
    files += [saved(image, 'PNG', exif=exif)] + [saved(image.convert(o), 'PNG') for o in ('P','LA','RGBA','1','I;16')]
    files += [saved(image, 'WEBP', exif=exif), saved(image, 'WEBP', lossless=True), saved(image, 'WEBP', save_all=True, append_images=[image.rotate(90)])]
    files += [saved(image, 'BMP'), saved(image.convert('P'), 'GIF'), saved(image.convert('P'), 'GIF', save_all=True, append_images=[image.rotate(90).convert('P')])]
    files += [saved(image, 'TIFF', compression=o) for o in (None, 'tiff_lzw', 'tiff_adobe_deflate', 'jpeg', 'packbits')] + [saved(image, 'TIFF', exif=exif)]
    return files

def mutated(raw, rng):
    "`raw` with some of its bytes changed, cut out, doubled, or moved; most of all at its beginning, where the headers are"
    raw = bytearray(raw)
    for _ in range(rng.choice([1,1,2,5,20])):
        at = int(rng.random()**rng.choice([1,4])*len(raw))
        what = rng.randrange(6)
        if what == 0: raw[at:at+1] = bytes([rng.randrange(256)])
        elif what == 1: raw[at:at+4] = struct.pack(rng.choice(['<I','>I']), rng.choice([0, 1, 2**31-1, 2**31, 2**32-1, rng.randrange(2**32)]))
        elif what == 2: del raw[at:at+rng.choice([1,2,100])]
        elif what == 3: raw[at:at] = raw[at:at+rng.choice([1,8,64])]
        elif what == 4: raw[at:at+8] = bytes(8)
        elif rng.random() < .3: del raw[at:]
        if not raw: break
    return bytes(raw)

def check_mutations(n, seed, tmp_path):
    "Open `n` mutated images as training, prediction and the data card do"
    rng,files,path,n_read = random.Random(seed),originals(),tmp_path/'mutated',0
    with warnings.catch_warnings():
        warnings.simplefilter('ignore') # Pillow warns of corrupt EXIF data
        for i in range(n):
            path.write_bytes(raw := mutated(rng.choice(files), rng))
            for read in ((lambda: open_image(raw)), (lambda: open_image(path, (16,12))), (lambda: read_info(path))):
                try: read()
                except InputError as e: assert 'cannot be read as an image' in str(e) and len(str(e).splitlines()) == 1
                else: n_read += 1
    assert 0 < n_read < 3*n # some could be read, some not

def test_two_thousand_mutated_images(tmp_path): check_mutations(2000, 42, tmp_path)

@pytest.mark.soak
def test_a_hundred_thousand_mutated_images(tmp_path): check_mutations(100_000, None, tmp_path)

BROKEN = [{152: 0x25}, {41: 0x4d}, {41: 0x07, 79: 0x57, 101: 0xf5}] # byte -> value, for which Pillow raises TypeError, AttributeError, struct.error

def broken_exif(changes): return bytes(changes.get(i, o) for i,o in enumerate(EXIF.tobytes()))

@pytest.mark.parametrize('changes', BROKEN, ids=str)
def test_a_broken_exif_block_costs_no_pixel(changes):
    image = draw_garment('dress', ['red','dotted'], seed=1, size=(40,30))
    for format in ('JPEG','WEBP','PNG'):
        plain = open_image(saved(image, format)).transpose(Image.Transpose.ROTATE_270) # the orientation can still be read
        broken = saved(image, format, exif=broken_exif(changes))
        assert np.array_equal(np.asarray(open_image(broken)), np.asarray(plain)), format
        assert open_image(broken, (16,12)).size == (12,16)

def test_commands_survive_a_broken_exif_block(run, garments, tmp_path):
    (tmp_path/'images').mkdir()
    for i,changes in enumerate(BROKEN): (tmp_path/'images'/f'{i}.jpg').write_bytes(saved(Image.open(garments/'test'/'00001.jpg'), 'JPEG', exif=broken_exif(changes)))
    done = run_inprocess('predict', run, tmp_path/'images', '--out', tmp_path/'out')
    assert done.returncode == 0 and done.stderr == '' and not (tmp_path/'out'/'bad_images.csv').exists(), done.stderr

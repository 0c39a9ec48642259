"Damaged images of every format: read, or refused as an image that cannot be read, and nothing else"
import io,os,random,struct,sys,tempfile,threading,time,warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import pytest
from fastcore.test import test_eq as eq,test_fail as fails
from PIL import EpsImagePlugin,Image,ImageFile,features
from conftest import run_inprocess
from fashion_fastai.data.duplicates import read_info
from fashion_fastai.core import InputError
from fashion_fastai.data.synthetic import draw_garment
from fashion_fastai.serve.uploads import check_image
from fashion_fastai.convert.core import image_suffix
from fashion_fastai.data import files as data_files,image as data_image
from fashion_fastai.data.image import image_from_array,load_pixels,open_image,upright_rgb
from fashion_fastai.train.search import typical_size

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

def two_faced(width=400, height=300):
    "A TIFF of 10×10 pixels, whose header is followed by the lines of an IM file of another size"
    lines,pixels = f': x\nImage type: L 1 image\nImage size (x*y): {width}*{height}\n\x1a'.encode(),bytes(min(width*height//8, 20_000))
    start = 8 + len(lines)
    tags = {256: 10, 257: 10, 258: 8, 259: 1, 262: 1, 273: start, 278: 10, 279: 100}
    directory = struct.pack('<H', len(tags)) + b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag,value in tags.items()) + bytes(4)
    return b'II*\0' + struct.pack('<I', start + len(pixels)) + lines + pixels + directory

def test_the_white_of_a_deep_image_is_that_of_its_bits():
    image = Image.new('I;16', (2,2), 4095)
    image.tag_v2 = {258: (12,)} # of a TIFF of 12 bits
    assert upright_rgb(image).getpixel((0,0)) == (255,255,255)
    del image.tag_v2
    assert upright_rgb(image).getpixel((0,0)) == (16,16,16)

def test_a_file_is_opened_as_what_it_was_checked_as(tmp_path):
    (tmp_path/'a.jpg').write_bytes(raw := two_faced())
    for source in (raw, tmp_path/'a.jpg', str(tmp_path/'a.jpg')): assert open_image(source).size == (10,10)
    assert read_info(str(tmp_path/'a.jpg')).size == (10,10) and typical_size([tmp_path/'a.jpg']) == (10,10)
    assert image_suffix(raw) == '.tif'
    check_image(two_faced(13_000, 13_000), 'a.jpg') # its 100 pixels are no reason to refuse it

@pytest.mark.parametrize('format', ['EPS','PPM','ICO','TGA'])
def test_other_formats_are_refused_whatever_a_file_is_called(format, tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', lambda *args, **kwargs: pytest.fail('an EPS file was run'))
    (tmp_path/'a.jpg').write_bytes(raw := saved(Image.new('RGB', (30,40)), format))
    for read in (lambda: open_image(raw), lambda: open_image(tmp_path/'a.jpg', (16,12)), lambda: read_info(str(tmp_path/'a.jpg')),
                 lambda: check_image(raw, 'a.jpg'), lambda: typical_size([tmp_path/'a.jpg'])):
        with pytest.raises(InputError): read()
    assert image_suffix(raw) is None

def test_the_formats_of_garments_are_read():
    image = draw_garment('dress', ['red','dotted'], seed=1, size=(40,30))
    formats = {'JPEG': '.jpg', 'PNG': '.png', 'WEBP': '.webp', 'GIF': '.gif', 'BMP': '.bmp', 'TIFF': '.tif'}
    if features.check('avif'): formats['AVIF'] = '.avif'
    if features.check('jpg_2000'): formats['JPEG2000'] = '.jp2'
    files = [(saved(image, 'MPO', save_all=True, append_images=[image]), '.jpg'), *((saved(image, o), suffix) for o,suffix in formats.items())]
    for raw,suffix in files:
        check_image(raw, 'a')
        assert open_image(raw).size == (30,40) and image_suffix(raw) == suffix

def test_heif_is_read_where_its_package_is_installed(monkeypatch):
    class Heif(ImageFile.ImageFile):
        format = 'HEIF'
        def _open(self): self._mode,self._size,self.tile = 'RGB',(6,4),[]
        def load(self): return Image.new('RGB', (6,4)).im.pixel_access()
    def register(): Image.register_open('HEIF', Heif, lambda prefix: prefix[4:8] == b'ftyp')
    file = b'\0\0\0\x18ftypheic' + bytes(20)
    try:
        with pytest.raises(InputError): check_image(file, 'a.jpg')
        monkeypatch.setitem(sys.modules, 'pillow_heif', SimpleNamespace(register_heif_opener=register))
        data_files.readable_formats.cache_clear()
        check_image(file, 'a.jpg')
        assert data_image.image_file(file).format == 'HEIF'
    finally:
        Image.OPEN.pop('HEIF', None)
        data_files.readable_formats.cache_clear()

def test_a_large_image_waits_for_others_and_is_not_overtaken_for_ever():
    "Threads decode at most `MAX_DECODED` pixels together; also after an error, and in a process that is forked meanwhile"
    small,large,order,started = Image.new('1', (8,8)),Image.new('1', (8000,8000)),[],threading.Event()
    def decode(o, name):
        with data_image.decoding(o): order.append(name)
    with ThreadPoolExecutor(3) as pool:
        with data_image.decoding(small):
            futures = [pool.submit(decode, large, 'large')]
            while not data_image._decoded.turn.locked(): time.sleep(.001) # it waits
            futures.append(pool.submit(decode, small, 'small'))
            child = os.fork()
            if not child: # it has no thread that decodes
                decode(large, 'forked')
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0 and order == []
        for o in futures: o.result()
    assert order == ['large','small']
    with pytest.raises(KeyError),data_image.decoding(large): raise KeyError
    assert data_image._decoded.n == 0

def palette(image, transparent=False):
    image = image.quantize(64)
    if transparent: image.info['transparency'] = image.getpixel((0,0))
    return image

def grey_values(image): return np.array(image.convert('L'))

MODES = { # how an image comes to be in a mode, and whether it is grey then
    '1': (lambda o: o.convert('1'), True), 'L': (lambda o: o.convert('L'), True), 'LA': (lambda o: o.convert('LA'), True), 'P': (palette, False),
    'P, transparent': (lambda o: palette(o, True), False), 'RGB': (lambda o: o, False), 'RGBA': (lambda o: o.convert('RGBA'), False), 'CMYK': (lambda o: o.convert('CMYK'), False),
    'YCbCr': (lambda o: o.convert('YCbCr'), False), 'I;16': (lambda o: Image.fromarray(grey_values(o).astype(np.uint16)*257), True),
    'I': (lambda o: Image.fromarray(grey_values(o).astype(np.int32)*257), True), 'I, all bits': (lambda o: Image.fromarray(grey_values(o).astype(np.int32)*(2**31//256)), True),
    'F': (lambda o: Image.fromarray(grey_values(o).astype(np.float32)/255), True), 'F, to 255': (lambda o: Image.fromarray(grey_values(o).astype(np.float32)), True),
    'F, to 65535': (lambda o: Image.fromarray(grey_values(o).astype(np.float32)*257), True), 'La': (lambda o: o.convert('LA').convert('La'), True), 'RGBa': (lambda o: o.convert('RGBA').convert('RGBa'), False)}
FORMATS = dict(none={}, PNG={}, TIFF={}, JPEG=dict(quality=95), WEBP=dict(lossless=True), JPEG2000={}, BMP={}, PPM={}, GIF={})
CUT = {'I;16','I','I, all bits','F','F, to 255','F, to 65535'} # modes that Pillow clips at 255 where a format has only bytes

def smooth(seed, size=(24,16)):
    "An image without edges, which no format changes much"
    small = np.random.default_rng(seed).integers(0, 256, (3,2,3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)

def expected_bytes(original, mode, format):
    "The pixels that an image has in a mode and format"
    if mode == '1' and format != 'JPEG': original = original.convert('1') # a JPEG of it is grey
    elif MODES[mode][1]: original = original.convert('L')
    return np.asarray(original.convert('RGB')).astype(int)

@pytest.mark.parametrize('mode', MODES)
def test_every_mode_in_every_format_is_scaled_to_bytes(mode):
    "Never black, wrapped or saturated; as an open image, and as a file where its format is read"
    read = set()
    for format,seed in ((format, seed) for format in FORMATS for seed in range(3)):
        if mode in CUT and format in ('WEBP','GIF','JPEG','BMP') or (mode, format) == ('I, all bits','PPM'): continue # Pillow clips it when it writes
        original = smooth(seed)
        image = MODES[mode][0](original)
        try: raw = None if format == 'none' else saved(image, format, **FORMATS[format])
        except (OSError, ValueError, KeyError): continue # this format has no such mode
        read.add(format)
        for source in [Image.open(io.BytesIO(raw)) if raw else image, *([raw] if raw and format != 'PPM' else [])]:
            found = np.asarray(open_image(source)).astype(int)
            difference = np.abs(found - expected_bytes(original, mode, format))
            if 'transparent' in mode: difference = difference[(found != 255).any(-1)]
            limit = 12 if 'P' in mode or format in ('GIF','JPEG') else 3
            if (mode, format) == ('1','JPEG'): limit = 130
            assert difference.mean() <= limit, (mode, format, difference.mean())
    assert len(read) >= (1 if mode in ('La','RGBa') else 2)

ARRAYS = {'uint8': lambda o: o, 'bool': lambda o: o > 127, 'uint16': lambda o: o.astype(np.uint16)*257, 'bytes as uint16': lambda o: o.astype(np.uint16),
    'big-endian': lambda o: (o.astype(np.uint16)*257).astype('>u2'), 'int32': lambda o: o.astype(np.int32)*257, 'uint32': lambda o: o.astype(np.uint32)*(2**32//256 + 65793),
    'bytes as int64': lambda o: o.astype(np.int64), 'float16': lambda o: (o/255).astype(np.float16), 'float32': lambda o: (o/255).astype(np.float32), 'float64': lambda o: o/255,
    'floats to 255': lambda o: o.astype(np.float64), 'floats to 65535': lambda o: o*257., 'floats from -1': lambda o: o/127.5 - 1, 'a little beyond 1': lambda o: np.where(o == o.max(), 1.04, o/255)}

@pytest.mark.parametrize('kind', ARRAYS)
def test_arrays_and_tensors_are_scaled_as_images_are(kind):
    for channels in range(5): check_array(kind, channels)

def check_array(kind, channels):
    import torch
    rng = np.random.default_rng(channels)
    values = rng.integers(0, 256, (24,16,channels) if channels else (24,16), dtype=np.uint8)
    if channels in (2,4): values[...,-1] = 255 # opaque
    values.flat[0] = 255
    array = ARRAYS[kind](values)
    expected = np.where(values > 127, 255, 0) if kind == 'bool' else values
    if channels in (2,4): expected = expected[...,:-1]
    expected = np.broadcast_to(expected.reshape(24, 16, -1), (24,16,3)).astype(int)
    sources = [array] + [np.moveaxis(array, -1, 0)]*(channels > 0)
    if array.dtype.isnative: sources += [torch.from_numpy(np.ascontiguousarray(o)) for o in sources]
    if kind == 'float32': sources.append(torch.from_numpy(array).bfloat16())
    for source in sources:
        limit = 2 if str(getattr(source, 'dtype', '')) == 'torch.bfloat16' else 1
        assert np.abs(np.asarray(open_image(source)).astype(int) - expected).max() <= limit

def test_values_that_are_no_numbers_cost_only_their_pixels():
    values = np.full((8,6), .5, np.float32)
    values[0,0],values[0,1],values[0,2],values[0,3] = np.nan,np.inf,-np.inf,1
    found = np.asarray(open_image(saved(Image.fromarray(values), 'TIFF')))[...,0]
    assert found[0,:4].tolist() == [0,255,0,255] and set(found[1:].flat) == {128}
    for wrong in (np.zeros((0,4,3)), np.zeros((4,4), complex), np.array([['a']]), np.zeros((2,2,2,2))):
        with pytest.raises(InputError, match='cannot be read as an image .an array of '): open_image(wrong)

def tiff(values, tags):
    "An uncompressed TIFF in grey with any tags"
    start,raw = 8,values.tobytes()
    tags = {256: values.shape[1], 257: values.shape[0], 258: 8*values.itemsize, 259: 1, 262: 1, 273: start, 277: 1, 278: values.shape[0], 279: len(raw), **tags}
    directory = struct.pack('<H', len(tags)) + b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag,value in sorted(tags.items())) + bytes(4)
    return b'II*\0' + struct.pack('<I', start + len(raw)) + raw + directory

def test_a_tiff_of_32_bits_is_not_wrapped_and_one_whose_zero_is_white_is_not_inverted():
    values = np.array([[0, 2**31, 2**32-1]], np.uint32)
    assert np.asarray(open_image(tiff(values, {})))[0,:,0].tolist() == [0,128,255]
    assert np.asarray(open_image(tiff(np.array([[-5, 0, 2**31-1]], np.int32), {339: 2})))[0,:,0].tolist() == [0,0,255]
    assert np.asarray(open_image(tiff(np.array([[0, 65535]], np.uint16), {262: 0})))[0,:,0].tolist() == [255,0]

def test_the_transparent_value_of_16_bits_is_white():
    image = Image.fromarray(np.array([[0, 1000, 65535]], np.uint16))
    assert np.asarray(open_image(saved(image, 'PNG', transparency=1000)))[0,:,0].tolist() == [0,255,255]

@pytest.mark.parametrize('content,kind', [(b'PK\3\4' + bytes(40), 'it is a zip archive'), (b'<html>404</html>', 'it is an HTML page'), (b'PAR1', 'it is a Parquet file'), (b'', 'it is an empty file'),
    (b'\0\0\0\x18ftypheic' + bytes(20), 'it is a HEIF image, which needs the package pillow-heif'), (b'\xff\xd8\xff\xe0' + bytes(60), ''), (b'text', 'unknown format')])
def test_what_is_no_image_is_called_by_its_name(content, kind, tmp_path):
    (tmp_path/'a.jpg').write_bytes(content)
    for source in (tmp_path/'a.jpg', str(tmp_path/'a.jpg'), content):
        with pytest.raises(InputError, match=f'cannot be read as an image .{kind}'): open_image(source)

GARMENT = draw_garment('hoodie', ['red','striped'], seed=1)
PIXELS = np.array(GARMENT)

def reopened(*args, **kwargs): return Image.open(io.BytesIO(saved(*args, **kwargs)))

def test_images_of_all_modes_become_rgb_and_large_ones_in_strips_the_same_as_whole():

    deep = Image.fromarray(np.array(GARMENT.convert('L')).astype(np.uint16)*257) # 16 bits
    for image in [deep, *map(GARMENT.convert, ('L','P','1','LA','RGBA','CMYK','YCbCr'))]:
        again = upright_rgb(reopened(image, 'tiff' if image.mode in ('CMYK','YCbCr') else 'png'))
        eq((again.mode, again.size), ('RGB', (60,80)))
        assert abs(np.array(again).mean() - np.array(GARMENT).mean()) < 12, image.mode
    transparent = Image.new('RGBA', (4,4), (0,0,0,0))
    eq(np.array(upright_rgb(reopened(transparent, 'PNG'))), np.full((4,4,3), 255)) # white, although its hidden pixels are black

    # strip by strip, a large image has the same pixels as in one piece
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900,3000,4), dtype=np.uint8)) # more than one strip
    palette = wide.convert('RGB').quantize(16)
    palette.info['transparency'] = 3
    sixteen_bits = Image.fromarray(np.random.default_rng(0).integers(0, 2**16, (900,3000), dtype=np.uint16))
    for image in (wide, wide.convert('LA'), palette, sixteen_bits, sixteen_bits.convert('I')):
        whole = [upright_rgb(image.crop((0, top, 3000, top+300))) for top in (0,300,600)]
        eq(np.array(upright_rgb(image)), np.concatenate(whole))

def test_arrays_are_images_of_one_or_three_channels():
    eq(image_from_array(PIXELS[...,0]).mode, 'L')
    fails(lambda: image_from_array(np.zeros(5)), exc=ValueError, contains='an array of shape (5,)')

def test_an_image_is_opened_at_a_size_as_it_would_be_shrunk_from_its_own():
    large,rotated = GARMENT.resize((1200,1600), Image.Resampling.LANCZOS),Image.Exif()
    eq(load_pixels(GARMENT, (80,60)), PIXELS)
    eq(open_image(saved(GARMENT, 'PNG'), (40,50)).size, (50,40)) # Pillow's sizes are (width, height)
    for array in (PIXELS, PIXELS/255, PIXELS.transpose(2,0,1)): eq(np.array(open_image(array)), PIXELS)
    eq(np.array(open_image(PIXELS[...,0])), np.repeat(PIXELS[...,:1], 3, 2))
    fails(lambda: open_image(np.zeros(5)), exc=InputError, contains='an array of shape (5,)')
    own = reopened(GARMENT.resize((600,800)), 'jpeg')
    open_image(own, (80,60))
    eq(own.size, (600,800)) # the caller's own image keeps its size
    broken_exif = saved(GARMENT, 'jpeg', exif=b'Exif\0\0MM\0*\0\0\0\x08' + b'\xff'*40)
    eq(np.array(open_image(broken_exif)), np.array(open_image(saved(GARMENT, 'jpeg')))) # the pixels are intact
    for orientation in (1,6):
        rotated[0x0112] = orientation
        stored = large.rotate(90, expand=True) if orientation == 6 else large
        file = saved(stored, 'jpeg', exif=rotated.tobytes())
        again,full = open_image(file, (80,60)),open_image(file).resize((60,80), Image.Resampling.BILINEAR)
        assert np.abs(np.array(again).astype(int) - np.array(full)).mean() < 1.5

def test_a_page_or_half_an_image_is_refused():
    with tempfile.TemporaryDirectory() as tmp:
        bad = Path(tmp)/'page.jpg'
        bad.write_text('<html>404</html>')
        fails(lambda: open_image(bad), exc=InputError, contains='page.jpg: cannot be read as an image')
        bad.write_bytes(saved(GARMENT, 'jpeg')[:-500])
        fails(lambda: load_pixels(bad, (80,60)), exc=InputError, contains='truncated')
    fails(lambda: open_image(b'<html>404</html>', (80,60)), exc=InputError, contains='cannot be read as an image')

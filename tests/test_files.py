"Folders and zips as people have them: every file is used, or counted with the reason why it is not"
import io,os,random,shutil,warnings,zipfile
import pytest
from PIL import Image
from conftest import refused,run_inprocess
from fashion_fastai.core import InputError,atomic_write,name_problem,remove_leftovers
from fashion_fastai.convert.folders import convert_folders,find_folder_images
from fashion_fastai.data.files import HIDDEN,ImageFolder,image_suffixes,is_hidden,kind_of,require_folder,shown
from fashion_fastai.data.lists import read_test_list
from fashion_fastai.data.paths import find_images,find_rows,respell_paths
from fashion_fastai.data.records import decode_text
from fashion_fastai.serve.service import example_images
from fashion_fastai.serve.uploads import collect_images

def image_bytes(colour='red', format='JPEG'):
    file = io.BytesIO()
    Image.new('RGB', (6,8), colour).save(file, format)
    return file.getvalue()

JPEG,HEIC = image_bytes(),b'\0\0\0\x18ftypheic' + bytes(20)
NAMES = [*(f'{k}.jpg' for k in range(9)), 'A.JPG', 'b.Png', 'c.jfif', 'd.tiff', 'e.webp', 'IMG_7', 'f.heic', 'g.ico', 'h.txt', 'i.csv', 'j.jpg.bak',
         '.DS_Store', '._0.jpg', 'Thumbs.db', 'k.zip', 'l', 'm.', 'caf\udce9.jpg', 'n\n.jpg', 'o p.jpg', 'é.jpg', 'e\u0301.jpg']
CONTENTS = [JPEG]*6 + [image_bytes('blue', 'PNG'), JPEG[:100], b'', b'<html>404</html>', b'PK\3\4' + bytes(40), HEIC, b'text']
FOLDERS = ['tee','coat','Tee','skirt','long skirt','train','val','test','Valid','images','.git','__MACOSX','.ipynb_checkpoints','p1','p2','caf\udce9','é','e\u0301']

def make_tree(root, rng):
    "Random files, folders, and links in folder `root`; returns whether the folder `elsewhere`, of two files, is linked"
    folders,links = [root],rng.choice([0, 0, 1, 3])
    if rng.random() < .4: # a layout that can be converted
        for split in rng.choice([('train',), ('train','val','test')]):
            for k in range(rng.randrange(1, 4)): folders.append(root/split/FOLDERS[k])
    for _ in range(rng.randrange(8)): folders.append(rng.choice(folders)/rng.choice(FOLDERS))
    if rng.random() < .05: folders.append(rng.choice(folders)/'/'.join(['deep']*60))
    for o in folders: o.mkdir(parents=True, exist_ok=True)
    for o in folders:
        for name in rng.sample(NAMES, rng.choice([0, 1, 3, 8])):
            if not os.path.lexists(o/name): (o/name).write_bytes(rng.choice(CONTENTS))
    elsewhere,is_linked = root.parent/'elsewhere',False
    elsewhere.mkdir(exist_ok=True)
    for name in ('x.jpg','y.txt'): (elsewhere/name).write_bytes(JPEG)
    for k in range(links):
        visible = [o for o in folders if o == root or not is_hidden(o.relative_to(root).as_posix())]
        target = rng.choice(['nowhere.jpg', f'link{k}.jpg', rng.choice(visible), elsewhere, elsewhere/'x.jpg'])
        place = rng.choice(folders)/f'link{k}.jpg'
        place.symlink_to(target)
        is_linked |= target == elsewhere and place.parent in visible
    if rng.random() < .1: os.mkfifo(rng.choice(folders)/'pipe.jpg')
    return is_linked

def count_files(root, is_linked):
    "The number of entries below `root` that are no folders; a linked folder counts as its files when it is met first, else as one"
    n,is_new = 2*is_linked,is_linked
    for parent,folders,files in os.walk(root): n += len(files) + sum(os.path.islink(os.path.join(parent, o)) for o in folders)
    return n - is_new

def one_line(e): assert str(e) and len(str(e).splitlines()) == 1, str(e)

def check_tree(root, out, rng):
    "Whether a tree can be converted"
    is_linked = make_tree(root, rng)
    n,listing = count_files(root, is_linked),ImageFolder(root)
    assert listing.n == n and len(set(listing.names)) == len(listing.names), str(listing)
    for o in listing.names: assert (root/o).is_file() and not is_hidden(o)
    for parent,_,files in os.walk(root): # by another rule: no image by its suffix is missing
        for o in files:
            name = os.path.relpath(os.path.join(parent, o), root)
            is_image = o.lower().endswith(image_suffixes()) and os.path.isfile(os.path.join(parent, o)) and not is_hidden(name)
            if is_image: assert name in listing.names
    str(listing).encode()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: frame = read_test_list(root, strict=False)
        except InputError as e: one_line(e)
        else: assert frame.file_path.tolist() == [o for o in listing.names if not name_problem(o)]
        try: found = find_folder_images(root)
        except InputError as e: one_line(e)
        else:
            assert found.files.n == n and len(found.names) == len(found.categories) == len(found.files.names)
            for name,category in zip(found.names, found.categories): assert not category or category.lower() in name_of(name)
        try: summary = convert_folders(root, out)
        except InputError as e: one_line(e)
        else: assert sum(summary.splits.values()) + sum(summary.left_out.values()) == n
    check_zip(root, out.parent, listing)
    return out.exists()

def name_of(path):
    "The folders of `path` as categories may be called after them"
    from unicodedata import normalize
    return normalize('NFC', path).lower().split('/')

def check_zip(root, folder, listing):
    "A zip of the regular files has the same images as the folder, links aside"
    path,unpacked,entries = folder/'all.zip',folder/'unpacked',[]
    with zipfile.ZipFile(path, 'w') as archive:
        for parent,_,files in os.walk(root):
            for o in files:
                file = os.path.join(parent, o)
                name = os.path.relpath(file, root)
                if os.path.islink(file) or not os.path.isfile(file) or name_problem(name): continue
                archive.write(file, name)
                entries.append(name)
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    try: found = collect_images([('all.zip', path)], unpacked)
    except InputError as e: return one_line(e)
    assert found.files.n == len(entries) and len(found.names) == len(found.files.names)
    assert set(found.names) == set(entries) & set(listing.names)

def check_trees(n, seed, folder):
    n_converted = 0
    for i in range(n):
        rng = random.Random(seed + i)
        root,out = folder/'tree',folder/'out'
        for o in (root, out): shutil.rmtree(o, ignore_errors=True)
        root.mkdir()
        try: n_converted += check_tree(root, out, rng)
        except BaseException:
            print(f'tree {seed + i}')
            raise
    assert n_converted > n/20

def test_folders_of_a_path_are_left_out_only_if_no_path_of_the_list_leads_to_a_file(tmp_path):
    (tmp_path/'b.jpg').write_bytes(JPEG)
    assert respell_paths(['old/b.jpg'], [str(tmp_path)], set()) == {'old/b.jpg': 'b.jpg'}
    assert respell_paths(['old/b.jpg'], [str(tmp_path)], {'a.jpg'}) == respell_paths(['old/b.jpg'], [str(tmp_path)], set(), is_part=True) == {}

def test_rows_of_another_table_are_found_beside_an_image_that_is_missing(tmp_path):
    (tmp_path/'a.jpg').write_bytes(JPEG)
    assert find_rows(['./a.jpg','gone.jpg','none.jpg'], ['gone.jpg','a.jpg'], None, tmp_path/'groups.csv').tolist() == [1,0,-1]

def test_a_long_name_is_cut(): assert shown('x'*200) == 'x'*200 and shown('x'*201) == 'x'*99 + '…'

def test_every_file_of_three_hundred_trees_is_accounted_for(tmp_path): check_trees(300, 0, tmp_path)

@pytest.mark.soak
def test_every_file_of_five_thousand_trees_is_accounted_for(tmp_path): check_trees(5000, random.randrange(2**32), tmp_path)

def write(folder, *names, content=JPEG):
    for o in names:
        (folder/o).parent.mkdir(parents=True, exist_ok=True)
        (folder/o).write_bytes(content)

def reasons_of(listing): return {reason: tuple(o) for reason,o in listing.left_out.items()}

def test_what_is_left_out_has_a_reason_and_an_example(tmp_path):
    write(tmp_path, 'a.jpg', 'b.JPEG', 'IMG_1', 'c.heic')
    write(tmp_path, 'd.heic', content=HEIC)
    write(tmp_path, 'notes.txt', 'README', 'x.ico', content=b'text')
    write(tmp_path, '.hidden/a.jpg', '__MACOSX/._a.jpg', '.DS_Store')
    (tmp_path/'gone.jpg').symlink_to('nowhere')
    (tmp_path/'up').symlink_to(tmp_path)
    (tmp_path/'self.jpg').symlink_to('self.jpg')
    listing = ImageFolder(tmp_path)
    assert listing.names == ['IMG_1','a.jpg','b.JPEG','c.heic']
    assert reasons_of(listing) == {HIDDEN: (3, '.DS_Store'), 'no image': (3, 'README'), 'link to nothing': (2, 'gone.jpg'), 'link to a folder that is listed already': (1, 'up'),
                                   'HEIF, which needs the package pillow-heif': (1, 'd.heic')}
    assert listing.n == 14 and str(listing).startswith('14 files = 4 used + 10 left out (hidden: 3, the first .DS_Store; ')

def test_a_folder_that_cannot_be_opened_is_counted(tmp_path, monkeypatch):
    write(tmp_path, 'a.jpg', 'closed/b.jpg')
    scandir = os.scandir
    def refuse(path):
        if str(path).endswith('closed'): raise PermissionError(13, 'Permission denied')
        return scandir(path)
    monkeypatch.setattr(os, 'scandir', refuse)
    assert reasons_of(ImageFolder(tmp_path)) == {'folder that cannot be opened': (1, 'closed')}

def test_a_link_into_a_hidden_folder_is_followed(tmp_path):
    write(tmp_path, '.store/a.jpg')
    (tmp_path/'images').symlink_to('.store')
    assert ImageFolder(tmp_path).names == ['images/a.jpg']

def test_folders_that_link_to_one_another_end(tmp_path):
    for k in range(12):
        write(tmp_path, f'{k}/a.jpg')
        for i in range(12): (tmp_path/str(k)/f'to{i}').symlink_to(tmp_path/str(i))
    listing = ImageFolder(tmp_path)
    assert len(listing.names) == 12 and listing.n == 12 + 144

@pytest.mark.parametrize('head,kind', [(b'PK\3\4' + bytes(30), 'a zip archive'), (b'PAR1', 'a Parquet file'), (b'\x1f\x8b\x08', 'a gzip file'), (b'\xef\xbb\xbf{"a": 1}', 'a JSON file'),
    (b'PK\3\4' + bytes(26) + b'[Content_Types].xml', 'a spreadsheet or document'), (b'\n<!DOCTYPE html>', 'an HTML page'), (JPEG[:64], 'an image'), (b'', 'an empty file'), (b'a,b\n1,2\n', '')])
def test_a_file_is_recognised_by_its_first_bytes(head, kind, tmp_path):
    assert kind_of(head) == kind
    (tmp_path/'images').write_bytes(head)
    for function in (require_folder, ImageFolder, find_folder_images):
        with pytest.raises(InputError, match=f"images: is {kind or 'a file'}, not a folder; "): function(tmp_path/'images')

def test_a_zip_in_place_of_a_folder_is_called_one(tmp_path):
    write(tmp_path, 'shop', content=b'PK\3\4' + bytes(30))
    assert refused(run_inprocess('convert', 'folders', tmp_path/'shop', tmp_path/'data'), 'shop: is a zip archive, not a folder; unpack it, and name the folder')

KINDS = 'tee','coat'
def layout(folder, pattern, n=20): write(folder, *(pattern.format(kind=kind, i=i) for kind in KINDS for i in range(n)))

@pytest.mark.parametrize('above', ['', 'images/', 'a/b/c/'])
def test_a_folder_too_high_is_read(above, tmp_path):
    layout(tmp_path, above + '{kind}/{i}.jpg')
    found = find_folder_images(tmp_path)
    assert set(found.categories) == set(KINDS) and found.kept_names[0] == 'coat/0.jpg' and found.splits is None

def test_splits_are_found_above_and_inside_the_categories(tmp_path):
    for k,pattern in enumerate(('{split}/{{kind}}/{{i}}.jpg','data/{split}/images/{{kind}}/{{i}}.jpg','{{kind}}/{split}/{{i}}.jpg')):
        for split in ('train','valid'): layout(tmp_path/str(k), pattern.format(split=split), 3)
        found = find_folder_images(tmp_path/str(k))
        assert found.kept_names == [f'{kind}/{i}.jpg' for _ in range(2) for kind in sorted(KINDS) for i in range(3)] and found.splits.tolist() == ['train']*6 + ['val']*6
        assert found.categories == ['coat']*3 + ['tee']*3 + ['coat']*3 + ['tee']*3

def test_what_would_be_another_data_set_is_refused(tmp_path):
    write(tmp_path/'beside', 'train/tee/1.jpg', 'coat/2.jpg')
    write(tmp_path/'one', *(f'tee/{i}.jpg' for i in range(30)))
    write(tmp_path/'empty', 'tee/1.jpg', 'coat/notes.txt')
    for folder,reason in dict(beside='coat: is beside train; move it into train, or out of', one="all images are of one category, 'tee'", empty="the folder of the category 'coat' has no images; remove it, or add some; 2 files = 1 used").items():
        assert refused(run_inprocess('convert', 'folders', tmp_path/folder, tmp_path/'data'), reason)

def test_folders_whose_names_differ_in_white_space_or_the_form_of_accents_are_one_category(tmp_path):
    write(tmp_path, 'long skirt/1.jpg', 'long  skirt/2.jpg', 'é/3.jpg', 'e\u0301/4.jpg')
    assert sorted(find_folder_images(tmp_path).categories) == ['long skirt','long skirt','é','é']

def test_splits_may_spell_a_category_in_different_ways(tmp_path):
    write(tmp_path, 'train/Café/1.jpg', 'train/tee/2.jpg', 'val/cafe\u0301/3.jpg', 'test/TEE/4.jpg')
    assert find_folder_images(tmp_path).categories == ['Café','tee','Café','tee']

def test_a_folder_to_predict_says_what_it_leaves_out(tmp_path):
    write(tmp_path, 'a.jpg', '._a.jpg', 'notes.txt')
    with pytest.warns(UserWarning, match=r'3 files = 1 used \+ 2 left out \(hidden: 1, the first ._a.jpg; no image: 1, the first notes.txt\)'): frame = read_test_list(tmp_path)
    assert frame.file_path.tolist() == ['a.jpg']

def test_examples_are_taken_from_the_folder_alone(tmp_path):
    write(tmp_path, 'a.jfif', 'deep/b.jpg', '._c.jpg')
    assert example_images(tmp_path, tmp_path) == [tmp_path/'a.jfif']

def test_paths_in_another_spelling_are_found_and_those_that_are_missing_are_named(tmp_path):
    data = tmp_path/'data'
    (data/'train').mkdir(parents=True)
    for name in ('a.jpg','b.JPG','c d.jpg','e.jpg'): (data/'train'/name).touch()
    def found(*names): return [o and o.removeprefix(f'{data}/train/') for o in find_images(names, data)]
    with pytest.warns(UserWarning, match="3 of 4 paths are used in another spelling, such as 'train/b.JPG' for 'train/b.jpg'"):
        assert found('train/a.jpg', 'train/b.jpg', 'train/c%20d.jpg', 'train\\e.jpg') == ['a.jpg','b.JPG','c d.jpg','e.jpg']
    listed = ['train/a.jpg','train/b.jpg','train/lost.jpg','train/gone.jpg']
    with pytest.warns(UserWarning, match='1 of 4 paths'):
        with pytest.raises(InputError, match='2 of 4 images are missing, the first being train/lost.jpg, train/gone.jpg; in .* there is train/'): find_images(listed, data)
        assert find_images(listed, data, strict=False) == [f'{data}/train/a.jpg', f'{data}/train/b.JPG', None, None]
    with pytest.warns(UserWarning, match='2 of 2 paths'): # a folder of another machine
        assert found('/home/ann/shop/train/a.jpg', '/home/ann/shop/train/e.jpg') == ['a.jpg','e.jpg']

@pytest.mark.parametrize('mark', [b'', b'\xef\xbb\xbf'])
def test_a_byte_in_another_encoding_is_named_with_its_line(mark):
    with pytest.raises(InputError, match='^names.txt, line 2: the byte 0xe9 is not UTF-8; save the file as UTF-8$'): decode_text(mark + b'caf\nd\xe9nim', 'names.txt')
    assert decode_text(mark + 'café'.encode(), 'names.txt') == decode_text('café'.encode('utf-16'), 'names.txt') == 'café'

def test_only_what_atomic_write_writes_is_a_leftover(tmp_path):
    own = ['.labels.20240101.csv','.labels.partial-final.csv','.labels.old.csv']
    for o in own: (tmp_path/o).touch()
    with pytest.raises(KeyboardInterrupt),atomic_write(tmp_path/'labels.csv') as f:
        killed = f.name
        raise KeyboardInterrupt
    (tmp_path/killed).touch()
    remove_leftovers(tmp_path/'labels.csv', 0)
    assert sorted(o.name for o in tmp_path.iterdir()) == sorted(own)

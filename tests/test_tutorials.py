"The tutorials come with the package: listed in order, copied to stand alone, and opened where Jupyter is installed"
import json,os,re,sys
from pathlib import Path
import pytest
from conftest import refused,run_inprocess,run_python
from fashion_fastai import tutorials
from fashion_fastai.tutorials import TUTORIALS,copy_tutorial,read_tutorial,records_folder

ROOT = Path(__file__).parent.parent
NAMES = sorted(o.stem for o in (ROOT/'nbs'/'tutorials').glob('*.ipynb'))

def prose(notebook): return [''.join(o['source']) for o in notebook['cells'] if o['cell_type'] == 'markdown']
def code(notebook): return '\n'.join(''.join(o['source']) for o in notebook['cells'] if o['cell_type'] == 'code')

def test_every_tutorial_is_in_the_list_and_on_the_front_page_in_the_same_order():
    assert sorted(TUTORIALS) == NAMES
    linked = re.findall(r'\(tutorials/(\w+)\.ipynb\)', (ROOT/'nbs'/'index.ipynb').read_text())
    assert list(dict.fromkeys(linked)) == list(TUTORIALS)

def test_each_tutorial_has_an_introduction_and_a_conclusion_that_leads_to_the_next():
    names = list(TUTORIALS)
    for name,following in zip(names, [*names[1:], names[0]]):
        cells = prose(read_tutorial(name).notebook)
        assert re.match(r'# .+\n\n> .+\n\n\w', cells[0]), name
        assert re.findall(r'\((\w+)\.ipynb\)', cells[-1])[-1:] == [following], name

def test_each_tutorial_says_what_the_full_run_gave_on_real_images():
    for name in TUTORIALS:
        text = '\n'.join(prose(read_tutorial(name).notebook))
        assert re.search('real images|real catalogue', text) or "shop's" in text, name

def test_tutorials_run_from_an_empty_folder():
    "They read no file of the checkout"
    for name in TUTORIALS: assert '../' not in code(read_tutorial(name).notebook).replace("'../../home/me/.bashrc'", ''), name
    for name in ('what_helps.json','what_helps.csv','study.csv'): assert (records_folder()/name).is_file()

def test_extras_that_a_tutorial_uses_exist():
    extras = (ROOT/'pyproject.toml').read_text()
    for extra in filter(None, TUTORIALS.values()): assert re.search(rf'^{extra} = \[', extras, re.M)

def test_the_command_lists_the_tutorials():
    done = run_inprocess('tutorial')
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and [o.split()[0] for o in lines[:len(TUTORIALS)]] == list(TUTORIALS)
    assert 'From images of garments to predictions' in lines[0]

@pytest.mark.parametrize('name', TUTORIALS)
def test_a_copy_stands_alone(name, tmp_path):
    done = run_inprocess('tutorial', name, '--no-open', cwd=tmp_path)
    assert done.returncode == 0 and f'{name}.ipynb' in done.stdout
    extra = TUTORIALS[name]
    assert not extra or f"pip install 'fashion_fastai[{extra}]'" in done.stdout
    copied,original = json.loads((tmp_path/f'{name}.ipynb').read_text(encoding='utf-8')),read_tutorial(name).notebook
    assert code(copied) == code(original) and copied['metadata'] == original['metadata']
    links = [o for text in prose(copied) for o in re.findall(r'\]\(([^)\s]+)\)', text)]
    assert [o for o in links if not re.match('[a-z]+:|#', o)] == []

def test_links_to_other_tutorials_become_commands(tmp_path):
    copied = json.loads(copy_tutorial('first_run', tmp_path).read_text(encoding='utf-8'))
    assert 'explore the data (`fashion tutorial explore_the_data`)' in prose(copied)[-1]

def test_a_copy_never_replaces_a_file(tmp_path):
    (tmp_path/'first_run.ipynb').write_text('mine')
    assert refused(run_inprocess('tutorial', 'first_run', '--no-open', cwd=tmp_path), 'first_run.ipynb exists, and may have your changes')
    assert (tmp_path/'first_run.ipynb').read_text() == 'mine'
    assert run_inprocess('tutorial', 'first_run', '--no-open', '--out', 'lessons/one', cwd=tmp_path).returncode == 0
    assert (tmp_path/'lessons'/'one'/'first_run.ipynb').is_file()

def test_an_unknown_tutorial_is_named(tmp_path):
    assert refused(run_inprocess('tutorial', 'last_run', cwd=tmp_path), "there is no tutorial 'last_run'; there are first_run, ")
    assert list(tmp_path.iterdir()) == []

def test_jupyter_of_this_environment_opens_the_copy(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(os, 'execv', lambda program, words: started.append(words))
    monkeypatch.setattr(tutorials.importlib.util, 'find_spec', lambda name: name == 'notebook' or None)
    assert run_inprocess('tutorial', 'first_run', cwd=tmp_path).returncode == 0
    assert started == [[sys.executable, '-m', 'notebook', 'first_run.ipynb']]

def test_without_jupyter_the_command_says_how_to_open_the_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(tutorials.importlib.util, 'find_spec', lambda name: None)
    done = run_inprocess('tutorial', 'first_run', cwd=tmp_path)
    assert done.returncode == 0 and 'pip install jupyterlab, then: jupyter lab first_run.ipynb' in done.stdout

def test_copying_a_tutorial_imports_nothing_heavy(tmp_path):
    heavy = ('torch','fastai','pandas','numpy','matplotlib','PIL')
    script = ("import sys; from fashion_fastai.cli.main import main\n"
              "assert main(['tutorial', 'first_run', '--no-open']) == 0\n"
              f"print(*[o for o in {heavy} if o in sys.modules], file=sys.stderr)")
    done = run_python('-c', script, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr.strip() == '', done.stderr

"Command lines in README, pages and notebooks: each one parses, and those of the README run"
import argparse,re,shlex
from pathlib import Path
from xml.etree import ElementTree
import nbformat,pytest
from conftest import SHORT,run_inprocess
from fashion_fastai.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob('*.md'), *ROOT.glob('docs/*.md'), *ROOT.glob('bench/*.md')]
NOTEBOOKS = [o for o in sorted(ROOT.glob('nbs/**/*.ipynb')) if '.ipynb_checkpoints' not in o.parts]

def texts():
    "(file, markdown) of all documents"
    for o in PAGES: yield o,o.read_text(encoding='utf-8')
    for o in NOTEBOOKS:
        for cell in nbformat.read(o, 4).cells:
            if cell.cell_type == 'markdown': yield o,cell.source

def blocks(text):
    "The code blocks of a markdown text, fenced ones and indented ones, with continued lines joined"
    fenced = re.findall(r'^```[^\n]*\n(.*?)^```', text, re.M | re.S)
    indented = re.findall(r'(?:^ {4}.*\n?)+', re.sub(r'^```.*?^```', '', text, flags=re.M | re.S), re.M)
    return [re.sub(r'\\\n\s*', '', o) for o in [*fenced, *indented]]

def without_comment(line): return re.sub(r'\s+#.*', '', line).strip()

def lines_of(text):
    "The command lines of `fashion` in a text's code blocks; what other programs start counts from its name"
    for block in blocks(text):
        for line in map(without_comment, block.splitlines()):
            if found := re.search(r'(?:^|--no-python )(fashion [a-z-]+(?: .*)?)$', line): yield found[1]

def inline(text):
    "Command lines inside of a sentence, which may be abridged"
    prose = re.sub(r'^```.*?^```|^ {4}.*', '', text, flags=re.M | re.S)
    return [' '.join(o.split()) for o in re.findall(r'(?<!`)`(fashion [^`]+)`', prose)]

BLOCK_LINES = [(f'{o.stem}: {line}', line) for o,text in texts() for line in lines_of(text)]
INLINE = [(f'{o.stem}: {line}', line) for o,text in texts() for line in inline(text)]

def parser_of(name):
    parser = argparse.ArgumentParser(f'fashion {name}', allow_abbrev=False)
    COMMANDS[name].add_options(parser)
    return parser

def options_of(parser):
    "All options of a parser and of the parsers below it"
    for o in parser._actions:
        yield from o.option_strings
        if isinstance(o, argparse._SubParsersAction):
            for below in o.choices.values(): yield from options_of(below)

def test_there_are_command_lines():
    assert len(BLOCK_LINES) > 20 and len(INLINE) > 50
    assert 'fashion train DATA --out runs/first --minutes 15' in [o for _,o in BLOCK_LINES]

@pytest.mark.parametrize('where,line', BLOCK_LINES, ids=[o for o,_ in BLOCK_LINES])
def test_a_line_of_a_code_block_parses(where, line, capsys):
    _,name,*words = shlex.split(line)
    assert name in COMMANDS, line
    try: parser_of(name).parse_args(words)
    except SystemExit as e: assert e.code == 0, capsys.readouterr().err

@pytest.mark.parametrize('where,line', INLINE, ids=[o for o,_ in INLINE])
def test_a_command_inside_of_a_sentence_exists_and_has_its_options(where, line):
    _,name,*words = shlex.split(line)
    if name in ('COMMAND','--help','--version'): return
    assert name in COMMANDS, line
    known = set(options_of(parser_of(name)))
    used = {o.split('=')[0] for o in words if re.match('--[a-z]', o)}
    assert used <= known, (line, used - known)

def test_the_recording_is_a_picture_of_commands_that_parse():
    picture = ElementTree.parse(ROOT/'nbs'/'images'/'recording.svg').getroot()
    typed = [o.text for o in picture.iter('{http://www.w3.org/2000/svg}text') if o.get('class') == 'command']
    assert [o.split()[1] for o in typed] == ['fashion','fashion','head']
    for line in typed[:2]:
        _,_,name,*words = line.split()
        parser_of(name).parse_args(words)

@pytest.mark.slow
def test_the_first_lines_of_the_readme_run(garments, tmp_path):
    "Check, train, predict and compare, with few epochs in place of the minutes"
    readme = (ROOT/'README.md').read_text(encoding='utf-8')
    lines = [o for o in lines_of(readme) if o.split()[1] in ('check','train','predict','runs')]
    assert [o.split()[1] for o in lines] == ['check','train','predict','runs']
    for line in lines:
        words = shlex.split(line.replace('DATA', str(garments)))[1:]
        if words[0] == 'train': words = [*words[:words.index('--minutes')], *SHORT]
        done = run_inprocess(*words, cwd=tmp_path)
        assert done.returncode == 0, (line, done.stderr)
    for name in ('category.csv','attribute.csv','predictions.csv'): assert (tmp_path/'submission'/name).is_file()

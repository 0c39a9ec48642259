"Write the notebooks as markdown pages for mkdocs, with signatures and documented arguments, into _proc/site; nothing is executed"
import base64,importlib,inspect,json,re,shutil
from pathlib import Path
from urllib.parse import urlparse
import yaml
from matplotlib import mathtext
from nbdev.processors import FilterDefaults,exec_show_docs,insert_warning,add_links,read_nb
from nbdev.showdoc import DocmentTbl

ROOT = Path(__file__).parent.parent
NBS,OUT = ROOT/'nbs',ROOT/'_proc'/'site'
OTHER = {'bench/README.md': 'benchmarks.md', 'CONTRIBUTING.md': 'contributing.md', 'CHANGELOG.md': 'changelog.md'}

def module_name(path): return path.stem.split('_', 1)[1]

def page_name(path):
    "Path of a notebook's page inside the site"
    if path.parent.name == 'tutorials': return f'tutorials/{path.stem}.md'
    return 'index.md' if path.stem == 'index' else f'reference/{module_name(path)}.md'

# notebooks in the order of their numbers; tutorials in the order in which the front page links to them
MODULES = sorted(NBS.glob('[0-9]*.ipynb'), key=lambda o: int(o.stem.split('_')[0]))
INDEX = NBS/'index.ipynb'
_linked = re.findall(r'\(tutorials/(\w+)\.ipynb\)', INDEX.read_text(encoding='utf-8'))
TUTORIALS = sorted((NBS/'tutorials').glob('*.ipynb'), key=lambda o: _linked.index(o.stem) if o.stem in _linked else len(_linked))

class Processors(FilterDefaults):
    "nbdev's processing without execution, and without links to a published site"
    def base_procs(self): return [o for o in super().base_procs() if o not in (exec_show_docs, insert_warning, add_links)]

def signature(obj):
    "A definition as text, a line per argument if it is long"
    name = obj.__qualname__.removesuffix('.__init__')
    try: parameters = inspect.signature(obj)
    except (TypeError, ValueError): return name
    def text(o):
        annotation = '' if o.annotation is o.empty else f':{getattr(o.annotation, "__name__", str(o.annotation))}'
        stars = {o.VAR_POSITIONAL: '*', o.VAR_KEYWORD: '**'}.get(o.kind, '')
        default = '' if o.default is o.empty else f"={getattr(o.default, '__name__', repr(o.default))}"
        return f'{stars}{o.name}{annotation}{default}'
    arguments = [text(o) for o in parameters.parameters.values() if o.name not in ('self','cls')]
    line = f"{name}({', '.join(arguments)})"
    return line if len(line) < 90 else f'{name}(\n    ' + ',\n    '.join(arguments) + ')'

def documented(module, name):
    "Heading, signature, docstring and table of arguments of one symbol"
    obj = module
    for part in name.split('.'): obj = getattr(obj, part)
    level = '#'*(3 + name.count('.'))
    parts = [f'{level} {name} {{ #{name} }}']
    if callable(obj): parts.append(f'```python\n{signature(obj)}\n```')
    if inspect.getdoc(obj) and not isinstance(obj, (str,int,float,tuple,list,dict)): parts.append(inspect.getdoc(obj))
    try: table = DocmentTbl(obj)._repr_markdown_() if callable(obj) else ''
    except Exception: table = ''
    methods = [key for key,o in vars(obj).items() if inspect.isfunction(o) and key[0] != '_' and o.__doc__] if inspect.isclass(obj) else []
    return '\n\n'.join([*parts, table, *(documented(module, f'{name}.{o}') for o in methods)]) + '\n'

def inline_math(text):
    "`$A_k$` as HTML"
    text = re.sub(r'\\(gamma)', 'γ', text)
    return '<em>' + re.sub(r'_(\w)', r'<sub>\1</sub>', text) + '</em>'

class Writer:
    "Markdown of one notebook, and the files of its figures"
    def __init__(self, path):
        self.path,self.page,self.n_files = path,OUT/page_name(path),0
        self.page.parent.mkdir(parents=True, exist_ok=True)

    def save(self, raw, suffix):
        "Write a file beside the page; returns its link"
        self.n_files += 1
        file = self.page.with_name(f'{self.page.stem}_{self.n_files}.{suffix}')
        file.write_bytes(raw)
        return file.name

    def formula(self, match):
        "A displayed formula as an image, since no script is loaded"
        file = self.page.with_name(f'{self.page.stem}_formula_{self.n_files}.svg')
        self.n_files += 1
        latex = ' '.join(match[1].split())
        mathtext.math_to_image(f'${latex.rstrip(",")}$', file, format='svg', dpi=110)
        return f'\n![{latex}]({file.name}){{ .formula }}\n'

    def link(self, match):
        "A link to a notebook or file as a link to its page"
        target = match[1]
        if urlparse(target).scheme or target.startswith('#'): return match[0]
        path = (self.path.parent/target.split('#')[0]).resolve()
        up = '../'*page_name(self.path).count('/')
        if path.suffix == '.ipynb': return f']({up}{page_name(path)})'
        relative = path.relative_to(ROOT).as_posix()
        if relative in OTHER: return f']({up}{OTHER[relative]})'
        return f']({up}{path.relative_to(NBS).as_posix()})'

    def markdown(self, text):
        text = re.sub(r'\$\$(.+?)\$\$', self.formula, text, flags=re.S)
        text = re.sub(r'(?<![\\$`])\$([^$\n`]+)\$', lambda o: inline_math(o[1]), text)
        return re.sub(r'\]\(([^)\s]+)\)', self.link, text)

    def output(self, o):
        "One stored output"
        if o.output_type == 'stream': return f"```text\n{''.join(o.text).rstrip()}\n```"
        data = {kind: ''.join(value) if isinstance(value, list) else value for kind,value in o.get('data', {}).items()}
        if 'image/png' in data: return f"![]({self.save(base64.b64decode(data['image/png']), 'png')})"
        if 'text/html' in data:
            html = re.sub(r'<style.*?</style>', '', data['text/html'], flags=re.S)
            return '<div class="table">' + re.sub(r'\n\s*', '', html) + '</div>'
        if 'text/markdown' in data: return data['text/markdown']
        return f"```text\n{data['text/plain'].rstrip()}\n```" if data.get('text/plain') else ''

    def code(self, cell, module):
        "A code cell and its outputs; cells with nothing but imports are left out"
        shown = re.fullmatch(r"show_doc\(([\w.]+).*\)", '\n'.join(o for o in cell.source.splitlines() if not o.startswith('#|')).strip())
        if shown: return documented(module, shown[1]) if not shown[1].split('.')[-1].startswith('_') else ''
        lines = [o for o in cell.source.splitlines() if o.strip() and not o.startswith('#|')]
        if not lines or all(re.match(r'(from|import|    \w|\)) ?', o) and not re.match(r'    \w+\s*=', o) for o in lines): return ''
        source = '\n'.join(o for o in cell.source.splitlines() if not o.startswith('#|')).strip()
        return '\n\n'.join([f'```python\n{source}\n```', *map(self.output, cell.get('outputs', []))])

    def write(self, module=None):
        "Write the page"
        nb = read_nb(self.path)
        first,*_ = nb.cells
        intro = ''.join(first.source)
        cells = Processors()(nb)
        cells = (nb if cells is None else cells).cells
        parts = [self.markdown(intro)]
        for cell in cells:
            if cell.cell_type == 'markdown' and cell.source.strip() != intro.strip(): parts.append(self.markdown(cell.source))
            elif cell.cell_type == 'code': parts.append(self.code(cell, module))
        self.page.write_text('\n\n'.join(filter(None, parts)) + '\n', encoding='utf-8')

def navigation():
    "The site's navigation: packages are sections, in the order of the notebooks"
    reference = []
    for path in MODULES:
        package,_,name = module_name(path).rpartition('.')
        if not package: reference.append({module_name(path): page_name(path)})
        elif reference and package.capitalize() in reference[-1]: reference[-1][package.capitalize()].append({name: page_name(path)})
        else: reference.append({package.capitalize(): [{name: page_name(path)}]})
    titles = {path: json.loads(path.read_text(encoding='utf-8'))['cells'][0]['source'] for path in TUTORIALS}
    tutorials = [{''.join(o).splitlines()[0].lstrip('# '): page_name(path)} for path,o in titles.items()]
    return [{'Overview': 'index.md'}, {'Tutorials': tutorials}, {'Reference': reference},
            {'About': [{'Benchmarks': 'benchmarks.md'}, {'Contributing': 'contributing.md'}, {'Changelog': 'changelog.md'}]}]

def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    shutil.copytree(NBS/'images', OUT/'images')
    shutil.copy(ROOT/'docs'/'style.css', OUT/'style.css')
    for source,name in OTHER.items(): shutil.copy(ROOT/source, OUT/name)
    for path in (INDEX, *TUTORIALS): Writer(path).write()
    for path in MODULES: Writer(path).write(importlib.import_module(f'fashion_fastai.{module_name(path)}'))
    settings = dict(INHERIT='../mkdocs.yml', docs_dir='site', site_dir='../site', nav=navigation())
    (OUT.parent/'mkdocs.yml').write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding='utf-8')

if __name__ == '__main__': main()

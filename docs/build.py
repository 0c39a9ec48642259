"Write the notebooks as pages for mkdocs, with documented arguments, into _proc/site; nothing is executed. `--tree`: print the packages"
import ast,base64,importlib,inspect,re,shutil,sys,textwrap,typing
from collections import Counter
from pathlib import Path
from types import UnionType
import yaml
from fastcore.docments import docments
from matplotlib import mathtext
from nbdev.processors import FilterDefaults,add_links,exec_show_docs,insert_warning,read_nb

ROOT = Path(__file__).resolve().parent.parent
NBS,OUT = ROOT/'nbs',ROOT/'_proc'/'site'
INDEX = NBS/'index.ipynb'
_PAGES = 'your_data','experiments','similar','faq','which_tool'
OTHER = {**{ROOT/'docs'/f'{o}.md': f'{o}.md' for o in _PAGES},
         ROOT/'bench'/'README.md': 'benchmarks.md', ROOT/'CONTRIBUTING.md': 'contributing.md', ROOT/'CHANGELOG.md': 'changelog.md'}
TUTORIALS_INTRO = 'Each tutorial asks one question, uses synthetic garments and needs no GPU.'
REFERENCE_INTRO = 'A page for each module, with its code at work. A module imports only from those above it.'

# notebooks in the order of their numbers; tutorials in the order in which the front page links to them
MODULES = sorted(NBS.glob('[0-9]*.ipynb'), key=lambda o: int(o.stem.split('_')[0]))
_linked = re.findall(r'\(tutorials/(\w+)\.ipynb\)', INDEX.read_text(encoding='utf-8'))
_position = {name: i for i,name in enumerate(dict.fromkeys(_linked))}
TUTORIALS = sorted((NBS/'tutorials').glob('*.ipynb'), key=lambda o: (_position.get(o.stem, len(_position)), o.stem))

def module_name(path): return path.stem.split('_', 1)[1]

def page_name(path):
    "Path of a notebook's page inside the site"
    if path in OTHER: return OTHER[path]
    if path.parent.name == 'tutorials': return f'tutorials/{path.stem}.md'
    return 'index.md' if path == INDEX else f'reference/{module_name(path)}.md'

def title_and_description(path):
    "The title of a notebook and the line below it"
    first = read_nb(path).cells[0].source.splitlines()
    return first[0].lstrip('# '),next((o.lstrip('> ') for o in first if o.startswith('>')), '')

def exported_names(path):
    "The public functions and classes that a notebook exports, without methods"
    cells = [o.source for o in read_nb(path).cells if o.cell_type == 'code' and o.source.startswith('#| export')]
    nodes = [node for o in cells for node in ast.parse(o).body if isinstance(node, (ast.FunctionDef,ast.ClassDef))]
    is_method = lambda o: any('patch' in ast.unparse(decorator) for decorator in o.decorator_list)
    return [o.name for o in nodes if o.name[0] != '_' and not is_method(o)]

def symbol_links():
    "Name -> page and anchor, of the names that one module alone exports"
    found = [(name, f'{page_name(path)}#{name}') for path in MODULES for name in exported_names(path)]
    counts = Counter(name for name,_ in found)
    return {name: link for name,link in found if counts[name] == 1}

# -- documented arguments

def type_name(annotation):
    "An annotation as short text"
    is_union = typing.get_origin(annotation) in (typing.Union, UnionType)
    if annotation is inspect.Parameter.empty: return ''
    if annotation in (None, type(None)): return 'None'
    if isinstance(annotation, str): return annotation
    if is_union: return ' | '.join(map(type_name, typing.get_args(annotation)))
    if isinstance(annotation, type) and not typing.get_args(annotation): return annotation.__name__
    return re.sub(r'\b(?:\w+\.)+(?=\w)', '', repr(annotation))

def default_text(default):
    "A default as text, without addresses in memory"
    text = getattr(default, '__name__', None) or repr(default)
    return f'{type(default).__name__}()' if ' at 0x' in text else text

def signature(obj, with_types):
    "A call as text; types are left out if a table has them"
    name = obj.__qualname__
    try: parameters = inspect.signature(obj).parameters.values()
    except (TypeError, ValueError): return name
    def text(o):
        stars = {o.VAR_POSITIONAL: '*', o.VAR_KEYWORD: '**'}.get(o.kind, '')
        shows_type = with_types and o.annotation is not o.empty
        annotation = f":{type_name(o.annotation).replace(' | ', '|')}" if shows_type else ''
        default = '' if o.default is o.empty else f'={default_text(o.default)}'
        return f'{stars}{o.name}{annotation}{default}'
    arguments = [text(o) for o in parameters if o.name not in ('self','cls')]
    line = f"{name}({', '.join(arguments)})"
    if len(line) <= 88: return line
    unbroken = ', '.join(o.replace(' ', '\0') for o in arguments) # lines break between arguments
    wrapped = textwrap.fill(unbroken, 84, initial_indent='    ', subsequent_indent='    ', break_long_words=False)
    return f'{name}(\n{wrapped})'.replace('\0', ' ')

def cell_text(text):
    "Text for a cell of a markdown table; code is left alone, where no character is special"
    parts = re.split('(`[^`]*`)', text)
    escapes = {'|': '\\|', '{': '&#123;', '<': '&lt;'}
    return ''.join(o if o.startswith('`') else re.sub(r'[|{<]', lambda match: escapes[match[0]], o) for o in parts)

def arguments_table(obj):
    "The documented arguments of a function or class as a markdown table; empty if none is documented"
    try: documented = docments(obj, full=True)
    except Exception: return '' # built-in and generated functions have no source
    if inspect.isclass(obj): documented.pop('return', None)
    if not any(o.docment for o in documented.values()): return ''
    empty = inspect.Parameter.empty
    def row(name, o):
        is_from_default = o.default is None and type_name(o.anno) == 'None'
        annotation = '' if is_from_default else type_name(o.anno)
        return dict(argument='**returns**' if name == 'return' else f'`{name}`',
            type=annotation and f'`{annotation}`{{ .type }}',
            default='' if o.default is empty else f'`{default_text(o.default)}`{{ .default }}',
            meaning=cell_text(o.docment or ''))
    rows = [row(name, o) for name,o in documented.items() if name not in ('self','cls')]
    if 'return' in documented and not (rows[-1]['type'] or rows[-1]['meaning']): rows.pop()
    if not rows: return ''
    columns = [o for o in rows[0] if any(row[o] for row in rows)]
    lines = [' | '.join(o) for o in [columns, ['---']*len(columns), *([row[o] for o in columns] for row in rows)]]
    return '<div class="arguments" markdown>\n\n' + '\n'.join(f'| {o} |' for o in lines) + '\n\n</div>'

def docstring(obj):
    "The docstring of an object itself; signatures that dataclass and NamedTuple generate are none"
    text = inspect.cleandoc(getattr(obj, '__doc__', None) or '')
    is_generated = inspect.isclass(obj) and text.startswith(f'{obj.__name__}(')
    return '' if is_generated else text

def public_members(cls):
    "Names of a class's own documented methods and properties"
    def documented(o):
        is_method = inspect.isfunction(o) or isinstance(o, (classmethod,staticmethod,property))
        return is_method and getattr(o, '__doc__', None)
    return [name for name,o in vars(cls).items() if name[0] != '_' and documented(o)]

def document(module, name):
    "Heading, signature, docstring and table of arguments of one symbol, and of its members"
    obj = module
    for part in name.split('.'): obj = getattr(obj, part)
    level = '#'*(3 + name.count('.'))
    heading = f'{level} {name} {{ #{name} data-toc-label="{name.rpartition(".")[2]}" }}'
    table = arguments_table(obj) if callable(obj) else ''
    call = f'```{{ .python .signature }}\n{signature(obj, with_types=not table)}\n```' if callable(obj) else ''
    members = public_members(obj) if inspect.isclass(obj) else []
    parts = [heading, call, docstring(obj), table, *(document(module, f'{name}.{o}') for o in members)]
    return '\n\n'.join(filter(None, parts))

# -- pages

class Processors(FilterDefaults):
    "nbdev's processing without execution, and without links to a published site"
    left_out = add_links,exec_show_docs,insert_warning
    def base_procs(self): return [o for o in super().base_procs() if o not in self.left_out]

def without_directives(source): return '\n'.join(o for o in source.splitlines() if not o.startswith('#|')).strip()

def is_imports(source):
    "Whether the code is nothing but imports and comments"
    try: return all(isinstance(o, (ast.Import,ast.ImportFrom)) for o in ast.parse(source).body)
    except SyntaxError: return False

def text_block(text):
    "A text output; one of few lines may be wrapped, since it is no table"
    kind = '.text .wrapped' if text.count('\n') < 3 else '.text'
    return f'```{{ {kind} }}\n{text.rstrip()}\n```' if text.strip() else ''

def inline_math(text):
    "`$A_k$` as HTML"
    text = text.replace(r'\gamma', 'γ')
    return '<em>' + re.sub(r'_(\w)', r'<sub>\1</sub>', text) + '</em>'

CODE = re.compile(r'^```.*?^```|^(?: {4}[^\n]*\n?)+|`[^`\n]+`', re.M | re.S)

class Writer:
    "The page of one notebook or markdown file, and the files of its figures"
    def __init__(self, path, symbols):
        self.path,self.symbols,self.n_files = path,symbols,0
        self.page = OUT/page_name(path)
        self.up = '../'*page_name(path).count('/')
        self.page.parent.mkdir(parents=True, exist_ok=True)

    def new_file(self, suffix):
        "Path of a new file beside the page"
        self.n_files += 1
        return self.page.with_name(f'{self.page.stem}_{self.n_files}.{suffix}')

    def formula(self, match):
        "A displayed formula as an image, since no script is loaded"
        file,latex = self.new_file('svg'),' '.join(match[1].split())
        mathtext.math_to_image(f"${latex.rstrip(',')}$".replace(r'\frac', r'\dfrac'), file, format='svg', dpi=140)
        return f'\n![{latex}]({file.name}){{ .formula }}\n'

    def link(self, match):
        "A link to a notebook or file as a link to its page; to a file outside of the site as text"
        text,target = match[1],match[2]
        if re.match(r'[a-z]+:|#', target): return match[0]
        name,hash,anchor = target.partition('#')
        path = (self.path.parent/name).resolve()
        if path.suffix == '.ipynb' or path in OTHER: return f'[{text}]({self.up}{page_name(path)}{hash}{anchor})'
        return f'[{text}]({self.up}{path.relative_to(NBS).as_posix()})' if path.is_relative_to(NBS) else text

    def code_link(self, code):
        "Inline code that names a symbol of another page, as a link"
        target = self.symbols.get(code.strip('`'))
        is_here = target and target.startswith(page_name(self.path) + '#')
        return f'[{code}]({self.up}{target})' if target and not is_here else code

    def markdown(self, text):
        "Markdown of a cell: links and formulas outside of code, and links from names of symbols"
        code = CODE.findall(text)
        numbers = iter(range(len(code)))
        text = CODE.sub(lambda _: f'\0{next(numbers)}\0', text)
        unlinked = ''.join(re.findall(r'\[[^\]]*\]\(|^#.*', text, re.M)) # link texts and headings
        text = re.sub(r'\[([^\[\]]*)\]\(([^)\s]+)\)', self.link, text)
        text = re.sub(r'\$\$(.+?)\$\$', self.formula, text, flags=re.S)
        text = re.sub(r'(?<!\\)\$([^$\n]+)\$', lambda o: inline_math(o[1]), text)
        def restore(match):
            original = code[int(match[1])]
            return original if match[0] in unlinked else self.code_link(original)
        return re.sub(r'\0(\d+)\0', restore, text)

    def output(self, o):
        "One stored output"
        if o.output_type == 'stream': return text_block(''.join(o.text)) if o.name == 'stdout' else ''
        data = {kind: ''.join(value) for kind,value in o.get('data', {}).items()}
        if 'image/png' in data:
            file = self.new_file('png')
            file.write_bytes(base64.b64decode(data['image/png']))
            return f'![]({file.name})'
        if 'text/html' in data: # progress bars are left out
            table = re.search(r'<table.*</table>', data['text/html'], re.S)
            if not table: return ''
            html = re.sub(r'<(table|tr|th|td)\b[^>]*?((?: (?:row|col)span="\d+")*)[^>]*>', r'<\1\2>', table[0])
            return '<div class="output">' + re.sub(r'\n\s*', '', html) + '</div>'
        if 'text/markdown' in data: return data['text/markdown']
        return text_block(data.get('text/plain', ''))

    def code(self, cell, module):
        "A code cell with its outputs, or the documentation of the symbol that it shows; cells of imports are left out"
        source = without_directives(cell.source)
        shown = re.fullmatch(r'show_doc\(([\w.]+).*\)', source)
        if shown: return '' if shown[1].rpartition('.')[2].startswith('_') else document(module, shown[1])
        if is_imports(source): return ''
        return '\n\n'.join([f'```python\n{source}\n```', *filter(None, map(self.output, cell.get('outputs', [])))])

    def write(self, parts):
        "Write `parts` below the title and the description"
        title,description = title_and_description(self.path) if self.path.suffix == '.ipynb' else ('','')
        head = {k: v for k,v in dict(title=title, description=description).items() if v} if self.path != INDEX else {}
        front = f'---\n{yaml.safe_dump(head, allow_unicode=True, width=1000)}---\n\n' if head else ''
        self.page.write_text(front + '\n\n'.join(filter(None, parts)) + '\n', encoding='utf-8')

    def write_notebook(self, module=None):
        "Write the page of a notebook; nbdev takes title and introduction out of the first cell, which is kept here"
        nb = read_nb(self.path)
        intro = nb.cells[0].source
        parts = [self.markdown(intro)]
        for cell in (Processors()(nb) or nb).cells:
            if not cell.get('source') or cell.source.strip() == intro.strip(): continue
            if cell.cell_type == 'markdown': parts.append(self.markdown(cell.source))
            elif cell.cell_type == 'code': parts.append(self.code(cell, module))
        self.write(parts)

    def write_text(self): self.write([self.markdown(self.path.read_text(encoding='utf-8'))])

# -- navigation

def sections():
    "Package -> notebooks of its modules; a module outside of packages stands alone. In the order of the numbers"
    found = []
    for path in MODULES:
        package = module_name(path).rpartition('.')[0]
        if package and found and found[-1][0] == package: found[-1][1].append(path)
        else: found.append((package, [path]))
    return found

def tree():
    "The packages from the ground up, a line each: the modules of a package, or what a module outside of packages is for"
    def line(package, paths):
        if not package: return f'{module_name(paths[0]):<15}{title_and_description(paths[0])[1]}'
        return f"{package + '/':<15}{' · '.join(module_name(o).rpartition('.')[2] for o in paths)}"
    return '\n'.join(line(*o) for o in sections())

def navigation():
    "The site's navigation"
    reference = ['reference/index.md']
    for package,paths in sections():
        pages = [{module_name(o).rpartition('.')[2]: page_name(o)} for o in paths]
        reference += [{package: pages}] if package else pages
    tutorials = ['tutorials/index.md', *({title_and_description(o)[0]: page_name(o)} for o in TUTORIALS)]
    about = [{'Questions': 'faq.md'}, {'Which tool when': 'which_tool.md'}, {'Benchmarks': 'benchmarks.md'},
        {'Contributing': 'contributing.md'}, {'Changelog': 'changelog.md'}]
    overview = [{'Overview': 'index.md'}, {'Your data': 'your_data.md'}, {'Examine, tune, repeat': 'experiments.md'},
        {'Find, compare, label next': 'similar.md'}]
    return [*overview, {'Tutorials': tutorials}, {'Reference': reference}, {'About': about}]

def write_list(name, heading, header, intro, paths):
    "A page that lists notebooks with their descriptions"
    described = [(*title_and_description(o), Path(page_name(o)).name) for o in paths]
    rows = [f'| [{title}]({page}) | {description} |' for title,description,page in described]
    text = '\n'.join([f'# {heading}\n', f'{intro}\n', header, '|---|---|', *rows])
    (OUT/name).write_text(text + '\n', encoding='utf-8')

def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    shutil.copytree(NBS/'images', OUT/'images')
    shutil.copy(ROOT/'docs'/'style.css', OUT/'style.css')
    symbols = symbol_links()
    for path in OTHER: Writer(path, symbols).write_text()
    for path in (INDEX, *TUTORIALS): Writer(path, symbols).write_notebook()
    for path in MODULES:
        module = importlib.import_module(f'fashion_fastai.{module_name(path)}')
        Writer(path, symbols).write_notebook(module)
    write_list('tutorials/index.md', 'Tutorials', '| tutorial | topic |', TUTORIALS_INTRO, TUTORIALS)
    write_list('reference/index.md', 'Reference', '| module | purpose |', REFERENCE_INTRO, MODULES)
    settings = dict(INHERIT='../mkdocs.yml', docs_dir='site', site_dir='../site', nav=navigation())
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    (OUT.parent/'mkdocs.yml').write_text(text, encoding='utf-8')

if __name__ == '__main__':
    if sys.argv[1:] == ['--tree']: print(tree())
    else: main()

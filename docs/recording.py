"Record a minute of training and a prediction as an SVG that plays: python docs/recording.py nbs/images/recording.svg"
import html,os,shlex,subprocess,sys,tempfile,textwrap,time
from pathlib import Path
from fashion_fastai.core import atomic_write
from fashion_fastai.data.synthetic import draw_garments

COMMANDS = ['fashion train garments --out run --minutes 1', 'fashion predict run garments/test.csv --out submission',
            'head -4 submission/attribute.csv']
COLUMNS,ROW,LETTER,MARGIN = 138,19,7.85,16 # characters per line; pixels
FASTER,PAUSE = 6,1.5 # than it was; seconds of the longest pause

STYLE = """
text { font: 13px ui-monospace, Menlo, Consolas, monospace; fill: #d8dee9; white-space: pre; opacity: 0; animation: appear .2s forwards }
.command { fill: #a3e19a; font-weight: bold }
@keyframes appear { to { opacity: 1 } }
@media (prefers-reduced-motion: reduce) { text { animation: none; opacity: 1 } }
"""

def record(command, folder, start):
    "(seconds since `start`, line, whether it is the command) of a command and of what it prints"
    yield time.monotonic() - start,f'$ {command}',True
    words = shlex.split(command)
    if words[0] == 'fashion': words[0] = str(Path(sys.executable).with_name('fashion'))
    env = {**os.environ, 'PYTHONUNBUFFERED': '1', 'XDG_CACHE_HOME': str(folder/'cache')}
    with subprocess.Popen(words, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout: yield time.monotonic() - start,line.rstrip().replace(f'{folder}/', ''),False
    if process.returncode: sys.exit(f'{command}: exit code {process.returncode}')

def svg(lines):
    "Recorded lines as a picture that plays once, and then stays"
    rows,before,now = [],0,.5
    for seconds,line,is_command in lines:
        now,before = now + min((seconds - before)/FASTER, PAUSE),seconds
        rows += [(now, row, is_command) for row in textwrap.wrap(line, COLUMNS, subsequent_indent='    ') or ['']]
    width,height = round(COLUMNS*LETTER + 2*MARGIN),len(rows)*ROW + 2*MARGIN
    def text(i, seconds, row, is_command):
        kind = ' class="command"' if is_command else ''
        return (f'<text{kind} x="{MARGIN}" y="{MARGIN + ROW*i + 14}" xml:space="preserve" '
                f'style="animation-delay: {seconds:.2f}s">{html.escape(row)}</text>')
    minutes = lines[-1][0]/60
    title = f'A recording of {minutes:.1f} minutes, {FASTER} times as fast and with shorter pauses: ' + ', then '.join(COMMANDS)
    return '\n'.join([f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f'<title>{html.escape(title)}</title>', f'<style>{STYLE}</style>',
        f'<rect width="{width}" height="{height}" rx="8" fill="#1e2430"/>',
        *(text(i, *row) for i,row in enumerate(rows)), '</svg>', ''])

def main(path):
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        draw_garments(folder/'garments', n=2000)
        start = time.monotonic()
        lines = [line for command in COMMANDS for line in record(command, folder, start)]
    with atomic_write(path) as f: f.write_text(svg(lines), encoding='utf-8')
    for seconds,line,_ in lines: print(f'{seconds:6.1f}  {line}')

if __name__ == '__main__': main(sys.argv[1])

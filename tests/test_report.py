"The report page in a real browser, the report of a run whose images or files are gone, and runs side by side"
import html,json,re,shutil,subprocess,sys
import numpy as np,pandas as pd
import pytest
from conftest import SHORT,run_cli,run_inprocess,refused
from fashion_fastai.data.labels import read_labels

CHROMIUM = next(filter(None, map(shutil.which, ('chromium','chromium-browser','google-chrome'))), None)

@pytest.fixture(scope='module')
def reported(run, tmp_path_factory):
    "A copy of the short run, with its report"
    copy = tmp_path_factory.mktemp('reported')/'a run & its <report>'
    shutil.copytree(run, copy)
    done = run_inprocess('report', copy)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{copy/'report.html'}\n", '')
    return copy

_MEASURE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">%s<script>
onload = () => { const seen = [...document.querySelectorAll('iframe')].map(o => ({
    width: o.width, needed: o.contentDocument.documentElement.scrollWidth,
    broken: [...o.contentDocument.images].filter(i => !i.naturalWidth).length, images: o.contentDocument.images.length,
    outside: o.contentWindow.performance.getEntriesByType('resource').map(r => r.name).filter(n => !n.startsWith('data:'))}))
  document.body.innerHTML = ''; document.body.textContent = JSON.stringify(seen) }
</script>"""

def measure(page, tmp_path):
    "What a browser finds in HTML `page` at phone and desktop width, and the lines of its console"
    frames = ''.join(f'<iframe width="{width}" height="800" srcdoc="{html.escape(page)}"></iframe>' for width in (390,1280))
    (tmp_path/'measure.html').write_text(_MEASURE % frames, encoding='utf-8')
    options = ['--headless','--no-sandbox','--disable-gpu','--disable-quic','--no-first-run','--disable-background-networking','--disable-component-update','--disable-sync',
        '--host-resolver-rules=MAP * ~NOTFOUND','--enable-logging=stderr','--virtual-time-budget=20000',f"--user-data-dir={tmp_path/'profile'}"]
    done = subprocess.run([CHROMIUM, *options, '--dump-dom', f"file://{tmp_path/'measure.html'}"], capture_output=True, text=True, timeout=120)
    assert (found := re.search(r'<body>(\[.*\])</body>', done.stdout, re.S)), done.stderr
    return json.loads(html.unescape(found[1])),[o for o in done.stderr.splitlines() if 'CONSOLE' in o]

@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason='there is no chromium here (apt-get install chromium)')
class TestInABrowser:
    def test_the_page_is_complete_and_fits(self, reported, tmp_path):
        page = (reported/'report.html').read_text(encoding='utf-8')
        seen,console = measure(page, tmp_path)
        assert console == []
        assert [o['width'] for o in seen] == ['390','1280']
        for o in seen: assert o['needed'] <= int(o['width']) and o['broken'] == 0 and o['images'] >= 8 and o['outside'] == [], o

    def test_the_measurement_finds_faults(self, tmp_path):
        page = '<body><p style="width:500px">wide</p><img src="data:image/png;base64,AAAA"><img src="http://example.com/a.png"><script>console.error("oh")</script>'
        (phone,desktop),console = measure(page, tmp_path)
        assert phone['needed'] > 390 and desktop['needed'] <= 1280 and phone['broken'] == 2 and phone['outside'] == ['http://example.com/a.png']
        assert any('oh' in o for o in console)

def test_a_training_ends_with_a_report(garments, tmp_path):
    done = run_inprocess('train', garments, '--out', tmp_path/'run', *SHORT, '--report', 'yes')
    assert done.returncode == 0 and done.stderr == '' and 'report.html' in done.stdout.splitlines()[-1], done.stderr
    page = (tmp_path/'run'/'report.html').read_text(encoding='utf-8')
    metrics = json.loads((tmp_path/'run'/'metrics.json').read_text())
    for o in (f"{metrics['accuracy']:.3f}", f"{metrics['mean_f1']:.3f}", str(garments), 'Time per phase', 'backward', 'Grad-CAM'): assert o in page, o
    assert len(page) < 3_000_000

@pytest.mark.slow
def test_names_that_look_like_formulas_are_drawn_as_they_are(garments, tmp_path):
    data,names = tmp_path/'data',read_labels(garments).vocab
    data.mkdir()
    for o in ('train','val'): (data/o).symlink_to(garments/o)
    for o in ('train.csv','val.csv'):
        frame = pd.read_csv(garments/o).assign(file_path=lambda frame: frame.file_path.str.split('/', n=1).str[1])
        frame.rename(columns={o: f'{o} $10^_$' for o in names.attributes}).to_csv(data/o, index=False)
    (data/'classes.txt').write_text(''.join(f'{o} $10^_$\n' for o in names.categories))
    done = run_inprocess('train', data, '--out', tmp_path/'run', *SHORT[:-2], '--report', 'yes')
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert 'dress $10^_$' in (tmp_path/'run'/'report.html').read_text(encoding='utf-8')
    history = pd.read_csv(tmp_path/'run'/'history.csv')
    history.assign(size='$^_$').to_csv(tmp_path/'run'/'history.csv', index=False) # as in a stranger's folder
    assert run_inprocess('report', tmp_path/'run').returncode == 0

@pytest.mark.slow
def test_a_report_that_fails_costs_no_training(garments, tmp_path):
    broken = "import sys; import fashion_fastai.report.page as r; from fashion_fastai.cli.main import main\ndef fail(*args): raise RuntimeError('no ink')\nr.write_report = fail\nsys.exit(main(sys.argv[1:]))"
    done = run_cli('train', garments, '--out', tmp_path/'run', *SHORT, '--epochs', 1, '--report', 'yes', command=(sys.executable, '-W', 'ignore', '-c', broken))
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 1 and 'the run is saved, but its report could not be written (RuntimeError: no ink)' in done.stderr, done.stderr
    assert (tmp_path/'run'/'metrics.json').is_file() and not (tmp_path/'run'/'report.html').exists() and not (tmp_path/'run'/'checkpoint.pt').exists()

def test_images_and_files_that_are_gone(reported, tmp_path):
    run = tmp_path/'run'
    shutil.copytree(reported, run)
    found = dict(np.load(run/'validation.npz'))
    np.savez_compressed(run/'validation.npz', **{**found, 'images': np.array([f'/gone/{o}' for o in range(len(found['images']))])})
    for remove,words in (('', 'The images are missing'), ('model.json', 'No heat maps'), ('validation.npz', 'No predictions'), ('metrics.json', 'unfinished: 2 epochs')):
        if remove: (run/remove).unlink()
        assert run_inprocess('report', run).returncode == 0 and words in (run/'report.html').read_text(encoding='utf-8')
    (run/'metrics.json').write_text('{"accuracy": 0.5')
    assert run_inprocess('report', run).returncode == 0 and 'damaged: metrics.json cannot be read' in (run/'report.html').read_text(encoding='utf-8')
    assert refused(run_inprocess('report', tmp_path), 'contains no run')
    assert refused(run_inprocess('report', tmp_path/'nowhere'), 'no such folder')

def test_runs_side_by_side(run, tmp_path):
    runs = tmp_path/'runs'
    for o in ('good','better','cut','stopped'): shutil.copytree(run, runs/o)
    metrics = json.loads((run/'metrics.json').read_text())
    (runs/'better'/'metrics.json').write_text(json.dumps({**metrics, 'accuracy': .99}))
    settings = (run/'settings.ini').read_text()
    (runs/'better'/'settings.ini').write_text(re.sub('^lr = .*', 'lr = 0.02', settings, flags=re.M))
    (runs/'cut'/'metrics.json').write_bytes((run/'metrics.json').read_bytes()[:100])
    (runs/'stopped'/'metrics.json').unlink()
    done = run_inprocess('runs', runs, '--csv', tmp_path/'runs.csv')
    assert done.returncode == 0 and done.stderr == '', done.stderr
    assert [o.split()[0] for o in done.stdout.splitlines()] == ['run','better','good','cut','stopped']
    assert 'damaged: metrics.json' in done.stdout and 'unfinished: 2 epochs' in done.stdout
    table = pd.read_csv(tmp_path/'runs.csv', keep_default_na=False, na_values=[''])
    ranking = ['category_top_3','category_top_5','attribute_recall_top_3','attribute_recall_top_5','mean_average_precision','macro_f1','micro_f1']
    assert table.columns.tolist() == ['run','accuracy','mean_f1',*ranking,'minutes','images_per_second','problem','lr'] and table.macro_f1[1] == metrics['macro_f1'] and table.lr[0] == .02 and table.accuracy[0] == .99
    assert refused(run_inprocess('runs', tmp_path/'nowhere'), 'no such folder')
    (tmp_path/'empty').mkdir()
    assert refused(run_inprocess('runs', tmp_path/'empty'), 'contains no runs')

def test_logit_adjustment_reaches_the_submission_and_the_report(garments, tmp_path):
    "So strong an adjustment leaves nothing but rare categories"
    out = tmp_path/'run'
    done = run_inprocess('train', garments, '--out', out, *SHORT[:-2], '--report', 'yes', '--logit-adjustment', '1000')
    assert done.returncode == 0, done.stderr
    shares = json.loads((out/'model.json').read_text())['constant']['category_shares']
    rarest = {k for k,o in enumerate(shares) if o == min(shares)}
    assert run_inprocess('predict', out, garments/'test.csv', '--out', tmp_path/'submission').returncode == 0
    assert set(pd.read_csv(tmp_path/'submission'/'category.csv').category_label) <= rarest
    metrics = json.loads((out/'metrics.json').read_text())
    assert sum(o['recall'] > 0 for o in metrics['categories'].values()) <= len(rarest)
    assert 'Logit adjustment' in (out/'report.html').read_text() and 'logit_adjustment = 1000' in (out/'settings.ini').read_text()

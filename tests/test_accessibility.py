"Report, data card, web page and API page in a browser: axe-core's rules, the keyboard, a phone's width, and paper"
import importlib.util,shutil
from pathlib import Path
import pytest
from conftest import run_inprocess,train
from test_app import served

ROOT = Path(__file__).parent.parent
AXE = ROOT/'.venv'/'axe'/'axe.min.js'
CHROMIUM = next(filter(None, map(shutil.which, ('chromium','chromium-browser','google-chrome'))), None)
OPTIONS = ['--no-sandbox','--disable-gpu','--disable-quic','--no-first-run','--disable-background-networking','--disable-component-update',
    '--disable-sync','--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1']
pytestmark = [pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec('playwright'), reason='playwright is not installed: make .venv/web/ready'),
    pytest.mark.skipif(CHROMIUM is None, reason='there is no chromium here (apt-get install chromium)'),
    pytest.mark.skipif(not AXE.is_file(), reason='axe-core is not here: make axe')]

@pytest.fixture(scope='module')
def tab():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser.new_page()
        browser.close()

def violations(tab):
    "What axe-core's rules of WCAG 2.1 A and AA, and its best practices, find on the page"
    tab.add_script_tag(path=str(AXE))
    found = tab.evaluate("axe.run(document, {runOnly: ['wcag2a','wcag2aa','wcag21a','wcag21aa','best-practice']})")['violations']
    return [(o['id'], o['help'], [node['html'][:150] for node in o['nodes'][:3]]) for o in found]

@pytest.fixture(scope='module')
def pages(garments, tmp_path_factory):
    "Files of a report with all sections, and of a data card"
    folder = tmp_path_factory.mktemp('pages')
    run = train(garments, folder/'run', '--recipe', 'demo', '--stages', '32x24:1', '--report', 'yes')
    assert run_inprocess('check', garments, '--out', folder/'card.html').returncode == 0
    return dict(report=run/'report.html', card=folder/'card.html')

@pytest.mark.parametrize('name', ['report','card'])
class TestPages:
    @pytest.fixture(autouse=True)
    def page(self, name, pages, tab):
        tab.set_viewport_size(dict(width=1200, height=900))
        tab.goto(pages[name].as_uri())

    @pytest.mark.parametrize('width', [1200, 390])
    def test_axe_finds_nothing(self, name, tab, width):
        tab.set_viewport_size(dict(width=width, height=900))
        assert violations(tab) == []

    def test_everything_that_scrolls_is_reached_by_the_keyboard(self, name, tab):
        tab.set_viewport_size(dict(width=390, height=800))
        unreachable = """[...document.querySelectorAll('*')].filter(o => o.scrollWidth > o.clientWidth + 1 &&
            ['auto','scroll'].includes(getComputedStyle(o).overflowX) && o.tabIndex < 0).length"""
        assert tab.evaluate(unreachable) == 0
        assert tab.evaluate('document.documentElement.scrollWidth') <= 390

    def test_it_prints_on_a4_without_losing_the_right_edge(self, name, tab, tmp_path):
        tab.pdf(path=tmp_path/'page.pdf', format='A4', margin=dict(top='15mm', bottom='15mm', left='15mm', right='15mm'))
        tab.emulate_media(media='print')
        tab.set_viewport_size(dict(width=680, height=1000)) # 180 mm
        try: assert tab.evaluate('document.documentElement.scrollWidth') <= 680
        finally: tab.emulate_media(media='screen')
        assert (tmp_path/'page.pdf').read_bytes().count(b'/Type /Page\n') <= 20

# of components that gradio draws: labels of what is empty, example images without names, colours of its buttons and tabs
OF_GRADIO = 'aria-prohibited-attr','button-name','color-contrast'

@pytest.mark.parametrize('options', [['--api'], ['--no-browser']], ids=['api','page'])
def test_axe_finds_nothing_in_what_is_served(options, run, tab, tmp_path):
    with served(run, tmp_path, *options) as page:
        tab.goto(page.url)
        if '--api' not in options:
            tab.get_by_role('heading').first.wait_for(timeout=60_000)
            tab.wait_for_function("!document.body.innerText.includes('Loading...')", timeout=60_000)
        for width in (1200, 390):
            tab.set_viewport_size(dict(width=width, height=900))
            tab.screenshot(path=tmp_path/f'{width}.png', full_page=True)
            found = violations(tab)
            assert [o for o in found if o[0] not in (OF_GRADIO if '--api' not in options else ())] == []
            assert tab.evaluate('document.documentElement.scrollWidth') <= width

def test_axe_finds_planted_faults(tab):
    tab.set_content('<html><body><img src="data:image/gif;base64,R0lGODlhAQABAAAAACw="><p style="color:#aaa">pale</p><input></body></html>')
    assert {'image-alt','color-contrast','label','html-has-lang','document-title'} <= {o[0] for o in violations(tab)}

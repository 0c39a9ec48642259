"requirements.lock: the tested versions parse, satisfy what the package asks for on every Python, and are those that the README names"
import re,sys
from importlib.metadata import version
from pathlib import Path
import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PYTHONS = ['3.10.13','3.11.7','3.12.1','3.13.0','3.14.0']
LOCKED = [Requirement(o) for o in (ROOT/'requirements.lock').read_text().splitlines() if o and o[0] != '#']

def normal(name): return re.sub('[-_.]+', '-', name).lower()

def asked(extra='dev'):
    "What the package asks for, and one of its extras"
    lines = (ROOT/'requirements.txt').read_text().split('\n')
    extras = (ROOT/'pyproject.toml').read_text().split('[project.optional-dependencies]')[1]
    lines += re.findall('"([^"]+)"', re.search(rf'^{extra} = \[(.*?)\]$', extras, re.M | re.S)[1])
    return [Requirement(o) for o in lines if o]

def locked_on(python, system='linux'):
    "Name -> version, on a Python and a system"
    environment = {**default_environment(), 'python_version': '.'.join(python.split('.')[:2]), 'python_full_version': python,
        'implementation_name': 'cpython', 'platform_python_implementation': 'CPython', 'sys_platform': system, 'extra': '',
        'platform_system': dict(linux='Linux', darwin='Darwin', win32='Windows')[system]}
    found = {}
    for o in LOCKED:
        if o.marker and not o.marker.evaluate(environment): continue
        assert normal(o.name) not in found, f'{o.name} has two versions on Python {python}'
        found[normal(o.name)] = next(iter(o.specifier)).version
    return found

def test_each_line_is_one_version_and_names_no_host():
    assert len(LOCKED) > 100
    for o in LOCKED:
        specifier, = o.specifier
        assert specifier.operator == '==' and '*' not in specifier.version and not o.url, o
    assert '//' not in (ROOT/'requirements.lock').read_text()

@pytest.mark.parametrize('system', ['linux','darwin','win32'])
@pytest.mark.parametrize('python', PYTHONS)
def test_the_locked_versions_satisfy_what_is_asked_for(python, system):
    found = locked_on(python, system)
    for o in asked(): assert o.specifier.contains(found[normal(o.name)]), (o, found[normal(o.name)])

def test_newer_versions_of_torch_are_allowed():
    for o in asked():
        if o.name in ('torch','torchvision','numpy','pillow'): assert not any(s.operator in ('<','<=','==','~=') for s in o.specifier), o

def test_the_readme_ends_with_tested_versions():
    last = (ROOT/'README.md').read_text().strip().splitlines()[-1]
    found = locked_on('3.11.7')
    for name in ('torch','fastai'): assert f'{name} {found[name]}' in last, last
    assert 'requirements.lock' in last and re.search(r'Python 3\.10', last)

@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason='the other versions of Python have their own')
def test_these_tests_run_with_the_locked_versions():
    found = locked_on(sys.version.split()[0])
    for name in ('torch','torchvision','fastai','fastcore','numpy','pandas','scikit-learn','pillow'):
        if version(name).split('+')[0] != found[name]: pytest.skip(f'{name} is {version(name)}, not {found[name]}: make .venv/ready LOCKED=yes')

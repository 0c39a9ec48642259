PYTHON ?= python3
BIN := .venv/bin
README ?= README.md

.PHONY: help demo test test-fast soak gpu bench notebooks readme docs lock axe

help:      ## this list
	@grep -E '^[a-z-]+: .*##' Makefile | sed -E 's/:[^#]*## /	/'

demo: .venv/ready    ## the whole loop on synthetic garments: data, training, scores, both submission files
	$(BIN)/fashion demo --out fashion_demo --overwrite

# Tests run in two processes of one thread each: most are short and dominated by imports. The notebooks of the web page need its environment.
WEB_NOTEBOOKS = $(wildcard nbs/*_serve.*.ipynb)
TEST_NB = -c "import sys; from nbdev.test import test_nb; sys.exit(not all([test_nb(o)[0] for o in sys.argv[1:]]))"

test test-fast soak gpu: export XDG_CACHE_HOME = $(CURDIR)/.venv/cache
test test-fast soak gpu: export OMP_NUM_THREADS = 1
# LOCKED=yes: with the versions of requirements.lock

test: .venv/web/ready    ## all notebooks, the tests, the web page in a browser, the site
	$(BIN)/python -W ignore tests/run_notebooks.py
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m 'not soak' --ignore tests/test_app.py --ignore tests/test_accessibility.py tests
	.venv/web/bin/python -m pytest -q tests/test_app.py tests/test_accessibility.py
	.venv/web/bin/python $(TEST_NB) $(WEB_NOTEBOOKS)

test-fast: .venv/ready    ## the tests that take less than two minutes, for every day
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m 'not soak and not slow' --ignore tests/test_app.py tests

soak: .venv/ready    ## the long tests: twenty kills, many broken tables and images
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m soak tests

gpu: .venv/ready    ## on a machine with a GPU: all that only a GPU can show, in less than ten minutes; a record goes to bench/results/ (without one, the same on the CPU)
	$(BIN)/python -m pytest -q -m gpu --durations 5 tests/test_gpu.py
	env -u OMP_NUM_THREADS $(BIN)/python -W ignore bench/gpu.py $(DATA) --images 20000
	$(BIN)/python bench/record.py

# DATA=folder for images of your own in place of synthetic ones; time_to_quality, gpu, convert, scale, deepfashion, parallel, catalogue, serving and study take longer: run them by hand
bench: .venv/ready    ## packing, loader, step, prediction and its memory, beside plain fastai; records go to bench/results/
	for o in pack loader step predict memory; do $(BIN)/python -W ignore bench/$$o.py $(DATA) || exit 1; done
	$(BIN)/python bench/record.py

EXECUTE = web/bin/python -m nbconvert --log-level ERROR --to notebook --execute --inplace
notebooks: .venv/web/ready    ## after editing a notebook: write the modules, run all notebooks keeping their outputs, clean them
	$(BIN)/nbdev-export
	for o in nbs/*.ipynb nbs/tutorials/*.ipynb; do PYTHONWARNINGS=ignore .venv/$(EXECUTE) $$o || exit 1; done
	$(BIN)/nbdev-clean
	$(MAKE) readme

# links in the notebook start from nbs/, those in README.md from the root
readme: .venv/ready    ## write README.md from nbs/index.ipynb
	@$(BIN)/jupyter nbconvert --log-level WARN --to markdown --stdout nbs/index.ipynb | sed -E 's#\]\((images|tutorials)/#](nbs/\1/#g; s#\]\(\.\./#](#g; 0,/^```$$/s//```python/' | cat -s > $(README)

docs: .venv/ready    ## the site with tutorials and reference: open site/index.html
	PYTHONWARNINGS=ignore $(BIN)/python docs/build.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -f _proc/mkdocs.yml

# uv takes two minutes where pip takes four, but reads no settings of pip's, such as another index: where there are some, pip installs
DEV = -e '.[dev]' $(if $(LOCKED),-c requirements.lock)
.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	if [ -z "$$($(BIN)/python -m pip config list)" ] && $(BIN)/python -m pip install -q uv; \
	then $(BIN)/uv pip install -q --compile-bytecode -p $(BIN)/python $(DEV); else $(BIN)/python -m pip install -q $(DEV); fi
	touch $@

lock: .venv/ready    ## requirements.lock, the versions that are tested: keeps those of .venv, for all versions of Python
	$(BIN)/python -m pip install -q uv
	$(BIN)/python -m pip freeze --exclude-editable > requirements.lock
	$(BIN)/uv pip compile -q pyproject.toml --extra dev --universal --python-version 3.10 --no-annotate --no-emit-index-url \
	  --custom-compile-command 'make lock' -o requirements.lock

axe: .venv/axe/axe.min.js    ## axe-core, with which the tests check that pages are accessible; without it those are skipped
.venv/axe/axe.min.js:
	mkdir -p .venv/axe
	cd .venv/axe && npm pack --silent axe-core@4.10 && tar -xzf axe-core-*.tgz --strip-components=1 package/axe.min.js

# on top of .venv: gradio needs an older Pillow than the newest
.venv/web/ready: .venv/ready
	$(PYTHON) -m venv .venv/web
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_paths()['purelib'])" > $$(echo .venv/web/lib/python3*/site-packages)/dev.pth
	.venv/web/bin/python -m pip install -q -e '.[web]' playwright
	touch $@

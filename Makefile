PYTHON ?= python3
BIN := .venv/bin
README ?= README.md

.PHONY: help demo test soak bench notebooks readme docs

help:      ## this list
	@grep -E '^[a-z]+: .*##' Makefile | sed -E 's/:[^#]*## /	/'

demo: .venv/ready    ## the whole loop on drawn garments: data, training, scores, both submission files
	$(BIN)/fashion demo --out fashion_demo --overwrite

# two processes of one thread each: many short tests, each with an import of torch, gain more by that than by two threads
test: export XDG_CACHE_HOME = $(CURDIR)/.venv/cache
test: export OMP_NUM_THREADS = 1
test: .venv/web/ready    ## every notebook, then the tests of what notebooks cannot show
	$(BIN)/nbdev-test --n-workers 2
	$(BIN)/python -m pytest -q -n 2 -m 'not soak' --ignore tests/test_serve.py tests
	.venv/web/bin/python -m pytest -q tests/test_serve.py
	.venv/web/bin/python -c "from nbdev.test import nbdev_test; nbdev_test('nbs/14_serve.ipynb')"

soak: export XDG_CACHE_HOME = $(CURDIR)/.venv/cache
soak: .venv/ready    ## the long tests: twenty kills, many broken tables
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m soak tests

# DATA=folder for photos of your own in place of drawn ones; time_to_quality, gpu and convert take longer, and are run by hand
bench: .venv/ready    ## packing, loader, step, prediction and its memory, beside plain fastai where it has the like; records go to bench/results/
	for o in pack loader step predict memory; do $(BIN)/python -W ignore bench/$$o.py $(DATA) || exit 1; done

notebooks: .venv/ready    ## after editing a notebook: write the modules, run all notebooks keeping their outputs, clean them
	$(BIN)/nbdev-export
	for o in nbs/*.ipynb nbs/tutorials/*.ipynb; do PYTHONWARNINGS=ignore $(BIN)/jupyter nbconvert --log-level ERROR --to notebook --execute --inplace $$o || exit 1; done
	$(BIN)/nbdev-clean
	$(MAKE) readme

# links in the notebook start from nbs/, those in README.md from the root
readme: .venv/ready    ## write README.md from nbs/index.ipynb
	@$(BIN)/jupyter nbconvert --log-level WARN --to markdown --stdout nbs/index.ipynb | sed -E 's#\]\((images|tutorials)/#](nbs/\1/#g; s#\]\(\.\./#](#g' | cat -s > $(README)

docs: .venv/ready    ## the notebooks as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e '.[dev]'
	touch $@

# on top of the other: gradio wants an older Pillow than the newest
.venv/web/ready: .venv/ready
	$(PYTHON) -m venv .venv/web
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_paths()['purelib'])" > $$(echo .venv/web/lib/python3*/site-packages)/dev.pth
	.venv/web/bin/python -m pip install -q -e '.[web]' playwright
	touch $@

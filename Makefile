PYTHON ?= python3
BIN := .venv/bin
README ?= README.md

.PHONY: help demo test bench notebooks readme

help:      ## this list
	@grep -E '^[a-z]+: .*##' Makefile | sed -E 's/:[^#]*## /	/'

demo: .venv/ready    ## the whole loop on drawn garments: data, training, scores, both submission files
	$(BIN)/fashion demo --out fashion_demo --overwrite

# two processes of one thread each: many short tests, each with an import of torch, gain more by that than by two threads
test: export XDG_CACHE_HOME = $(CURDIR)/.venv/cache
test: .venv/ready    ## every notebook, then the tests of what notebooks cannot show
	OMP_NUM_THREADS=1 $(BIN)/nbdev-test --n-workers 2
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 tests

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

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e '.[dev]'
	touch $@

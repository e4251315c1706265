# The whole habit of the house: make setup | matrix | report | test | check | lint | typecheck | format | docs | site | performance | gpu-reference
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SWEEPS := $(patsubst %/runs.csv,%,$(wildcard results/*/runs.csv))

.PHONY: setup matrix report test predictions check lint typecheck format docs site compatibility gpu-reference performance clean help
.DEFAULT_GOAL := help

help:
	@sed -n 's/^\([a-z-]*\):.*##\(.*\)/make \1\t\2/p' Makefile | expand -t 20

setup: $(STAMP) ## make .venv and install the pinned dependencies (does nothing the second time)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "TuneMatrix needs Python >= 3.10; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 setup")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/python -m compileall -q bench report strategies vqa_model run_matrix.py
	@touch $@

matrix: setup ## compare the default recipes on the embedded data set; CSVs and figures under results/local/
	$(BIN)/python run_matrix.py $(ARGS)

report: setup ## figures, summary, page and paper of all committed sweeps, under build/report/; of one, in place: SWEEP=results/local/embedded
ifdef SWEEP
	$(BIN)/python -m report $(SWEEP)
else
	@for what in figures summary html paper; do $(BIN)/python -m report $$what $(SWEEPS) --out build/report || exit; done
endif

test: setup ## the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

check: setup ## the quick part of the suite, lint and types
	$(MAKE) lint typecheck
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

lint: setup ## ruff, code and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: setup ## mypy, strict
	$(BIN)/mypy

format: setup ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

site: setup ## build the documentation site into build/site, strictly
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/mkdocs build --strict --quiet --config-file docs/site/mkdocs.yml

docs: setup ## write the generated pages under docs/ and the tables in Markdown, and build the site
	@{ echo '# Command line'; echo; echo 'Written by `make docs`; a test holds it to the code.'; echo; echo '```text'; $(BIN)/python run_matrix.py --help; for c in plan compare merge export; do echo '```'; echo; echo "## $$c"; echo; echo '```text'; $(BIN)/python run_matrix.py $$c --help; done; echo '```'; } > docs/command-line.md
	@$(BIN)/python -m bench.record > docs/results-schema.md
	@$(BIN)/python -m strategies.cardbook > docs/strategies.md
	@$(BIN)/python -m report tables README.md docs/*.md
	@$(MAKE) --no-print-directory site

compatibility: setup ## try every pair of strategies and write docs/compatibility.md and .csv
	OMP_NUM_THREADS=1 $(BIN)/python -m strategies.probe
	@$(BIN)/python -m report compatibility docs/compatibility.csv

predictions: setup ## predicted against measured memory of every strategy, docs/predictions.md
	OMP_NUM_THREADS=1 $(BIN)/python performance/prediction.py

gpu-reference: setup ## measure recipes at full size on this machine's NVIDIA GPU, 9 minutes; again goes on
	$(BIN)/python performance/gpu_reference.py $(ARGS)

performance: setup ## measure speed against peers and write performance/results/; ARGS=--quick only tries the scripts
	$(BIN)/python performance/everything.py $(ARGS)

clean: ## remove the environment and caches, keep results
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info

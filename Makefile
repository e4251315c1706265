# The whole habit of the house: make setup | matrix | report | test | check | lint | typecheck | format | docs | site | performance | gpu-reference
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUNS   := $(VENV)/.installed
TOOLS  := $(VENV)/.installed-tools
# PyTorch's build: cpu or cuda; by the machine, if empty. CPU builds are listed at CPU_INDEX.
TORCH     ?=
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
INSTALL   := '$(PYTHON)' install/environment.py $(VENV) --torch '$(TORCH)' --cpu-index '$(CPU_INDEX)'
# Two processes; the code is compiled once for them and for all that they start, also where Python is told not to.
PYTEST    := env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
SWEEPS := $(patsubst %/runs.csv,%,$(wildcard results/*/runs.csv))

.PHONY: setup tools matrix report test durations test-install predictions check lint typecheck format docs site compatibility zoo gpu-reference performance pins clean help FORCE
.DEFAULT_GOAL := help

help:
	@sed -n 's/^\([a-z-]*\):.*##\(.*\)/make \1\t\2/p' Makefile | expand -t 20

setup: $(RUNS) ## make .venv with what runs need, pinned (does nothing the second time); TORCH=cpu or TORCH=cuda

tools: $(TOOLS) ## the same, and what tests, lint, types and pages take

$(RUNS): pyproject.toml constraints.txt
	@command -v '$(PYTHON)' >/dev/null || { echo "there is no $(PYTHON) here: install Python 3.10 to 3.14, or name one: make PYTHON=/path/to/python3"; exit 1; }
	@'$(PYTHON)' -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 14) and sys.version_info[:3] != (3, 14, 1) else "TuneMatrix needs Python 3.10 to 3.14, but for 3.14.1; this is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12")'
	@$(INSTALL)
	@touch $@

$(TOOLS): $(RUNS)
	@$(INSTALL) --tools
	@touch $@

# Another build of PyTorch than the one in place was asked for.
ifneq ($(TORCH),)
ifneq ($(TORCH),$(shell cat $(VENV)/.torch 2>/dev/null))
$(RUNS): FORCE
endif
endif
FORCE:

matrix: setup ## compare the default recipes on the embedded data set; CSVs and figures under results/local/
	$(BIN)/python run_matrix.py $(ARGS)

report: setup ## figures, summary, page and paper of all committed sweeps, under build/report/; of one, in place: SWEEP=results/local/embedded
ifdef SWEEP
	$(BIN)/python -m report $(SWEEP)
else
	@for what in figures summary html paper; do $(BIN)/python -m report $$what $(SWEEPS) --out build/report || exit; done
endif

test: tools ## the whole test suite
	$(PYTEST)

durations: tools ## the whole test suite, and record how long its files take, for tests/test_durations.py
	$(PYTEST) -p tests.durations

test-install: tools ## try set-up and wheel for real, in empty places, with every Python found, on the oldest transformers and the newest (3 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/install

check: tools ## the quick part of the suite, lint and types
	$(MAKE) lint typecheck
	$(PYTEST) -m 'not slow'

lint: tools ## ruff, code and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: tools ## mypy, strict
	$(BIN)/mypy

format: tools ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

site: tools ## build the documentation site into build/site, strictly
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/mkdocs build --strict --quiet --config-file docs/site/mkdocs.yml

docs: tools ## write the generated pages under docs/ and the tables in Markdown, and build the site
	@{ echo '# Command line'; echo; echo 'Written by `make docs`; a test holds it to the code.'; echo; echo '```text'; $(BIN)/python run_matrix.py --help; for c in plan compare merge export; do echo '```'; echo; echo "## $$c"; echo; echo '```text'; $(BIN)/python run_matrix.py $$c --help; done; echo '```'; } > docs/command-line.md
	@$(BIN)/python -m bench.records.record > docs/results-schema.md
	@$(BIN)/python -m strategies.cards.book > docs/strategies.md
	@$(BIN)/python -m report tables README.md docs/*.md
	@$(MAKE) --no-print-directory site

zoo: tools ## try every plan on every architecture of the zoo and write docs/models.md (8 minutes on two cores); ARGS=--only=bert
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.zoo $(ARGS)

compatibility: tools ## try every pair of strategies and write docs/compatibility.md and .csv
	OMP_NUM_THREADS=1 $(BIN)/python -m strategies.compatibility.probe
	@$(BIN)/python -m report compatibility docs/compatibility.csv

predictions: tools ## predicted against measured memory of every strategy, docs/predictions.md
	OMP_NUM_THREADS=1 $(BIN)/python performance/prediction.py

gpu-reference: tools ## measure recipes at full size on this machine's NVIDIA GPU, 9 minutes; again goes on
	$(BIN)/python performance/gpu_reference.py $(ARGS)

performance: tools ## measure speed against peers and write performance/results/; ARGS=--quick only tries the scripts
	$(BIN)/python performance/everything.py $(ARGS)

pins: ## resolve constraints.txt anew for every supported Python; ARGS=--upgrade takes the newest releases
	@'$(PYTHON)' -m venv --clear build/pins
	@build/pins/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip uv packaging
	@build/pins/bin/python install/pins.py $(ARGS)

clean: ## remove the environment and caches, keep results
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build *.egg-info

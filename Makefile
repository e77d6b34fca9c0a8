# `make help` lists the targets. Each target creates the virtual environment that it needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PYTEST ?= -n 2

.DEFAULT_GOAL := help
.PHONY: demo test test-slow test-bounds fuzz soak lint bench bench-gpu clean help

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the toolkit into $(VENV) (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed ## run every stage on emoji with Chinese names; ends in a gallery
	@$(BIN)/python cli.py demo --out runs/demo

test: $(VENV)/.installed ## the tests: a few minutes, without GPU and network
	$(BIN)/python -m pytest $(PYTEST)

test-slow: $(VENV)/.installed test-bounds ## the longer tests, and test-bounds
	$(BIN)/python -m pytest -m slow

test-bounds: $(VENV)/.installed ## the tests of compiled loops, with checked indices
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=.numba-bounds $(BIN)/python -m pytest \
	    tests/kg/reading tests/kg/sources/test_ntriples.py tests/kg/tools/test_clean.py tests/kg/training/test_transe.py \
	    tests/lattice/matching tests/lattice/building/test_caption_reader.py \
	    tests/lattice/building/test_build.py tests/data/test_names.py

fuzz: $(VENV)/.installed ## damaged files into every reader; FUZZ_SECONDS for each of them, FUZZ_SEED
	FUZZ_SECONDS=$(or $(FUZZ_SECONDS),120) FUZZ_SEED=$(or $(FUZZ_SEED),0) $(BIN)/python -m pytest -q tests/fuzz

soak: $(VENV)/.installed ## kill every stage at random moments; SOAK_KILLS of each stage, SOAK_SEED
	$(BIN)/python -m tests.soak --kills $(or $(SOAK_KILLS),8) --seed $(or $(SOAK_SEED),0)

lint: $(VENV)/.installed ## ruff, mypy and the word list of the language
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_language.py

bench: $(VENV)/.installed ## the CPU benchmarks; each prints a ratio to a named baseline
	@for script in $(filter-out %_device.py,$(sort $(wildcard benchmarks/bench_*.py))); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-gpu: $(VENV)/.installed ## the GPU tests and benchmarks
	$(BIN)/python -m pytest -m gpu
	@for script in benchmarks/bench_*_device.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean: ## remove the environment, runs and caches
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .numba-bounds

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

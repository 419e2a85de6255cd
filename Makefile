# `make help` lists the targets. On a machine with Python 3.11-3.13, git and make, each sets up what it needs.
# A virtual environment cannot be moved: after moving the folder or changing PYTHON, run `make clean` first.

PYTHON ?= python3
OUT ?= runs/quickstart
RECIPE ?= quickstart

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PIP_INSTALL := $(PY) -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

# A worker a core; the tests of a file stay together, as they share fixtures.
PYTEST := $(PY) -m pytest --numprocesses auto --dist loadfile

# One thread for each process: Ray runs one actor a core, and more threads lose time.
export OMP_NUM_THREADS := 1
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export RAY_USAGE_STATS_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help setup simulate lint test test-full bench clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "  make %-10s  %s\n", $$1, $$2}'

setup: $(STAMP) ## Install the project and its tools into .venv

# torch goes first and alone: its pin then picks the machine's own build (CPU or CUDA), which the rest accepts.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	  sys.exit(not (3, 11) <= v < (3, 14) and f"Python {v[0]}.{v[1]} found, expected 3.11 to 3.13: make PYTHON=python3.12")'
	@echo "Setting up $(VENV): a few minutes the first time"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL) torch==2.13.0
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $@

# A folder that already holds a run is continued, never overwritten: a finished run only gets its report written again.
# For a fresh one name another folder: make simulate OUT=runs/second
simulate: $(STAMP) ## Generate data, bootstrap, run the quickstart, write the report
	$(VENV)/bin/nerv-fl simulate $(RECIPE) --out $(OUT) $(if $(wildcard $(OUT)/config.toml),--resume)

lint: $(STAMP) ## Check format, style, types and import layers
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

test: lint ## Run every check and test that CI runs
	$(PYTEST)

test-full: lint ## The same, and the slow tests
	$(PYTEST) -m "slow or not slow"

bench: $(STAMP) ## Run the benchmarks, each against its baseline
	@set -e; for file in benchmarks/bench_*.py; do echo "== $$file"; $(PY) -m "benchmarks.$$(basename $$file .py)"; done

clean: ## Remove .venv and the caches, never a run
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# `make demo` and `make test` set everything up; a second run starts at once. GNU make 3.81 (macOS) is enough.
SHELL  := /bin/bash
PYTHON ?= python3
SEED   ?= 20250712
# Test files side by side; most of them wait for processes and disks, so more than there are cores.
WORKERS ?= 3
ARGS   ?=

# A thousand processes are started by the tests: without this each compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.ready
LOG   := build/pytest.log

# Both ends of every branch are covered here, not only 95 %: the async sides, the switch and the I/O tools they share.
WHOLE := ksi_daemon/*/aio.py,ksi_daemon/switch.py,ksi_daemon/groupcommit.py,ksi_daemon/lane.py,ksi_daemon/linefile.py,ksi_daemon/linesplitter.py,ksi_daemon/replace.py,ksi_daemon/agent/core.py,ksi_daemon/agent/pages.py,ksi_daemon/agent/store.py

.PHONY: help demo test lint format parity claude bench soak clean

help:
	@echo 'make demo     a whole migration, live, on a scratch directory (FAST=1: the short one)'
	@echo 'make test     format, lint, types, parity, and every test with branch coverage'
	@echo 'make lint     format, lint and types only'
	@echo 'make format   put the layout right'
	@echo 'make parity   compare both sides of every component'
	@echo 'make claude   install the real claude command, at the versions that the tests pin, into build/'
	@echo 'make bench    measure both sides; ARGS="--rounds 3" passes options on'
	@echo 'make soak     the long proofs in full; SEED=1 picks the seed'
	@echo 'make clean    remove what these commands made'

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/ksi-migrate demo $(if $(filter-out 0,$(FAST)),--fast)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

parity: $(READY)
	$(BIN)/ksi-migrate parity $(ARGS)

# Needs npm. Without it, or without a registry, the tests of the real command are skipped; in CI that is an error.
claude: $(READY)
	$(BIN)/python -m tests.real_claude

# Parity of every component is among the tests. The coverage reports come after pytest, so pytest's summary line
# is said again: it is the last word.
test: lint claude
	@mkdir -p build && rm -f $(LOG)
	$(BIN)/coverage erase
	set -o pipefail; $(BIN)/coverage run -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder 2>&1 | tee $(LOG)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	$(BIN)/coverage report --include='$(WHOLE)' --fail-under=100
	@grep -E '^=+ .* in [0-9.]+s' $(LOG) | tail -n 1

bench: $(READY)
	$(BIN)/ksi-migrate bench $(ARGS)

soak: $(READY)
	KSI_SOAK=1 KSI_SEED=$(SEED) $(BIN)/python -m pytest -m soak --timeout=3600 --hypothesis-seed=$(SEED)

clean:
	rm -rf $(VENV) build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Every target creates .venv itself when it is missing.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS ?= demo,data,bench,ship,dev

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check format bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "underpar needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing underpar and its tools into .venv (torch is large: a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

.venv: .venv/installed ## create the environment with the tested versions

demo: .venv/installed ## train, quantize, pack and score a model of real text (about 14 minutes)
	$(BIN)/python -m underpar demo

test: .venv/installed ## the fast test suite
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-slow: .venv/installed ## the slow tests as well (minutes)
	$(BIN)/python -m pytest -m 'not gpu'

check: .venv/installed ## what CI runs: format, lint, types, import rule, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

format: .venv/installed ## rewrite the files as `check` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/installed ## training speed on this machine's CPU, into benchmarks/results/
	$(BIN)/python benchmarks/train_cpu.py

clean: ## remove caches and builds, keep runs and the environment
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis

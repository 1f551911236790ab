PYTHON ?= python3
BIN := .venv/bin

.PHONY: help install check test test-all demo clean format opponents

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# The stamp keeps a second `make` from installing again while nothing it depends on has changed.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

install: .venv/installed  ## the environment in .venv

check: install  ## format, lint, types, floors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_floors.py

format: install  ## rewrite to the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: install  ## every test that is not marked slow
	$(BIN)/pytest -q -m 'not slow'

test-all: install  ## every test
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,oracles]'
	$(BIN)/pytest -q

# Without its dependencies, of which the part that is compared needs none: with them comes a second NCCL for an older
# CUDA, in the very files of the one that torch has.
opponents: install  ## what benchmarks.search compares with and nothing else needs
	$(BIN)/pip install --quiet --no-deps --constraint constraints.txt syne-tune

demo: install  ## a real search on digits, then the best point exported and verified
	$(BIN)/python -m search demo

clean:
	rm -rf .venv runs exported

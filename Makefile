# `make run` and `make test` set up what they need from python3, make and git alone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test lock check bench bench-peers gpu pairs causes verdicts same-records docs picture lint types contracts slow ray federation mutants \
	dashboards observe clean

run: $(STAMP)
	$(BIN)/fedscape run

# All packages by hash; torch apart, because its builds and their hashes differ by platform.
$(STAMP): requirements.lock constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(None if sys.version_info >= (3, 11, 5) else \
	  f"fedscape needs Python 3.11.5 or newer, and $(PYTHON) is {v}. Name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "torch==2.13.*"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# After a change of constraints.txt or of pyproject.toml's dependencies.
lock: $(STAMP)
	$(BIN)/python deploy/lock.py

test: check

# One torch thread a process: threads that wait for each other on busy cores make tests slow, and move no result.
# No card: numbers are compared with the CPU's, and `make gpu` has the tests of cards. Byte code is written even where the
# environment forbids it: without it each worker rewrites the assertions of 400 modules anew, up to half of collecting.
check: lint types contracts
	PYTHONDONTWRITEBYTECODE= CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto

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

# Real federations on this machine: a SuperLink and SuperNodes as processes. They wait for each other most of the time.
federation: $(STAMP)
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 3 -m "federation and not slow"

# The mathematics changed one line at a time: which changes does no test notice? About four minutes on two cores.
mutants: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "mutmut==3.8.*"
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants/run.py

# PARTS chooses among race, ragged, workers, observing, growth, start-up, city, federation and studies; OPTIONS such as
# --quick are handed on.
bench: $(STAMP)
	$(BIN)/python tests/benchmarks/run.py $(if $(PARTS),--parts $(PARTS)) $(OPTIONS)

# On a machine with a CUDA card: the tests that need one, and the table of docs/gpu.md. Without one: one line, an error.
gpu: $(STAMP)
	@$(BIN)/python tests/benchmarks/cards.py --need
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m cuda
	$(BIN)/python tests/benchmarks/cards.py $(OPTIONS)

# What every fault of the built-in scenarios did, over ten seeds: the table of docs/what-faults-do.md.
pairs: $(STAMP)
	PYTHONPATH=tests/support $(BIN)/python tests/benchmarks/pairs.py

# How often `fedscape explain` is right: runs with planted causes and healthy ones, the tables of docs/explaining.md. About an
# hour on two cores; OPTIONS such as --seeds 2, --only rate_too_low, --minutes 20 or --keep FOLDER are handed on.
causes: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python tests/benchmarks/causes/measure.py $(OPTIONS)

# How often conditions are wrong: the tables of docs/verdicts.md. OPTIONS=--play plays the built-in scenarios again first.
verdicts: $(STAMP)
	PYTHONPATH=tests/support $(BIN)/python tests/benchmarks/verdicts.py $(OPTIONS)

# That a change moves no number: small runs on the code of BASE and on the working tree's, compared to the last bit.
# OPTIONS, such as --only 'algorithm-*' or --allow 'clip-norm=why', are handed on.
BASE ?= HEAD
same-records: $(STAMP)
	$(BIN)/python tests/benchmarks/same_records $(BASE) --cache .same-records $(OPTIONS)

# Others that `make bench` times beside fedscape, each in its own environment.
bench-peers: .venv-flower/.installed .venv-pfl/.installed .venv-fedjax/.installed

.venv-flower/.installed: PEER = "torch==2.13.*" "flwr[simulation]>=1.41,<1.43"
.venv-pfl/.installed: PEER = "torch==2.13.*" "pfl==0.6.*"
.venv-fedjax/.installed: PEER = "fedjax==0.0.17" "jax==0.10.2" dm-haiku
.venv-flower/.installed .venv-pfl/.installed .venv-fedjax/.installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(firstword $(PEER))
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check $(PEER)
	touch $@

# The pictures of README and docs, from a run; a test fails where the text's numbers or the run's words are others.
picture: $(STAMP)
	PYTHONPATH=. $(BIN)/python docs/picture.py

# The site in build/site; strict: a broken link or an undocumented key fails it.
docs: $(STAMP)
	PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

dashboards: $(STAMP)
	$(BIN)/python -m dashboards.grafana.build

# Prometheus and Grafana in containers; without Docker `fedscape observe` starts an installed Prometheus.
observe:
	@docker compose version >/dev/null 2>&1 || { echo "make observe needs Docker with its compose plugin;" \
		"without: apt install prometheus, then $(BIN)/fedscape observe" >&2; exit 1; }
	@test -n "$$GRAFANA_ADMIN_PASSWORD" || { echo "choose a password for Grafana's user admin:" \
		"GRAFANA_ADMIN_PASSWORD=... make observe" >&2; exit 1; }
	docker compose --file deploy/observability/compose.yaml up --detach
	@echo "Grafana: http://127.0.0.1:3000 (user admin); stop: docker compose --project-name fedscape-observability down"

clean:
	rm -rf $(VENV) .venv-flower .venv-pfl .venv-fedjax .same-records mutants build dist *.egg-info

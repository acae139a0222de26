# Everything runs from .venv, which make builds by itself from the lock files.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# the first Python of 3.11 to 3.13; set PYTHON to choose another
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null && echo "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin

# what was compiled once is kept: without, each of a stack's or a test's many processes compiles TensorFlow and Airflow
unexport PYTHONDONTWRITEBYTECODE

# uv brings its own certificates and fails behind a proxy with an authority of its own
export UV_SYSTEM_CERTS ?= 1

.PHONY: help demo test e2e test-cluster siege faults up down status lint bench fuzz lock

help:  ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.runtime  ## two nights in a few minutes: ingest, retrain, judge, promote, on synthetic data
	@$(BIN)/femur demo

up: $(VENV)/.runtime  ## start the embedded stack
	@$(BIN)/femur up

down:  ## stop the embedded stack; its state stays in .femur/
	@if [ -x $(BIN)/femur ]; then $(BIN)/femur down; else echo "nothing is installed yet"; fi

status: $(VENV)/.runtime  ## show the embedded stack's parts
	@$(BIN)/femur status

test: $(VENV)/.dev  ## run the tests, on real parts
	@$(BIN)/python -m pytest

e2e: $(VENV)/.dev  ## nights through the real Airflow, in a browser and by its API
	@$(BIN)/python -m pytest -n0 tests/e2e --ignore tests/e2e/test_cluster.py

test-cluster: $(VENV)/.dev  ## a night in the cluster: docker-compose.yaml as processes, on PostgreSQL, Redis and an S3 store
	@$(BIN)/python -m pytest -n0 tests/e2e/test_cluster.py

siege: $(VENV)/.dev  ## under attack: hostile sources, planted names, killed ingests and promoters, races
	@$(BIN)/python -m pytest tests/siege

faults: $(VENV)/.dev  ## a quarter of an hour: every step killed at every point (docs/reliability.md), a search killed ten times
	@$(BIN)/python -m tests.failpoints
	@$(BIN)/python -m pytest -n0 tests/faults

lint: $(VENV)/.dev  ## ruff and mypy --strict
	@$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy

bench: $(VENV)/.dev  ## run every benchmark; each prints a table and its figure
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

fuzz: $(VENV)/.dev  ## throw damaged files at every reader, FUZZ_S (60) seconds each
	@for script in tests/fuzz/fuzz_*.py; do echo "== $$script"; \
		PYTHONPATH=. $(BIN)/python "$$script" -max_total_time=$(or $(FUZZ_S),60) -rss_limit_mb=3000 || exit 1; done

RESOLVE := $(BIN)/uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header

lock: $(VENV)/bin/uv  ## resolve the lock files again
	@$(RESOLVE) -o requirements.lock
	@$(RESOLVE) --extra cluster --extra dev -c requirements.lock -o requirements-dev.lock
	@$(RESOLVE) --extra cluster --no-emit-package tensorflow-cpu --no-emit-package tensorflow \
		-c requirements-dev.lock -o docker/cluster.lock
	@$(RESOLVE) --extra cluster --extra gpu --no-emit-package tensorflow-cpu \
		-c requirements-dev.lock -o docker/gpu.lock

$(VENV)/bin/uv:
	@if [ -z "$(PYTHON)" ]; then echo "Expected Python 3.11, 3.12 or 3.13. Install one, or run make PYTHON=/path/to/python3.12"; exit 1; fi
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module. Install it (on Debian or Ubuntu: apt-get install python3-venv) and run make again."; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv

$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/uv
	@if ! [ $(VENV)/.dev -nt requirements.lock ]; then echo "installing requirements.lock"; \
		$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements.lock; fi
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(VENV)/bin/uv
	@echo "installing requirements-dev.lock"
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements-dev.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# make            list these targets
# make setup      make .venv with everything in it (PYTHON=python3.12 chooses a Python)
# make run        run the example campaign, from set-up to report
# make test       run linter, type checker and tests, as CI does
# make lint       run ruff and mypy only
# make bench      run the slow tests, minutes each, with timings
# make test-vllm  test against a real vLLM server, on GPU or CPU (downloads 3.5 GB once)
# make hooks      check files before every commit
# make clean      remove what was built; keeps the virtual environment

VENV ?= .venv
BIN := $(VENV)/bin
CAMPAIGN ?= data/campaigns/li-mn-o.yaml
PYTEST_ARGS ?= -n 2
ROOMS := agents data models tools training ui

# One thread per process: worker processes share the cores, and small matrices gain nothing from more.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export VENV

.PHONY: help setup run test lint types bench test-vllm hooks clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \(make.*\)/\1/p' Makefile

setup:
	@.scripts/setup

run: setup
	$(BIN)/hullward run $(CAMPAIGN)

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@$(MAKE) --no-print-directory types

# Benchmarks need no annotations; what they call must exist.
LENIENT := --allow-untyped-defs --allow-untyped-calls --allow-incomplete-defs \
	--no-warn-return-any --allow-subclassing-any --follow-imports=silent

# mypy reads the rooms through links, so that it finds them under their import names.
types: setup
	@mkdir -p build/types/hullward
	@for room in $(ROOMS); do ln -sfn ../../../$$room build/types/hullward/$$room; done
	$(BIN)/mypy
	MYPYPATH=tests/benchmarks $(BIN)/mypy $(LENIENT) tests/benchmarks/*.py

bench: setup
	$(BIN)/python -m pytest -m slow --durations=0

# Sets vLLM up unless HULLWARD_VLLM_PYTHON names it; if that fails, the tests are skipped with the reason.
test-vllm: setup
	@[ -n "$$HULLWARD_VLLM_PYTHON" ] || .scripts/setup-vllm || echo "vLLM could not be installed"
	HULLWARD_VLLM_PYTHON=$${HULLWARD_VLLM_PYTHON:-$(CURDIR)/.venv-vllm/bin/python} \
		$(BIN)/python -m pytest -m vllm --durations=0

hooks: setup
	$(BIN)/pre-commit install

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(ROOMS) tests -name __pycache__ -type d -prune -exec rm -rf {} +

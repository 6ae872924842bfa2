# make        what there is
# make setup  a virtual environment with everything (PYTHON=python3.12 to choose one)
# make run    a real campaign, from nothing to a report
# make test   lint, types and tests, as CI runs them
# make lint   ruff and mypy only
# make bench  the slow tests: minutes each, with their figures
# make test-vllm  tests against a real vLLM server, on the CPU too (2 GB the first time)
# make hooks  check files before every commit
# make clean  remove what was built, not the virtual environment

VENV ?= .venv
BIN := $(VENV)/bin
CAMPAIGN ?= data/campaigns/li-mn-o.yaml
PYTEST_ARGS ?= -n 2
ROOMS := agents data models tools training ui

# One thread a process: several share the cores, and small matrices gain nothing from more.
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

# mypy reads the rooms through links, under the name they are imported by.
types: setup
	@mkdir -p build/types/hullward
	@for room in $(ROOMS); do ln -sfn ../../../$$room build/types/hullward/$$room; done
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m pytest -m slow --durations=0

# Without an environment named already, one is made; if that fails, the tests say why they skip.
test-vllm: setup
	@[ -n "$$HULLWARD_VLLM_PYTHON" ] || .scripts/setup-vllm || echo "vLLM could not be installed"
	HULLWARD_VLLM_PYTHON=$${HULLWARD_VLLM_PYTHON:-$(CURDIR)/.venv-vllm/bin/python} \
		$(BIN)/python -m pytest -m vllm --durations=0

hooks: setup
	$(BIN)/pre-commit install

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(ROOMS) tests -name __pycache__ -type d -prune -exec rm -rf {} +

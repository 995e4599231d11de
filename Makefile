# Two commands on a fresh machine: `make demo` and `make test`. Each sets up .venv first.
PYTHON ?= python3
BIN = .venv/bin
OUT ?= out

.DEFAULT_GOAL := help
.PHONY: help setup demo test style quality bench clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: .venv/.ready  ## virtual environment with the pinned requirements

.venv/.ready: requirements.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	@touch $@

demo: setup  ## the whole story offline: synthetic corpus, tiny ALBERT, result table
	$(BIN)/python -m demo.run --output_dir $(OUT)/demo

test: setup  ## the tests
	$(BIN)/python -m pytest

style: setup  ## fix formatting
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

quality: setup  ## check formatting and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

bench: setup  ## speed, side by side with the Hugging Face Trainer
	$(BIN)/python -m benchmarks.throughput

clean:  ## remove outputs and caches, keep .venv
	rm -rf $(OUT) .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

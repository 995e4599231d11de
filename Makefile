# Two commands on a fresh machine: `make demo` and `make test`. Each sets up .venv first.
PYTHON ?= python3
BIN = .venv/bin
# Not taken from the environment: users export OUT for folders of their own, and `make clean` removes this one.
OUT = out
ROUNDS ?= 1000
# `make reproduce`: the published table's recipe. GLUE_DIR and HANS_DIR name local data; without them the hub is asked.
MODEL ?= albert-base-v1
SHARES ?= 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1.0
SEEDS ?= 0 1 2
RECIPE ?= --max_seq_length 128 --per_gpu_train_batch_size 512 --learning_rate 2e-5 --num_train_epochs 3.0 --fp16

.DEFAULT_GOAL := help
.PHONY: help setup demo reproduce test test-slurm test-browser style quality bench faults clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.ready  ## virtual environment with the pinned requirements

.venv/.ready: requirements.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	@touch $@

demo: setup  ## the whole story offline: synthetic corpus, tiny ALBERT, result table
	$(BIN)/python -m demo.run --output_dir $(OUT)/demo

reproduce: setup  ## the published table: random shares of MNLI and HANS, beside the published numbers
	$(BIN)/python sweep.py --strategies random --data_pcts $(SHARES) --seeds $(SEEDS) --model_name_or_path $(MODEL) \
	  --task_name MNLI $(if $(GLUE_DIR),--data_dir $(GLUE_DIR)/MNLI) --hans_dir $(or $(HANS_DIR),hub) $(RECIPE) \
	  --output_dir $(OUT)/reproduce
	$(BIN)/python report.py $(OUT)/reproduce --published

test: setup  ## the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile  # a process per core, so one thread each

test-slurm: setup  ## a sweep through a real Slurm of one node, installed from Debian's packages where it may be
	command -v slurmctld >/dev/null || (apt-get update -q && apt-get install -y -q --no-install-recommends slurm-wlm munge) || true
	TEST_SLURM=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs tests/test_real_slurm.py

test-browser: setup  ## the explorer and the report in a headless Chromium, installed first where there is none (Debian, root)
	@command -v chromium && command -v chromedriver || (apt-get update && apt-get install -y --no-install-recommends chromium chromium-driver)
	TEST_BROWSER=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_explore_browser.py tests/test_report_browser.py

style: setup  ## fix formatting
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

quality: setup  ## check formatting, lint and the import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo --config pyproject.toml

bench: setup  ## speed, side by side with the Hugging Face Trainer
	$(BIN)/python -m benchmarks.throughput

faults: setup  ## damage, kill and crowd the scripts ROUNDS times; count how they end
	$(BIN)/python -m tests.faults.campaign --rounds $(ROUNDS) --output $(OUT)/faults.json

clean:  ## remove outputs and caches, keep .venv
	rm -rf $(OUT) .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

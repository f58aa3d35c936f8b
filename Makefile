# The project's commands; `make` alone lists them. They run in .venv, which the first one creates.
# PYTHON=python3.12 make setup   uses another interpreter (3.11 or later)

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup train test test-slow test-all fuzz lint format typecheck docs bench soak bench-gpu notebooks tensorboard report clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: $(STAMP)  ## create the environment in .venv

$(STAMP): pyproject.toml constraints.txt
	@# Keep an environment that serves; one made by a python3 that is too old does not.
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

train: $(STAMP)  ## train the default convnet on the digits (seconds)
	$(BIN)/python train.py

test: $(STAMP)  ## run the tests (minutes)
	$(BIN)/python -m pytest --numprocesses=auto -m 'not slow'

test-slow: $(STAMP)  ## run the remaining tests: every model on every dataset, every stop with every schedule, …
	$(BIN)/python -m pytest --numprocesses=auto -m slow

test-all: test test-slow  ## run all tests, each once

fuzz: $(STAMP)  ## try many random inputs, new ones each time (minutes)
	GLIMPSE_FUZZ=1 $(BIN)/python -m pytest --numprocesses=auto -o timeout=3600 tests/fuzz

lint: $(STAMP)  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)  ## fix style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(STAMP)  ## check types
	$(BIN)/mypy

docs: $(STAMP)  ## build the documentation in site/; fails on a broken link
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(STAMP)  ## compare the speed with bare PyTorch and other libraries (minutes)
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/arithmetic.py
	$(BIN)/python benchmarks/augmentation.py
	$(BIN)/python benchmarks/whole_run.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/sweeps.py
	$(BIN)/python benchmarks/ddp.py

soak: $(STAMP)  ## disturb sweeps for MINUTES=10 and check that nothing is lost, repeated or changed
	$(BIN)/python benchmarks/soak.py --minutes $${MINUTES:-10}

bench-gpu: $(STAMP)  ## measure and test on a GPU (at most eight minutes)
	$(BIN)/python benchmarks/gpu.py --data-dir data

notebooks: $(STAMP)  ## execute the notebooks into outputs/notebooks (minutes)
	@mkdir -p outputs/notebooks
	@for file in notebooks/*.ipynb; do \
		began=$$(date +%s); \
		$(BIN)/jupyter execute --NbClientApp.log_level=ERROR $$file --output=$(CURDIR)/outputs/$$file || exit 1; \
		echo "outputs/$$file: ran to its end in $$(($$(date +%s) - began)) s"; \
	done

tensorboard: $(STAMP)  ## show the runs at http://localhost:6006
	$(BIN)/tensorboard --logdir outputs

report: $(STAMP)  ## report all runs in one table and one page
	$(BIN)/glimpse report outputs

clean:  ## remove the environment and the files of tools; keep runs and data
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build site src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

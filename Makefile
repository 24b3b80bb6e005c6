# make demo: the whole of PLaD on real text with a real model.   make check: what a change should pass, in a minute.
# make test: every check.
# Both build the environment (.venv) first; nothing outside this folder is touched, but that the tests of the page install
# Chromium through apt where there is none and they may (root on Debian).

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
MODEL := models/SmolLM2-135M-Instruct

export HF_HUB_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup lock licences hooks browser model demo compare-demo scitldr lint types fast check test coverage chaos bench clean

help:
	@echo "make setup    build .venv with pinned dependencies"
	@echo "make lock     requirements.lock from constraints.txt, with the hashes that PyPI names"
	@echo "make licences licences of all dependencies; fails on one that nobody has looked at"
	@echo "make demo     fine-tune, sample, pair, distil, evaluate, report (runs/demo/report/index.html)"
	@echo "make compare-demo  PLaD beside SeqKD, KD, f-distill, MiniLLM and GKD on the demo's task (about an hour)"
	@echo "make scitldr  the same on the whole SciTLDR set (an hour or two)"
	@echo "make check    format, lint, types and the fast tests: a minute on two cores"
	@echo "make test     format, lint, types and all tests"
	@echo "make coverage all tests, with the branch coverage of src and the lines that none of them reaches"
	@echo "make chaos    200 sequences of kills, faults and damage on a tiny run: what must hold, holds (half an hour)"
	@echo "make hooks    git runs make check's steps before every commit"
	@echo "make bench    speed and memory side by side with TRL and transformers"
	@echo "make clean    remove .venv and caches; runs and models stay"

setup: $(READY)

# torch alone is not in the lock: its CPU and CUDA builds are different files. All that it needs else is there before it.
$(READY): pyproject.toml constraints.txt requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "plad needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	$(PY) -m pip install --quiet --constraint constraints.txt torch
	$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(READY)

# The hashes of all files that PyPI has of the pinned versions, for every platform.
lock: $(READY)
	$(PY) -m pip install --quiet uv
	$(VENV)/bin/uv pip compile --quiet constraints.txt --no-deps --universal --python-version 3.11 --generate-hashes \
		--no-emit-package torch --no-annotate --no-header --output-file requirements.lock

licences: $(READY)
	@$(PY) -m tests.support.supply.licences

model: $(READY)
	@$(PY) -m plad.extras.demo.model $(MODEL)

demo: model
	$(PY) -m plad run recipes/demo.yaml

compare-demo: model
	$(PY) -m plad compare recipes/compare.yaml

scitldr: model
	$(PY) -m plad run recipes/scitldr.yaml

browser: $(READY)
	@$(PY) -m tests.support.browser --install

hooks: $(READY)
	$(VENV)/bin/pre-commit install

lint: $(READY)
	$(PY) -m ruff format --check src tests benchmarks
	$(PY) -m ruff check src tests benchmarks
	$(VENV)/bin/lint-imports --no-cache --no-logo

types: $(READY)
	$(PY) -m pyright --pythonpath $(PY)

fast: $(READY)
	$(PY) -m pytest -m fast

# One core checks types (45 s: nearly all of it torch's and transformers' sources, so that fewer of ours would not be
# quicker, and more threads would read them twice), the other one runs the rest.
check: $(READY)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync types lint-then-fast

.PHONY: lint-then-fast
lint-then-fast: lint
	@$(MAKE) --no-print-directory fast

test: model browser lint types
	$(PY) -m pytest

coverage: model browser
	$(PY) -m pytest --cov

chaos: $(READY)
	$(PY) -m tests.faults.chaos --json runs/chaos.json

bench: model
	$(PY) -m benchmarks

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis

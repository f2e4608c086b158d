# Everything runs in .venv, which is made from requirements.lock when that or pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test check format lint types layers proofs bench ui lock clean

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## Make the environment

$(READY): requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) 2>/dev/null \
	  || { $(PYTHON) -m pip install --quiet virtualenv && $(PYTHON) -m virtualenv --quiet $(VENV); }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip --upgrade >/dev/null
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --compile-bytecode -r requirements.lock
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --no-deps -e .
	@touch $@

demo: $(READY) ## Load real retail data in two increments and print what each one read
	$(BIN)/python examples/online_retail/demo.py

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest -q

check: $(READY) ## Format, lint, types, layers, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q

format: $(READY) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proofs: $(READY) ## Kill loops and fuzzing: minutes
	$(BIN)/python -m pytest -q -m proof

bench: $(READY) ## Measure, and write docs/benchmarks.md: minutes
	$(BIN)/python -m benchmarks

ui: $(READY) ## Dagster's web UI on http://127.0.0.1:3000
	DAGSTER_HOME=$(abspath .) $(BIN)/dagster dev -w workspace.yaml

lock: $(READY) ## Pin the newest versions that fit pyproject.toml
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip compile --quiet --no-emit-index-url --all-extras --group dev \
	  --python-version 3.11 --upgrade pyproject.toml -o requirements.lock

clean: ## Remove the environment and what runs left behind
	rm -rf $(VENV) .dagster .mypy_cache .ruff_cache .pytest_cache

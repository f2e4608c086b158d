# Everything happens in .venv, which the first target that needs it sets up.
# `make PYTHON=/path/to/python3.12 …` chooses the interpreter.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CODE := sqlflow_dagster tests benchmarks examples docs definitions.py

FUZZ_SECONDS ?= 60

.PHONY: help setup demo demo-northwind test check lint format bench bench-compare bench-peers proofs fuzz ui lock clean
.DEFAULT_GOAL := help

help:  ## show the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(READY)  ## the environment, and no more

# Installs again when the lock or the package's own declaration has changed.
$(READY): requirements.lock pyproject.toml .ci/setup
	./.ci/setup $(VENV)
	@touch $@

# The instance whose runs the web UI shows; `sqlflow` alone keeps one in each project.
demo demo-northwind ui: export DAGSTER_HOME ?= $(CURDIR)

demo: $(READY)  ## the example on real data, in two increments
	$(BIN)/python examples/online_retail/demo.py

demo-northwind: $(READY)  ## Postgres to marts, to S3 and back: both servers are started by it
	$(BIN)/python examples/northwind_to_s3/demo.py

ui: $(READY)  ## Dagster's web UI on the example
	$(BIN)/dagster dev -w workspace.yaml

test: $(READY)  ## all tests but the slow proofs
	$(BIN)/python -m pytest -m "not proof" --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(READY)  ## format, lint, types, layers
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test  ## what has to be green before a push

format: $(READY)  ## lay out and mend what the tools can
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

bench: $(READY)  ## docs/benchmarks.md
	$(BIN)/python -m compileall -q sqlflow_dagster
	$(BIN)/python -m benchmarks

bench-compare: $(READY)  ## the same again; fails where a ratio is 15 % worse than the committed one
	$(BIN)/python -m compileall -q sqlflow_dagster
	$(BIN)/python -m benchmarks --compare --no-page

bench-peers: $(READY)  ## other tools, each in an environment of its own, for make bench to compare with
	$(BIN)/python -m benchmarks --install-peers

proofs: $(READY) fuzz  ## faults, kill loops and fuzzing: docs/proofs.md
	$(BIN)/python -m pytest -m "proof or fault"

# atheris is in no lock: it has wheels for Linux only, and not for each Python.
fuzz: $(READY)  ## the parser under atheris for FUZZ_SECONDS
	@$(BIN)/python -m pip install --quiet --only-binary :all: "atheris>=3,<4" || \
	  echo "atheris has no wheel for this Python; only the proofs' own random texts are left"
	mkdir -p .fuzz
	! $(BIN)/python -c 'import atheris' || $(BIN)/python tests/language/fuzz_parser.py -max_len=10000 \
	  -timeout=60 -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=.fuzz/found- .fuzz tests/language/cases/*

# Universal: the markers of other Python versions and systems stay in it. Needs uv.
lock:  ## requirements.lock from pyproject.toml; LOCK=--upgrade takes newer versions
	uv pip compile --quiet --universal --no-emit-index-url --all-extras --group dev --python-version 3.11 \
	  $(LOCK) pyproject.toml -o requirements.lock

clean:  ## remove the environment and caches
	rm -rf $(VENV) .fuzz .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis history schedules storage

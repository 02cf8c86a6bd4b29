# What you run all day. Every target sets up what it needs first: Python 3.11 or newer is enough for `make demo` and
# `make test-fast`; `make test` also starts a real Apache Kafka, for which it needs Java 17 and Maven.

PYTHON ?= python3
BIN := .venv/bin
LOCKS := deploy/locks
DATASETS := .cache/datasets
CAR_LOAN := $(DATASETS)/nannyml-0.13.1-py3-none-any.whl
PYTEST := $(BIN)/python -m pytest
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast check format bench evaluate lock broker clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: .venv/.ready $(CAR_LOAN) ## a virtual environment with everything pinned, and the data of the tests

demo: .venv/.ready ## a drift, planted and reported, within a minute; needs no service
	@$(BIN)/drift demo

test: broker setup ## the whole suite, a real Apache Kafka included
	@$(PYTEST)

test-fast: setup ## everything but the tests against a real Apache Kafka
	@$(PYTEST) -m "not kafka" -n auto

check: .venv/.ready ## format, lint, types, imports, deployment files
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/yamllint --strict .
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/hadolint Dockerfile

format: .venv/.ready ## lays out the code, and mends what can be mended
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

bench: broker setup ## every published number, measured again: the table in docs/performance.md (minutes)
	@$(BIN)/python tests/bench/__main__.py

evaluate: .venv/.ready ## docs/detection.md: what detection promises, measured again (minutes)
	@$(BIN)/drift evaluate --seed 1 --out docs

lock: .venv/.ready ## pins the newest versions that pyproject.toml allows
	@$(LOCK) --upgrade pyproject.toml -o $(LOCKS)/runtime.txt
	@$(LOCK) --upgrade pyproject.toml -c $(LOCKS)/runtime.txt --all-extras --group dev -o $(LOCKS)/dev.txt
	@$(LOCK) --upgrade $(LOCKS)/uv.in -o $(LOCKS)/uv.txt
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate

clean: ## forgets the environment, caches and fetched files
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# uv is fast but blind to pip's own configuration (a mirror, a certificate); where it finds nothing, pip does.
.venv/.ready: $(LOCKS)/uv.txt $(LOCKS)/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make needs Python 3.11 or newer with venv (apt-get install python3-venv): PYTHON=python3.12 make setup"; exit 2; }
	@echo "setting up .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCKS)/uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r $(LOCKS)/dev.txt || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCKS)/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(CAR_LOAN): $(LOCKS)/datasets.txt | .venv/.ready
	@echo "fetching the data of the tests"
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes -r $< -d $(DATASETS)
	@touch $@

broker: .venv/.ready
	@PYTHONPATH=tests $(BIN)/python -m kafka.cluster

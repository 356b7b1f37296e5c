# Needs make and Python 3.11 or newer; everything else goes into .venv, from the lock files.
# The first interpreter that is new enough is taken; PYTHON=/path/to/python names another.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PEERS  ?= $(shell grep -o 'torch==[0-9.]*' pyproject.toml)
UV     := uv==0.13.9
LOCK   := --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet

PY  := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve test soak lint bench peers docs lock clean

help:  ## List what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-6s  %s\n", $$1, $$2}' Makefile

serve: .venv/.serve  ## Run the service (settings: GRADWIRE_* in the environment)
	$(PY) -m app

test: .venv/.dev  ## Run the tests; ARGS="-k taylor" goes to pytest
	$(PY) -m pytest -n auto $(ARGS)

soak: .venv/.dev  ## Run what takes minutes: load and faults; SOAK_SECONDS (600) is how long a load lasts
	$(PY) -m pytest -p no:cacheprovider tests/soak/test_*.py $(ARGS)

lint: .venv/.dev  ## Check style, format, types and import layers
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	.venv/bin/lint-imports

bench: .venv/.dev  ## Time the engine and the service; ARGS goes to the benchmarks
	$(PY) -m benchmarks $(ARGS)

# Under constraint, so that nothing the lock file chose is moved.
peers: .venv/.dev  ## Add PyTorch, for the tests that compare with it
	$(PY) -m pip freeze > .venv/pinned.txt
	$(PIP) install --constraint .venv/pinned.txt $(PEERS)

docs: .venv/.dev  ## Rewrite the pages of docs/ that are generated from the code
	$(PY) -m docs.generate

lock:  ## Rewrite the lock files; ARGS=--upgrade takes newer versions
	@$(call check_python)
	$(PYTHON) -m venv --clear .venv-lock
	.venv-lock/bin/python -m pip install --quiet $(UV)
	.venv-lock/bin/uv pip compile $(LOCK) $(ARGS) pyproject.toml --output-file requirements.lock
	.venv-lock/bin/uv pip compile $(LOCK) $(ARGS) pyproject.toml --extra dev \
		--constraint requirements.lock --output-file requirements-dev.lock
	rm -rf .venv-lock

clean:  ## Remove .venv and every cache
	rm -rf .venv .venv-lock .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# NumPy's BLAS would start a thread per core for every worker; the allocator would give each large
# array back to the system, only to ask for it again. Both are read once, when the process starts.
serve bench: export OPENBLAS_NUM_THREADS ?= 1
serve bench: export MALLOC_MMAP_THRESHOLD_ ?= 1073741824
serve bench: export MALLOC_TRIM_THRESHOLD_ ?= 2147483648

check_python = $(or $(PYTHON),python3) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo 'Gradwire needs Python 3.11 or newer, and $(or $(PYTHON),python3) is not. Name one: make PYTHON=/path/to/python' >&2; \
	exit 1; }

# A stamp is newer than its lock file for as long as what it installed is current.
.venv/bin/python:
	@$(call check_python)
	$(PYTHON) -m venv --clear .venv

.venv/.serve: requirements.lock | .venv/bin/python
	$(PIP) install --require-hashes -r $<
	@touch $@

.venv/.dev: requirements-dev.lock | .venv/bin/python
	$(PIP) install --require-hashes -r $<
	@touch $@

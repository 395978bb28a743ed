# Needs Python 3.11 or newer (with venv and pip) and make; the rest is fetched into .tools and .venv.
# What is there and up to date is used again; `make clean` removes all of it.

PYTHON ?= python3
UV_VERSION := 0.13.9
MELTANO_VERSION := 4.4.1

# The Python at hand is used, never one from elsewhere; and an activated environment is not ours.
export UV_PYTHON_DOWNLOADS := never
unexport VIRTUAL_ENV
# Hundreds of short processes are started here, which are to find their bytecode.
export UV_COMPILE_BYTECODE := 1
unexport PYTHONDONTWRITEBYTECODE

UV := .tools/uv-$(UV_VERSION)
MELTANO := .tools/meltano-$(MELTANO_VERSION)
VENV := .venv/.synced
# What the environment of the tests has; the other extras are engines, each with an environment of its own.
EXTRAS := --extra s3 --extra sandbox
ENGINES := $(patsubst tests/engines/%/pyproject.toml,%,$(wildcard tests/engines/*/pyproject.toml))
# Tests wait for processes more than they compute.
WORKERS = $(shell $(PYTHON) -c 'import os; print(2 * (os.cpu_count() or 1))')
LOWEST := $(addprefix tests/test_,settings.py columns.py parse.py windows.py messages.py gooee.py s3.py)

.PHONY: help demo test test-engines test-lowest bench soak docs lint clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

demo: $(VENV) .meltano/tap-analytics-exports .meltano/target-duckdb ## The five services on this machine, loaded into a DuckDB file by `meltano run`
	.venv/bin/python demo/demo.py

test: $(VENV) .meltano/target-duckdb .meltano/target-jsonl .meltano/target-postgres ## All tests; ARGS="-k windows" for some
	.venv/bin/pytest --numprocesses=$(WORKERS) $(ARGS)

# Each in an environment of its own, as what they need would not go together.
test-engines: $(VENV) $(ENGINES:%=.engines/%/.synced) ## The same exports in other engines, by the engines themselves; ENGINES=airbyte for one
	@for engine in $(ENGINES); do \
		.engines/$$engine/bin/python -m pytest tests/engines/$$engine $(ARGS) || exit; \
	done

# The exact versions that pyproject.toml begins with, in an environment of their own; uv.lock stays as it is.
test-lowest: $(UV) ## The quick tests with the oldest versions of the dependencies that are allowed
	rm -rf .lowest && mkdir .lowest && cp -R pyproject.toml README.md LICENSE tap_analytics_exports tests .lowest
	cd .lowest && ../.tools/bin/uv sync --quiet --python "$(PYTHON)" --resolution lowest-direct $(EXTRAS)
	cd .lowest && .venv/bin/python -m pytest $(LOWEST) $(ARGS)

bench: $(VENV) .meltano/target-postgres ## All measurements, into benchmarks/RESULTS.md; ARGS="--only csv --rows 100000 --repeat 3"
	.venv/bin/python benchmarks/throughput.py $(ARGS)

soak: $(VENV) ## 10,000 files, fuzzed parsers, and some 1,000 runs that are killed, in hours; ARGS="--kills 100 --seed 2"
	ORACLE_FILES=10000 nice .venv/bin/pytest tests/test_oracle.py --numprocesses=auto --timeout=0
	-.tools/bin/uv sync --quiet --locked $(EXTRAS) --group soak --no-build-package atheris
	nice .venv/bin/python tests/fuzz.py
	nice .venv/bin/python tests/soak.py $(ARGS)

docs: $(VENV) ## The pages of docs/ as a site, in site/index.html
	.tools/bin/uv run --quiet --locked --only-group docs --isolated zensical build --strict

lint: $(VENV) docs ## Style, types, imports, what is generated, and the links of docs/
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo --no-cache
	.venv/bin/python scripts/generate.py --check

clean: ## Remove what the other targets made, the demo's data included
	rm -rf .tools .venv .lowest .engines .meltano .demo .fuzz .hypothesis .mypy_cache .pytest_cache .ruff_cache dist \
		site .try

# uv lives outside of .venv, for it removes from there what uv.lock does not name.
$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, for example: make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .tools
	.tools/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

# Meltano can't share .venv either: it needs an older smart-open than the tap.
$(MELTANO): $(UV)
	.tools/bin/uv pip install --quiet --python .tools meltano==$(MELTANO_VERSION) uv==$(UV_VERSION)
	@touch $@

$(VENV): $(UV) pyproject.toml uv.lock
	@test -x .venv/bin/python || $(PYTHON) -m venv --without-pip .venv
	.tools/bin/uv sync --quiet --locked $(EXTRAS)
	@touch $@

.engines/%/.synced: $(UV) pyproject.toml tests/engines/%/pyproject.toml tests/engines/%/uv.lock
	UV_PROJECT_ENVIRONMENT=$(CURDIR)/.engines/$* .tools/bin/uv sync --quiet --locked --python "$(PYTHON)" --project tests/engines/$*
	@touch $@

# Each of Meltano's plugins has an environment of its own.
.meltano/%: $(MELTANO) pyproject.toml meltano.yml demo/target-duckdb/target_duckdb_exact.py
	.tools/bin/meltano --log-level=warning install $*
	@touch $@

# One set-up, one way to run, test and check. `make` lists the targets.

PYTHON ?= python3
CASE ?= flight_delays
UV_VERSION := 0.13.9

VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
HAVE_UV := $(VENV)/.uv-$(UV_VERSION)

# Dagster finds dagster.yaml here; what it writes goes to .ml_assets/.
export DAGSTER_HOME := $(CURDIR)
# Events are written in batches: on SQLite one costs about 18 ms alone.
export DAGSTER_EVENT_BATCH_SIZE ?= 1000
export DAGSTER_DISABLE_TELEMETRY := yes
export GX_ANALYTICS_ENABLED := false

# Without compiled modules a run starts twice as slowly (21.8 s against 10.5 s for four steps).
unexport PYTHONDONTWRITEBYTECODE
export UV_COMPILE_BYTECODE := 1
export UV_SYSTEM_CERTS := 1
export UV_CUSTOM_COMPILE_COMMAND := make lock
# An environment that happens to be active is not ours.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: $(VENV)/.run ## set up, then take a use case from delivered files to monitored scores (CASE=flight_delays)
	$(BIN)/ml-assets run $(CASE)

.PHONY: ui
ui: $(VENV)/.run ## Dagster's web interface with schedules and sensors, on port 3000
	$(BIN)/dagster dev -w workspace.yaml

.PHONY: test
test: $(VENV)/.dev browser ## every test, on two cores
	@# Each of the two has a core: threads that wait for each other on it do it busily.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: check
check: $(VENV)/.dev ## format, lint, types, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: $(VENV)/.dev ## put the code in form and mend what can be mended
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: bench
bench: $(VENV)/.dev ## every benchmark in benchmarks/
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

.PHONY: docs
docs: $(VENV)/.run ## write docs/reference.md from docstrings and declarations
	$(BIN)/python docs/generate.py

.PHONY: lock
lock: $(HAVE_UV) ## pin what pyproject.toml asks for (LOCK_FLAGS=--upgrade for newer versions)
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes $(LOCK_FLAGS) pyproject.toml -o requirements.lock
	$(UV) pip compile -q --universal --python-version 3.11 --generate-hashes $(LOCK_FLAGS) pyproject.toml --extra dev \
		-c requirements.lock -o requirements-dev.lock

.PHONY: clean
clean: ## remove the environment and caches; tables and models in .ml_assets/ stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up: redone when what it installs changed. ----------------------------------------------------------------------------

$(HAVE_UV):
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(not (3, 11) <= v[:2] <= (3, 13) and \
		"Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is %d.%d. Try: make PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@# Python 3.11 puts an old setuptools into every new environment: the lock decides, as it does on later versions.
	@$(UV) pip uninstall -q --python $(BIN)/python setuptools 2>/dev/null || true
	@touch $@

define install
$(UV) pip sync -q --require-hashes --python $(BIN)/python $(1)
$(UV) pip install -q --no-deps --python $(BIN)/python -e .
endef

# `run` needs less than `test`; an environment that already has the tools of `test` keeps them.
$(VENV)/.run: requirements.lock pyproject.toml $(HAVE_UV)
	$(call install,$(if $(wildcard $(VENV)/.dev),requirements-dev.lock,requirements.lock))
	@touch $(wildcard $(VENV)/.dev) $@

$(VENV)/.dev: requirements-dev.lock requirements.lock pyproject.toml $(HAVE_UV)
	$(call install,requirements-dev.lock)
	@touch $(VENV)/.run $@

# The tests of the web interface drive a real browser.
.PHONY: browser
browser:
	@command -v "$${CHROMIUM:-chromium}" >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium; \
		else \
			echo "The tests drive a browser: install the package 'chromium', or set CHROMIUM to the command of one." >&2; exit 1; \
		fi; }

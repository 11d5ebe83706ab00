# The project's commands. `make help` lists them.
PYTHON ?= python3
VENV := .venv
LITELLM := .venv-litellm
PROMETHEUS := .prometheus
BIN := $(CURDIR)/$(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
LOCKED := -qq --require-hashes --no-deps

export MLOPS_HOME ?= $(CURDIR)/.mlops
export MLOPS_PROFILE ?= tiny
export DAGSTER_HOME := $(MLOPS_HOME)/dagster
export PATH := $(BIN):$(PATH):$(CURDIR)/$(PROMETHEUS)/usr/bin
export PYTHONWARNINGS ?= ignore
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1
export GX_ANALYTICS_ENABLED := False
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help run loop dev test check format bench lock clean
.DEFAULT_GOAL := help

help: ## list these commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: $(VENV)/ready home ## the whole lineage on the shipped data, then its summary
	@dagster job execute -m mlops_assets.definitions -j lineage
	@mlops status

loop: $(VENV)/ready ## drift, retraining, approval, release, and a rollback, shown by itself
	@python -m mlops_assets_tests.loop

dev: $(VENV)/ready home ## Dagster UI (3000), daemon, MLflow UI (5000), approvals (3001)
	@mlops dev

test: $(VENV)/ready $(LITELLM)/ready prometheus ## the test suite on two workers, quick tests first
	@PYTHONWARNINGS= OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

check: $(VENV)/ready ## ruff, formatting, mypy --strict
	@ruff check .
	@ruff format --check .
	@mypy

format: $(VENV)/ready ## rewrite the code as `make check` wants it
	@ruff check --fix .
	@ruff format .

bench: $(VENV)/ready $(LITELLM)/ready ## the benchmarks; docs/benchmarks.md explains them
	@python -m mlops_assets_tests.bench

lock: $(VENV)/ready ## resolve pyproject.toml anew into requirements/
	@python requirements/lock.py

clean: ## delete the environments; MLOPS_HOME stays
	rm -rf $(VENV) $(LITELLM) $(PROMETHEUS)

.PHONY: prometheus
prometheus:
	@sh observability/fetch_prometheus.sh $(PROMETHEUS)

.PHONY: home
home:
	@install -d -m 700 $(MLOPS_HOME) $(DAGSTER_HOME)
	@install -m 600 dagster.yaml $(DAGSTER_HOME)/dagster.yaml

# Torch first: its CPU build where pip finds one, else PyPI's with its CUDA packages.
$(VENV)/ready: requirements/lock.txt requirements/torch-cpu.txt requirements/torch-pypi.txt pyproject.toml
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("Python 3.11 to 3.13 is needed, $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.11")'
	@echo "Installing into $(VENV) from requirements/ (a few minutes, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install $(LOCKED) -r requirements/torch-cpu.txt 2>/dev/null || $(PIP) install $(LOCKED) -r requirements/torch-pypi.txt
	@$(PIP) install $(LOCKED) -r requirements/lock.txt
	@$(PIP) install -qq --no-deps --no-build-isolation -e .
	@touch $@

# LiteLLM and its proxy do not go together with the rest: an environment of its own, for
# hosted providers and for the tests of `mlops export litellm`.
$(LITELLM)/ready: requirements/litellm.txt | $(VENV)/ready
	@echo "Installing LiteLLM into $(LITELLM) from requirements/ (half a minute, once)"
	@python -m venv $(LITELLM)
	@$(LITELLM)/bin/python -m pip --disable-pip-version-check install $(LOCKED) -r $<
	@touch $@

# One command each, the same for people and for CI. `make help` lists them.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
PIP    := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints-dev.txt

export MPLBACKEND = Agg
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1
MAKEFLAGS += --no-print-directory

.DEFAULT_GOAL := help
.PHONY: help demo test lint types bench peer docs clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(STAMP) ## fit a Bayesian regression; the figure goes to out/
	@mkdir -p out
	@$(BIN)/python examples/04_bayesian_regression.py out

test: $(STAMP) ## everything that CI checks: lint, types, then tests and doctests
	@$(MAKE) lint
	@$(MAKE) types
	@echo "== pytest"
	@$(BIN)/python -m pytest

lint: $(STAMP) ## ruff: rules and format
	@echo "== ruff check"
	@$(BIN)/ruff check
	@echo "== ruff format"
	@$(BIN)/ruff format --check

types: $(STAMP) ## mypy --strict and pyright
	@echo "== mypy --strict"
	@$(BIN)/mypy
	@echo "== pyright"
	@$(BIN)/pyright --project pyproject.toml  # or a pyrightconfig.json in a folder above would win

bench: $(VENV)/.stamp-bench ## speed, side by side with Pyro, NumPyro and plain torch
	@for script in eager svi scaling ensemble first_run; do \
		echo "== benchmarks/$$script.py"; $(BIN)/python "benchmarks/$$script.py" || exit 1; \
	done

peer: $(STAMP) ## Pyro's own examples and tests under our losses: make peer PYRO=<a checkout of Pyro>
	@test -d "$(PYRO)" || { echo "Name a checkout of Pyro: make peer PYRO=../pyro" >&2; exit 1; }
	@$(BIN)/python -m peer "$(PYRO)" $(if $(ONLY),--only "$(ONLY)")

docs: $(STAMP) ## run the tutorials and build the site, into site/
	@$(BIN)/python docs/tooling/build.py

clean: ## remove the environment, caches and everything built
	@rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist out site .cache
	@find src tests examples peer docs -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and alone, so that the build which the machine prefers (CPU or CUDA) is kept.
$(STAMP): pyproject.toml constraints-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "purepyro needs Python 3.11 or newer; '$(PYTHON)' is older or missing." >&2; \
		echo "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "== setting up $(VENV) (once; a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) torch==2.13.0
	@$(PIP) -e ".[dev]"
	@touch $@

$(VENV)/.stamp-bench: $(STAMP)
	@$(PIP) -e ".[benchmarks]"
	@touch $@

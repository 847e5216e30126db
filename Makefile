# One command each, the same for people and for CI. `make help` lists them.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp
PIP    := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints-dev.txt

# What the package needs at run time, but for torch and numpy.
RUNTIME := attrs opt_einsum optree pyro-api pyro-ppl torchopt tqdm typing-extensions

export MPLBACKEND = Agg
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1
MAKEFLAGS += --no-print-directory

.DEFAULT_GOAL := help
.PHONY: help demo test lint types bench peer docs gpu wheels clean

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

# A machine with a GPU has its own torch, and perhaps no network: all else comes from a folder.
gpu: ## checks and timings on a GPU with the torch that PYTHON has: make gpu PYTHON=python [WHEELS=wheels]
ifdef WHEELS
	@test -x .venv-gpu/bin/python || $(PYTHON) -m venv --system-site-packages .venv-gpu
	@.venv-gpu/bin/python -m pip install -qq --no-index --no-deps --find-links "$(WHEELS)" $(RUNTIME)
	@PYTHONPATH=src .venv-gpu/bin/python benchmarks/gpu.py
else
	@PYTHONPATH=src $(PYTHON) benchmarks/gpu.py
endif

wheels: ## what `make gpu WHEELS=wheels` needs besides torch, into wheels/
	@$(PYTHON) -m pip download -qq --no-deps --dest wheels $(RUNTIME)

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

# One command each, the same for people and for CI. `make help` lists them.

PYTHON ?= python3
TORCH  ?= 2.13.0
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.stamp-torch-$(TORCH)
PIP    := $(BIN)/python -m pip install -qq --disable-pip-version-check -c $(VENV)/constraints.txt
# Processes that share the tests, a file each; 0 for none but pytest itself.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

# What the package needs at run time, but for torch and numpy.
RUNTIME := attrs opt_einsum optree pyro-api pyro-ppl torchopt tqdm typing-extensions

export MPLBACKEND = Agg
export PYRIGHT_PYTHON_IGNORE_WARNINGS = 1
MAKEFLAGS += --no-print-directory

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint types compat bench peer docs gpu wheels clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(STAMP) ## fit a Bayesian regression; the figure goes to out/
	@mkdir -p out
	@$(BIN)/python examples/04_bayesian_regression.py out

test: $(STAMP) ## everything that CI checks: lint, types, then tests and doctests
	@$(MAKE) lint
	@$(MAKE) types
	@echo "== pytest"
	@$(PYTEST)

test-fast: $(STAMP) ## for the inner loop: tests that compile nothing and take no more than seconds
	@$(PYTEST) -q -m "not slow and not compiled" tests

compat: ## everything that CI checks, on another release of torch: make compat TORCH=2.14.1
	@$(MAKE) VENV=.venv-compat test

lint: $(STAMP) ## ruff: rules and format; import-linter: layers
	@echo "== ruff check"
	@$(BIN)/ruff check
	@echo "== ruff format"
	@$(BIN)/ruff format --check
	@echo "== import-linter"
	@$(BIN)/lint-imports --no-logo --no-cache > $(VENV)/layers.txt 2>&1 || { cat $(VENV)/layers.txt; exit 1; }

types: $(STAMP) ## mypy --strict, pyright, completeness of the public types, and the stubs
	@echo "== mypy --strict"
	@$(BIN)/mypy
	@echo "== pyright"
	@# --project, or a pyrightconfig.json in a folder above would win
	@$(BIN)/pyright --project pyproject.toml --pythonpath $(abspath $(BIN))/python
	@echo "== pyright --verifytypes"
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pyright --verifytypes purepyro --ignoreexternal \
		> $(VENV)/types.txt 2>&1 || { cat $(VENV)/types.txt; exit 1; }
	@echo "== stubs"
	@$(BIN)/python stubs/check_signatures.py

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
	@rm -rf $(VENV) .venv-compat .venv-gpu .hypothesis .mypy_cache .pytest_cache .ruff_cache .cache build dist out site
	@find src tests examples peer docs -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and alone, so that the build which the machine prefers (CPU or CUDA) is kept.
$(STAMP): pyproject.toml constraints-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "purepyro needs Python 3.11 or newer; '$(PYTHON)' is older or missing." >&2; \
		echo "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "== setting up $(VENV) with torch $(TORCH) (once; a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@sed 's/^torch==.*/torch==$(TORCH)/' constraints-dev.txt > $(VENV)/constraints.txt
	@$(PIP) torch==$(TORCH)
	@$(PIP) -e ".[dev]"
	@touch $@

$(VENV)/.stamp-bench: $(STAMP)
	@$(PIP) -e ".[benchmarks]"
	@touch $@

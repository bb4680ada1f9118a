# Needs Python >= 3.11 with venv, a C++ compiler and make; everything else goes into .venv.
#   make demo            animate the shipped portraits into build/demo, without torch
#   make test            run the fast tests; make test ARGS="-m full -n 0" runs the full-size checks
#   make test-versions   run smoke tests with the lowest and the newest version of every dependency
#   make test-all        run all tests but the full-size checks: fast ones, slow ones, test-versions
#   make fuzz            run the random tests with new examples; SEED=N repeats a search
#   make lint            run ruff and mypy
#   make bench           time baseline and runtime; ARGS="..." are options of fye bench
#   make docs            build the documentation as a site, build/site/index.html
#   make aot             compile all GPU kernels to cubins in build/kernels, without a GPU
PYTHON ?= python3
TORCH ?= torch==2.13.0
ARGS ?=
ROUNDS ?= 5
ifndef SEED
SEED := $(shell $(PYTHON) -c 'import random; print(random.randrange(10**6))')
endif
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -q
BUILD := pyproject.toml constraints.txt CMakeLists.txt $(wildcard kernels/native/*)

.PHONY: demo test test-versions test-all fuzz lint bench docs aot clean
.NOTPARALLEL:
demo: .venv/.demo
	$(BIN)/fye demo -o build/demo $(ARGS)

PYTEST = $(BIN)/python -m pytest -n logical --maxprocesses 4 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder
test: .venv/.dev
	$(PYTEST) $(ARGS)

# needs no .venv: makes an environment for each end
test-versions:
	$(PYTHON) tests/versions.py --torch '$(TORCH)'

test-all: test-versions .venv/.dev
	$(PYTEST) -m "not full" $(ARGS)

fuzz: .venv/.dev
	@for seed in $$(seq $(SEED) $$(($(SEED) + $(ROUNDS) - 1))); do \
		echo "examples of make fuzz SEED=$$seed ROUNDS=1"; \
		$(PYTEST) -q -m "hypothesis and not full" \
			--hypothesis-profile fuzz --hypothesis-seed $$seed $(ARGS) || exit 1; \
	done

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.dev
	$(BIN)/fye bench $(ARGS)

docs: .venv/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean

aot: .venv/.dev
	PYTHONPATH=.:kernels $(BIN)/python -m fye_kernels.aot --out build/kernels $(ARGS)

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "fye-rt needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

# only TORCH pins torch, so that another build of it can be chosen
.venv/constraints.txt: constraints.txt | .venv/.python
	grep -v '^torch==' constraints.txt > $@

.venv/.demo: $(BUILD) .venv/constraints.txt
	$(PIP) install -c .venv/constraints.txt -e .
	@touch $@

.venv/.dev: $(BUILD) .venv/constraints.txt
	$(PIP) install '$(TORCH)'
	$(PIP) install -c .venv/constraints.txt -e '.[export,openvino,landmarks,kernels,cluster,bench,docs,dev]'
	@touch .venv/.demo $@

# Needs Python >= 3.11 with venv, a C++ compiler and make; everything else goes into .venv.
#   make demo   animate the shipped portraits into build/demo (no torch)
#   make test   the fast test suite        make test ARGS="-m full -n 0"   the full-size checks
#   make lint   ruff and mypy              make bench ARGS="..."      latency of baseline and runtime
#   make aot    all GPU kernels as cubins into build/kernels (no GPU needed)
PYTHON ?= python3
TORCH ?= torch==2.13.0
ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -q
BUILD := pyproject.toml constraints.txt CMakeLists.txt $(wildcard kernels/native/*)

.PHONY: demo test lint bench aot clean
.NOTPARALLEL:
demo: .venv/.demo
	$(BIN)/fye demo -o build/demo $(ARGS)

test: .venv/.dev
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --max-worker-restart 0 --dist loadfile $(ARGS)

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/.dev
	$(BIN)/fye bench $(ARGS)

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

# torch is pinned by TORCH alone, so that another build of it can be chosen
.venv/constraints.txt: constraints.txt | .venv/.python
	grep -v '^torch==' constraints.txt > $@

.venv/.demo: $(BUILD) .venv/constraints.txt
	$(PIP) install -c .venv/constraints.txt -e .
	@touch $@

.venv/.dev: $(BUILD) .venv/constraints.txt
	$(PIP) install '$(TORCH)'
	$(PIP) install -c .venv/constraints.txt -e '.[export,openvino,landmarks,kernels,cluster,bench,dev]'
	@touch .venv/.demo $@

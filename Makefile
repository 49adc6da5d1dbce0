# `make demo` and `make test` are all that a new user needs; both make the environment themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# torch and the tests share the cores: a process a core, a thread each.
CORES := $(shell nproc)

.PHONY: demo test test-slow lint types unit bench clean

$(BIN)/nasaug: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.test-extras: $(BIN)/nasaug
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

demo: $(BIN)/nasaug
	$(BIN)/nasaug search --budget 300M
	$(BIN)/nasaug train --target mbv2_tiny

test: lint types unit

lint: $(VENV)/.test-extras
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# On the installed wheel and from a neutral folder: from here mypy sees one folder of the package only.
types: $(VENV)/.test-extras
	rm -rf build && mkdir -p build/types
	$(BIN)/pip install --quiet --no-deps --no-warn-conflicts --target build/types/wheel .
	cd build/types && MYPYPATH=wheel ../../$(BIN)/mypy --config-file ../../pyproject.toml -p nasaug

unit: $(VENV)/.test-extras
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(CORES)

test-slow: $(VENV)/.test-extras
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(CORES) -m slow

bench: $(VENV)/.test-extras
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/options.py
	$(BIN)/python benchmarks/communication.py
	$(BIN)/python benchmarks/cells.py
	$(BIN)/python benchmarks/pipeline.py
	$(BIN)/python benchmarks/detection.py

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

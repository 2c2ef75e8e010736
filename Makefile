# Two commands: `make demo` prunes a real model and its data, `make test` runs every check.
.DELETE_ON_ERROR:
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One thread per process: tests run in parallel, and results are the same bit for bit.
export OMP_NUM_THREADS := 1

.PHONY: demo test format lint types contracts tests lock clean

demo: $(READY)
	$(BIN)/prunus run examples/digits.yaml --overwrite

demo-dirty: $(READY)
	$(BIN)/prunus run examples/digits_dirty.yaml --overwrite

test: format lint types contracts tests

format: $(READY)
	$(BIN)/ruff format --check .

lint: $(READY)
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

contracts: $(READY)
	$(BIN)/lint-imports

tests: $(READY)
	$(BIN)/pytest

$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Write requirements.lock anew from the packages that are installed now.
lock: $(READY)
	$(BIN)/python tools/write_lock.py > requirements.lock

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache .hypothesis

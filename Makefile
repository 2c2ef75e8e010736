# Two commands: `make demo` prunes a real model and its data, `make test` runs every check.
.DELETE_ON_ERROR:
# The first Python from 3.11 on that runs; `make demo PYTHON=/path/to/python` says which.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
NEWEST := .venv-newest
DOCS := .venv-docs
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
READY := $(VENV)/.ready
# One thread per process: tests run in parallel, and results are the same bit for bit.
export OMP_NUM_THREADS := 1

.PHONY: demo demo-dirty docs test format lint types contracts tests test-newest check-wheel lock clean

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

# The lock was written with Python 3.11 and the oldest torch that is allowed. Where a later Python has no such wheels, the ranges of pyproject.toml do.
$(READY): requirements.lock pyproject.toml tools/check_python.sh
	@sh tools/check_python.sh "$(PYTHON)"
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@echo "installing what prunus needs into $(VENV), once; torch makes that minutes on most lines"
	$(PIP) --requirement requirements.lock || { $(BIN)/python tools/requirements.py --instead-of-the-lock > $(VENV)/ranges.txt && \
		$(PIP) --requirement $(VENV)/ranges.txt; }
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

# The fast tests with the newest torch that there is; `make test` runs all with the oldest, which is in the lock.
test-newest:
	@sh tools/check_python.sh "$(PYTHON)"
	test -x $(NEWEST)/bin/python || "$(PYTHON)" -m venv $(NEWEST)
	"$(PYTHON)" tools/requirements.py | xargs -d '\n' $(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade
	$(NEWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(NEWEST)/bin/python -c 'import torch; print("torch", torch.__version__)'
	$(NEWEST)/bin/pytest tests/unit

# The wheel in a new environment, away from the repository: it installs, and runs the demo.
check-wheel: $(READY)
	sh tools/check_wheel.sh $(BIN)/python

# The pages as a site, into build/site; a warning is an error. Made of the sources in a small environment of its own, without torch.
docs: $(DOCS)/.ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

$(DOCS)/.ready: requirements-docs.lock tools/check_python.sh
	@sh tools/check_python.sh "$(PYTHON)"
	test -x $(DOCS)/bin/python || "$(PYTHON)" -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-docs.lock
	touch $@

# Write the locks anew from the packages that are installed now.
lock: $(READY) $(DOCS)/.ready
	$(BIN)/python tools/write_lock.py > requirements.lock
	$(DOCS)/bin/python tools/write_lock.py --docs > requirements-docs.lock

clean:
	rm -rf $(VENV) $(NEWEST) $(DOCS) runs dist build/site .mypy_cache .ruff_cache .pytest_cache .hypothesis

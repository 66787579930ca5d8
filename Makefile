# The commands of this project. `make serve` and `make test` are all that a user and a tester need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-input
PORT ?= 3000

# Container images often forbid it, and then every process compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help env serve test check bench lock proto clean

help:
	@echo "make serve   make the environment and serve the example models on port $(PORT)"
	@echo "make test    make the full environment and run every test"
	@echo "make check   format, lint, types, import rules and unit tests: quick, for while you work"
	@echo "make bench   measure; results are written to benchmarks/RESULTS.md"
	@echo "make env     make the full environment only"
	@echo "make lock    renew the locked dependencies"

$(BIN)/python:
	$(PYTHON) scripts/check_python.py
	$(PYTHON) -m venv $(VENV)

# The small environment: the server, onnxruntime and scikit-learn.
$(VENV)/.serve: $(BIN)/python requirements/serve.txt pyproject.toml
	@echo "installing the server and what the examples need ..."
	@$(PIP) --no-deps --require-hashes -r requirements/serve.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

# The full one: every extra, and what tests, checks and benchmarks use. uv, from the same locked file, installs it in a tenth of pip's time;
# it knows nothing of pip's configuration, so pip is asked where it cannot. Modules are compiled when they are first imported.
$(VENV)/.dev: $(BIN)/python requirements/dev.txt pyproject.toml
	@echo "installing every extra and the tools for tests ..."
	@sed -n '/^uv==/,/[^\\]$$/p' requirements/dev.txt >$(VENV)/uv.txt
	@$(PIP) --no-deps --require-hashes -r $(VENV)/uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements/dev.txt || \
	  $(PIP) --no-compile --no-deps --require-hashes -r requirements/dev.txt
	@$(PIP) --no-compile $(TORCH)
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.serve

env: $(VENV)/.dev

examples/models/.made: $(VENV)/.serve examples/prepare.py
	@$(BIN)/python examples/prepare.py examples/models
	@touch $@

serve: examples/models/.made
	@$(BIN)/dragoman serve examples/models examples/python/reading.py --port $(PORT)

# Three processes, because many tests wait, and then two cores would not be busy. Files stay whole, so that what a module shares is made once,
# and the many short ones come last, so that all end at one time.
test: env examples/models/.made
	@sh scripts/system_packages.sh
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -n 2
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --conformance --durations=15 --durations-min=5

check: env
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/mypy -n 2
	$(BIN)/python -m pytest -q tests/unit tests/golden

bench: env
	@sh scripts/system_packages.sh wrk
	$(BIN)/python -m benchmarks

lock: env
	UV=$(BIN)/uv sh scripts/lock.sh

proto: env
	$(BIN)/python scripts/build_protos.py

clean:
	rm -rf $(VENV) examples/models .mypy_cache .ruff_cache .pytest_cache

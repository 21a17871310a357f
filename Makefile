# `make run` and `make test` do everything on a fresh machine with Python 3.11+ and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SPARK  := .venv-spark
PEERS  := .venv-peers
INPUT  ?=
TESTS_AT_A_TIME ?= 2
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test check chaos bench up spark lock clean

run: $(VENV)/ready
	$(BIN)/python -m sandbox run $(if $(INPUT),--input "$(INPUT)")

test: $(VENV)/ready
	$(BIN)/python -m pytest -n $(TESTS_AT_A_TIME) --dist worksteal

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(TESTS_AT_A_TIME) --dist worksteal

# Sending processes killed a thousand times, and a mail server that fails: the tests do the same for a minute.
chaos: $(VENV)/ready
	$(BIN)/python -m tests.ledger.chaos

bench: $(VENV)/ready
	-$(MAKE) $(PEERS)/ready
	$(BIN)/python -m tests.bench

# The public packages that `make bench` measures against; without them it measures the rest, and says so.
$(PEERS)/ready: $(VENV)/ready tests/bench/peers/requirements.lock
	$(PYTHON) -m venv $(PEERS)
	VIRTUAL_ENV=$(PEERS) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r tests/bench/peers/requirements.lock
	touch $@

up: $(VENV)/ready
	$(BIN)/tern init && $(BIN)/tern up

# The distributed engine, in an environment of its own; needs Java 17: apt-get install openjdk-17-jre-headless
spark: $(SPARK)/ready
	$(SPARK)/bin/python -m pytest tests/segments/test_spark.py

$(SPARK)/ready: $(VENV)/ready tests/distributed/requirements.lock
	$(PYTHON) -m venv $(SPARK)
	VIRTUAL_ENV=$(SPARK) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements.lock -r tests/distributed/requirements.lock
	VIRTUAL_ENV=$(SPARK) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# Bytecode is compiled while installing: without it Great Expectations alone imports in 15-50 s.
$(VENV)/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Tern needs Python 3.11 or newer; this is %s. Try: make PYTHON=python3.12" % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -o '^uv==[0-9.]*' requirements.lock)"
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --extra accelerator --extra sandbox --extra dev --custom-compile-command "make lock" pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --constraints requirements.lock --custom-compile-command "make lock" tests/distributed/requirements.in \
	  -o tests/distributed/requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command "make lock" tests/bench/peers/requirements.in -o tests/bench/peers/requirements.lock

clean:
	rm -rf $(VENV) $(SPARK) $(PEERS) build *.egg-info

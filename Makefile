# One front door: every target builds what it needs, from a fresh clone.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test test-postgres env lint format sim faults soak bench conformance lock help
.DEFAULT_GOAL := help

help:            ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

env: .venv/ready ## Build .venv with everything that tests and benchmarks need

.venv/ready: requirements/dev.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements/dev.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q src # so that the first start is as quick as the next, also where none may be written
	@touch $@

# The live peer of benchmarks and federation tests has an environment of its own.
.venv-synapse/ready: requirements/synapse.lock
	$(PYTHON) -m venv .venv-synapse
	.venv-synapse/bin/pip install --quiet --require-hashes -r requirements/synapse.lock
	@touch $@

run: env         ## Start a homeserver on http://localhost:8008 with its data in ./data
	@RANVIER__REGISTRATION__MODE=open $(BIN)/ranvier serve --server-name localhost --data-dir data --bind 127.0.0.1:8008

test: env .venv-synapse/ready ## The whole default test suite
	@scripts/with-postgres true # installs it where it is missing; each process of tests starts one of its own
	@$(BIN)/pytest --numprocesses auto --dist worksteal $(ARGS)

test-postgres: env ## The tests of the HTTP API with homeservers on PostgreSQL
	@RANVIER_TEST_ENGINE=postgres scripts/with-postgres $(BIN)/pytest --numprocesses auto --dist worksteal tests/http $(ARGS)

lint: env        ## ruff, mypy strict, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --verbose

format: env      ## Let ruff mend what it can
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

sim: env          ## Homeservers in virtual time, from the seeds SEED=1..200 (or one)
	@PYTHONHASHSEED=0 $(BIN)/python -m tests.sim --seed $(or $(SEED),1..20) $(ARGS)

faults: env       ## Full and slow disks, databases and networks that go away, clients by the thousand
	@scripts/with-postgres true
	@$(BIN)/pytest --numprocesses 0 tests/faults tests/crash $(ARGS)

soak: env         ## Ordinary life for MINUTES (60): memory, files, database and answers stay level
	@SOAK_MINUTES=$(or $(MINUTES),60) $(BIN)/pytest --numprocesses 0 --log-cli-level INFO tests/faults/test_soak.py

bench: env .venv-synapse/ready ## The benchmarks; prints a table
	@scripts/with-postgres $(BIN)/python -m bench $(ARGS)

conformance: env ## Complement against this checkout, without Docker (needs Go)
	@$(BIN)/python conformance/run.py $(ARGS)

lock:            ## Write the lock file anew from pyproject.toml
	@scripts/lock

# RedisForge. `make up` and `make test` need python3 (3.11 or newer), make and a network, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.ready-to-run
DEV := $(VENV)/.ready-to-develop
# Two processes, since half of the suite waits for clusters; which tests go together: tests/conftest.py.
PARALLEL ?= --numprocesses=2 --dist=loadscope --no-loadscope-reorder

.PHONY: up down test check bench generate clean help

help:
	@echo "make up      raise the default cluster, test it, and say how to connect"
	@echo "make down    stop it and keep its data"
	@echo "make test    run the test suite (fetches the engines that it needs)"
	@echo "make check   lint, types, import rules, generated files, secrets, dependency audit"
	@echo "make bench   measure against the limits, as ratios in one run"

$(RUN): constraints.txt pyproject.toml scripts/bootstrap.py
	@$(PYTHON) scripts/bootstrap.py $(VENV) constraints.txt
	@touch $@

$(DEV): $(RUN) constraints-dev.txt
	@$(PYTHON) scripts/bootstrap.py $(VENV) constraints-dev.txt
	@touch $@

up: $(RUN)
	@$(BIN)/redisforge up

down: $(RUN)
	@$(BIN)/redisforge down --yes

test: $(DEV)
	@$(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

check: $(DEV)
	@$(BIN)/python scripts/check.py

bench: $(DEV)
	@$(BIN)/python bench/bench.py

generate: $(DEV)
	@$(BIN)/python scripts/generate.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache

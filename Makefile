# Every target works on a fresh clone that has python3 (3.11 to 3.13), pip and make; nothing is installed outside this
# folder. uv is fetched by pip into .tools, the project's environment is .venv.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
UV := .tools/bin/uv
RUN := .venv/bin/
export VIRTUAL_ENV := $(CURDIR)/.venv
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# pip and uv may be told about indexes of their own by the machine; the project names none.

.PHONY: help demo dev bench simulate ablations kill test test-postgres check format lock clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 15

demo: .venv/.demo ## Set up, then run the whole pipeline on real data; again: sends nothing
	@$(RUN)python -m dagster_project.demo

dev: .venv/.demo ## Start Dagster's UI and the sandbox on loopback
	@$(RUN)python -m dagster_project.dev

test: .venv/.dev ## Set up, then pass the tests
	@$(RUN)pytest -n 2 --dist loadfile tests

test-postgres: .venv/.dev ## Pass only what runs on Postgres; make test has it too
	@$(RUN)pytest -n 2 --dist loadfile -m postgres tests

SEEDS ?= 500
WORKERS ?= 2

simulate: .venv/.dev ## Run the engine through SEEDS=500 seeded schedules of faults; SEED=n repeats one
	@$(RUN)python -m tests.simulation --seeds $(SEEDS) --workers $(WORKERS) $(if $(SEED),--seed $(SEED))

ablations: .venv/.dev ## Take one protective measure after the other out of the engine; the simulation has to notice
	@$(RUN)python -m tests.simulation --ablations --seeds $(SEEDS) --workers $(WORKERS)

KILLS ?= 200
JOURNAL ?= sqlite

kill: .venv/.dev ## Kill the real command KILLS=200 times with kill -9; the next one puts everything right (JOURNAL=postgres)
	@$(RUN)python -m tests.kill --kills $(KILLS) --journal $(JOURNAL) --workers $(WORKERS)

bench: .venv/.demo ## Measure the engine against floors and peers (QUICK=1: a tenth)
	@$(RUN)python -m benchmarks $(if $(QUICK),--quick)

check: .venv/.dev ## Format, lint, types, layers, dbt parse, SQL lint, syncs, exposures
	@echo "format" && $(RUN)ruff format --check --quiet .
	@echo "lint" && $(RUN)ruff check --quiet .
	@echo "types" && $(RUN)mypy --no-error-summary
	@echo "layers" && $(RUN)lint-imports --no-logo >/dev/null || $(RUN)lint-imports
	@echo "dbt parse" && $(RUN)dbt --quiet parse --project-dir dbt --profiles-dir dbt
	@echo "SQL" && said=$$($(RUN)sqlfluff lint --nocolor --disable-progress-bar --processes 2 dbt/models 2>&1) || { echo "$$said"; exit 1; }
	@echo "syncs" && $(RUN)activations check >/dev/null
	@echo "exposures" && $(RUN)activations exposures --check >/dev/null

format: .venv/.dev ## Format Python and SQL
	@$(RUN)ruff format --quiet . && $(RUN)ruff check --quiet --fix . ; $(RUN)sqlfluff fix --quiet dbt/models

lock: $(UV) ## Renew the hash-pinned locks
	@$(UV) pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" pyproject.toml -o requirements.lock
	@$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" pyproject.toml --extra demo -c requirements.lock -o requirements-demo.lock
	@$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" pyproject.toml --extra postgres -c requirements.lock -o requirements-postgres.lock
	@$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" pyproject.toml --extra demo --extra postgres --group dev -c requirements-demo.lock -c requirements-postgres.lock -o requirements-dev.lock
	@for peer in drt dlt; do $(UV) pip compile --quiet --upgrade --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" benchmarks/peers/$$peer.in -o benchmarks/peers/$$peer.lock; done

clean: ## Remove the environment and all state (the warehouse, the journal, the sandbox)
	rm -rf .venv .tools var dbt/target dbt/logs

$(UV):
	@echo "Fetching uv"
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-input --target .tools uv==0.13.9

.venv/bin/python: | $(UV)
	@$(UV) venv --quiet --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .venv

.venv/.demo: requirements-demo.lock pyproject.toml | .venv/bin/python
	@echo "Installing the pinned packages (about 1.2 GB on disk)"
	@$(UV) pip install --quiet --require-hashes -r requirements-demo.lock
	@$(UV) pip install --quiet --no-deps --editable .
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.demo
	@echo "Installing the tools for tests and checks"
	@$(UV) pip install --quiet --require-hashes -r requirements-dev.lock
	@touch $@

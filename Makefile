.DEFAULT_GOAL := help
.PHONY: help setup run status logs psql reset test check contract format bench chaos lock provision \
	migrate-new migrate-up migrate-down migrate-current migrate-history migrate-check

packages := bin/setup.sh run
tools := bin/setup.sh dev
stack := .venv/bin/python -m dev.local_stack

help:
	@echo "Start with: make run"
	@awk -F ':.*## ' '/^##@/ {print "\n" substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' \
		$(MAKEFILE_LIST)
	@printf '\nVariables follow the target: make run SENDERS=3. .env.example lists the settings.\n'

##@ Run
run: ## Start everything on this machine; Ctrl-C stops it
	@bin/start.sh
status: ## Show what is running, where it listens, and how far behind it is
	@$(packages) && $(stack) status
logs: ## Show the latest logs and follow them [SERVICE=sender] [TAIL=20]
	@$(packages) && $(stack) logs $${SERVICE:+--service "$$SERVICE"} $${TAIL:+--tail "$$TAIL"}
psql: ## Open psql on the database in use [SQL="select 1"]
	@$(packages) && $(stack) psql $${SQL:+--command "$$SQL"}
psql: export SQL := $(value SQL)
reset: ## Delete the data that 'make run' keeps, after asking [YES=1]
	@$(packages) && $(stack) reset $${YES:+--yes}

##@ Change
test: ## Run the tests, against real servers [TESTS=tests/unit]
	@$(tools) && .venv/bin/pytest -n auto $(TESTS)
check: ## Check the formatting, the lint rules, the types and the imports
	@$(tools) && bin/check.sh
contract: ## Write the documents that are generated from the code [RELEASE=1]
	@$(tools) && .venv/bin/python -m dev.contract $${RELEASE:+--release}
format: ## Format the code and apply the safe fixes
	@$(tools) && { .venv/bin/ruff check --fix --quiet .; .venv/bin/ruff format .; }
lock: ## Resolve the dependencies; needs uv [UPGRADE=1] [PACKAGE=name]
	@bin/lock.sh
setup: ## Install all packages and tools; the other targets install what they need
	@$(tools)

##@ Measure
bench: ## Measure CPU time per message, throughput, latency and memory [QUICK=1] [SCALE=1000000]
	@$(tools) && .venv/bin/python -m dev.bench $${QUICK:+--quick} $${SCALE:+--scale "$$SCALE"}
chaos: ## Inject faults under load and account for every message [RANDOM_FAULTS=20] [SEED=1]
	@$(tools) && .venv/bin/python -m dev.chaos $${RANDOM_FAULTS:+--random "$$RANDOM_FAULTS"} $${SEED:+--seed "$$SEED"}

##@ Your own database and streams: DATABASE_URL and NATS_URL
migrate-up: ## Upgrade the database to the newest migration
migrate-down: ## Drop every table, and the data with it
migrate-new: ## Write a migration from the changes to the models [MESSAGE="add a column"]
migrate-check: ## Check that the models have no changes without a migration
provision: ## Create or update the streams, the consumers and the buckets
	@$(packages) && bin/provision

migrate-up migrate-down migrate-current migrate-history:
	@$(packages) && bin/migrate.sh $(@:migrate-%=%)
migrate-new migrate-check:
	@$(tools) && bin/migrate.sh $(@:migrate-%=%) $${MESSAGE:+"$$MESSAGE"}
migrate-new: export MESSAGE := $(value MESSAGE)

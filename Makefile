.DEFAULT_GOAL := help
.PHONY: help setup run test check format lock bench chaos \
	migrate-new migrate-up migrate-down migrate-current migrate-history migrate-check provision

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make .venv from the lock file
	@bin/setup.sh

run: setup ## Start everything, with PostgreSQL and NATS of its own unless .env names others
	@bin/start.sh

test: setup ## Run all tests against real servers, in parallel
	@.venv/bin/pytest -n auto

check: setup ## Formatting, lint, types, import walls
	@bin/check.sh

format: setup ## Format the code and apply the safe fixes
	@.venv/bin/ruff check --fix --quiet . ; .venv/bin/ruff format .

lock: ## Resolve the dependencies anew (needs uv)
	@bin/lock.sh

bench: setup ## Measure, each figure beside its limit
	@.venv/bin/python -m bench

chaos: setup ## Kill, stop, hang and fill everything under load, and account for every message
	@.venv/bin/python -m chaos

provision: setup ## Create or update the streams, consumers and buckets at NATS_URL
	@bin/provision

migrate-new: setup ## Write a migration from the changes of the models (asks for a name, or MESSAGE=…)
	@bin/migrate.sh new "$$MESSAGE"
migrate-new: export MESSAGE := $(value MESSAGE)

migrate-up migrate-down migrate-current migrate-history migrate-check: setup
	@bin/migrate.sh $(@:migrate-%=%)
migrate-up: ## Upgrade the database at DATABASE_URL to the newest migration
migrate-down: ## Downgrade it to nothing: every table goes, and what is in it
migrate-current: ## Show which migration it is at
migrate-history: ## List the migrations
migrate-check: ## Say whether the models have changes that no migration has

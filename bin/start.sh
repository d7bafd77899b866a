#!/usr/bin/env bash
# Starts everything on this machine; Ctrl-C stops it. With DATABASE_URL and NATS_URL in .env it uses
# those servers, otherwise a PostgreSQL and a nats-server of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
bin/setup.sh run
exec .venv/bin/python -m dev.local_stack

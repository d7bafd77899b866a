#!/usr/bin/env bash
# Starts everything on this machine; Ctrl-C stops it. If DATABASE_URL and NATS_URL are set, in the environment
# or in .env, it uses those servers; otherwise, it starts a PostgreSQL and a NATS.
set -euo pipefail
cd "$(dirname "$0")/.."
bin/setup.sh run
exec .venv/bin/python -m dev.local_stack

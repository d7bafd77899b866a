#!/usr/bin/env bash
# What can be known without running the code. Stops at the first thing that is wrong.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

ruff format --check .
ruff check .
mypy
lint-imports

#!/usr/bin/env bash
# Checks the code without running it. Stops at the first fault.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

ruff format --check .
ruff check .
mypy
lint-imports

#!/usr/bin/env bash
# Resolves pyproject.toml into the two lock files, for every platform and Python version it supports.
# requirements.lock is what an image of the services installs; requirements-dev.lock adds what
# development and `make run` need.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
  uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
    --no-emit-index-url pyproject.toml "$@"
}
compile --output-file requirements.lock
compile --group dev --output-file requirements-dev.lock

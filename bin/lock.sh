#!/usr/bin/env bash
# Resolves pyproject.toml into the lock files, for every platform and every Python version it supports.
#
#   requirements.lock       the services, as in the image
#   requirements-run.lock   the same, and the servers and the supervisor of `make run`
#   requirements-dev.lock   the same, and the tools for tests, checks and measurements
#
# Versions stay as they are unless pyproject.toml requires others. UPGRADE=1 upgrades all of them;
# PACKAGE=name upgrades one.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v uv >/dev/null || {
  echo "lock: uv is needed to resolve the dependencies; see https://docs.astral.sh/uv/" >&2
  exit 1
}

compile() {
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
    --no-emit-index-url --no-emit-find-links pyproject.toml "$@"
}

upgrade=()
[[ ${UPGRADE:-} != 1 ]] || upgrade=(--upgrade)
[[ -z ${PACKAGE:-} ]] || upgrade=(--upgrade-package "$PACKAGE")

compile "${upgrade[@]}" --group dev --output-file requirements-dev.lock
# uv keeps the versions that it finds in the output file, so the smaller sets agree with the largest.
for set in "" -run; do
  cp requirements-dev.lock "requirements$set.lock"
done
compile --output-file requirements.lock
compile --group run --output-file requirements-run.lock

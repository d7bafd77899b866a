#!/usr/bin/env bash
# Makes .venv from the lock file. Does nothing when it is up to date; set PYTHON to choose an interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "setup: $*" >&2
  exit 1
}

# What is installed depends on the lock, and the scripts in .venv/bin on the absolute path of the folder.
stamp=.venv/.made-from
made_from=$({
  pwd
  cat requirements-dev.lock
} | cksum)
[[ -f $stamp && $(<"$stamp") == "$made_from" ]] && exit 0

python=${PYTHON:-}
if [[ -z $python ]]; then
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      python=$candidate
      break
    fi
  done
fi
[[ -n $python ]] || fail "Python 3.11 or newer is needed; set PYTHON to its path"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "$python cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"

echo "setup: installing into .venv with $("$python" --version)"
# An environment of another folder or another Python is made anew, any other brought up to date.
version='import sys; print(sys.prefix, sys.version)'
before=$(.venv/bin/python -c "$version" 2>/dev/null || true)
if [[ $before != "$PWD/.venv $("$python" -c 'import sys; print(sys.version)')" ]]; then
  "$python" -m venv --clear .venv
fi
rm -f "$stamp"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
.venv/bin/python -m pip install --quiet --require-hashes -r requirements-dev.lock
echo "$made_from" >"$stamp"

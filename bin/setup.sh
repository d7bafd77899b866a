#!/usr/bin/env bash
# Installs the packages of a lock file into .venv. Does nothing if they are installed already.
#
#   bin/setup.sh run    what `make run` needs: the services, and the servers that they use
#   bin/setup.sh dev    the same, and the tools for tests, checks and measurements (the default)
#
# PYTHON=path selects the Python interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "setup: $*" >&2
  exit 1
}

say() {
  # On a terminal, each message replaces the one before.
  if [[ -t 1 ]]; then printf '\r\033[Ksetup: %s' "$*"; else echo "setup: $*"; fi
}

# The environment depends on the lock file and, since scripts hold its absolute path, on this folder.
stamp_of() {
  echo "$1 $({
    pwd
    cat "requirements-$1.lock"
  } | cksum)"
}

find_python() {
  local candidate
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
}

# Prints a line for each installed package that is not in the lock file, except pip.
superfluous() {
  comm -23 \
    <(.venv/bin/python -m pip list --format=freeze | sed 's/[ =@].*//; s/[-_.]\{1,\}/-/g' |
      tr '[:upper:]' '[:lower:]' | grep -vx pip | LC_ALL=C sort) \
    <(sed -n 's/^\([a-z0-9-]*\).*==.*/\1/p' "$1" | LC_ALL=C sort)
}

# Reads pip's output and shows its progress: every package on a terminal, every twentieth one elsewhere.
progress() {
  local total=$1 count=0 failed="" line
  while IFS= read -r line; do
    case $failed$line in
      "Collecting "* | "Requirement already satisfied: "*)
        count=$((count + 1))
        if [[ -t 1 ]] || ((count % 20 == 0)); then
          say "downloading package $count of $total"
        fi
        ;;
      "Installing collected packages: "*) say "unpacking, which takes a few seconds" ;;
      ERROR:*)
        [[ -n $failed || ! -t 1 ]] || echo
        failed=ERROR:
        echo "$line" >&2
        ;;
    esac
  done
}

wanted=${1:-dev}
[[ -f requirements-$wanted.lock ]] || fail "usage: bin/setup.sh [run|dev]"
stamp=.venv/.installed
installed=$(cat "$stamp" 2>/dev/null || true)
# An environment that already has the tools keeps them.
[[ $installed == dev\ * ]] && wanted=dev
lock=requirements-$wanted.lock
[[ $installed == "$(stamp_of "$wanted")" && -x .venv/bin/python ]] && exit 0

python=${PYTHON:-$(find_python)}
[[ -n $python ]] || fail "Python 3.11 or newer was not found; set PYTHON to the path of one"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "$python cannot create virtual environments; on Debian and Ubuntu: apt-get install python3-venv"

total=$(grep -c '^[a-z0-9].*==' "$lock")
echo "setup: installing $total packages into .venv with $("$python" --version), from $lock"
# An environment from another folder or another Python is replaced; any other is updated.
version='import sys; print(sys.prefix, sys.version)'
before=$(.venv/bin/python -c "$version" 2>/dev/null || true)
if [[ $before != "$PWD/.venv $("$python" -c 'import sys; print(sys.version)')" ]]; then
  say "creating .venv"
  "$python" -m venv --clear .venv
fi
rm -f "$stamp"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
leftovers=$(superfluous "$lock")
# shellcheck disable=SC2086 # one argument for each package
[[ -z $leftovers ]] || .venv/bin/python -m pip uninstall --quiet --yes $leftovers
.venv/bin/python -m pip install --progress-bar off --require-hashes -r "$lock" 2>&1 | progress "$total" ||
  fail "the packages of $lock could not be installed"
stamp_of "$wanted" >"$stamp"
say "done in $SECONDS s"
[[ ! -t 1 ]] || echo

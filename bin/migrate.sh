#!/usr/bin/env bash
# Migrates the database at DATABASE_URL, which is read from the environment or from .env.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat >&2 <<'EOF'
usage: bin/migrate.sh COMMAND
  up              upgrade the database to the newest migration
  down            drop every table, and the data with it
  current         show the current migration of the database
  history         list the migrations
  check           check that the models have no changes without a migration
  new [MESSAGE]   write a migration from the changes to the models; without MESSAGE, it asks for one
EOF
  exit 2
}

ask_for_message() {
  if [[ -t 0 ]]; then
    read -r -p "What does the migration do? " message
  else
    read -r message || true
  fi
}

new() {
  local message=${1:-}
  [[ -n $message ]] || ask_for_message
  if [[ -z ${message//[[:space:]]/} ]]; then
    echo "migrate: a migration needs a message that describes it" >&2
    exit 1
  fi
  local number
  number=$(printf '%04d' $((10#$(newest_number) + 1)))
  alembic revision --autogenerate --rev-id "$number" --message "$message"
  echo "migrate: review the file, then run: make migrate-up"
}

newest_number() {
  local files=(migrations/versions/[0-9][0-9][0-9][0-9]_*.py)
  basename "${files[-1]}" | cut -c1-4
}

alembic() {
  .venv/bin/alembic "$@"
}

command=${1:-}
shift || usage
case $command in
  up) alembic upgrade head ;;
  down) alembic downgrade base ;;
  current) alembic current --verbose ;;
  history) alembic history ;;
  check) alembic check ;;
  new) new "$*" ;;
  *) usage ;;
esac

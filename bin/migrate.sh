#!/usr/bin/env bash
# Migrates the database at DATABASE_URL, which comes from the environment or from .env.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat >&2 <<'EOF'
usage: bin/migrate.sh COMMAND
  up              upgrade to the newest migration
  down            downgrade to nothing: every table goes, and what is in it
  current         show which migration the database is at
  history         list the migrations
  check           say whether the models have changes that no migration has
  new [MESSAGE]   write a migration from the changes of the models; asks for MESSAGE when there is none
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
    echo "migrate: a migration needs a message that says what it does" >&2
    exit 1
  fi
  local number
  number=$(printf '%04d' $((10#$(newest_number) + 1)))
  alembic revision --autogenerate --rev-id "$number" --message "$message"
  echo "migrate: review it, then bin/migrate.sh up"
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

#!/usr/bin/env bash
# Upgrades the containers of docker-compose.yml to the code in this folder, without refusing a request: builds the
# image, migrates the database, provisions NATS, and then replaces the containers of one service after another.
# The number of containers of each service stays the same.
set -euo pipefail
cd "$(dirname "$0")/.."

if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
compose+=(--profile services)
deadline=${UPGRADE_TIMEOUT:-120} # seconds until a new container has to be healthy

containers() { "${compose[@]}" ps --quiet "$1"; }

until_healthy() {
  local container
  for container in "$@"; do
    for _ in $(seq "$deadline"); do
      [[ $(docker inspect --format '{{.State.Health.Status}}' "$container") == healthy ]] && continue 2
      sleep 1
    done
    echo "upgrade: $container is not healthy; its last lines are:" >&2
    docker logs --tail 20 "$container" >&2
    return 1
  done
}

# Starts as many new containers as there are old ones, waits until they are healthy, and stops the old ones.
replace() {
  local service=$1 old new=() container
  mapfile -t old < <(containers "$service")
  "${compose[@]}" up --detach --no-deps --no-recreate --scale "$service=$((2 * ${#old[@]}))" "$service"
  while read -r container; do
    [[ " ${old[*]} " == *" $container "* ]] || new+=("$container")
  done < <(containers "$service")
  if ! until_healthy "${new[@]}"; then
    docker rm --force "${new[@]}" >/dev/null
    echo "upgrade: the previous containers of $service keep running" >&2
    return 1
  fi
  for container in "${old[@]}"; do
    docker stop --time 15 "$container" >/dev/null
    docker rm "$container" >/dev/null
  done
  echo "upgrade: $service runs the new release, in ${#new[@]} containers"
}

"${compose[@]}" build migrate
"${compose[@]}" run --rm migrate
"${compose[@]}" run --rm provision
for service in notifier ingest sender gateway; do # readers before writers
  replace "$service"
done

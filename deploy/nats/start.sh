#!/bin/sh
# Starts nats-server with the configuration beside this script; NATS_STORE_DIR is the folder of its data.
set -eu

# Before JetStream had an account of its own, the streams belonged to the global account.
former="$NATS_STORE_DIR/jetstream/\$G"
current="$NATS_STORE_DIR/jetstream/MESSAGING"
if [ -d "$former" ] && [ ! -d "$current" ]; then
  mv "$former" "$current"
fi

exec nats-server --config "$(dirname "$0")/nats-server.conf" "$@"

#!/bin/sh
# The health check of the container. A stream for which there was no room on the disk stores nothing until the
# server is restarted: if there is room again, this stops the server, and the restart policy starts it.
port=${NATS_MONITORING_PORT:-8222}
if command -v curl >/dev/null; then
  health=$(curl --silent --max-time 4 "http://127.0.0.1:$port/healthz")
else
  # The wget of busybox does not print the body of an error.
  health=$(printf 'GET /healthz HTTP/1.0\r\n\r\n' | nc -w 4 127.0.0.1 "$port")
fi
case "$health" in
  *'"status":"ok"'*) exit 0 ;;
  *'write error'*)
    free=$(df -Pk "$NATS_STORE_DIR" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "${NATS_ROOM:-65536}" ] && kill -TERM "${NATS_PID:-1}"
    ;;
esac
exit 1

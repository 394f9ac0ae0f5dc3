#!/bin/bash
# Stop or begin again one part of a running cluster: part.sh kill|stop|start|wipe NAME (etcd, apiserver, kcm, scheduler, ...).
# `wipe etcd` stops it and forgets all that it knew.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=settings.sh
. "$(dirname "$0")/settings.sh"
what=${1:-} name=${2:-}
[ -e "$RUN/command/$name" ] || { echo "no part named '$name'; there are: $(ls "$RUN/command" 2>/dev/null || true)" >&2; exit 1; }

gone() {
  local pid
  pid=$(pid_of "$name")
  ours "$pid" "$name" || return 0
  kill "-$1" "$pid" 2>/dev/null || true
  for _ in $(seq 100); do
    ours "$pid" "$name" || return 0
    sleep 0.1
  done
  kill -9 "$pid" 2>/dev/null || true
}

case $what in
  kill) gone KILL ;;
  stop) gone TERM ;;
  wipe)
    gone KILL
    rm -rf "${RUN:?}/etcd"
    ;;
  start)
    mapfile -d '' -t command <"$RUN/command/$name"
    begin "$name" "${command[@]}"
    [ "$name" != apiserver ] || server_ready
    ;;
  *)
    echo "part.sh kill|stop|start|wipe NAME" >&2
    exit 1
    ;;
esac

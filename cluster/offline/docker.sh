#!/bin/bash
# docker.sh start|stop: Debian's Docker engine without systemd. `stop` ends the engine that `start` began, and takes away the
# networks and packet filter rules that an engine leaves behind. An engine that runs already is used and left alone.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=settings.sh
. "$(dirname "$0")/settings.sh"
STATE=$CACHE/docker PID=$CACHE/docker/pid

runs() { [ -e "$PID" ] && [ "$(cat "/proc/$(cat "$PID")/comm" 2>/dev/null)" = dockerd ]; }

start() {
  ! docker info >/dev/null 2>&1 || return 0
  mkdir -p "$STATE"
  rm -f "$PID"
  # Kept from an engine that died: what it changed is still changed.
  [ -e "$STATE/before" ] || { iptables -S FORWARD | head -1; cat /proc/sys/net/ipv4/ip_forward; } >"$STATE/before"
  # Our own settings: an option given both here and in /etc/docker/daemon.json ends dockerd.
  local settings='{}'
  if ! ((0x$(sed -n 's/^CapBnd:\s*//p' /proc/self/status) >> 24 & 1)); then # CAP_SYS_RESOURCE
    settings='{"runtimes": {"here": {"path": "'$KIT/runc-here'"}}, "default-runtime": "here"}'
  fi
  echo "$settings" >"$STATE/daemon.json"
  setsid dockerd --config-file "$STATE/daemon.json" \
    --data-root "$STATE/data" --exec-root "$STATE/exec" --pidfile "$PID" >"$STATE/log" 2>&1 </dev/null &
  for _ in $(seq 120); do
    ! docker info >/dev/null 2>&1 || return 0
    sleep 0.5
  done
  echo "docker.sh: dockerd does not answer; the end of $STATE/log:" >&2
  tail -5 "$STATE/log" >&2
  return 1
}

stop() {
  [ -e "$STATE/before" ] || return 0
  local pid table rule chain link
  if runs; then
    pid=$(cat "$PID")
    kill "$pid"
    while [ -d "/proc/$pid" ]; do sleep 0.2; done
  fi
  rm -f "$PID"
  ! docker info >/dev/null 2>&1 || return 0 # another engine: networks and rules are its own
  for link in docker0 $(ip -o link show type bridge | sed -nE 's/^[0-9]+: (br-[0-9a-f]{12}):.*/\1/p'); do
    ip link delete "$link" 2>/dev/null || true
  done
  for table in filter nat; do
    # Every rule that names Docker's chains or bridges, then the chains.
    iptables-save -t "$table" | grep -E '^-A' | grep -E 'DOCKER|docker0|br-[0-9a-f]{12}' | sed 's/^-A/-D/' |
      while read -r rule; do eval "iptables -t $table $rule"; done
    iptables-save -t "$table" | sed -n 's/^:\(DOCKER[^ ]*\) .*/\1/p' | while read -r chain; do iptables -t "$table" -X "$chain"; done
  done
  { read -r rule; read -r chain; } <"$STATE/before"
  eval "iptables $rule" # -P FORWARD ACCEPT or DROP
  echo "$chain" >/proc/sys/net/ipv4/ip_forward
  find /sys/fs/cgroup -maxdepth 3 -type d -name docker | while read -r group; do find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true; done
  rm -f "$STATE/before"
}

case ${1:-} in
  start | stop) "$1" ;;
  *)
    echo "docker.sh start|stop" >&2
    exit 2
    ;;
esac

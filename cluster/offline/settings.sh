# shellcheck shell=bash
# Where everything of the offline cluster lies; sourced by the scripts beside it.
K8S_DIR=${K8S_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/faro-kubernetes} # sources, binaries, images: kept
RUN=${K8S_RUN:-$K8S_DIR/run}                                        # one cluster: certificates, logs, data
PORT=${PORT:-16443}                                                 # of the API server, on loopback
ETCD=${ETCD:-12379}
NODE=${NODE:-0}       # 1: with a node that runs pods, in a network namespace of its own
NETNS=${NETNS:-faro-k8s}
BIN=$K8S_DIR/bin PKI=$RUN/pki LOG=$RUN/log
export K8S_DIR RUN PORT ETCD NODE NETNS BIN PKI LOG

inside() { # the words that run a command in the cluster's network; `ip netns exec` would hide /sys/fs/cgroup
  [ "$NODE" = 1 ] && printf '%s\n' nsenter "--net=/run/netns/$NETNS"
  return 0
}

begin() { # begin NAME COMMAND...: run it in the background, remember its pid, and its command so that it can be begun again
  local name=$1 pid
  shift
  printf '%s\0' "$@" >"$RUN/command/$name"
  setsid "$@" >>"$LOG/$name.log" 2>&1 </dev/null &
  pid=$!
  { grep -v " $name\$" "$RUN/pids" || true; echo "$pid $name"; } >"$RUN/pids.new"
  mv "$RUN/pids.new" "$RUN/pids"
}

ours() { # ours PID NAME: whether this process is what `begin` began, and not a later one that was given the same number
  local now began
  now=$(tr '\0' '\n' 2>/dev/null <"/proc/$1/cmdline") && began=$(tr '\0' '\n' 2>/dev/null <"$RUN/command/$2") || return 1
  [ -n "$now" ] && [[ $'\n'$began == *$'\n'$now ]] # a command may have been begun by nsenter, and become what it began
} 2>/dev/null

pid_of() { awk -v name="$1" '$2 == name {print $1}' "$RUN/pids"; }

server_ready() {
  local i
  for i in $(seq 240); do
    curl -sf --cacert "$PKI/ca.crt" --cert "$PKI/admin.crt" --key "$PKI/admin.key" "https://127.0.0.1:$PORT/readyz" >/dev/null && return 0
    sleep 0.25
  done
  echo "the API server is not ready after $((i / 4)) s:" >&2
  tail -5 "$LOG/apiserver.log" >&2
  return 1
}

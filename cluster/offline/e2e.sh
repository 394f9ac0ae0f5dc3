#!/bin/bash
# Faro end to end on a real Kubernetes node on this machine, from nothing: the binaries (built once), an image, a cluster of its
# own in its own network namespace, the pods, the load, the tables. Ends all of it by pid. Root on Debian 13; no registry.
#   e2e.sh [options of e2e.py]
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
export NODE=1 NETNS=${NETNS:-faro-e2e} PORT=${PORT:-17443} ETCD=${ETCD:-13379}
export K8S_DIR=${K8S_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/faro-kubernetes}
export K8S_RUN=${K8S_RUN:-$K8S_DIR/run-e2e} PYTHONPATH=$ROOT
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}

"$HERE/bootstrap.sh" kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy
"$PYTHON" "$HERE/e2e.py" image "$K8S_DIR/images/faro.tar"
relay=''
finish() {
  [ -z "$relay" ] || kill "$relay" 2>/dev/null || true
  "$HERE/down.sh"
}
trap finish EXIT
trap 'exit 130' INT TERM
"$HERE/up.sh"
export KUBECONFIG=$K8S_RUN/admin.conf
# From this machine's loopback to the node's ports, as a load balancer would.
"$PYTHON" "$HERE/relay.py" "$NETNS" 18265=10.244.0.1:30265 18000=10.244.0.1:30080 &
relay=$!
"$PYTHON" "$HERE/e2e.py" run "$@"

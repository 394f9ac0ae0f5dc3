# shellcheck shell=bash disable=SC2034
# Where the offline build keeps its results; sourced by the scripts beside it and by cluster/up.sh and down.sh.
KIT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../versions.env
. "$KIT/../versions.env"
CACHE=${FARO_KIND_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/faro-kind}
LOCAL_NODE=faro.local/node:v$KUBERNETES
LOCAL_PYTHON=faro.local/python:$PYTHON_DEBIAN
LOCAL_OPERATOR=faro.local/kuberay-operator:v$KUBERAY
STARTED=${STARTED:-$(date +%s)}
export STARTED

step() { printf -- '--- [%4d s] %s\n' $(($(date +%s) - STARTED)) "$*"; }
quietly() { # quietly COMMAND...: the end of its output is shown only if it fails, without the lines of a stack trace
  local output
  output=$("$@" 2>&1) || { echo "$output" | grep -E '^[^[:space:]]+[[:space:]]' | tail -20 >&2; return 1; }
}
programs() { echo "$CACHE/programs/$1"; }  # programs NAME-VERSION: the folder that programs.sh fills
module() { # module PATH@VERSION: its source folder
  local said
  said=$(GOFLAGS='' go mod download -json "$1") || { sed -n 's/^\t"Error": "\(.*\)",\?$/\1/p' <<<"$said" >&2; return 1; }
  sed -n 's/^\t"Dir": "\(.*\)",\?$/\1/p' <<<"$said"
}
load_image() { # load_image IMAGE FOLDER: into the workers of the cluster that have another one or none, in a third of the time of `kind load`
  local node wanted loads=() nodes=()
  wanted=$(docker image inspect -f '{{.Id}}' "$1")
  for node in $(kind get nodes --name faro | grep -v control-plane); do
    [ "$(docker exec "$node" crictl inspecti -o go-template --template '{{.status.id}}' "$1" 2>/dev/null)" = "$wanted" ] || nodes+=("$node")
  done
  [ ${#nodes[@]} -gt 0 ] || return 0
  docker save -o "$2/image.tar" "$1"
  for node in "${nodes[@]}"; do
    docker exec -i "$node" ctr --namespace=k8s.io images import --all-platforms --local --discard-unpacked-layers - <"$2/image.tar" >"$2/$node.log" 2>&1 &
    loads+=($!)
  done
  for node in "${loads[@]}"; do wait "$node" || { tail -n 5 "$2"/*.log >&2; return 1; }; done
  rm "$2/image.tar"
  step "image $1 loaded into ${nodes[*]}"
}
PATH=$(programs "kind-$KIND"):$(programs "kubernetes-$KUBERNETES"):$(programs "helm-$HELM"):$PATH

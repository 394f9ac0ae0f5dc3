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
PATH=$(programs "kind-$KIND"):$(programs "kubernetes-$KUBERNETES"):$(programs "helm-$HELM"):$PATH

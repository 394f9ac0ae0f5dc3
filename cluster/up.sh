#!/bin/bash
# Faro on a kind cluster of this machine: KubeRay's operator, the jobs of a table as a RayService, the controller. Idempotent.
#   cluster/up.sh [JOBS.yaml]        default: cluster/jobs.yaml; POLICY=Faro-Sum, WORKERS=2, WORKER_CORES=4, WORKER_CPU=1
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(dirname "$HERE")
# shellcheck source-path=SCRIPTDIR source=versions.env
. "$HERE/versions.env"
CLUSTER=faro IMAGE=faro:local
JOBS=${1:-$HERE/jobs.yaml} NAMESPACE=faro POLICY=${POLICY:-Faro-Sum}
WORKERS=${WORKERS:-2} WORKER_CORES=${WORKER_CORES:-4} WORKER_CPU=${WORKER_CPU:-1}
FARO=${FARO:-$ROOT/.venv/bin/faro}

# --- what is missing: one line each, and nothing is changed -----------------------------------------------------------
missing=0
lacks() { echo "up.sh: $*" >&2; missing=1; }
least() { # least NAME WANTED FOUND
  [ "$(printf '%s\n%s\n' "$2" "$3" | sort -V | head -1)" = "$2" ] || lacks "$1 $3 is too old; $2 or newer is needed"
}
version_of() { grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -1; }
if ! command -v docker >/dev/null; then
  lacks "docker is missing; see https://docs.docker.com/engine/install/"
elif ! docker info >/dev/null 2>&1; then
  lacks "docker does not answer; is its daemon running, and may you use it?"
fi
if ! command -v kind >/dev/null; then
  lacks "kind is missing; see https://kind.sigs.k8s.io/docs/user/quick-start/#installation"
else
  least kind "$KIND_LEAST" "$(kind version | version_of)"
fi
if ! command -v helm >/dev/null; then
  lacks "helm is missing; see https://helm.sh/docs/intro/install/"
else
  least helm "$HELM_LEAST" "$(helm version --short | version_of)"
fi
if ! command -v kubectl >/dev/null; then
  lacks "kubectl is missing; see https://kubernetes.io/docs/tasks/tools/"
else
  least kubectl "$KUBECTL_LEAST" "$(kubectl version --client | version_of)"
fi
[ -x "$FARO" ] || lacks "$FARO is missing; \`make .venv/.ready\` makes it"
[ -r "$JOBS" ] || lacks "$JOBS: no such table of jobs"
[ $missing = 0 ] || exit 1

step() { printf -- '--- %s\n' "$*"; }
# The manifests first: a table that is wrong is refused before there is a cluster.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
step "manifests"
"$FARO" manifests --jobs "$JOBS" --out "$folder/faro" --namespace "$NAMESPACE" --policy "$POLICY" --image "$IMAGE" \
  --workers "$WORKERS" --worker-cores "$WORKER_CORES" --worker-cpu "$WORKER_CPU" --worker-memory 3 >/dev/null

step "image $IMAGE"
docker build --quiet --build-arg PYTHON_IMAGE="$PYTHON_IMAGE" -f "$HERE/Dockerfile" -t "$IMAGE" "$ROOT" >/dev/null
step "kind cluster $CLUSTER"
kind get clusters 2>/dev/null | grep -qx "$CLUSTER" || kind create cluster --config "$HERE/kind.yaml" --image "$NODE_IMAGE" --wait 180s
kind load docker-image "$IMAGE" --name "$CLUSTER"
k() { kubectl --context "kind-$CLUSTER" "$@"; }

step "KubeRay's operator $KUBERAY_CHART"
helm upgrade --install kuberay-operator kuberay-operator --repo "$KUBERAY_CHARTS" --version "$KUBERAY_CHART" \
  --kube-context "kind-$CLUSTER" --namespace kuberay-system --create-namespace --wait --timeout 5m >/dev/null

step "Faro in namespace $NAMESPACE"
k apply --server-side -f "$folder/faro/namespace.yaml" -f "$folder/faro/crd.yaml"
k wait --for condition=established --timeout 60s crd/faroplans.autoscaling.faro
if ! k -n "$NAMESPACE" get secret faro-ray-token >/dev/null 2>&1; then # by a pipe: it is in no argument list and in no file
  head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' | k -n "$NAMESPACE" create secret generic faro-ray-token --from-file=auth_token=/dev/stdin
fi
k apply --server-side --force-conflicts -k "$folder/faro" # the plan's policy and the controllers' count have other writers too
k -n "$NAMESPACE" wait --for condition=Ready --timeout 10m rayservice/faro
# Controllers that found no Ray yet have ended, and are begun again with growing pauses of up to five minutes.
k -n "$NAMESPACE" rollout status deployment/faro-controller --timeout 10m
step "up"
cat <<SAY
  kubectl --context kind-$CLUSTER -n $NAMESPACE get faroplans
  kubectl --context kind-$CLUSTER -n $NAMESPACE describe faroplan faro
  kubectl --context kind-$CLUSTER -n $NAMESPACE port-forward service/faro-head-svc 8000
  snakemake --cores all --config backend=kind        # notebook 80 on it; the controllers rest meanwhile
SAY

#!/bin/bash
# Faro on a kind cluster of this machine: KubeRay's operator, the jobs of a table as a RayService, the controller. Idempotent.
#   cluster/up.sh [JOBS.yaml]        default: cluster/jobs.yaml; POLICY=Faro-Sum, WORKERS=2, WORKER_CORES=4, WORKER_CPU=0.5, HEAD_CPU=0.5
#   cluster/up.sh --only-cluster     cluster, operator and image: what the tests marked k8s need
# Needs 2 cores, 10 GB of memory and 20 GB of disk. Images come from their registries; where those are not reachable, or with
# OFFLINE=1, cluster/offline/build.sh builds them first. OFFLINE=0 never builds.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(dirname "$HERE")
# shellcheck source-path=SCRIPTDIR source=offline/settings.sh
. "$HERE/offline/settings.sh"
CLUSTER=faro IMAGE=faro:local NAMESPACE=faro
WITH_JOBS=1
[ "${1:-}" != --only-cluster ] || { WITH_JOBS=0; shift; }
JOBS=${1:-$HERE/jobs.yaml} POLICY=${POLICY:-Faro-Sum}
WORKERS=${WORKERS:-2} WORKER_CORES=${WORKER_CORES:-4} WORKER_CPU=${WORKER_CPU:-0.5} HEAD_CPU=${HEAD_CPU:-0.5}
FARO=${FARO:-$ROOT/.venv/bin/faro}

# --- what is missing: one line each, and nothing is changed -----------------------------------------------------------
missing=0
lacks() { echo "up.sh: $*" >&2; missing=1; }
least() { # least NAME WANTED FOUND
  [ "$(printf '%s\n%s\n' "$2" "$3" | sort -V | head -1)" = "$2" ] || lacks "$1 $3 is too old; $2 or newer is needed"
}
version_of() { grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -1; }
registry() { docker image inspect "$NODE_IMAGE" >/dev/null 2>&1 || docker manifest inspect "$NODE_IMAGE" >/dev/null 2>&1; }
offline=${OFFLINE:-0}
if [ -z "${OFFLINE:-}" ] && command -v docker >/dev/null && ! registry; then offline=1; fi
if [ "$offline" = 0 ]; then
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
fi
if [ $WITH_JOBS = 1 ]; then
  [ -x "$FARO" ] || lacks "$FARO is missing; \`make .venv/.ready\` makes it"
  [ -r "$JOBS" ] || lacks "$JOBS: no such table of jobs"
fi
[ $missing = 0 ] || exit 1

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ $WITH_JOBS = 1 ]; then # first, for a table that is wrong is refused before there is a cluster
  "$FARO" manifests --jobs "$JOBS" --out "$folder/faro" --namespace "$NAMESPACE" --policy "$POLICY" --image "$IMAGE" \
    --workers "$WORKERS" --worker-cores "$WORKER_CORES" --worker-cpu "$WORKER_CPU" --worker-memory 3 --head-cpu "$HEAD_CPU" >/dev/null
  step "manifests"
fi
if [ "$offline" = 1 ]; then
  step "no image registry: building what $CACHE lacks from Debian packages and Go modules"
  "$HERE/offline/build.sh"
  NODE_IMAGE=$LOCAL_NODE PYTHON_IMAGE=$LOCAL_PYTHON
  export DOCKER_BUILDKIT=0 # Debian's Docker has no buildx
fi

# --- the cluster, and meanwhile the image ----------------------------------------------------------------------------
k() { kubectl --context "kind-$CLUSTER" "$@"; }
docker build --build-arg PYTHON_IMAGE="$PYTHON_IMAGE" -f "$HERE/Dockerfile" -t "$IMAGE" "$ROOT" >"$folder/image.log" 2>&1 &
image=$!
if ! kind get clusters 2>/dev/null | grep -qx "$CLUSTER"; then
  quietly kind create cluster --config "$HERE/kind.yaml" --image "$NODE_IMAGE" --wait 180s # with --quiet it would not say why it fails
  k wait --for condition=Ready nodes --all --timeout 180s >/dev/null
  step "kind cluster of $(k get nodes --no-headers | wc -l) nodes, Kubernetes $(k version | sed -n 's/^Server Version: //p')"
fi
if [ "$offline" = 1 ]; then
  printf 'apiVersion: v1\nkind: Namespace\nmetadata: {name: kuberay-system}\n' >"$folder/namespace.yaml"
  mkdir "$folder/operator"
  cp -r --no-preserve=mode "$(programs "kuberay-operator-$KUBERAY")/config" "$folder/operator/"
  cat >"$folder/operator/kustomization.yaml" <<Y
namespace: kuberay-system
resources: [config/crd, config/rbac, config/manager]
images: [{name: kuberay/operator, newName: ${LOCAL_OPERATOR%:*}, newTag: ${LOCAL_OPERATOR#*:}}]
Y
  k apply --server-side -f "$folder/namespace.yaml" >/dev/null
  k apply --server-side -k "$folder/operator" >/dev/null
else
  helm upgrade --install kuberay-operator kuberay-operator --repo "$KUBERAY_CHARTS" --version "$KUBERAY" \
    --kube-context "kind-$CLUSTER" --namespace kuberay-system --create-namespace >/dev/null
fi
wait $image || { tail -20 "$folder/image.log" >&2; exit 1; }
step "image $IMAGE: $(docker image inspect -f '{{.Size}}' "$IMAGE" | awk '{print int($1 / 1e6)}') MB"
load_image "$IMAGE" "$folder"
k -n kuberay-system rollout status deployment/kuberay-operator --timeout 5m >/dev/null
step "KubeRay's operator $KUBERAY"
[ $WITH_JOBS = 1 ] || exit 0

# --- Faro ------------------------------------------------------------------------------------------------------------
k apply --server-side --force-conflicts -f "$folder/faro/namespace.yaml" -f "$folder/faro/crd.yaml" >/dev/null
k wait --for condition=established --timeout 60s crd/faroplans.autoscaling.faro >/dev/null
if ! k -n "$NAMESPACE" get secret faro-ray-token >/dev/null 2>&1; then # by a pipe: it is in no argument list and in no file
  head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' | k -n "$NAMESPACE" create secret generic faro-ray-token --from-file=auth_token=/dev/stdin >/dev/null
fi
k apply --server-side --force-conflicts -k "$folder/faro" >/dev/null # the controllers' count has another writer too
k -n "$NAMESPACE" wait --for condition=Ready --timeout 10m rayservice/faro >/dev/null
step "RayService faro is ready"
k -n "$NAMESPACE" rollout status deployment/faro-controller --timeout 10m >/dev/null
step "the controllers are ready"
cat <<SAY
  kubectl --context kind-$CLUSTER -n $NAMESPACE get faroplans
  kubectl --context kind-$CLUSTER -n $NAMESPACE describe faroplan faro
  kubectl --context kind-$CLUSTER -n $NAMESPACE port-forward service/faro-head-svc 8000
  snakemake --cores all --config backend=kind        # notebook 80 on it; the controllers rest meanwhile
SAY

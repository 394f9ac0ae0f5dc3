#!/bin/bash
# On the kind cluster of up.sh: metrics-server, which the HorizontalPodAutoscaler of Kubernetes reads, and a small Prometheus in
# namespace monitoring, which Faro's backend `deployments` reads. Idempotent. On a cluster that was built without an image
# registry, metrics-server comes from its Go module (three minutes, then kept) and Prometheus from its Debian package.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=offline/settings.sh
. "$HERE/offline/settings.sh"
CLUSTER=faro
kind get clusters 2>/dev/null | grep -qx "$CLUSTER" || { echo "monitoring.sh: there is no kind cluster named $CLUSTER; cluster/up.sh starts it" >&2; exit 1; }
k() { kubectl --context "kind-$CLUSTER" "$@"; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/metrics"
base=https://github.com/kubernetes-sigs/metrics-server/releases/download/v$METRICS_SERVER/components.yaml images=''

image() { # image NAME FOLDER INSTRUCTION: build an image from the files in FOLDER and load it into the nodes
  printf 'FROM scratch\nCOPY . /\n%s\n' "$3" >"$work/Dockerfile"
  DOCKER_BUILDKIT=0 quietly docker build --tag "$1" --file "$work/Dockerfile" "$2"
  quietly kind load docker-image --name "$CLUSTER" "$1"
  step "image $1: $(docker image inspect -f '{{.Size}}' "$1" | awk '{print int($1 / 1e6)}') MB"
}

if [ "$(docker inspect -f '{{.Config.Image}}' "$CLUSTER-control-plane")" = "$LOCAL_NODE" ]; then
  "$HERE/offline/programs.sh" metrics-server
  command -v prometheus >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus >/dev/null; }
  server=faro.local/metrics-server:v$METRICS_SERVER
  PROMETHEUS_IMAGE=faro.local/prometheus:v$(prometheus --version 2>&1 | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -1)
  image "$server" "$(programs "metrics-server-$METRICS_SERVER")" 'ENTRYPOINT ["/metrics-server"]'
  mkdir "$work/prometheus" # the program with the libraries that it is linked to
  for file in $(command -v prometheus) $(ldd "$(command -v prometheus)" | grep -oE '/[^ ]+'); do install -D "$file" "$work/prometheus/$file"; done
  image "$PROMETHEUS_IMAGE" "$work/prometheus" "ENTRYPOINT [\"$(command -v prometheus)\"]"
  cp -r --no-preserve=mode "$(module "sigs.k8s.io/metrics-server@v$METRICS_SERVER")/manifests/base" "$work/metrics/"
  base=base images="images: [{name: gcr.io/k8s-staging-metrics-server/metrics-server, newName: ${server%:*}, newTag: ${server#*:}}]"
fi
cat >"$work/metrics/kustomization.yaml" <<Y
resources: [$base]
$images
patches:
  - target: {kind: Deployment, name: metrics-server}
    patch: '[{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": "--kubelet-insecure-tls"}]'
Y
# kind signs no certificate of a kubelet.
k apply --server-side --force-conflicts -k "$work/metrics" >/dev/null
sed "s#image: IMAGE#image: $PROMETHEUS_IMAGE#" "$HERE/monitoring.yaml" | k apply --server-side --force-conflicts -f - >/dev/null
k -n monitoring create configmap pod-targets --from-file="$HERE/pod_targets.py" --dry-run=client -o yaml | k apply --server-side --force-conflicts -f - >/dev/null
k -n monitoring rollout status deployment/prometheus --timeout 5m >/dev/null
step "Prometheus at http://prometheus.monitoring:9090"
k -n kube-system rollout status deployment/metrics-server --timeout 5m >/dev/null
k wait --for condition=Available --timeout 5m apiservice/v1beta1.metrics.k8s.io >/dev/null
step "metrics-server $METRICS_SERVER"

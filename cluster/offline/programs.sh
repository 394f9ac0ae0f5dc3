#!/bin/bash
# programs.sh [metrics-server]: build the programs of a kind cluster, or metrics-server alone, from their Go modules, each set in
# $CACHE/programs/NAME-VERSION. A set that is there is kept.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=settings.sh
. "$(dirname "$0")/settings.sh"
export CGO_ENABLED=0 GOFLAGS='-mod=mod -trimpath -buildvcs=false' GOWORK=off

# compile FOLDER ARGUMENTS...: `go build` in this folder. Without inlining and debug information, it takes about 40 % less CPU
# time, and this cluster only runs tests. Go says a line for each module that it downloads.
compile() {
  go -C "$1" build -gcflags='all=-l -dwarf=false' "${@:2}" 2> >(grep -v '^go: downloading' >&2)
}

# shared [OWN]: a line `replace` for each module that Kubernetes' programs use, but for those whose path begins with the extended
# regular expression OWN. Go compiles a package again for each version of its module, so one version of each takes two thirds of
# the time.
shared() {
  local tree
  tree=$(module "k8s.io/kubernetes@v$KUBERNETES")
  go -C "$tree" list -deps -modfile="$CACHE/modules/kubernetes-$KUBERNETES/go.mod" \
    -f '{{with .Module}}{{if not .Main}}replace {{.Path}} => {{.Path}} {{if .Replace}}{{.Replace.Version}}{{else}}{{.Version}}{{end}}{{end}}{{end}}' \
    ./cmd/{kubeadm,kubelet,kubectl,kube-apiserver,kube-controller-manager,kube-scheduler,kube-proxy} 2> >(grep -v '^go: downloading' >&2) |
    sort -u | grep -vE "^replace (${1:-none})"
}

# build NAME VERSION MODULE OWN FLAGS PACKAGE...: in the module's own folder, by a copy of its go.mod without replacements by
# folders of its repository. OWN names the modules that keep the versions of that go.mod (see `shared`).
build() {
  local name=$1 version=$2 module=$3 own=$4 flags=$5 folder files tree
  shift 5
  folder=$(programs "$name-$version")
  [ ! -d "$folder" ] || return 0
  files=$CACHE/modules/$name-$version tree=$(module "$module@v$version")
  mkdir -p "$files" "$(dirname "$folder")"
  install -m 644 "$tree/go.mod" "$tree/go.sum" "$files/"
  if [ "$name" = kubernetes ]; then # its folders are published as modules
    sed -i -E "s#^(\s*(replace )?(\S+)) => \.\.?/.*#\1 => \3 v0.${version#1.}#" "$files/go.mod"
  else
    sed -i -E '/=> \.\.?\//d' "$files/go.mod"
    shared "$own" >>"$files/go.mod"
  fi
  rm -rf "$folder.new"
  mkdir "$folder.new"
  compile "$tree" -modfile="$files/go.mod" -ldflags "-s -w $flags" -o "$folder.new/" "$@"
  mv "$folder.new" "$folder"
  step "$name $version"
}

kubernetes() {
  local flags='' package
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=v$KUBERNETES -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d. -f2 <<<"$KUBERNETES")"
    flags+=" -X $package.gitTreeState=clean -X $package.gitCommit=module -X $package.buildDate=1970-01-01T00:00:00Z"
  done
  build kubernetes "$KUBERNETES" k8s.io/kubernetes '' "$flags" \
    ./cmd/{kubeadm,kubelet,kubectl,kube-apiserver,kube-controller-manager,kube-scheduler,kube-proxy}
}

# CoreDNS with the plugins that kubeadm's Corefile names; those for clouds are most of its build time.
coredns() {
  local folder files
  folder=$(programs "coredns-$COREDNS") files=$CACHE/modules/coredns-$COREDNS
  [ ! -d "$folder" ] || return 0
  mkdir -p "$files"
  install -m 644 "$(module "github.com/coredns/coredns@v$COREDNS")"/go.{mod,sum} "$files/"
  {
    printf 'package main\n\nimport (\n\t"github.com/coredns/coredns/coremain"\n'
    printf '\t_ "github.com/coredns/coredns/plugin/%s"\n' cache errors forward health kubernetes log loadbalance loop metrics ready reload
    printf ')\n\nfunc main() { coremain.Run() }\n'
  } >"$files/main.go"
  go -C "$files" mod edit -module=faro/coredns -require="github.com/coredns/coredns@v$COREDNS"
  shared >>"$files/go.mod"
  compile "$files" -ldflags '-s -w' -o "$folder.new/coredns" .
  mv "$folder.new" "$folder"
  step "coredns $COREDNS"
}

mkdir -p "$CACHE/programs"
if [ "${1:-}" = metrics-server ]; then
  build metrics-server "$METRICS_SERVER" sigs.k8s.io/metrics-server '(k8s.io/|sigs.k8s.io/|github.com/google/gnostic-models)' '' ./cmd/metrics-server
  exit
fi
kubernetes
build kind "$KIND" sigs.k8s.io/kind '' '' .
build containerd "$CONTAINERD" github.com/containerd/containerd/v2 '(k8s.io|sigs.k8s.io|github.com/containerd)/' '' -tags=no_btrfs,no_devmapper,no_zfs ./cmd/{containerd,ctr,containerd-shim-runc-v2}
build cri-tools "$CRI_TOOLS" sigs.k8s.io/cri-tools '' '' ./cmd/crictl
build cni-plugins "$CNI_PLUGINS" github.com/containernetworking/plugins '' '' ./plugins/{ipam/host-local,main/loopback,main/ptp,main/bridge,meta/portmap}
build etcd "$ETCD" go.etcd.io/etcd/server/v3 '' '' .
coredns
build kube-router "$KUBE_ROUTER" github.com/cloudnativelabs/kube-router/v2 '' '' ./cmd/kube-router
build kuberay-operator "$KUBERAY" github.com/ray-project/kuberay/ray-operator '(k8s.io|sigs.k8s.io)/' '' .
build helm "$HELM" helm.sh/helm/v4 '' "-X helm.sh/helm/v4/internal/version.version=v$HELM" ./cmd/helm
cp -r --no-preserve=mode "$(module "github.com/ray-project/kuberay/ray-operator@v$KUBERAY")/config" "$(programs "kuberay-operator-$KUBERAY")/"

#!/bin/bash
# Make the images from programs and file systems: a node of kind whose containerd holds the images of the cluster's own parts and of
# KubeRay's operator, and the Python that cluster/Dockerfile begins from. A node image of the same versions and scripts is kept.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=settings.sh
. "$(dirname "$0")/settings.sh"
export DOCKER_BUILDKIT=0 # Debian's Docker has no buildx
CERTIFICATES=/etc/ssl/certs/ca-certificates.crt
# Imported again, the Python image would be another one, and the image that is built on it too.
python=$(basename "$(readlink "$CACHE/roots/python.tar")")
if [ "$(docker image inspect -f '{{.Config.Labels.faro}}' "$LOCAL_PYTHON" 2>/dev/null)" != "$python" ]; then
  docker import -c "LABEL faro=$python" -c "ENV PIP_CERT=$CERTIFICATES SSL_CERT_FILE=$CERTIFICATES" "$CACHE/roots/python.tar" "$LOCAL_PYTHON" >/dev/null
fi
SUM=$(cat "$KIT"/{../versions.env,images.sh,roots.sh,network.yaml} | sha256sum | cut -c1-12)
[ "$(docker image inspect -f '{{.Config.Labels.faro}}' "$LOCAL_NODE" 2>/dev/null)" != "$SUM" ] || exit 0
ROUTER=faro.local/kube-router:v$KUBE_ROUTER
KUBE=$(programs "kubernetes-$KUBERNETES")
work=$(mktemp -d)
loader=''
trap 'rm -rf "$work"; [ -z "$loader" ] || docker rm -f "$loader" >/dev/null' EXIT

for name in node router; do docker import "$CACHE/roots/$name.tar" "faro.local/root-$name" >/dev/null; done

parts=()
part() { # part IMAGE PROGRAM PATH BASE [INSTRUCTION]: an image of one program
  local context=$work/part
  mkdir -p "$context"
  install -m 755 "$2" "$context/program"
  cp "$CERTIFICATES" "$context/certificates"
  printf 'FROM %s\nENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n' "$4" >"$context/Dockerfile"
  printf 'COPY certificates %s\nCOPY program %s\nENTRYPOINT ["%s"]\n%s\n' "$CERTIFICATES" "$3" "$3" "${5:-}" >>"$context/Dockerfile"
  quietly docker build --tag "$1" "$context"
  parts+=("$1")
}
for name in kube-apiserver kube-controller-manager kube-scheduler; do
  part "registry.k8s.io/$name:v$KUBERNETES" "$KUBE/$name" "/usr/local/bin/$name" scratch
done
part "registry.k8s.io/kube-proxy:v$KUBERNETES" "$KUBE/kube-proxy" /usr/local/bin/kube-proxy faro.local/root-router
part "$ROUTER" "$(programs "kube-router-$KUBE_ROUTER")/kube-router" /usr/local/bin/kube-router faro.local/root-router
part "registry.k8s.io/etcd:$ETCD-0" "$(programs "etcd-$ETCD")/server" /usr/local/bin/etcd scratch
part "registry.k8s.io/coredns/coredns:v$COREDNS" "$(programs "coredns-$COREDNS")/coredns" /coredns scratch
part "$LOCAL_OPERATOR" "$(programs "kuberay-operator-$KUBERAY")/ray-operator" /manager scratch 'USER 65532:65532'
gcc -Os -static -x c -o "$work/pause" - <<'C'
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int signal) { _exit(0); }
static void reap(int signal) { while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) {
  signal(SIGINT, end), signal(SIGTERM, end), signal(SIGCHLD, reap);
  for (;;) pause();
}
C
part "registry.k8s.io/pause:$PAUSE" "$work/pause" /pause scratch 'USER 65535:65535'
docker save -o "$work/parts.tar" "${parts[@]}"
step "${#parts[@]} images of the cluster's parts: $(du -m "$work/parts.tar" | cut -f1) MB"

# What kind expects of a node is in its module, under images/base: entrypoint, units, containerd's configuration.
files=$work/node/files
mkdir -p "$files"/{usr/bin,opt/cni/bin,etc/cni/net.d,etc/kubernetes/manifests,kind/manifests}
cp -r --no-preserve=mode "$(module "sigs.k8s.io/kind@v$KIND")"/images/base/files/{etc,kind,usr} "$files/"
chmod 755 "$files"/usr/local/bin/* "$files"/kind/bin/*
install -m 755 "$(programs "containerd-$CONTAINERD")"/* "$(programs "cri-tools-$CRI_TOOLS")"/* "$files/usr/local/bin/"
install -m 755 "$KUBE"/{kubeadm,kubelet,kubectl} "$files/usr/bin/"
install -m 755 "$(programs "cni-plugins-$CNI_PLUGINS")"/* "$files/opt/cni/bin/"
printf 'v%s' "$KUBERNETES" >"$files/kind/version"
sed "s#IMAGE#$ROUTER#" "$KIT/network.yaml" >"$files/kind/manifests/default-cni.yaml"
cat >"$files/kind/manifests/default-storage.yaml" <<'Y'
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: standard, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
Y
# restrict_oom_score_adj: root may lack CAP_SYS_RESOURCE here, and may then not lower it.
sed -i "s#\(registry.k8s.io/pause\):[0-9.]*#\1:$PAUSE#; s/\(restrict_oom_score_adj\) = false/\1 = true/" "$files/etc/containerd/config.toml"
cat >"$work/node/Dockerfile" <<'D'
FROM faro.local/root-node
COPY files /
RUN rm -f /lib/systemd/system/multi-user.target.wants/* /etc/systemd/system/*.wants/* /lib/systemd/system/local-fs.target.wants/* \
      /lib/systemd/system/sockets.target.wants/*udev* /lib/systemd/system/sockets.target.wants/*initctl* \
      /lib/systemd/system/basic.target.wants/* /lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service \
    && mkdir -p /etc/systemd/journald.conf.d && printf '[Journal]\nReadKMsg=no\n' >/etc/systemd/journald.conf.d/kind.conf \
    && systemctl enable kubelet.service containerd.service undo-mount-hacks.service && systemctl mask systemd-binfmt.service \
    && ctr oci spec | jq '.hooks.createContainer[0] = {"path": "/kind/bin/mount-product-files.sh"} | del(.process.rlimits)' >/etc/containerd/cri-base.json
ENV container=docker
STOPSIGNAL SIGRTMIN+3
D
quietly docker build --tag "$LOCAL_NODE-empty" "$work/node"
loader=$(docker run --detach --privileged --tmpfs /tmp --volume "$work:/parts:ro" "$LOCAL_NODE-empty" sleep infinity)
# shellcheck disable=SC2016 # expanded in the container
quietly docker exec "$loader" bash -ec '
  containerd >/tmp/log 2>&1 & pid=$!
  until ctr version >/dev/null 2>&1; do sleep 0.1; done
  ctr --namespace=k8s.io images import --all-platforms --local --discard-unpacked-layers /parts/parts.tar >/dev/null
  ctr --namespace=k8s.io content prune references >/dev/null
  kill $pid; wait $pid || true; rm -rf /run/containerd'
docker commit -c 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' -c 'CMD []' -c "LABEL faro=$SUM" "$loader" "$LOCAL_NODE" >/dev/null
step "node image: $(docker image inspect -f '{{.Size}}' "$LOCAL_NODE" | awk '{print int($1 / 1e6)}') MB"

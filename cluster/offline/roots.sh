#!/bin/bash
# Debian file systems, each as $CACHE/roots/NAME-CHECKSUM.tar: a node, what kube-proxy and kube-router need, a Python.
# The checksum is that of release and package list.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=settings.sh
. "$(dirname "$0")/settings.sh"
NODE="systemd,systemd-sysv,dbus,iproute2,iptables,nftables,conntrack,ethtool,socat,mount,util-linux,kmod,procps,ebtables,\
ca-certificates,curl,jq,runc,libseccomp2,hostname,findutils,tar,gzip,zstd"
ROUTER=iptables,ipset,iproute2,conntrack,kmod,ca-certificates,procps,curl
PYTHON=python3,python3-venv,ca-certificates,libgomp1,curl,procps

root() { # root NAME RELEASE PACKAGES
  local tar folder
  tar=$CACHE/roots/$1-$(cksum <<<"$2 $3" | cut -d' ' -f1).tar
  ln -sfn "$tar" "$CACHE/roots/$1.tar"
  [ ! -e "$tar" ] || return 0
  folder=$(mktemp -d)
  debootstrap --variant=minbase --include="$3" "$2" "$folder" "${mirror:-}" >"$CACHE/roots/$1.log" 2>&1 || { tail -5 "$CACHE/roots/$1.log" >&2; return 1; }
  install -m 644 /etc/ssl/certs/ca-certificates.crt "$folder/etc/ssl/certs/" # this machine may trust more than Debian does
  ln -sf python3 "$folder/usr/bin/python"
  rm -rf "$folder"/var/cache/apt/* "$folder"/var/lib/apt/lists/* "$folder"/usr/share/{doc,man,locale}/*
  tar -C "$folder" -cf "$tar.new" .
  mv "$tar.new" "$tar"
  rm -rf "$folder"
  step "file system $1: $(du -m "$tar" | cut -f1) MB"
}

mkdir -p "$CACHE/roots"
# shellcheck disable=SC2016 # apt-get expands it
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -1) # none: debootstrap's default
root node "$NODE_DEBIAN" "$NODE"
root router "$NODE_DEBIAN" "$ROUTER"
root python "$PYTHON_DEBIAN" "$PYTHON"

#!/bin/bash
# Build what cluster/up.sh needs where no image registry is reachable, from Debian packages and Go modules: Docker's engine runs
# afterwards, and the images are in it. Needs root, Debian 12 or newer, Go 1.26 and 12 GB of disk; 13 minutes on two cores.
# All is kept in ${FARO_KIND_CACHE:-~/.cache/faro-kind}, by version: a second run takes seconds.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=settings.sh
. "$(dirname "$0")/settings.sh"
lacks() { echo "build.sh: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || lacks "run it as root: it starts Docker's engine and makes Debian file systems"
command -v apt-get >/dev/null || lacks "apt-get is missing: this is for Debian 12 or newer"
command -v go >/dev/null || lacks "go is missing; see https://go.dev/doc/install"

packages=(docker.io containerd runc iptables iproute2 debootstrap ca-certificates gcc libc6-dev)
mapfile -t missing < <(for one in "${packages[@]}"; do dpkg-query -W -f '${Status}' "$one" 2>/dev/null | grep -q 'ok installed' || echo "$one"; done)
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  step "packages: ${missing[*]}"
fi
mkdir -p "$CACHE"
"$KIT/roots.sh" & # mostly network, beside programs.sh, which is processor
roots=$!
"$KIT/programs.sh" || { kill "$roots"; exit 1; }
wait "$roots"
"$KIT/docker.sh" start
step "Docker $(docker version -f '{{.Server.Version}}')"
"$KIT/images.sh"

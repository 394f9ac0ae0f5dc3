#!/bin/bash
# Delete the kind cluster that up.sh made with its network, and stop the Docker engine if cluster/offline started it. Nothing else is
# touched; what was built stays in the cache.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=offline/settings.sh
. "$HERE/offline/settings.sh"
command -v kind >/dev/null || { echo "down.sh: kind is missing; see https://kind.sigs.k8s.io/docs/user/quick-start/#installation" >&2; exit 1; }
if kind get clusters 2>/dev/null | grep -qx faro; then
  kind delete cluster --name faro --quiet
  [ -n "$(kind get clusters 2>/dev/null)" ] || docker network rm kind >/dev/null
  step "the cluster is deleted"
else
  echo "there is no kind cluster named faro"
fi
"$HERE/offline/docker.sh" stop

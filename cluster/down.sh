#!/bin/bash
# End the kind cluster that up.sh made, and all that is in it. Nothing else is touched.
set -euo pipefail
command -v kind >/dev/null || { echo "down.sh: kind is missing; see https://kind.sigs.k8s.io/docs/user/quick-start/#installation" >&2; exit 1; }
if kind get clusters 2>/dev/null | grep -qx faro; then kind delete cluster --name faro; else echo "there is no kind cluster named faro"; fi

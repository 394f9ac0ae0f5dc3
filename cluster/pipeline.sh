#!/bin/bash
# Build the image of the offline pipeline (Dockerfile.pipeline) and load it into the workers of the kind cluster, whose pods
# run the jobs of profiles/kubernetes. Takes 5 to 10 minutes the first time.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=offline/settings.sh
. "$HERE/offline/settings.sh"
IMAGE=${IMAGE:-faro-pipeline:local}
if docker image inspect "$LOCAL_PYTHON" >/dev/null 2>&1; then # made by an offline build
  PYTHON_IMAGE=$LOCAL_PYTHON
  export DOCKER_BUILDKIT=0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
docker build --build-arg PYTHON_IMAGE="$PYTHON_IMAGE" -f "$HERE/Dockerfile.pipeline" -t "$IMAGE" "$HERE/.." >"$folder/build.log" 2>&1 || { tail -20 "$folder/build.log" >&2; exit 1; }
step "image $IMAGE: $(docker image inspect -f '{{.Size}}' "$IMAGE" | awk '{print int($1 / 1e6)}') MB"
load_image "$IMAGE" "$folder"

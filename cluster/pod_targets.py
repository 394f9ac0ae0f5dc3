"""Write the pods with the annotation prometheus.io/scrape to a file of Prometheus targets.

Repeated every five seconds, because Debian's Prometheus cannot query the Kubernetes API itself. The
label `service` of a target is the pod's label `app`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from faro_ops.operate.kube.client import ApiError, connect


def targets(pods: Iterable[dict]) -> list[dict]:
    """The targets of the running pods, one group for each container port."""
    groups = []
    for pod in pods:
        meta = pod["metadata"]
        status = pod["status"]
        wanted = meta.get("annotations", {}).get("prometheus.io/scrape") == "true"
        if not wanted or status.get("phase") != "Running":
            continue
        labels = {
            "namespace": meta["namespace"],
            "pod": meta["name"],
            "service": meta.get("labels", {}).get("app", ""),
        }
        ports = [
            port["containerPort"]
            for one in pod["spec"]["containers"]
            for port in one.get("ports", [])
        ]
        groups += [{"targets": [f"{status['podIP']}:{port}"], "labels": labels} for port in ports]
    return groups


if __name__ == "__main__":
    path = Path(sys.argv[1])
    new = path.with_suffix(".new")
    api = connect()
    while True:
        try:
            found = targets(api.get("/api/v1/pods")["items"])
            new.write_text(json.dumps(found))
            new.rename(path)
        except ApiError as error:  # the last targets stay
            print(error, file=sys.stderr, flush=True)
        time.sleep(5)

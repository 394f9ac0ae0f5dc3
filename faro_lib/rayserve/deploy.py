"""Put the jobs' applications onto a Ray cluster, declaratively, and wait until they serve."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from faro_lib.rayserve import replica
from faro_lib.rayserve.rest import PATIENCE_S, Rest
from faro_lib.rayserve.spec import Served
from faro_lib.workload import Job

APPLICATIONS = "/api/serve/applications/"
WINDOW, WINDOW_ROUTE = "faro-statistics", "/faro-statistics"
SETTLE_S = 180.0
FIRST_CALL_S = 120.0  # the first configuration starts Serve itself


def configuration(
    jobs: tuple[Job, ...], served: tuple[Served, ...], replicas: Sequence[int] | np.ndarray
) -> list[dict[str, Any]]:
    """The `applications` of Ray Serve's declarative configuration: one a job, and the statistics' window.

    Replicas are scaled from outside, so no application has an autoscaling configuration.
    """
    applications = [
        {
            "name": one.application,
            "route_prefix": one.route,
            "import_path": f"{replica.__name__}:application",
            "external_scaler_enabled": True,
            "args": {
                "job": job.name,
                "deployment": one.deployment,
                "model": one.model,
                "options": dict(one.options),
                "max_ongoing_requests": one.max_ongoing_requests,
                "concurrency": one.concurrency,
                "cores": job.cores,
                "replicas": int(count),
            },
        }
        for job, one, count in zip(jobs, served, replicas)
    ]
    window = {"name": WINDOW, "route_prefix": WINDOW_ROUTE, "import_path": f"{replica.__name__}:window", "args": {}}
    return [window, *applications]


def deploy(
    ray: Rest,
    applications: list[dict[str, Any]],
    http: tuple[str, int] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Replace what is deployed by these applications, and wait until all run.

    Parameters
    ----------
    http : host and port to serve on, where Serve is not running yet.

    Raises
    ------
    ValueError : an application could not be deployed; Ray's words in one line.
    """
    body: dict[str, Any] = {"proxy_location": "HeadOnly", "applications": applications}
    if http:
        body["http_options"] = {"host": http[0], "port": http[1]}
    replace(ray, timeout_s=FIRST_CALL_S).put(APPLICATIONS, body)
    until, told = time.monotonic() + SETTLE_S, -1
    while True:
        states = ray.get(APPLICATIONS, PATIENCE_S)["applications"]
        waiting = [one["name"] for one in applications if states.get(one["name"], {}).get("status") != "RUNNING"]
        for name in waiting:
            state = states.get(name, {})
            if state.get("status") in ("DEPLOY_FAILED", "UNHEALTHY"):
                said = [line for line in state.get("message", "").splitlines() if line.strip()]
                raise ValueError(f"application {name!r} could not be deployed: {said[-1] if said else state['status']}")
        if not waiting:
            return
        if len(waiting) != told:
            told = len(waiting)
            report(f"{len(applications) - told} of {len(applications)} applications run")
        if time.monotonic() > until:
            raise ValueError(f"application {waiting[0]!r} does not run after {SETTLE_S:g} s")
        time.sleep(0.5)

"""Deploy the jobs to a Ray cluster with Ray Serve's declarative configuration."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from faro_lib.workload import Job
from faro_ops.http import BUSY_RETRY_S, HttpClient
from faro_ops.rayserve import replica
from faro_ops.rayserve.spec import STATS_APPLICATION, ServeSpec

APPLICATIONS = "/api/serve/applications/"
STATS_ROUTE = f"/{STATS_APPLICATION}"
START_TIMEOUT_S = (
    180.0  # time limit for each of two steps: the start of Ray and the start of the applications
)


def scale_path(spec: ServeSpec) -> str:
    """Path in Ray's REST API that sets the replica count of a deployment."""
    return f"/api/v1/applications/{spec.application}/deployments/{spec.deployment}/scale"


def configuration(
    jobs: tuple[Job, ...], specs: tuple[ServeSpec, ...], replicas: Sequence[int] | np.ndarray
) -> list[dict[str, Any]]:
    """The `applications` of Ray Serve's declarative configuration: the stats endpoint and one application per job.

    Ray's own autoscaling is not configured, because Faro scales the replicas.
    """
    stats = {"name": STATS_APPLICATION, "route_prefix": STATS_ROUTE, "args": {}}
    return [stats | {"import_path": f"{replica.__name__}:stats_endpoint"}] + [
        {
            "name": spec.application,
            "route_prefix": spec.route,
            "import_path": f"{replica.__name__}:application",
            "external_scaler_enabled": True,
            "args": {
                "job": job.name,
                "deployment": spec.deployment,
                "import_path": spec.import_path,
                "args": dict(spec.args),
                "max_ongoing_requests": spec.max_ongoing_requests,
                "concurrency": spec.concurrency,
                "cores": job.cores,
                "replicas": int(count),
            },
        }
        for job, spec, count in zip(jobs, specs, replicas)
    ]


def merged(
    ray: HttpClient, applications: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the applications to deploy, and the names of Faro's running applications that Ray Serve will remove.

    Ray Serve removes every running application that is not deployed again. The applications to deploy therefore include
    those of other programs. An application that already runs keeps its replica count.
    """
    running, names = ray.get(APPLICATIONS)["applications"], {one["name"] for one in applications}
    mine = []
    for one in applications:
        of = (
            running.get(one["name"], {})
            .get("deployments", {})
            .get(one["args"].get("deployment"), {})
        )
        count = of.get("target_num_replicas")
        mine.append(one | {"args": one["args"] | {"replicas": count}} if count else one)
    rest = {
        name: state.get("deployed_app_config") or {}
        for name, state in running.items()
        if name not in names
    }
    gone = [
        name
        for name, one in rest.items()
        if one.get("import_path", "").startswith(f"{replica.__name__}:")
    ]
    return mine + [one for name, one in rest.items() if one and name not in gone], gone


def deploy(
    ray: HttpClient,
    applications: list[dict[str, Any]],
    http: tuple[str, int] | None = None,
    report: Callable[[str], None] = lambda line: None,
    timeout_s: float = START_TIMEOUT_S,
) -> None:
    """Replace the deployed applications by `applications`, and wait until these run.

    `http` is the host and port to serve on; it is required if Ray Serve does not run yet. Raises ValueError with Ray's
    message if an application fails or does not start in time.
    """
    body: dict[str, Any] = {"proxy_location": "HeadOnly", "applications": applications}
    if http:
        body["http_options"] = {"host": http[0], "port": http[1]}
    until, reported = time.monotonic() + timeout_s, -1
    replace(ray, timeout_s=timeout_s).request(
        "PUT", APPLICATIONS, body
    )  # takes long if it must start Ray Serve
    while True:
        states = ray.get(APPLICATIONS, BUSY_RETRY_S)["applications"]
        waiting = [
            one["name"]
            for one in applications
            if states.get(one["name"], {}).get("status") != "RUNNING"
        ]
        for name in waiting:
            state = states.get(name, {})
            if state.get("status") in ("DEPLOY_FAILED", "UNHEALTHY"):
                lines = [line for line in state.get("message", "").splitlines() if line.strip()]
                raise ValueError(
                    f"application {name!r} could not be deployed: {[state['status'], *lines][-1]}"
                )
        if not waiting:
            return
        if len(waiting) != reported:
            reported = len(waiting)
            report(f"{len(applications) - reported} of {len(applications)} applications run")
        if time.monotonic() > until:
            state = states.get(waiting[0], {})
            reason = " ".join(
                [state.get("status", "not listed"), *state.get("message", "").split()]
            )
            problem = f"application {waiting[0]!r} does not run after {timeout_s:g} s ({reason})"
            raise ValueError(f"{problem}; --start-timeout sets the limit")

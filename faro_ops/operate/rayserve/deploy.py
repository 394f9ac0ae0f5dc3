"""Deploy the jobs to a Ray cluster with Ray Serve's declarative configuration."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from faro_lib.workload import Job, pools_of
from faro_ops.http import BUSY_RETRY_S, HttpClient
from faro_ops.moved import new_path
from faro_ops.operate.rayserve import gateway, replica
from faro_ops.operate.rayserve.pools import pool_configuration
from faro_ops.operate.rayserve.spec import STATS_APPLICATION, ServeSpec

APPLICATIONS = "/api/serve/applications/"
STATS_ROUTE = f"/{STATS_APPLICATION}"
PLACEMENTS_QUERY = f"{replica.PLACEMENTS_PARAMETER}=1"
# Time limit for each of two steps: the start of Ray and the start of the applications.
START_TIMEOUT_S = 180.0


def scale_path(spec: ServeSpec) -> str:
    """Path in Ray's REST API that sets the replica count of a deployment."""
    return f"/api/v1/applications/{spec.application}/deployments/{spec.deployment}/scale"


def configuration(
    jobs: tuple[Job, ...], specs: tuple[ServeSpec, ...], replicas: Sequence[int] | np.ndarray
) -> list[dict[str, Any]]:
    """The `applications` of Ray Serve's declarative configuration.

    These are the stats endpoint and one application per job or pool. Ray's own autoscaling is not
    configured, because Faro scales the replicas.
    """
    stats = {
        "name": STATS_APPLICATION,
        "route_prefix": STATS_ROUTE,
        "args": {},
        "import_path": f"{replica.__name__}:stats_endpoint",
    }
    applications: list[dict[str, Any]] = [stats]
    for unit in pools_of(jobs):
        if unit.shared:
            members = list(unit.jobs)
            total = sum(int(replicas[n]) for n in members)
            of_pool = [jobs[n] for n in members], [specs[n] for n in members]
            applications.append(pool_configuration(unit, *of_pool, total))
        else:
            n = unit.jobs[0]
            applications.append(_job_configuration(jobs[n], specs[n], int(replicas[n])))
    return applications


def _job_configuration(job: Job, spec: ServeSpec, replicas: int) -> dict[str, Any]:
    """The application of a job that has its own replicas."""
    arguments = {
        "job": job.name,
        "deployment": spec.deployment,
        "import_path": spec.import_path,
        "args": dict(spec.args),
        "max_ongoing_requests": spec.max_ongoing_requests,
        "concurrency": spec.concurrency,
        "cores": job.cores,
        "replicas": replicas,
    }
    return {
        "name": spec.application,
        "route_prefix": spec.route,
        "import_path": f"{replica.__name__}:application",
        "external_scaler_enabled": True,
        "args": arguments,
    }


def merged(
    ray: HttpClient, applications: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """(the applications to deploy, the names of Faro's running applications that will be removed).

    Ray Serve removes every running application that is not deployed again. The applications to
    deploy therefore include those of other programs. An application that already runs keeps its
    replica count.
    """
    running = ray.get(APPLICATIONS)["applications"]
    to_deploy = []
    for one in applications:
        deployments = running.get(one["name"], {}).get("deployments", {})
        deployment = deployments.get(one["args"].get("deployment"), {})
        if count := deployment.get("target_num_replicas"):
            one = one | {"args": one["args"] | {"replicas": count}}
        to_deploy.append(one)
    names = {one["name"] for one in applications}
    gone = []
    for name, state in running.items():
        if name in names:
            continue
        configured = state.get("deployed_app_config") or {}
        if _is_ours(configured):
            gone.append(name)
        elif configured:
            to_deploy.append(configured)
    return to_deploy, gone


def _is_ours(configured: dict[str, Any]) -> bool:
    """Whether a configured application is Faro's, also if an older version of Faro deployed it."""
    path = configured.get("import_path") or ""
    ours = tuple(f"{module.__name__}:" for module in (replica, gateway))
    return (new_path(path) or path).startswith(ours)


def deploy(
    ray: HttpClient,
    applications: list[dict[str, Any]],
    http: tuple[str, int] | None = None,
    report: Callable[[str], None] = lambda line: None,
    timeout_s: float = START_TIMEOUT_S,
) -> None:
    """Replace the deployed applications by `applications`, and wait until Faro's among them run.

    Applications of other programs are deployed as they were; whether they run is not Faro's
    business. `http` is the host and port to serve on; it is required if Ray Serve does not run yet.
    Raises ValueError with Ray's message if an application of Faro fails or does not start in time.
    """
    body: dict[str, Any] = {"proxy_location": "HeadOnly", "applications": applications}
    if http:
        body["http_options"] = {"host": http[0], "port": http[1]}
    until = time.monotonic() + timeout_s
    # If Ray Serve must be started first, the answer takes long.
    replace(ray, timeout_s=timeout_s).request("PUT", APPLICATIONS, body)
    reported = -1
    ours = [one["name"] for one in applications if _is_ours(one)]
    while True:
        listed = ray.get(APPLICATIONS, BUSY_RETRY_S)["applications"]
        states = {name: listed.get(name, {}) for name in ours}
        waiting = {name: one for name, one in states.items() if one.get("status") != "RUNNING"}
        for name, state in waiting.items():
            if state.get("status") in ("DEPLOY_FAILED", "UNHEALTHY"):
                lines = [line for line in state.get("message", "").splitlines() if line.strip()]
                reason = [state["status"], *lines][-1]
                raise ValueError(f"application {name!r} could not be deployed: {reason}")
        if not waiting:
            return
        if len(waiting) != reported:
            reported = len(waiting)
            report(f"{len(ours) - reported} of {len(ours)} applications run")
        if time.monotonic() > until:
            name, state = next(iter(waiting.items()))
            words = [state.get("status", "not listed"), *state.get("message", "").split()]
            problem = f"application {name!r} does not run after {timeout_s:g} s"
            raise ValueError(f"{problem} ({' '.join(words)}); --start-timeout sets the limit")

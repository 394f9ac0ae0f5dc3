"""Access to the Ray cluster that serves the jobs: started on this machine, or an existing one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from faro_lib.workload import Job
from faro_ops.http import HttpClient
from faro_ops.operate.rayserve import local
from faro_ops.operate.rayserve.authentication import read_token
from faro_ops.operate.rayserve.deploy import START_TIMEOUT_S, configuration, deploy
from faro_ops.operate.rayserve.spec import ServeSpec


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How to reach a Ray cluster."""

    ray: HttpClient  # REST API of Ray's dashboard
    http: HttpClient  # HTTP server of the deployed applications
    pids: tuple[int, ...] = ()  # roots of the cluster's process trees, if it runs on this machine
    # The worker pods of a RayService (`studies.live.exclusive.RayWorkers`); only in experiments.
    workers: Any = None


@contextmanager
def serving(
    backend: str,
    jobs: tuple[Job, ...],
    specs: tuple[ServeSpec, ...],
    initial: Sequence[int] | np.ndarray,
    capacity: int,
    *,
    address: str | None = None,
    serve_address: str | None = None,
    start_timeout_s: float = START_TIMEOUT_S,
    report: Callable[[str], None] = lambda line: None,
) -> Iterator[Endpoint]:
    """A context with the `Endpoint` of a Ray cluster that serves the jobs.

    The backend "local" starts Ray with `capacity` CPUs, deploys the jobs and stops Ray on exit. Any
    other backend is an existing Ray cluster at `address` (dashboard) and `serve_address`
    (applications), which already serves the jobs.

    start_timeout_s : time limit for each of two steps: the start of Ray and the start of the jobs.
    """
    if backend != "local":
        if not address:
            raise ValueError(
                f"backend={backend} needs --address, Ray's dashboard, http://host:8265"
            )
        read_token()  # raises if the token file does not exist
        parts = urlsplit(address)
        serve_address = serve_address or f"{parts.scheme}://{parts.hostname}:8000"
        # Tokens rotate, so each call reads the token again.
        yield Endpoint(HttpClient(address, read_token), HttpClient(serve_address, read_token))
        return
    report("starting Ray on this machine")
    with local.start(capacity, start_timeout_s) as ray:
        http = local.HTTP_HOST, urlsplit(ray.http.address).port or 0
        deploy(ray.rest, configuration(jobs, specs, initial), http, report, start_timeout_s)
        yield Endpoint(ray.rest, ray.http, (ray.process.pid,))

"""Where jobs are served: a Ray of our own on this machine, or one that is there already."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from faro_lib.rayserve import local
from faro_lib.rayserve.deploy import configuration, deploy
from faro_lib.rayserve.rest import Rest, read_token
from faro_lib.rayserve.spec import Served
from faro_lib.workload import Job

LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A Ray cluster that serves the jobs.

    ray, http : REST of its dashboard, and where the applications are; pids : heads of its process trees, if they are ours.
    """

    ray: Rest
    http: Rest
    pids: tuple[int, ...] = ()


@contextmanager
def serving(
    backend: str,
    jobs: tuple[Job, ...],
    served: tuple[Served, ...],
    initial: Sequence[int] | np.ndarray,
    capacity: int,
    *,
    address: str | None = None,
    serve_address: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Iterator[Endpoint]:
    """The endpoint, for as long as it is needed.

    `local` starts Ray, deploys the jobs and ends Ray afterwards. Any other backend is a Ray cluster at `address` (of its
    dashboard) and `serve_address` that serves the jobs already, and goes on doing so.
    """
    if backend != LOCAL:
        yield reached(backend, address, serve_address)
        return
    report("starting Ray on this machine")
    with local.start(capacity) as ray:
        port = urllib.parse.urlsplit(ray.http).port or 0
        deploy(ray.rest, configuration(jobs, served, initial), (local.HTTP_HOST, port), report)
        yield Endpoint(ray.rest, Rest(ray.http, ray.token), (ray.pid,))


def reached(backend: str, address: str | None, serve_address: str | None) -> Endpoint:
    """An endpoint that is there already; the token is taken from where Ray takes it, anew for every call."""
    if not address:
        raise ValueError(f"backend={backend} needs --address, Ray's dashboard, http://host:8265")
    parts = urllib.parse.urlsplit(address)
    read_token()  # one that cannot be read is refused before anything begins
    there = serve_address or f"{parts.scheme}://{parts.hostname}:8000"
    return Endpoint(Rest(address, read_token), Rest(there, read_token))

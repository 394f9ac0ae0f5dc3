"""The section `serve` of the jobs' table: how Ray Serve runs each job."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from faro_lib.errors import nearest
from faro_lib.workload import Job
from faro_lib.workload.replicas import MAX_ONGOING_REQUESTS, SERIAL, Concurrent, mapping_of
from faro_lib.workload.service import true_service_time
from faro_ops.rayserve import models

MAX_SLOWDOWN = 0.1  # a replica is not emulated if concurrency can lengthen service times by more than this share
EMULATED = f"{models.__name__}:Emulated"
EMULATED_KINDS = {
    "batched": f"{models.__name__}:EmulatedBatches",
    "continuous": f"{models.__name__}:EmulatedTokens",
}
STATS_APPLICATION = "faro-statistics"  # the application with the stats endpoint


@dataclass(frozen=True, slots=True)
class ServeSpec:
    """One job on Ray Serve: an application with one deployment."""

    application: str  # name of the application; by default, the job's name
    route: str  # URL path; by default, a slash and the job's name
    deployment: str = "replica"
    import_path: str = EMULATED  # "package.module:Class"; an instance is called with each request
    args: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of the class
    max_ongoing_requests: int = (
        MAX_ONGOING_REQUESTS  # maximum requests waiting or in service; further ones get a 503
    )
    concurrency: int = 1  # requests that a replica serves at once

    def __post_init__(self) -> None:
        def check(name: str, accepted: str, holds: bool) -> None:
            if not holds:
                raise ValueError(
                    f"serve of {self.application!r}: {name}={getattr(self, name)!r} must {accepted}"
                )

        for name in ("max_ongoing_requests", "concurrency"):
            value = getattr(self, name)
            check(name, "be a whole number >= 1", isinstance(value, int) and value >= 1)
        check("route", "read /name", bool(re.fullmatch(r"/[\w.-]+", self.route)))
        check("import_path", "read package.module:Class", self.import_path.count(":") == 1)


def ongoing_limits(
    jobs: tuple[Job, ...], sections: Mapping[str, Mapping[str, Any]]
) -> tuple[tuple[str, int], ...]:
    """(name, max_ongoing_requests) of each job whose section `serve` sets this limit."""
    limits = (
        (job.name, spec.max_ongoing_requests)
        for job, spec in zip(jobs, serve_specs(jobs, sections))
    )
    return tuple(
        (name, limit) for name, limit in limits if "max_ongoing_requests" in sections.get(name, {})
    )


def serve_specs(
    jobs: tuple[Job, ...],
    sections: Mapping[str, Mapping[str, Any]] | None = None,
    scale: float = 1.0,
) -> tuple[ServeSpec, ...]:
    """The spec of each job, from its section in `sections` (`read_sections(path, "serve")`) and defaults.

    By default, an emulation serves the job. It sleeps for the job's service time, divided by `scale` (trace seconds per
    wall second). Raises ValueError for an unknown key or an invalid value, or if jobs share an application or a route.
    """
    accepted = [field.name for field in fields(ServeSpec)]
    specs = []
    for job in jobs:
        section = dict((sections or {}).get(job.name, {}))
        for key in section:
            if key not in accepted:
                raise ValueError(
                    f"job {job.name!r}: serve has an unknown key {key!r}; {nearest(key, accepted)}"
                )
        name = re.sub(r"[^\w.-]+", "-", job.name)
        spec = ServeSpec(**({"application": name, "route": f"/{name}"} | section))
        if STATS_APPLICATION in (spec.application, spec.route.removeprefix("/")):
            raise ValueError(
                f"job {job.name!r}: {STATS_APPLICATION!r} is reserved for Faro's own application"
            )
        if job.replica != SERIAL:
            limit = section.get(
                "max_ongoing_requests", max(MAX_ONGOING_REQUESTS, job.replica.fewest_places)
            )
            # A batched or continuous model has its own queue. It therefore receives all ongoing requests at once.
            at_once = limit if job.replica.kind in EMULATED_KINDS else job.replica.max_in_service
            spec = replace(
                spec, max_ongoing_requests=limit, concurrency=section.get("concurrency", at_once)
            )
        if spec.import_path == EMULATED and not spec.args:
            spec = replace(spec, **_emulated(job, scale))
        specs.append(spec)
    for key in ("application", "route"):
        values = [getattr(spec, key) for spec in specs]
        if shared := [value for value in values if values.count(value) > 1]:
            raise ValueError(
                f"serve: {key}={shared[0]!r} belongs to two jobs; each job needs its own"
            )
    return tuple(specs)


def _emulated(job: Job, scale: float) -> dict[str, Any]:
    """The import_path and the args of the model that emulates the job's replica; ValueError if none can."""
    replica, service = job.replica, true_service_time(job)
    if replica.kind in EMULATED_KINDS and scale == 1:
        args = {"replica": mapping_of(replica)} | (
            {"scv": job.service_scv} if replica.kind == "batched" else {}
        )
        return {"import_path": EMULATED_KINDS[replica.kind], "args": args}
    slows_down = (
        isinstance(replica, Concurrent) and replica.slowdown * (replica.at_once - 1) > MAX_SLOWDOWN
    )
    if replica.kind in EMULATED_KINDS or slows_down:
        raise ValueError(
            f"job {job.name!r}: replica={replica} is not emulated at scale {scale:g}; name an import_path"
        )
    return {"args": {"mean_s": service.mean_s / scale, "scv": service.scv}}

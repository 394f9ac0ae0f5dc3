"""The section `serve` of the jobs' table: how Ray Serve runs each job."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from faro_lib.workload import Job, Pool, pools_of
from faro_lib.workload.replicas import MAX_ONGOING_REQUESTS, SERIAL, Concurrent, mapping_of
from faro_lib.workload.service import true_service_time
from faro_ops.operate.rayserve import models
from faro_ops.section import Section, parsed

# A replica is not emulated if concurrency can lengthen service times by more than this share.
MAX_SLOWDOWN = 0.1
EMULATED = f"{models.__name__}:Emulated"
EMULATED_KINDS = {
    "batched": f"{models.__name__}:EmulatedBatches",
    "continuous": f"{models.__name__}:EmulatedTokens",
}
STATS_APPLICATION = "faro-statistics"  # the application with the stats endpoint
POOL_PREFIX = "pool-"  # of the names of applications that serve a pool
LATE: Final = "late"
EARLY: Final = "early"
BINDINGS = (LATE, EARLY)  # how the gateway of a pool chooses replicas
# Requests of a job in a pool, waiting or in service, unless its section `serve` says otherwise.
POOL_LIMIT = 200
# Keys that the jobs of a pool cannot set, and keys that they must agree on.
OF_THE_POOL = ("application", "route", "deployment", "concurrency")
SAME_IN_POOL = ("gateways", "binding")
# Names become parts of URLs, of files, and of the configuration of Ray's HAProxy.
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
ACCEPTED = "1 to 100 letters, digits, and _ - . (not at the beginning)"


def _valid_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"must be {ACCEPTED}")
    return name


def _valid_path(path: str) -> str:
    if not (path.startswith("/") and NAME.fullmatch(path[1:])):
        raise ValueError(f"must be a slash and a name of {ACCEPTED}")
    return path


def _valid_class(path: str) -> str:
    if path.count(":") != 1:
        raise ValueError("must read package.module:Class")
    return path


Name = Annotated[str, AfterValidator(_valid_name)]


class ServeSpec(Section, strict=True):
    """One job on Ray Serve: an application with one deployment, which the jobs of a pool share."""

    application: Name  # name of the application; by default, the job's name
    # URL path; by default, a slash and the job's name. Before it stands the path of the job's pool.
    route: Annotated[str, AfterValidator(_valid_path)]
    deployment: Name = "replica"
    # "package.module:Class"; an instance is called with each request
    import_path: Annotated[str, AfterValidator(_valid_class)] = EMULATED
    args: dict[str, Any] = Field({})  # keyword arguments of the class
    # Requests that a replica holds at most, waiting or in service; further ones get a 503.
    max_ongoing_requests: int = Field(MAX_ONGOING_REQUESTS, ge=1)
    concurrency: int = Field(1, ge=1)  # requests that a replica serves at once
    gateways: int = Field(1, ge=1)  # replicas of the gateway in front of the job's pool
    binding: Literal["late", "early"] = LATE  # how the gateway chooses replicas


def ongoing_limits(
    jobs: tuple[Job, ...], sections: Mapping[str, Mapping[str, Any]]
) -> tuple[tuple[str, int], ...]:
    """(name, max_ongoing_requests) of each job whose section `serve` sets this limit.

    An invalid section sets none.
    """
    specs, problems = usable_specs(jobs, sections)
    return tuple(
        (job.name, spec.max_ongoing_requests)
        for n, (job, spec) in enumerate(zip(jobs, specs))
        if n not in problems and "max_ongoing_requests" in sections.get(job.name, {})
    )


def serve_specs(
    jobs: tuple[Job, ...],
    sections: Mapping[str, Mapping[str, Any]] | None = None,
    scale: float = 1.0,
) -> tuple[ServeSpec, ...]:
    """The spec of each job, from its section `serve` in the table (`sections`) and defaults.

    By default, an emulation serves the job. It sleeps for the job's service time, divided by
    `scale` (trace seconds per wall second). Raises ValueError for an unknown key or an invalid
    value, or if jobs share an application or a route.
    """
    given = sections or {}
    specs = tuple(_spec(job, given.get(job.name, {}), scale) for job in jobs)
    for key in ("application", "route"):
        values = [getattr(spec, key) for spec in specs]
        shared = [value for value in values if values.count(value) > 1]
        if shared:
            problem = f"{key}={shared[0]!r} belongs to two jobs; each job needs its own"
            raise ValueError(f"serve: {problem}")
    return _with_pools(jobs, specs, given, scale)


def usable_specs(
    jobs: tuple[Job, ...], sections: Mapping[str, Mapping[str, Any]]
) -> tuple[tuple[ServeSpec, ...], dict[int, str]]:
    """The spec of each job, and the problems of the sections that cannot be used as they are.

    The problems are by index of the job. The spec of such a job has the application that its
    section names, if it is valid and of no other job, so that its replicas are still seen.
    """
    specs: list[ServeSpec] = []
    problems: dict[int, str] = {}
    for n, job in enumerate(jobs):
        try:
            specs.append(_spec(job, sections.get(job.name, {})))
        except ValueError as error:
            named = f"job {job.name!r}: "
            problems[n] = named + str(error).removeprefix(named)
            specs.append(_readable(job, sections.get(job.name, {})))
    for key in ("application", "route"):
        owners: dict[str, str] = {}  # application or route -> the first job that has it
        fine_first = sorted(range(len(jobs)), key=lambda n: n in problems)
        for n in fine_first:
            value, name = getattr(specs[n], key), jobs[n].name
            owner = owners.setdefault(value, name)
            if owner != name:
                problem = f"{key}={value!r} belongs to job {owner!r}; each job needs its own"
                problems.setdefault(n, f"job {name!r}: serve.{problem}")
                specs[n] = _spec(Job(name), {})
    if problems and any(pool.shared for pool in pools_of(jobs)):
        sections = {job.name: sections.get(job.name, {}) for n, job in enumerate(jobs)}
        sections |= {jobs[n].name: {} for n in problems}
    return _with_pools(jobs, specs, sections), problems


def _with_pools(
    jobs: Sequence[Job],
    specs: Sequence[ServeSpec],
    sections: Mapping[str, Mapping[str, Any]],
    scale: float = 1.0,
) -> tuple[ServeSpec, ...]:
    """The specs, but the jobs of a pool share its application and have routes below its own.

    Raises ValueError if a section contradicts the pool.
    """
    served = list(specs)
    for pool in pools_of(jobs):
        members = [(n, jobs[n], specs[n]) for n in pool.jobs]
        if pool.shared:
            for n, job, spec in members:
                served[n] = _in_pool(pool, job, spec, sections.get(job.name, {}), scale)
                _check_agrees(pool, job, spec, members[0][1], members[0][2])
        elif members[0][2].application.startswith(POOL_PREFIX):
            problem = f"serve.application begins with {POOL_PREFIX!r}, as those of pools do"
            raise ValueError(f"job {members[0][1].name!r}: {problem}")
    return tuple(served)


def _in_pool(
    pool: Pool, job: Job, spec: ServeSpec, section: Mapping[str, Any], scale: float
) -> ServeSpec:
    """The spec of a job of a pool; ValueError if its section contradicts the pool.

    The gateway of a pool sends each replica one request at a time, so others are refused.
    """
    if job.replica != SERIAL:
        raise ValueError(
            f"job {job.name!r}: replicas of kind {job.replica.kind} cannot be shared on Ray Serve "
            f"yet; leave out pool={pool.name!r}, or use a serial replica"
        )
    for key in OF_THE_POOL:
        if key in section:
            problem = f"serve.{key} cannot be set in pool {pool.name!r}, whose replicas are shared"
            raise ValueError(f"job {job.name!r}: {problem}")
    args = dict(spec.args)
    if spec.import_path == EMULATED and "args" not in section:
        args["load_s"] = job.load_s / scale
    name = POOL_PREFIX + re.sub(r"[^\w.-]+", "-", pool.name)
    of_pool = {
        "application": name,
        "args": args,
        "max_ongoing_requests": section.get("max_ongoing_requests", POOL_LIMIT),
    }
    pooled = parsed(ServeSpec, dict(spec) | of_pool, f"job {job.name!r}", "serve")
    return pooled.model_copy(update={"route": f"/{name}{spec.route}"})


def _check_agrees(pool: Pool, job: Job, spec: ServeSpec, first: Job, theirs: ServeSpec) -> None:
    """Raise ValueError if two jobs of a pool disagree about its gateways."""
    for key in SAME_IN_POOL:
        ours, other = getattr(spec, key), getattr(theirs, key)
        if ours != other:
            problem = f"serve.{key}={ours!r} differs from {other!r} of job {first.name!r}"
            raise ValueError(f"job {job.name!r}: {problem}; all jobs of a pool must agree")


def _readable(job: Job, section: Any) -> ServeSpec:
    """The spec of a job whose section is invalid: where its replicas are, as far as it says so."""
    kept = {}
    if isinstance(section, Mapping):
        kept = {key: section[key] for key in ("application", "deployment") if key in section}
    try:
        return _spec(Job(job.name), kept)
    except ValueError:
        return _spec(Job(job.name), {})


def _spec(job: Job, section: Mapping[str, Any], scale: float = 1.0) -> ServeSpec:
    """The spec of one job from its own section; ValueError if the section is invalid."""
    place = f"job {job.name!r}"
    if not isinstance(section, Mapping):
        raise ValueError(f"{place}: serve={section!r} must be a mapping")
    name = re.sub(r"[^\w.-]+", "-", job.name)
    usual: dict[str, Any] = {"application": name, "route": f"/{name}"}
    if job.replica != SERIAL:
        fewest = max(MAX_ONGOING_REQUESTS, job.replica.fewest_places)
        limit = section.get("max_ongoing_requests", fewest)
        # A batched or continuous model has its own queue. It therefore receives all ongoing
        # requests at once.
        at_once = limit if job.replica.kind in EMULATED_KINDS else job.replica.max_in_service
        usual |= {"max_ongoing_requests": limit, "concurrency": at_once}
    spec = parsed(ServeSpec, usual | dict(section), place, "serve")
    if STATS_APPLICATION in (spec.application, spec.route.removeprefix("/")):
        raise ValueError(f"{place}: {STATS_APPLICATION!r} is reserved for Faro's own application")
    if spec.import_path == EMULATED and not spec.args:
        return spec.model_copy(update=_emulated(job, scale))
    return spec


def _emulated(job: Job, scale: float) -> dict[str, Any]:
    """The import_path and the args of the model that emulates the job's replica.

    Raises ValueError if no model can.
    """
    replica = job.replica
    if replica.kind in EMULATED_KINDS and scale == 1:
        args: dict[str, Any] = {"replica": mapping_of(replica)}
        if replica.kind == "batched":
            args["scv"] = job.service_scv
        return {"import_path": EMULATED_KINDS[replica.kind], "args": args}
    slows_down = (
        isinstance(replica, Concurrent) and replica.slowdown * (replica.at_once - 1) > MAX_SLOWDOWN
    )
    if replica.kind in EMULATED_KINDS or slows_down:
        problem = f"replica={replica} is not emulated at scale {scale:g}; name an import_path"
        raise ValueError(f"job {job.name!r}: {problem}")
    service = true_service_time(job)
    return {"args": {"mean_s": service.mean_s / scale, "scv": service.scv}}

"""What the section `serve` of a table of jobs says: how Ray Serve runs each job."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from faro_lib.rayserve import models
from faro_lib.workload import Job
from faro_lib.workload.service import true_service_time

MAX_ONGOING_REQUESTS = 10
EMULATED = f"{models.__name__}:Emulated"


@dataclass(frozen=True, slots=True)
class Served:
    """One job as Ray Serve runs it: one application with one deployment.

    Attributes
    ----------
    application, deployment, route : where it is; by default the job's name and a route of the same name.
    model : "package.module:Class", called with each request; `options` are its constructor's.
    max_ongoing_requests : requests that a replica may hold, the one in service included; one more is refused with 503.
    concurrency : requests that a replica serves at once.
    """

    application: str
    route: str
    deployment: str = "replica"
    model: str = EMULATED
    options: Mapping[str, Any] = field(default_factory=dict)
    max_ongoing_requests: int = MAX_ONGOING_REQUESTS
    concurrency: int = 1

    def __post_init__(self):
        for name in ("max_ongoing_requests", "concurrency"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"serve of {self.application!r}: {name}={value!r} must be a whole number >= 1")
        if not re.fullmatch(r"/[\w.-]+", self.route):
            raise ValueError(f"serve of {self.application!r}: route={self.route!r} must read /name")
        if self.model.count(":") != 1:
            raise ValueError(f"serve of {self.application!r}: model={self.model!r} must read package.module:Class")


def served(
    jobs: tuple[Job, ...], sections: Mapping[str, Mapping[str, Any]] | None = None, scale: float = 1.0
) -> tuple[Served, ...]:
    """How each job is served, by `sections` (`read_sections(path, "serve")`) and defaults.

    The emulated model takes as long as the job's model is known to, divided by the time `scale`.
    """
    fields = {one.name for one in dataclasses.fields(Served)}
    result = []
    for job in jobs:
        said = dict((sections or {}).get(job.name, {}))
        for key in said:
            if key not in fields:
                near = difflib.get_close_matches(key, fields, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"accepted: {', '.join(sorted(fields))}"
                raise ValueError(f"job {job.name!r}: serve has an unknown key {key!r}; {hint}")
        plain = re.sub(r"[^\w.-]+", "-", job.name)
        one = Served(**({"application": plain, "route": f"/{plain}"} | said))
        if one.model == EMULATED and not one.options:
            truth = true_service_time(job)
            one = dataclasses.replace(one, options={"mean_s": truth.mean_s / scale, "scv": truth.scv})
        result.append(one)
    for name in ("application", "route"):
        values = [getattr(one, name) for one in result]
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise ValueError(f"serve: {name}={twice!r} belongs to two jobs; each needs its own")
    return tuple(result)

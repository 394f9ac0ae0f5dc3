"""Checks of a workload before its simulation: policies that learn, and the limit of the router."""

from collections.abc import Sequence

import numpy as np

from faro_lib.policies import PolicyContext, make
from faro_lib.simulate import ServingModel
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S


def learners(policies: Sequence[str], jobs: Sequence[Job]) -> list[str]:
    """The policies that need a forecaster: none of them can be made without one."""
    context = PolicyContext(tuple(jobs))
    needing = []
    for policy in policies:
        try:
            make(policy, context)
        except ValueError:
            needing.append(policy)
    return needing


def check_none_learns(policies: Sequence[str], jobs: Sequence[Job], workload: str) -> None:
    """Raise ValueError if a policy needs a forecaster; for a workload without training days."""
    learning = learners(policies, jobs)
    if not learning:
        return
    others = [name for name in policies if name not in learning] or ["FairShare"]
    raise ValueError(
        f"{workload}: {learning[0]} learns from earlier days, and there is a single day; "
        "add days (column `day`), or choose policies that do not learn: " + ", ".join(others)
    )


def over_the_router(model: ServingModel, jobs: Sequence[Job], requests_per_min: np.ndarray) -> str:
    """A warning that names jobs whose busiest minute exceeds `ServingModel.max_rps`, or "".

    `requests_per_min` is (jobs, minutes).
    """
    most_rps = np.nan_to_num(requests_per_min).max(axis=1) / MINUTE_S
    rates = [(job.name, rate) for job, rate in zip(jobs, most_rps) if rate > model.max_rps]
    if not rates:
        return ""
    over = ", ".join(f"{name} ({rate:.0f})" for name, rate in rates)
    handles = f"the paper's router, one server per job, handles {model.max_rps:.0f} requests/s"
    more = f"more arrive in the busiest minute of {over}, and more replicas do not help"
    return f"{handles}; {more}"

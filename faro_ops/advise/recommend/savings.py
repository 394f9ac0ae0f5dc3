"""What sharing replicas would save: the capacity that the SLOs need by models per replica."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from faro_lib.experiments.trials import Report
from faro_lib.policies import Faro
from faro_lib.simulate import ServingModel
from faro_lib.workload import Job, Workload
from faro_lib.workload.replicas import SERIAL
from faro_ops.advise.recommend import sizing

TRIED = (1, 2, 3)  # models per replica, besides all


@dataclass(frozen=True, slots=True)
class Saving:
    """The capacity that the SLOs need if each replica holds up to `models` models."""

    models: int
    cores: int | None  # None if no capacity that was tried keeps the SLOs
    worst: dict  # the row of `sizing.COLUMNS` at that capacity, or at the largest one tried


def savings(
    workload: Workload,
    policy_for: Callable[[tuple[Job, ...]], Faro],
    estimate: int,
    accepted: np.ndarray,
    serving_model: ServingModel,
    report: Report,
) -> list[Saving]:
    """The required capacity for 1, 2, 3 and all models per replica, by simulations of `workload`.

    policy_for : returns Faro for jobs that share replicas.
    estimate : a first estimate of the required capacity, in cores.
    accepted : accepted SLO violation rate of each job, (jobs,).
    """
    largest = max(len(group) for group in groups(workload.jobs))
    fewest_cores = int(np.ceil(sum(job.min_replicas * job.cores for job in workload.jobs)))
    found = []
    for models in sorted({count for count in TRIED if count < largest} | {largest}):
        jobs = workload.jobs if models == 1 else sharing(workload.jobs, models)
        report(f"simulating the last day with {models} model{'s'[: models > 1]} per replica")
        curve = sizing.violations_by_capacity(
            replace(workload, jobs=jobs),
            policy_for(jobs),
            (fewest_cores, estimate),
            accepted,
            serving_model=serving_model,
            report=lambda line: None,
        )
        cores = sizing.required_cores(curve)
        at = curve["capacity_cores"] == (cores or curve["capacity_cores"].max())
        found.append(Saving(models, cores, curve[at].iloc[0].to_dict()))
    return found


def groups(jobs: tuple[Job, ...]) -> list[list[int]]:
    """Positions of the jobs that could share replicas: those whose replicas are alike.

    Raises ValueError if there are no two of them.
    """
    alike: dict[tuple, list[int]] = {}
    for index, job in enumerate(jobs):
        if job.replica == SERIAL and not job.latency_curve:
            alike.setdefault((job.cores, job.cold_start_s), []).append(index)
    several = [group for group in alike.values() if len(group) > 1]
    if not several:
        raise ValueError(
            "no two jobs could share replicas: this needs serial replicas with the same cores and "
            "cold_start_s"
        )
    return several


def sharing(jobs: tuple[Job, ...], models: int) -> tuple[Job, ...]:
    """The jobs, in pools of those that could share replicas, with `models` models per replica."""
    shared = list(jobs)
    for number, group in enumerate(groups(jobs), 1):
        for index in group:
            shared[index] = replace(
                jobs[index], pool=f"shared {number}", models_per_replica=min(models, len(group))
            )
    return tuple(shared)

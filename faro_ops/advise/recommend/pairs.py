"""How many prefill and how many decode replicas are the best of each number of replicas.

The pair of a number of replicas is the one that sustains the largest rate within the SLO, as
DistServe chooses it (OSDI 2024). It does not depend on the rate of the moment, and each pair adds
replicas to that of the number before it. Otherwise, changes of the load would change the roles of
replicas, each with a cold start. A solver takes numbers of replicas as before.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from faro_lib.simulate import ServingModel
from faro_lib.simulate.measure import COUNTS, USUAL_REPLICAS, measure
from faro_lib.workload import Job
from faro_lib.workload.replicas import Disaggregated

REQUESTS = 10_000  # simulated at full load, for each pair


def with_pairs(
    jobs: Sequence[Job],
    capacity: float | None,
    serving_model: ServingModel,
    report: Callable[[str], None],
) -> tuple[Job, ...]:
    """The jobs, with the best pairs for those of kind `disaggregated` that have none.

    Numbers of replicas up to `capacity` cores are compared, but at most USUAL_REPLICAS.
    """
    return tuple(
        _with_pairs(job, capacity, serving_model, report)
        if isinstance(job.replica, Disaggregated) and not job.replica.prefill
        else job
        for job in jobs
    )


def _with_pairs(
    job: Job, capacity: float | None, model: ServingModel, report: Callable[[str], None]
) -> Job:
    report(f"comparing numbers of prefill and decode replicas of {job.name}")
    most = USUAL_REPLICAS if capacity is None else min(USUAL_REPLICAS, capacity / job.cores)
    most = max(1, int(min(most, job.max_replicas)))
    counts = [count for count in COUNTS if count <= most]
    measured = best_prefill(job, counts, model)
    every = np.interp(range(1, counts[-1] + 1), counts, [measured[count] for count in counts])
    prefill = [round(number) for number in every]
    report(f"prefill replicas of 1, 2, ... replicas of {job.name}: {prefill}")
    return with_prefill(job, prefill)


def with_prefill(job: Job, prefill: Sequence[int]) -> Job:
    """The job whose replicas have these roles (`Disaggregated.prefill`)."""
    assert isinstance(job.replica, Disaggregated)
    return replace(job, replica=replace(job.replica, prefill=tuple(prefill)))


def best_prefill(job: Job, counts: Sequence[int], model: ServingModel) -> dict[int, int]:
    """Number of replicas, of `counts` -> how many of them do prefill; 0: all do both.

    From one number to the next, prefill and decode replicas are added, and none is taken away, so
    that no replica ever changes its role. If no measured rate meets the SLO, all do both.
    """
    best: dict[int, int] = {}
    before, prefill = 0, 0
    for n in counts:
        tried = range(prefill, min(prefill + n - before, n - 1) + 1)
        rates = {one: sustained_rps(job, n, one, model) for one in tried}
        before, prefill = n, max(rates, key=lambda one: rates[one])
        best[n] = prefill
    return best


def sustained_rps(job: Job, replicas: int, prefill: int, model: ServingModel) -> float:
    """The largest rate in requests/s at which the job's quantile of latencies meets its SLO.

    0 if none of the measured rates does. Between two measured rates, the logarithm of the latency
    is interpolated.
    """
    of_pair = with_prefill(job, [*[0] * (replicas - prefill), *range(1, prefill + 1)])
    table = measure((of_pair,), (replicas,), requests=REQUESTS, serving_model=model)
    rates_rps = replicas * table.rate_per_replica_rps[0, 1:]
    log_s = np.log(table.tail_latency_s(of_pair, rates_rps, replicas) / job.slo_s)
    late = log_s > 0
    first = int(late.argmax()) if late.any() else len(late)
    if first in (0, len(late)):
        return float(rates_rps[-1]) if first else 0.0
    met = log_s[first - 1]
    part = 0.0 if np.isinf(log_s[first]) else -met / (log_s[first] - met)
    return float(rates_rps[first - 1] + part * (rates_rps[first] - rates_rps[first - 1]))

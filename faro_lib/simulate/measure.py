"""Measure latency tables: simulate constant rates on constant replica counts."""

from dataclasses import replace

import numpy as np

from faro_lib.policies.baselines import Fixed
from faro_lib.queueing import LatencyTable, service_class
from faro_lib.simulate.cluster import PAPER, ServingModel
from faro_lib.simulate.draws import draw
from faro_lib.simulate.run import simulate
from faro_lib.utility import precise_utility, relaxed_utility
from faro_lib.workload import Job, Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.service import true_service_time

UTILISATIONS = (0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2)


def measure(
    jobs: tuple[Job, ...],
    replicas: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12),
    *,
    minutes: int = 60,
    seed: int = 1,
    serving_model: ServingModel = PAPER,
) -> LatencyTable:
    """Measure the latency table of each class of jobs (`service_class`) at every utilisation and replica count.

    Utilities are averaged over minutes, as in the evaluation; the utility of the mean latency would be larger near
    saturation.

    Parameters
    ----------
    minutes : length of each run, after a first minute that is not measured because its queues begin empty.
    """
    classes = {service_class(job): job for job in reversed(jobs)}
    shape = (len(classes), 1 + len(UTILISATIONS), len(replicas))
    rates = np.zeros(shape[:2])
    # The first row describes an idle replica: nothing waits at rate 0.
    latency_s, dropped, relaxed, precise = np.zeros(shape), np.zeros(shape), np.ones(shape), np.ones(shape)
    for k, job in enumerate(classes.values()):
        per_min = np.rint(MINUTE_S * np.array(UTILISATIONS) / true_service_time(job).mean_s).astype(int)
        rates[k, 1:] = per_min / MINUTE_S
        for column, x in enumerate(replicas):
            counts = np.repeat(per_min[:, None] * x, minutes + 1, axis=1)
            # The class has no bounds and no quota.
            one = replace(job, min_replicas=x, max_replicas=x, tenant_quota=None)
            workload = Workload(tuple(replace(one, name=str(n)) for n in range(len(per_min))), counts)
            draws = draw(workload, seed, router=serving_model.router)
            run = simulate(workload, Fixed(x), x * len(per_min) * job.cores, draws=draws, serving_model=serving_model)
            tail_latency_s = run.tail_latency_s[:, 1 : minutes + 1]
            latency_s[k, 1:, column] = np.median(tail_latency_s, axis=1)
            relaxed[k, 1:, column] = relaxed_utility(tail_latency_s, job.slo_s).mean(axis=1)
            precise[k, 1:, column] = precise_utility(tail_latency_s, job.slo_s).mean(axis=1)
            dropped[k, 1:, column] = run.dropped.sum(axis=1) / run.requests.sum(axis=1)
        latency_s[k, 0] = latency_s[k, 1]
    return LatencyTable(tuple(classes), rates, np.array(replicas), latency_s, relaxed, precise, dropped)

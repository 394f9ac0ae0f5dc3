"""Services that can choose their batch size or GPU.

The best choices are computed exactly and then simulated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from faro_lib.allocate import Allocation, solve
from faro_lib.queueing import LatencyTable
from faro_lib.simulate import ServingModel, SimulatedCluster, draw
from faro_lib.simulate.measure import measure
from faro_lib.utility import relaxed_utility
from faro_lib.workload import Job, Workload, arrays_of
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import Batched
from studies.replicas.best_configurations import Configurations, best_configurations
from studies.replicas.run import SERVICES, TOKENS

# A large GPU counts as four small ones. It classifies 3 times as fast. It generates text 2.5 times
# as fast, with four times as many sequences at once.
LARGE = 4.0
FASTER = replace(
    TOKENS, alpha_s=0.008, beta_s=2e-4, gamma_s=4e-6, max_sequences=64, slo_on="first_token"
)
OPTIONS = {
    "classify": (
        replace(SERVICES["classify"], name="small"),
        replace(SERVICES["classify"], name="large", service_time_s=0.051, cores=LARGE),
    ),
    "images": tuple(
        replace(SERVICES["images"], name=f"batches of {size}", replica=Batched(size, 0.1, 0.5, 0.1))
        for size in (2, 4, 16)
    ),
    "chat": (
        replace(SERVICES["chat"], name="small"),
        replace(SERVICES["chat"], name="large", replica=FASTER, cores=LARGE),
    ),
}
# Choices of a configuration for each service.
BEST, SMALLEST, LARGEST = "best of all", "smallest", "largest"
SAMPLES = 100  # minutes with Poisson arrivals, over which a table's utilities are averaged
BACKEND = ServingModel("least-outstanding", max_ongoing_requests=64)


def measured(options: Mapping[str, Sequence[Job]] = OPTIONS) -> LatencyTable:
    """The measured latencies of all configurations."""
    return measure(
        tuple(job for jobs in options.values() for job in jobs),
        (1, 2, 4, 8),
        requests=10_000,
        serving_model=BACKEND,
    )


def best(
    rates_rps: Sequence[float],
    latency_model: LatencyTable,
    capacity: int,
    options: Mapping[str, Sequence[Job]] = OPTIONS,
) -> tuple[Configurations, Allocation]:
    """The table of the best configurations, and its exact allocation on `capacity` GPUs.

    rates_rps : mean arrival rates, (services,).
    """
    mean = np.asarray(rates_rps) * MINUTE_S
    counts = np.random.default_rng(4).poisson(mean, (SAMPLES, len(options)))
    table = best_configurations(
        options,
        counts.T[:, :, None] / MINUTE_S,  # (services, SAMPLES, 1 minute)
        [jobs[0].name for jobs in options.values()],
        np.ones(len(options), int),
        cores=capacity,
        cold_start_minutes=0.0,
        latency_model=latency_model,
    )
    return table, solve(table.table, capacity)


def compare(
    rates_rps: Sequence[float],
    latency_model: LatencyTable,
    capacities: Sequence[int],
    minutes: int = 30,
) -> pd.DataFrame:
    """Compare the best configurations with each service's first and last in OPTIONS.

    All are allocated exactly. One row per capacity, choice and service. The columns `expected` and
    `simulated` are lost utility. The simulation is one run, averaged over its minutes.
    """
    choices: dict[str, Mapping[str, Sequence[Job]]] = {
        BEST: OPTIONS,
        SMALLEST: {service: [jobs[0]] for service, jobs in OPTIONS.items()},
        LARGEST: {service: [jobs[-1]] for service, jobs in OPTIONS.items()},
    }
    rows = []
    for capacity in capacities:
        for choice, options in choices.items():
            least = sum(min(job.cores for job in jobs) for jobs in options.values())
            if least > capacity:  # not even one replica each
                continue
            table, allocation = best(rates_rps, latency_model, capacity, options)
            chosen = table.chosen(allocation.replicas)
            reached = table.table.value[np.arange(len(options)), allocation.replicas]
            expected = np.maximum(1 - reached, 0.0)  # rounding errors can make it negative
            lost = simulated(chosen, rates_rps, minutes)
            for n, (service, (job, replicas)) in enumerate(zip(options, chosen)):
                rows.append(
                    {
                        "capacity": capacity,
                        "choice": choice,
                        "service": service,
                        "configuration": job.name,
                        "replicas": replicas,
                        "expected": expected[n],
                        "simulated": lost[n],
                    }
                )
    return pd.DataFrame(rows)


def simulated(
    chosen: Sequence[tuple[Job, int]], rates_rps: Sequence[float], minutes: int, seed: int = 5
) -> np.ndarray:
    """Lost utility per service (services,) of fixed configurations under Poisson arrivals."""
    jobs = tuple(replace(job, name=f"{n}") for n, (job, _) in enumerate(chosen))
    mean = np.asarray(rates_rps, float)[:, None] * MINUTE_S
    workload = Workload(jobs, np.random.default_rng(seed).poisson(mean, (len(jobs), minutes)))
    counts = np.array([count for _, count in chosen])
    cluster = SimulatedCluster(
        workload,
        draw(workload, seed, router=None),
        float(counts @ arrays_of(jobs).cores),
        counts,
        BACKEND,
    )
    cluster.finish()
    tail_s = np.stack([cluster.tail_latency_of(minute) for minute in range(minutes)], axis=1)
    return 1 - relaxed_utility(tail_s, arrays_of(jobs).slo_s[:, None]).mean(axis=1)

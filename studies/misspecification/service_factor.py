"""Error of a scaled latency table, and the time of learning, for docs/learning.md.

    python -m studies.misspecification.service_factor

It writes data/recorded-misspecification/scaling.csv: the published services' table, scaled by a
factor, against one that is measured at the true service times. Printed times are means over the
ticks of a minute, one of which updates the posterior.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib.policies.learning import Learner
from faro_lib.protocol import Observation
from faro_lib.queueing import LatencyTable
from faro_lib.queueing.slower import Slower
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job
from faro_lib.workload.service import RESNET34
from studies.tables.frames import write_csv

FACTORS = (0.71, 0.8, 1.25, 1.4, 2.0)
REPLICAS = (1, 2, 4, 8, 16)
UTILISATIONS = (0.3, 0.5, 0.7, 0.8, 0.9)
TICKS_PER_MINUTE = 6
REPEATS = 20
TABLE = Path(__file__).parents[2] / "data/recorded-misspecification/scaling.csv"


def published(factor: float) -> Job:
    """The published service with times that are `factor` as long; its cv stays the same."""
    time_s, scv = factor * RESNET34.mean_s, RESNET34.scv
    return Job(f"{factor:g}", service_time_s=time_s, service_scv=scv, model="scaled")


def errors(factor: float) -> np.ndarray:
    """|scaled / measured latency - 1| by utilisation and replicas; NaN where one is infinite."""
    stated, truth = published(1.0), published(factor)
    table = measure((stated, truth), REPLICAS)
    rates = np.array(UTILISATIONS)[:, None] * np.array(REPLICAS) / truth.busy_s
    scaled = Slower(table, {stated.name: factor}).tail_latency_s(stated, rates, REPLICAS)
    measured = table.tail_latency_s(truth, rates, REPLICAS)
    both = np.isfinite(scaled) & np.isfinite(measured)
    return np.where(both, np.abs(scaled / np.where(both, measured, 1.0) - 1), np.nan)


def seconds_per_tick(jobs: int, table: LatencyTable) -> float:
    """Mean time of learning per tick, with one update in TICKS_PER_MINUTE ticks."""
    services = tuple(Job(f"s{n}") for n in range(jobs))
    learner = Learner()
    ones = np.ones(jobs)
    minute = Observation(
        now_s=60.0,
        capacity=2.0 * jobs,
        minute=0,
        arrivals_per_min=300 * ones[:, None],
        mean_latency_s=0.2 * ones,
        tail_latency_s=0.4 * ones,
        ongoing=ones,
        running=2 * ones,
        starting=0 * ones,
        target=2 * ones,
        terminating=0 * ones,
        changing=np.zeros(jobs, bool),
        drop=0 * ones,
    )
    learned = learner.start(services)
    began = time.perf_counter()
    for tick in range(REPEATS * TICKS_PER_MINUTE):
        now = replace(minute, minute=tick // TICKS_PER_MINUTE)
        learned = learner.updated(services, learned, now, table)
    return (time.perf_counter() - began) / (REPEATS * TICKS_PER_MINUTE)


def main() -> None:
    rows = []
    for factor in FACTORS:
        error = errors(factor)
        rows.append((factor, np.nanmedian(error), np.nanmax(error)))
    scaling = pd.DataFrame(rows, columns=["factor", "median_error", "largest_error"])
    print(scaling.round(3).to_string(index=False))
    write_csv(scaling, TABLE)
    table = measure((Job("a"),), REPLICAS)
    for jobs in (10, 1000):
        print(f"{jobs} jobs: {1e3 * seconds_per_tick(jobs, table):.2f} ms per tick")


if __name__ == "__main__":
    main()

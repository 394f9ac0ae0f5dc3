"""Utilities of pairs (prefill replicas, decode replicas), and allocation of replicas with them.

The utility of a pair is the share of the requests that meet both SLOs.
"""

from collections.abc import Sequence

import numpy as np

from faro_lib.allocate import Allocation, solve
from faro_lib.utility import UtilityTable
from faro_lib.workload import Job
from faro_lib.workload.replicas import Disaggregated
from studies.disaggregated.world import Requests, apart_latency_s

WARM_UP = 0.2  # share of the requests that come first and are not judged


def within(latency_s: np.ndarray, slo_s: float) -> float:
    """Share of the judged requests whose latency, of shape (requests,), is at most `slo_s`."""
    return float((latency_s[int(WARM_UP * len(latency_s)) :] <= slo_s).mean())


def pair_table(
    kind: Disaggregated, samples: Sequence[Requests], slo_s: float, replicas: int
) -> np.ndarray:
    """Utility of each pair with at most `replicas` in total, (replicas + 1, replicas + 1).

    The entry [p, d] is for p prefill and d decode replicas: the mean over `samples` of requests.
    It is 0 for a pair that lacks one of them, and -inf beyond `replicas`.
    """
    count = np.arange(replicas + 1)
    table = np.where(count[:, None] + count > replicas, -np.inf, 0.0)
    for requests in samples:
        for prefill in range(1, replicas):
            for decode in range(1, replicas - prefill + 1):
                latency_s = apart_latency_s(kind, requests, prefill, decode)
                table[prefill, decode] += within(latency_s, slo_s) / len(samples)
    return table


def best_pairs(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Utility of n = 0, 1, ... replicas (n,), and the number of them that do prefill (n,).

    It is that of the best pair with n replicas; among equal ones, the one with least prefill. The
    first row of `table`, without prefill replicas, may have the utilities of one pool instead of 0.

    >>> best_pairs(np.array([[0, 0, 0], [0, 0.9, -np.inf], [0, -np.inf, -np.inf]]))
    (array([0. , 0. , 0.9]), array([0, 0, 1]))
    """
    total = np.arange(len(table))
    rows = [table[np.arange(n + 1), n - np.arange(n + 1)] for n in total]
    return np.array([row.max() for row in rows]), np.array([row.argmax() for row in rows])


def solve_pairs(
    jobs: Sequence[Job], tables: Sequence[np.ndarray], budget: float, objective: str = "Sum"
) -> tuple[Allocation, np.ndarray]:
    """The best allocation, and the pairs (jobs, 2) of prefill and decode replicas in it.

    `tables` has a `pair_table` of each job at its rate, of equal shapes. If the objective does not
    fall when a job's utility rises, such as Sum and Fair, no other pairs within the budget are
    better: at equal costs, the best pair of a job is best for the objective.
    """
    rows = [best_pairs(table) for table in tables]
    allocation = solve(
        UtilityTable.from_values(jobs, [value for value, _ in rows]), budget, objective
    )
    prefill = np.array([row[n] for (_, row), n in zip(rows, allocation.replicas)])
    return allocation, np.column_stack([prefill, allocation.replicas - prefill])

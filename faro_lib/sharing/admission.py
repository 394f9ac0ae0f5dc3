"""Which jobs of a pool are served if its replicas cannot serve all.

Queues that are too long make all jobs of a pool late. So the pool refuses some jobs until the
others meet their SLOs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from faro_lib.allocate.objectives import Objective
from faro_lib.queueing.latency_models import Curves
from faro_lib.utility import relaxed_drop_penalty

MOST_CHOICES = 100_000  # more combinations are not enumerated
# Shares that may be refused of a job if the objective has a penalty for drops: the steps of the
# penalty (`utility.SOLVER_STEPS`).
PENALTY_LEVELS = (0.0, 0.03, 0.08, 1.0)


@dataclass(frozen=True, slots=True)
class Admission:
    """What a pool refuses, and how good this is."""

    drop: np.ndarray  # share of the requests that is refused, (jobs of the pool,)
    utility: np.ndarray  # expected utility of each job, with the penalty if the objective has one
    value: float  # the objective at these utilities
    bound: float  # upper bound on the value of any choice of the levels; `value` if exact


def admit(
    loads: np.ndarray,
    replicas: int,
    curves: Curves,
    weight: np.ndarray,
    objective: Objective,
    *,
    gamma: float | None = None,
    alpha: float = 1.0,
) -> Admission:
    """The best shares to refuse for sampled loads (paths, jobs) in erlangs on `replicas`.

    A job is served or refused whole; with a penalty for drops, also in part (PENALTY_LEVELS). All
    combinations are compared if there are at most MOST_CHOICES. Otherwise, the jobs are ordered by
    load per weight, and the best prefix is served; it is then improved by single changes. Of equal
    choices, the one that refuses less load is taken.
    """
    loads = np.asarray(loads, float)
    weight = np.asarray(weight, float)
    jobs = loads.shape[1]
    levels: Sequence[float] = (0.0, 1.0)
    if objective.effective and len(PENALTY_LEVELS) ** jobs <= MOST_CHOICES:
        levels = PENALTY_LEVELS

    def scored(drops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(utilities (choices, jobs), scores (choices,)) of drop rates (choices, jobs)."""
        utility = _utilities(drops, loads, replicas, curves, alpha)
        if objective.effective:
            utility = utility * relaxed_drop_penalty(drops)
        return utility, objective.score(utility, weight, gamma)

    nothing = np.zeros((1, jobs))
    utility, scores = scored(nothing)
    if utility.min() >= 1:  # no choice is better
        return Admission(nothing[0], utility[0], float(scores[0]), float(scores[0]))
    exact = len(levels) ** jobs <= MOST_CHOICES
    drops = np.array(list(product(levels, repeat=jobs))) if exact else _prefixes(loads, weight)
    utility, scores = scored(drops)
    best = _best(objective, utility, scores, drops, loads)
    if exact:
        value = float(scores[best])
        return Admission(drops[best], utility[best], value, value)
    return _improved(drops[best], scored, objective, loads, weight, gamma)


def _utilities(
    drops: np.ndarray, loads: np.ndarray, replicas: int, curves: Curves, alpha: float
) -> np.ndarray:
    """Mean utility of each job for drop rates (choices, jobs), before the penalty."""
    from faro_lib.sharing import _admission_kernels as kernels

    arrays = curves.of_job, curves.first, curves.last, curves.value
    return kernels.choice_utilities(1 - drops, loads, *arrays, float(alpha), int(replicas))


def _best(
    objective: Objective,
    utility: np.ndarray,
    scores: np.ndarray,
    drops: np.ndarray,
    loads: np.ndarray,
) -> int:
    """The best choice; for leximin, the least utilities are compared one after the other."""
    refused = drops @ loads.mean(axis=0)
    if objective.leximin:
        ascending = np.round(np.sort(utility, axis=1), 9)
        keys = (refused, *(-ascending.T[::-1]))
        return int(np.lexsort(keys)[0])
    return int(np.lexsort((refused, -np.round(scores, 9)))[0])


def _prefixes(loads: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Drop rates (jobs + 1, jobs) that serve 0, 1, ... jobs with the least load per weight."""
    per_weight = loads.mean(axis=0) / np.maximum(weight, 1e-9)
    rank = per_weight.argsort(kind="stable").argsort(kind="stable")
    counts = np.arange(len(weight) + 1)
    return (rank >= counts[:, None]).astype(float)


def _improved(drop, scored, objective, loads, weight, gamma) -> Admission:
    """Serve or refuse one more job, or exchange two, as long as the score grows."""
    while True:
        utility, scores = scored(drop[None, :])
        flipped = np.repeat(drop[None, :], len(drop), axis=0)
        np.fill_diagonal(flipped, 1 - drop)
        served, refused = np.flatnonzero(drop == 0), np.flatnonzero(drop > 0)
        exchanged = np.repeat(drop[None, :], len(served) * len(refused), axis=0)
        pairs = np.array([(a, b) for a in served for b in refused], int).reshape(-1, 2)
        rows = np.arange(len(pairs))
        exchanged[rows, pairs[:, 0]] = 1.0
        exchanged[rows, pairs[:, 1]] = 0.0
        others = np.concatenate([flipped, exchanged])
        _, other_scores = scored(others)
        best = int(other_scores.argmax())
        if other_scores[best] <= scores[0] + 1e-9:
            break
        drop = others[best]
    # No choice gives a job more than it has if it is served alone, and none has a smaller spread
    # than 0.
    alone, _ = scored(1 - np.eye(len(drop)))
    highest = alone.diagonal()
    bound = objective.score(highest, weight, 0.0)
    return Admission(drop, utility[0], float(scores[0]), float(bound))

"""Which jobs of a pool are served if its replicas cannot serve all.

Queues that are too long make all jobs of a pool late. So the pool refuses some jobs until the
others meet their SLOs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
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
    """What pools of equally many jobs refuse, and how good this is."""

    drop: np.ndarray  # share of the requests that is refused, (pools, jobs of a pool)
    utility: np.ndarray  # expected utility of each job, with the penalty if the objective has one
    value: np.ndarray  # the objective at these utilities, (pools,)
    bound: np.ndarray  # upper bound on the value of any choice of the levels; `value` if exact


def admit(
    loads: np.ndarray,
    replicas: np.ndarray,
    curves: Curves,
    weight: np.ndarray,
    objective: Objective,
    *,
    gamma: float | None = None,
    alpha: float = 1.0,
) -> Admission:
    """The best shares to refuse for sampled loads (pools, jobs, paths) in erlangs.

    A job is served or refused whole; with a penalty for drops, also in part (PENALTY_LEVELS). All
    combinations are compared if there are at most MOST_CHOICES. Otherwise, the jobs are ordered by
    load per weight, and the best prefix is served; it is then improved by single changes. Of equal
    choices, the one that refuses less load is taken.

    `replicas` (pools,) and `weight` (pools, jobs) are the pools', and `curves` has the jobs pool by
    pool.
    """
    from faro_lib.sharing import _admission_kernels as kernels

    pools, jobs, _ = loads.shape
    of_job = curves.of_job.reshape(pools, jobs)
    levels: Sequence[float] = (0.0, 1.0)
    if objective.effective and len(PENALTY_LEVELS) ** jobs <= MOST_CHOICES:
        levels = PENALTY_LEVELS

    def scored(drops: np.ndarray, some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Utilities (pools, choices, jobs) and scores (pools, choices) of drops (choices, jobs)."""
        arrays = of_job[some], curves.first, curves.last, curves.value
        utility = kernels.choice_utilities(
            1 - drops, loads[some], *arrays, float(alpha), replicas[some]
        )
        if objective.effective:
            utility = utility * relaxed_drop_penalty(drops)
        return utility, objective.score(utility, weight[some, None], gamma)

    drop = np.zeros((pools, jobs))
    utility, scores = scored(drop[:1], np.arange(pools))
    utility, value = utility[:, 0], scores[:, 0]
    bound = value.copy()
    # If all jobs of a pool meet their SLOs, no choice is better.
    short = np.flatnonzero(utility.min(axis=1) < 1)
    choices = len(levels) ** jobs
    if choices > MOST_CHOICES:
        for pool in short:
            one = partial(scored, some=np.array([pool]))
            found = _searched(one, objective, loads[pool], weight[pool])
            drop[pool], utility[pool], value[pool], bound[pool] = found
        return Admission(drop, utility, value, bound)
    drops = np.array(list(product(levels, repeat=jobs)))
    at_once = MOST_CHOICES // choices  # bounds the memory
    for begin in range(0, len(short), at_once):
        some = short[begin : begin + at_once]
        of_choice, scores = scored(drops, some)
        best = _best(objective, of_choice, scores, drops, loads[some])
        at = np.arange(len(some)), best
        drop[some], utility[some] = drops[best], of_choice[at]
        value[some] = bound[some] = scores[at]
    return Admission(drop, utility, value, bound)


def _best(
    objective: Objective,
    utility: np.ndarray,
    scores: np.ndarray,
    drops: np.ndarray,
    loads: np.ndarray,
) -> np.ndarray:
    """The best choice of each pool; for leximin, the least utilities are compared one by one."""
    refused = np.array([drops @ of_pool for of_pool in loads.mean(axis=2)])
    keys = refused, -np.round(scores, 9)
    if objective.leximin:
        ascending = np.round(np.sort(utility, axis=2), 9)
        keys = (refused, *(-np.moveaxis(ascending, 2, 0)[::-1]))
    return np.lexsort(keys, axis=-1)[:, 0]


def _prefixes(loads: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Drop rates (jobs + 1, jobs) that serve 0, 1, ... jobs with the least load per weight."""
    per_weight = loads.mean(axis=1) / np.maximum(weight, 1e-9)
    rank = per_weight.argsort(kind="stable").argsort(kind="stable")
    counts = np.arange(len(weight) + 1)
    return (rank >= counts[:, None]).astype(float)


def _searched(scored, objective, loads, weight):
    """Drop rates of one pool, the jobs' utilities, their score, and its bound.

    The best prefix is improved: one more job is served or refused, or two are exchanged, as long as
    the score grows.
    """
    prefixes = _prefixes(loads, weight)
    best = _best(objective, *scored(prefixes), prefixes, loads[None])
    drop = prefixes[best[0]]
    while True:
        (utility,), (scores,) = scored(drop[None, :])
        flipped = np.repeat(drop[None, :], len(drop), axis=0)
        np.fill_diagonal(flipped, 1 - drop)
        served, refused = np.flatnonzero(drop == 0), np.flatnonzero(drop > 0)
        exchanged = np.repeat(drop[None, :], len(served) * len(refused), axis=0)
        pairs = np.array([(a, b) for a in served for b in refused], int).reshape(-1, 2)
        rows = np.arange(len(pairs))
        exchanged[rows, pairs[:, 0]] = 1.0
        exchanged[rows, pairs[:, 1]] = 0.0
        others = np.concatenate([flipped, exchanged])
        _, (other_scores,) = scored(others)
        best = int(other_scores.argmax())
        if other_scores[best] <= scores[0] + 1e-9:
            break
        drop = others[best]
    # No choice gives a job more than it has if it is served alone, and none has a smaller spread
    # than 0.
    (alone,), _ = scored(1 - np.eye(len(drop)))
    bound = objective.score(alone.diagonal(), weight, 0.0)
    return drop, utility[0], scores[0], bound

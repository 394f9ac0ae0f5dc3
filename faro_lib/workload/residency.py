"""How the replicas of a pool come to hold the models of a wished placement, one step at a time.

Each replica follows one row of the placement, chosen so that few models must be loaded. It loads
one model at a time and serves meanwhile what it holds. It drops a model only after the load if
memory holds both, and never the last copy of a model that the placement has. The simulator and the
replicas of a pool on Ray Serve follow these rules.

Jobs are the pool's, in the order of `Pool.jobs`.
"""

from dataclasses import dataclass, replace

import numpy as np

from faro_lib.workload.pools import Pool

MODEL_S = 1e-3  # a model counts for this long beside its time to load, which may be 0
MOVE_S = 1e-6  # a move counts for this long, so that it only decides between equal loads


@dataclass(frozen=True, slots=True)
class ModelChange:
    """What a replica should do now: drop these models, then load one (None: no load)."""

    drop: tuple[int, ...] = ()
    load: int | None = None


def rows_to_follow(
    holds: np.ndarray, left_s: np.ndarray, wished: np.ndarray, moves: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(replicas, rows): which replica follows which row, those with the least to load in all.

    If there are fewer rows than replicas, some replicas follow none, and the other way round.

    holds : models in each replica, bool (replicas, jobs).
    left_s : seconds until each replica would have loaded each model, (replicas, jobs).
    wished : models of each row, bool (rows, jobs).
    moves : how much a replica changes by following a row, (replicas, rows); the less of equal
        loads.
    """
    from scipy.optimize import linear_sum_assignment

    missing = ~holds[:, None, :] & wished  # (replicas, rows, jobs)
    cost = (missing * (left_s[:, None, :] + MODEL_S)).sum(axis=2) + MOVE_S * moves
    return linear_sum_assignment(cost)


def next_change(
    pool: Pool,
    replica: int,
    holds: np.ndarray,
    row: int,
    home: int,
    wished: np.ndarray,
    failed: np.ndarray | None = None,
) -> ModelChange:
    """What a replica that loads nothing should do next to hold the models of its row.

    replica, row : indices of the replica in `holds` and of its row in `wished`.
    holds, wished : as in `rows_to_follow`.
    home : the model that is loaded first.
    failed : models that this replica could not load lately, bool (jobs,); None: none.
    """
    own, target = holds[replica], wished[row]
    copies, anywhere = holds.sum(axis=0), wished.any(axis=0)
    surplus = np.flatnonzero(own & ~target & ~(anywhere & (copies < 2))).tolist()
    missing = target & ~own
    if not missing.any():
        return ModelChange(drop=tuple(surplus))
    possible = missing if failed is None else missing & ~failed
    if failed is not None and not possible.any() and not own.any():
        # Rather any model of the pool than none, the one with the fewest copies.
        others = anywhere & ~failed
        possible = others & (copies == copies[others].min(initial=len(holds)))
    if not possible.any():
        return ModelChange()  # it keeps what it holds until the load is tried again
    load = home if possible[home] else int(possible.argmax())
    # One model more than a replica may hold later.
    room = replace(pool, models=pool.models + 1)
    during = own.copy()
    during[load] = True
    gone: list[int] = []
    while not room.holds(during) and surplus:
        gone.append(surplus.pop(0))
        during[gone[-1]] = False
    return ModelChange(tuple(gone), load) if room.holds(during) else ModelChange()

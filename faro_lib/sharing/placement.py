"""Which models the replicas of a pool hold, so that every set of its jobs has enough replicas.

A placement carries a load if every set of jobs has at most as much load as there are replicas that
hold a model of the set (Hall's condition; a maximum flow from jobs to replicas reaches all load).
Replicas that hold few models, in a chain, carry almost every load that fully shared ones carry
(Jordan and Graves, Management Science 1995).
"""

import numpy as np

from faro_lib.workload.pools import Placement, Pool, chained

MOST_JOBS = 12  # in larger pools, replicas hold a chain of models, because sets are too many
# A set of jobs with load L (erlangs) needs L + SPARE sqrt(L) replicas (Halfin and Whitt, 1981).
SPARE = 1.0
PATHS = 16  # sample paths of the load that the search uses
LEAST_GAIN = 0.01  # smallest reduction of the pressure for which a model is loaded
ROUNDS = 8  # models that one decision exchanges at most
# A home moves if its old job's surplus and its new job's deficit add up to this many replicas.
HOME_MOVES = 1.5


def place(
    pool: Pool,
    replicas: int,
    loads: np.ndarray,
    minimum: np.ndarray,
    current: Placement | None = None,
) -> Placement:
    """A placement of `replicas` for sampled loads (paths, jobs) in erlangs, near the current one.

    Homes follow the mean loads. Each job has at least `minimum` (jobs,) replicas at home with it.
    The pressure of a set of jobs is the number of replicas that it needs, divided by the number of
    replicas that hold one of its models. A model is loaded where this reduces the pressure of the
    worst set, on average over the paths, by more than LEAST_GAIN. A pool of more than MOST_JOBS
    jobs gets a chain.
    """
    loads = np.asarray(loads, float)
    before = None if current is None else current.replicas
    homes = near_shares(loads.mean(axis=0), replicas, minimum, before)
    if current is None or len(pool.jobs) > MOST_JOBS:
        placement = chained(pool, homes)
    else:
        placement = current.resized(homes)
    if len(pool.jobs) > MOST_JOBS or pool.models >= len(pool.jobs):
        return placement
    from faro_lib.sharing import _placement_kernels as kernels

    masks = _masks(placement)
    step = max(1, len(loads) // PATHS)
    loads_of = kernels.subset_loads(loads[::step])
    needs_of = loads_of + SPARE * np.sqrt(loads_of)
    memory = np.array(pool.memory_of)
    rules = pool.models, memory, pool.memory_gib, LEAST_GAIN, ROUNDS
    kernels.improve(masks, placement.home, len(pool.jobs), needs_of, *rules)
    resident = (masks[:, None] >> np.arange(len(pool.jobs))) & 1 > 0
    return Placement(placement.home, resident)


def near_shares(
    load: np.ndarray, replicas: int, minimum: np.ndarray, before: np.ndarray | None = None
) -> np.ndarray:
    """Replicas at home with each job, (jobs,), in proportion to the loads and near those before.

    They sum to `replicas` and are at least `minimum` (jobs,).

    >>> near_shares(np.array([6.0, 2.0]), 8, np.array([1, 1])).tolist()
    [6, 2]
    >>> near_shares(np.array([5.5, 2.5]), 8, np.array([1, 1]), np.array([6, 2])).tolist()
    [6, 2]
    """
    minimum = np.asarray(minimum, np.int64)
    total = load.sum()
    share = load / total * replicas if total > 0 else np.full(len(load), replicas / len(load))
    if before is None:
        homes = np.maximum(np.floor(share).astype(np.int64), minimum)
    else:
        homes = np.maximum(np.asarray(before, np.int64), minimum)
    for _ in range(abs(int(replicas - homes.sum()))):
        homes = (
            _one_more(homes, share) if homes.sum() < replicas else _one_less(homes, share, minimum)
        )
    while True:
        over = np.where(homes > minimum, homes - share, -np.inf)
        under = share - homes
        most, least = int(over.argmax()), int(under.argmax())
        if over[most] + under[least] < HOME_MOVES:
            return homes
        homes[most] -= 1
        homes[least] += 1


def _one_more(homes: np.ndarray, share: np.ndarray) -> np.ndarray:
    homes = homes.copy()
    homes[int((share - homes).argmax())] += 1
    return homes


def _one_less(homes: np.ndarray, share: np.ndarray, minimum: np.ndarray) -> np.ndarray:
    homes = homes.copy()
    surplus = np.where(homes > minimum, homes - share, -np.inf)
    homes[int(surplus.argmax())] -= 1
    return homes


def _masks(placement: Placement) -> np.ndarray:
    """The models of each replica as a bit mask, (replicas,)."""
    return (placement.resident << np.arange(placement.resident.shape[1])).sum(axis=1)

"""What pools decide after the capacity is divided: refused jobs, and the models of replicas."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from faro_lib.allocate import Objective
from faro_lib.protocol import Observation, Plan
from faro_lib.queueing import LatencyModel
from faro_lib.sharing.admission import admit
from faro_lib.sharing.placement import place
from faro_lib.sharing.units import units_of
from faro_lib.workload import Job, Placement, arrays_of, pools_of

APlan = TypeVar("APlan", bound=Plan)


def refused(
    jobs: tuple[Job, ...],
    rates_rps: np.ndarray,
    replicas: np.ndarray,
    drop: np.ndarray,
    objective: Objective,
    gamma: float,
    latency_model: LatencyModel,
) -> np.ndarray:
    """`drop` (jobs,), with the share of requests that pools refuse of each of their jobs.

    `rates_rps` (jobs,) are the mean rates of the coming minute, and `replicas` (units,) serve then.
    """
    units, drop = units_of(jobs), drop.copy()
    of_pools = replicas[len(units.alone) :]
    sizes = np.array([len(pool.jobs) for pool in units.pools])
    for size in np.unique(sizes):  # pools of equally many jobs are decided together
        (same,) = np.nonzero(sizes == size)
        members = np.array([units.pools[n].jobs for n in same])
        in_order = tuple(jobs[j] for j in members.ravel())
        arrays, serving = arrays_of(in_order), of_pools[same]
        drop[members] = admit(
            (rates_rps[members] * arrays.busy_s.reshape(members.shape))[:, :, None],
            serving,
            latency_model.curves(in_order, "relaxed", 1.0, int(serving.max())),
            arrays.weight.reshape(members.shape),
            objective,
            gamma=gamma,
        ).drop
    return drop


def placed(
    jobs: tuple[Job, ...], served: np.ndarray, replicas: np.ndarray, observation: Observation
) -> tuple[np.ndarray, Mapping[str, Placement]]:
    """(replicas at home with each job, which models the replicas of each pool should hold).

    `served` (jobs, samples) are loads of the coming minute in erlangs, and `replicas` is (units,).
    """
    units, minimum = units_of(jobs), arrays_of(jobs).min_replicas
    target, placement = units.spread(replicas), {}
    for pool, count in zip(units.pools, replicas[len(units.alone) :].tolist()):
        members = list(pool.jobs)
        current = (observation.placement or {}).get(pool.name)
        decided = place(pool, count, served[members].T, minimum[members], current)
        target[members] = decided.replicas
        placement[pool.name] = decided
    return target, placement


def without_held_pools(jobs: Sequence[Job], plan: APlan, held: np.ndarray) -> APlan:
    """The plan without placements of pools with a job in the mask `held`.

    The replicas of such a pool keep their models, because the job shares them.
    """
    if not plan.placement or not held.any():
        return plan
    kept = {pool.name for pool in pools_of(jobs) if held[list(pool.jobs)].any()}
    free = {name: one for name, one in plan.placement.items() if name not in kept}
    return replace(plan, placement=free or None)

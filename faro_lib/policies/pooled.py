"""What each job gets once the capacity is divided.

Pools then decide which of their jobs they refuse, and which models their replicas hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from faro_lib.allocate import Objective
from faro_lib.protocol import Observation, Plan
from faro_lib.queueing import LatencyModel
from faro_lib.sharing.admission import admit
from faro_lib.sharing.placement import place
from faro_lib.sharing.units import units_of
from faro_lib.workload import Job, Placement, arrays_of, pools_of
from faro_lib.workload.jobs import MINUTE_S

APlan = TypeVar("APlan", bound=Plan)


class Share(NamedTuple):
    """What each job gets of the replicas of its unit; arrays are (jobs,)."""

    target: np.ndarray  # replicas
    drop: np.ndarray  # share of the requests that are dropped
    rates_rps: np.ndarray  # requests per second that would load the replicas as those served do
    placement: Mapping[str, Placement] | None = None


def shares_alone(
    jobs: tuple[Job, ...],
    paths_rps: np.ndarray,
    replicas: np.ndarray,
    drop: np.ndarray,
    *rest: Any,
) -> Share:
    """The `Share` of each job if no jobs share replicas: what the solver has allocated to it.

    The arguments are those of `shares_of_pools`.
    """
    units = units_of(jobs)
    target, drop = units.spread(replicas), units.spread(drop)
    return Share(target, drop, paths_rps.mean(axis=(1, 2)) * (1 - drop))


def shares_of_pools(
    jobs: tuple[Job, ...],
    paths_rps: np.ndarray,
    replicas: np.ndarray,
    drop: np.ndarray,
    observation: Observation,
    objective: Objective,
    gamma: float,
    latency_model: LatencyModel,
) -> Share:
    """The `Share` of each job if some jobs share replicas, which decide after the solver.

    `paths_rps` are sample paths of the load, (jobs, samples, minutes). `replicas` and `drop`
    (units,) are what the solver has allocated.
    """
    units = units_of(jobs)
    busy_s = np.array([latency_model.busy_s(job) for job in jobs])
    # What pools decide holds for a minute: the one that has just begun, or the next one.
    begun_s = observation.now_s - MINUTE_S * observation.minute
    minute = 0 if begun_s < MINUTE_S / 2 else min(1, paths_rps.shape[2] - 1)
    coming_rps = paths_rps[:, :, minute]
    serving = np.minimum(replicas, units.sums(observation.running)).astype(np.int64)
    rates_rps, drop = coming_rps.mean(axis=1), units.spread(drop)
    drop = refused(jobs, rates_rps, serving, drop, objective, gamma, latency_model)
    served = coming_rps * (busy_s * (1 - drop))[:, None]
    target, placement = placed(jobs, served, replicas, observation)
    # A job of a pool has the latency at the whole load of the pool.
    served_rps = paths_rps.mean(axis=(1, 2)) * (1 - drop)
    return Share(target, drop, units.spread(units.sums(served_rps * busy_s)) / busy_s, placement)


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
        weight, serving = arrays_of(in_order).weight, of_pools[same]
        busy_s = np.array([latency_model.busy_s(job) for job in in_order])
        drop[members] = admit(
            (rates_rps[members] * busy_s.reshape(members.shape))[:, :, None],
            serving,
            latency_model.curves(in_order, "relaxed", 1.0, int(serving.max())),
            weight.reshape(members.shape),
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

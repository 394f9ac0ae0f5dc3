"""Rules for the floors of HPAs (their minReplicas), between two plans and for orders."""

from dataclasses import replace

import numpy as np

from faro_lib.control.guardrails import Guard
from faro_lib.control.limits import Known, Wanted
from faro_lib.protocol import MISSING
from faro_ops.operate.limits.bounds import KEEP_FLOOR
from faro_ops.protocol import LiveObservation, live_observation, live_plan


def old_floors(wanted: Wanted, known: Known) -> Wanted:
    """A job whose data is missing, or that another client changes, gets no new floor."""
    plan = live_plan(wanted.plan)
    if plan.floor is None:
        return wanted
    age_s = known.observation.now_s - known.guard.known_s
    stale = (age_s > known.config.stale_after_s) | (np.array(plan.reason) == MISSING)
    kept = (stale & ~known.left) | known.contested
    return replace(wanted, plan=replace(plan, floor=np.where(kept, KEEP_FLOOR, plan.floor)))


def ordered_floors(wanted: Wanted, known: Known) -> Wanted:
    """The HPA of a job with an order gets the target as minReplicas, too.

    Between two plans, there are no new floors, and without authority, HPAs get their original
    bounds back. Neither applies to what an operator orders.
    """
    observation = live_observation(known.observation)
    ordered = known.ordered & observation.exists & ~known.contested
    if observation.unbounded is None or not ordered.any():
        return wanted
    plan, target = live_plan(wanted.plan), wanted.target
    floor = np.full(len(target), KEEP_FLOOR) if plan.floor is None else plan.floor
    return replace(wanted, plan=replace(plan, floor=np.where(ordered, target, floor)))


def without_unbounded(guard: Guard, observation: LiveObservation) -> Guard:
    """The guard without requests for jobs whose HPA has its original bounds.

    Nothing that the HPA does to such a job contradicts a request of Faro.
    """
    if observation.unbounded is None or guard.target is None or guard.drop is None:
        return guard
    target = np.where(observation.unbounded, observation.target, guard.target)
    drop = np.where(observation.unbounded, observation.drop, guard.drop)
    return replace(guard, target=target, drop=drop)

"""Placement: limit the targets to the replicas that fit on individual nodes."""

from dataclasses import replace

import numpy as np

from faro_lib.control.limits import Known, Wanted, with_reason
from faro_lib.workload.jobs import TOLERANCE
from faro_ops.operate.limits.kept import kept_by_others
from faro_ops.protocol import FRAGMENTED, live_observation


def nodes(wanted: Wanted, known: Known) -> Wanted:
    """The targets fit on the nodes; a job reduced for that gets the reason FRAGMENTED.

    No job is reduced below its minimum. Jobs that another client or an autoscaler scales keep their
    targets. Without data per node, nothing is reduced.
    """
    observation, jobs, target = live_observation(known.observation), known.arrays, wanted.target
    if observation.free_cores is None or observation.placed is None:
        return wanted
    fitting = placeable(target, jobs.cores, observation.placed, observation.free_cores)
    fitting = np.minimum(target, np.maximum(fitting, jobs.min_replicas))
    kept = kept_by_others(known)
    if observation.unbounded is not None:
        kept = kept | observation.unbounded
    fitting = np.where(kept, target, fitting)
    reason = with_reason(wanted.plan.reason, fitting < target, FRAGMENTED)
    return replace(wanted, plan=replace(wanted.plan, reason=reason), target=fitting)


def placeable(
    target: np.ndarray, cores: np.ndarray, placed: np.ndarray, free: np.ndarray
) -> np.ndarray:
    """How many of the `target` replicas of each job fit on the nodes, int (jobs,).

    `cores` (jobs,) is per replica. `placed` (jobs, nodes) counts the running replicas, which do not
    move. `free` (nodes,) holds free cores. A shrinking job removes replicas from the nodes that
    have the most of them. Each new replica starts on the node with the most free cores, as with the
    default scheduler of Kubernetes. The jobs with the most cores per replica are placed first.

    >>> target, cores = np.array([3]), np.array([2.0])
    >>> placeable(target, cores, np.array([[0, 0]]), np.array([3.0, 3.0])).tolist()
    [2]
    """
    free, fitting = free.astype(float), target.copy()
    more = target - placed.sum(axis=1)
    for job in np.flatnonzero(more < 0):
        here = placed[job].copy()
        for _ in range(-more[job]):
            node = int(np.argmax(here))
            here[node] -= 1
            free[node] += cores[job]
    for job in np.argsort(-cores, kind="stable"):
        for count in range(max(0, more[job])):
            if free.max(initial=-np.inf) < cores[job] - TOLERANCE:
                fitting[job] = target[job] - (more[job] - count)
                break
            free[np.argmax(free)] -= cores[job]
    return fitting

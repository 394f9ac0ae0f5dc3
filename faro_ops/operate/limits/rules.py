"""The rules of a live loop, in their order."""

from dataclasses import replace

from faro_lib.control.limits import LIMITS, Limit
from faro_lib.workload import Job
from faro_ops.operate.limits.brake import Brake, Falls, minima
from faro_ops.operate.limits.floors import old_floors, ordered_floors
from faro_ops.operate.limits.held import held_pools
from faro_ops.operate.limits.placement import nodes
from faro_ops.protocol import LiveGuardrails


def live_limits(
    config: LiveGuardrails, jobs: tuple[Job, ...], replicas: Falls, floors: Falls
) -> tuple[Limit, ...]:
    """The rules of a live loop: those of the library, then what nodes, HPAs and the brake limit.

    The library's rules see an order as the bounds of its job, the others the bounds of `jobs`.
    replicas, floors : what was removed within the last minute.
    """
    share = config.max_scale_down
    if share is None:
        live_rules: tuple[Limit, ...] = (old_floors, nodes, held_pools, ordered_floors)
    else:
        brake = Brake(share, replicas, floors)
        live_rules = (
            old_floors,
            minima,
            brake.slow_down,
            nodes,
            brake.slow_down,  # again: replicas that fit on no node may have been removed
            brake.slow_floors,
            held_pools,
            ordered_floors,
        )
    return (*LIMITS, *(for_jobs(jobs, rule) for rule in live_rules))


def for_jobs(jobs: tuple[Job, ...], rule: Limit) -> Limit:
    """The rule with the bounds of these jobs."""
    return lambda wanted, known: rule(wanted, replace(known, jobs=jobs))

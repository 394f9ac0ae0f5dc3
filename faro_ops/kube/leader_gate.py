"""A cluster whose capacity follows Kubernetes, and which only the leader scales.

If the lease is lost to another controller, `apply` raises LostLease, which ends the process. If the
lease merely could not be renewed, `apply` changes nothing, and the next tick tries again.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np

from faro_lib.protocol import Cluster, Observation
from faro_ops.controller.scaling import MayAct
from faro_ops.kube.capacity import EPSILON, Capacity
from faro_ops.kube.lease import NOBODY, Leadership

LOG = logging.getLogger(__name__)
# Assumed duration of an API call in `apply`. A call starts only if the leadership lasts that long.
ACT_S = 2.0


class LostLease(SystemExit):
    """Another controller has become the leader.

    This process exits, and Kubernetes restarts it as a candidate.
    """


class InterruptibleCluster(Cluster, Protocol):
    """A cluster whose `apply` sends several API calls, and checks `may_act` before each."""

    def apply(self, target: np.ndarray, drop: np.ndarray, may_act: MayAct = ...) -> None: ...


class LeaderGatedCluster:
    """The cluster `inner` with its capacity measured in Kubernetes, scaled only by the leader.

    capacity : returns the current capacity; None: use that of `inner`.
    leadership : this controller's state in the leader election; None: no election, every plan is
        applied.
    diagnose : called if the cluster cannot be observed; raises ValueError with the reason if it
        finds one.
    """

    def __init__(
        self,
        inner: InterruptibleCluster,
        capacity: Callable[[], Capacity] | None = None,
        leadership: Leadership | None = None,
        diagnose: Callable[[], None] = lambda: None,
    ):
        self.inner = inner
        self._capacity = capacity
        self._leadership = leadership
        self._diagnose = diagnose
        self.advance = inner.advance
        self.writer_of = inner.writer_of
        self.last: Capacity | None = None  # the capacity at the last observation

    def observe(self) -> Observation:
        try:
            observation = self.inner.observe()
        except OSError as error:
            try:
                self._diagnose()
            except ValueError as reason:
                raise OSError(f"{error}; {reason}") from None
            raise
        if self._capacity is None:
            return observation
        current = self._capacity()
        if self.last is None or abs(current.cores - self.last.cores) > EPSILON:
            unusable = "".join(f"; {node}: {reason}" for node, reason in current.unusable.items())
            LOG.info("capacity is %g cores, bound by %s%s", current.cores, current.bound, unusable)
        self.last = current
        return replace(
            observation,
            capacity=current.cores,
            free_cores=current.free_cores,
            placed=current.placed,
        )

    def apply(self, target: np.ndarray, drop: np.ndarray, **floor: np.ndarray) -> None:
        """Apply the plan if this controller is the leader.

        floor : minReplicas (jobs,), given if Faro sets the bounds of HPAs.

        Raises LostLease if another controller holds the lease, and OSError if the lease merely
        could not be renewed.
        """
        lease = self._leadership
        apply: Callable[..., None] = self.inner.apply
        if lease is None:  # no leader election
            apply(target, drop, lambda: True, **floor)
        elif lease.is_leader(ACT_S):
            # Asked again before each call, because the lease may expire between the calls.
            apply(target, drop, lambda: lease.is_leader(ACT_S), **floor)
        elif lease.holder not in ("", NOBODY, lease.candidate.identity):
            raise LostLease(f"lease {lease.name} is held by {lease.holder}")
        else:
            raise OSError(f"lease {lease.name} could not be renewed; this tick changes nothing")

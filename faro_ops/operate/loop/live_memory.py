"""What a live loop remembers between ticks beyond the library's memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from faro_lib.control import Memory
from faro_ops.operate.limits.brake import Falls
from faro_ops.operate.loop.late_counts import Folded
from faro_ops.protocol import LiveObservation


@dataclass(frozen=True, slots=True)
class LiveMemory(Memory):
    """The state of a live loop between ticks."""

    replicas: Falls = field(default_factory=Falls)
    floors: Falls = field(default_factory=Falls)  # of minReplicas, if Faro sets bounds of HPAs
    folded: Folded = field(default_factory=Folded)  # the minutes that the forecaster saw last
    # Int (jobs,), each job's last known `LiveObservation.revision`; None: none is known.
    revision: np.ndarray | None = None

    @classmethod
    def of(cls, memory: Memory) -> "LiveMemory":
        """`memory` as a LiveMemory, without any removal if it is not one."""
        if isinstance(memory, cls):
            return memory
        return cls(memory.state, memory.pending, memory.guard)

    def having_observed(self, observation: LiveObservation) -> Self:
        """This memory after an observation.

        Without a last request, as in a dry run, Faro has removed nothing.
        """
        requested = self.guard.target is not None
        scaled = observation.exists & ~self.guard.leaves()
        bounded = scaled if observation.unbounded is None else scaled & ~observation.unbounded
        replicas = self.replicas if requested else Falls()
        now_s, exists = observation.now_s, observation.exists
        replicas = replicas.after(now_s, observation.target, bounded, exists)
        floors = self.floors if requested else Falls()
        if observation.floor is not None:
            floors = floors.after(now_s, observation.floor, scaled, exists)
        revision = self.revision
        if observation.revision is not None:
            before = 0 if revision is None else revision
            revision = np.where(observation.revision > 0, observation.revision, before)
        return replace(self, replicas=replicas, floors=floors, revision=revision)

    def not_knowing_falls(self, observation: LiveObservation) -> Self:
        """This memory, in which nothing may be removed for a minute after `observation`."""
        now_s = observation.now_s
        memory = replace(self, replicas=Falls.unknown(now_s, int(observation.target.sum())))
        if observation.floor is None:
            return memory
        return replace(memory, floors=Falls.unknown(now_s, int(observation.floor.sum())))

    def having_seen(self, observations: Sequence[LiveObservation]) -> Self:
        """This memory after earlier `observations`: what was removed then still counts.

        As much as possible may have been removed just before the first of them.
        """
        memory = self.not_knowing_falls(observations[0])
        for observation in observations:
            memory = memory.having_observed(observation)
        return memory

"""Replicas that a belief asked for go back once it no longer does.

A plan keeps a replica count that suffices, because a change has a cost and idle cores have none. So
a job whose service seemed slower for some minutes would keep what it got for them. `Raised`
remembers what each job had before its factor rose (`policies.learning`). For some minutes after
the factor has fallen again, plans stay close to that count instead of the present one.
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

RISEN = 1.15  # ratio of a factor to the usual one from which on it has risen
USUAL = 1.05  # largest ratio at which it is usual again
HALF_LIFE_MINUTES = 30.0  # after which the usual factor has moved half-way to the present one
LONGEST_MINUTES = 180  # after which a risen factor is the usual one
RETURN_MINUTES = 10  # in which replicas go back; guardrails may stretch a removal over minutes


@dataclass(frozen=True, slots=True)
class Raised:
    """What each job had before its factor rose; arrays (jobs,).

    factor : the usual factor.
    replicas : target after the last minute in which the job had the usual factor and met its SLO;
        infinite before the first.
    minutes : for how long the factor has been risen; 0 if it is not.
    left : for how many minutes plans still stay close to `replicas`.
    """

    factor: np.ndarray
    replicas: np.ndarray
    minutes: np.ndarray
    left: np.ndarray

    @classmethod
    def start(cls, jobs: int) -> Self:
        none = np.zeros(jobs)
        return cls(factor=none + 1, replicas=none + np.inf, minutes=none, left=none)

    def after(self, factor: np.ndarray, met_slo: np.ndarray, target: np.ndarray) -> Self:
        """What is remembered after a minute, from the factor that is now believed."""
        was_risen = self.minutes > 0
        is_usual = factor <= USUAL * self.factor
        falls = was_risen & is_usual
        lasts = was_risen & (self.minutes >= LONGEST_MINUTES)
        risen = np.where(was_risen, ~is_usual, factor > RISEN * self.factor) & ~lasts
        followed = self.factor * (factor / self.factor) ** (1 - 0.5 ** (1 / HALF_LIFE_MINUTES))
        left = np.where(falls, RETURN_MINUTES, np.where(risen, 0, np.maximum(self.left - 1, 0)))
        settled = ~risen & is_usual & met_slo & (left == 0)
        return replace(
            self,
            factor=np.where(lasts, factor, np.where(risen, self.factor, followed)),
            replicas=np.where(settled, target, self.replicas),
            minutes=np.where(risen, self.minutes + 1, 0),
            left=left,
        )

    def forgotten(self, jobs: np.ndarray) -> Self:
        """Without what is remembered of some jobs, bool (jobs,)."""
        none = Raised.start(len(jobs))
        kept = {
            field.name: np.where(jobs, getattr(none, field.name), getattr(self, field.name))
            for field in fields(self)
        }
        return replace(self, **kept)

    def staying_at(self, target: np.ndarray) -> np.ndarray:
        """The replicas (jobs,) to which a plan stays close if nothing is gained elsewhere."""
        return np.where(self.left > 0, np.minimum(target, self.replicas), target).astype(np.int64)

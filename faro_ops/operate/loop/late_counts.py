"""Counts that are known only after their minute was read reach the forecaster nevertheless.

A forecaster is updated once with each minute. A replica that reports late, or a metrics server that
did not answer, makes a count known, or larger, some minutes later. The loop therefore keeps the
forecaster from before the last minutes, and updates it again when one of their counts has changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Self

import numpy as np

from faro_lib.forecast import Forecaster
from faro_lib.policies.loops import MAX_MISSED
from faro_lib.protocol import HISTORY_MINUTES, Observation
from faro_lib.workload import Job
from faro_ops.operate.limits.held import loop_of, with_loop

# Smaller growth of a known count is no reason to update again: a share of it, and requests.
MIN_CHANGE, MIN_REQUESTS = 0.02, 2.0


@dataclass(frozen=True, slots=True)
class Folded:
    """The minutes with which the forecaster was updated last.

    before : the forecaster before these minutes; None: nothing is known yet.
    counts : with which it was updated, (jobs, <= HISTORY_MINUTES).
    newest : the forecaster after them.
    lost : (job, minute) of each count that became known too late, at the last observation.
    """

    before: Forecaster | None = None
    counts: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    newest: Forecaster | None = None
    lost: tuple[tuple[int, int], ...] = ()

    def amended(self, state: Any, observation: Observation) -> tuple[Any, Self]:
        """(state, folded) with the counts of `observation` for the minutes already folded.

        state : of the policy, before it has seen `observation`.
        """
        loop = loop_of(state)
        minutes = self.counts.shape[1]
        if loop is None or self.before is None or not minutes:
            return state, replace(self, lost=())
        known = counts_of(observation, loop.minute - minutes, loop.minute)
        if known.shape != self.counts.shape:  # the jobs have changed
            return state, replace(self, lost=())
        late = is_late(self.counts, known)
        if not late.any():
            return state, replace(self, lost=())
        counts = np.where(late, known, self.counts)
        if self.newest is not loop.forecaster:  # a refit has replaced it meanwhile
            first = loop.minute - minutes
            lost = tuple((int(job), first + int(n)) for job, n in np.argwhere(late))
            return state, replace(self, counts=counts, lost=lost)
        forecaster = reduce(lambda one, of_minute: one.update(of_minute), counts.T, self.before)
        after = with_loop(state, replace(loop, forecaster=forecaster))
        return after, replace(self, counts=counts, newest=forecaster, lost=())

    def followed(self, before: Any, after: Any, observation: Observation) -> Self:
        """This record after the policy has gone from the state `before` to `after`."""
        old, new = loop_of(before), loop_of(after)
        if old is None or new is None:
            return replace(self, before=None, newest=None)
        added = new.minute - old.minute
        jobs = len(observation.arrivals_per_min)
        known = replace(self, newest=new.forecaster)
        if added > MAX_MISSED:
            return replace(known, before=new.forecaster, counts=np.empty((jobs, 0)))
        if self.newest is not old.forecaster or self.before is None:
            known = replace(known, before=old.forecaster, counts=np.empty((jobs, 0)))
        if added <= 0:
            return known
        counts = np.hstack([known.counts, counts_of(observation, old.minute, new.minute)])
        excess = max(0, counts.shape[1] - HISTORY_MINUTES)
        start: Any = known.before
        start = reduce(lambda one, of_minute: one.update(of_minute), counts[:, :excess].T, start)
        return replace(known, before=start, counts=counts[:, excess:])


def counts_of(observation: Observation, first: int, last: int) -> np.ndarray:
    """Requests (jobs, last - first) in the minutes `first` to `last` - 1; NaN = not observed."""
    history = observation.arrivals_per_min
    begins = observation.minute - history.shape[1]
    counts = np.full((len(history), last - first), np.nan)
    for column, minute in enumerate(range(first, last)):
        if begins <= minute < observation.minute:
            counts[:, column] = history[:, minute - begins]
    return counts


def is_late(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Whether counts are known now that were not known before, or that were clearly smaller."""
    grows = now - before > np.maximum(MIN_CHANGE * now, MIN_REQUESTS)
    return np.isfinite(now) & (np.isnan(before) | grows)


def lost_counts(jobs: Sequence[Job], lost: Sequence[tuple[int, int]]) -> str:
    """A line that says which counts the forecaster does not learn any more."""
    job, minute = lost[0]
    more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    problem = "became known after the model was replaced; the forecast goes on without it"
    return f"the count of job {jobs[job].name!r} in minute {minute}{more} {problem}"

"""The capacity that jobs may use: a measured gain counts at once, a loss only if it lasts.

Nodes, quotas and workers come and go within seconds: a node pool is replaced, a partition makes all
nodes NotReady, a restarted Ray lists no node yet. Replicas that Faro removes meanwhile would be
missed a minute later.
"""

import math
from dataclasses import dataclass, replace
from typing import Protocol, Self

EPSILON = 1e-6  # cores; tolerance for rounding errors
SHRINK_AFTER_S = 120.0  # the capacity must stay below the cores in use this long before jobs shrink
# An older measurement is not used. In Kubernetes, this is more than two watches (informer.py).
STALE_S = 90.0
# Why the capacity that counts is not the measured one; reasons of a condition of the FaroPlan.
MEASURED = "Measured"  # it is
SHORT = "Short"  # less is left than the jobs use, but not for SHRINK_AFTER_S yet
SHRUNK = "Shrunk"  # less is left than the jobs use, and they shrink
VANISHED = "Vanished"  # nothing is left: everything holds until some capacity is back
STALE = "Stale"  # the cluster has not confirmed the measurement for STALE_S


class Measured(Protocol):
    """The cores that a cluster offers to the jobs, as last measured."""

    @property
    def cores(self) -> float:
        """NaN if they were never measured."""

    @property
    def unready(self) -> float:
        """Further cores, which count only as far as the jobs use them already."""

    @property
    def bound(self) -> str:
        """What limits the cores."""

    @property
    def age_s(self) -> float:
        """Seconds since the cluster last confirmed the measurement."""

    @property
    def outage(self) -> str:
        """The last error of the cluster; "" if it answers."""


@dataclass(frozen=True, slots=True)
class SteadyCapacity:
    """The capacity that counts, and what must be remembered until the next measurement."""

    cores: float = math.nan  # NaN: unknown; the jobs keep the cores that they use
    reason: str = MEASURED
    note: str = ""  # the reason in words; "" if MEASURED
    known: float = math.inf  # `cores` when they were last known
    short_since_s: float | None = None  # since when less is left than the jobs use; None: it is not

    def after(self, now_s: float, measured: Measured, used: float) -> Self:
        """The capacity that counts after a measurement.

        now_s : time in seconds on a clock that never jumps.
        used : cores of the jobs' current targets.

        While less is left than `used`, jobs keep `used`, but never more than counted before:
        replicas that another client requests do not add capacity.
        """
        if math.isnan(measured.cores):
            return self._unknown(STALE, f"no capacity is known yet ({measured.outage})")
        if measured.age_s > STALE_S:
            note = f"the capacity is {measured.age_s:.0f} s old ({measured.outage})"
            return self._unknown(STALE, note)
        left = measured.cores + min(max(used - measured.cores, 0.0), measured.unready)
        if left <= EPSILON < used:
            note = f"no core is left of {measured.bound}; all jobs hold until some are back"
            return self._unknown(VANISHED, note)
        if left >= used - EPSILON:
            return replace(
                self, cores=left, reason=MEASURED, note="", known=left, short_since_s=None
            )

        since_s = now_s if self.short_since_s is None else self.short_since_s
        fewer = f"{left:g} cores are left of {measured.bound}, the jobs use {used:g}"
        if now_s - since_s >= SHRINK_AFTER_S:
            cores, reason, note = left, SHRUNK, f"{fewer}; they shrink"
        else:
            cores, reason = max(left, min(used, self.known)), SHORT
            note = f"{fewer}; they shrink if this lasts {SHRINK_AFTER_S:g} s"
        return replace(
            self, cores=cores, reason=reason, note=note, known=cores, short_since_s=since_s
        )

    def _unknown(self, reason: str, note: str) -> Self:
        return replace(self, cores=math.nan, reason=reason, note=note, short_since_s=None)

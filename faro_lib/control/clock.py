"""Trace time from the wall clock: trace seconds = scale x wall seconds since the origin."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from faro_lib.workload.jobs import MINUTE_S, TOLERANCE


@dataclass(frozen=True, slots=True)
class Clock:
    """Trace time on the wall clock."""

    origin_s: int  # Unix time of trace time 0
    scale: float = 1.0  # trace seconds per wall second; a trace minute must be a whole number of wall seconds
    stop: threading.Event = field(default_factory=threading.Event)  # ends every wait

    def __post_init__(self) -> None:
        if not self.scale > 0 or abs(MINUTE_S / self.scale - round(MINUTE_S / self.scale)) > TOLERANCE:
            raise ValueError(f"scale={self.scale!r} must divide 60: 1, 2, 3, 4, 5, 6, 10, ...")

    @classmethod
    def starting_now(cls, scale: float = 1.0, stop: threading.Event | None = None, in_s: float = 0.0) -> Clock:
        """A clock whose trace time 0 is `in_s` wall seconds from now, rounded up to whole seconds."""
        return cls(int(time.time() + in_s) + 1, scale, stop or threading.Event())

    @property
    def now_s(self) -> float:
        """The current trace time."""
        return (time.time() - self.origin_s) * self.scale

    @property
    def minute_s(self) -> int:
        """Wall seconds per trace minute."""
        return round(MINUTE_S / self.scale)

    def wall_s(self, trace_s: float) -> float:
        """Unix time of a trace time."""
        return self.origin_s + trace_s / self.scale

    def wait_until(self, trace_s: float, lag_s: float = 0.0) -> None:
        """Wait until `lag_s` wall seconds after `trace_s`, or until `stop` is set."""
        self.stop.wait(max(0.0, self.wall_s(trace_s) + lag_s - time.time()))

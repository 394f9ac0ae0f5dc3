"""Wall-clock time as the time that policies see: trace seconds = scale x wall seconds since the origin."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Clock:
    """
    Attributes
    ----------
    origin_s : the wall-clock instant (seconds since 1970, a whole number) at which trace time is 0.
    scale : trace seconds in a wall second; a minute of the trace must last a whole number of wall seconds.
    stop : whoever waits wakes up when it is set.
    """

    origin_s: int
    scale: float = 1.0
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self):
        if not self.scale > 0 or abs(60 / self.scale - round(60 / self.scale)) > 1e-9:
            raise ValueError(f"scale={self.scale!r} must divide 60: 1, 2, 3, 4, 5, 6, 10, ...")

    @classmethod
    def starting_now(cls, scale: float = 1.0, stop: threading.Event | None = None, in_s: float = 0.0) -> Clock:
        return cls(int(time.time() + in_s) + 1, scale, stop or threading.Event())

    @property
    def now_s(self) -> float:
        """Trace time."""
        return (time.time() - self.origin_s) * self.scale

    @property
    def minute_s(self) -> int:
        """Wall seconds of a minute of the trace."""
        return round(60 / self.scale)

    def wall_s(self, trace_s: float) -> float:
        """The wall-clock instant of a trace time."""
        return self.origin_s + trace_s / self.scale

    def wait_until(self, trace_s: float, lag_s: float = 0.0) -> None:
        """Return `lag_s` wall seconds after that trace time, or when `stop` is set."""
        self.stop.wait(max(0.0, self.wall_s(trace_s) + lag_s - time.time()))

"""A clock for trace time: seconds since time 0 of a run, possibly faster than real time."""

import os
import select
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from faro_lib.workload.jobs import MINUTE_S, TOLERANCE

# Smaller shifts of the wall clock against the monotonic clock are adjustments by NTP, not jumps.
MIN_JUMP_S = 2.0


class StopEvent(threading.Event):
    """A threading.Event whose `set` takes no lock, so that a signal handler may call it."""

    def __init__(self) -> None:
        super().__init__()
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def set(self) -> None:
        self._flag = True
        # The pipe may be full, in which case `wait` already returns.
        with suppress(BlockingIOError):
            os.write(self._write, b".")

    def wait(self, timeout: float | None = None) -> bool:
        select.select([self._read], [], [], timeout)
        return self.is_set()

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


def wall_offset_s() -> float:
    """Unix time minus the monotonic clock's time, in seconds."""
    return time.time() - time.monotonic()


@dataclass(frozen=True, slots=True)
class Clock:
    """Measures trace time by the monotonic clock, so that jumps of the wall clock do not matter."""

    origin_s: int  # Unix time of trace time 0
    # Trace seconds per wall second; a trace minute must be a whole number of wall seconds.
    scale: float = 1.0
    stop: threading.Event = field(default_factory=threading.Event)  # ends every wait once it is set
    # `wall_offset_s()` when this clock was created.
    offset_s: float = field(default_factory=wall_offset_s)

    def __post_init__(self) -> None:
        if not self.scale > 0 or not _is_whole(MINUTE_S / self.scale):
            raise ValueError(f"scale={self.scale!r} must divide 60: 1, 2, 3, 4, 5, 6, 10, ...")

    @classmethod
    def starting_now(
        cls, scale: float = 1.0, stop: threading.Event | None = None, in_s: float = 0.0
    ) -> Self:
        """A clock whose trace time 0 is the first whole Unix second after now + `in_s`.

        `in_s` may be negative.
        """
        return cls(int(time.time() + in_s) + 1, scale, stop or threading.Event())

    @property
    def now_s(self) -> float:
        """The current trace time in seconds."""
        return (time.monotonic() + self.offset_s - self.origin_s) * self.scale

    @property
    def minute_s(self) -> int:
        """Wall seconds per trace minute."""
        return round(MINUTE_S / self.scale)

    @property
    def jump_s(self) -> int:
        """Whole seconds that the wall clock has jumped since this clock was created.

        A jump up to MIN_JUMP_S counts as 0.
        """
        jump_s = wall_offset_s() - self.offset_s
        return round(jump_s) if abs(jump_s) > MIN_JUMP_S else 0

    def wall_s(self, trace_s: float) -> float:
        """The Unix time of a trace time, including the wall clock's jump so far."""
        return self.origin_s + self.jump_s + trace_s / self.scale

    def wait_until(self, trace_s: float, lag_s: float = 0.0) -> None:
        """Wait until `lag_s` wall seconds after the trace time, or until `stop` is set."""
        self.stop.wait(max(0.0, (trace_s - self.now_s) / self.scale + lag_s))


def _is_whole(value: float) -> bool:
    return abs(value - round(value)) <= TOLERANCE

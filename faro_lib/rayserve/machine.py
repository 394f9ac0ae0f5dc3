"""How busy this machine was with what is not ours: the circumstance that a live run must be read with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

TOO_MUCH = 0.5  # processors kept busy by others that do not give way to us, on average over a run


class OtherLoad:
    """Processors that were busy with others between entering and leaving, on average.

    Parameters
    ----------
    pids : heads of our process trees, beside this process. What a process of ours that has ended used since the start
        counts as others', so the figure errs on the high side.

    Attributes
    ----------
    processors : all of them; niced : of these, by processes of lower priority, which give way to ours (ours have none).
    """

    def __init__(self, pids: Sequence[int] = ()):
        self._pids = pids
        self.processors = self.niced = 0.0

    def __enter__(self) -> OtherLoad:
        self._began = time.perf_counter()
        self._busy, self._niced, self._ours = *busy_s(), ours_s(self._pids)
        return self

    def __exit__(self, *_) -> None:
        elapsed_s = time.perf_counter() - self._began
        ours = ours_s(self._pids)
        mine = sum(spent - self._ours.get(key, 0.0) for key, spent in ours.items())
        busy, niced = busy_s()
        self.processors = max(0.0, (busy - self._busy - mine) / elapsed_s)
        self.niced = max(0.0, (niced - self._niced) / elapsed_s)


def busy_s() -> tuple[float, float]:
    """Processor seconds that the machine has spent on anything, and on processes of lower priority."""
    import psutil

    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "guest", 0.0)
    return sum(times) - idle, getattr(times, "nice", 0.0)


def ours_s(pids: Sequence[int]) -> dict[tuple[int, float], float]:
    """Processor seconds of each process in our trees, by (pid, instant of its creation)."""
    import psutil

    spent: dict[tuple[int, float], float] = {}
    for pid in (psutil.Process().pid, *pids):
        with suppress(psutil.NoSuchProcess):
            head = psutil.Process(pid)
            for one in [head, *head.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    times = one.cpu_times()
                    spent[one.pid, one.create_time()] = times.user + times.system
    return spent

"""CPU load of other programs on this machine during a live run."""

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

import psutil

from faro_ops.operate.rayserve.local import processes

# A run counts as disturbed if other programs of normal priority use more CPUs on average.
NOISY_CPUS = 0.5


class BackgroundLoad:
    """A context; `processors` is the mean number of CPUs that other programs used during it.

    `niced` is the part of `processors` used at lower priority. This process, the processes `pids`
    and all their descendants do not count as other programs, unless they end during the context.
    """

    def __init__(self, pids: Sequence[int] = ()):
        self._pids = pids
        self.processors = self.niced = 0.0

    def __enter__(self) -> Self:
        self._start_s = time.perf_counter()
        self._busy_s, self._niced_s = busy_s()
        self._ours_s = ours_s(self._pids)
        return self

    def __exit__(self, *_: object) -> None:
        elapsed_s = time.perf_counter() - self._start_s
        ours = sum(spent - self._ours_s.get(key, 0.0) for key, spent in ours_s(self._pids).items())
        busy, niced = busy_s()
        self.processors = max(0.0, (busy - self._busy_s - ours) / elapsed_s)
        self.niced = max(0.0, (niced - self._niced_s) / elapsed_s)


def busy_s() -> tuple[float, float]:
    """CPU seconds spent since boot by all processes, and by those of lower priority."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0) + getattr(times, "guest", 0.0)
    return sum(times) - idle, getattr(times, "nice", 0.0)


def ours_s(pids: Sequence[int]) -> dict[tuple[int, float], float]:
    """CPU seconds by (pid, creation time) of this process, of `pids` and of their descendants."""
    spent: dict[tuple[int, float], float] = {}
    for pid in (psutil.Process().pid, *pids):
        for process in processes(pid):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                spent[process.pid, process.create_time()] = times.user + times.system
    return spent

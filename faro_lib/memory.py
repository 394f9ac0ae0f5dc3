"""Whether what is asked for fits into the memory that is free: said before the start, not by a process that was killed."""

from __future__ import annotations

import math
from pathlib import Path

from faro_lib.errors import OUT_OF_MEMORY_ADVICE

MEMINFO = Path("/proc/meminfo")
# Limit and use of the control group that we are in: version 2, then version 1.
GROUPS = [
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
]
# Ray Serve on this machine, measured as the proportional set size of all its processes: head node, dashboard, controller,
# proxies; and a replica.
RAY_GB, REPLICA_GB = 1.8, 0.2


def free_gb() -> float:
    """What can be had without swapping, of the machine or of our control group, whichever has less; inf where unknown."""
    free = math.inf
    if MEMINFO.exists():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            free = int(lines["MemAvailable"].split()[0]) * 1024
    for limit, used in GROUPS:
        if limit.exists() and used.exists() and (most := limit.read_text().strip()).isdigit():
            free = min(free, max(0, int(most) - int(used.read_text())))
    return free / 1e9


def must_fit(what: str, needed_gb: float, instead: str = OUT_OF_MEMORY_ADVICE) -> None:
    """A ValueError where less is free; `what` begins its line, with its verb.

    >>> must_fit("a plan needs", 1e-9)
    """
    free = free_gb()
    if needed_gb > free:
        raise ValueError(f"{what} about {needed_gb:.1f} GB of memory and {free:.1f} GB are free: {instead}")


def ray_gb(replicas: int) -> float:
    """Of a Ray Serve of our own with so many replicas that hold no large model."""
    return RAY_GB + REPLICA_GB * replicas

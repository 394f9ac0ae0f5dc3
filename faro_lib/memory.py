"""Refuse work that does not fit into the free memory, before it starts."""

from __future__ import annotations

import math
from pathlib import Path

from faro_lib.errors import OUT_OF_MEMORY_ADVICE

MEMINFO = Path("/proc/meminfo")
# Limit and use of our control group: version 2, then version 1.
GROUPS = [
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
]
# Memory of Ray Serve, measured as the proportional set size of all its processes without replicas (head node, dashboard,
# controller, proxies), and of one replica with a small model.
RAY_GB, REPLICA_GB = 1.8, 0.2


def free_gb() -> float:
    """Memory that is available without swapping, of the machine or of our control group; inf where unknown."""
    free = math.inf
    if MEMINFO.exists():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else free
    for limit, used in GROUPS:
        if limit.exists() and used.exists() and (limit_bytes := limit.read_text().strip()).isdigit():
            free = min(free, max(0, int(limit_bytes) - int(used.read_text())))
    return free / 1e9


def must_fit(subject: str, needed_gb: float, advice: str = OUT_OF_MEMORY_ADVICE) -> None:
    """Raise a ValueError if less memory is free; `subject` begins its line, with a verb.

    >>> must_fit("a plan needs", 1e-9)
    """
    free = free_gb()
    if needed_gb > free:
        raise ValueError(f"{subject} about {needed_gb:.1f} GB of memory and {free:.1f} GB are free: {advice}")


def ray_gb(replicas: int) -> float:
    """Memory of a local Ray Serve with `replicas` that hold no large model."""
    return RAY_GB + REPLICA_GB * replicas

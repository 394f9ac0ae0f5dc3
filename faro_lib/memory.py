"""Check, before a run, that it fits into the free memory."""

from pathlib import Path

import psutil

from faro_lib.errors import OUT_OF_MEMORY_ADVICE

# Files with the memory limit and usage of the control group, in version 2 and version 1.
GROUPS = [
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
]
# Measured proportional set sizes: all processes of Ray Serve except replicas, and one replica with a small model.
RAY_GB, REPLICA_GB = 1.8, 0.2


def free_gb() -> float:
    """Available memory in GB, of the machine or of its control group if that is less."""
    free = float(psutil.virtual_memory().available)
    for limit, used in GROUPS:
        if limit.exists() and used.exists() and (limit_bytes := limit.read_text().strip()).isdigit():
            free = min(free, max(0, int(limit_bytes) - int(used.read_text())))
    return free / 1e9


def must_fit(subject: str, needed_gb: float, advice: str = OUT_OF_MEMORY_ADVICE) -> None:
    """Raise ValueError if less than `needed_gb` is free; `subject` begins the message ("the run needs"), `advice` ends it."""
    free = free_gb()
    if needed_gb > free:
        raise ValueError(f"{subject} about {needed_gb:.1f} GB of memory and {free:.1f} GB are free: {advice}")


def ray_gb(replicas: int) -> float:
    """Memory in GB that a local Ray Serve needs for this number of replicas of a small model."""
    return RAY_GB + REPLICA_GB * replicas

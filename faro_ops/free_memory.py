"""Check, before a run starts, that enough memory is free for it."""

from pathlib import Path

from faro_ops.errors import OUT_OF_MEMORY_ADVICE

V2 = Path("/sys/fs/cgroup")
V1 = V2 / "memory"
# Files with the memory limit and the memory usage, in bytes, of this process's control group, in
# the versions 2 and 1 of cgroup.
GROUPS = [
    (V2 / "memory.max", V2 / "memory.current"),
    (V1 / "memory.limit_in_bytes", V1 / "memory.usage_in_bytes"),
]
# Measured memory (proportional set size).
RAY_GB = 1.8  # Ray Serve without its replicas
REPLICA_GB = 0.2  # one replica with a small model


def free_gb() -> float:
    """Available memory in GB.

    It is the smaller of what the machine and this process's control group (cgroup) have left.
    """
    import psutil  # imported here, because simulations run without it

    free = float(psutil.virtual_memory().available)
    for limit, used in GROUPS:
        if not limit.exists() or not used.exists():
            continue
        limit_bytes = limit.read_text().strip()
        if limit_bytes.isdigit():  # otherwise there is no limit
            free = min(free, max(0, int(limit_bytes) - int(used.read_text())))
    return free / 1e9


def must_fit(subject: str, needed_gb: float, advice: str = OUT_OF_MEMORY_ADVICE) -> None:
    """Raise ValueError if less than `needed_gb` is free.

    subject : the start of the message, such as "the run needs".
    """
    free = free_gb()
    if needed_gb > free:
        need = f"about {needed_gb:.1f} GB of memory"
        raise ValueError(f"{subject} {need} and {free:.1f} GB are free: {advice}")


def ray_gb(replicas: int) -> float:
    """Memory in GB that Ray Serve on this machine needs with so many replicas of a small model."""
    return RAY_GB + REPLICA_GB * replicas

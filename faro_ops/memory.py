"""Check, before a run starts, that enough memory is free for it."""

from pathlib import Path

from faro_ops.errors import OUT_OF_MEMORY_ADVICE

# Files with the memory limit and the memory usage, in bytes, of this process's control group (cgroup v2, cgroup v1).
GROUPS = [
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
]
# Measured memory (proportional set size): Ray Serve without its replicas, and one replica with a small model.
RAY_GB, REPLICA_GB = 1.8, 0.2


def free_gb() -> float:
    """Available memory in GB: the smaller of what the machine and this process's control group (cgroup) have left."""
    import psutil  # imported here, because simulations run without it

    free = float(psutil.virtual_memory().available)
    for limit, used in GROUPS:
        if (
            limit.exists()
            and used.exists()
            and (limit_bytes := limit.read_text().strip()).isdigit()
        ):
            free = min(free, max(0, int(limit_bytes) - int(used.read_text())))
    return free / 1e9


def must_fit(subject: str, needed_gb: float, advice: str = OUT_OF_MEMORY_ADVICE) -> None:
    """Raise ValueError if less than `needed_gb` is free. Its message begins with `subject`, such as "the run needs"."""
    free = free_gb()
    if needed_gb > free:
        raise ValueError(
            f"{subject} about {needed_gb:.1f} GB of memory and {free:.1f} GB are free: {advice}"
        )


def ray_gb(replicas: int) -> float:
    """Memory in GB that Ray Serve on this machine needs with this number of replicas of a small model."""
    return RAY_GB + REPLICA_GB * replicas

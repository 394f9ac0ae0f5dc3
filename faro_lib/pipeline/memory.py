"""How much memory the stages take at their peak, as measured by their benchmark files, so that none begins in vain."""

from __future__ import annotations

from faro_lib.config import Config
from faro_lib.memory import must_fit, ray_gb

# A kernel that has compiled the library and measured latencies; what each minute of a job adds to a run; what each row (a
# job's minute) that a fit learns from adds in each of its chains.
KERNEL_GB, JOB_MINUTE_GB, ROW_GB = 0.75, 35e-6, 7e-6


def needed_gb(config: Config, jobs: int, days: int, minutes: int) -> dict[str, float]:
    """Stage -> gigabytes, for a workload of so many jobs, training days and minutes a day.

    >>> needed_gb(Config(backend="none"), jobs=10, days=10, minutes=360)["50_simulation"]
    0.876
    """
    day = minutes if config.minutes is None else min(config.minutes, minutes)
    found = {"50_simulation": replayed_gb(jobs * day)}
    if days >= 2:
        learnt = jobs * days * minutes / config.forecast.data_stride * config.forecast.chains
        found["30_forecasting"] = KERNEL_GB + (ROW_GB * learnt if config.forecast.posterior is None else 0.0)
        larger = min(config.scale.minutes or minutes, minutes)
        biggest = [count * larger for count, _ in config.scale.clusters]
        biggest += [count * min(60, minutes) for count, _ in config.scale.largest]
        found["70_scale"] = replayed_gb(max([jobs * day, *biggest]))
        if config.backend == "local":
            found["80_live"] = KERNEL_GB + ray_gb(config.live.replicas)
    return {stage: round(gb, 3) for stage, gb in found.items()}


def replayed_gb(job_minutes: float) -> float:
    """Of a run of the simulator: what grows is the requests, several hundred in a job's minute."""
    return KERNEL_GB + JOB_MINUTE_GB * job_minutes


LESS = {
    "30_forecasting": "lower forecast.chains, raise forecast.data_stride, or name a fitted forecast.posterior",
    "50_simulation": "shorten the day (minutes=60), or take fewer jobs",
    "70_scale": "take smaller scale.clusters and scale.largest, or [] for none",
    "80_live": "take fewer live.replicas, or backend=none",
}


def check_memory(config: Config, jobs: int, days: int, minutes: int) -> None:
    """Refuse, in one line, what this machine could not hold."""
    for stage, gb in needed_gb(config, jobs, days, minutes).items():
        must_fit(f"{stage} needs", gb, LESS[stage])

"""Estimate the peak memory of each stage, so that a run that needs too much is refused before it starts.

The constants come from the stages' benchmark files (`results/*/logs/*.bench`).
"""

from faro_lib.bayes.demand import MAX_ROWS
from faro_lib.config import Config
from faro_lib.memory import ray_gb

KERNEL_GB = 0.75  # a notebook kernel, after it has imported the library
JOB_MINUTE_GB = 35e-6  # simulation, per job and minute (several hundred requests)
ROW_GB = 7e-6  # Bayesian fit, per chain and training row (one minute of one job)
ADVICE = {
    "30_forecasting": "lower forecast.chains, or name a fitted forecast.posterior",
    "50_simulation": "shorten the day (minutes=60), or take fewer jobs",
    "70_scale": "take smaller scale.clusters and scale.largest, or [] for none",
    "80_live": "lower live.capacity, or set backend=none",
}


def needed_gb(config: Config, jobs: int, days: int, minutes: int) -> dict[str, float]:
    """Stage -> peak memory in GB, for `jobs` jobs and `days` training days of `minutes` minutes.

    >>> needed_gb(Config(backend="none"), jobs=10, days=10, minutes=360)["50_simulation"]
    0.876
    """
    job_minutes = jobs * min(config.minutes or minutes, minutes)
    needed = {"50_simulation": KERNEL_GB + JOB_MINUTE_GB * job_minutes}
    if days >= 2:
        rows = jobs * min(days * minutes, MAX_ROWS) * config.forecast.chains
        needed["30_forecasting"] = KERNEL_GB + (ROW_GB * rows if config.forecast.posterior is None else 0.0)
        larger = [count * min(config.scale.minutes or minutes, minutes) for count, _ in config.scale.clusters]
        largest = [count * min(config.scale.largest_minutes or minutes, minutes) for count, _ in config.scale.largest]
        needed["70_scale"] = KERNEL_GB + JOB_MINUTE_GB * max([job_minutes, *larger, *largest])
        if config.backend == "local":
            needed["80_live"] = KERNEL_GB + ray_gb(config.live.capacity)
    return {stage: round(gb, 3) for stage, gb in needed.items()}

"""Check a configuration before the first stage starts and before anything is written. Each error is one line."""

import errno
import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from faro_lib.bayes.demand import MAX_ROWS
from faro_lib.files import check_writable
from faro_lib.registry import load_plugins
from faro_lib.workload import PUBLISHED, SYNTHETIC, Job
from faro_ops.memory import must_fit, ray_gb
from faro_pipeline.fetch import verify
from faro_pipeline.settings import PUBLISHED_DAYS, PUBLISHED_JOBS, Config

EDITION = Path(__file__).parents[2] / "studies" / "edition"
STAGE_40 = [
    EDITION / f"{name}.py" for name in ("continuous", "reference")
]  # plugins with solvers for stage 40
PUBLISHED_SIZE = (
    PUBLISHED_JOBS,
    PUBLISHED_DAYS,
    360,
)  # jobs, training days, minutes in a day (downsampled from 1,440)
# Memory in GB, as measured in the stages' benchmark files (`results/*/logs/*.bench`).
KERNEL_GB = 0.75  # a notebook kernel, after it has imported the library
JOB_MINUTE_GB = 35e-6  # simulation, per job and minute, at several hundred requests per minute
ROW_GB = 7e-6  # Bayesian fit, per chain and training row (one minute of one job)
ADVICE = {
    "30_forecasting": "lower forecast.chains, or name a fitted forecast.posterior",
    "50_simulation": "shorten the day (minutes=60), or take fewer jobs",
    "70_scale": "take smaller scale.clusters and scale.largest, or [] for none",
    "80_live": "lower live.capacity, or set backend=none",
}


def check(config: Config, here: bool = True) -> int:
    """Check settings and files. If `here`, check the memory of this machine. Return the number of training days."""
    from faro_lib.forecast.posterior import posterior_of_jobs
    from faro_lib.policies.factories import check_none_learns
    from faro_lib.simulate.cluster import PAPER
    from faro_lib.workload.readers import read_jobs
    from faro_lib.workload.tables import load_workload

    check_names(config)
    folder = Path(config.results) / config.stem
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder))
    check_writable(folder)
    if config.workload == PUBLISHED:
        verify(PUBLISHED, config.raw)
    generated = config.synthetic
    if (
        config.workload in (SYNTHETIC, PUBLISHED)
        and generated.days
        and not config.forecast.posterior
    ):
        size = (
            PUBLISHED_SIZE
            if config.workload == PUBLISHED
            else (generated.jobs, generated.days, generated.minutes)
        )
        jobs = (
            read_jobs(config.jobs) if config.jobs else tuple(Job(f"job{n}") for n in range(size[0]))
        )
        check_sizes(config, jobs, *size[1:])
    else:
        traces = load_workload(
            config.workload, config.jobs, raw=config.raw, synthetic=generated.model_dump()
        )
        size = (len(traces.jobs), traces.days, traces.evaluation.shape[-1])
        check_sizes(config, traces.jobs, *size[1:])
        if capped := PAPER.capped(traces.jobs, traces.evaluation[0]):
            print(capped, file=sys.stderr)
        if not traces.days:
            check_none_learns(config.policies, traces.jobs, config.workload)
        if config.forecast.posterior:
            posterior_of_jobs(traces, config.forecast.posterior)
    if here:
        for stage, gb in needed_gb(config, *size).items():
            must_fit(f"{stage} needs", gb, ADVICE[stage])
    return size[1]


def check_names(config: Config) -> None:
    """Load the plugins, and raise ValueError with one line for each name in the configuration that is not registered."""
    from faro_lib.allocate import OBJECTIVES, SOLVERS
    from faro_lib.forecast.forecaster import FITS
    from faro_lib.policies import factory_of

    load_plugins([*config.plugins, *STAGE_40])
    of_policies = [f"{section}.policies" for section in ("scale", "sensitivity", "days", "live")]
    settings: list[tuple[Callable[[str], Any], Sequence[str]]] = [
        (factory_of, ("policies", "scale.largest_policies", *of_policies)),
        (OBJECTIVES.find, ("sloppify.objectives",)),
        (SOLVERS.find, ("sloppify.solvers",)),
        (FITS.find, ("forecast.baselines", "days.forecasters")),
    ]
    errors = [
        (key, _error(find, name))
        for find, keys in settings
        for key in keys
        for name in attrgetter(key)(config)
    ]
    _raise([*errors, ("forecaster", _error(FITS.find, config.forecaster))])


def check_sizes(config: Config, jobs: tuple[Job, ...], days: int, minutes: int) -> None:
    """Raise ValueError with one line per setting that does not fit the jobs, the training days or the minutes in a day."""
    from faro_lib.policies.protocol import at_least_one_each

    live, varied = config.live, config.sensitivity
    served = tuple(jobs[n] for n in live.jobs or range(3) if n < len(jobs)) or jobs[:1]
    clusters = [
        ("capacities", jobs, config.capacities),
        ("ablation.capacities", jobs, config.ablation.capacities or []),
        ("scale.mixed", jobs, config.scale.mixed or []),
        ("scale.curve", jobs, config.scale.curve),
        ("sensitivity.capacity", jobs, [varied.capacity] if varied.capacity else []),
        (
            "replicas.capacities",
            tuple(Job(job.name) for job in jobs),
            config.replicas.capacities or [],
        ),
        (
            "live.capacity",
            served,
            [live.capacity] if config.backend not in ("none", "recorded") else [],
        ),
    ]
    ranges = [
        ("live.jobs", live.jobs or [], 0, len(jobs) - 1),
        ("days.judged", config.days.judged or [], 2, days + 1),
    ]
    starts = {
        "live.first_minute": live.first_minute,
        "sensitivity.first_minute": varied.first_minute,
    }
    ranges += [(key, [first], 0, minutes - 1) for key, first in starts.items()]
    names = {
        "forecast.baselines": config.forecast.baselines,
        "days.forecasters": config.days.forecasters,
    }
    if (
        days < 2
    ):  # stages that learn do not run; check only `capacities`, and that `forecaster` needs no posterior
        clusters, ranges, names = clusters[:1], [], {"forecaster": [config.forecaster]}
    errors: list[tuple[str, Any]] = [
        (key, _error(at_least_one_each, of, min(c))) for key, of, c in clusters if c
    ]
    errors += [
        (key, f"{n} is outside {a} to {b}")
        for key, values, a, b in ranges
        for n in values
        if not a <= n <= b
    ]
    errors += [
        (key, "bayes has no fitted posterior here; name another")
        for key in names
        if "bayes" in names[key]
    ]
    _raise(errors)


def needed_gb(config: Config, jobs: int, days: int, minutes: int) -> dict[str, float]:
    """Stage -> peak memory in GB, for `jobs` jobs and `days` training days of `minutes` minutes.

    >>> needed_gb(Config(backend="none"), jobs=10, days=10, minutes=360)["50_simulation"]
    0.876
    """
    job_minutes = jobs * min(config.minutes or minutes, minutes)
    needed = {"50_simulation": KERNEL_GB + JOB_MINUTE_GB * job_minutes}
    if days >= 2:
        rows = jobs * min(days * minutes, MAX_ROWS) * config.forecast.chains
        needed["30_forecasting"] = KERNEL_GB + (
            ROW_GB * rows if config.forecast.posterior is None else 0.0
        )
        larger = [
            count * min(config.scale.minutes or minutes, minutes)
            for count, _ in config.scale.clusters
        ]
        largest = [
            count * min(config.scale.largest_minutes or minutes, minutes)
            for count, _ in config.scale.largest
        ]
        needed["70_scale"] = KERNEL_GB + JOB_MINUTE_GB * max([job_minutes, *larger, *largest])
        if config.backend == "local":
            needed["80_live"] = KERNEL_GB + ray_gb(config.live.capacity)
    return {stage: round(gb, 3) for stage, gb in needed.items()}


def _raise(errors: Sequence[tuple[str, Any]]) -> None:
    """Raise ValueError with one line for each (key, error) whose error is not None."""
    if lines := [f"config: {key}: {error}" for key, error in errors if error]:
        raise ValueError("\n".join(lines))


def _error(function: Callable[..., Any], *arguments: Any) -> ValueError | None:
    """The ValueError that `function(*arguments)` raises; None if it raises none."""
    try:
        function(*arguments)
    except ValueError as error:
        return error
    return None

"""Check a configuration before the first stage starts and before anything is written.

What is checked of a stage's settings stands in stages/<stage>.py. Each error is one line.
"""

import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from faro_lib.registry import load_plugins
from faro_lib.workload import PUBLISHED, SYNTHETIC, Job
from faro_lib.workload.replicas import Disaggregated
from faro_ops.files import check_writable
from faro_ops.free_memory import must_fit
from faro_pipeline.derived import PUBLISHED_DAYS, PUBLISHED_JOBS, stem_of
from faro_pipeline.fetch import verify
from faro_pipeline.settings import Config
from faro_pipeline.stages.section import JOB_MINUTE_GB

PUBLISHED_MINUTES = 360  # in a day of the published traces, downsampled from 1,440
# Memory of a notebook's kernel after it has imported the library. This and all other memory is as
# measured in the stages' benchmark files (`results/*/logs/*.bench`).
KERNEL_GB = 0.75


def check(config: Config, here: bool = True) -> int:
    """Check settings and files. Return the number of training days.

    If `here`, the stages run on this machine, and its memory is checked, too.
    """
    check_names(config)
    folder = Path(config.results) / stem_of(config.workload)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder))
    check_writable(folder)
    if config.workload == PUBLISHED:
        verify(PUBLISHED, config.raw)
    built_in = config.workload in (SYNTHETIC, PUBLISHED)
    if built_in and config.synthetic.days and not config.forecast.posterior:
        size = _check_without_traces(config)
    else:
        size = _check_traces(config)
    if here:
        advice = {"50_simulation": "shorten the day (minutes=60), or take fewer jobs"}
        advice |= {stage.notebook: stage.advice for stage in config.stages().values()}
        for notebook, gb in needed_gb(config, *size).items():
            must_fit(f"{notebook} needs", gb, advice[notebook])
    _, days, _ = size
    return days


def _check_without_traces(config: Config) -> tuple[int, int, int]:
    """Check the sizes of a built-in workload, whose traces need not be read or made for that.

    Return the numbers of jobs, of training days and of minutes in a day.
    """
    generated = config.synthetic
    size = (generated.jobs, generated.days, generated.minutes)
    if config.workload == PUBLISHED:
        size = (PUBLISHED_JOBS, PUBLISHED_DAYS, PUBLISHED_MINUTES)
    if config.jobs:
        from faro_lib.workload.readers import read_jobs

        jobs = read_jobs(config.jobs)
    else:
        jobs = tuple(Job(f"job{number}") for number in range(size[0]))
    check_sizes(config, jobs, *size[1:])
    return size


def _check_traces(config: Config) -> tuple[int, int, int]:
    """Read the traces, and check that the settings fit them.

    Return the numbers of jobs, of training days and of minutes in a day.
    """
    from faro_lib.forecast.posterior import posterior_of_jobs
    from faro_lib.simulate.cluster import PAPER
    from faro_lib.workload.tables import load_workload
    from faro_ops.advise.checks import check_none_learns, over_the_router

    traces = load_workload(
        config.workload, config.jobs, raw=config.raw, synthetic=config.synthetic.model_dump()
    )
    check_kinds(traces.jobs)
    minutes = traces.evaluation.shape[-1]
    check_sizes(config, traces.jobs, traces.days, minutes)
    if capped := over_the_router(PAPER, traces.jobs, traces.evaluation[0]):
        print(capped, file=sys.stderr)
    if not traces.days:
        check_none_learns(config.policies, traces.jobs, config.workload)
    if config.forecast.posterior:
        posterior_of_jobs(traces, config.forecast.posterior)
    return len(traces.jobs), traces.days, minutes


def check_kinds(jobs: Sequence[Job]) -> None:
    """Raise ValueError for a job whose kind of replica the stages do not simulate."""
    for job in jobs:
        if isinstance(job.replica, Disaggregated):
            raise ValueError(
                f"job {job.name!r}: only `faro recommend` and `faro simulate` simulate replicas of "
                f"kind {job.replica.kind}; here, take kind continuous"
            )


def check_names(config: Config) -> None:
    """Load the plugins, and raise ValueError with one line for each name that is not registered."""
    from faro_lib.allocate import OBJECTIVES, SOLVERS
    from faro_lib.forecast.forecaster import FITS
    from faro_lib.policies import factory_of

    finders: dict[str, Callable[[str], Any]] = {
        "policy": factory_of,
        "objective": OBJECTIVES.find,
        "solver": SOLVERS.find,
        "forecaster": FITS.find,
    }
    stages = config.stages()
    load_plugins(
        [*config.plugins, *(plugin for stage in stages.values() for plugin in stage.own_plugins)]
    )
    named = [("policy", "policies", config.policies), *_registered(config)]
    named.append(("forecaster", "forecaster", [config.forecaster]))
    errors = [
        (key, _error(find, name))
        for kind, find in finders.items()
        for kind_of_key, key, names in named
        if kind_of_key == kind
        for name in names
    ]
    _raise(errors)


def _registered(config: Config) -> list[tuple[str, str, list[str]]]:
    """(kind of name, setting, names) of all stages."""
    return [
        (kind, f"{section}.{key}", getattr(stage, key))
        for section, stage in config.stages().items()
        for key, kind in stage.registered.items()
    ]


def check_sizes(config: Config, jobs: tuple[Job, ...], days: int, minutes: int) -> None:
    """Raise ValueError with one line per setting that does not fit the workload.

    `days` are the training days, and `minutes` those in a day. With fewer than two training days,
    the stages that learn do not run, and their settings are not checked.
    """
    from faro_lib.workload.shares import at_least_one_each

    stages = config.stages() if days >= 2 else {}
    clusters = [("capacities", jobs, config.capacities)]
    ranges = []
    for section, stage in stages.items():
        for key, of, capacities in stage.must_hold(config, jobs):
            clusters.append((f"{section}.{key}", of, capacities))
        for key, numbers, low, high in stage.ranges(len(jobs), days, minutes):
            ranges.append((f"{section}.{key}", numbers, low, high))

    errors: list[tuple[str, Any]] = [
        (key, _error(at_least_one_each, of, min(capacities)))
        for key, of, capacities in clusters
        if capacities
    ]
    errors += [
        (key, f"{number} is outside {low} to {high}")
        for key, numbers, low, high in ranges
        for number in numbers
        if not low <= number <= high
    ]
    errors += [
        (key, "bayes has no fitted posterior here; name another")
        for key in _without_posterior(config, days)
    ]
    _raise(errors)


def _without_posterior(config: Config, days: int) -> list[str]:
    """Settings with forecaster `bayes` where no posterior is fitted."""
    if days < 2:
        return ["forecaster"] if config.forecaster == "bayes" else []
    return [
        key for kind, key, names in _registered(config) if kind == "forecaster" and "bayes" in names
    ]


def needed_gb(config: Config, jobs: int, days: int, minutes: int) -> dict[str, float]:
    """Notebook -> peak memory in GB; `days` are training days of `minutes` minutes.

    >>> needed_gb(Config(backend="none"), jobs=10, days=10, minutes=360)["50_simulation"]
    0.876
    """
    job_minutes = jobs * min(config.minutes or minutes, minutes)
    beyond_kernel: dict[str, float | None] = {"50_simulation": JOB_MINUTE_GB * job_minutes}
    if days >= 2:
        for stage in config.stages().values():
            beyond_kernel[stage.notebook] = stage.memory_gb(config, jobs, days, minutes)
    return {
        notebook: round(KERNEL_GB + gb, 3)
        for notebook, gb in beyond_kernel.items()
        if gb is not None
    }


def _raise(errors: Sequence[tuple[str, Any]]) -> None:
    """Raise ValueError with one line for each (setting, error) whose error is not None."""
    if lines := [f"config: {key}: {error}" for key, error in errors if error]:
        raise ValueError("\n".join(lines))


def _error(function: Callable[..., Any], *arguments: Any) -> ValueError | None:
    """The ValueError that `function(*arguments)` raises; None if it raises none."""
    try:
        function(*arguments)
    except ValueError as error:
        return error
    return None

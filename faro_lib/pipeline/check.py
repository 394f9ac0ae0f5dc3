"""Check a configuration before the first stage starts and before anything is written. Errors take one line each."""

import errno
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from faro_lib.config import PUBLISHED_DAYS, PUBLISHED_JOBS, Config
from faro_lib.files import check_writable
from faro_lib.pipeline.fetch import verify
from faro_lib.pipeline.memory_estimate import check_memory
from faro_lib.registry import load_plugins
from faro_lib.workload import PUBLISHED, SYNTHETIC, Job

EDITION = Path(__file__).parents[2] / "notebooks" / "edition"
STAGE_40 = [EDITION / f"{name}.py" for name in ("continuous", "reference")]  # register solvers that stage 40 compares
PUBLISHED_SIZE = (PUBLISHED_JOBS, PUBLISHED_DAYS, 360)  # jobs, training days, minutes in a day


def check(config: Config, here: bool = True) -> int:
    """Check names, files and, if stages run on this machine (`here`), memory; return the number of training days."""
    from faro_lib.forecast.posterior import posterior_of_jobs
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
    if config.workload in (SYNTHETIC, PUBLISHED) and generated.days and not config.forecast.posterior:
        if config.jobs:
            _check_minimum(read_jobs(config.jobs), config)
        sizes = {SYNTHETIC: (generated.jobs, generated.days, generated.minutes), PUBLISHED: PUBLISHED_SIZE}
        size = sizes[config.workload]
    else:
        traces = load_workload(config.workload, config.jobs, raw=config.raw, synthetic=generated.model_dump())
        _check_minimum(traces.jobs, config)
        if capped := PAPER.capped(traces.jobs, traces.evaluation[0]):
            print(capped, file=sys.stderr)
        if not traces.days:
            check_none_learns(config, traces.jobs)
        if config.forecast.posterior:
            posterior_of_jobs(traces, config.forecast.posterior)
        size = (len(traces.jobs), traces.days, traces.evaluation.shape[-1])
    if here:
        check_memory(config, *size)
    return size[1]


def check_names(config: Config) -> None:
    """Load the plugins and raise ValueError for unregistered names, one line each."""
    from faro_lib.allocate import OBJECTIVES, SOLVERS
    from faro_lib.forecast.forecaster import FITS
    from faro_lib.policies import factory_of

    load_plugins([*config.plugins, *STAGE_40])
    names: Mapping[str, tuple[Callable[[str], Any], Sequence[str]]] = {
        "policies": (factory_of, config.policies),
        "scale.policies": (factory_of, config.scale.policies),
        "scale.largest_policies": (factory_of, config.scale.largest_policies),
        "sensitivity.policies": (factory_of, config.sensitivity.policies),
        "days.policies": (factory_of, config.days.policies),
        "live.policies": (factory_of, config.live.policies),
        "sloppify.objectives": (OBJECTIVES.find, config.sloppify.objectives),
        "sloppify.solvers": (SOLVERS.find, config.sloppify.solvers),
        "forecast.baselines": (FITS.find, config.forecast.baselines),
        "days.forecasters": (FITS.find, config.days.forecasters),
        "forecaster": (FITS.find, [config.forecaster]),
    }
    errors = [(key, _error(find, name)) for key, (find, values) in names.items() for name in values]
    lines = [f"config: {key}: {error}" for key, error in errors if error]
    if lines:
        raise ValueError("\n".join(lines))


def _error(function: Callable[[str], Any], name: str) -> ValueError | None:
    """The ValueError that `function(name)` raises, or None."""
    try:
        function(name)
    except ValueError as error:
        return error
    return None


def learners(policies: Sequence[str], jobs: Sequence[Job]) -> list[str]:
    """The policies that need a forecaster: those that cannot be made from a context without one."""
    from faro_lib.policies import PolicyContext, make

    context = PolicyContext(tuple(jobs))
    return [policy for policy in policies if _error(lambda name: make(name, context), policy)]


def check_none_learns(config: Config, jobs: Sequence[Job]) -> None:
    """Raise ValueError if a policy needs a forecaster; called for a workload without training days."""
    learning = learners(config.policies, jobs)
    if learning:
        others = [name for name in config.policies if name not in learning] or ["FairShare"]
        raise ValueError(
            f"{config.workload}: {learning[0]} learns from earlier days, and there is a single day; add days (column "
            f"`day`), or choose policies that do not learn: {', '.join(others)}"
        )


def _check_minimum(jobs: Sequence[Job], config: Config) -> None:
    """Raise ValueError if the smallest cluster cannot hold the jobs' minimum replicas."""
    from faro_lib.policies.protocol import at_least_one_each

    at_least_one_each(tuple(jobs), min(config.capacities))

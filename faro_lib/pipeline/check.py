"""Refuse bad input before anything is written, and say what the stages must know of the workload beforehand."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

from faro_lib.config import PUBLISHED, PUBLISHED_DAYS, PUBLISHED_JOBS, SYNTHETIC, Config
from faro_lib.errors import nearest
from faro_lib.files import writable
from faro_lib.pipeline.fetch import verify
from faro_lib.pipeline.memory import check_memory
from faro_lib.registry import load_plugins

PUBLISHED_SIZE = (PUBLISHED_JOBS, PUBLISHED_DAYS, 360)  # jobs, training days, minutes in a day


def check(config: Config, here: bool = True) -> int:
    """Read what the configuration names and refuse, in one line, what the pipeline would stumble over.

    A synthetic workload has nothing to read; published files that lie there must have the right content; a reader's own
    file is read whole.

    Parameters
    ----------
    here : whether the stages run on this machine, in whose memory they must fit.

    Returns
    -------
    Training days of the workload; stages that learn need some.
    """
    names(config)
    _writable(Path(config.results) / config.stem)
    if config.workload == PUBLISHED:
        verify(PUBLISHED, config.raw)
    if config.workload in (SYNTHETIC, PUBLISHED):
        if config.jobs:
            _hold(_read_jobs(config.jobs), config)
        made = config.synthetic
        size = (made.jobs, made.days, made.minutes) if config.workload == SYNTHETIC else PUBLISHED_SIZE
        if here:
            check_memory(config, *size)
        return size[1]
    from faro_lib.workload.tables import load_workload

    traces = load_workload(config.workload, config.jobs)
    _hold(traces.jobs, config)
    if not traces.days:
        without_learning(config, traces.jobs)
    if here:
        check_memory(config, len(traces.jobs), traces.days, traces.evaluation.shape[-1])
    return traces.days


def names(config: Config) -> None:
    """Load the plugins, and refuse, a line each, what nobody has registered."""
    from faro_lib.allocate import OBJECTIVES, SOLVERS
    from faro_lib.forecast import forecasters
    from faro_lib.policies import FACTORIES, factory_of

    load_plugins(config.plugins)
    editions = [name.removeprefix("Faro-").removesuffix(" (paper)") for name in FACTORIES if name.endswith(" (paper)")]
    asked = [
        ("policies", config.policies, factory_of),
        ("scale.policies", config.scale.policies, factory_of),
        ("sensitivity.policies", config.sensitivity.policies, factory_of),
        ("live.policies", config.live.policies, factory_of),
        ("sloppify.objectives", config.sloppify.objectives, OBJECTIVES.find),
        ("sloppify.solvers", config.sloppify.solvers, SOLVERS.find),
        ("forecast.baselines", config.forecast.baselines, _among("forecaster", forecasters())),
        ("ablation.objective", [config.ablation.objective], _among("objective", editions)),
    ]
    mistakes = [
        f"config: {key}: {mistake}"
        for key, chosen, find in asked
        for name in chosen
        if (mistake := _mistake(find, name))
    ]
    if mistakes:
        raise ValueError("\n".join(mistakes))


def _writable(folder: Path) -> None:
    """A folder of results that nothing can be written to, or a file in its place, is found before the first stage."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder))
    writable(folder)


def _mistake(find: Callable, name: str) -> ValueError | None:
    try:
        find(name)
    except ValueError as mistake:
        return mistake
    return None


def _among(noun: str, accepted: list[str]) -> Callable[[str], None]:
    def find(name: str) -> None:
        if name not in accepted:
            raise ValueError(f"{noun}={name!r} is unknown; {nearest(name, accepted)}")

    return find


def learners(policies: Sequence[str], jobs) -> list[str]:
    """Those policies that are made from a forecaster."""
    from faro_lib.policies import PolicyContext, make

    return [policy for policy in policies if _mistake(lambda name: make(name, PolicyContext(jobs)), policy)]


def without_learning(config: Config, jobs) -> None:
    """Refuse policies that are made from a forecaster, which has no day to learn from."""
    predictive = learners(config.policies, jobs)
    if predictive:
        others = [policy for policy in config.policies if policy not in predictive]
        raise ValueError(
            f"{config.workload}: a single day leaves {predictive[0]} none to learn from; add earlier days (a column `day`), "
            f"or choose policies that do not learn: {', '.join(others or ['FairShare'])}"
        )


def _read_jobs(path: str):
    from faro_lib.workload.readers import read_jobs

    return read_jobs(path)


def _hold(jobs, config: Config) -> None:
    """The smallest cluster must hold everyone's minimum."""
    from faro_lib.policies.protocol import at_least_one_each

    at_least_one_each(jobs, min(config.capacities))

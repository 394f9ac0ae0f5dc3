"""The settings of a run of Snakemake, before its first rule is read."""

import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from faro_pipeline.derived import attributes, training_days

# What the check of a configuration imports.
NEEDED = ("numba", "numpy", "pandas", "pydantic", "scipy")


def start(
    config: Mapping[str, Any],
    *,
    here: bool,
    say: bool,
    validate: Callable[[dict[str, Any]], None],
) -> tuple[dict[str, Any], int]:
    """All settings with their values, and the number of training days; ValueError for a mistake.

    With `--software-deployment-method conda`, only the environments of the rules have the
    packages that the library needs. If some that the check needs are missing here, `validate`
    alone checks the settings by their JSON Schema, and adds the defaults of absent ones.
    If `here`, the stages run on this machine. If `say`, the missing packages are named.
    """
    missing = missing_packages()
    if not missing:
        from faro_pipeline.check import check
        from faro_pipeline.counts import with_counts
        from faro_pipeline.settings import load

        checked = load(config)
        validate(checked.model_dump(mode="json"))
        checked = with_counts(checked, say)
        return checked.model_dump(), check(checked, here)
    if say:
        absent = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
        print(f"config: only types and ranges are checked, because {absent} here", file=sys.stderr)
    settings = _with_numbers(dict(config))
    validate(settings)
    return settings, training_days(attributes(settings))


def _with_numbers(value: Any) -> Any:
    """The value with numbers in place of their texts.

    Snakemake leaves them as texts in lists and mappings on the command line, such as
    `--config capacities=[24,16]`; the check of the settings converts them otherwise.
    """
    if isinstance(value, Mapping):
        return {key: _with_numbers(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_numbers(part) for part in value]
    if isinstance(value, str):
        for number in (int, float):
            with suppress(ValueError):
                return number(value)
    return value


def missing_packages() -> list[str]:
    """What the check of a configuration imports and is not installed beside Snakemake."""
    return [name for name in NEEDED if find_spec(name) is None]


def latency_curves(table: str | None) -> list[str]:
    """The files of measured latencies that a table of jobs names; ValueError for a bad file.

    Where packages are missing, none is found, and no rule runs again for a changed one.
    """
    if table is None or missing_packages():
        return []
    from faro_lib.queueing.curve import read_curve
    from faro_lib.workload.readers import read_jobs

    jobs = [job for job in read_jobs(table) if job.latency_curve]
    for job in jobs:
        read_curve(job.latency_curve, job)
    return sorted({job.latency_curve for job in jobs})

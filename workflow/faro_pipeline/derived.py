"""Values that follow from the settings, which are read as attributes, whether checked or not.

The rules use these functions where neither the library nor pydantic is installed beside Snakemake,
so nothing here needs a package besides Python's own.
"""

import csv
import gzip
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# As in `faro_lib.workload`, which needs numpy.
SYNTHETIC = "synthetic"
PUBLISHED = "faro-10jobs"
# Endings of tables of counts and, as in `faro_ops.advise.sources.request_log`, of request logs.
ENDINGS = tuple(
    form + packed for form in (".csv", ".jsonl", ".parquet") for packed in ("", ".gz", ".zst")
)

PUBLISHED_JOBS = 10
PUBLISHED_DAYS = 10  # training days
# The parameters that the stage `sensitivity` varies.
PARAMETERS = ("cold_start_s", "slo_factor", "forecast_error", "interval_s", "scv_factor")


def attributes(settings: Mapping[str, Any]) -> SimpleNamespace:
    """The settings as attributes, those of a section as attributes of the section.

    >>> attributes({"trials": 2, "scale": {"curve": [20]}}).scale.curve
    [20]
    """
    values = {
        key: attributes(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
    }
    return SimpleNamespace(**values)


def stem_of(workload: str) -> str:
    """The name of the workload's folder under `results`: that of a file has no folder or ending.

    >>> stem_of("synthetic"), stem_of("some/where/my.csv.gz")
    ('synthetic', 'my')
    """
    name = Path(workload).name
    for ending in ENDINGS:
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name


def or_middle(config: Any, capacities: list[int] | None) -> list[int]:
    """Return `capacities`. If it is None, return a list with the median of `config.capacities`.

    >>> config = attributes({"capacities": [36, 32, 16]})
    >>> or_middle(config, None), or_middle(config, [])
    ([32], [])
    """
    if capacities is not None:
        return capacities
    return [sorted(config.capacities)[len(config.capacities) // 2]]


def shorter(*minutes: int | None) -> int | None:
    """The smallest of these numbers of minutes; None stands for the whole day.

    >>> shorter(60, None, 120), shorter(None, None)
    (60, None)
    """
    given = [number for number in minutes if number is not None]
    return min(given) if given else None


def scale_wanted(scale: Any) -> bool:
    """Whether any part of the stage `scale` is configured to run."""
    return bool(scale.mixed != [] or scale.clusters or scale.largest or scale.curve)


def sensitivity_wanted(sensitivity: Any) -> bool:
    """Whether any parameter has a value in the stage `sensitivity`."""
    return any(getattr(sensitivity, name) for name in PARAMETERS)


def worlds(config: Any, days: int) -> dict[str, dict[str, Any]]:
    """Name of a workload -> what notebook 75 reads and judges. The first is that of this run."""
    own = {"judged": config.days.judged or [days + 1], "capacities": config.capacities}
    found = {stem_of(config.workload): own}
    for world in config.days.worlds:
        settings = {"workload": SYNTHETIC, "jobs": None, "synthetic": {}, "judged": None, **world}
        found[settings.pop("name")] = settings
    return found


def training_days(config: Any) -> int:
    """Training days of the configured workload. The days of a table are counted in a CSV only."""
    if config.workload == SYNTHETIC:
        return config.synthetic.days
    if config.workload == PUBLISHED:
        return PUBLISHED_DAYS
    return _days_of(config.workload) - 1


def _days_of(table: str) -> int:
    """Number of days in a table of counts with the columns minute and, optionally, day."""
    if table.endswith(".parquet"):
        raise ValueError(f"{table}: its days cannot be counted without pandas and pyarrow")
    with gzip.open(table, "rt") if table.endswith(".gz") else open(table) as file:
        rows = csv.DictReader(file)
        if "minute" not in (rows.fieldnames or []):
            raise ValueError(f"{table}: its days cannot be counted without pandas")
        return len({row.get("day") for row in rows})

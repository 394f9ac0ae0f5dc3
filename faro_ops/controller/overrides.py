"""An operator's changes during a run: to the jobs' table, to fixed replica counts, and to announced load events."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Self

from faro_lib.files import atomic_write
from faro_lib.workload import Job
from faro_lib.workload.readers import SECTIONS, read_jobs
from faro_ops.jobs_table import read_sections

LAST_S = 1e11  # latest accepted Unix time, in the year 5138
EVENT_KEPT_S = 1800.0  # after an event ends, forecasters still divide the counts of the event's minutes by its `load`


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's order for one job: a fixed replica count, or a factor on its forecast load (an event)."""

    job: str
    by: str  # who gave the order
    from_s: float  # Unix time
    until_s: float | None = None  # Unix time; None: until an operator clears it
    replicas: int | None = None  # fixed replica count; None for an event
    load: float | None = None  # factor on the forecast load; None for a fixed count

    def __post_init__(self) -> None:
        if not (isinstance(self.job, str) and isinstance(self.by, str)):
            raise ValueError(f"job={self.job!r} and by={self.by!r} must be text")
        if not (0 <= self.from_s < LAST_S and 0 <= (self.until_s or 0) < LAST_S):
            raise ValueError(
                f"job {self.job!r}: from {self.from_s!r} until {self.until_s!r} are not Unix times"
            )
        if (self.replicas is None) == (self.load is None):
            raise ValueError(f"job {self.job!r}: an override has either replicas or load")
        if self.replicas is not None and (
            not isinstance(self.replicas, int) or not 1 <= self.replicas <= 1_000_000
        ):
            raise ValueError(
                f"job {self.job!r}: replicas={self.replicas!r} must be a whole number from 1 to 1000000"
            )
        if self.load is not None and not 0 < self.load <= 1000:
            raise ValueError(
                f"job {self.job!r}: load={self.load!r} must be a factor > 0, at most 1000"
            )
        if self.until_s is not None and not self.until_s > self.from_s:
            raise ValueError(f"job {self.job!r}: the override ends before it begins")

    def over(self, now_s: float) -> bool:
        kept_s = 0.0 if self.load is None else EVENT_KEPT_S
        return self.until_s is not None and now_s >= self.until_s + kept_s

    def __str__(self) -> str:
        what = f"{self.replicas} replicas" if self.load is None else f"load x {self.load:g}"
        until = "" if self.until_s is None else f" until {_clock(self.until_s)}"
        return f"job {self.job!r}: {what} from {_clock(self.from_s)}{until}, by {self.by}"


def path_of(journal: str | Path) -> Path:
    """The file with the overrides of a run, next to its journal."""
    return Path(f"{journal}.overrides.json")


def read_overrides(path: str | Path) -> tuple[Override, ...]:
    """The overrides in a file; () if the file does not exist, ValueError if it is damaged."""
    path = Path(path)
    if not path.exists():
        return ()
    try:
        return tuple(Override(**row) for row in json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, OverflowError) as error:
        problem = " ".join(str(error).split())[:150]
        raise ValueError(f"{path}: not a file of `faro set` ({problem}); remove it") from None


def write_overrides(path: str | Path, overrides: Iterable[Override]) -> None:
    """Write the overrides that are not over (`Override.over`) to a file, atomically."""
    rows = [asdict(one) for one in overrides if not one.over(time.time())]
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Settings:
    """The jobs and overrides of a run at one time."""

    jobs: tuple[Job, ...]  # with min_replicas = max_replicas where an operator has fixed the count
    sections: dict[
        str, dict[str, dict]
    ]  # sections["serve"]["a"] is the section "serve" of job "a" in the jobs' table
    fixed: tuple[Override, ...] = ()  # fixed replica counts that are in force
    events: tuple[
        Override, ...
    ] = ()  # announced load events; each is listed until EVENT_KEPT_S after its end

    @property
    def fixed_jobs(self) -> tuple[str, ...]:
        """Names of jobs whose replica count an operator has fixed."""
        return tuple(order.job for order in self.fixed)

    def changes(self, new: Self) -> list[str]:
        """The differences between these and the new settings, one line each."""
        old_jobs, new_jobs = ({job.name: job for job in one.jobs} for one in (self, new))
        lines = [
            f"job {name!r}: removed from the table" for name in old_jobs if name not in new_jobs
        ]
        lines += [f"job {name!r}: added to the table" for name in new_jobs if name not in old_jobs]
        orders = {one.job for one in (*self.fixed, *new.fixed)}
        for name in (name for name in new_jobs if name in old_jobs):
            for one in fields(Job):
                before, after = getattr(old_jobs[name], one.name), getattr(new_jobs[name], one.name)
                if before != after and not (name in orders and one.name.endswith("_replicas")):
                    lines.append(f"job {name!r}: {one.name} {before} -> {after}")
        old_orders, new_orders = {*self.fixed, *self.events}, {*new.fixed, *new.events}
        lines += sorted(str(one) for one in new_orders - old_orders)
        lines += sorted(f"over or cleared: {one}" for one in old_orders - new_orders)
        return lines or ["the jobs' table has other sections"]


class Watched:
    """Watches the settings of a run. `known` holds the newest valid settings.

    Settings come from the jobs' table (file `jobs`) and `overrides()`. They also change if an override begins or ends.
    """

    def __init__(self, jobs: str | Path, overrides: Callable[[], tuple[Override, ...]] = tuple):
        self._table, self._overrides, self._problem = Path(jobs), overrides, ""
        self._read()
        self.known = self._settings()

    def new(self) -> Settings | None:
        """The current settings if they differ from `known`, else None; an error that repeats is raised only once."""
        try:
            if self._mark() != self._read_at:
                self._read()
            settings = self._settings()
        except (ValueError, OSError) as error:
            if str(error) == self._problem:
                return None
            self._problem = str(error)
            raise
        self._problem = ""
        if settings == self.known:
            return None
        self.known = settings
        return settings

    def _mark(self) -> tuple[int, int] | None:
        return (
            (one.st_mtime_ns, one.st_size)
            if self._table.exists() and (one := self._table.stat())
            else None
        )

    def _read(self) -> None:
        self._read_at = self._mark()
        sections = (
            {one: read_sections(self._table, one) for one in SECTIONS}
            if self._table.suffix != ".csv"
            else {}
        )
        self._jobs, self._sections = read_jobs(self._table), sections

    def _settings(self) -> Settings:
        jobs, sections, orders = self._jobs, self._sections, self._overrides()
        now_s, names = time.time(), {job.name for job in jobs}
        orders = tuple(one for one in orders if one.job in names and not one.over(now_s))
        fixed = {one.job: one for one in orders if one.replicas is not None and one.from_s <= now_s}
        events = tuple(one for one in orders if one.load is not None)
        counts = {one.job: one.replicas for one in fixed.values()}
        table = (
            replace(job, min_replicas=n, max_replicas=n) if (n := counts.get(job.name)) else job
            for job in jobs
        )
        return Settings(tuple(table), sections, tuple(fixed.values()), events)


def _clock(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s))

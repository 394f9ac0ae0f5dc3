"""An operator's changes during a run: the jobs' table, fixed replica counts, announced events."""

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
# After an event ends, forecasters still divide the counts of the event's minutes by its `load`.
EVENT_KEPT_S = 1800.0
MAX_REPLICAS = 1_000_000
MAX_LOAD = 1000


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's order for one job: a fixed replica count, or an event.

    An event is a factor on the job's forecast load.
    """

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
            times = f"from {self.from_s!r} until {self.until_s!r}"
            raise ValueError(f"job {self.job!r}: {times} are not Unix times")
        if (self.replicas is None) == (self.load is None):
            raise ValueError(f"job {self.job!r}: an override has either replicas or load")
        if self.replicas is not None and not _is_count(self.replicas):
            accepted = f"a whole number from 1 to {MAX_REPLICAS}"
            raise ValueError(f"job {self.job!r}: replicas={self.replicas!r} must be {accepted}")
        if self.load is not None and not 0 < self.load <= MAX_LOAD:
            accepted = f"a factor > 0, at most {MAX_LOAD}"
            raise ValueError(f"job {self.job!r}: load={self.load!r} must be {accepted}")
        if self.until_s is not None and not self.until_s > self.from_s:
            raise ValueError(f"job {self.job!r}: the override ends before it begins")

    def over(self, now_s: float) -> bool:
        kept_s = 0.0 if self.load is None else EVENT_KEPT_S
        return self.until_s is not None and now_s >= self.until_s + kept_s

    def __str__(self) -> str:
        what = f"{self.replicas} replicas" if self.load is None else f"load x {self.load:g}"
        until = "" if self.until_s is None else f" until {_clock(self.until_s)}"
        return f"job {self.job!r}: {what} from {_clock(self.from_s)}{until}, by {self.by}"


def _is_count(replicas: object) -> bool:
    return isinstance(replicas, int) and 1 <= replicas <= MAX_REPLICAS


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
    # sections["serve"]["a"] is the section "serve" of job "a" in the jobs' table.
    sections: dict[str, dict[str, dict]]
    fixed: tuple[Override, ...] = ()  # fixed replica counts that are in force
    # Announced load events; each is listed until EVENT_KEPT_S after its end.
    events: tuple[Override, ...] = ()

    @property
    def fixed_jobs(self) -> tuple[str, ...]:
        """Names of jobs whose replica count an operator has fixed."""
        return tuple(order.job for order in self.fixed)

    def changes(self, new: Self) -> list[str]:
        """The differences between these and the new settings, one line each."""
        old_jobs = {job.name: job for job in self.jobs}
        new_jobs = {job.name: job for job in new.jobs}
        removed = [name for name in old_jobs if name not in new_jobs]
        added = [name for name in new_jobs if name not in old_jobs]
        lines = [f"job {name!r}: removed from the table" for name in removed]
        lines += [f"job {name!r}: added to the table" for name in added]
        ordered = {one.job for one in (*self.fixed, *new.fixed)}
        for name, job in new_jobs.items():
            if name in old_jobs:
                lines += _changed_fields(old_jobs[name], job, name in ordered)
        old_orders, new_orders = {*self.fixed, *self.events}, {*new.fixed, *new.events}
        lines += sorted(str(one) for one in new_orders - old_orders)
        lines += sorted(f"over or cleared: {one}" for one in old_orders - new_orders)
        return lines or ["the jobs' table has other sections"]


def _changed_fields(old: Job, new: Job, ordered: bool) -> list[str]:
    """A line per changed field. Replica bounds of a job with an order do not count."""
    lines = []
    for one in fields(Job):
        before, after = getattr(old, one.name), getattr(new, one.name)
        if before == after or (ordered and one.name.endswith("_replicas")):
            continue
        lines.append(f"job {new.name!r}: {one.name} {before} -> {after}")
    return lines


class Watched:
    """Watches the settings of a run. `known` holds the newest valid settings.

    Settings come from the jobs' table (file `jobs`) and `overrides()`. They also change if an
    override begins or ends.
    """

    def __init__(self, jobs: str | Path, overrides: Callable[[], tuple[Override, ...]] = tuple):
        self._table, self._overrides, self._problem = Path(jobs), overrides, ""
        self._read()
        self.known = self._settings()

    def new(self) -> Settings | None:
        """The current settings if they differ from `known`, else None.

        An error that repeats is raised only once.
        """
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

    @property
    def problem(self) -> str:
        """Why the settings could not be read the last time; "" if they could."""
        return self._problem

    def _mark(self) -> tuple[int, int] | None:
        """What tells one version of the table from the next; None without a table."""
        if not self._table.exists():
            return None
        state = self._table.stat()
        return state.st_mtime_ns, state.st_size

    def _read(self) -> None:
        self._read_at = self._mark()
        sections = {}
        if self._table.suffix != ".csv":
            sections = {one: read_sections(self._table, one) for one in SECTIONS}
        self._jobs, self._sections = read_jobs(self._table), sections

    def _settings(self) -> Settings:
        now_s = time.time()
        names = {job.name for job in self._jobs}
        orders = [one for one in self._overrides() if one.job in names and not one.over(now_s)]
        in_force = [one for one in orders if one.replicas is not None and one.from_s <= now_s]
        fixed = {one.job: one for one in in_force}
        events = tuple(one for one in orders if one.load is not None)
        table = tuple(_with_order(job, fixed.get(job.name)) for job in self._jobs)
        return Settings(table, self._sections, tuple(fixed.values()), events)


def _with_order(job: Job, order: Override | None) -> Job:
    """The job with the fixed replica count of the order as minimum and maximum, if there is one."""
    if order is None or order.replicas is None:
        return job
    return replace(job, min_replicas=order.replicas, max_replicas=order.replicas)


def _clock(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s))

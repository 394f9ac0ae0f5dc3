"""An operator's changes during a run: the jobs' table, fixed replica counts, announced events."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from faro_lib.workload import Job
from faro_lib.workload.readers import SECTIONS
from faro_ops.errors import message_of, one_line
from faro_ops.jobs_table import read_sections, read_unshared
from faro_ops.section import Section, parsed

LAST_S = 1e11  # latest accepted Unix time, in the year 5138
# After an event ends, forecasters still divide the counts of the event's minutes by its `load`.
EVENT_KEPT_S = 1800.0
MAX_REPLICAS = 1_000_000
MAX_LOAD = 1000
# An order for this job freezes all jobs. It needs no field of its own, and therefore also passes
# the schema of a FaroPlan from before `faro freeze`, which would remove an unknown field. It is a
# row among the others, because its place says which orders were given before and after it.
ALL_JOBS = "*"


UnixTime = Annotated[float, Field(ge=0, le=LAST_S)]


class Override(Section, strict=True, allow_inf_nan=False):
    """An operator's order: a fixed replica count or an event of one job, or a freeze of all jobs.

    An event is a factor on the job's forecast load.
    """

    job: str  # ALL_JOBS for a freeze
    by: Annotated[str, AfterValidator(partial(one_line, limit=200))] = "?"  # who gave the order
    from_s: UnixTime = 0.0
    until_s: UnixTime | None = None  # None: until an operator ends it
    # Fixed replica count; None for an event and a freeze.
    replicas: int | None = Field(None, ge=1, le=MAX_REPLICAS)
    # Factor on the forecast load; None for a fixed count and a freeze.
    load: float | None = Field(None, gt=0, le=MAX_LOAD)

    @model_validator(mode="after")
    def _is_one_order(self) -> Self:
        given = (self.replicas is not None) + (self.load is not None)
        if self.freezes and given:
            accepted = "which can only be frozen; name one job, or leave out replicas and load"
            raise ValueError(f"stands for all jobs, {accepted}")
        if not self.freezes and given != 1:
            raise ValueError("an override has either replicas or load")
        if self.until_s is not None and not self.until_s > self.from_s:
            raise ValueError("the override ends before it begins")
        return self

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Parse an order, such as a row of a journal; ValueError if it is invalid."""
        return parsed(cls, row, f"job {row.get('job')!r}")

    @property
    def freezes(self) -> bool:
        """Whether this order freezes all jobs."""
        return self.job == ALL_JOBS

    def over(self, now_s: float) -> bool:
        kept_s = 0.0 if self.load is None else EVENT_KEPT_S
        return self.until_s is not None and now_s >= self.until_s + kept_s

    def __str__(self) -> str:
        until = "" if self.until_s is None else f" until {_clock(self.until_s)}"
        when = f"from {_clock(self.from_s)}{until}, by {self.by}"
        if self.freezes:
            return f"all jobs: frozen {when}"
        what = f"{self.replicas} replicas" if self.load is None else f"load x {self.load:g}"
        return f"job {self.job!r}: {what} {when}"


@dataclass(frozen=True, slots=True)
class RejectedOrder:
    """An order that is not in force, because it is invalid or its job does not exist."""

    job: str  # the job that it names, as one line; "" if it names none
    text: str  # the order, as one line
    reason: str  # why it is not in force, as one line

    def __post_init__(self) -> None:
        for name in ("job", "text", "reason"):
            object.__setattr__(self, name, one_line(getattr(self, name), 200))

    def __str__(self) -> str:
        return f"not in force: {self.text}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Orders:
    """What operators have ordered, in the order in which they did."""

    valid: tuple[Override, ...] = ()
    rejected: tuple[RejectedOrder, ...] = ()
    problems: tuple[str, ...] = ()  # one line per place whose orders cannot be read

    def __add__(self, other: Self) -> Self:
        return type(self)(
            (*self.valid, *other.valid),
            (*self.rejected, *other.rejected),
            (*self.problems, *other.problems),
        )


class LastKnown:
    """The orders that `read` returned last.

    If `read` raises an OSError or ValueError, the orders last known stay in force, and
    `Orders.problems` has the first error until `read` succeeds again. If it returns None, the place
    of the orders does not exist, which ends no order either.
    """

    def __init__(self, read: Callable[[], Orders | None]):
        self._read = read
        self._known: Orders | None = None
        self._problem = ""

    def __call__(self) -> Orders:
        try:
            new = self._read()
        except (OSError, ValueError) as error:
            stays = "the orders last known stay in force"
            if self._known is None:
                stays = "no order is known yet, and each tick asks again"
            self._problem = self._problem or f"{one_line(message_of(error) or '')}; {stays}"
            return replace(self._known or Orders(), problems=(self._problem,))
        self._problem = ""
        self._known = new or self._known or Orders()
        return self._known


@dataclass(frozen=True, slots=True)
class Settings:
    """The jobs and overrides of a run at one time."""

    # The jobs of the table. Where an operator has fixed the replica count, max_replicas is this
    # count, and min_replicas is at most this count. operate/limits/fitting.py finds how many fit.
    jobs: tuple[Job, ...]
    # sections["serve"]["a"] is the section "serve" of job "a" in the jobs' table, valid or not.
    sections: dict[str, dict[str, dict]]
    fixed: tuple[Override, ...] = ()  # fixed replica counts that are in force
    # Announced load events; each is listed until EVENT_KEPT_S after its end.
    events: tuple[Override, ...] = ()
    frozen: Override | None = None  # the freeze of all jobs that is in force, if any
    suspended: tuple[Override, ...] = ()  # counts that the freeze suspends, as they are older
    rejected: tuple[RejectedOrder, ...] = ()  # orders that are not in force, with the reasons

    @property
    def fixed_jobs(self) -> tuple[str, ...]:
        """Names of jobs whose replica count an operator has fixed."""
        return tuple(order.job for order in self.fixed)

    @property
    def frozen_jobs(self) -> tuple[str, ...]:
        """Names of jobs that a freeze keeps as they are: all without a later fixed count."""
        return self.frozen_by(self)

    def frozen_by(self, newest: Self) -> tuple[str, ...]:
        """Names of these jobs that a freeze in the `newest` settings keeps as they are.

        They are all without a later fixed count. A count that only the newest settings have is not
        in force yet, and its job stays frozen until then.
        """
        if newest.frozen is None:
            return ()
        free = {*self.fixed_jobs} & {*newest.fixed_jobs}
        return tuple(job.name for job in self.jobs if job.name not in free)

    @property
    def orders(self) -> frozenset[Override]:
        """All valid orders that have begun, and the announced events."""
        freeze = () if self.frozen is None else (self.frozen,)
        return frozenset((*self.fixed, *self.events, *self.suspended, *freeze))

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
        for one in sorted(new.orders - self.orders, key=str):
            lines.append(f"{one}; the freeze suspends it" if one in new.suspended else str(one))
        lines += sorted(f"over or cleared: {one}" for one in self.orders - new.orders)
        lines += [str(one) for one in new.rejected if one not in self.rejected]
        ended = [one for one in self.rejected if one not in new.rejected]
        lines += [f"no longer rejected: {one.text}" for one in ended]
        return [one_line(line) for line in lines] or ["the jobs' table has other sections"]


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

    Settings come from the jobs' table (file `jobs`), which `read` reads, and from `overrides()`.
    They also change if an override begins or ends. Only the jobs' table can prevent the start
    (ValueError, OSError).
    """

    def __init__(
        self,
        jobs: str | Path,
        overrides: Callable[[], Orders] = Orders,
        read: Callable[[Path], tuple[Job, ...]] = read_unshared,
    ):
        self._table, self._overrides, self._problem = Path(jobs), overrides, ""
        self._read_table = read
        self._read()
        self.known, _ = self._settings()

    def new(self) -> Settings | None:
        """The current settings if they differ from `known`, else None.

        Raises ValueError or OSError if the table or the orders cannot be read. What could be read
        is in force nevertheless: changed settings are returned first, and the next call raises the
        error. An error that repeats is raised only once.
        """
        errors: list[ValueError | OSError] = []
        try:
            if self._mark() != self._read_at:
                self._read()
        except (ValueError, OSError) as error:
            errors.append(error)
        settings, problems = self._settings()
        if settings != self.known:
            self.known = settings
            return settings
        errors += [OSError(problem) for problem in problems]
        problem = "; ".join(map(str, errors))
        repeated, self._problem = problem == self._problem, problem
        if not errors or repeated:
            return None
        raise errors[0] if len(errors) == 1 else OSError(problem)

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
        mark = self._mark()
        sections = {}
        if self._table.suffix != ".csv":
            sections = {one: read_sections(self._table, one, strict=False) for one in SECTIONS}
        self._jobs, self._sections = self._read_table(self._table), sections
        self._read_at = mark  # only now, because a table that could not be read is read again

    def _settings(self) -> tuple[Settings, tuple[str, ...]]:
        """The settings now, and one line per place of orders that cannot be read."""
        now_s = time.time()
        names = {job.name for job in self._jobs}
        given = self._overrides()
        due = [one for one in given.valid if not one.over(now_s)]
        orders = [one for one in due if one.job in names or one.freezes]
        gone = [one for one in due if one not in orders]
        fixed, frozen, suspended = in_force(orders, now_s)
        settings = Settings(
            tuple(_with_order(job, fixed.get(job.name)) for job in self._jobs),
            self._sections,
            tuple(fixed.values()),
            tuple(one for one in orders if one.load is not None),
            frozen,
            tuple(suspended.values()),
            (*given.rejected, *map(_of_no_job, gone)),
        )
        return settings, given.problems


def in_force(
    orders: Iterable[Override], now_s: float
) -> tuple[dict[str, Override], Override | None, dict[str, Override]]:
    """(counts in force, the freeze in force or None, counts that it suspends); counts by job.

    Of two orders that have begun, the later one in `orders` counts. A freeze therefore suspends the
    counts before it, and a count after it is in force although the other jobs are frozen.
    """
    fixed: dict[str, Override] = {}
    suspended: dict[str, Override] = {}
    frozen = None
    for one in orders:
        if one.load is not None or one.from_s > now_s:
            continue
        if one.freezes:
            frozen, suspended, fixed = one, suspended | fixed, {}
        else:
            fixed[one.job] = one
            suspended.pop(one.job, None)
    return fixed, frozen, suspended


def _of_no_job(order: Override) -> RejectedOrder:
    return RejectedOrder(order.job, str(order), "no such job in the jobs' table")


def _with_order(job: Job, order: Override | None) -> Job:
    """The job with the fixed replica count of the order as maximum, if there is one."""
    if order is None or order.replicas is None:
        return job
    least = min(job.min_replicas, order.replicas)
    return replace(job, min_replicas=least, max_replicas=order.replicas)


def _clock(time_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_s))

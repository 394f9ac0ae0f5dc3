"""Service times that a run has learned: as columns of plans, after roll-outs, and after restarts.

`faro_lib.policies.learning` learns them from latencies. Here, they enter the plan, so that the
journal, the metrics and `faro explain` have them. A roll-out makes them uncertain. What a leader
has learned survives it as a section of the run's state, because a journal replays only its last
half hour.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self

import numpy as np

from faro_lib.control import Memory
from faro_lib.policies.learning import Learned, Learner
from faro_lib.policies.raised import Raised
from faro_lib.queueing.service_factor import FACTORS, STEP, mean_factor, normalised, relative_error
from faro_lib.workload import Job, pools_of
from faro_lib.workload.jobs import DAY_MINUTES, MINUTE_S, TOLERANCE
from faro_ops.operate.limits.held import loop_of, with_loop
from faro_ops.operate.loop.live_memory import LiveMemory
from faro_ops.protocol import LivePlan

SECTION = "service_times"  # of the run's state
GRID = [len(FACTORS), STEP]  # a stored posterior over another grid of factors is discarded
PARTS = 10_000  # a posterior is stored in whole parts of this, to keep the state small
OLD_S = DAY_MINUTES * MINUTE_S  # what is older says nothing about the services of today
DIGITS = 4  # of the columns, which are recorded every minute
RAISED = tuple(field.name for field in fields(Raised))  # the order in which they are stored
NAMED = 4  # names of jobs in a message
DAMAGED = (AttributeError, KeyError, TypeError, ValueError, OverflowError)  # by what cannot be read


class UnixTime(Protocol):
    """Converts times of the run to Unix times and back (`surviving.RunTime`)."""

    def unix_s(self, run_s: float) -> float: ...
    def run_s(self, unix_s: float) -> float: ...


def learned_of(state: Any) -> Learned | None:
    """What a policy has learned about service times; None if it does not learn."""
    loop = loop_of(state)
    return None if loop is None else loop.learned


def with_learned(state: Any, learned: Learned) -> Any:
    """The state of a policy that learns, with other knowledge about service times."""
    loop = loop_of(state)
    return state if loop is None else with_loop(state, replace(loop, learned=learned))


def with_columns(plan: LivePlan, state: Any) -> LivePlan:
    """The plan with the service times that its policy has learned, if it learns."""
    learned = learned_of(state)
    if learned is None:
        return plan
    return replace(
        plan,
        service_factor=mean_factor(learned.belief).round(DIGITS),
        service_factor_error=relative_error(learned.belief).round(DIGITS),
    )


# --- roll-outs ------------------------------------------------------------------------------------


def after_rollouts(state: Any, before: np.ndarray | None, now: np.ndarray | None) -> Any:
    """The state after the services whose revision has changed have become uncertain.

    before, now : int (jobs,), `LiveObservation.revision`; 0 or None = unknown.
    """
    learned = learned_of(state)
    if learned is None or before is None or now is None:
        return state
    changed = (before != now) & (before > 0) & (now > 0)
    if not changed.any():
        return state
    return with_learned(state, Learner().changed(learned, changed))


# --- restarts and hand-overs ----------------------------------------------------------------------


def section_of(memory: Memory, jobs: Sequence[Job], time: UnixTime) -> dict[str, Any] | None:
    """What is learned, as a section of the run's state; None if the policy does not learn.

    The row of a job has the posterior from informative minutes, in whole parts; how many they are,
    and since when; the load and replicas with which the service last met its SLO; and what the job
    had before its factor rose. A job without an informative minute has no row. A job of a pool has
    its own factor in its row, and `pools` have those of the pools.
    """
    learned = learned_of(memory.state)
    if learned is None:
        return None
    revision = LiveMemory.of(memory).revision
    rows = {}
    doubt, raised = learned.doubt, learned.raised
    shared = [pool for pool in pools_of(jobs) if pool.shared]
    pool_of = {jobs[j].name: pool.name for pool in shared for j in pool.jobs}
    for n, job in enumerate(jobs):
        if not learned.informative[n]:
            continue
        rows[job.name] = {
            "assumed_s": job.busy_s,
            "pool": pool_of.get(job.name, ""),
            **_parts(learned.weight[n]),
            "revision": 0 if revision is None else int(revision[n]),
            "informative_minutes": int(learned.informative[n]),
            "since_s": time.unix_s(MINUTE_S * float(learned.since_minute[n])),
            "healthy": [round(float(doubt.rate_rps[n]), DIGITS), int(doubt.replicas[n])],
            "before_rise": [_number(getattr(raised, name)[n]) for name in RAISED],
        }
    pools = {pool.name: _parts(row) for pool, row in zip(shared, learned.pools.weight)}
    # The time at which the last minute ended that was learned from.
    until_s = time.unix_s(MINUTE_S * learned.minute)
    return {"grid": GRID, "until_s": until_s, "jobs": rows, "pools": pools}


def resumed(
    memory: Memory, section: Any, jobs: Sequence[Job], time: UnixTime, now_s: float
) -> tuple[Memory, str]:
    """(the memory with what `section` knows about the jobs' service times, a line or "").

    A job whose row is damaged, or was learned for another assumed time or in another pool, keeps
    what `memory` knows, and the line says so. So do the jobs of a pool whose row is damaged.
    """
    learned = learned_of(memory.state)
    if learned is None or section is None:
        return memory, ""
    try:
        if section["grid"] != GRID:
            return memory, _starting("written by another version of Faro")
        until_s, rows = time.run_s(float(section["until_s"])), section["jobs"]
        pool_rows = section.get("pools", {})
        tables = isinstance(rows, Mapping) and isinstance(pool_rows, Mapping)
        if not tables or not math.isfinite(until_s):
            raise ValueError("no jobs, or no time")
    except DAMAGED:
        return memory, _starting("damaged")
    if now_s - until_s > OLD_S:
        return memory, _starting(f"{(now_s - until_s) / 3600:.0f} hours old")

    weight, doubt = learned.weight.copy(), learned.doubt
    informative, since_minute = learned.informative.copy(), learned.since_minute.copy()
    rate_rps, replicas = doubt.rate_rps.copy(), doubt.replicas.copy()
    raised = {name: getattr(learned.raised, name).copy() for name in RAISED}
    known = LiveMemory.of(memory)
    none = np.zeros(len(jobs), int)
    revision = none if known.revision is None else known.revision.copy()
    damaged, other, moved = [], [], []
    of_pools = learned.pools.weight.copy()
    pool_of: dict[str, str] = {}  # of jobs whose pool is known
    shared = [pool for pool in pools_of(jobs) if pool.shared]
    for n, pool in enumerate(shared):
        names = [jobs[j].name for j in pool.jobs]
        try:
            if pool.name in pool_rows:
                of_pools[n] = _weight(pool_rows[pool.name])
                pool_of |= dict.fromkeys(names, pool.name)
        except DAMAGED:
            damaged += [name for name in names if name in rows]
    for n, job in enumerate(jobs):
        if job.name not in rows or job.name in damaged:
            continue
        try:
            row = Row.of(rows[job.name])
        except DAMAGED:
            damaged.append(job.name)
            continue
        if row.pool != pool_of.get(job.name, ""):
            moved.append(job.name)
            continue
        if not math.isclose(row.assumed_s, job.busy_s, rel_tol=1e-6):
            other.append(job.name)
            continue
        weight[n], revision[n] = row.weight, row.revision or revision[n]
        informative[n] = row.informative
        since_minute[n] = math.floor(time.run_s(row.since_s) / MINUTE_S + TOLERANCE)
        rate_rps[n], replicas[n] = row.healthy
        for name, value in zip(RAISED, row.raised):
            raised[name][n] = value
    # Not later than now, although the clock of the last leader may have been ahead.
    minute = math.floor(min(until_s, now_s) / MINUTE_S + TOLERANCE)
    learned = replace(
        learned,
        weight=weight,
        minute=max(0, minute),
        informative=informative,
        since_minute=since_minute,
        doubt=replace(doubt, rate_rps=rate_rps, replicas=replicas),
        raised=Raised(**raised),
        pools=replace(learned.pools, weight=of_pools),
    )
    state = with_learned(memory.state, learned)
    lines = []
    if damaged:
        lines.append(_starting("damaged", damaged))
    if other:
        lines.append(_starting("about other times than those in the table", other))
    if moved:
        lines.append(_starting("about other replicas than those of their pool", moved))
    return replace(known, state=state, revision=revision), "; ".join(lines)


@dataclass(frozen=True, slots=True)
class Row:
    """What is saved about one job, as `section_of` describes it."""

    assumed_s: float
    pool: str  # "" for a job with replicas of its own
    weight: np.ndarray  # (factors,)
    revision: int
    informative: int
    since_s: float  # Unix time
    healthy: tuple[float, int]  # requests/s, replicas
    raised: tuple[float, ...]  # values of the fields of Raised

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Parse a saved row; raises ValueError, KeyError and the like if it is damaged."""
        rate_rps, replicas = map(float, row["healthy"])
        numbers = (float(row["since_s"]), rate_rps, replicas, float(row["informative_minutes"]))
        if not all(map(math.isfinite, numbers)) or min(numbers[1:]) < 0 or numbers[-1] < 1:
            raise ValueError("no evidence")
        raised = [math.inf if value is None else float(value) for value in row["before_rise"]]
        if len(raised) != len(RAISED) or not min(raised) >= 0 or not 0 < raised[0] < math.inf:
            raise ValueError("nothing from before a rise")
        return cls(
            assumed_s=float(row["assumed_s"]),
            pool=str(row.get("pool", "")),
            weight=_weight(row),
            revision=int(row["revision"]),
            informative=int(numbers[-1]),
            since_s=numbers[0],
            healthy=(rate_rps, int(replicas)),
            raised=tuple(raised),
        )


def _parts(weight: np.ndarray) -> dict[str, Any]:
    """A posterior (factors,) in whole parts, from the first one that is not 0 on."""
    parts = np.rint(weight * PARTS).astype(int)
    kept = np.flatnonzero(parts)
    text = " ".join(map(str, parts[kept[0] : kept[-1] + 1].tolist()))
    return {"first": int(kept[0]), "parts": text}


def _weight(row: Mapping[str, Any]) -> np.ndarray:
    """The posterior (factors,) of `_parts`; raises one of DAMAGED if it is none."""
    first, parts = int(row["first"]), np.array(row["parts"].split(), float)
    fits = first >= 0 and first + len(parts) <= len(FACTORS)
    if not fits or not np.isfinite(parts).all() or (parts < 0).any() or parts.sum() <= 0:
        raise ValueError(f"first={first} and parts are no posterior")
    weight = np.zeros((1, len(FACTORS)))
    weight[0, first : first + len(parts)] = parts
    return normalised(weight)[0]


def _number(value: float) -> float | None:
    """A number as JSON has it: None if it is infinite."""
    return round(float(value), DIGITS) if math.isfinite(value) else None


def _starting(problem: str, names: Sequence[str] = ()) -> str:
    of = f" of {named(names)}" if names else ""
    return (
        f"what was learned about the service times{of} is {problem}; "
        "learning starts at the assumed times"
    )


def named(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")

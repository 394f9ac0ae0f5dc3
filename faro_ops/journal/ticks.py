"""What a journal records: the header of a part, and its ticks; to and from JSON types.

The first tick of each minute is a keyframe, a record of everything. The other ticks of the minute
have only the fields that differ from it, and its time in the member `of`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np

from faro_lib.control.tick import Step
from faro_lib.protocol import HOLD, OVERRIDE, Observation, Plan
from faro_lib.workload import Job, Placement
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import mapping_of, replica_of
from faro_ops.protocol import LiveGuardrails, LiveObservation, LivePlan, live_observation, live_plan

HEADER, TICK = "header", "tick"  # kinds of records
WHOLE = ("running", "starting", "target", "terminating", "placed", "replicas", "floor", "revision")
DTYPES: dict[str, type] = dict.fromkeys(WHOLE, int)
DTYPES |= dict.fromkeys(("changing", "present", "unbounded", "held"), bool)
SPARSE = "placed"  # a field that is recorded by its entries that are not 0
NOT_RECORDED = ("left",)  # fields of a plan that follow from others
SCALARS: dict[str, type] = dict.fromkeys(("now_s", "capacity", "capacity_age_s"), float)
SCALARS |= dict.fromkeys(("minute", "attempts"), int)
# Errors of a record that is not as it should be.
INVALID = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


@dataclass(frozen=True, slots=True)
class Header:
    """The settings of a run: the first record of a part of its journal."""

    policy: str
    jobs: tuple[Job, ...]
    guardrails: LiveGuardrails
    tick_s: float
    apply: bool  # False in a dry run
    origin_s: int | None = None  # Unix time at time 0 of the run; None in a simulation
    scale: float = 1.0
    start_s: float = 0.0  # when the loop began to use these settings, in seconds since time 0
    # An operator's changes just before this header, as text; () if none.
    changes: tuple[str, ...] = ()


class Trouble(NamedTuple):
    """What was wrong with a job at a tick (`operate/job_states.py`)."""

    state: str
    reason: str
    since_s: float  # Unix time


@dataclass(frozen=True, slots=True)
class Tick:
    """One recorded tick of the control loop."""

    step: Step
    error: str | None = None  # the error message if applying the targets failed, else None
    # Number of ticks replayed if a run resumed at this tick, else None.
    replayed_ticks: int | None = None
    # Numbers of the jobs whose targets were not applied; None: all of them, if there is an `error`.
    failed: tuple[int, ...] | None = None
    # Seconds between the ticks that thinning has kept around this one; None: it has kept all.
    every_s: float | None = None
    # Of each job that was not fine, by name.
    troubled: Mapping[str, Trouble] = field(default_factory=dict)


def decided(plan: Plan) -> bool:
    """Whether a plan has a forecast or, for some job, a reason besides HOLD and OVERRIDE."""
    return plan.forecast_rps is not None or acts(plan.reason)


def acts(reasons: Iterable[str]) -> bool:
    return not set(reasons) <= {HOLD, OVERRIDE}


# --- headers --------------------------------------------------------------------------------------


def header_record(header: Header) -> dict[str, Any]:
    """The record of a header."""
    jobs = [asdict(job) | {"replica": mapping_of(job.replica)} for job in header.jobs]
    return {"kind": HEADER} | asdict(header) | {"jobs": jobs}


def header_of(record: Mapping[str, Any], where: str) -> Header:
    """The header in a record, which is found at `where`.

    ValueError if another version of Faro has written it.
    """
    try:
        values = {one.name: record[one.name] for one in fields(Header)}
        values["jobs"] = tuple(
            Job(**{**job, "replica": replica_of(job["replica"])}) for job in record["jobs"]
        )
        values["changes"] = tuple(record["changes"])
        values["guardrails"] = LiveGuardrails(**record["guardrails"])
        return Header(**values)
    except INVALID as error:
        problem = f"written by another version of Faro ({error}); name another journal"
        raise ValueError(f"{where}: {problem}") from None


# --- ticks ----------------------------------------------------------------------------------------


def tick_record(one: Tick, key: Step | None) -> dict[str, Any]:
    """The record of a tick.

    key : the keyframe that the record refers to; None makes this tick a keyframe.
    """
    record: dict[str, Any] = {"kind": TICK}
    step = one.step
    if key is not None:
        record["of"] = key.observation.now_s
    observation, plan = live_observation(step.observation), live_plan(step.plan)
    record["observation"] = _changed(observation, key and live_observation(key.observation))
    record["plan"] = _changed(plan, key and live_plan(key.plan))
    if key is None or not _same(step.target, key.target):
        record["target"] = step.target.tolist()
    record |= {"decision_s": step.decision_s, "error": one.error}
    if one.failed is not None:
        record["failed"] = list(one.failed)
    if one.replayed_ticks is not None:
        record["replayed_ticks"] = one.replayed_ticks
    if one.every_s is not None:
        record["every_s"] = one.every_s
    if one.troubled:
        record["troubled"] = {job: list(trouble) for job, trouble in one.troubled.items()}
    return record


def tick_of(record: Mapping[str, Any], jobs: int, key: Step | None) -> Tick:
    """The tick in a record of a part with so many jobs; `key` is its keyframe.

    Raises one of INVALID if the record is damaged.
    """
    step = _step_of(record, key)
    plan = step.plan
    lengths = {len(step.target), len(step.observation.target), len(plan.target), len(plan.reason)}
    if lengths != {jobs}:
        raise ValueError(f"targets of other than {jobs} jobs")
    failed, replayed_ticks = record.get("failed"), record.get("replayed_ticks")
    every_s = record.get("every_s")
    return Tick(
        step,
        record["error"],
        None if replayed_ticks is None else int(replayed_ticks),
        None if failed is None else tuple(int(job) for job in failed),
        None if every_s is None else float(every_s),
        {
            job: Trouble(str(state), str(reason), float(since_s))
            for job, (state, reason, since_s) in record.get("troubled", {}).items()
        },
    )


def needs_keyframe(step: Step, key: Step | None) -> bool:
    """Whether a tick begins a minute, or nothing has been recorded before it."""
    if key is None or step.observation.minute != key.observation.minute:
        return True
    return step.observation.now_s - key.observation.now_s >= MINUTE_S


def _step_of(record: Mapping[str, Any], key: Step | None) -> Step:
    observation, plan = record["observation"], record["plan"]
    decision_s = float(record["decision_s"])
    if "of" not in record:
        return Step(
            LiveObservation(**_restored(observation)),
            LivePlan(**_restored(plan)),
            np.array(record["target"], np.int64),
            decision_s,
        )
    if key is None or key.observation.now_s != record["of"]:
        raise ValueError("the first tick of its minute is damaged")
    target = np.array(record["target"], np.int64) if "target" in record else key.target
    return Step(
        replace(key.observation, **_restored(observation)),
        replace(key.plan, **_restored(plan)),
        target,
        decision_s,
    )


def _changed(value: Any, key: Any) -> dict[str, Any]:
    """The fields of an observation or a plan that differ from those of `key`, as JSON types."""
    names = [one.name for one in fields(value) if one.name not in NOT_RECORDED]
    changed = {
        name: getattr(value, name)
        for name in names
        if key is None or not _same(getattr(value, name), getattr(key, name))
    }
    return {
        name: _sparse(of_job) if name == SPARSE and of_job is not None else plain(of_job)
        for name, of_job in changed.items()
    }


def _sparse(counts: np.ndarray) -> dict[str, list[int]]:
    """A matrix (jobs, nodes) by its entries that are not 0, because a job is on few nodes."""
    index = np.flatnonzero(counts)
    return {
        "shape": list(counts.shape),
        "index": index.tolist(),
        "count": counts.ravel()[index].tolist(),
    }


def _same(value: Any, other: Any) -> bool:
    if value is other:
        return True
    if isinstance(value, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(value, other, equal_nan=True)
    if isinstance(value, np.ndarray) or isinstance(other, np.ndarray):
        return False
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        return plain(value) == plain(other)
    return bool(value == other)


def plain(value: Any) -> Any:
    """An observation, a plan or one of their values as JSON types.

    NaN becomes null, and infinity a string.
    """
    if isinstance(value, Observation | Plan):
        return _changed(value, None)
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, Placement):
        return {"home": value.home.tolist(), "resident": value.resident.astype(int).tolist()}
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind != "f" or np.isfinite(value).all():
            return value.tolist()
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _restored(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an observation or a plan that `plain` made; in arrays, None becomes NaN."""
    return {name: _restored_value(name, value) for name, value in record.items()}


def _restored_value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in SCALARS:
        return SCALARS[name](value)
    if name == "reason":
        return tuple(value)
    if name == "placement":
        return {pool: _placement(one) for pool, one in value.items()}
    if name == SPARSE and isinstance(value, dict):
        counts = np.zeros(value["shape"], int)
        counts.ravel()[value["index"]] = value["count"]
        return counts
    return np.array(value, DTYPES.get(name, float))


def _placement(record: Mapping[str, Any]) -> Placement:
    home = np.array(record["home"], np.int64)
    resident = np.array(record["resident"], bool)
    return Placement(home, resident.reshape(len(home), -1))

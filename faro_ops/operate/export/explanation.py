"""Explain a past decision: the observation, the requested replicas and the reason, for each job."""

import math
from itertools import combinations
from typing import Any

import numpy as np

from faro_lib.sharing.placement import MOST_JOBS, SPARE
from faro_lib.workload import Job, Placement, arrays_of, pools_of
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.journal.ticks import Header, Tick, Trouble, decided
from faro_ops.operate.job_states import FINE
from faro_ops.protocol import live_observation, live_plan


def decision_at(
    parts: list[tuple[Header, list[Tick]]], at_s: float | None = None, journal: str = "the journal"
) -> tuple[Header, Tick]:
    """(header, tick) of the last tick at or before `at_s`, in seconds since time 0 of the run.

    `parts` holds (header, ticks) of each part of a journal, oldest first. If `at_s` is None, use
    only the last part with ticks. Return its last tick that decided anything (see `decided`), or
    its last tick if none did. Raises ValueError if there are no ticks, or if `at_s` is before the
    first or at least `header.tick_s` after the last tick.
    """
    decisions = [(header, tick) for header, ticks in parts for tick in ticks]
    if not decisions:
        raise ValueError(f"{journal}: no decision has been made yet")
    header, last = decisions[-1]
    if at_s is None:
        acting = [tick for of, tick in decisions if of is header and decided(tick.step.plan)]
        return header, acting[-1] if acting else last
    first_s, last_s = _now_s(decisions[0][1]), _now_s(last)
    if at_s < first_s:
        raise ValueError(f"at={at_s:g} is before the first decision, at {first_s:g} s")
    if not at_s < last_s + header.tick_s:
        raise ValueError(f"at={at_s:g} is after the last decision, at {last_s:g} s")
    return next((of, tick) for of, tick in reversed(decisions) if _now_s(tick) <= at_s)


def _now_s(tick: Tick) -> float:
    return tick.step.observation.now_s


def explained(header: Header, tick: Tick) -> list[dict[str, Any]]:
    """One dict per job with replicas, measurements, predictions, SLO and reason; unknown is NaN.

    `state`, `state_reason` and `state_since_s` (Unix time; 0 if it is fine) say what was wrong with
    the job at the tick, if anything.
    """
    observation, plan = live_observation(tick.step.observation), live_plan(tick.step.plan)
    history = observation.arrivals_per_min
    columns = {
        "before": observation.target,
        "running": observation.running,
        "after": tick.step.target,
        "drop": plan.drop,
        "observed_rps": history[:, -1] / MINUTE_S if history.shape[1] else None,
        "failed_per_min": observation.failed_per_min,
        "cancelled_per_min": observation.cancelled_per_min,
        "forecast_rps": plan.forecast_rps,
        "observed_tail_latency_s": observation.tail_latency_s,
        "first_token_s": observation.first_token_s,
        "per_token_s": observation.per_token_s,
        "goodput_rps": observation.goodput_rps,
        "predicted_tail_latency_s": plan.predicted_tail_latency_s,
        "marginal_value_up": plan.marginal_value_up,
        "marginal_value_down": plan.marginal_value_down,
        "service_factor": plan.service_factor,
        "service_factor_error": plan.service_factor_error,
    }
    rows = []
    for n, job in enumerate(header.jobs):
        row: dict[str, Any] = {"job": job.name}
        for name, column in columns.items():
            row[name] = math.nan if column is None else column[n].item()
        now = tick.troubled.get(job.name, Trouble(FINE, "", 0.0))
        row["assumed_service_s"] = job.busy_s
        row["per_token_slo_s"] = _per_token_slo_s(job)
        row |= {"slo_s": job.slo_s, "reason": plan.reason[n], "state": now.state}
        row |= {"state_reason": now.reason, "state_since_s": now.since_s}
        rows.append(row)
    return rows


def _per_token_slo_s(job: Job) -> float:
    """The limit on the time per later token of a job with an SLO on both; NaN for others."""
    weight = getattr(job.replica, "per_token_weight", 0.0)
    return job.slo_s / weight if weight else math.nan


def placements_explained(header: Header, tick: Tick) -> list[dict[str, Any]]:
    """One dict per pool: which models its replicas should hold, and why; [] without a placement.

    pool : its name.
    replicas : models of a replica, home first -> number of such replicas.
    loads : job -> (expected load of what is not refused, in erlangs; replicas that hold its model).
    tightest : the jobs whose need is the largest share of the replicas that hold one of their
        models; () if no forecast is known.
    need, reach : replicas that these jobs need, and that hold one of their models.
    """
    plan, jobs = tick.step.plan, header.jobs
    placements = plan.placement or tick.step.observation.placement or {}
    rows: list[dict[str, Any]] = []
    for pool in pools_of(jobs):
        placement = placements.get(pool.name)
        if placement is None or not pool.shared:
            continue
        members = list(pool.jobs)
        names = [jobs[n].name for n in members]
        load = np.full(len(members), math.nan)
        if plan.forecast_rps is not None:
            served = plan.forecast_rps[members] * (1 - plan.drop[members])
            load = served * arrays_of(jobs).busy_s[members]
        copies = placement.resident.sum(axis=0).tolist()
        tightest, need, reach = _tightest(placement, load)
        row: dict[str, Any] = {"pool": pool.name, "replicas": _counted(placement, names)}
        row["loads"] = {name: (float(one), n) for name, one, n in zip(names, load, copies)}
        row |= {"tightest": tuple(names[n] for n in tightest), "need": need, "reach": reach}
        rows.append(row)
    return rows


def _counted(placement: Placement, names: list[str]) -> dict[tuple[str, ...], int]:
    """Number of replicas with each set of models, home first."""
    counts: dict[tuple[str, ...], int] = {}
    for home, resident in zip(placement.home.tolist(), placement.resident):
        others = (names[n] for n in np.flatnonzero(resident).tolist() if n != home)
        key = (names[home], *others)
        counts[key] = counts.get(key, 0) + 1
    return counts


def _tightest(placement: Placement, load: np.ndarray) -> tuple[tuple[int, ...], float, int]:
    """(jobs, replicas that they need, replicas that hold one) of the set with the most pressure.

    A set with load L needs L + sqrt(L) replicas (`faro_lib.sharing.placement`). In a large pool,
    only single jobs are compared.
    """
    jobs = len(load)
    if not np.isfinite(load).all():
        return (), math.nan, 0
    sizes = range(1, jobs + 1) if jobs <= MOST_JOBS else (1,)
    sets = [one for size in sizes for one in combinations(range(jobs), size)]

    def pressure(of: tuple[int, ...]) -> tuple[float, int]:
        total = float(load[list(of)].sum())
        reach = int(placement.resident[:, list(of)].any(axis=1).sum())
        return total + SPARE * math.sqrt(total), reach

    def share(of: tuple[int, ...]) -> float:
        need, reach = pressure(of)
        return need / reach if reach else (math.inf if need else 0.0)

    worst = max(sets, key=share)
    return worst, *pressure(worst)

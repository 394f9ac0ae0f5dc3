"""What a run was worth: utilities and violations by job and minute, their summaries, and the clairvoyant limit.

Conventions of the paper's evaluation (EuroSys'25, section 6.1, and its artifact); see `lost_utility`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from faro_lib.policies.baselines import Fixed
from faro_lib.simulate import Draws, Physics, Run, simulate
from faro_lib.simulate.cluster import PAPER
from faro_lib.utility import precise_drop_penalty, relaxed_utility
from faro_lib.workload import Workload, jobs_array
from faro_lib.workload.jobs import MINUTE_S

if TYPE_CHECKING:
    import pandas as pd

SUMMARY = (
    "lost_utility",
    "lost_utility_360",
    "slo_violation_rate",
    "lost_effective_utility",
    "drop_rate",
    "replicas_used_mean",
    "decision_ms_p50",
    "decision_ms_p99",
    "requests",
    "wall_s",
)


def minute_utility(run: Run) -> np.ndarray:
    """Relaxed utility (a = 1) of each job-minute's percentile of latency, (jobs, minutes + 1); NaN without requests."""
    slo_s = jobs_array(run.workload.jobs, "slo_s")[:, None]
    empty = run.requests == 0
    return np.where(empty, np.nan, relaxed_utility(np.where(empty, slo_s, run.p99_s), slo_s))


def minute_effective_utility(run: Run) -> np.ndarray:
    """Effective utility phi(drop) x U of what was served, (jobs, minutes + 1); NaN without requests.

    U is that of the requests that were served, so that a refusal costs its penalty once and not its latency besides.
    """
    return _effective(run.requests, run.refused, run.served_p99_s, jobs_array(run.workload.jobs, "slo_s"))


def _effective(requests, refused, served_p99_s, slo_s):
    drop = refused / np.maximum(requests, 1)
    slo_s = slo_s[:, None]
    nobody_served = np.isnan(served_p99_s)
    utility = relaxed_utility(np.where(nobody_served, slo_s, served_p99_s), slo_s)
    value = precise_drop_penalty(drop) * np.where(nobody_served, 0.0, utility)
    return np.where(requests == 0, np.nan, value)


def lost_utility(utility: np.ndarray) -> float:
    """The published convention: J - (sum of the jobs' utilities over all bins) / bins, an empty job-minute counting 0.

    There is one bin more than minutes (arrivals that overran the last one), so its floor is 0.02 to 0.03.

    Parameters
    ----------
    utility : (jobs, minutes + 1), NaN without requests.
    """
    jobs, bins = utility.shape
    return float(jobs - np.nansum(utility) / bins)


def lost_utility_360(utility: np.ndarray) -> float:
    """Lost utility over the minutes proper; a job-minute without requests loses nothing."""
    proper = utility[:, :-1]
    return float(np.nansum(1 - proper) / proper.shape[1])


def slo_violation_rate(run: Run) -> float:
    """Mean over bins of the mean over jobs with arrivals of the fraction of requests refused or late."""
    violated = (run.refused + run.late) / np.maximum(run.requests, 1)
    return mean_over_jobs_then_bins(np.where(run.requests == 0, np.nan, violated))


def mean_over_jobs_then_bins(rate: np.ndarray) -> float:
    """(jobs, bins) -> scalar; NaN = no arrivals; bins in which nobody asked for anything do not count."""
    asked = ~np.isnan(rate)
    jobs_asked = asked.sum(axis=0)
    bins = jobs_asked > 0
    return float((np.nansum(rate, axis=0)[bins] / jobs_asked[bins]).mean())


def summarize(run: Run) -> dict[str, float]:
    """The columns of simulate/summary.csv that belong to one run."""
    utility = minute_utility(run)
    decision_ms = 1e3 * np.array(run.decisions.seconds or [0.0])
    running = np.array(run.decisions.running or [run.initial])
    return {
        "lost_utility": lost_utility(utility),
        "lost_utility_360": lost_utility_360(utility),
        "slo_violation_rate": slo_violation_rate(run),
        "lost_effective_utility": lost_utility(minute_effective_utility(run)),
        "drop_rate": float(run.refused.sum() / max(1, run.requests.sum())),
        "replicas_used_mean": float(running.sum(axis=1).mean()),
        "decision_ms_p50": float(np.quantile(decision_ms, 0.5)),
        "decision_ms_p99": float(np.quantile(decision_ms, 0.99)),
        "requests": int(run.requests.sum()),
        "wall_s": run.wall_s,
    }


def minutes_frame(run: Run) -> pd.DataFrame:
    """One row a job and minute: the columns of simulate/minutes.parquet that belong to one run."""
    import pandas as pd

    jobs, bins = run.requests.shape
    return pd.DataFrame(
        {
            "job": np.repeat([job.name for job in run.workload.jobs], bins),
            "minute": np.tile(np.arange(bins, dtype=np.int32), jobs),
            "requests": run.requests.ravel(),
            "dropped": run.refused.ravel(),
            "late": run.late.ravel(),
            "p99_s": run.p99_s.ravel(),
            "utility": minute_utility(run).ravel(),
            "effective_utility": minute_effective_utility(run).ravel(),
        }
    )


def decisions_frame(run: Run) -> pd.DataFrame:
    """One row a job and turn in which its target or drop rate changed or a reason was given: simulate/decisions.parquet."""
    import pandas as pd

    names = np.array([job.name for job in run.workload.jobs])
    if not run.decisions.time_s:
        return pd.DataFrame(
            {"time_s": 0.0, "job": names, "replicas_target": run.initial, "drop_target": 0.0, "reason": "start"}
        )
    time_s = np.concatenate(([0.0], run.decisions.time_s))
    target = np.vstack([run.initial, *run.decisions.target])
    drop = np.vstack([np.zeros(len(names)), *run.decisions.drop])
    reason = np.vstack([np.full(len(names), "start"), *(np.array(turn) for turn in run.decisions.reason)])
    told = reason != "hold"
    told[1:] |= (target[1:] != target[:-1]) | (drop[1:] != drop[:-1])
    turn, job = np.nonzero(told)
    return pd.DataFrame(
        {
            "time_s": time_s[turn],
            "job": names[job],
            "replicas_target": target[turn, job],
            "drop_target": drop[turn, job],
            "reason": reason[turn, job],
        }
    )


def running_by_minute(run: Run) -> np.ndarray:
    """Replicas that serve, as last seen in each minute: (jobs, minutes)."""
    minutes = run.workload.minutes
    if not run.decisions.time_s:
        return np.repeat(run.initial[:, None], minutes, axis=1)
    time_s = np.concatenate(([0.0], run.decisions.time_s))
    running = np.vstack([run.initial, *run.decisions.running])
    seen = np.searchsorted(time_s, MINUTE_S * (1 + np.arange(minutes)), side="right") - 1
    return running[seen].T


def measured_utilities(
    workload: Workload, draws: Draws, most: int, physics: Physics = PAPER
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each job's minute would have been worth with x replicas all day long: utility(job, x, minute), measured.

    Returns
    -------
    utility, violated, effective : (jobs, most + 1, minutes + 1); column 0 is worth nothing.
    """
    jobs, bins = len(workload.jobs), workload.minutes + 1
    utility, effective = np.zeros((jobs, most + 1, bins)), np.zeros((jobs, most + 1, bins))
    violated = np.ones((jobs, most + 1, bins))
    cores = jobs_array(workload.jobs, "cores").sum()
    for replicas in range(1, most + 1):
        run = simulate(workload, Fixed(replicas), replicas * cores, draws=draws, physics=physics)
        utility[:, replicas] = minute_utility(run)
        effective[:, replicas] = minute_effective_utility(run)
        violated[:, replicas] = np.where(
            run.requests == 0, np.nan, (run.refused + run.late) / np.maximum(run.requests, 1)
        )
    return utility, violated, effective


def clairvoyant(utility: np.ndarray, violated: np.ndarray, capacity: int) -> dict[str, float]:
    """The limit: reallocate every minute, without delay, knowing what each minute would be worth (paper/faro.md, section 5).

    Parameters
    ----------
    utility, violated : (jobs, columns, bins) of `measured_utilities`; every replica takes one core.

    Returns
    -------
    lost_utility, slo_violation_rate of the allocation that maximises the sum of utilities minute by minute.
    """
    replicas = best_by_minute(np.nan_to_num(utility), capacity)
    jobs, bins = replicas.shape
    chosen = (np.arange(jobs)[:, None], replicas, np.arange(bins)[None])
    return {
        "lost_utility": lost_utility(utility[chosen]),
        "slo_violation_rate": mean_over_jobs_then_bins(violated[chosen]),
    }


def best_by_minute(value: np.ndarray, capacity: int) -> np.ndarray:
    """Allocation of at most `capacity` replicas that maximises the sum of values, minute by minute.

    Dynamic programming over the budget, all minutes at once, so it need not build a table for each.

    Parameters
    ----------
    value : (jobs, columns, bins).

    Returns
    -------
    int (jobs, bins), at least 1 each.
    """
    jobs, columns, bins = value.shape
    if capacity < jobs:
        raise ValueError(f"capacity={capacity} is less than one replica for each of {jobs} jobs")
    best = np.zeros((capacity + 1, bins))
    choices = np.zeros((jobs, capacity + 1, bins), np.int64)
    for job in range(jobs):
        after = np.full_like(best, -np.inf)
        for x in range(1, min(columns - 1, capacity) + 1):
            with_x = best[: capacity + 1 - x] + value[job, x]
            better = with_x > after[x:]
            after[x:][better] = with_x[better]
            choices[job, x:][better] = x
        best = after
    left = np.full(bins, capacity)
    replicas = np.zeros((jobs, bins), np.int64)
    for job in reversed(range(jobs)):
        replicas[job] = choices[job, left, np.arange(bins)]
        left = left - replicas[job]
    return replicas

"""What a run was worth: utilities and violations by job and minute, and their summary.

Conventions of the paper's evaluation (EuroSys'25, section 6.1, and its artifact); see `lost_utility`.
"""

from __future__ import annotations

import numpy as np

from faro_lib.simulate import Run
from faro_lib.utility import precise_drop_penalty, relaxed_utility
from faro_lib.workload import jobs_array


def minute_utility(run: Run) -> np.ndarray:
    """Relaxed utility (a = 1) of each job-minute's percentile of latency, (jobs, minutes + 1); NaN without requests."""
    slo_s = jobs_array(run.workload.jobs, "slo_s")[:, None]
    empty = run.requests == 0
    return np.where(empty, np.nan, relaxed_utility(np.where(empty, slo_s, run.tail_latency_s), slo_s))


def minute_effective_utility(run: Run) -> np.ndarray:
    """Effective utility phi(drop) x U of what was served, (jobs, minutes + 1); NaN without requests.

    U is that of the requests that were served, so that a refusal costs its penalty once and not its latency besides.
    """
    return _effective(run.requests, run.dropped, run.served_tail_latency_s, jobs_array(run.workload.jobs, "slo_s"))


def _effective(requests, dropped, served_tail_latency_s, slo_s):
    drop = dropped / np.maximum(requests, 1)
    slo_s = slo_s[:, None]
    nobody_served = np.isnan(served_tail_latency_s)
    utility = relaxed_utility(np.where(nobody_served, slo_s, served_tail_latency_s), slo_s)
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


def lost_utility_excl_overrun(utility: np.ndarray) -> float:
    """Lost utility over the minutes proper; a job-minute without requests loses nothing."""
    proper = utility[:, :-1]
    return float(np.nansum(1 - proper) / proper.shape[1])


def slo_violation_rate(run: Run) -> float:
    """Mean over bins of the mean over jobs with arrivals of the fraction of requests refused or late."""
    violated = (run.dropped + run.slo_missed) / np.maximum(run.requests, 1)
    return mean_over_jobs_then_bins(np.where(run.requests == 0, np.nan, violated))


def mean_over_jobs_then_bins(rate: np.ndarray) -> float:
    """(jobs, bins) -> scalar; NaN = no arrivals; bins in which nobody asked for anything do not count."""
    asked = ~np.isnan(rate)
    jobs_asked = asked.sum(axis=0)
    bins = jobs_asked > 0
    return float((np.nansum(rate, axis=0)[bins] / jobs_asked[bins]).mean())


def planning_ms(run: Run) -> np.ndarray:
    """Milliseconds of every tick that planned; of every tick, where no plan says what rate it expects.

    A policy that plans once a minute does next to nothing in the ticks between, which would hide how long its plans take.
    """
    decision_ms = 1e3 * np.array(run.decisions.seconds or [0.0])
    planned = np.array([rate is not None for rate in run.decisions.forecast_rps], bool)
    return decision_ms[planned] if planned.any() else decision_ms


def summarize(run: Run) -> dict[str, float]:
    """The columns of simulate/summary.csv that belong to one run."""
    utility = minute_utility(run)
    decision_ms = planning_ms(run)
    running = np.array(run.decisions.running or [run.initial])
    return {
        "lost_utility": lost_utility(utility),
        "lost_utility_excl_overrun": lost_utility_excl_overrun(utility),
        "slo_violation_rate": slo_violation_rate(run),
        "lost_effective_utility": lost_utility(minute_effective_utility(run)),
        "drop_rate": float(run.dropped.sum() / max(1, run.requests.sum())),
        "replicas_used_mean": float(running.sum(axis=1).mean()),
        "decision_ms_p50": float(np.quantile(decision_ms, 0.5)),
        "decision_ms_p99": float(np.quantile(decision_ms, 0.99)),
        "requests": int(run.requests.sum()),
        "wall_s": run.wall_s,
    }

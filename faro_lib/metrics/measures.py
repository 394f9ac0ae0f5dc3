"""Utilities, SLO violations and drops of a run, as in EuroSys'25, section 6.1."""

import numpy as np

from faro_lib.simulate import Run
from faro_lib.utility import precise_drop_penalty, relaxed_utility
from faro_lib.workload import arrays_of


def minute_utility(run: Run) -> np.ndarray:
    """Utility min(1, SLO / latency), (jobs, minutes + 1); NaN without requests.

    The last column is for requests after the day.
    """
    slo_s = arrays_of(run.workload.jobs).slo_s[:, None]
    empty = run.requests == 0
    utility = relaxed_utility(np.where(empty, slo_s, run.tail_latency_s), slo_s)
    return np.where(empty, np.nan, utility)


def minute_effective_utility(run: Run) -> np.ndarray:
    """Effective utility phi(drop rate) x U, (jobs, minutes + 1); NaN without requests.

    U is the utility of the served requests alone, so that a dropped request counts once, through
    the penalty phi.
    """
    slo_s = arrays_of(run.workload.jobs).slo_s[:, None]
    served = ~np.isnan(run.served_tail_latency_s)
    utility = relaxed_utility(np.where(served, run.served_tail_latency_s, slo_s), slo_s)
    penalty = precise_drop_penalty(run.dropped / np.maximum(run.requests, 1))
    effective = penalty * np.where(served, utility, 0.0)
    return np.where(run.requests == 0, np.nan, effective)


def lost_utility(utility: np.ndarray) -> float:
    """Lost cluster utility: 1 - `utility`, summed over the jobs, as a mean over the day's minutes.

    `utility` is (jobs, minutes + 1). NaN (no requests) adds no loss. The last column (after the
    day) is left out.
    """
    minutes = utility[:, :-1]
    return float(np.nansum(1 - minutes) / minutes.shape[1])


def lost_utility_published(utility: np.ndarray) -> float:
    """Lost cluster utility as the paper computes it: jobs - (sum of `utility`) / columns.

    Minutes without requests count as lost. Most jobs have no requests in the last column, so even a
    perfect run on the published traces has a loss of 0.01 to 0.02, by trial. Use this function
    only to compare with published losses.
    """
    jobs, bins = utility.shape
    return float(jobs - np.nansum(utility) / bins)


def slo_violation_rate(run: Run) -> float:
    """Share of requests that were dropped or missed the SLO.

    It is the mean over the jobs in each minute, then over the minutes. Jobs and minutes without
    requests do not count. A run without requests has the rate 0.
    """
    busy = run.requests > 0
    rate = np.where(busy, (run.dropped + run.slo_missed) / np.maximum(run.requests, 1), 0.0)
    minutes = busy.any(axis=0)
    if not minutes.any():
        return 0.0
    return float((rate.sum(axis=0)[minutes] / busy.sum(axis=0)[minutes]).mean())


def planning_ms(run: Run) -> np.ndarray:
    """Durations in ms of the ticks whose plan has a forecast, or of all ticks if none has one.

    Other ticks take almost no time, so including them would hide how long planning takes.
    """
    decision_ms = 1e3 * np.array(run.decisions.seconds or [0.0])
    planned = np.array([rate is not None for rate in run.decisions.forecast_rps], bool)
    return decision_ms[planned] if planned.any() else decision_ms


def summarize(run: Run, published: bool = False) -> dict[str, float]:
    """The measures of a run by column name of summary.csv.

    `published` adds the losses as the paper computes them.
    """
    utility = minute_utility(run)
    effective = minute_effective_utility(run)
    decision_ms = planning_ms(run)
    measures = {
        "lost_utility": lost_utility(utility),
        "slo_violation_rate": slo_violation_rate(run),
        "lost_effective_utility": lost_utility(effective),
        "drop_rate": float(run.dropped.sum() / max(1, run.requests.sum())),
        "replicas_used_mean": float(np.sum(run.decisions.running or [run.initial], axis=1).mean()),
        "decision_ms_p50": float(np.quantile(decision_ms, 0.5)),
        "decision_ms_p99": float(np.quantile(decision_ms, 0.99)),
        "requests": int(run.requests.sum()),
        "wall_s": run.wall_s,
    }
    if published:
        measures["lost_utility_published"] = lost_utility_published(utility)
        measures["lost_effective_utility_published"] = lost_utility_published(effective)
    return measures

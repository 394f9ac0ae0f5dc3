"""The tables of a run, and the summary of several."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from faro_lib.experiments.trials import Report, run_trials, trial_draws
from faro_lib.metrics.measures import minute_effective_utility, minute_utility, summarize
from faro_lib.policies import Policy
from faro_lib.protocol import HOLD, START
from faro_lib.simulate import Run
from faro_lib.simulate.run import EXPLANATIONS
from faro_lib.workload import Job, Workload
from faro_lib.workload.jobs import MINUTE_S
from studies.tables.frames import Tables


def tables_of(run: Run, key: Mapping[str, Any], published: bool = False, **notes: Any) -> Tables:
    """Summary, minute and decision tables of one run.

    `key` has the columns that identify the run, such as policy and trial; `notes` are additional
    columns of the summary.
    """
    summary = pd.DataFrame([{**key, **summarize(run, published), **notes}])
    return Tables(summary, with_key(minutes_frame(run), key), with_key(decisions_frame(run), key))


def with_key(frame: pd.DataFrame, key: Mapping[str, Any]) -> pd.DataFrame:
    """Add one constant column per entry of `key` before the columns of `frame`."""
    return frame.assign(**key)[[*key, *frame.columns]]


def minutes_frame(run: Run) -> pd.DataFrame:
    """Requests, drops, tail latency and utilities of a run, one row per job and minute."""
    return by_minute(
        run.workload.jobs,
        requests=run.requests,
        dropped=run.dropped,
        slo_missed=run.slo_missed,
        tail_latency_s=run.tail_latency_s,
        utility=minute_utility(run),
        effective_utility=minute_effective_utility(run),
    )


def by_minute(jobs: tuple[Job, ...], **columns: np.ndarray) -> pd.DataFrame:
    """A table with one row per job and minute, and one column per array (jobs, minutes)."""
    minutes = next(iter(columns.values())).shape[1]
    index = {
        "job": np.repeat([job.name for job in jobs], minutes),
        "minute": np.tile(np.arange(minutes, dtype=np.int32), len(jobs)),
    }
    return pd.DataFrame(index | {name: column.ravel() for name, column in columns.items()})


def decisions_frame(run: Run) -> pd.DataFrame:
    """Decisions of a run, with at most one row per job and tick.

    A row is kept if the target or drop rate changes, the reason is not HOLD, or the policy predicts
    a tail latency. The columns EXPLANATIONS are NaN where the policy does not report them.
    """
    names = np.array([job.name for job in run.workload.jobs])
    decisions = run.decisions
    time_s = np.concatenate(([0.0], decisions.time_s))
    # (ticks + 1, jobs); the first row is the start of the run
    target = np.vstack([run.initial, *decisions.target])
    drop = np.vstack([np.zeros(len(names)), *decisions.drop])
    reason = np.vstack([np.full(len(names), START), *(np.array(tick) for tick in decisions.reason)])
    unknown = np.full(len(names), np.nan)
    explained = {}
    for column in EXPLANATIONS:
        ticks = [unknown if tick is None else tick for tick in getattr(decisions, column)]
        explained[column] = np.vstack([unknown, *ticks])
    reported = (reason != HOLD) | ~np.isnan(explained["predicted_tail_latency_s"])
    reported[1:] |= (target[1:] != target[:-1]) | (drop[1:] != drop[:-1])
    tick, job = np.nonzero(reported)
    columns = {"replicas_target": target, "drop_target": drop, "reason": reason} | explained
    rows = {name: values[tick, job] for name, values in columns.items()}
    return pd.DataFrame({"time_s": time_s[tick], "job": names[job]} | rows)


def running_by_minute(run: Run) -> np.ndarray:
    """Running replicas at the last observation in each minute, int (jobs, minutes)."""
    time_s = np.concatenate(([0.0], run.decisions.time_s))
    running = np.vstack([run.initial, *run.decisions.running])
    end_s = MINUTE_S * (1 + np.arange(run.workload.minutes))
    return running[np.searchsorted(time_s, end_s, side="right") - 1].T


def summaries(
    workload: Workload,
    policies: Mapping[str, Policy],
    capacity: int,
    trials: int,
    *,
    scv_factor: float = 1.0,
    published: bool = False,
    initial: np.ndarray | None = None,
    report: Report | None = print,
) -> pd.DataFrame:
    """Run every policy on the same trials and return the summary: one row per policy and trial.

    scv_factor : factor on the squared coefficient of variation of service times, as in
        `simulate.draw`.
    published : whether to add the losses as the paper computes them.
    initial : as in `run_trials`.
    """
    draws = trial_draws(workload, trials, scv_factor=scv_factor)
    runs = run_trials(workload, policies, capacity, draws, initial=initial, report=report)
    return pd.DataFrame([trial.key | summarize(trial.run, published) for trial in runs])

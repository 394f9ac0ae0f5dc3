"""How the options of our edition are chosen: on training days, by what was learnt from the days before all of them.

    python -m faro_lib.experiments.tuning --raw data/raw --out choices.csv

The evaluation day is never opened. docs/choices.md has the table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.remaining import remaining
from faro_lib.metrics.measures import minute_utility, summarize
from faro_lib.policies import PolicyContext
from faro_lib.policies.faro import FALLBACK_MODEL, tuned
from faro_lib.policies.protocol import Policy
from faro_lib.simulate import TRIAL_SEEDS, draw, simulate
from faro_lib.simulate.measure import measure
from faro_lib.workload import Traces
from faro_lib.workload.tables import load_workload

# The last training days carry about 0.88 of the evaluation day's load, so that these stand for its 36, 32 and 16.
DAYS, PHASES, SIZES = (9, 10), (0, 2), (32, 28, 14)
CHOSEN = "chosen"


def alternatives(context: PolicyContext, other: PolicyContext) -> dict[str, Policy]:
    """What was chosen, and what differs from it by one option; `other` has another forecaster."""
    changes: dict[str, dict] = {
        "no nowcast": {"nowcast": False},
        "decides 40 s into a minute": {"phase_s": 40.0},
        "decides every second minute": {"interval_s": 120.0},
        "grown jobs cold for 1 minute of the horizon": {"cold_start_minutes": 1.0},
        "grown jobs cold for 1.5 minutes": {"cold_start_minutes": 1.5},
        "horizon of 5 minutes": {"horizon_minutes": 5},
        "horizon of 8 minutes": {"horizon_minutes": 8},
        "moves are free": {"switching_cost": 0.0},
        "a move costs 0.02": {"switching_cost": 0.02},
        "a move costs 0.06": {"switching_cost": 0.06},
        "no reactive loop": {"reactive": False},
        "half of M/M/c": {"latency_model": "half-mmc"},
        "M/G/c by correction": {"latency_model": FALLBACK_MODEL},
    }
    fair: dict[str, dict] = {
        "FairSum: a move costs 0.01": {"switching_cost": 0.01},
        "FairSum: a move costs 0.1": {"switching_cost": 0.1},
        "FairSum: spread weighed by the number of jobs": {"gamma": None},
        "FairSum: no deficit_weighting": {"deficit_weighting": 0.0},
        "FairSum: deficit_weighting 2": {"deficit_weighting": 2.0},
    }
    return {
        CHOSEN: tuned(context),
        **{name: tuned(context, **change) for name, change in changes.items()},
        "pooled autoregression": tuned(other),
        f"FairSum: {CHOSEN}": tuned(context, "FairSum"),
        **{name: tuned(context, "FairSum", **change) for name, change in fair.items()},
        f"Fair: {CHOSEN}": tuned(context, "Fair"),
        "Fair: no deficit_weighting": tuned(context, "Fair", deficit_weighting=0.0),
    }


def measured(
    traces: Traces, policies: Mapping[str, Policy], day: int, phase: int, size: int, seed: int
) -> pd.DataFrame:
    """One day, one phase, one size under every policy: a row each, with the mean utility of the worst job."""
    workload = traces.workload(day, phase)
    draws = draw(workload, seed)
    rows = []
    for name, policy in policies.items():
        run = simulate(workload, policy, size, draws=draws)
        worst = float(np.nanmean(minute_utility(run), axis=1).min())
        key = {"option": name, "day": day, "phase": phase, "capacity_cores": size}
        rows.append(key | summarize(run) | {"worst_job": worst})
    return pd.DataFrame(rows)


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Means over days and phases by option and size; what an option loses more than the chosen one, with its standard error.

    Differences are taken run by run, as runs of the same day, phase and size share their requests and draws.

    Returns
    -------
    option, replicas, lost_utility, slo_violation_rate, worst_job, more, more_error.
    """
    runs = ["day", "phase", "capacity_cores"]
    prefix = table["option"].str.extract(r"^(Fair\w*: )", expand=False).fillna("")
    base = table[table["option"] == prefix + CHOSEN].assign(prefix=prefix)
    table = table.assign(prefix=prefix).merge(
        base[[*runs, "prefix", "lost_utility"]], on=[*runs, "prefix"], suffixes=("", "_chosen")
    )
    table["more"] = table["lost_utility"] - table["lost_utility_chosen"]
    by = table.groupby(["option", "capacity_cores"], sort=False)
    means = by[["lost_utility", "slo_violation_rate", "worst_job", "more"]].mean()
    return means.assign(more_error=by["more"].sem(ddof=1)).reset_index()


def _remaining(traces: Traces, context: PolicyContext, day: int, phase: int, size: int, seed: int) -> pd.DataFrame:
    workload = traces.workload(day, phase)
    return remaining(workload, context, size, draw(workload, seed)).assign(day=day, phase=phase, replicas=size)


def kits(traces: Traces, posterior: forecast.Posterior) -> tuple[PolicyContext, PolicyContext]:
    """With the Bayesian forecaster, and with the pooled autoregression; both have seen the days before DAYS only."""
    jobs, latency_model = traces.jobs, measure(traces.jobs)
    before = traces.until(min(DAYS))
    return tuple(  # type: ignore[return-value]
        PolicyContext(jobs, forecaster=forecaster, latency_model=latency_model)
        for forecaster in (forecast.fit("bayes", before, posterior=posterior), forecast.fit("ar", before))
    )


def fitted(traces: Traces, draws: int = 500) -> forecast.Posterior:
    """The posterior of the days before DAYS."""
    from faro_lib import bayes

    before = traces.until(min(DAYS))
    return bayes.posterior_of(bayes.fit_bayes(before, draws=draws, tune=draws, chains=4), before)


def gathered(runs: Sequence[Future[pd.DataFrame]], out: Path) -> pd.DataFrame:
    """All rows, in the order of `runs`, written to `out`; until the last is there they stand in out.partial.csv."""
    partial = out.with_suffix(f".partial{out.suffix}")
    for done, _ in enumerate(as_completed(runs), 1):
        table = pd.concat([run.result() for run in runs if run.done()], ignore_index=True)
        table.to_csv(partial, index=False)
        print(f"{done} of {len(runs)} days, phases and sizes", file=sys.stderr, flush=True)
    partial.replace(out)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", default="data/raw", help="folder of the published traces (`make data`)")
    parser.add_argument("--out", type=Path, default=Path("choices.csv"))
    parser.add_argument("--seed", type=int, default=TRIAL_SEEDS[0])
    parser.add_argument("--workers", type=int, default=2)
    told = parser.parse_args(arguments)
    traces = load_workload("faro-10jobs", raw=told.raw)
    context, other = kits(traces, fitted(traces))
    policies = alternatives(context, other)
    cases = list(product(DAYS, PHASES, SIZES))
    with ProcessPoolExecutor(told.workers) as pool:
        runs = [pool.submit(measured, traces, policies, *case, told.seed) for case in cases]
        parts = [pool.submit(_remaining, traces, context, *case, told.seed) for case in cases]
        table = gathered(runs, told.out)
        made_of = pd.concat([part.result() for part in parts], ignore_index=True)
    print(differences(table).round(4).to_string(index=False))
    print(made_of.groupby(["part", "capacity_cores"], sort=False)["lost_utility"].mean().unstack().round(3).to_string())


if __name__ == "__main__":
    main()

"""The brake of `faro run`: what it costs without faults, and what it saves when data is wrong.

    python -m studies.adoption.brake [--raw data/raw] [--days 9 10]

Faro-Sum serves days 9 and 10 of the published traces, which are training days; its forecaster is
fitted to the days before. Once an hour, one of these faults lasts two minutes: the capacity is
reported as half, one job's requests are counted three times, or one job's or all jobs' requests are
not counted. The reports are wrong, the cluster is not. docs/reliability.md explains the brake.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.trials import trial_draws
from faro_lib.metrics.measures import summarize
from faro_lib.policies import PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.protocol import Observation
from faro_lib.simulate import SimulatedCluster
from faro_lib.simulate.cluster import PAPER
from faro_lib.simulate.measure import measure
from faro_lib.simulate.run import Decisions, evaluate_run
from faro_lib.workload import PUBLISHED
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.shares import fair_share
from faro_lib.workload.tables import load_workload
from faro_ops.operate.loop.loop import run
from faro_ops.protocol import LiveGuardrails

SHARES = (None, 0.5, 0.2, 0.1, 0.0)
CAPACITY_CORES = 36.0
FAULTS = ("none", "half the capacity", "one count x 3", "one count is 0", "all counts are 0")
FALSE_MINUTES = (30, 31)  # of each hour


class FalseReports(SimulatedCluster):
    """A simulated cluster whose observations are wrong in FALSE_MINUTES."""

    fault = "none"

    def observe(self) -> Observation:
        seen = super().observe()
        false_now = seen.now_s // MINUTE_S % 60 in FALSE_MINUTES
        if self.fault == "half the capacity" and false_now:
            return replace(seen, capacity=seen.capacity / 2)
        if "count" not in self.fault:
            return seen
        counts = seen.arrivals_per_min.astype(float)
        minutes = np.arange(seen.minute - counts.shape[1], seen.minute)
        for column in np.flatnonzero(np.isin(minutes % 60, FALSE_MINUTES)):
            counts[:, column] *= self.factor(minutes[column] // 60)
        now = seen.arrivals_now
        if now is not None and false_now:
            now = now * self.factor(int(seen.now_s // 3600))
        return replace(seen, arrivals_per_min=counts, arrivals_now=now)

    def factor(self, hour: int) -> np.ndarray:
        """By what each job's requests are multiplied in this hour, (jobs,)."""
        jobs = len(self.workload.jobs)
        if self.fault == "all counts are 0":
            return np.zeros(jobs)
        return np.where(np.arange(jobs) == hour % jobs, 3.0 if "x 3" in self.fault else 0.0, 1.0)


def day_of(case: tuple[str, int, str, float | None]) -> dict[str, object]:
    """One simulated day: its lost utility, SLO violations and removed replicas."""
    raw, day, fault, share = case
    capacity = CAPACITY_CORES
    traces = load_workload(PUBLISHED, raw=raw).until(day)
    policy = tuned(PolicyContext(traces.jobs, forecast.fit("auto", traces), measure(traces.jobs)))
    workload = traces.workload()
    initial = fair_share(workload.jobs, capacity)
    (draws,) = trial_draws(workload, 1)
    cluster = FalseReports(workload, draws, capacity, initial, PAPER)
    cluster.fault = fault
    decisions = Decisions()
    run(
        cluster,
        policy,
        workload.jobs,
        workload.minutes * MINUTE_S,
        guardrails=LiveGuardrails(max_scale_down=share),
        on_step=decisions.append,
    )
    cluster.finish()
    measures = summarize(
        evaluate_run(
            workload, capacity, cluster.latency_s, cluster.minute_edges, initial, decisions, 0.0
        )
    )
    target = np.asarray(decisions.target)
    return {
        "fault": fault,
        "share": "none" if share is None else f"{share:g}",
        "day": day,
        "lost_utility": measures["lost_utility"],
        "slo_violations": measures["slo_violation_rate"],
        "removed": int(np.maximum(-np.diff(target, axis=0), 0).sum()),
    }


def main() -> None:
    """Print the mean over days, one row per fault and share."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = "folder of the published traces (`make data`)"
    parser.add_argument("--raw", default="data/raw", help=folder)
    parser.add_argument("--days", type=int, nargs="+", default=[9, 10], help="training days")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    cases = product((options.raw,), options.days, FAULTS, SHARES)
    with ProcessPoolExecutor(options.workers) as pool:
        table = pd.DataFrame(pool.map(day_of, cases))
    by = ["fault", "share"]
    values = ["lost_utility", "slo_violations", "removed"]
    means = table.groupby(by, sort=False)[values].mean()
    none = table[table["share"] == "none"].set_index(["fault", "day"])["lost_utility"]
    keys = pd.MultiIndex.from_frame(table[["fault", "day"]])
    table["difference"] = table["lost_utility"].to_numpy() - none.loc[keys].to_numpy()
    difference = table.groupby(by, sort=False)["difference"].mean()
    print(means.assign(difference=difference).round(4).to_string())


if __name__ == "__main__":
    main()

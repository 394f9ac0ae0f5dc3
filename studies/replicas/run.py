"""Jobs with different kinds of replica: what does Faro lose if it assumes serial ones?

A serial replica serves one request at a time.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.trials import Report, run_trials, trial_draws
from faro_lib.metrics.measures import minute_utility, summarize
from faro_lib.policies import Policy, PolicyContext, make
from faro_lib.policies.platforms import RayServe
from faro_lib.protocol import Assuming
from faro_lib.simulate import ServingModel, SimulatedCluster, draw
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job, Traces, Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import SERIAL, Batched, Continuous
from faro_lib.workload.service import true_busy_s
from studies.tables.paired import t_interval

TOKENS = Continuous(
    0.02, 5e-4, 1e-5, 16, output_tokens=150, prompt_tokens=300, output_cv=0.5, prompt_cv=1.0
)
# Service -> job of an image classifier, a batched image generator, and two text generators.
SERVICES = {
    "classify": Job("service", slo_s=0.72, service_time_s=0.154, service_scv=0.2, model="classify"),
    "images": Job("service", slo_s=2.5, model="images", replica=Batched(4, 0.1, 0.5, 0.1)),
    "chat": Job("service", slo_s=1.0, model="chat", replica=replace(TOKENS, slo_on="first_token")),
    "summaries": Job(
        "service", slo_s=4.0, model="summaries", replica=replace(TOKENS, output_tokens=60.0)
    ),
}
LEADER, ASSUMED, TUNED = "Faro-Sum", "Faro-Sum, serial assumed", "RayServe, tuned"
COUNTS = (1, 2, 3, 4, 6, 8)  # replica counts at which latencies are measured
TUNED_SHARE = 0.5  # the tuned RayServe aims at this share of `max_in_service` in ongoing requests


def mixed(traces: Traces) -> Traces:
    """Replace the jobs by SERVICES in turn.

    Requests are scaled such that each job needs as many replicas as before.
    """
    services = [*SERVICES.values()]
    jobs = tuple(
        replace(services[n % len(services)], name=name) for n, name in enumerate(traces.names)
    )
    # Rounded as in the paper, which gives 0.154 s.
    before_s = [float(f"{true_busy_s(job):.3g}") for job in traces.jobs]
    factor = np.array([busy_s / job.busy_s for busy_s, job in zip(before_s, jobs)])[:, None]
    return Traces(jobs, np.rint(traces.train * factor), np.rint(traces.evaluation * factor))


def serial_profile(job: Job, requests: int = 2000) -> Job:
    """The serial job that a profile at low load suggests.

    Its service time has the mean and variance of the latencies.
    """
    rate_rps = 0.01 / job.busy_s  # a load of 0.01 erlangs
    per_min = MINUTE_S * rate_rps
    counts = np.full((1, int(requests / per_min) + 1), max(1, round(per_min)))
    workload = Workload((job,), counts)
    draws = draw(workload, 1, router=None)
    model = ServingModel("least-outstanding")
    cluster = SimulatedCluster(workload, draws, 1, np.ones(1), model)
    cluster.finish()
    mean_s = cluster.latency_s.mean()
    scv = cluster.latency_s.var() / mean_s**2
    return replace(
        job, replica=SERIAL, service_time_s=float(mean_s), service_scv=float(np.round(scv, 6))
    )


def policies_of(traces: Traces, forecaster: str = "auto") -> dict[str, Policy]:
    """The policies to compare.

    The tuned RayServe has a target per job, TUNED_SHARE x `max_in_service`.
    """
    fitted = forecast.fit(forecaster, traces)
    context = PolicyContext(traces.jobs, fitted, measure(traces.jobs, COUNTS))
    jobs = tuple(serial_profile(job) for job in traces.jobs)
    assumed = make(LEADER, PolicyContext(jobs, fitted, measure(jobs, COUNTS)))
    target = np.array([max(1.0, TUNED_SHARE * job.replica.max_in_service) for job in traces.jobs])
    return {
        "HPA": make("HPA", context),
        "RayServe": make("RayServe", context),
        TUNED: RayServe(ongoing=target, name=TUNED),  # type: ignore[arg-type]
        ASSUMED: Assuming(assumed, jobs, ASSUMED),
        LEADER: make(LEADER, context),
    }


def compare(
    traces: Traces,
    capacities: Sequence[int],
    trials: int,
    minutes: int | None = None,
    forecaster: str = "auto",
    report: Report = print,
) -> pd.DataFrame:
    """Run all policies on the same trials: one row per run.

    The columns are lost utility, in total and by service, and the SLO violation rate. `capacities`
    are in cores; `minutes` is the length of the slice of the evaluation day, None for all of it.
    """
    policies = policies_of(traces, forecaster)
    workload = traces.workload().between(0, minutes or traces.evaluation.shape[-1])
    services = np.array([job.model for job in traces.jobs])
    rows = []
    for capacity in capacities:
        draws = trial_draws(workload, trials)
        for trial in run_trials(workload, policies, capacity, draws, report=report):
            measures = summarize(trial.run)
            row = dict(trial.key)
            row["lost_utility"] = measures["lost_utility"]
            row["slo_violation_rate"] = measures["slo_violation_rate"]
            utility = minute_utility(trial.run)[:, :-1]  # (jobs, full minutes)
            lost = np.nansum(1 - utility, axis=1) / workload.minutes
            for name in SERVICES:
                if name in services:
                    row[f"lost_{name}"] = lost[services == name].sum()
            rows.append(row)
    return pd.DataFrame(rows)


def paired(runs: pd.DataFrame) -> pd.DataFrame:
    """Means by capacity and policy, and the difference from LEADER with its `t_interval`."""
    rows = []
    for (capacity, policy), part in runs.groupby(["capacity_cores", "policy"], sort=False):
        leader = runs[(runs["capacity_cores"] == capacity) & (runs["policy"] == LEADER)]
        lost = part.set_index("trial")["lost_utility"]
        lost_by_leader = leader.set_index("trial")["lost_utility"]
        difference, half = t_interval(lost, lost_by_leader)
        means = part.drop(columns=["policy", "capacity_cores", "trial"]).mean().to_dict()
        row = {"capacity_cores": capacity, "policy": policy, **means}
        row |= {"difference": difference, "half": half}
        rows.append(row | {"ratio": lost_by_leader.mean() / lost.mean()})
    return pd.DataFrame(rows)

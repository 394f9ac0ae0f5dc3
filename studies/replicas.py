"""Jobs with different kinds of replica: what does Faro lose if it assumes that each replica serves
one request at a time?
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
from faro_lib.policies.protocol import Assuming
from faro_lib.simulate import ServingModel, SimulatedCluster, draw
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job, Traces, Workload
from faro_lib.workload.replicas import SERIAL, Batched, Continuous
from faro_lib.workload.service import true_busy_s
from studies.paired import paired_difference

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
    """Replace the jobs by SERVICES in turn, and scale requests such that each job needs as many
    replicas as before.
    """
    services = [*SERVICES.values()]
    jobs = tuple(
        replace(services[n % len(services)], name=name) for n, name in enumerate(traces.names)
    )
    before_s = [
        float(f"{true_busy_s(job):.3g}") for job in traces.jobs
    ]  # rounded as in the paper, which gives 0.154 s
    factor = np.array([busy_s / job.busy_s for busy_s, job in zip(before_s, jobs)])[:, None]
    return Traces(jobs, np.rint(traces.train * factor), np.rint(traces.evaluation * factor))


def serial_profile(job: Job, requests: int = 2000) -> Job:
    """The serial job that a profile at low load suggests: its service time has the mean and
    variance of the latencies.
    """
    rate_rps = 0.01 / job.busy_s
    counts = np.full((1, int(requests / (60 * rate_rps)) + 1), max(1, round(60 * rate_rps)))
    model = ServingModel("least-outstanding")
    cluster = SimulatedCluster(
        Workload((job,), counts),
        draw(Workload((job,), counts), 1, router=None),
        1,
        np.ones(1),
        model,
    )
    cluster.finish()
    mean_s, scv = cluster.latency_s.mean(), cluster.latency_s.var() / cluster.latency_s.mean() ** 2
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
    """Run all policies on the same trials: lost utility, in total and by service, and SLO
    violations; one row per run.

    `capacities` are in cores; `minutes` is the length of the slice of the evaluation day, None for
    all of it.
    """
    policies, workload = (
        policies_of(traces, forecaster),
        traces.workload().between(0, minutes or traces.evaluation.shape[-1]),
    )
    services = np.array([job.model for job in traces.jobs])
    rows = []
    for capacity in capacities:
        for trial in run_trials(
            workload, policies, capacity, trial_draws(workload, trials), report=report
        ):
            measures = summarize(trial.run)
            lost = np.nansum(1 - minute_utility(trial.run)[:, :-1], axis=1) / workload.minutes
            row = trial.key | {
                name: measures[name] for name in ("lost_utility", "slo_violation_rate")
            }
            rows.append(
                row
                | {
                    f"lost_{name}": lost[services == name].sum()
                    for name in SERVICES
                    if name in services
                }
            )
    return pd.DataFrame(rows)


def paired(runs: pd.DataFrame) -> pd.DataFrame:
    """Means by capacity and policy, and mean difference from LEADER with half width of its 95 %
    interval.
    """
    rows = []
    for (capacity, policy), part in runs.groupby(["capacity_cores", "policy"], sort=False):
        leader = runs[(runs["capacity_cores"] == capacity) & (runs["policy"] == LEADER)].set_index(
            "trial"
        )["lost_utility"]
        of_policy = part.set_index("trial")["lost_utility"]
        difference, half = paired_difference(of_policy, leader)
        means = part.drop(columns=["policy", "capacity_cores", "trial"]).mean().to_dict()
        key = {"capacity_cores": capacity, "policy": policy}
        rows.append(
            key
            | means
            | {"difference": difference, "half": half, "ratio": leader.mean() / of_policy.mean()}
        )
    return pd.DataFrame(rows)

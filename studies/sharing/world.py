"""Replicas that several jobs share: what do the walls between services cost?

Rivals place models once, hold them everywhere, or load what was used last. They share the routers
with Faro, so that only decisions differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from faro_lib.experiments.trials import Report, run_trials, trial_draws
from faro_lib.metrics.measures import summarize
from faro_lib.policies import Policy, PolicyContext, make
from faro_lib.protocol import HOLD, Observation, Plan
from faro_lib.sharing.placement import near_shares, place
from faro_lib.simulate import Run, ServingModel
from faro_lib.simulate.cluster import PAPER
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job, Placement, Pool, Traces, arrays_of, pools_of
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.pools import chained
from faro_lib.workload.service import true_busy_s
from studies.sharing.routers import EarlyBinding, LeastRecentlyUsed

POOL = "all"  # the pool of all jobs
ISOLATED, LEADER = "Faro-Sum, isolated", "Faro-Sum"
# As Clockwork (OSDI'20): every replica holds every model, and the earliest deadline goes first.
EVERYWHERE = "Everything everywhere"
# As AlpaServe (OSDI'23): models are placed once, for the training days' loads.
PLACED_ONCE = "Placed once"
# As Ray Serve's multiplexing: a replica loads what is asked for, and drops what was used least.
LEAST_RECENT = "Least recently used"
PLACEMENT_STEPS = 12  # rounds of improvement of the placement that is made once


def shortage(placement: Placement, loads: np.ndarray) -> np.ndarray:
    """Load that the replicas cannot serve, in erlangs, on each path: (paths, jobs) -> (paths,).

    It is the largest load(S) - (replicas that hold a model of S) over all sets S of jobs.

    >>> isolated = Placement(np.array([0, 1]), np.eye(2, dtype=bool))
    >>> shortage(isolated, np.array([[1.5, 0.5], [1.0, 1.0]])).tolist()
    [0.5, 0.0]
    """
    jobs = np.arange(loads.shape[1])
    of_set = (np.arange(2 ** len(jobs))[:, None] >> jobs) & 1  # (sets, jobs)
    holding = (of_set @ placement.resident.T > 0).sum(axis=1)  # (sets,)
    return (loads @ of_set.T - holding).max(axis=1)


@dataclass(frozen=True, slots=True)
class StaticSharing:
    """A policy that keeps replicas and placements as they are at the start."""

    name: str
    homes: np.ndarray  # (jobs,) replicas at home with each job
    placement: Mapping[str, Placement]
    tick_s: float = 10.0

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        return self.homes

    def start(self, jobs: tuple[Job, ...]) -> None:
        return None

    def decide(self, state: None, observation: Observation) -> tuple[None, Plan]:
        no_drop = np.zeros(len(self.homes))
        plan = Plan(self.homes, no_drop, (HOLD,) * len(self.homes), placement=self.placement)
        return None, plan


def sharing(traces: Traces, models: int, load_s: float = 5.0) -> Traces:
    """The traces with all jobs in one pool, whose replicas hold up to `models` models."""
    jobs = tuple(
        replace(job, pool=POOL, models_per_replica=models, load_s=load_s) for job in traces.jobs
    )
    return replace(traces, jobs=jobs)


def placed_once(traces: Traces, capacity: int) -> tuple[np.ndarray, Mapping[str, Placement]]:
    """(replicas at home with each job, placement) for the loads of the training days' minutes."""
    pool = pools_of(traces.jobs)[0]
    busy_s = np.array([true_busy_s(job) for job in traces.jobs])
    by_minute = np.moveaxis(traces.train[:, 0], 1, 2).reshape(-1, len(traces.jobs))
    loads = by_minute / MINUTE_S * busy_s
    busiest = loads[loads.sum(axis=1) >= np.quantile(loads.sum(axis=1), 0.75)]
    minimum = arrays_of(traces.jobs).min_replicas
    homes = near_shares(loads.mean(axis=0), capacity, minimum)
    placement = chained(pool, homes)
    for _ in range(PLACEMENT_STEPS):
        better = place(pool, capacity, busiest, minimum, placement)
        if (better.resident == placement.resident).all():
            break
        placement = better
    return placement.replicas, {POOL: placement}


def everywhere(pool: Pool, homes: np.ndarray) -> Mapping[str, Placement]:
    """The placement in which each replica holds as many models as it can."""
    return {pool.name: chained(pool, homes)}


def compared(
    traces: Traces,
    context: PolicyContext,
    capacities: Sequence[int],
    models: Sequence[int],
    trials: int,
    minutes: int | None = None,
    report: Report | None = print,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Faro and the rivals on the same trials, and Faro's last placement.

    The first table has a row per policy, models per replica and trial; jobs alone have 1 model per
    replica. The second one has a row for each model in a replica, with the fewest shared models
    and the largest capacity. The forecaster of `context` was fitted to the training days. `minutes`
    is the length of the slice of the evaluation day, None for all of it.
    """
    held = None
    rows = []
    for count in (1, *models):
        of_count = traces if count == 1 else sharing(traces, min(count, len(traces.jobs)))
        table = measure(of_count.jobs, capacity=max(capacities))
        with_table = replace(context, jobs=of_count.jobs, latency_model=table)
        for capacity in capacities:
            for model, policies in policies_of(of_count, with_table, capacity, count):
                workload = of_count.workload().between(0, minutes or of_count.evaluation.shape[-1])
                draws = trial_draws(workload, trials)
                runs = run_trials(
                    workload, policies, capacity, draws, serving_model=model, report=report
                )
                for trial in runs:
                    found = summarize(trial.run, published=True)
                    keys = {"models": count, "router": model.pool_router.name}
                    rows.append(trial.key | keys | found)
                    if held is None and trial.policy == LEADER:
                        held = placement_table(workload.jobs, trial.run)
    return pd.DataFrame(rows), held if held is not None else pd.DataFrame()


def placement_table(jobs: tuple[Job, ...], run: Run) -> pd.DataFrame:
    """The last placement of the pool of all jobs, with a row for each model in a replica."""
    placement = [of_pools for of_pools in run.decisions.placement if of_pools][-1][POOL]
    rows = [
        {"replica": replica, "home": jobs[home].name, "job": jobs[job].name}
        for replica, home in enumerate(placement.home)
        for job in np.flatnonzero(placement.resident[replica])
    ]
    return pd.DataFrame(rows)


def policies_of(
    traces: Traces, context: PolicyContext, capacity: int, models: int
) -> list[tuple[ServingModel, dict[str, Policy]]]:
    """The policies to compare with this number of models per replica, by the router of requests."""
    if models == 1:
        return [(PAPER, {ISOLATED: make("Faro-Sum", context)})]
    leader = make("Faro-Sum", context)
    homes, placement = placed_once(traces, capacity)
    once = StaticSharing(PLACED_ONCE, homes, placement)
    late = {LEADER: leader, PLACED_ONCE: once}
    pool = pools_of(traces.jobs)[0]
    if models >= len(traces.jobs):
        late[EVERYWHERE] = StaticSharing(EVERYWHERE, homes, everywhere(pool, homes))
    early = replace(PAPER, pool_router=EarlyBinding())
    least_recent = replace(PAPER, pool_router=LeastRecentlyUsed())
    return [
        (PAPER, late),
        (early, {LEADER: leader, PLACED_ONCE: once}),
        (least_recent, {LEAST_RECENT: StaticSharing(LEAST_RECENT, homes, placement)}),
    ]

"""The autoscalers that Faro is compared with, each with the settings that an operator could tune.

A rival sees its own CPU: it computes with the service time that its replicas really take
(`true_service_time`), not with the stated one. `RIVALS` has the settings to try;
`studies.rivals.tuning` chooses among them on training days.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faro_lib import protocol
from faro_lib.policies import HPA, Faro, MArk, Observation, Plan, Policy, PolicyContext, RayServe
from faro_lib.policies.baselines import ReactiveState, counts_since
from faro_lib.policies.faro import tuned
from faro_lib.policies.loops import LoopState, TwoLoops
from faro_lib.protocol import Assuming, reasons
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE
from faro_lib.workload.service import true_busy_s, true_service_time
from faro_lib.workload.shares import minimum_replicas


@dataclass(frozen=True, slots=True)
class QueueHPA(HPA):
    """KEDA on queue length: the HPA's rule with a target of ongoing requests per replica.

    desired = ceil(ongoing requests / target), with the HPA's tolerance, limits of scaling up and
    stabilisation window. Source: keda.sh, "Scaling Deployments" (metricType AverageValue).
    """

    ongoing: float = 1.0  # target: requests waiting or in service, per replica
    name: str = "KEDA, queue"

    def recommend(
        self, state: ReactiveState, observation: Observation
    ) -> tuple[np.ndarray, np.ndarray]:
        now, ongoing = observation.target, observation.ongoing
        known = np.isfinite(ongoing)
        pods = np.where(known, ongoing, 0) / self.ongoing
        unchanged = ~known | (np.abs(pods / np.maximum(now, 1) - 1) <= self.tolerance)
        desired = np.ceil(pods - TOLERANCE).astype(np.int64)
        return np.where(unchanged, now, desired), known


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictiveHPA(TwoLoops):
    """An HPA per job on Faro's own forecast: it shares the forecast, and not the allocation.

    replicas = ceil(rate x busy time / utilisation), with a quantile over the sample paths of the
    highest rate of the horizon. It decides each minute, when Faro does.
    """

    faro: Faro  # its forecast is used
    busy_s: np.ndarray  # (jobs,)
    utilisation: float = 0.8
    quantile: float = 0.5
    name: str = "Predictive HPA"

    def plan(self, state: LoopState, observation: Observation) -> Plan:
        if observation.minute >= protocol.HISTORY_MINUTES:
            paths = self.faro.forecast_paths(state, observation).max(axis=2)  # (jobs, samples)
            per_min = np.quantile(paths, self.quantile, axis=1)
        else:
            per_min = np.nanmax(counts_since(state, observation), axis=1)
        rate_rps = np.nan_to_num(per_min) / MINUTE_S
        wanted = np.ceil(rate_rps * self.busy_s / self.utilisation - TOLERANCE).astype(np.int64)
        most = arrays_of(state.jobs).max_replicas
        target = np.clip(wanted, minimum_replicas(state.jobs), most)
        reason = reasons(target, observation.target)
        return Plan(target, np.zeros(len(target)), reason, protocol.PLAN_ATTEMPTS, rate_rps)


def as_measured(jobs: Sequence[Job]) -> tuple[Job, ...]:
    """The jobs with the service times that their replicas really take."""
    return tuple(replace(job, service_time_s=true_service_time(job).mean_s) for job in jobs)


def hpa(context: PolicyContext, **options: Any) -> Policy:
    return Assuming(HPA(**options), as_measured(context.jobs), "HPA")


def ray_serve(context: PolicyContext, **options: Any) -> Policy:
    return RayServe(name="RayServe", **options)


def queue_hpa(context: PolicyContext, **options: Any) -> Policy:
    return QueueHPA(**options)


def mark(context: PolicyContext, load: float, **options: Any) -> Policy:
    """MArk, deciding each minute, with `load` / service time as the rate of a replica.

    MArk's own rate, SLO / service time, suits only jobs whose SLO is a few service times and below
    a second.
    """
    jobs = tuple(
        replace(job, service_time_s=job.service_time_s * job.slo_s / load)
        for job in as_measured(context.jobs)
    )
    policy = MArk(context.require("forecaster", "MArk"), interval_s=60.0, **options)
    return Assuming(policy, jobs, "MArk")


def predictive_hpa(context: PolicyContext, **options: Any) -> Policy:
    faro = tuned(context)
    shared = {name: getattr(faro, name) for name in ("interval_s", "phase_s", "tick_s")}
    busy_s = np.array([true_busy_s(job) for job in context.jobs])
    return PredictiveHPA(forecaster=faro.forecaster, faro=faro, busy_s=busy_s, **shared, **options)


@dataclass(frozen=True, slots=True)
class Rival:
    """A family of policies: how to make one, and the values of each setting, in ascending order."""

    make: Callable[..., Policy]
    settings: Mapping[str, Sequence[float]]
    start: Mapping[str, float]  # from which tuning starts: the defaults


RIVALS = {
    "HPA": Rival(
        hpa,
        {
            "utilisation": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
            "stabilisation_s": (60.0, 300.0, 600.0, 1200.0),
        },
        {"utilisation": 0.8, "stabilisation_s": 300.0},
    ),
    "RayServe": Rival(
        ray_serve,
        {
            "ongoing": (0.25, 0.35, 0.5, 0.6, 0.7, 0.85, 1.0, 1.4, 2.0, 4.0),
            "down_after_s": (60.0, 300.0, 600.0, 1200.0),
            "up_after_s": (0.0, 10.0, 30.0, 60.0),
        },
        {"ongoing": 0.7, "down_after_s": 600.0, "up_after_s": 30.0},
    ),
    "KEDA, queue": Rival(
        queue_hpa,
        {
            "ongoing": (0.15, 0.25, 0.35, 0.5, 0.6, 0.7, 0.85, 1.0, 1.4, 2.0, 4.0),
            "stabilisation_s": (60.0, 300.0, 600.0, 1200.0),
        },
        {"ongoing": 0.7, "stabilisation_s": 300.0},
    ),
    "MArk": Rival(
        mark,
        {
            "load": (0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0, 1.2, 1.5),
            "horizon_minutes": (2, 4, 7, 10, 14),
        },
        {"load": 0.7, "horizon_minutes": 7},
    ),
    "Predictive HPA": Rival(
        predictive_hpa,
        {
            "utilisation": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0, 1.2),
            "quantile": (0.1, 0.25, 0.5, 0.75, 0.9, 0.97),
        },
        {"utilisation": 0.8, "quantile": 0.5},
    ),
}

"""Compare policies by simulating the recorded requests of services.

A service's parameters are inferred from its recorded latencies. Each simulation draws parameters from their posterior.
A service and its replicas are left out if the simulation does not reproduce its recorded latencies.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faro_lib import forecast
from faro_lib.experiments.trials import Report, policy_failures_raised, uniform_draws
from faro_lib.metrics.measures import lost_utility, minute_utility, slo_violation_rate
from faro_lib.policies import Observation, Plan, Policy, PolicyContext, factory_of, make
from faro_lib.policies.baselines import fair_share
from faro_lib.policies.protocol import Assuming, at_least_one_each, hold, minimum_replicas
from faro_lib.simulate import Run, ServingModel, simulate
from faro_lib.simulate.measure import THREADS, measure
from faro_lib.utility import relaxed_utility
from faro_lib.workload import Job, Traces, Workload, arrays_of
from faro_ops.recommend import backcast
from faro_ops.recommend.recommendation import REPLAYED_HOURS
from faro_ops.recommend.records import Records
from faro_ops.recommend.sizing import busiest, required_replicas

POLICIES = ("FairShare", "HPA", "Faro-Sum")
RAN = "recorded replicas"
# A replica accepts so many ongoing requests that practically none is dropped, as in services without such a limit.
WAITING = ServingModel("least-outstanding", max_ongoing_requests=1000)
DRAWS = 5
MEASURED = 16  # latencies are simulated up to this many replicas, or 1.5 x the recorded maximum if that is more
LOST = "lost_utility"
MEASURES: dict[str, Callable[[Run], Any]] = {
    LOST: lambda run: np.array(
        [lost_utility(one[None]) for one in minute_utility(run)]
    ),  # one per service
    "slo_violation_rate": slo_violation_rate,
    "cores": lambda run: float((run.decisions.running @ arrays_of(run.workload.jobs).cores).mean()),
}


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """The result of `audit`. Only `records` and `services` include services that are not `reproduced`.

    Attributes
    ----------
    capacity : cores that the services share.
    policies : (5 %, mean, 95 %) of each measure, by policy and measure. The measures are lost_utility,
        slo_violation_rate, cores (mean number running) and difference (lost_utility minus that of recorded replicas).
    by_service : (5 %, mean, 95 %) of `difference` for each service, by policy; each array is (3, services).
    required : cores that the SLOs need at each minute's rate, (minutes of day,).
    used : cores of the recorded replicas, (minutes of day,).
    minutes : the part of the day that was simulated.
    """

    records: Records
    services: tuple[backcast.Service, ...]
    capacity: float
    policies: Mapping[str, Mapping[str, np.ndarray]]
    by_service: Mapping[str, np.ndarray]
    required: np.ndarray
    used: np.ndarray
    minutes: slice

    @property
    def reproduced(self) -> list[backcast.Service]:
        """The services whose recorded latencies the simulation reproduces. Policies are compared only on them."""
        return [one for one in self.services if not one.refusal]

    @property
    def replayed(self) -> str:
        """The replayed part of the day, as "08:00 to 14:00"."""
        return self.records.history.span(self.minutes.start, self.minutes.stop)

    def observed_lost(self) -> float:
        """Lost utility per replayed minute, summed over the reproduced services, from their recorded latencies."""
        kept = [n for n, one in enumerate(self.services) if not one.refusal]
        slo_s, tail_s = (
            arrays_of(self.records.jobs).slo_s[kept, None],
            self.records.tail_s[kept, self.minutes],
        )
        tail_s = np.nan_to_num(
            tail_s, nan=0.0, posinf=np.inf
        )  # a minute without a recorded latency loses nothing
        return float(np.sum(1 - relaxed_utility(tail_s, slo_s)) / tail_s.shape[1])

    def hours(self) -> list[dict[str, Any]]:
        """Cores used, needed and spare per hour. `spare` is `used_least` - `needed_most`, rounded down, at least 0."""
        rows = []
        for first in range(0, len(self.used), 60):
            used, required = self.used[first : first + 60], self.required[first : first + 60].max()
            row = {"used_mean": used.mean(), "used_least": used.min(), "needed_most": required}
            lent = {"spare": max(0.0, np.floor(used.min() - required))}
            rows.append(
                {"from": self.records.history.clock(first)}
                | {k: float(v) for k, v in (row | lent).items()}
            )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """The audit in plain types, for JSON; unknown numbers are None."""
        shares = ("inside", "late_minutes", "predicted_late_minutes", "violation_rate")
        services = [
            {
                "job": one.job.name,
                "reproduced": not one.refusal,
                "refusal": one.refusal,
                "note": one.note,
            }
            | {"replica": one.calibration.kind if one.calibration else None}
            | {"capacity_rps": _plain(one.calibration.capacity_rps) if one.calibration else None}
            | {share: _plain(getattr(one, share)) for share in shares}
            for one in self.services
        ]
        policies = {
            name: {key: _plain(value) for key, value in of.items()}
            for name, of in self.policies.items()
        }
        names = [one.job.name for one in self.reproduced]
        by_service = {
            policy: dict(zip(names, _plain(of.T))) for policy, of in self.by_service.items()
        }
        hours = [{key: _plain(value) for key, value in row.items()} for row in self.hours()]
        audit = {
            "capacity": self.capacity,
            "replayed": self.replayed,
            "services": services,
            "policies": policies,
        }
        return audit | {"difference_by_service": by_service, "hours": hours}


def as_planned(job: Job, overhead_s: float) -> Job:
    """The job as policies see it. `overhead_s`, the time outside replicas, is subtracted from its SLO."""
    return replace(job, latency_curve="", slo_s=max(job.slo_s - overhead_s, backcast.NEVER))


def audit(
    records: Records,
    capacity: float | None = None,
    *,
    policies: Sequence[str] = POLICIES,
    forecaster: str | None = None,
    serving_model: ServingModel = WAITING,
    report: Report = print,
) -> Audit:
    """Calibrate each service, simulate its recorded replicas, and compare policies on the reproduced services.

    `capacity` is in cores. None means the most that the reproduced services used. Only the busiest REPLAYED_HOURS of
    the last day are replayed. Without an earlier day, the forecaster is untrained.
    """
    for name in policies:
        factory_of(
            name
        )  # raises for an unknown name; invalid input must fail before minutes of work
    jobs, history = records.jobs, records.history
    part, first = busiest(history.traces, 60 * REPLAYED_HOURS)
    train = part.train[:0] if history.single_day else part.train
    if capacity is not None:
        at_least_one_each(jobs, capacity)
    if forecaster:
        replace(history, traces=replace(part, train=train)).forecaster(forecaster)
    report(f"calibrating {len(jobs)} services on their recorded latencies")
    with ThreadPoolExecutor(THREADS) as pool:
        limits = [serving_model.limit_of(job) for job in jobs]
        calibrations = list(
            pool.map(backcast.calibration_of, [records] * len(jobs), range(len(jobs)), limits)
        )
    minutes = slice(first, first + part.evaluation.shape[-1])
    report(f"simulating the recorded replicas, {history.span(first, minutes.stop)}")
    services = backcast.backcast(records, calibrations, serving_model, minutes)
    kept = [n for n, one in enumerate(services) if not one.refusal]
    replicas = backcast.known_replicas(records.replicas)[kept]
    used = arrays_of(jobs).cores[kept] @ replicas
    least = float(minimum_replicas(jobs)[kept] @ arrays_of(jobs).cores[kept])
    size = float(np.ceil(used.max(initial=least)) if capacity is None else capacity)
    if not kept:
        return Audit(records, services, size, {}, {}, used, used, minutes)
    posteriors = [one for n in kept if (one := services[n].calibration)]
    known = tuple(
        as_planned(services[n].job, one.service.overhead_s) for n, one in zip(kept, posteriors)
    )
    report("measuring the latencies of the calibrated services")
    most = min(size, max(MEASURED, 1.5 * replicas.max()) * arrays_of(known).cores.min())
    latency_model = measure(known, capacity=most, serving_model=serving_model)
    day = Workload(known, history.traces.evaluation[0, kept])
    required = arrays_of(known).cores @ required_replicas(day, latency_model)
    traces = Traces(known, train[:, :, kept], part.evaluation[:, kept])
    asked = Workload(
        tuple(services[n].job for n in kept), traces.evaluation[0]
    )  # SLOs before `as_planned` cuts them
    context = PolicyContext(known, forecast.fit(forecaster or "auto", traces), latency_model)
    made: dict[str, Policy] = {
        name: AfterAMinute(make(name, context), known, name) for name in policies
    }
    initial = fair_share(known, size)

    def measured(seed: int) -> dict[str, dict[str, Any]]:
        drawn, at_clients = backcast.world(asked.jobs, posteriors, seed)
        workload = replace(asked, jobs=drawn)
        requests = uniform_draws(workload, seed, serving_model)
        runs = {RAN: backcast.run_recorded(workload, requests, replicas[:, minutes], serving_model)}
        for name, policy in made.items():
            runs[name] = simulate(
                workload, policy, size, draws=requests, serving_model=serving_model, initial=initial
            )
        for name, run in runs.items():
            runs[name] = replace(run, workload=asked, tail_latency_s=at_clients(run.tail_latency_s))
        return {name: {key: of(run) for key, of in MEASURES.items()} for name, run in runs.items()}

    report(f"replaying the requests with {', '.join(policies)}")
    with policy_failures_raised(), ThreadPoolExecutor(THREADS) as pool:
        draws = list(pool.map(measured, range(DRAWS)))
    return Audit(
        records,
        services,
        size,
        *_compared(draws, traces.evaluation.shape[-1]),
        required,
        used,
        minutes,
    )


def _compared(
    draws: list[dict[str, dict[str, Any]]], minutes: int
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Return `policies` and `by_service` of an `Audit`. Each of the `draws` has the MEASURES of every policy.

    The upper end of a lost-utility interval is at least 1 / `minutes` (one lost minute), because the draws are few.
    """
    values = {
        name: {key: np.array([of[name][key] for of in draws]) for key in MEASURES}
        for name in draws[0]
    }
    compared, by_service = {}, {}
    for name, of in values.items():
        more = of[LOST] - values[RAN][LOST]  # (draws, services)
        totals = of | {LOST: of[LOST].sum(axis=1)}
        compared[name] = {key: backcast.positive_interval(one) for key, one in totals.items()}
        compared[name][LOST][2] = max(compared[name][LOST][2], 1 / minutes)
        compared[name]["difference"] = backcast.prediction_interval(more.sum(axis=1))
        by_service[name] = backcast.prediction_interval(more)
    return compared, by_service


@dataclass(frozen=True, slots=True)
class AfterAMinute(Assuming):
    """`policy`, but without changes in the first minute, because an untrained forecaster needs a minute of counts."""

    def decide(self, state: Any, observation: Observation) -> tuple[Any, Plan]:
        return (
            self.policy.decide(state, observation)
            if observation.minute
            else (state, hold(observation))
        )


def _plain(value: Any) -> Any:
    """The value in JSON types: a number with four significant digits (None if NaN or infinite), a list, or text."""
    if isinstance(value, str):
        return value
    if np.ndim(value):
        return [_plain(one) for one in value]
    return float(f"{value:.4g}") if np.isfinite(value) else None

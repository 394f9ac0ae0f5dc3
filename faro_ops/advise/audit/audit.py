"""Compare policies by simulating the recorded requests of services.

A service's parameters are inferred from its recorded latencies. Each simulation draws parameters
from their posterior. A service and its replicas are left out if the simulation does not reproduce
its recorded latencies.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from faro_lib import forecast
from faro_lib.experiments.trials import Report, policy_failures_raised
from faro_lib.metrics.measures import lost_utility, minute_utility, slo_violation_rate
from faro_lib.policies import Observation, Plan, Policy, PolicyContext, factory_of, make
from faro_lib.protocol import Assuming, hold
from faro_lib.simulate import Run, ServingModel, simulate
from faro_lib.simulate.measure import measure
from faro_lib.simulate.table_minutes import THREADS
from faro_lib.utility import relaxed_utility
from faro_lib.workload import Job, Traces, Workload, arrays_of
from faro_lib.workload.shares import at_least_one_each, fair_share, minimum_replicas
from faro_ops.advise.audit import backcast
from faro_ops.advise.calibrate import Calibration
from faro_ops.advise.recommend.simulated_days import SIMULATED_HOURS, busiest_part
from faro_ops.advise.recommend.sizing import required_replicas, uniform_draws
from faro_ops.advise.sources.serving_history import ServingHistory

POLICIES = ("FairShare", "Static", "HPA", "Faro-Sum")
FROM_EARLIER_DAYS = ("Static",)  # left out of POLICIES if the records are of a single day
RAN = "recorded replicas"
# A replica accepts so many ongoing requests that practically none is dropped, as in services
# without such a limit.
WAITING = ServingModel("least-outstanding", max_ongoing_requests=1000)
DRAWS = 5
# Latencies are simulated up to this many replicas, or 1.5 x the recorded maximum if that is more.
MEASURED = 16


def lost_by_service(run: Run) -> np.ndarray:
    """Lost utility per minute of each service, (services,)."""
    return np.array([lost_utility(of_service[None]) for of_service in minute_utility(run)])


def mean_cores(run: Run) -> float:
    """Mean number of cores whose replicas run."""
    return float((run.decisions.running @ arrays_of(run.workload.jobs).cores).mean())


LOST = "lost_utility"
MEASURES: dict[str, Callable[[Run], Any]] = {
    LOST: lost_by_service,
    "slo_violation_rate": slo_violation_rate,
    "cores": mean_cores,
}


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """The result of `audit`.

    Only `serving` and `services` include services that are not `reproduced`.

    Attributes
    ----------
    capacity : cores that the services share.
    policies : (5 %, mean, 95 %) of each measure, by policy and measure. The measures are
        lost_utility, slo_violation_rate, cores (mean number running) and difference (lost_utility
        minus that of recorded replicas).
    by_service : (5 %, mean, 95 %) of `difference` for each service, by policy; each array is (3,
        services).
    required : cores that the SLOs need at each minute's rate, (minutes of day,).
    used : cores of the recorded replicas, (minutes of day,).
    minutes : the part of the day that was simulated.
    """

    serving: ServingHistory
    services: tuple[backcast.Service, ...]
    capacity: float
    policies: Mapping[str, Mapping[str, np.ndarray]]
    by_service: Mapping[str, np.ndarray]
    required: np.ndarray
    used: np.ndarray
    minutes: slice

    @property
    def reproduced(self) -> list[backcast.Service]:
        """The services whose recorded latencies the simulation reproduces.

        Policies are compared only on them.
        """
        return [one for one in self.services if not one.refusal]

    @property
    def simulated(self) -> str:
        """The simulated part of the day, as "08:00 to 14:00"."""
        return self.serving.history.span(self.minutes.start, self.minutes.stop)

    def observed_lost(self) -> float:
        """Utility that the reproduced services lost per simulated minute, by recorded latencies.

        A minute without a recorded latency loses nothing.
        """
        kept = [n for n, one in enumerate(self.services) if not one.refusal]
        slo_s = arrays_of(self.serving.jobs).slo_s[kept, None]  # (services, 1)
        tail_s = self.serving.tail_s[kept, self.minutes]  # (services, minutes)
        known_s = np.nan_to_num(tail_s, nan=0.0, posinf=np.inf)
        return float(np.sum(1 - relaxed_utility(known_s, slo_s)) / tail_s.shape[1])

    def hours(self) -> list[dict[str, Any]]:
        """Cores used, needed and spare per hour.

        `spare` is `used_least` - `needed_most`, rounded down, at least 0.
        """
        rows = []
        for first in range(0, len(self.used), 60):
            used = self.used[first : first + 60]
            needed = self.required[first : first + 60].max()
            row = {
                "from": self.serving.history.clock(first),
                "used_mean": float(used.mean()),
                "used_least": float(used.min()),
                "needed_most": float(needed),
                "spare": float(max(0.0, np.floor(used.min() - needed))),
            }
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """The audit in plain types, for JSON; unknown numbers are None."""
        names = [one.job.name for one in self.reproduced]
        return {
            "capacity": self.capacity,
            "simulated": self.simulated,
            "services": [_service_dict(one) for one in self.services],
            "policies": {
                policy: {measure: _plain(interval) for measure, interval in of_policy.items()}
                for policy, of_policy in self.policies.items()
            },
            "difference_by_service": {
                policy: dict(zip(names, _plain(intervals.T)))
                for policy, intervals in self.by_service.items()
            },
            "hours": [{key: _plain(value) for key, value in row.items()} for row in self.hours()],
        }


def _service_dict(service: backcast.Service) -> dict[str, Any]:
    calibration = service.calibration
    return {
        "job": service.job.name,
        "reproduced": not service.refusal,
        "refusal": service.refusal,
        "note": service.note,
        "replica": calibration.kind if calibration else None,
        "capacity_rps": _plain(calibration.capacity_rps) if calibration else None,
        # For the jobs' table, which has columns of these names.
        "service_time_s": calibration.service.service_time_s if calibration else None,
        "service_scv": calibration.service.service_scv if calibration else None,
        "service_time_error": calibration.service_time_error if calibration else None,
        "inside": _plain(service.inside),
        "late_minutes": _plain(service.late_minutes),
        "predicted_late_minutes": _plain(service.predicted_late_minutes),
        "violation_rate": _plain(service.violation_rate),
    }


def as_planned(job: Job, overhead_s: float) -> Job:
    """The job as policies see it.

    `overhead_s`, the time outside replicas, is subtracted from its SLO.
    """
    return replace(job, latency_curve="", slo_s=max(job.slo_s - overhead_s, backcast.NEVER))


def audit(
    serving: ServingHistory,
    capacity: float | None = None,
    *,
    policies: Sequence[str] | None = None,
    forecaster: str | None = None,
    serving_model: ServingModel = WAITING,
    report: Report = print,
) -> Audit:
    """Calibrate the services, simulate their recorded replicas, and compare policies.

    Policies are compared on the reproduced services; None means POLICIES. `capacity` is in cores;
    None means the most that these services used. Only the busiest SIMULATED_HOURS of the last day
    are simulated. Without an earlier day, the forecaster is untrained.
    """
    if policies is None:
        single = serving.history.single_day
        policies = [name for name in POLICIES if not (single and name in FROM_EARLIER_DAYS)]
    # Invalid input must fail before minutes of work.
    for name in policies:
        factory_of(name)
    jobs = serving.jobs
    history = serving.history
    if capacity is not None:
        at_least_one_each(jobs, capacity)
    part, first = busiest_part(history.traces, 60 * SIMULATED_HOURS)
    if history.single_day:
        part = replace(part, train=part.train[:0])
    if forecaster:
        replace(history, traces=part).forecaster(forecaster)

    report(f"calibrating {len(jobs)} services on their recorded latencies")
    limits = [serving_model.limit_of(job) for job in jobs]
    with ThreadPoolExecutor(THREADS) as pool:
        calibrated = pool.map(
            backcast.calibration_of, [serving] * len(jobs), range(len(jobs)), limits
        )
        calibrations = list(calibrated)
    minutes = slice(first, first + part.evaluation.shape[-1])
    report(f"simulating the recorded replicas, {history.span(first, minutes.stop)}")
    services = backcast.backcast(serving, calibrations, serving_model, minutes)

    kept = [n for n, one in enumerate(services) if not one.refusal]
    cores = arrays_of(jobs).cores[kept]  # (services,)
    replicas = backcast.known_replicas(serving.replicas)[kept]  # (services, minutes of day)
    used = cores @ replicas  # (minutes of day,)
    if capacity is None:
        least = float(minimum_replicas(jobs)[kept] @ cores)
        capacity = np.ceil(used.max(initial=least))
    size = float(capacity)
    posteriors = [one for n in kept if (one := services[n].calibration)]
    if not kept:
        return Audit(serving, services, size, {}, {}, used, used, minutes)

    report("measuring the latencies of the calibrated services")
    known = tuple(
        as_planned(services[n].job, one.service.overhead_s) for n, one in zip(kept, posteriors)
    )
    most = min(size, max(MEASURED, 1.5 * replicas.max()) * arrays_of(known).cores.min())
    latency_model = measure(known, capacity=most, serving_model=serving_model)
    day = Workload(known, history.traces.evaluation[0, kept])
    required = arrays_of(known).cores @ required_replicas(day, latency_model)
    traces = Traces(known, part.train[:, :, kept], part.evaluation[:, kept])
    times = tuple(part.arrival_s[n] for n in kept) if part.arrival_s else ()
    context = PolicyContext(known, forecast.fit(forecaster or "auto", traces), latency_model)
    comparison = _Comparison(
        # With the SLOs before `as_planned` has cut them.
        Workload(tuple(services[n].job for n in kept), traces.evaluation[0], times),
        posteriors,
        replicas[:, minutes],
        {name: AfterAMinute(make(name, context), known, name) for name in policies},
        size,
        fair_share(known, size),
        serving_model,
    )
    report(f"simulating the requests with {', '.join(policies)}")
    with policy_failures_raised(), ThreadPoolExecutor(THREADS) as pool:
        draws = list(pool.map(comparison.measures, range(DRAWS)))
    of_policies, by_service = _compared(draws, traces.evaluation.shape[-1])
    return Audit(serving, services, size, of_policies, by_service, required, used, minutes)


@dataclass(frozen=True, slots=True, eq=False)
class _Comparison:
    """Simulations of the recorded replicas and of the policies, on the same requests."""

    workload: Workload  # of the reproduced services, during the simulated minutes
    calibrations: Sequence[Calibration]
    replicas: np.ndarray  # as recorded, (services, minutes)
    policies: Mapping[str, Policy]
    capacity: float
    initial: np.ndarray  # replicas with which the policies begin, (services,)
    serving_model: ServingModel

    def measures(self, seed: int) -> dict[str, dict[str, Any]]:
        """The MEASURES of each policy for parameters of the services drawn with this seed."""
        jobs, at_clients = backcast.world(self.workload.jobs, self.calibrations, seed)
        workload = replace(self.workload, jobs=jobs)
        requests = uniform_draws(workload, seed, self.serving_model)
        recorded = backcast.run_recorded(workload, requests, self.replicas, self.serving_model)
        runs = {RAN: recorded}
        for name, policy in self.policies.items():
            runs[name] = simulate(
                workload,
                policy,
                self.capacity,
                draws=requests,
                serving_model=self.serving_model,
                initial=self.initial,
            )
        found = {}
        for name, run in runs.items():
            tail_s = at_clients(run.tail_latency_s)
            of_clients = replace(run, workload=self.workload, tail_latency_s=tail_s)
            found[name] = {measure: of(of_clients) for measure, of in MEASURES.items()}
        return found


def _compared(
    draws: list[dict[str, dict[str, Any]]], minutes: int
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Return `policies` and `by_service` of an `Audit`.

    Each of the `draws` has the MEASURES of every policy. The upper end of a lost-utility interval
    is at least 1 / `minutes` (one lost minute), because the draws are few.
    """
    recorded = np.array([of_draw[RAN][LOST] for of_draw in draws])  # (draws, services)
    compared, by_service = {}, {}
    for name in draws[0]:
        values = {key: np.array([of_draw[name][key] for of_draw in draws]) for key in MEASURES}
        more = values[LOST] - recorded  # (draws, services)
        values[LOST] = values[LOST].sum(axis=1)
        intervals = {key: backcast.positive_interval(of_key) for key, of_key in values.items()}
        intervals[LOST][2] = max(intervals[LOST][2], 1 / minutes)
        intervals["difference"] = backcast.prediction_interval(more.sum(axis=1))
        compared[name] = intervals
        by_service[name] = backcast.prediction_interval(more)
    return compared, by_service


@dataclass(frozen=True, slots=True)
class AfterAMinute(Assuming):
    """`policy`, but without changes in the first minute.

    An untrained forecaster needs a minute of counts.
    """

    def decide(self, state: Any, observation: Observation) -> tuple[Any, Plan]:
        if observation.minute == 0:
            return state, hold(observation)
        return self.policy.decide(state, observation)


def _plain(value: Any) -> Any:
    """The value in JSON types; a number has four digits, and is None if NaN or infinite."""
    if isinstance(value, str):
        return value
    if np.ndim(value):
        return [_plain(one) for one in value]
    return float(f"{value:.4g}") if np.isfinite(value) else None

"""Autoscalers of language models that people use, and Faro, with the settings that are tuned.

Each `Rival` is made from what is `Known` at the start of a block.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np

from faro_lib.forecast import Forecaster
from faro_lib.policies import HPA, Observation, Plan, Policy, PolicyContext, RayServe
from faro_lib.policies.baselines import ReactiveState
from faro_lib.policies.faro import Faro, tuned
from faro_lib.policies.loops import LoopState, TwoLoops
from faro_lib.protocol import HISTORY_MINUTES, Assuming, reasons
from faro_lib.workload import Job, arrays_of
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE
from faro_lib.workload.shares import minimum_replicas
from studies.llm.engines import EngineObservation
from studies.llm.goodput import Goodput, GoodputByLengths, mean_tokens
from studies.rivals.autoscalers import Rival


@dataclass(frozen=True, slots=True)
class GaugeHPA(HPA):
    """The HPA's rule on a gauge of the engines, as KEDA and the HPA apply it to pods' metrics.

    desired = ceil(sum of the gauge over the replicas / target), with the HPA's tolerance, limits of
    scaling up, and stabilisation window.
    """

    gauge: str = "waiting"  # a field of `EngineObservation`
    goal: float = 1.0  # the target per replica

    def recommend(
        self, state: ReactiveState, observation: Observation
    ) -> tuple[np.ndarray, np.ndarray]:
        now = observation.target
        pods = getattr(observation, self.gauge) / self.goal
        unchanged = np.abs(pods / np.maximum(observation.running, 1) - 1) <= self.tolerance
        desired = np.ceil(pods - TOLERANCE).astype(np.int64)
        return np.where(unchanged, now, desired), np.ones(len(now), bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamoPlanner(TwoLoops):
    """Our reading of the throughput-based scaling of NVIDIA Dynamo's planner, for one pool.

    Every `interval_s`, it predicts the requests of the next interval and takes the mean lengths of
    the last one. replicas = ceil(predicted load / what a replica serves within the limits). That
    throughput comes from profiling; here it is `load` times that of a full replica. Sources:
    docs.nvidia.com/dynamo, "Planner Design" and "Planner Guide" (adjustment interval, predictors).
    Its correction factors are left out.
    """

    load: float = 0.5
    reactive: bool = False
    name: str = "Dynamo planner"

    def plan(self, state: LoopState, observation: Observation) -> Plan:
        minutes = max(1, round(self.interval_s / MINUTE_S))
        per_min = state.forecaster.mean(minutes).max(axis=1)
        jobs = arrays_of(state.jobs)
        rate_rps = np.nan_to_num(per_min) * per_request(observation, minutes) / MINUTE_S
        wanted = np.ceil(rate_rps * jobs.busy_s / self.load - TOLERANCE).astype(np.int64)
        target = np.clip(wanted, minimum_replicas(state.jobs), jobs.max_replicas)
        reason = reasons(target, observation.target)
        return Plan(target, np.zeros(len(target)), reason, forecast_rps=rate_rps)


def per_request(observation: Observation, minutes: int) -> np.ndarray:
    """Load per request (jobs,) in the last complete `minutes`; 1 without requests."""
    assert isinstance(observation, EngineObservation)
    load = observation.load_per_min[:, -minutes:].sum(axis=1)
    requests = observation.arrivals_per_min[:, -minutes:].sum(axis=1)
    return np.where(requests > 0, load / np.maximum(requests, 1), 1.0)


@dataclass(frozen=True, slots=True)
class Informed(Assuming):
    """Faro that is told the load as if it were requests, and follows the lengths.

    The load is in requests of mean length. The latency model is that of the mean lengths of the
    last `lengths_minutes`; 0 stands for the jobs' assumed lengths. The utility counts requests.
    """

    goodput: GoodputByLengths
    lengths_minutes: int
    with_drops: bool = False  # whether plans rely on drops (`Dropping`)

    def decide(self, state: LoopState, observation: Observation) -> tuple[LoopState, Plan]:
        assert isinstance(observation, EngineObservation)
        policy = cast(Faro, self.policy)
        if policy.is_long_term(observation.now_s, state.last_s):
            policy = replace(policy, latency_model=self.latency_model(observation))
        now = observation.arrivals_now
        now = None if now is None else now * per_request(observation, 5)
        per_min = observation.load_per_min
        observation = replace(observation, arrivals_per_min=per_min, arrivals_now=now)
        return policy.decide(state, observation)

    def latency_model(self, observation: EngineObservation) -> Goodput:
        """Goodput at the current lengths."""
        goodput = goodput_now(self.goodput, observation, self.lengths_minutes)
        if self.with_drops:
            goodput = goodput.with_drops()
        if not observation.minute:
            return goodput
        weight = requests_per_load(observation)
        return replace(goodput, weight=dict(zip(goodput.share, weight.tolist())))


@dataclass(frozen=True, slots=True)
class Dropping(Assuming):
    """A policy whose requests beyond the load with the most goodput are dropped on arrival."""

    goodput: GoodputByLengths
    lengths_minutes: int

    def decide(self, state: Any, observation: Observation) -> tuple[Any, Plan]:
        assert isinstance(observation, EngineObservation)
        state, plan = self.policy.decide(state, observation)
        if not observation.minute:
            return state, plan
        goodput = goodput_now(self.goodput, observation, self.lengths_minutes)
        load = load_of_last_minute(observation) * arrays_of(self.jobs).busy_s
        best = goodput.best_load(observation.running)
        return state, replace(plan, drop=np.clip(1 - best / np.maximum(load, TOLERANCE), 0.0, 1.0))


def goodput_now(
    goodput: GoodputByLengths, observation: EngineObservation, lengths_minutes: int
) -> Goodput:
    """Goodput at the mean lengths of the last `lengths_minutes`."""
    requests = observation.arrivals_per_min
    return goodput.at(mean_tokens(observation.tokens_per_min, requests, lengths_minutes))


def load_of_last_minute(observation: EngineObservation) -> np.ndarray:
    """Load per s (jobs,) of about the last 60 s, which are parts of two minutes."""
    elapsed = observation.now_s / MINUTE_S - observation.minute
    counted = observation.arrivals_now
    now = 0.0 if counted is None else counted * per_request(observation, 5)
    return (now + (1 - elapsed) * observation.load_per_min[:, -1]) / MINUTE_S


def requests_per_load(observation: EngineObservation) -> np.ndarray:
    """Requests per unit of load (jobs,), divided by the mean requests/s of the jobs.

    The sum of the jobs' goodput with these weights is that of all requests, in units of their mean.
    """
    mean_rps = (observation.arrivals_per_min.mean(axis=1) + 1).mean() / MINUTE_S
    return 1 / (per_request(observation, HISTORY_MINUTES) * mean_rps)


@dataclass(frozen=True, slots=True)
class Known:
    """What a policy may know at the start of a block."""

    jobs: tuple[Job, ...]
    goodput: GoodputByLengths
    # By name, forecasters at the first minute of `before`.
    forecasters: Mapping[str, Forecaster]
    # By the same names, their counts per minute until the block's start, (jobs, minutes).
    before: Mapping[str, np.ndarray]


def gauge_hpa(known: Known | PolicyContext, **options: Any) -> Policy:
    """The HPA on a gauge; it needs to know nothing at the start, and neither does Ray Serve."""
    return GaugeHPA(**options)


def ray_serve(known: Known | PolicyContext, **options: Any) -> Policy:
    return RayServe(**options)


def dynamo(known: Known, load: float, interval_s: float, predictor: float) -> Policy:
    return planner(known, PREDICTORS[int(predictor)], load=load, interval_s=interval_s)


def planner(known: Known, forecaster: str, **options: Any) -> Policy:
    """Dynamo's planner with the forecaster of this name."""
    before = known.before[forecaster]
    return DynamoPlanner(forecaster=known.forecasters[forecaster], before=before, **options)


def faro(
    known: Known,
    lengths_minutes: float,
    horizon_minutes: float,
    bursts: float,
    forecaster: str = "load",
    with_drops: bool = False,
    **options: Any,
) -> Informed:
    """Faro-Sum for goodput, on forecasts of the load by the forecaster of this name."""
    jobs = known.jobs
    goodput = known.goodput if bursts else known.goodput.at_random()
    assumed = goodput.at(np.full((2, len(jobs)), np.nan))
    context = PolicyContext(jobs, known.forecasters[forecaster], latency_model=assumed)
    horizon = int(horizon_minutes)
    policy = tuned(context, before=known.before[forecaster], horizon_minutes=horizon, **options)
    return Informed(policy, jobs, "Faro-Sum", goodput, int(lengths_minutes), with_drops)


def faro_assuming(known: Known, assumed: float, bursts: float, **options: Any) -> Policy:
    """Faro-Sum with the value `assumed` of its setting `bursts`."""
    return faro(known, bursts=assumed, **options)


def dropping(make: Callable[..., Policy], known: Known, **options: Any) -> Policy:
    """A policy with the drops that Faro's tables ask for; `make` makes it without them."""
    policy = make(known, **options)
    return Dropping(policy, known.jobs, policy.name, known.goodput, DROP_LENGTHS_MINUTES)


def dynamo_on_mixture(known: Known, predictor: float, **options: Any) -> Policy:
    """Dynamo's planner with the kind of forecaster that Faro has."""
    return planner(known, "auto", **options)


DROP_LENGTHS_MINUTES = 15
PREDICTORS = ("persistence", "kalman", "ar")
STABILISATION_S = (60.0, 300.0, 900.0)
LLM_RIVALS: dict[str, Rival] = {
    "KEDA, waiting requests": Rival(
        partial(gauge_hpa, gauge="waiting", name="KEDA, waiting requests"),
        {"goal": (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0), "stabilisation_s": STABILISATION_S},
        {"goal": 2.0, "stabilisation_s": 300.0},
    ),
    "HPA, KV cache": Rival(
        partial(gauge_hpa, gauge="cache_use", name="HPA, KV cache"),
        {"goal": (0.005, 0.01, 0.02, 0.03, 0.05, 0.08), "stabilisation_s": STABILISATION_S},
        {"goal": 0.02, "stabilisation_s": 300.0},
    ),
    "HPA, GPU use": Rival(
        partial(gauge_hpa, gauge="busy_gpus", name="HPA, GPU use"),
        {"goal": (0.1, 0.2, 0.35, 0.5, 0.65, 0.8), "stabilisation_s": STABILISATION_S},
        {"goal": 0.35, "stabilisation_s": 300.0},
    ),
    "Ray Serve": Rival(
        partial(ray_serve, name="Ray Serve"),
        {
            "ongoing": (2.0, 4.0, 8.0, 12.0, 16.0, 32.0),
            "down_after_s": (60.0, 300.0, 600.0),
            "up_after_s": (0.0, 10.0, 30.0),
        },
        {"ongoing": 8.0, "down_after_s": 300.0, "up_after_s": 30.0},
    ),
    "Dynamo planner": Rival(
        dynamo,
        {
            "load": (0.1, 0.2, 0.25, 0.3, 0.37, 0.45, 0.55, 0.65),
            "interval_s": (60.0, 180.0),
            "predictor": (0.0, 1.0, 2.0),
        },
        {"load": 0.45, "interval_s": 180.0, "predictor": 0.0},
    ),
}
FARO: dict[str, Rival] = {
    "Faro-Sum": Rival(
        faro,
        {
            "lengths_minutes": (0.0, 15.0),
            "horizon_minutes": (3.0, 5.0, 7.0),
            "switching_cost": (0.0, 0.01, 0.03, 0.1),
            "interval_s": (30.0, 60.0),
            "bursts": (0.0, 1.0),
        },
        {
            "lengths_minutes": 15.0,
            "horizon_minutes": 7.0,
            "switching_cost": 0.01,
            "interval_s": 60.0,
            "bursts": 1.0,
        },
    ),
}
# Policies with more or less of Faro, and the settings of the policy that begins their name.
VARIANTS: dict[str, Rival] = {
    "Faro-Sum, arrivals at random": replace(
        FARO["Faro-Sum"], make=partial(faro_assuming, assumed=0.0)
    ),
    "Faro-Sum, bursts of days 1 to 8": replace(
        FARO["Faro-Sum"], make=partial(faro_assuming, assumed=1.0)
    ),
    "Faro-Sum, forecast by persistence": replace(
        FARO["Faro-Sum"], make=partial(faro, forecaster="load, persistence")
    ),
    "Faro-Sum, forecast by Kalman filter": replace(
        FARO["Faro-Sum"], make=partial(faro, forecaster="load, kalman")
    ),
    "Dynamo planner, Faro's forecaster": replace(
        LLM_RIVALS["Dynamo planner"], make=dynamo_on_mixture
    ),
}
# All policies with the drops that Faro's tables ask for. Only Faro's plans rely on them.
WITH_DROPS: dict[str, Rival] = {
    name: replace(rival, make=partial(dropping, rival.make)) for name, rival in LLM_RIVALS.items()
} | {"Faro-Sum": replace(FARO["Faro-Sum"], make=partial(dropping, partial(faro, with_drops=True)))}

"""Autoscalers of language models that people use, and Faro, with the settings that are tuned.

Each `Rival` is made from what is `Known` at the start of a block.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from studies.engines import EngineObservation
from studies.goodput import Goodput, GoodputByLengths, mean_tokens
from studies.rivals import Rival


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
        requests = observation.arrivals_per_min
        tokens = mean_tokens(observation.tokens_per_min, requests, self.lengths_minutes)
        goodput = self.goodput.at(tokens)
        if not observation.minute:
            return goodput
        weight = requests_per_load(observation)
        return replace(goodput, weight=dict(zip(goodput.share, weight.tolist())))


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
    # By name, forecasters at the block's start.
    forecasters: Mapping[str, Forecaster]


def waiting(known: Known, **options: Any) -> Policy:
    return GaugeHPA(gauge="waiting", name="KEDA, waiting requests", **options)


def cache(known: Known, **options: Any) -> Policy:
    return GaugeHPA(gauge="cache_use", name="HPA, KV cache", **options)


def gpus(known: Known, **options: Any) -> Policy:
    return GaugeHPA(gauge="busy_gpus", name="HPA, GPU use", **options)


def ray_serve(known: Known, **options: Any) -> Policy:
    return RayServe(name="Ray Serve", **options)


def dynamo(known: Known, load: float, interval_s: float, predictor: float) -> Policy:
    forecaster = known.forecasters[PREDICTORS[int(predictor)]]
    return DynamoPlanner(forecaster=forecaster, load=load, interval_s=interval_s)


def faro(known: Known, lengths_minutes: float, reactive: float, **options: Any) -> Policy:
    """Faro-Sum for goodput, on forecasts of the load."""
    jobs = known.jobs
    assumed = known.goodput.at(np.full((2, len(jobs)), np.nan))
    context = PolicyContext(jobs, known.forecasters["load"], latency_model=assumed)
    policy = tuned(context, reactive=bool(reactive), **options)
    return Informed(policy, jobs, "Faro-Sum", known.goodput, int(lengths_minutes))


def faro_at_random(known: Known, **options: Any) -> Policy:
    """Faro-Sum with goodput measured at random arrivals."""
    return faro(replace(known, goodput=known.goodput.at_random()), **options)


PREDICTORS = ("persistence", "kalman", "ar")
STABILISATION_S = (60.0, 300.0, 900.0)
LLM_RIVALS: dict[str, Rival] = {
    "KEDA, waiting requests": Rival(
        waiting,
        {"goal": (0.1, 0.2, 0.5, 1.0, 2.0), "stabilisation_s": STABILISATION_S},
        {"goal": 0.5, "stabilisation_s": 300.0},
    ),
    "HPA, KV cache": Rival(
        cache,
        {"goal": (0.001, 0.0025, 0.005, 0.01, 0.02), "stabilisation_s": STABILISATION_S},
        {"goal": 0.005, "stabilisation_s": 300.0},
    ),
    "HPA, GPU use": Rival(
        gpus,
        {"goal": (0.2, 0.35, 0.5, 0.65, 0.8), "stabilisation_s": STABILISATION_S},
        {"goal": 0.8, "stabilisation_s": 300.0},
    ),
    "Ray Serve": Rival(
        ray_serve,
        {
            "ongoing": (0.5, 1.0, 2.0, 4.0, 8.0),
            "down_after_s": (60.0, 300.0, 600.0),
            "up_after_s": (0.0, 10.0, 30.0),
        },
        {"ongoing": 2.0, "down_after_s": 600.0, "up_after_s": 30.0},
    ),
    "Dynamo planner": Rival(
        dynamo,
        {
            "load": (0.1, 0.2, 0.3, 0.45, 0.65),
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
            "reactive": (0.0, 1.0),
            "interval_s": (30.0, 60.0),
        },
        {"lengths_minutes": 15.0, "reactive": 1.0, "interval_s": 60.0},
    ),
}
# Faro with less knowledge, and the settings of Faro.
LESS_INFORMED: dict[str, Rival] = {
    "Faro-Sum, arrivals at random": replace(FARO["Faro-Sum"], make=faro_at_random),
}

"""`faro/Cluster-v0`: the simulated cluster as a Gymnasium environment, and policies made from agents."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from faro_lib.control.guardrails import GUARDRAILS
from faro_lib.control.tick import Memory, tick
from faro_lib.metrics.measures import lost_utility, minute_utility
from faro_lib.policies import Fixed
from faro_lib.policies.protocol import (
    PLAN_ATTEMPTS,
    Observation,
    Plan,
    at_least_one_each,
    check_initial,
    hold,
    reasons,
)
from faro_lib.simulate import ServingModel, SimulatedCluster, draw
from faro_lib.simulate.cluster import PAPER, CapacityStep
from faro_lib.simulate.run import Decisions, evaluate_run
from faro_lib.utility import relaxed_utility
from faro_lib.workload import Job, Traces, arrays_of
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE
from faro_ops.arena.scenarios import instance, scenario_of

# Features: loads in erlangs, ongoing requests, latencies in multiples of the SLO, and the last four
# in replicas.
FEATURES = (
    "load",
    "load_5min",
    "ongoing",
    "mean_latency",
    "tail_latency",
    "running",
    "starting",
    "target",
    "share",
)
UNKNOWN, LARGEST = -1.0, 1e4  # replacement of NaN; upper limit of all features
ACTIONS = ("counts", "shares")


def features(jobs: tuple[Job, ...], observation: Observation) -> np.ndarray:
    """The observation as float32 (jobs, FEATURES); `share` is the number of replicas in an equal share of the cores."""
    arrays, seen = arrays_of(jobs), observation
    history = (
        seen.arrivals_per_min if seen.arrivals_per_min.shape[1] else np.full((len(jobs), 1), np.nan)
    )
    load = history[:, -5:] / MINUTE_S * arrays.busy_s[:, None]
    latencies = seen.mean_latency_s / arrays.slo_s, seen.tail_latency_s / arrays.slo_s
    share = seen.capacity / len(jobs) / arrays.cores
    columns = (
        load[:, -1],
        load.mean(axis=1),
        seen.ongoing,
        *latencies,
        seen.running,
        seen.starting,
        seen.target,
        share,
    )
    return np.nan_to_num(np.minimum(np.stack(columns, axis=1), LARGEST), nan=UNKNOWN).astype(
        np.float32
    )


def plan_of(
    jobs: tuple[Job, ...], observation: Observation, action: np.ndarray, actions: str
) -> Plan:
    """Convert an action to a plan. An action has target replicas ("counts") or shares of the spare cores ("shares")."""
    if actions == "counts":
        target = np.asarray(action, np.int64)
    else:
        minimum, cores = at_least_one_each(jobs, observation.capacity), arrays_of(jobs).cores
        share = np.maximum(np.asarray(action, float), 0)
        spare = (observation.capacity - minimum @ cores) * share / max(share.sum(), TOLERANCE)
        target = minimum + (spare / cores + TOLERANCE).astype(np.int64)
    return Plan(target, np.zeros(len(jobs)), reasons(target, observation.target), PLAN_ATTEMPTS)


@dataclass(frozen=True)
class Agent:
    """A policy that wraps an agent, for simulations and the live controller; `act` maps `features` to an action."""

    act: Callable[[np.ndarray], np.ndarray]
    actions: str = "counts"
    name: str = "Agent"
    tick_s: float = 60.0

    def initial(self, jobs: tuple[Job, ...], capacity: float) -> np.ndarray:
        return at_least_one_each(jobs, capacity)

    def start(self, jobs: tuple[Job, ...]) -> tuple[Job, ...]:
        return jobs

    def decide(
        self, jobs: tuple[Job, ...], observation: Observation
    ) -> tuple[tuple[Job, ...], Plan]:
        return jobs, plan_of(jobs, observation, self.act(features(jobs, observation)), self.actions)


@dataclass(frozen=True)
class _Given(Fixed):
    """A policy that returns `plan`, decided outside the control loop, or changes nothing if `plan` is None."""

    plan: Plan | None = None

    def decide(self, state: None, observation: Observation) -> tuple[None, Plan]:
        return state, self.plan or hold(observation)


class ClusterEnv(gymnasium.Env):
    """The simulated cluster as a Gymnasium environment; an episode is one day.

    A step applies one action, an array or a `Plan`, and lasts `tick_s`. The last step ends when no
    request is left. The reward is minus the utility lost in the minutes that ended during the step.
    The age of an unfinished request is its estimated latency. The last reward corrects these
    estimates. Rewards add up to -(minutes x `lost_utility` of `run`). Attribute `observation` is
    the current `Observation`. Attribute `run`, the day's result, is set at its end.

    Parameters
    ----------
    traces : the name of a scenario or traces of your own.
    capacity : cores; None takes the scenario's, which may change during the day.
    train : if True, each episode is a random training day, for agents that learn; if False, it is
        the evaluation day.
    actions : "counts" (MultiDiscrete, a target for each job) or "shares" (Box, see `plan_of`).
    cluster : function (workload, trial, capacity, initial, capacity_steps) -> a faster cluster that
        replaces the simulator, as in `studies/arena/fluid.py`. With it, `run` is not set, and
        rewards are not corrected.

    `reset(seed)` draws the day and its requests. The `options` of `reset` may set `trial`, the seed
    of the requests, and `initial`, the replicas (jobs,) at the start.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012, as Gymnasium declares it

    def __init__(
        self,
        traces: str | Traces = "steady-v1",
        capacity: float | None = None,
        *,
        tick_s: float = 60.0,
        train: bool = False,
        actions: str = "counts",
        serving_model: ServingModel = PAPER,
        cluster: Callable[..., Any] | None = None,
    ):
        if actions not in ACTIONS:
            raise ValueError(f"actions={actions!r} is unknown; accepted: {', '.join(ACTIONS)}")
        self._steps: tuple[CapacityStep, ...] = ()
        if isinstance(traces, str):
            scenario = scenario_of(traces)
            traces = instance(traces, scenario.public_seed).traces
            if capacity is None:
                capacity, self._steps = scenario.capacity, scenario.capacity_steps
        if capacity is None:
            raise ValueError("capacity=None: traces of your own need a capacity in cores")
        self._traces, self.jobs, self.capacity = traces, traces.jobs, capacity
        self._tick_s, self._train, self._actions = tick_s, train, actions
        self._model, self._lighter = serving_model, cluster
        at_least_one_each(self.jobs, capacity)
        arrays, jobs = arrays_of(self.jobs), len(self.jobs)
        most = np.minimum(arrays.replicas_within(capacity), arrays.max_replicas)
        self.observation_space = spaces.Box(UNKNOWN, LARGEST, (jobs, len(FEATURES)), np.float32)
        counts = spaces.MultiDiscrete(most - arrays.min_replicas + 1, start=arrays.min_replicas)
        self.action_space = (
            counts if actions == "counts" else spaces.Box(0.0, 1.0, (jobs,), np.float32)
        )

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None):
        super().reset(seed=seed)
        options = options or {}
        number = int(self.np_random.integers(self._traces.days)) + 1 if self._train else None
        trial = int(options.get("trial", self.np_random.integers(2**31)))
        self._workload = self._traces.workload(number)
        self._initial = np.array(
            options.get("initial", at_least_one_each(self.jobs, self.capacity))
        )
        check_initial(self.jobs, self._initial, self.capacity)
        steps = self._steps
        if self._lighter:
            self._cluster = self._lighter(
                self._workload, trial, self.capacity, self._initial, steps
            )
        else:
            day = self._workload, draw(self._workload, trial, router=self._model.router)
            self._cluster = SimulatedCluster(
                *day, self.capacity, self._initial, self._model, capacity_steps=steps
            )
        self._memory = Memory.start(_Given(), self.jobs)
        self._decisions, self._minute, self._lost, self._rewarded = Decisions(), 0, 0.0, 0.0
        self._cluster.advance(self._tick_s)
        return self._observe(), {}

    def step(self, action: np.ndarray | Plan):
        seen = self.observation
        plan = (
            action if isinstance(action, Plan) else plan_of(self.jobs, seen, action, self._actions)
        )
        self._memory, step = tick(_Given(plan=plan), GUARDRAILS, self.jobs, self._memory, seen)
        if step.failure:
            raise ValueError(step.failure)
        self._cluster.apply(step.target, step.plan.drop)
        self._decisions.append(step)
        end_s = self._workload.minutes * MINUTE_S
        self._cluster.advance(min(seen.now_s + self._tick_s, end_s))
        after, ended = self._observe(), seen.now_s + self._tick_s >= end_s - TOLERANCE
        if ended and not self._lighter:
            self._cluster.finish()
            latency_s, edges = self._cluster.latency_s, self._cluster.minute_edges
            day = self._workload, self.capacity, latency_s, edges, self._initial, self._decisions
            self.run = evaluate_run(*day, wall_s=0.0)
            self._lost = lost_utility(minute_utility(self.run)) * self._workload.minutes
        reward, self._rewarded = self._rewarded - self._lost, self._lost
        return after, reward, False, ended, {}

    def _observe(self) -> np.ndarray:
        """The current features; also adds up the utility lost since the last call."""
        self.observation = seen = self._cluster.observe()
        for minute in range(self._minute, seen.minute):
            tail_s, slo_s = self._cluster.tail_latency_of(minute), arrays_of(self.jobs).slo_s
            self._lost += float(
                (1 - relaxed_utility(np.where(np.isnan(tail_s), 0.0, tail_s), slo_s)).sum()
            )
        self._minute = seen.minute
        return features(self.jobs, seen)

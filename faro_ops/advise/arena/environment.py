"""`faro/Cluster-v0`, the simulated cluster as a Gymnasium environment; policies from agents."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from faro_lib.control.guardrails import GUARDRAILS
from faro_lib.control.loop import request
from faro_lib.control.tick import Memory, tick
from faro_lib.metrics.measures import lost_utility, minute_utility
from faro_lib.policies import Fixed
from faro_lib.protocol import PLAN_ATTEMPTS, Observation, Plan, hold, reasons
from faro_lib.simulate import ServingModel, SimulatedCluster, draw
from faro_lib.simulate.cluster import PAPER, CapacityStep
from faro_lib.simulate.run import Decisions, evaluate_run
from faro_lib.utility import relaxed_utility
from faro_lib.workload import Job, Traces, arrays_of
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE
from faro_lib.workload.shares import at_least_one_each, check_initial
from faro_ops.advise.arena.scenarios import instance, scenario_of, with_wrong_times

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
UNKNOWN = -1.0  # replaces NaN
LARGEST = 1e4  # upper limit of all features
ACTIONS = ("counts", "shares")


def features(jobs: tuple[Job, ...], observation: Observation) -> np.ndarray:
    """The observation as float32, shape (jobs, FEATURES).

    `share` is the number of replicas in an equal share of the cores.
    """
    arrays = arrays_of(jobs)
    seen = observation
    history = seen.arrivals_per_min  # (jobs, minutes)
    if not history.shape[1]:
        history = np.full((len(jobs), 1), np.nan)
    load = history[:, -5:] / MINUTE_S * arrays.busy_s[:, None]  # (jobs, <= 5 minutes)
    columns = (
        load[:, -1],
        load.mean(axis=1),
        seen.ongoing,
        seen.mean_latency_s / arrays.slo_s,
        seen.tail_latency_s / arrays.slo_s,
        seen.running,
        seen.starting,
        seen.target,
        seen.capacity / len(jobs) / arrays.cores,
    )
    clipped = np.minimum(np.stack(columns, axis=1), LARGEST)
    return np.nan_to_num(clipped, nan=UNKNOWN).astype(np.float32)


def plan_of(
    jobs: tuple[Job, ...], observation: Observation, action: np.ndarray, actions: str
) -> Plan:
    """Convert an action to a plan.

    An action has target replicas ("counts") or shares of the spare cores ("shares"), shape (jobs,).
    """
    if actions == "counts":
        target = np.asarray(action, np.int64)
    else:
        minimum = at_least_one_each(jobs, observation.capacity)
        cores = arrays_of(jobs).cores
        share = np.maximum(np.asarray(action, float), 0)
        spare = (observation.capacity - minimum @ cores) * share / max(share.sum(), TOLERANCE)
        target = minimum + (spare / cores + TOLERANCE).astype(np.int64)
    return Plan(target, np.zeros(len(jobs)), reasons(target, observation.target), PLAN_ATTEMPTS)


@dataclass(frozen=True)
class Agent:
    """A policy that wraps an agent, for simulations and the live controller.

    `act` maps `features` to an action.
    """

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
    """A policy that returns `plan`, decided outside the control loop; None changes nothing."""

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
        self._wrong_by = 1.0
        self._make_cluster = SimulatedCluster
        if isinstance(traces, str):
            scenario = scenario_of(traces)
            traces = instance(traces, scenario.public_seed).traces
            self._wrong_by = scenario.wrong_by
            self._make_cluster = scenario.make_cluster
            if scenario.serving:
                serving_model = scenario.serving_model
            if cluster and self._wrong_by != 1:
                problem = "its services are not as stated, and a faster cluster has stated services"
                raise ValueError(f"traces={scenario.name!r}: {problem}")
            if cluster and scenario.pools:
                problem = "its jobs share replicas, and a faster cluster has one job per replica"
                raise ValueError(f"traces={scenario.name!r}: {problem}")
            if cluster and scenario.cluster:
                problem = "its replicas are engines with gauges, which a faster cluster lacks"
                raise ValueError(f"traces={scenario.name!r}: {problem}")
            if capacity is None:
                capacity = scenario.capacity
                self._steps = scenario.capacity_steps
        if capacity is None:
            raise ValueError("capacity=None: traces of your own need a capacity in cores")
        self.jobs = traces.jobs
        self.capacity = capacity
        self._traces = traces
        self._tick_s = tick_s
        self._train = train
        self._actions = actions
        self._model = serving_model
        self._lighter = cluster
        at_least_one_each(self.jobs, capacity)  # ValueError if the capacity is too small
        jobs = len(self.jobs)
        self.observation_space = spaces.Box(UNKNOWN, LARGEST, (jobs, len(FEATURES)), np.float32)
        if actions == "counts":
            arrays = arrays_of(self.jobs)
            fewest = arrays.min_replicas
            most = np.minimum(arrays.replicas_within(capacity), arrays.max_replicas)
            self.action_space = spaces.MultiDiscrete(most - fewest + 1, start=fewest)
        else:
            self.action_space = spaces.Box(0.0, 1.0, (jobs,), np.float32)

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None):
        super().reset(seed=seed)
        options = options or {}
        day = int(self.np_random.integers(self._traces.days)) + 1 if self._train else None
        trial = int(options.get("trial", self.np_random.integers(2**31)))
        self._workload = self._traces.workload(day)
        initial = options.get("initial", at_least_one_each(self.jobs, self.capacity))
        self._initial = np.array(initial)
        check_initial(self.jobs, self._initial, self.capacity)
        if self._lighter:
            self._cluster = self._lighter(
                self._workload, trial, self.capacity, self._initial, self._steps
            )
        else:
            stated = draw(self._workload, trial, router=self._model.router)
            draws = with_wrong_times(stated, self._workload, self._wrong_by)
            self._cluster = self._make_cluster(
                self._workload,
                draws,
                self.capacity,
                self._initial,
                self._model,
                capacity_steps=self._steps,
            )
        self._memory = Memory.start(_Given(), self.jobs)
        self._decisions = Decisions()
        self._minute = 0  # the first minute whose lost utility is not counted yet
        self._lost = 0.0  # utility lost so far in this episode
        self._rewarded = 0.0  # the part of it that is in the rewards so far
        self._cluster.advance(self._tick_s)
        return self._observe(), {}

    def step(self, action: np.ndarray | Plan):
        seen = self.observation
        if isinstance(action, Plan):
            plan = action
        else:
            plan = plan_of(self.jobs, seen, action, self._actions)
        self._memory, step = tick(_Given(plan=plan), GUARDRAILS, self.jobs, self._memory, seen)
        if step.failure:
            raise ValueError(step.failure)
        request(self._cluster, step)
        self._decisions.append(step)
        end_s = self._workload.minutes * MINUTE_S
        self._cluster.advance(min(seen.now_s + self._tick_s, end_s))
        after = self._observe()
        ended = seen.now_s + self._tick_s >= end_s - TOLERANCE
        if ended and not self._lighter:
            self._cluster.finish()
            self.run = evaluate_run(
                self._workload,
                self.capacity,
                self._cluster.latency_s,
                self._cluster.minute_edges,
                self._initial,
                self._decisions,
                wall_s=0.0,
            )
            self._lost = lost_utility(minute_utility(self.run)) * self._workload.minutes
        reward = self._rewarded - self._lost
        self._rewarded = self._lost
        return after, reward, False, ended, {}

    def _observe(self) -> np.ndarray:
        """The current features; also adds up the utility lost since the last call."""
        self.observation = self._cluster.observe()
        slo_s = arrays_of(self.jobs).slo_s
        for minute in range(self._minute, self.observation.minute):
            tail_s = self._cluster.tail_latency_of(minute)
            tail_s = np.where(np.isnan(tail_s), 0.0, tail_s)  # no requests: nothing is lost
            self._lost += float((1 - relaxed_utility(tail_s, slo_s)).sum())
        self._minute = self.observation.minute
        return features(self.jobs, self.observation)

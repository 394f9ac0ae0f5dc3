"""The arena's versioned scenarios (`scenarios.yaml`).

Their inputs and utility bounds are computed once for all policies.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.errors import nearest
from faro_lib.experiments.limits import clairvoyants
from faro_lib.experiments.trials import policy_context
from faro_lib.files import find_upwards, read_yaml
from faro_lib.policies import PolicyContext
from faro_lib.simulate import Draws, ServingModel, SimulatedCluster, draw
from faro_lib.simulate.cluster import PAPER, CapacityStep
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job, Traces, Workload, arrays_of
from faro_lib.workload.jobs import MINUTE_S, PUBLISHED, SYNTHETIC
from faro_lib.workload.readers import read_jobs
from faro_lib.workload.replicas import SERIAL
from faro_lib.workload.service import true_busy_s
from faro_lib.workload.tables import load_workload

GENERATED = {"jobs": 10, "days": 6, "minutes": 240}
# Per replica count of a latency table, for a scenario with a serving model of its own.
MEASURED_REQUESTS = 10_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """One entry of `scenarios.yaml`.

    A seed fixes the random requests and, in generated workloads, their counts per minute.
    """

    name: str
    what: str
    public_seed: int
    capacity: float
    workload: str = SYNTHETIC
    jobs: str | None = None
    synthetic: Mapping[str, Any] = field(default_factory=dict)
    cold_start_s: float | None = None
    capacity_steps: tuple[CapacityStep, ...] = ()  # (time in s, cores from then on)
    # Every other job is so many times slower than stated, the others as much faster.
    wrong_by: float = 1.0
    # Job n is in pool n modulo `pools`; 0: no job shares replicas.
    pools: int = 0
    models_per_replica: int | None = None
    # A table of the generated jobs' mean rates, with the columns job and mean_rps.
    rates: str | None = None
    serving: Mapping[str, Any] = field(default_factory=dict)  # fields of `ServingModel`
    # module:class of the simulated cluster, for one whose policies observe more.
    cluster: str = ""
    quick: bool = False

    def traces(self, seed: int) -> Traces:
        """The traces of all days; FileNotFoundError if files of a recorded workload are missing."""
        workload = self.workload
        if workload not in (SYNTHETIC, PUBLISHED):
            workload = str(find_upwards(workload))
        jobs = self.jobs and str(find_upwards(self.jobs))
        generated = GENERATED | dict(self.synthetic) | {"seed": seed}
        raw = str(find_upwards("data/raw"))
        if jobs and self.rates:
            traces = load_workload(workload, synthetic=generated)
            traces = with_mean_rates(traces, read_jobs(jobs), find_upwards(self.rates))
        else:
            traces = load_workload(workload, jobs, raw=raw, synthetic=generated)
        changed = [self._changed(job, n) for n, job in enumerate(traces.jobs)]
        return replace(traces, jobs=tuple(changed))

    @property
    def serving_model(self) -> ServingModel:
        return ServingModel(**self.serving)

    @property
    def make_cluster(self) -> type[SimulatedCluster]:
        """The class of the simulated cluster; ValueError if only a checkout has it."""
        if not self.cluster:
            return SimulatedCluster
        module, _, name = self.cluster.partition(":")
        try:
            return getattr(import_module(module), name)
        except ModuleNotFoundError:
            problem = f"needs {module}, which only a checkout of the repository has"
            raise ValueError(f"scenario={self.name!r} {problem}") from None

    def _changed(self, job: Job, n: int) -> Job:
        """Job number `n` of the workload as this scenario has it."""
        if self.cold_start_s is not None:
            job = replace(job, cold_start_s=self.cold_start_s)
        if self.pools:
            pool = f"pool{n % self.pools + 1}"
            job = replace(job, pool=pool, models_per_replica=self.models_per_replica)
        return job


def with_mean_rates(traces: Traces, jobs: tuple[Job, ...], table: Path) -> Traces:
    """Generated traces for `jobs`, with the mean rates of `table` over the training days."""
    mean_rps = pd.read_csv(table).set_index("job")["mean_rps"]
    wanted = np.array([mean_rps[job.name] for job in jobs]) * MINUTE_S
    factor = (wanted / traces.train.mean(axis=(0, 1, 3)))[:, None]
    train, evaluation = (
        np.rint(counts * factor).astype(np.int64) for counts in (traces.train, traces.evaluation)
    )
    return Traces(jobs, train, evaluation)


def with_wrong_times(draws: Draws, workload: Workload, by: float) -> Draws:
    """The draws of a trial in which every other job is `by` times slower than stated.

    The others are as much faster. The platform measures the CPU seconds of a request, so that an
    autoscaler on CPU utilisation sees its own CPUs (`Observation.busy_s`).
    """
    if by == 1:
        return draws
    factor = np.where(np.arange(len(workload.jobs)) % 2 == 0, by, 1 / by)
    busy_s = factor * [true_busy_s(job) for job in workload.jobs]
    return replace(
        draws,
        service_s=draws.service_s * np.repeat(factor, np.diff(draws.first)),
        busy_s=np.repeat(busy_s[:, None], workload.minutes, axis=1),
    )


@cache
def scenarios() -> dict[str, Scenario]:
    """All scenarios by name."""
    entries = read_yaml(Path(__file__).with_name("scenarios.yaml"))
    for entry in entries.values():
        steps = entry.get("capacity_steps", ())
        entry["capacity_steps"] = tuple((minute * MINUTE_S, cores) for minute, cores in steps)
    return {name: Scenario(name, **entry) for name, entry in entries.items()}


def scenario_of(name: str) -> Scenario:
    """The scenario `name`. If the name is unknown, a ValueError suggests the nearest known name."""
    if name not in scenarios():
        raise ValueError(f"scenario={name!r} is unknown; {nearest(name, scenarios())}")
    return scenarios()[name]


class Instance:
    """A scenario with a seed: its inputs and its utility bound.

    They are computed on first use and shared by all policies.
    """

    def __init__(self, scenario: Scenario, seed: int):
        self.scenario = scenario
        self.seed = seed
        self.traces = scenario.traces(seed)
        self.workload = self.traces.workload()

    @cached_property
    def draws(self) -> Draws:
        stated = draw(self.workload, self.seed, router=self.scenario.serving_model.router)
        return with_wrong_times(stated, self.workload, self.scenario.wrong_by)

    @cached_property
    def context(self) -> PolicyContext:
        traces, serving_model = self.traces, self.scenario.serving_model
        if serving_model == PAPER:
            return policy_context(traces, report=lambda line: None)
        latencies = partial(
            measure,
            traces.jobs,
            capacity=self.scenario.capacity,
            requests=MEASURED_REQUESTS,
            serving_model=serving_model,
        )
        fitted = forecast.fit("auto", traces)
        return PolicyContext(traces.jobs, fitted, latency_model=latencies, traces=traces)

    @cached_property
    def bound(self) -> np.ndarray:
        """The utility of the best allocation in hindsight.

        It has the shape (jobs, minutes + 1) of `minute_utility`. Where jobs share replicas, it is
        1, because the clairvoyant gives each job its own replicas and is no bound for them.
        """
        if self.scenario.pools:
            return np.ones((len(self.workload.jobs), self.workload.minutes + 1))
        steps = ((0.0, self.scenario.capacity), *self.scenario.capacity_steps)
        capacities = [int(cores) for _, cores in steps]
        best = clairvoyants(self.workload, self.draws, capacities, self.scenario.serving_model)
        first = [at_s / MINUTE_S for at_s, _ in steps]  # the minute at which each step begins
        minutes = np.arange(self.workload.minutes + 1)
        in_force = np.searchsorted(first, minutes, side="right") - 1  # index into `steps`
        return np.choose(in_force, [one.utility for one in best])

    @cached_property
    def isolated(self) -> "Instance":
        """The same requests and cores, with replicas of its own for each job."""
        return Instance(replace(self.scenario, pools=0, models_per_replica=None), self.seed)

    @cached_property
    def sha256(self) -> str:
        """Hash of the inputs: capacity, jobs, requests per minute, arrival and service times.

        Also of lengths in tokens and of kinds of replica, where there are any.
        """
        jobs = arrays_of(self.traces.jobs)
        arrays = (
            jobs.slo_s,
            jobs.quantile,
            jobs.cold_start_s,
            self.traces.train,
            self.traces.evaluation,
            self.draws.arrival_s,
            self.draws.service_s,
            self.draws.prompt_tokens,
            self.draws.output_tokens,
        )
        capacity = repr((self.scenario.capacity, self.scenario.capacity_steps)).encode()
        content = b"".join(array.tobytes() for array in arrays)
        replicas = [repr(job.replica) for job in self.traces.jobs if job.replica != SERIAL]
        return hashlib.sha256(capacity + content + "".join(replicas).encode()).hexdigest()


@lru_cache(maxsize=64)
def instance(name: str, seed: int) -> Instance:
    """The `Instance` of scenario `name` with this seed; all policies of a process share it."""
    return Instance(scenario_of(name), seed)

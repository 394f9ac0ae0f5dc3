"""What an autoscaler of language models sees: the gauges of its engines, in the simulator.

vLLM reports the waiting requests, the use of the KV cache and the tokens that it has processed; the
GPU's exporter reports how much of the time the GPU is busy. `simulate` has no such observation.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np

from faro_lib.protocol import HISTORY_MINUTES, Observation, Policy
from faro_lib.simulate import Draws, Run, ServingModel, SimulatedCluster, simulate
from faro_lib.workload import Job, Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import Continuous

GPU_WINDOW_S = 60.0  # the use of GPUs is averaged over this time, as a dashboard does


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineObservation(Observation):
    """An observation with the engines' gauges, (jobs,), each summed over a job's replicas."""

    waiting: np.ndarray  # requests that no iteration has admitted (vllm:num_requests_waiting)
    cache_use: np.ndarray  # share of a replica's KV cache in use (vllm:kv_cache_usage_perc)
    busy_gpus: np.ndarray  # replicas with a request in service, averaged over GPU_WINDOW_S
    # (jobs, minutes <= 15) load of the last complete minutes in requests of mean length (`costs`).
    load_per_min: np.ndarray
    # (2, jobs, minutes <= 15) prompt and output tokens of the requests of these minutes.
    tokens_per_min: np.ndarray


def costs(replica: Continuous, prompt_tokens: np.ndarray, output_tokens: np.ndarray) -> np.ndarray:
    """What requests cost a replica at full load, as a multiple of the cost of one of mean length.

    A prompt token costs what it costs in a prompt of mean length, an output token its share of an
    iteration with a full batch (`Continuous.capacity_rps`).
    """
    per_prompt_s = replica.prefill_s(replica.prompt_tokens) / replica.prompt_tokens
    per_output_s = replica.decode_s(replica.max_sequences) / replica.max_sequences
    mean_s = replica.prompt_tokens * per_prompt_s + replica.output_tokens * per_output_s
    return (prompt_tokens * per_prompt_s + output_tokens * per_output_s) / mean_s


def tokens_per_min(draws: Draws, minutes: int) -> np.ndarray:
    """Prompt and output tokens of the requests that arrive in each minute, (2, jobs, minutes)."""
    jobs = len(draws.first) - 1
    of_job = np.repeat(np.arange(jobs), np.diff(draws.first))
    cell = of_job * minutes + (draws.arrival_s // MINUTE_S).astype(int)
    both = draws.prompt_tokens, draws.output_tokens
    sums = [np.bincount(cell, tokens, jobs * minutes) for tokens in both]
    return np.reshape(sums, (2, jobs, minutes))


def cache_tokens(job: Job) -> float:
    """Tokens that the KV cache of a replica holds; ValueError if the replica has none."""
    if not isinstance(job.replica, Continuous):
        raise ValueError(f"job {job.name!r}: a replica of kind {job.replica.kind} has no KV cache")
    return job.replica.cache_tokens


class EngineCluster(SimulatedCluster):
    """A simulated cluster of continuous replicas that reports `EngineObservation`s.

    A sequence in service is taken to use the KV cache for its prompt and its whole output.
    `load_per_min` is (jobs, minutes); None = `load_of`. `changes` are those of `SimulatedCluster`.
    """

    def __init__(
        self,
        workload: Workload,
        draws: Draws,
        capacity: float,
        initial: np.ndarray,
        serving_model: ServingModel,
        *,
        load_per_min: np.ndarray | None = None,
        **changes: Any,
    ):
        super().__init__(workload, draws, capacity, initial, serving_model, **changes)
        self._tokens = draws.prompt_tokens + draws.output_tokens
        self._tokens_per_min = tokens_per_min(draws, workload.minutes)
        load = (
            load_of(workload.jobs, self._tokens_per_min) if load_per_min is None else load_per_min
        )
        self._load_per_min = load
        self._cache_tokens = np.array([cache_tokens(job) for job in workload.jobs])
        self._busy: deque[tuple[float, np.ndarray]] = deque()

    def observe(self) -> EngineObservation:
        usual = super().observe()
        serving, kinds = self._serving.own, self._serving.kinds
        assert kinds is not None  # because the replicas are continuous
        station = serving.station
        inside = station.inside.sum(axis=1)
        in_queue = station.waiting_count + (station.held >= 0)
        in_use, busy = np.zeros((2, len(self._cache_tokens)))
        for job, slots in enumerate(serving.active):
            in_service = kinds.serving[job, slots]
            busy[job] = np.count_nonzero(in_service)
            for slot, count in zip(slots, in_service):
                in_use[job] += self._tokens[kinds.line[job, slot, :count]].sum()
        while self._busy and self._busy[0][0] <= self.now_s - GPU_WINDOW_S:
            self._busy.popleft()
        self._busy.append((self.now_s, busy))
        first = max(0, usual.minute - HISTORY_MINUTES)
        return EngineObservation(
            **{field.name: getattr(usual, field.name) for field in fields(Observation)},
            waiting=in_queue + inside - kinds.serving.sum(axis=1),
            cache_use=in_use / self._cache_tokens,
            busy_gpus=np.mean([one for _, one in self._busy], axis=0),
            load_per_min=self._load_per_min[:, first : usual.minute],
            tokens_per_min=self._tokens_per_min[:, :, first : usual.minute],
        )


def load_of(jobs: Sequence[Job], tokens: np.ndarray) -> np.ndarray:
    """Load of every minute in requests of mean length (`costs`), (jobs, minutes).

    `tokens` is from `tokens_per_min`; costs of requests add up like their tokens.
    """
    loads = []
    for job, prompt_tokens, output_tokens in zip(jobs, *tokens):
        assert isinstance(job.replica, Continuous)
        loads.append(costs(job.replica, prompt_tokens, output_tokens))
    return np.array(loads)


def simulate_engines(
    workload: Workload,
    policy: Policy,
    capacity: float,
    draws: Draws,
    load_per_min: np.ndarray,
    initial: np.ndarray,
    serving_model: ServingModel,
) -> Run:
    """`simulate`, on an `EngineCluster`."""
    return simulate(
        workload,
        policy,
        capacity,
        draws=draws,
        serving_model=serving_model,
        initial=initial,
        make_cluster=partial(EngineCluster, load_per_min=load_per_min),
    )

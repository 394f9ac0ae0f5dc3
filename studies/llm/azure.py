"""Does the first half hour predict the second? The Azure LLM inference trace 2023 on measured GPUs.

Bursts and lengths are fitted to the first half hour of exact times. With the counts per minute of
the second, they give a latency table's prediction and a simulation of the time to the first token.
Both are compared with a simulation of the second half hour's exact times and lengths.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib.queueing import LatencyTable
from faro_lib.simulate import draw
from faro_lib.simulate.latencies import quantile_of
from faro_lib.simulate.measure import measure
from faro_lib.simulate.serving import constant_latencies
from faro_lib.workload import Job, Workload
from faro_lib.workload.bursts import fit_hours
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import Continuous, replica_of
from studies.arrivals.world import azure_files, counts_of, minutes_of
from studies.llm.lengths import logged, lognormal
from studies.llm.world import GPU, LIVE

# Prompts that a replica admits at a time. Some are longer than the context of Llama 2, and a limit
# below the longest prompt would make a replica empty itself before it admits one.
ADMITTED_TOKENS = 32_768
UTILISATIONS = (0.85, 0.7, 0.5, 0.35, 0.25)  # of the first half hour, which give the sizes
SEEDS = tuple(range(10))
QUANTILE = 0.99
# Steps from what is fitted to the first half hour to a replay of the second.
LOGNORMAL = "lognormal lengths"
LOGGED = "quantiles of the lengths"
PAIRS = "pairs of prompt and output"
OTHER_LENGTHS = "lengths of the second"
OTHER_BURSTS = "bursts of the second"
EXACT_TIMES = "exact times"
REPLAYED = "replayed"
STEPS = (LOGNORMAL, LOGGED, PAIRS, OTHER_LENGTHS, OTHER_BURSTS, EXACT_TIMES, REPLAYED)


@dataclass(frozen=True, slots=True, eq=False)
class Log:
    """Exact times in s, (requests,), and prompt and output tokens, (2, requests)."""

    time_s: np.ndarray
    tokens: np.ndarray

    def between(self, begin_s: float, end_s: float) -> "Log":
        a, b = np.searchsorted(self.time_s, (begin_s, end_s))
        return Log(self.time_s[a:b] - begin_s, self.tokens[:, a:b])


def read_logs(folder: str | Path) -> dict[str, Log]:
    """The logs by service, in whole minutes."""
    logs = {}
    for name, path in azure_files(folder).items():
        table = pd.read_csv(path)
        stamps = pd.to_datetime(table["TIMESTAMP"], format="ISO8601")
        time_s = stamps.astype("datetime64[ns]").astype("int64").to_numpy() / 1e9
        time_s -= time_s[0] // MINUTE_S * MINUTE_S
        tokens = table[["ContextTokens", "GeneratedTokens"]].to_numpy(float).T
        log = Log(time_s, np.maximum(tokens, 1))
        logs[name] = log.between(0, time_s[-1] // MINUTE_S * MINUTE_S)
    return logs


def fitted_job(name: str, log: Log) -> Job:
    """The job whose lengths and bursts are those of the log; its SLO is on the first token."""
    replica = replica_of(
        {
            **GPU,
            **{"prompt_tokens": 1, "output_tokens": 1},
            **{"max_tokens": ADMITTED_TOKENS, "slo_on": "first_token"},
        }
    )
    assert isinstance(replica, Continuous)
    job = Job(name, 1.0, QUANTILE, model="llama2-70b", replica=logged(replica, log.tokens))
    return job.with_dispersion(fit_hours(log.time_s, 1)[0][0].round(2))


def simulated(
    job: Job,
    counts: np.ndarray,
    replicas: int,
    seed: int,
    time_s: np.ndarray | None = None,
    tokens: np.ndarray | None = None,
) -> np.ndarray:
    """p99 of the time to the first token of `counts` (minutes,) requests, (2,).

    Times and prompt and output tokens (2, requests) are drawn as the job's, unless given. The first
    value is over all requests, the second the mean of the minutes' p99, weighted by their requests.
    It is infinite if more than 1 % are dropped.
    """
    workload = Workload((job,), counts[None], () if time_s is None else (time_s,))
    draws = draw(workload, seed, router=None)
    if tokens is not None:
        draws = replace(draws, prompt_tokens=tokens[0], output_tokens=tokens[1])
    places = np.array([LIVE.limit_of(job)])
    rules = LIVE.dispatch, LIVE.queue_limit, places
    latency_s = constant_latencies((job,), draws, [replicas], *rules)
    edges = np.concatenate([[0], np.cumsum(counts)])
    some = counts > 0
    of_minutes = [
        quantile_of(latency_s[a:b], QUANTILE) for a, b in zip(edges[:-1][some], edges[1:][some])
    ]
    mean = counts[some] @ np.array(of_minutes) / counts.sum()
    return np.array([quantile_of(latency_s, QUANTILE), mean])


def predicted(table: LatencyTable, job: Job, counts: np.ndarray, replicas: int) -> float:
    """The mean of the minutes' p99, weighted by their requests, from the latency table."""
    tail_s, _ = table.minutes(job, counts / MINUTE_S, replicas)
    return float(tail_s.mean(axis=1) @ counts / counts.sum())


def sizes_of(load: float) -> list[int]:
    """Replica counts near UTILISATIONS at this load, each larger than the one before.

    >>> sizes_of(2.0)
    [3, 4, 5, 6, 8]
    """
    sizes: list[int] = []
    for share in UTILISATIONS:
        sizes.append(max([int(np.ceil(load / share)), *(size + 1 for size in sizes)]))
    return sizes


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """Both halves of a service's log: requests, counts per minute, and the jobs fitted to them."""

    parts: tuple[Log, Log]
    counts: tuple[np.ndarray, np.ndarray]
    jobs: tuple[Job, Job]

    @property
    def loads(self) -> tuple[float, float]:
        """Offered load of each half in replicas."""
        first, second = (
            job.busy_s * counts.mean() / MINUTE_S for job, counts in zip(self.jobs, self.counts)
        )
        return first, second

    @property
    def sizes(self) -> list[int]:
        return sizes_of(self.loads[0])

    def replayed(self, half: int, replicas: int) -> np.ndarray:
        """`simulated` with the exact times and lengths of a half."""
        part = self.parts[half]
        exact = part.time_s, part.tokens
        return simulated(self.jobs[half], self.counts[half], replicas, 0, *exact)


def halves_of(name: str, log: Log) -> Halves:
    minutes = minutes_of(log.time_s) // 2
    half_s = minutes * MINUTE_S
    first, second = log.between(0, half_s), log.between(half_s, 2 * half_s)
    counts = [counts_of(part.time_s, MINUTE_S, minutes) for part in (first, second)]
    jobs = fitted_job(name, first), fitted_job(name, second)
    return Halves((first, second), (counts[0], counts[1]), jobs)


def differences(logs: Mapping[str, Log]) -> Iterator[dict]:
    """A row per service and half: its requests, lengths, bursts and offered load."""
    for name, log in logs.items():
        halves = halves_of(name, log)
        for half, (part, job) in enumerate(zip(halves.parts, halves.jobs), 1):
            row = {"service": name, "half": half, "requests": len(part.time_s)}
            row |= {"load": halves.loads[half - 1]}
            drawn = lognormal(job.replica, part.tokens).lengths(np.random.default_rng(0), 100_000)
            for tokens, of_log, of_lognormal in zip(("prompt", "output"), part.tokens, drawn):
                row[f"{tokens}_tokens"] = of_log.mean()
                row[f"{tokens}_p99"] = np.quantile(of_log, QUANTILE)
                row[f"{tokens}_lognormal_p99"] = np.quantile(of_lognormal, QUANTILE)
            row["dispersion_10s"], row["dispersion_1s"], _ = job.dispersion
            yield row


def forecasts(logs: Mapping[str, Log]) -> Iterator[dict]:
    """A row per service and size: p99 from what the first half hour says, and of the second.

    `seed_std` is the standard deviation of the simulated log p99 over SEEDS.
    """
    for name, log in logs.items():
        halves = halves_of(name, log)
        job, counts = halves.jobs[0], halves.counts[1]
        table = measure((job,), tuple(range(1, halves.sizes[-1] + 1)), serving_model=LIVE)
        for replicas in halves.sizes:
            row = {"service": name, "replicas": replicas}
            row["load_first"], row["load_second"] = halves.loads
            row["first_s"], _ = halves.replayed(0, replicas)
            drawn = np.array([simulated(job, counts, replicas, seed) for seed in SEEDS])
            row["simulated_s"], _ = drawn.mean(axis=0)
            finite = np.isfinite(drawn).all()
            row["seed_std"] = np.log(drawn[:, 0]).std() if finite else np.nan
            row["predicted_minutes_s"] = predicted(table, job, counts, replicas)
            row["second_s"], row["second_minutes_s"] = halves.replayed(1, replicas)
            yield row


def steps(logs: Mapping[str, Log]) -> Iterator[dict]:
    """What the error of a simulation is made of: a row per service, size and step.

    Each step replaces one thing that is fitted to the first half hour by that of the second, until
    all is replayed. p99 as in `simulated`, the mean over SEEDS.
    """
    for name, log in logs.items():
        halves = halves_of(name, log)
        (first, second), (job, other), (_, counts) = halves.parts, halves.jobs, halves.counts
        plain = replace(job, replica=lognormal(job.replica, first.tokens))
        drawn = (
            (LOGNORMAL, plain, None, None),
            (LOGGED, job, None, None),
            (PAIRS, job, None, first.tokens),
            (OTHER_LENGTHS, job, None, second.tokens),
            (OTHER_BURSTS, other, None, second.tokens),
            (EXACT_TIMES, other, second.time_s, second.tokens),
        )
        for replicas in halves.sizes:
            key = {"service": name, "replicas": replicas}
            for step, of_step, time_s, tokens in drawn:
                found = [
                    simulated(
                        of_step, counts, replicas, seed, time_s, resampled(tokens, counts, seed)
                    )
                    for seed in SEEDS
                ]
                p99_s, minutes_s = np.mean(found, axis=0)
                yield key | {"step": step, "p99_s": p99_s, "minutes_s": minutes_s}
            p99_s, minutes_s = halves.replayed(1, replicas)
            yield key | {"step": REPLAYED, "p99_s": p99_s, "minutes_s": minutes_s}


def resampled(tokens: np.ndarray | None, counts: np.ndarray, seed: int) -> np.ndarray | None:
    """Pairs of prompt and output for all requests, drawn from `tokens` (2, requests) if given."""
    if tokens is None:
        return None
    rng = np.random.default_rng([seed, 13])
    return tokens[:, rng.integers(tokens.shape[1], size=int(counts.sum()))]

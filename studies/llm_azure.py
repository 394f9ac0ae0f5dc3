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
from faro_lib.workload.replicas import replica_of
from studies.arrivals import azure_files, counts_of, minutes_of
from studies.llm import GPU, LIVE

# Prompts that a replica admits at a time. Some are longer than the context of Llama 2, and a limit
# below the longest prompt would make a replica empty itself before it admits one.
ADMITTED_TOKENS = 32_768
UTILISATIONS = (0.85, 0.7, 0.5, 0.35, 0.25)  # of the first half hour, which give the sizes
SEEDS = tuple(range(10))
QUANTILE = 0.99


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
    mean, cv = log.tokens.mean(axis=1), log.tokens.std(axis=1) / log.tokens.mean(axis=1)
    replica = replica_of(
        {
            **GPU,
            **{"prompt_tokens": round(mean[0], 1), "prompt_cv": round(cv[0], 2)},
            **{"output_tokens": round(mean[1], 1), "output_cv": round(cv[1], 2)},
            **{"max_tokens": ADMITTED_TOKENS, "slo_on": "first_token"},
        }
    )
    job = Job(name, 1.0, QUANTILE, model="llama2-70b", replica=replica)
    return job.with_dispersion(fit_hours(log.time_s, 1)[0][0].round(2))


def simulated(
    job: Job, counts: np.ndarray, replicas: int, log: Log | None, seed: int
) -> tuple[float, float]:
    """p99 of the time to the first token, of the log's requests or of requests like the job's.

    The first value is over all requests, the second the mean of the minutes' p99, weighted by their
    requests. It is infinite if more than 1 % are dropped.
    """
    times = () if log is None else (log.time_s,)
    workload = Workload((job,), counts[None], times)
    draws = draw(workload, seed, router=None)
    if log is not None:
        draws = replace(draws, prompt_tokens=log.tokens[0], output_tokens=log.tokens[1])
    places = np.array([LIVE.limit_of(job)])
    rules = LIVE.dispatch, LIVE.queue_limit, places
    latency_s = constant_latencies((job,), draws, [replicas], *rules)
    edges = np.concatenate([[0], np.cumsum(counts)])
    of_minutes = [
        quantile_of(latency_s[a:b], QUANTILE) if a < b else 0.0 for a, b in zip(edges, edges[1:])
    ]
    of_all = quantile_of(latency_s, QUANTILE)
    return float(of_all), float(
        counts[counts > 0] @ np.array(of_minutes)[counts > 0] / counts.sum()
    )


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


def halves(logs: Mapping[str, Log]) -> Iterator[dict]:
    """A row per service and size: p99 from what the first half hour says, and of the second."""
    for name, log in logs.items():
        half_s = minutes_of(log.time_s) // 2 * MINUTE_S
        parts = log.between(0, half_s), log.between(half_s, 2 * half_s)
        counts = [counts_of(part.time_s, MINUTE_S, int(half_s // MINUTE_S)) for part in parts]
        job, other = (fitted_job(name, part) for part in parts)
        load = [of.busy_s * len(part.time_s) / half_s for of, part in zip((job, other), parts)]
        sizes = sizes_of(load[0])
        table = measure((job,), tuple(range(1, sizes[-1] + 1)), serving_model=LIVE)
        for replicas in sizes:
            row = {"service": name, "replicas": replicas}
            row |= {"load_first": load[0], "load_second": load[1]}
            row["first_s"], _ = simulated(job, counts[0], replicas, parts[0], 0)
            replayed = simulated(job, counts[1], replicas, parts[1], 0)
            drawn = [simulated(job, counts[1], replicas, None, seed) for seed in SEEDS]
            row["simulated_s"], _ = np.mean(drawn, axis=0).tolist()
            row["predicted_minutes_s"] = predicted(table, job, counts[1], replicas)
            row["second_s"], row["second_minutes_s"] = replayed
            yield row

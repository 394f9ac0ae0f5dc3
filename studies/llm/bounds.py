"""What no autoscaler can avoid on docs/llm.md's requests, and what Faro misses if it knows them.

`clairvoyant` is Faro with the truth in place of its forecast. `fewest_missed` is a bound for all
policies that drop no requests.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from faro_lib.allocate import best_by_minute
from faro_lib.experiments.trials import Report
from faro_lib.forecast import HORIZON_MINUTES
from faro_lib.policies import Policy
from faro_lib.simulate.serving import constant_latencies
from faro_lib.workload import arrays_of
from faro_lib.workload.jobs import MINUTE_S
from studies.forecast.oracle import Oracle
from studies.llm.engines import EngineObservation, tokens_per_min
from studies.llm.goodput import Goodput
from studies.llm.rivals import FARO, Informed, faro
from studies.llm.world import BLOCK, FIRST_TOKEN_S, LIVE, WARM_UP, Block, judged, run

APART_MIN = 6  # between the beginnings of two minutes in `met_by_count`
((LEADER, _),) = FARO.items()
CLAIRVOYANT = f"{LEADER}, clairvoyant"
BOUND = "bound"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clairvoyant(Informed):
    """Faro that knows requests, load and lengths of the coming minutes, each as a minute's mean."""

    requests: np.ndarray  # (jobs, minutes)
    load: np.ndarray  # (jobs, minutes)
    tokens: np.ndarray  # (2, jobs, minutes)

    def latency_model(self, observation: EngineObservation) -> Goodput:
        """Goodput at the lengths of the coming `lengths_minutes`."""
        begin = min(observation.minute, self.load.shape[1] - 1)
        ahead = slice(begin, begin + self.lengths_minutes)
        coming = replace(
            observation,
            minute=observation.minute + 1,
            arrivals_per_min=self.requests[:, ahead],
            load_per_min=self.load[:, ahead],
            tokens_per_min=self.tokens[:, :, ahead],
        )
        return Informed.latency_model(self, coming)


def clairvoyant(block: Block, **options: Any) -> Policy:
    """Faro with the truth in place of its forecast and of the lengths that it follows."""
    usual, load = block.known.forecasters["load"], block.load_per_min
    truth = Oracle(jobs=usual.jobs, day_minutes=usual.day_minutes, past=usual.past, truth=load)
    nothing = {"load": np.empty((len(load), 0))}
    known = replace(block.known, forecasters={"load": truth}, before=nothing)
    policy = faro(known, nowcast=False, samples=1, **options)  # all paths are the true one
    return Clairvoyant(
        policy.policy,
        policy.jobs,
        policy.name,
        policy.goodput,
        HORIZON_MINUTES,
        requests=block.workload.requests_per_min.astype(float),
        load=load,
        tokens=tokens_per_min(block.draws, BLOCK),
    )


def met_by_count(block: Block, most: int) -> np.ndarray:
    """Requests that meet their SLO with 0, 1, ..., `most` replicas, (jobs, counts, minutes).

    Every minute begins with empty replicas, and lasts until its requests have ended. In a run, a
    minute begins with what is left of the one before.
    """
    jobs, draws = block.workload.jobs, block.draws
    minute = (draws.arrival_s // MINUTE_S).astype(int)
    apart = replace(draws, arrival_s=draws.arrival_s + (APART_MIN - 1) * MINUTE_S * minute)
    places = np.array([LIVE.limit_of(job) for job in jobs])
    rules = LIVE.dispatch, LIVE.queue_limit, places
    cell = np.repeat(np.arange(len(jobs)), np.diff(draws.first)) * BLOCK + minute
    columns = [np.zeros((len(jobs), BLOCK))]
    for count in range(1, most + 1):
        met = constant_latencies(jobs, apart, [count] * len(jobs), *rules) <= FIRST_TOKEN_S
        counted = np.bincount(cell, met, len(jobs) * BLOCK).reshape(len(jobs), BLOCK)
        columns.append(np.maximum(counted, columns[-1]))
    return np.stack(columns, axis=1)


def fewest_missed(block: Block, capacities: Iterable[int]) -> dict[int, int]:
    """By capacity, the fewest judged requests that miss if every minute has its best replicas.

    All requests are known, and replicas start and stop at once when a minute begins.
    """
    jobs = block.workload.jobs
    most = max(capacities) - int(arrays_of(jobs).min_replicas.sum()) + 1
    met = met_by_count(block, most)
    requests = int(block.workload.requests_per_min[:, WARM_UP:].sum())
    missed = {}
    for capacity in capacities:
        replicas = best_by_minute(met, jobs, capacity)
        reached = np.take_along_axis(met, replicas[:, None], axis=1)[:, 0, WARM_UP:]
        missed[capacity] = requests - int(reached.sum())
    return missed


def bounds(
    of_days: Iterable[Block], choices: pd.DataFrame, report: Report = print
) -> Iterator[dict[str, Any]]:
    """Rows as of `studies.llm.world.compare` of CLAIRVOYANT, with Faro's settings, and of BOUND."""
    (rival,) = FARO.values()
    chosen = choices[choices["chosen"] & (choices["rival"] == LEADER)].set_index("capacity_cores")
    for block in of_days:
        least = fewest_missed(block, chosen.index.tolist())
        for capacity, row in chosen.iterrows():
            setting = {key: float(row[key]) for key in rival.settings}
            found = judged(run(block, clairvoyant(block, **setting), int(capacity)))
            key = {"day": block.day, "start_min": block.start, "capacity_cores": int(capacity)}
            yield key | {"policy": CLAIRVOYANT} | found
            bound = {"requests": found["requests"], "missed": least[capacity]}
            yield key | {"policy": BOUND} | bound
        report(f"day {block.day}, minute {block.start}")

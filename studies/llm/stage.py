"""Stage 87: language-model services under Faro and the autoscalers that people use.

It repeats a part of docs/llm.md with the settings that were tuned there, or compares three small
generated services with settings that nobody has tuned.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd

from faro_lib.experiments.trials import Report
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import Continuous
from studies.llm.rivals import FARO, LLM_RIVALS
from studies.llm.servegen import DAY_S, LENGTHS_S, LEVELS, WINDOW_S, Clients
from studies.llm.world import ASSUMED_DAYS, Block, Services, blocks, compare, latency_table

POLICIES = LLM_RIVALS | FARO
(LEADER,) = FARO
SEED = 24
# Generated services: mean requests/s, and mean prompt and output tokens.
FEW = {"chat": (2.0, 600, 300), "search": (2.5, 1500, 60), "agents": (0.8, 1200, 500)}
LENGTHS_CV = 0.8
DAILY = 0.6  # amplitude of the daily shape, of the logarithm of the rate
BURSTY, STEADY = 0.3, 1.0  # shapes of gamma gaps; 1 = at random times


def few_clients(days: int = ASSUMED_DAYS + 1, seed: int = 1) -> Clients:
    """Three generated services; the first one has bursts."""
    rng = np.random.default_rng(seed)
    windows, parts = round(days * DAY_S / WINDOW_S), round(days * DAY_S / LENGTHS_S)
    phase = 2 * np.pi * np.arange(windows) * WINDOW_S / DAY_S
    rates, lengths = [], []
    for mean_rps, *tokens in FEW.values():
        shape = np.exp(DAILY * np.cos(phase + rng.uniform(0, 2 * np.pi)))
        rates.append(mean_rps * shape / shape.mean())
        of_kinds = np.array([_lognormal(mean, LENGTHS_CV) for mean in tokens])
        lengths.append(np.repeat(of_kinds[None], parts, axis=0))
    gaps = np.array([BURSTY, STEADY, STEADY])[:, None]
    shapes = np.broadcast_to(gaps, (len(FEW), windows)).copy()
    weibull = np.zeros((len(FEW), windows), bool)
    return Clients(tuple(FEW), np.array(rates), shapes, weibull, np.array(lengths), ())


def _lognormal(mean: float, cv: float) -> list[float]:
    """Mean, standard deviation, quantiles at LEVELS and maximum, as in `Clients.lengths`."""
    variance = np.log1p(cv**2)
    levels = [NormalDist().inv_cdf(level) for level in (*LEVELS, 0.9999)]
    quantiles = mean * np.exp(np.sqrt(variance) * np.array(levels) - variance / 2)
    return [mean, cv * mean, *quantiles]


def tuned(path: str | Path, capacities: Sequence[int]) -> tuple[pd.DataFrame, float]:
    """The settings that studies/llm/run.py chose for these capacities, and the factor of the rates.

    ValueError names the capacities at hand, if another one is asked for.
    """
    tried = pd.read_csv(path)
    for_all = tried[tried["rival"] == LEADER]
    known = sorted(for_all["capacity_cores"].unique().tolist())
    for capacity in capacities:
        if capacity not in known:
            at_hand = ", ".join(map(str, known))
            raise ValueError(f"{path}: no settings for {capacity} replicas; at hand: {at_hand}")
    rates = float(for_all["rates"].iloc[0]) if "rates" in tried else 1.0
    if "rates" in tried:
        tried = tried[tried["rates"] == rates]
    return tried[tried["chosen"] & tried["capacity_cores"].isin(capacities)], rates


def untuned(capacities: Sequence[int]) -> pd.DataFrame:
    """The settings at which each policy's tuning starts."""
    rows = [
        {"rival": name, "capacity_cores": capacity, "chosen": True, **policy.start}
        for capacity in capacities
        for name, policy in POLICIES.items()
    ]
    return pd.DataFrame(rows)


def scaled(clients: Clients, rates: float) -> Clients:
    """The clients with `rates` times as many requests, and otherwise the same gaps."""
    return replace(clients, rate_rps=rates * clients.rate_rps)


def compared(
    services: Services,
    choices: pd.DataFrame,
    days: Sequence[int],
    starts: Sequence[int],
    report: Report = print,
) -> pd.DataFrame:
    """A row per block, capacity and policy, as `studies.llm.world.compare` has them.

    `starts` are the minutes of each day at which a block begins.
    """
    table = latency_table(services.jobs)

    def judged() -> Iterator[Block]:
        for day in days:
            yield from blocks(services, table, day, starts, SEED)

    return pd.DataFrame(compare(judged(), choices, POLICIES, report))


def described(services: Services) -> pd.DataFrame:
    """What policies know of each service, by its name: means of days 1 to ASSUMED_DAYS.

    `burstiness` is the index of dispersion of windows of 1 s within those of 10 s.
    """
    per_s = services.requests[:ASSUMED_DAYS].mean(axis=(0, 2)) / MINUTE_S
    rows = []
    for job, rate_rps in zip(services.jobs, per_s):
        assert isinstance(job.replica, Continuous)
        row = {"requests/s": rate_rps, "prompt tokens": job.replica.prompt_tokens}
        row |= {"output tokens": job.replica.output_tokens, "burstiness": job.dispersion_1s}
        rows.append(row | {"busy replicas": rate_rps * job.busy_s})
    return pd.DataFrame(rows, index=[job.name for job in services.jobs])


def shares(runs: pd.DataFrame) -> pd.DataFrame:
    """Share of requests that miss an SLO: a row per capacity, a column per policy."""
    sums = runs.groupby(["capacity_cores", "policy"])[["missed", "requests"]].sum()
    return (sums["missed"] / sums["requests"]).unstack()[[LEADER, *LLM_RIVALS]]

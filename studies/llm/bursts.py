"""What a planner of language models loses by assuming random arrivals, on the exact times of Azure.

Services replay the second half hour of the Azure LLM inference trace 2023, times and lengths. All
planners are Faro-Sum with the lengths of the first half hour. They differ in the bursts with which
their goodput is measured: none, those of the first half hour, or those of the second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.trials import Report, policy_failures_raised, trial_seeds
from faro_lib.forecast import Forecaster
from faro_lib.policies import PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.simulate import Draws, Run, draw
from faro_lib.workload import Job, Traces, Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.shares import fair_share
from studies.arrivals.world import (
    AT_RANDOM,
    COPIES,
    FITTED,
    TRUE,
    USUAL,
    AfterAMinute,
    counts_of,
)
from studies.forecast.oracle import oracle
from studies.llm.azure import Log, halves_of
from studies.llm.engines import load_of, simulate_engines, tokens_per_min
from studies.llm.goodput import GoodputByLengths
from studies.llm.rivals import Informed
from studies.llm.world import COLD_START_S, LIVE

LOAD_KNOWN = "load known"  # of the coming minutes; only the times within them are unknown
SLO_S = 2.0  # to the first token: about twice what the longest prompts take on an idle replica
WARM_UP = 5  # minutes that are not judged, because policies start from equal shares
LENGTHS_MINUTES = 15  # the lengths are followed, as in docs/llm.md


@dataclass(frozen=True, slots=True, eq=False)
class BurstyServices:
    """COPIES services per log, and the requests of both halves, of equal length."""

    jobs: tuple[Job, ...]  # with the lengths and bursts of the first half
    true: tuple[Job, ...]  # with its lengths, and the bursts of the second half
    halves: tuple[tuple[Log, ...], tuple[Log, ...]]  # by job
    minutes: int  # of a half

    def requests(self, half: int, seed: int) -> tuple[Workload, Draws]:
        """The requests of a half; the seed rotates the minutes of each service."""
        rng = np.random.default_rng([seed, 9])
        end_s = self.minutes * MINUTE_S
        parts = [
            rotated(log, int(rng.integers(self.minutes)) * MINUTE_S, end_s)
            for log in self.halves[half]
        ]
        counts = [counts_of(part.time_s, MINUTE_S, self.minutes) for part in parts]
        workload = Workload(self.jobs, np.array(counts), tuple(part.time_s for part in parts))
        prompt_tokens, output_tokens = np.concatenate([part.tokens for part in parts], axis=1)
        draws = draw(workload, seed, router=None)
        return workload, replace(draws, prompt_tokens=prompt_tokens, output_tokens=output_tokens)

    def planners(self) -> dict[str, GoodputByLengths]:
        """What each planner takes for the goodput of the services."""
        fitted = GoodputByLengths(self.jobs, LIVE)
        true = GoodputByLengths(self.true, LIVE)
        return {AT_RANDOM: fitted.at_random(), FITTED: fitted, TRUE: true}


def rotated(log: Log, shift_s: float, end_s: float) -> Log:
    """The log `shift_s` later; requests that would be after `end_s` come at the beginning.

    >>> rotated(Log(np.array([1.0, 3.0]), np.array([[5.0, 6.0]])), 2.0, 4.0).tokens.tolist()
    [[6.0, 5.0]]
    """
    time_s = (log.time_s + shift_s) % end_s
    order = np.argsort(time_s, kind="stable")
    return Log(time_s[order], log.tokens[:, order])


def services_of(logs: Mapping[str, Log]) -> BurstyServices:
    """The services of the logs, whose SLO is SLO_S to the first token."""
    of_logs = {name: halves_of(name, log) for name, log in logs.items()}
    minutes = min(len(halves.counts[0]) for halves in of_logs.values())
    jobs: list[Job] = []
    true: list[Job] = []
    parts: tuple[list[Log], list[Log]] = ([], [])
    for name, halves in of_logs.items():
        job, other = halves.jobs
        for n in range(COPIES):
            of_copy = replace(job, name=f"{name}-{n}", slo_s=SLO_S, cold_start_s=COLD_START_S)
            jobs.append(of_copy)
            true.append(of_copy.with_dispersion(other.dispersion))
        for part, of_half in zip(halves.parts, parts):
            of_half += [part.between(0, minutes * MINUTE_S)] * COPIES
    first, second = parts
    return BurstyServices(tuple(jobs), tuple(true), (tuple(first), tuple(second)), minutes)


def run(
    services: BurstyServices,
    workload: Workload,
    draws: Draws,
    goodput: GoodputByLengths,
    name: str,
    forecast_name: str,
    capacity: int,
) -> Run:
    """A run of Faro-Sum from equal shares, with an untrained forecaster or the loads themselves."""
    jobs = services.jobs
    load = load_of(jobs, tokens_per_min(draws, workload.minutes))
    forecaster: Forecaster = oracle(Workload(jobs, np.rint(load)))
    if forecast_name == USUAL:
        no_days = np.zeros((0, 1, len(jobs), 60), int)
        traces = Traces(jobs, no_days, np.zeros((1, len(jobs), 60), int))
        forecaster = forecast.fit("auto", traces)
    assumed = goodput.at(np.full((2, len(jobs)), np.nan))
    faro = tuned(PolicyContext(jobs, forecaster, latency_model=assumed), interval_s=60.0)
    informed = Informed(faro, jobs, name, goodput, LENGTHS_MINUTES)
    policy = AfterAMinute(informed, jobs, name)
    initial = fair_share(jobs, capacity)
    with policy_failures_raised():
        return simulate_engines(workload, policy, capacity, draws, load, initial, LIVE)


def judged(result: Run) -> dict[str, int]:
    """Requests, and those that miss their SLO, after the warm-up."""
    after = slice(WARM_UP, None)
    missed = (result.slo_missed + result.dropped)[:, after].sum()
    return {"requests": int(result.requests[:, after].sum()), "missed": int(missed)}


def compared(
    services: BurstyServices,
    half: int,
    capacities: Sequence[int],
    trials: int,
    planners: Sequence[str] = (AT_RANDOM, FITTED, TRUE),
    forecasts: Sequence[str] = (USUAL, LOAD_KNOWN),
    report: Report = print,
) -> pd.DataFrame:
    """A row per capacity, trial, forecast and planner, on the same requests of a half."""
    rows: list[dict[str, Any]] = []
    goodput = services.planners()
    for capacity in capacities:
        for number, seed in enumerate(trial_seeds(trials)):
            workload, draws = services.requests(half, seed)
            for known, name in product(forecasts, planners):
                result = run(services, workload, draws, goodput[name], name, known, capacity)
                row: dict[str, Any] = {"half": half + 1, "capacity_cores": capacity}
                row |= {"trial": number, "forecast": known, "planner": name}
                rows.append(row | judged(result))
        report(f"half {half + 1}, {capacity} replicas")
    return pd.DataFrame(rows)


def sizes_by_first_half(tried: pd.DataFrame, met: Sequence[float]) -> list[int]:
    """For each share of `met`, the size at which the share of requests that meet is nearest."""
    sums = tried.groupby("capacity_cores")[["missed", "requests"]].sum()
    share = 1 - sums["missed"] / sums["requests"]
    return list(dict.fromkeys(int((share - one).abs().idxmin()) for one in met))


def planners_compared(
    logs: Mapping[str, Log], candidates: Sequence[int], met: Sequence[float], trials: int
) -> pd.DataFrame:
    """The candidates on the first half, then the planners on the second half at the chosen sizes.

    Sizes are those at which the planner that assumes random times meets the shares `met` of the
    first half.
    """
    services = services_of(logs)
    tried = compared(services, 0, candidates, min(3, trials), (AT_RANDOM,), (USUAL,))
    sizes = sizes_by_first_half(tried, met)
    return pd.concat([tried, compared(services, 1, sizes, trials)], ignore_index=True)

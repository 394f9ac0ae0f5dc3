"""Ten language-model services on measured GPUs: autoscalers on the same requests of ServeGen.

Every service runs Llama2-70B on four H100. A request meets its SLO if its first token comes within
1 s and the others within 0.05 s each, on average. Policies are compared on blocks of 30 minutes,
whose first 10 are not judged.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.trials import Report, policy_failures_raised
from faro_lib.files import cached_array
from faro_lib.metrics.measures import minute_utility
from faro_lib.policies import Policy
from faro_lib.simulate import Draws, Run, ServingModel, draw
from faro_lib.simulate.serving import constant_latencies
from faro_lib.workload import Job, Traces, Workload
from faro_lib.workload.bursts import fit_hours
from faro_lib.workload.jobs import DAY_MINUTES, MINUTE_S
from faro_lib.workload.replicas import Continuous, replica_of
from faro_lib.workload.shares import fair_share
from studies.arrivals.world import counts_of
from studies.forecast.remembered import remembered
from studies.llm.engines import costs, simulate_engines
from studies.llm.goodput import GoodputByLengths
from studies.llm.rivals import Known
from studies.llm.servegen import DAY_S, LENGTHS_S, Clients, arrivals_of_day, tokens_of_day
from studies.rivals.autoscalers import Rival
from studies.rivals.tuning import Setting, searched

GPU = {"gpu": "h100-80gb", "model": "llama2-70b", "tensor_parallel": 4}
CONTEXT_TOKENS = 4096  # of Llama 2; longer prompts and outputs are cut
FIRST_TOKEN_S, PER_TOKEN_S = 1.0, 0.05  # the SLO
COLD_START_S = 60.0  # assumed, because no measurement is at hand
ASSUMED_DAYS = 8  # lengths and bursts that policies assume are those of days 1 to 8
BLOCK, WARM_UP, HISTORY = 30, 10, 60  # minutes: a block, its part not judged, known before it
FORECAST_DAYS = 4
AMPLE = 8  # replicas of each service
NEAR = 0.03  # a share of requests that a size must reach may differ by this
LIVE = ServingModel("least-outstanding", max_ongoing_requests=50)
REQUESTS, PROMPT_TOKENS, OUTPUT_TOKENS = range(3)
# By the name in `Known.forecasters`, what is predicted, and the forecaster.
FORECASTS = {
    "load": ("load", "auto"),
    "load, persistence": ("load", "persistence"),
    "load, kalman": ("load", "structural"),
    "auto": ("requests", "auto"),
    "ar": ("requests", "ar"),
    "persistence": ("requests", "persistence"),
    "kalman": ("requests", "structural"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Services:
    """The services, and requests and load of every minute, (days, jobs, minutes)."""

    clients: Clients
    jobs: tuple[Job, ...]
    requests: np.ndarray
    load: np.ndarray  # in requests of mean length (`engines.costs`)


def services_of(clients: Clients) -> Services:
    """Services with the mean lengths and the bursts of the first ASSUMED_DAYS days."""
    key = [getattr(clients, name).tobytes() for name in ("rate_rps", "shape", "weibull", "lengths")]
    known = ("servegen", CONTEXT_TOKENS, ASSUMED_DAYS, *key)
    per_minute = cached_array(("minutes", *known), partial(_minutes, clients))
    assumed = cached_array(("assumed within six hours", *known), partial(_assumed, clients))
    jobs = tuple(_job(name, *row) for name, row in zip(clients.names, assumed.tolist()))
    load = [
        costs(job.replica, of_job[PROMPT_TOKENS], of_job[OUTPUT_TOKENS])  # type: ignore[arg-type]
        for job, of_job in zip(jobs, per_minute)
    ]
    requests = per_minute[:, REQUESTS].swapaxes(0, 1)
    return Services(clients, jobs, requests, np.array(load).swapaxes(0, 1))


def _job(name: str, prompt, prompt_cv, output, output_cv, *index: float) -> Job:
    replica = replica_of(
        {
            **GPU,
            "prompt_tokens": round(prompt, 1),
            "prompt_cv": round(prompt_cv, 2),
            "output_tokens": round(output, 1),
            "output_cv": round(output_cv, 2),
            "max_tokens": CONTEXT_TOKENS,
            "slo_on": "both",
            "per_token_weight": FIRST_TOKEN_S / PER_TOKEN_S,
        }
    )
    job = Job(name, FIRST_TOKEN_S, cold_start_s=COLD_START_S, model="llama2-70b", replica=replica)
    return job.with_dispersion(np.round(index, 2).tolist())


def _minutes(clients: Clients) -> np.ndarray:
    """Requests, prompt tokens and output tokens of every minute, (jobs, 3, days, minutes)."""
    found = np.zeros((len(clients.names), 3, clients.days, DAY_MINUTES))
    for job, day in np.ndindex(len(found), clients.days):
        time_s, tokens = requests_of(clients, job, day + 1)
        minute = (time_s // MINUTE_S).astype(int)
        for kind, weights in enumerate((None, *tokens)):
            found[job, kind, day] = np.bincount(minute, weights, DAY_MINUTES)
    return found


def _assumed(clients: Clients) -> np.ndarray:
    """Mean and coefficient of variation of prompts and outputs, and dispersion, (jobs, 7).

    Variances are those within six hours, because policies may follow the mean lengths.
    """
    rows = []
    for job in range(len(clients.names)):
        days = [requests_of(clients, job, day + 1) for day in range(ASSUMED_DAYS)]
        n = np.array([len(time_s) for time_s, _ in days])
        mean = sum(tokens.sum(axis=1) for _, tokens in days) / n.sum()
        within = sum(_squares_within(*of_day) for of_day in days) / n.sum()
        moments = np.stack([mean, np.sqrt(within) / mean], axis=1)
        fitted = [fit_hours(time_s, 24)[1] for time_s, _ in days]
        rows.append([*moments.ravel(), *(n / n.sum() @ fitted)])
    return np.array(rows)


def _squares_within(time_s: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Squared deviations from the means of six hours, summed over the day, (2,)."""
    ends = np.searchsorted(time_s, np.arange(LENGTHS_S, DAY_S, LENGTHS_S))
    parts = np.split(tokens, ends, axis=1)
    return np.sum([part.var(axis=1) * part.shape[1] for part in parts if part.size], axis=0)


def requests_of(clients: Clients, job: int, day: int) -> tuple[np.ndarray, np.ndarray]:
    """Arrival times in s, (requests,), and prompt and output tokens, (2, requests), of a day."""
    time_s = arrivals_of_day(clients, job, day)
    return time_s, tokens_of_day(clients, job, day, time_s, CONTEXT_TOKENS)


# --- blocks of a day ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some minutes of requests, and what policies know at its start."""

    day: int
    start: int  # minute of the day
    workload: Workload
    draws: Draws
    load_per_min: np.ndarray
    known: Known


def latency_table(jobs: Sequence[Job]) -> GoodputByLengths:
    """What policies know of latencies; the tables are measured when they are first used."""
    return GoodputByLengths(tuple(jobs), LIVE)


def blocks(
    services: Services, table: GoodputByLengths, day: int, starts: Sequence[int], seed: int
) -> Iterator[Block]:
    """The blocks of a day, with forecasters fitted to the FORECAST_DAYS before it."""
    days = slice(day - 1 - FORECAST_DAYS, day - 1)
    counts = {"requests": services.requests, "load": services.load}
    traces = {
        name: Traces(services.jobs, np.rint(of_days[days])[:, None], 0 * of_days[:1])
        for name, of_days in counts.items()
    }
    fitted = {
        name: forecast.fit(method, traces[series]) for name, (series, method) in FORECASTS.items()
    }
    of_day = [requests_of(services.clients, job, day) for job in range(len(services.jobs))]
    for start in starts:
        known_until = slice(start - HISTORY, start)
        # At its start, a policy tells its forecaster the minutes before the block.
        forecasters = {name: remembered(one.start(start - HISTORY)) for name, one in fitted.items()}
        before = {
            name: counts[series][day - 1, :, known_until] for name, (series, _) in FORECASTS.items()
        }
        known = Known(services.jobs, table, forecasters, before)
        workload, draws = _drawn(services, of_day, start, seed)
        load = services.load[day - 1, :, start : start + BLOCK]
        yield Block(day, start, workload, draws, load, known)


def _drawn(
    services: Services, of_day: Sequence[tuple[np.ndarray, np.ndarray]], start: int, seed: int
) -> tuple[Workload, Draws]:
    """The requests of the block from minute `start` on."""
    begin_s, end_s = start * MINUTE_S, (start + BLOCK) * MINUTE_S
    times, lengths = [], []
    for time_s, tokens in of_day:
        a, b = np.searchsorted(time_s, (begin_s, end_s))
        times.append(np.minimum(time_s[a:b] - begin_s, np.nextafter(end_s - begin_s, 0)))
        lengths.append(tokens[:, a:b])
    counts = np.array([counts_of(time_s, MINUTE_S, BLOCK) for time_s in times])
    workload = Workload(services.jobs, counts, tuple(times))
    prompt_tokens, output_tokens = np.concatenate(lengths, axis=1)
    draws = draw(workload, seed, router=None)
    return workload, replace(draws, prompt_tokens=prompt_tokens, output_tokens=output_tokens)


def run(block: Block, policy: Policy, capacity: int) -> Run:
    """A run from equal shares, on engines that report their gauges."""
    initial = fair_share(block.workload.jobs, capacity)
    with policy_failures_raised():
        return simulate_engines(
            block.workload, policy, capacity, block.draws, block.load_per_min, initial, LIVE
        )


def judged(result: Run) -> dict[str, float]:
    """Requests and missed requests after the warm-up, and the utility lost by the jobs."""
    after = slice(WARM_UP, BLOCK)
    missed = (result.slo_missed + result.dropped)[:, after].sum()
    lost = np.nansum(1 - minute_utility(result)[:, after]) / (BLOCK - WARM_UP)
    seen = {"requests": int(result.requests[:, after].sum()), "missed": int(missed)}
    return seen | {"dropped": int(result.dropped[:, after].sum()), "lost_utility": float(lost)}


# --- tuning and comparison ------------------------------------------------------------------------


def share_missed(of_days: Sequence[Block], make: Callable[[Known], Policy], capacity: int) -> float:
    """The share of the blocks' requests that miss their SLO."""
    found = [judged(run(block, make(block.known), capacity)) for block in of_days]
    return sum(one["missed"] for one in found) / sum(one["requests"] for one in found)


def tune(
    training: Sequence[Block],
    capacities: Sequence[int],
    rivals: Mapping[str, Rival],
    report: Report = print,
) -> pd.DataFrame:
    """Every setting that was tried, with the share of requests missed on the training blocks."""

    def loss_of(rival: Rival, capacity: int, setting: Setting) -> float:
        return share_missed(training, partial(rival.make, **setting), capacity)

    def say(name: str, capacity: int, own: Setting, missed: float) -> None:
        report(f"{name} at {capacity} replicas: {own} misses {missed:.2%}")

    return searched(rivals, capacities, loss_of, say).rename(columns={"lost_utility": "missed"})


def compare(
    of_days: Iterable[Block],
    choices: pd.DataFrame,
    rivals: Mapping[str, Rival],
    report: Report = print,
) -> Iterator[dict[str, Any]]:
    """A row per block, capacity and policy, with the settings chosen for the capacity."""
    chosen = choices[choices["chosen"]].set_index(["capacity_cores", "rival"])
    for block in of_days:
        for (capacity, name), row in chosen.iterrows():
            setting = {key: float(row[key]) for key in rivals[name].settings}
            result = judged(run(block, rivals[name].make(block.known, **setting), int(capacity)))
            key = {"day": block.day, "start_min": block.start, "capacity_cores": int(capacity)}
            yield key | {"policy": name} | result
        report(f"day {block.day}, minute {block.start}")


def ample(
    services: Services, at: Iterable[tuple[int, Sequence[int]]], seed: int
) -> Iterator[dict[str, Any]]:
    """A row per block and job, if every service always has AMPLE replicas.

    What is missed there, no autoscaler can avoid with so many. `missed_per_token` are the requests
    that miss the limit per token, among those that miss any. Lengths are means of the block, beside
    the assumed ones.
    """
    jobs = services.jobs
    per_token = tuple(map(_limited_per_token, jobs))
    places = np.array([LIVE.limit_of(job) for job in jobs])
    rules = [AMPLE] * len(jobs), LIVE.dispatch, LIVE.queue_limit, places
    for day, starts in at:
        of_day = [requests_of(services.clients, job, day) for job in range(len(jobs))]
        for start in starts:
            _, draws = _drawn(services, of_day, start, seed)
            missed = constant_latencies(jobs, draws, *rules) > FIRST_TOKEN_S
            slow = constant_latencies(per_token, draws, *rules) > PER_TOKEN_S
            judged_ones = draws.arrival_s >= WARM_UP * MINUTE_S
            for job, first, end in zip(jobs, draws.first, draws.first[1:]):
                of_job = slice(first, end)
                kept = judged_ones[of_job]
                row = {"day": day, "start_min": start, "job": job.name}
                row |= {"requests": int(kept.sum()), "missed": int(missed[of_job][kept].sum())}
                row["missed_per_token"] = int(slow[of_job][kept].sum())
                for name in ("prompt_tokens", "output_tokens"):
                    tokens = getattr(draws, name)[of_job][kept]
                    row[name] = float(tokens.mean()) if len(tokens) else np.nan
                    row[f"assumed_{name}"] = getattr(job.replica, name)
                yield row


def _limited_per_token(job: Job) -> Job:
    """The job with the limit per token alone."""
    assert isinstance(job.replica, Continuous)
    replica = replace(job.replica, slo_on="per_token", per_token_weight=0.0)
    return replace(job, slo_s=PER_TOKEN_S, replica=replica)


def sizes_near(tried: pd.DataFrame, met: Sequence[float], least: int = 0) -> list[int]:
    """For each share of `met`, the size at which the best rival's share is nearest to it.

    Sizes are at least `least`. Empty if the nearest share of any differs by more than NEAR.
    """
    large = tried[tried["capacity_cores"] >= least]
    best = 1 - large.groupby("capacity_cores")["missed"].min()
    far = [(best - share).abs() for share in met]
    near = all((one <= NEAR).any() for one in far)
    return [int(one.idxmin()) for one in far] if near else []

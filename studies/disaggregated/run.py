"""Prefill and decode apart, or one pool: the tables of docs/disaggregated.md.

    python -m studies.disaggregated.run [--out data/recorded-llm] [--part shares solver roles day]

Settings and pairs are chosen on requests of two seeds, and judged on those of others. A load that
is in the file is not computed again.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.allocate import solve
from faro_lib.experiments.trials import run_trials, trial_seeds
from faro_lib.files import atomic_write
from faro_lib.metrics.measures import summarize
from faro_lib.policies import PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.simulate import LIVE, draw
from faro_lib.simulate.measure import measure
from faro_lib.utility import UtilityTable
from faro_lib.workload import Job, Traces
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import Continuous, Disaggregated, replica_of
from faro_lib.workload.shares import fair_share
from faro_ops.advise.recommend.pairs import with_pairs
from studies.disaggregated.chunked import chunked_latency_s
from studies.disaggregated.figures import APART, PAIR_BY_RATE, PAIR_FOR_ALL, POOL, sustained
from studies.disaggregated.pairs import pair_table, solve_pairs, within
from studies.disaggregated.world import Requests, apart_latency_s, disaggregated, pooled_latency_s

GPU = {"gpu": "h100-80gb", "model": "llama2-70b", "tensor_parallel": 4}
CONTEXT_TOKENS = 4096  # of Llama 2; longer prompts and outputs are cut
FIRST_TOKEN_S, PER_TOKEN_S = 1.0, 0.05  # the SLO of 99 % of the requests
FAST, SLOW = 400.0, 25.0  # assumed links of a replica in Gb/s: InfiniBand, and Ethernet
REQUESTS = 4000  # of a sample
TRAINING, JUDGED = (1, 2), tuple(range(101, 109))  # seeds
COUNTS = (2, 4, 8)  # replicas
LOADS = tuple(np.arange(1, 12) / 10)  # in capacities of one pool without an SLO
AT_ONCE = (48, 64)  # sequences of a replica; 64 is the largest batch that was measured
PROMPTS_AT_ONCE = (
    4096,
    8192,
)  # tokens, of one pool; a longer prompt would wait for an idle replica
CHUNKS = (256, 512, 1024)
PREFILL_AT_ONCE = (1, 8192)  # tokens; 1: one prompt at a time
BUDGET = 8  # replicas of three services, for the solver
# Two services under Faro.
CAPACITIES, RATE_RPS, DAY_MINUTES, TRIALS = (6, 8, 12, 16), 6.0, 240, 5
SOLVER_LOADS = (0.5, 1.0)  # of each service, in capacities of one replica

Latency = Callable[[Requests], np.ndarray]


@dataclass(frozen=True, slots=True)
class Mix:
    """Lengths of prompts and outputs, and the coefficient of variation of the gaps between them."""

    name: str
    prompt_tokens: float
    prompt_cv: float
    output_tokens: float
    output_cv: float
    gap_cv: float = 1.0

    @property
    def replica(self) -> Continuous:
        lengths = ("prompt_tokens", "prompt_cv", "output_tokens", "output_cv")
        of_mix = {name: getattr(self, name) for name in lengths}
        weight = FIRST_TOKEN_S / PER_TOKEN_S
        replica = replica_of(GPU | of_mix | {"slo_on": "both", "per_token_weight": weight})
        assert isinstance(replica, Continuous)
        return replica

    def requests(self, rate_rps: float, seed: int) -> Requests:
        """REQUESTS requests of this seed, which differ between rates only in the unit of time."""
        rng = np.random.default_rng(seed)
        lengths = np.minimum(self.replica.lengths(rng, REQUESTS), CONTEXT_TOKENS)
        gaps = rng.gamma(self.gap_cv**-2, self.gap_cv**2, REQUESTS)
        return Requests(np.cumsum(gaps) / rate_rps, *lengths)


MIXES = (
    Mix("long prompts, short outputs", 2000, 0.5, 50, 0.5),
    Mix("short prompts, long outputs", 200, 0.5, 400, 0.5),
    # Rounded means over the eight clients of ServeGen whose lengths are known, and over windows.
    Mix("as ServeGen", 800, 0.93, 67, 1.68, 1.9),
)


def candidates(mix: Mix, replicas: int) -> Iterator[tuple[str, dict[str, int], Latency]]:
    """(system, its setting, latencies of requests) of every setting that is tried."""
    for at_once in AT_ONCE:
        replica = replace(mix.replica, max_sequences=at_once)
        setting = {"at_once": at_once}
        for tokens in PROMPTS_AT_ONCE:
            of_pool = replace(replica, max_tokens=tokens)
            pooled = partial(_pooled, of_pool, replicas)
            yield "one pool", setting | {"prompt_tokens_at_once": tokens}, pooled
        for chunk in CHUNKS:
            chunked = partial(_chunked, replica, replicas, chunk)
            yield "one pool, chunks", setting | {"prompt_tokens_at_once": chunk}, chunked
        for tokens, prefill in product(PREFILL_AT_ONCE, range(1, replicas)):
            of_pair = setting | {"prompt_tokens_at_once": tokens, "prefill": prefill}
            for system, link in (("apart", FAST), ("apart, slow link", SLOW)):
                kind = disaggregated(replica, link, tokens)
                apart = partial(_apart, kind, prefill, replicas - prefill)
                yield system, of_pair, apart
                if system == "apart" and 2 * prefill == replicas:
                    yield "apart, 1:1", of_pair, apart


def _pooled(replica: Continuous, replicas: int, requests: Requests) -> np.ndarray:
    return pooled_latency_s(replica, requests, replicas)


def _chunked(replica: Continuous, replicas: int, chunk: int, requests: Requests) -> np.ndarray:
    return chunked_latency_s(replica, requests, replicas, chunk)


def _apart(kind: Disaggregated, prefill: int, decode: int, requests: Requests) -> np.ndarray:
    return apart_latency_s(kind, requests, prefill, decode)


def judged(mix: Mix, replicas: int, rate_rps: float) -> Iterator[dict]:
    """A row for each system and judged seed, with the setting that is best on training seeds."""
    training = [mix.requests(rate_rps, seed) for seed in TRAINING]
    best: dict[str, tuple[float, dict[str, int], Latency]] = {}
    for system, setting, latency_s in candidates(mix, replicas):
        share = float(np.mean([within(latency_s(sample), FIRST_TOKEN_S) for sample in training]))
        if system not in best or share > best[system][0]:
            best[system] = share, setting, latency_s
    for seed in JUDGED:
        requests = mix.requests(rate_rps, seed)
        for system, (_, setting, latency_s) in best.items():
            share = within(latency_s(requests), FIRST_TOKEN_S)
            yield {"system": system, "seed": seed, "share": share} | setting


def shares(path: Path) -> None:
    """Write the shares of requests within both SLOs by mix, replicas, load and system."""
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    done = {(row["mix"], row["replicas"], row["load"]) for row in rows}
    for mix, replicas, load in product(MIXES, COUNTS, map(float, LOADS)):
        if (mix.name, replicas, load) in done:
            continue
        rate_rps = load * replicas * mix.replica.capacity_rps(1.0)
        keys = {"mix": mix.name, "replicas": replicas, "load": load, "rate_rps": round(rate_rps, 4)}
        rows += [keys | row for row in judged(mix, replicas, rate_rps)]
        _write(rows, path)
        print(keys, flush=True)


def solved(load: float) -> Iterator[dict]:
    """The allocations of BUDGET replicas to three services, judged on other seeds."""
    jobs = [Job(mix.name, min_replicas=0) for mix in MIXES]
    rates = [load * mix.replica.capacity_rps(1.0) for mix in MIXES]
    kinds = [disaggregated(mix.replica, FAST) for mix in MIXES]
    training = [[mix.requests(rate, seed) for seed in TRAINING] for mix, rate in zip(MIXES, rates)]
    tables = [
        pair_table(kind, samples, FIRST_TOKEN_S, BUDGET) for kind, samples in zip(kinds, training)
    ]
    count = np.arange(BUDGET + 1)
    even = np.where(count[:, None] == count, tables, np.where(np.isinf(tables), tables, 0.0))
    pooled = np.array([_pool_row(mix, samples) for mix, samples in zip(MIXES, training)])
    replicas = solve(UtilityTable.from_values(jobs, pooled), BUDGET).replicas
    either = [np.vstack([row, table[1:]]) for row, table in zip(pooled, tables)]
    choices: dict[str, np.ndarray] = {
        "pairs or one pool": solve_pairs(jobs, either, BUDGET)[1],
        "best pairs": solve_pairs(jobs, tables, BUDGET)[1],
        "pairs 1:1": solve_pairs(jobs, list(even), BUDGET)[1],
        "one pool per service": np.column_stack([np.zeros_like(replicas), replicas]),
    }
    for system, pairs in choices.items():
        for mix, rate, kind, (prefill, decode) in zip(MIXES, rates, kinds, pairs.tolist()):
            if prefill:
                latency = partial(_apart, kind, prefill, decode)
            else:
                latency = partial(_pooled, _of_pool(mix), max(decode, 1))
            for seed in JUDGED:
                share = within(latency(mix.requests(rate, seed)), FIRST_TOKEN_S)
                share *= prefill + decode > 0
                keys = {"load": load, "system": system, "mix": mix.name, "rate_rps": round(rate, 4)}
                yield keys | {"prefill": prefill, "decode": decode, "seed": seed, "share": share}


def with_roles(mix: Mix, replicas: int) -> Iterator[dict]:
    """A row for each load, judged seed and choice of the pair: for each rate, or one for all.

    The pair for all rates sustains the largest rate on the training seeds, as
    `faro_ops.advise.recommend.pairs` takes it. Settings are the defaults.
    """
    kind = disaggregated(mix.replica, FAST)
    capacity_rps = replicas * mix.replica.capacity_rps(1.0)

    def row(load: float, seed: int, prefill: int) -> dict:
        requests = mix.requests(load * capacity_rps, seed)
        share = within(_apart(kind, prefill, replicas - prefill, requests), FIRST_TOKEN_S)
        keys = {"mix": mix.name, "replicas": replicas, "load": load}
        keys["rate_rps"] = round(load * capacity_rps, 4)
        return keys | {"prefill": prefill, "seed": seed, "share": share}

    tried = product(map(float, LOADS), TRAINING, range(1, replicas))
    training = pd.DataFrame([row(*one) for one in tried])
    training["system"] = training["prefill"]
    for_all = int(sustained(training).mean().idxmax())
    by_load = training.groupby(["load", "system"])["share"].mean().unstack().idxmax(axis=1)
    for (load, best), seed in product(by_load.items(), JUDGED):
        for system, prefill in ((PAIR_BY_RATE, int(best)), (PAIR_FOR_ALL, for_all)):
            yield {"system": system} | row(float(load), seed, prefill)


def roles(path: Path) -> None:
    """Write the shares of requests within both SLOs if the pair depends on the rate, or not."""
    rows: list[dict] = []
    for mix, replicas in product(MIXES, COUNTS[1:]):  # two replicas are one pair only
        rows += with_roles(mix, replicas)
        _write(rows, path)
        print({"mix": mix.name, "replicas": replicas}, flush=True)


def services(apart: bool) -> tuple[Job, ...]:
    """Two services of MIXES, on replicas that may have roles, or on one pool each."""
    replicas = {mix.name: disaggregated(_of_pool(mix), FAST) for mix in MIXES[:2]}
    jobs = [Job(name, FIRST_TOKEN_S, replica=kind) for name, kind in replicas.items()]
    if apart:
        return tuple(jobs)
    return tuple(replace(job, replica=replicas[job.name].does_both) for job in jobs)


def day_traces(jobs: tuple[Job, ...]) -> Traces:
    """Three training days and the evaluation day: RATE_RPS on average, a wave, Poisson counts."""
    wave = 1 + 0.5 * np.sin(2 * np.pi * np.arange(DAY_MINUTES) / DAY_MINUTES)
    mean = MINUTE_S * RATE_RPS * wave
    counts = np.random.default_rng(1).poisson(mean, (4, 1, len(jobs), DAY_MINUTES))
    return Traces(jobs, counts[:-1], counts[-1])


def day(path: Path) -> None:
    """Write how Faro serves two services on replicas with roles and on one pool each."""
    rows: list[dict] = []
    for system, capacity in product((POOL, APART), CAPACITIES):
        jobs = with_pairs(services(system == APART), capacity, LIVE, print)
        traces = day_traces(jobs)
        table = measure(jobs, capacity=capacity, serving_model=LIVE)
        context = PolicyContext(jobs, forecast.fit("ar", traces), latency_model=table)
        workload = traces.workload()
        trials = run_trials(
            workload,
            {"Faro-Sum": tuned(context)},
            capacity,
            [draw(workload, seed, router=None) for seed in trial_seeds(TRIALS)],
            serving_model=LIVE,
            initial=fair_share(jobs, capacity),
        )
        for trial in trials:
            running = np.mean(trial.run.decisions.running, axis=0)
            measures = summarize(trial.run)
            rows.append(
                {
                    "system": system,
                    "capacity": capacity,
                    "trial": trial.number,
                    "lost_utility": measures["lost_utility"],
                    "slo_violation_rate": measures["slo_violation_rate"],
                }
                | {f"replicas {job.name}": of_job for job, of_job in zip(jobs, running)}
            )
        _write(rows, path)
        print({"system": system, "capacity": capacity}, flush=True)


def _of_pool(mix: Mix) -> Continuous:
    return replace(mix.replica, max_tokens=max(PROMPTS_AT_ONCE))


def _pool_row(mix: Mix, samples: Sequence[Requests]) -> np.ndarray:
    """Utility of 0, 1, ... BUDGET replicas of one pool."""
    row = np.zeros(BUDGET + 1)
    for n in range(1, BUDGET + 1):
        latencies = [pooled_latency_s(_of_pool(mix), requests, n) for requests in samples]
        row[n] = np.mean([within(latency_s, FIRST_TOKEN_S) for latency_s in latencies])
    return row


def solver(path: Path) -> None:
    """Write what the solver chooses for three services at each of SOLVER_LOADS."""
    rows: list[dict] = []
    for load in SOLVER_LOADS:
        rows += solved(load)
        _write(rows, path)
        print({"load": load}, flush=True)


def _write(rows: list[dict], path: Path) -> None:
    with atomic_write(path) as partial_path:
        table = pd.DataFrame(rows).convert_dtypes()
        table.to_csv(partial_path, index=False, float_format="%.6g")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="data/recorded-llm")
    parser.add_argument("--part", nargs="+", default=["shares", "solver", "roles", "day"])
    options = parser.parse_args()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    if "shares" in options.part:
        shares(out / "disaggregated.csv")
    if "solver" in options.part:
        solver(out / "disaggregated-solver.csv")
    if "roles" in options.part:
        roles(out / "disaggregated-roles.csv")
    if "day" in options.part:
        day(out / "disaggregated-day.csv")


if __name__ == "__main__":
    main()

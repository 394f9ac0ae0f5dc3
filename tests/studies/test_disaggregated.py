"""Prefill and decode apart, one pool with chunks, and the allocation of pairs."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest

from faro_lib.allocate import OBJECTIVES
from faro_lib.workload import Job
from faro_lib.workload.replicas import Continuous
from studies.chunked import chunked_latency_s
from studies.disaggregated import (
    Disaggregated,
    Requests,
    apart_latency_s,
    first_token_s,
    pooled_latency_s,
)
from studies.figures.disaggregated import APART, CHUNKS, POOL, finding, sustained
from studies.pairs import best_pairs, pair_table, solve_pairs

BOTH = Continuous(
    alpha_s=0.03,
    beta_s=0.001,
    gamma_s=0.0001,
    max_sequences=3,
    output_tokens=8,
    prompt_tokens=200,
    max_tokens=500,
    slo_on="both",
    beta_knees=((2.0, 0.004),),
    gamma_knees=((150.0, 0.0002), (400.0, -0.0001)),
    per_token_weight=20.0,
)
KIND = Disaggregated(BOTH, link_bytes_per_s=1e9, prefill_max_tokens=400)


def random_requests(seed: int, n: int = 60, rate_rps: float = 12.0) -> Requests:
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(1 / rate_rps, n))
    prompts = rng.integers(1, 600, n).astype(float)
    return Requests(arrival_s, prompts, rng.integers(1, 15, n).astype(float))


class Plain:
    """A pool of replicas, simulated by the definition: one step after the other, with lists.

    `step` takes the lists of requests in service and of those that wait, and gives the seconds of
    the next step, in which the requests of both lists that it returns are served and get a token.
    """

    def __init__(self, requests: Requests, replicas: int):
        self.requests = requests
        self.prompt_left = list(requests.prompt_tokens)
        self.tokens_left = list(requests.output_tokens)
        self.token_s: list[list[float]] = [[] for _ in requests.arrival_s]
        self.inside: list[list[int]] = [[] for _ in range(replicas)]
        self.served: list[list[int]] = [[] for _ in range(replicas)]
        self.ends_s = [np.inf] * replicas
        self.turn = 0

    def run(self, begin) -> list[list[float]]:
        arrivals = list(enumerate(self.requests.arrival_s))
        while arrivals or min(self.ends_s) < np.inf:
            now = min(self.ends_s)
            if arrivals and arrivals[0][1] <= now:
                request, now = arrivals.pop(0)
                order = [(self.turn + k) % len(self.inside) for k in range(len(self.inside))]
                where = min(order, key=lambda slot: len(self.inside[slot]))
                self.turn = (where + 1) % len(self.inside)
                self.inside[where].append(request)
                if self.ends_s[where] < np.inf:
                    continue
            else:
                where = self.ends_s.index(now)
                for request in self.served[where]:
                    if self.prompt_left[request] == 0:
                        self.token_s[request].append(now)
                        self.tokens_left[request] -= 1
                    if self.tokens_left[request] == 0:
                        self.inside[where].remove(request)
                self.served[where] = [r for r in self.served[where] if r in self.inside[where]]
            if self.inside[where]:
                seconds = begin(self.inside[where], self.served[where])
                self.ends_s[where] = now + seconds
            else:
                self.ends_s[where] = np.inf
        return self.token_s


def whole_prompts(pool: Plain, replica: Continuous):
    """Steps that admit whole prompts, as long as their tokens fit."""

    def begin(inside, served):
        tokens = 0.0
        for request in inside[len(served) :]:
            prompt = pool.requests.prompt_tokens[request]
            full = len(served) == replica.max_sequences
            if full or (served and tokens + prompt > replica.max_tokens):
                break
            served.append(request)
            pool.prompt_left[request] = 0
            tokens += prompt
        return replica.decode_s(len(served)) + replica.prefill_s(tokens)

    return begin


def prompts_in_chunks(pool: Plain, replica: Continuous, chunk: int):
    """Steps that compute the next `chunk` prompt tokens, first in first out."""

    def begin(inside, served):
        room, before = float(chunk), None
        for request in inside[: replica.max_sequences]:
            left = pool.prompt_left[request]
            if not left or not room:
                continue
            if before is None:
                before = pool.requests.prompt_tokens[request] - left
            taken = min(left, room)
            room -= taken
            pool.prompt_left[request] -= taken
            if request not in served:
                served.append(request)
        seconds = replica.decode_s(len(served))
        if before is not None:
            seconds += replica.prefill_s(before + chunk - room) - replica.prefill_s(before)
        return seconds

    return begin


def latency_of(requests: Requests, tokens_s: list[list[float]], weight: float) -> np.ndarray:
    """The larger of the time to the first token and `weight` times that per later token."""
    rows = []
    for arrival_s, times in zip(requests.arrival_s, tokens_s):
        per_token_s = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
        rows.append(max(times[0] - arrival_s, weight * per_token_s))
    return np.array(rows)


def plainly_apart(kind: Disaggregated, requests: Requests, prefill: int, decode: int) -> np.ndarray:
    first = Plain(requests._replace(output_tokens=np.ones(len(requests.arrival_s))), prefill)
    first_s = np.array([times[0] for times in first.run(whole_prompts(first, kind.prefill))])
    ready_s = first_s + requests.prompt_tokens * kind.bytes_per_token / kind.link_bytes_per_s
    order = [r for r in np.argsort(ready_s, kind="stable") if requests.output_tokens[r] > 1]
    later = Requests(
        ready_s[order],
        np.zeros(len(order)),
        np.array([requests.output_tokens[r] - 1 for r in order]),
    )
    second = Plain(later, decode)
    tokens_s = [[time_s] for time_s in first_s]
    for request, times in zip(order, second.run(whole_prompts(second, kind.decode))):
        tokens_s[request] += times
    return latency_of(requests, tokens_s, kind.replica.per_token_weight)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pair", [(1, 1), (2, 1), (1, 3)])
@pytest.mark.parametrize("at_once", [1, 400])
def test_two_stages_agree_with_a_second_simulation_of_all_steps(seed, pair, at_once):
    requests = random_requests(seed)
    kind = replace(KIND, prefill_max_tokens=at_once)
    waited_s = first_token_s(kind, requests, pair[0])
    latency_s = apart_latency_s(kind, requests, waited_s, pair[1])
    np.testing.assert_allclose(latency_s, plainly_apart(kind, requests, *pair), rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("replicas", [1, 3])
def test_one_pool_agrees_with_a_second_simulation_of_all_steps(seed, replicas):
    requests = random_requests(seed)
    pool = Plain(requests, replicas)
    tokens_s = pool.run(whole_prompts(pool, BOTH))
    np.testing.assert_allclose(
        pooled_latency_s(BOTH, requests, replicas), latency_of(requests, tokens_s, 20.0), rtol=1e-9
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("replicas", [1, 3])
@pytest.mark.parametrize("chunk", [64, 300])
def test_a_pool_with_chunks_agrees_with_a_second_simulation_of_all_steps(seed, replicas, chunk):
    requests = random_requests(seed)
    pool = Plain(requests, replicas)
    tokens_s = pool.run(prompts_in_chunks(pool, BOTH, chunk))
    latency_s = chunked_latency_s(BOTH, requests, replicas, chunk)
    np.testing.assert_allclose(latency_s, latency_of(requests, tokens_s, 20.0), rtol=1e-9)


@pytest.mark.parametrize("replicas", [1, 3])
def test_chunks_that_hold_every_prompt_are_the_kind_continuous(replicas):
    requests = random_requests(7, n=400)
    whole = pooled_latency_s(replace(BOTH, max_tokens=10**9), requests, replicas)
    chunked = chunked_latency_s(BOTH, requests, replicas, 10**9)
    np.testing.assert_allclose(chunked, whole, rtol=1e-9)


def test_prompts_one_at_a_time_wait_as_in_an_md1_queue():
    """W = rho s / (2 (1 - rho)) (Pollaczek and Khinchine)."""
    rng = np.random.default_rng(3)
    n, rho = 100_000, 0.6
    service_s = BOTH.decode_s(1) + BOTH.prefill_s(300)
    arrival_s = np.cumsum(rng.exponential(service_s / rho, n))
    requests = Requests(arrival_s, np.full(n, 300.0), np.full(n, 5.0))
    waited_s = first_token_s(replace(KIND, prefill_max_tokens=1), requests, 1) - service_s
    assert waited_s.mean() == pytest.approx(rho * service_s / (2 * (1 - rho)), rel=0.03)


def test_a_request_alone_takes_its_prompt_the_hand_over_and_its_steps():
    requests = Requests(np.array([5.0]), np.array([300.0]), np.array([11.0]))
    waited_s = first_token_s(KIND, requests, 1)
    assert waited_s == pytest.approx(BOTH.decode_s(1) + BOTH.prefill_s(300))
    handover_s = 300 * KIND.bytes_per_token / 1e9
    per_token_s = (handover_s + 10 * BOTH.decode_s(1)) / 10
    assert apart_latency_s(KIND, requests, waited_s, 1) == pytest.approx(20 * per_token_s)


def test_an_answer_of_one_token_is_not_handed_over():
    requests = Requests(np.array([0.0]), np.array([600.0]), np.array([1.0]))
    slow = replace(KIND, link_bytes_per_s=1.0)
    waited_s = first_token_s(slow, requests, 1)
    assert apart_latency_s(slow, requests, waited_s, 1) == pytest.approx(waited_s)


@pytest.mark.parametrize("objective", ["Sum", "Fair"])
@pytest.mark.parametrize("seed", range(5))
def test_no_pairs_within_the_budget_are_better_than_those_of_the_solver(objective, seed):
    budget, count = 5, 3
    rng = np.random.default_rng(seed)
    jobs = [Job(name, min_replicas=0, weight=w) for name, w in zip("abc", (1.0, 2.0, 0.5))]
    total = np.arange(budget + 1)
    beyond = total[:, None] + total > budget
    tables = []
    for _ in jobs:
        table = rng.random((budget + 1, budget + 1)).round(2)
        table[0] = table[:, 0] = 0.0
        tables.append(np.where(beyond, -np.inf, table))
    allocation, pairs = solve_pairs(jobs, tables, budget, objective)
    utility = [table[tuple(pair)] for table, pair in zip(tables, pairs)]
    assert pairs.sum() <= budget
    assert pairs.sum(axis=1).tolist() == allocation.replicas.tolist()
    every = [pair for pair in product(total, total) if sum(pair) <= budget]
    weights = np.array([job.weight for job in jobs])
    score = OBJECTIVES.find(objective).score
    best = -np.inf
    for chosen in product(every, repeat=count):
        if sum(map(sum, chosen)) <= budget:
            of_chosen = np.array([table[pair] for table, pair in zip(tables, chosen)])
            best = max(best, score(of_chosen, weights, 0.0))
    assert score(np.array(utility), weights, 0.0) == pytest.approx(best)


def test_the_ratio_follows_the_lengths_of_prompts_and_outputs():
    rng = np.random.default_rng(1)
    n = 400
    shares = []
    fast = replace(KIND, link_bytes_per_s=1e11)
    for prompt, output, rate_rps in ((500.0, 3.0, 16.0), (20.0, 60.0, 2.5)):
        arrival_s = np.cumsum(rng.exponential(1 / rate_rps, n))
        requests = Requests(arrival_s, np.full(n, prompt), np.full(n, output))
        value, prefill = best_pairs(pair_table(fast, [requests], 1.0, 4))
        assert value[4] > value[2]
        shares.append(prefill[4])
    assert shares == [3, 1]


def test_the_slo_must_be_on_both():
    with pytest.raises(ValueError, match="slo_on='first_token' of the replica must be 'both'"):
        Disaggregated(replace(BOTH, slo_on="first_token", per_token_weight=0.0), 1e9)


def rows_of(shares: dict[str, list[list[float]]]) -> pd.DataFrame:
    """A table of shares by system, seed and rate, at rates of 2, 4 and 6 requests/s."""
    return pd.DataFrame(
        {
            "mix": "m",
            "replicas": 2,
            "system": system,
            "seed": seed,
            "rate_rps": rate,
            "share": share,
        }
        for system, by_seed in shares.items()
        for seed, of_seed in enumerate(by_seed)
        for rate, share in zip((2.0, 4.0, 6.0), of_seed)
    )


def test_the_sustained_rate_is_where_the_share_first_falls_below_99_percent():
    shares = {
        POOL: [[1.0, 0.98, 1.0], [1.0, 1.0, 1.0]],
        CHUNKS: [[0.98, 1.0, 1.0], [1.0, 0.9, 0.0]],
    }
    per_replica = sustained(rows_of(shares)).loc[("m", 2)]
    assert per_replica[POOL].tolist() == pytest.approx([1.5, 3.0])
    assert per_replica[CHUNKS].tolist() == pytest.approx([0.5, 1.1])


def test_the_finding_compares_with_the_better_pool_on_the_same_requests():
    late, early = [1.0, 1.0, 0.98], [1.0, 0.98, 0.9]
    text = finding(rows_of({POOL: [early] * 2, CHUNKS: [[0.9] * 3] * 2, APART: [late] * 2}))
    assert "m: +67% (+67% to +67%)" in text

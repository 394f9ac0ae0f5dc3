"""Prefill and decode apart, one pool with chunks, and the allocation of pairs."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from plain_steps import (
    KNEES,
    STEPS,
    Plain,
    latency_of,
    plainly_apart,
    prompts_in_chunks,
    random_requests,
    whole_prompts,
)

from faro_lib.allocate import OBJECTIVES
from faro_lib.workload import Job
from faro_lib.workload.replicas import Continuous
from studies.disaggregated.chunked import chunked_latency_s
from studies.disaggregated.figures import APART, CHUNKS, POOL, finding, sustained
from studies.disaggregated.pairs import best_pairs, pair_table, solve_pairs
from studies.disaggregated.world import (
    Requests,
    apart_latency_s,
    disaggregated,
    pooled_latency_s,
)

BOTH = Continuous(**STEPS, **KNEES)
KIND = disaggregated(BOTH, link_gbps=8.0, prefill_max_tokens=400)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pair", [(1, 1), (2, 1), (1, 3)])
@pytest.mark.parametrize("at_once", [1, 400])
def test_two_stages_agree_with_a_second_simulation_of_all_steps(seed, pair, at_once):
    requests = random_requests(seed)
    kind = replace(KIND, prefill_max_tokens=at_once)
    latency_s = apart_latency_s(kind, requests, *pair)
    tokens_s = plainly_apart(kind, requests, *pair)
    np.testing.assert_allclose(latency_s, latency_of(requests, tokens_s, 20.0), rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("replicas", [1, 3])
def test_one_pool_agrees_with_a_second_simulation_of_all_steps(seed, replicas):
    requests = random_requests(seed)
    pool = Plain(requests, replicas)
    tokens_s = pool.run(whole_prompts(pool, BOTH, BOTH.max_tokens))
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
    fast = replace(KIND, link_gbps=800.0)
    for prompt, output, rate_rps in ((500.0, 3.0, 16.0), (20.0, 60.0, 2.5)):
        arrival_s = np.cumsum(rng.exponential(1 / rate_rps, n))
        requests = Requests(arrival_s, np.full(n, prompt), np.full(n, output))
        value, prefill = best_pairs(pair_table(fast, [requests], 1.0, 4))
        assert value[4] > value[2]
        shares.append(prefill[4])
    assert shares == [3, 1]


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

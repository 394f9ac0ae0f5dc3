"""Emulated models that batch and that generate tokens, on a real Ray Serve, against their simulated twins."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest

from faro_lib.rayserve import local
from faro_lib.rayserve.deploy import configuration, deploy
from faro_lib.rayserve.load_generator import SERVED, Generator, Script
from faro_lib.rayserve.models import EmulatedTokens
from faro_lib.rayserve.replica import ReplicaQueue
from faro_lib.rayserve.spec import serve_specs
from faro_lib.simulate import Draws, ServingModel, SimulatedCluster
from faro_lib.workload import Job, Workload
from faro_lib.workload.replicas import Batched, Concurrent, Continuous, mapping_of

BATCHES = Job("images", slo_s=1.0, model="images", replica=Batched(8, 0.05, 0.15, 0.02))
TOKENS = Job("chat", slo_s=2.0, model="chat", replica=Continuous(0.03, 0.001, 1e-5, 8, 20.0, 100.0, 0.5, 0.5))
JOBS = (BATCHES, TOKENS)
SECONDS, TWINS = 40, 200


def request():
    async def body():
        return b""

    return SimpleNamespace(body=body)


def test_the_default_model_of_a_job_emulates_its_kind_and_holds_all_its_requests():
    batches, tokens, concurrent = serve_specs((*JOBS, Job("c", replica=Concurrent(3), model="m", service_time_s=0.1)))
    assert batches.import_path.endswith(":EmulatedBatches")
    assert tokens.import_path.endswith(":EmulatedTokens")
    assert (batches.max_ongoing_requests, batches.concurrency) == (16, 16)
    assert (concurrent.import_path.split(":")[1], concurrent.concurrency) == ("Emulated", 3)


def test_a_replica_that_cannot_be_emulated_is_refused_in_one_line():
    with pytest.raises(ValueError, match="is not emulated at scale 1; name an import_path"):
        serve_specs((Job("c", replica=Concurrent(3, 0.5)),))
    with pytest.raises(ValueError, match="is not emulated at scale 2"):
        serve_specs(JOBS, scale=2.0)


def test_sequences_that_run_together_end_together_and_a_third_waits_for_a_place():
    kind = Continuous(0.05, 0.0, 0.0, 2, output_tokens=4, prompt_tokens=1)

    async def ends():
        model = EmulatedTokens(mapping_of(kind))
        began = time.perf_counter()

        async def one():
            await model(request())
            return time.perf_counter() - began

        return await asyncio.gather(one(), one(), one())

    first, second, third = asyncio.run(ends())
    assert first == pytest.approx(0.2, abs=0.1)
    assert second == pytest.approx(first, abs=0.02)
    assert third == pytest.approx(0.4, abs=0.15)


def test_a_streamed_answer_begins_with_its_first_token_and_is_ongoing_until_its_last():
    kind = Continuous(0.05, 0.0, 0.0, 2, output_tokens=5, prompt_tokens=1)

    async def streamed():
        model, queue = EmulatedTokens(mapping_of(kind), stream=True), ReplicaQueue(4, 4)
        began, ongoing = time.perf_counter(), []
        response = await queue.serve(lambda: model(request()))
        first_s = time.perf_counter() - began
        parts = []
        async for part in queue.streamed(response.body_iterator):
            parts.append(part)
            ongoing.append(queue.ongoing)
        return first_s, time.perf_counter() - began, parts, ongoing, queue.ongoing

    first_s, all_s, parts, ongoing, after = asyncio.run(streamed())
    assert parts == ["token\n"] * 5
    assert first_s == pytest.approx(0.05, abs=0.05)
    assert all_s > first_s + 0.15
    assert (set(ongoing), after) == ({1}, 0)


@pytest.fixture(scope="module")
def served():
    """Function (rate of each job) -> (arrival times, latencies) of each job on one replica of a real Ray Serve."""
    specs = serve_specs(JOBS)
    with local.start(2) as running:
        deploy(running.rest, configuration(JOBS, specs, [1, 1]), (local.HTTP_HOST, urlsplit(running.http).port))

        def offer(rates, seconds=SECONDS, seed=3):
            rng = np.random.default_rng(seed)
            due = [np.sort(rng.uniform(0, seconds, rng.poisson(rate * seconds))) for rate in rates]
            times, job = np.concatenate(due), np.repeat(np.arange(len(due)), [len(one) for one in due])
            order = np.argsort(times, kind="stable")
            urls = tuple(running.http + spec.route for spec in specs)
            script = Script(urls, times[order], job[order], np.full(len(times), np.nan))
            sent = Generator(script, time.time() + 2).result(timeout_s=seconds + 60)
            assert (sent.outcome == SERVED).all()
            return [(script.due_s[script.job == n], sent.latency_s[script.job == n]) for n in range(len(due))]

        offer([5.0, 5.0], seconds=3)  # the first requests of a replica are slower
        yield offer


def twin_p99_s(job, rate_rps, seed):
    """The p99 of a simulated run of the same length, with arrivals and lengths of its own."""
    rng = np.random.default_rng(seed)
    n = rng.poisson(rate_rps * SECONDS)
    lengths = job.replica.lengths(rng, n) if job is TOKENS else np.ones((2, n))
    columns = np.sort(rng.uniform(0, SECONDS, n)), np.empty(0), np.ones(n), np.empty(0), np.ones(n, np.float32)
    draws = Draws(np.array([0, n]), *columns, seed, *lengths)
    model = ServingModel("least-outstanding")
    cluster = SimulatedCluster(Workload((job,), np.array([[n]])), draws, 1, np.ones(1), model)
    cluster.finish()
    return np.quantile(cluster.latency_s, 0.99)


@pytest.mark.live
@pytest.mark.parametrize("share", [0.5, 0.7])
def test_the_live_p99_is_that_of_the_twin(served, share):
    rates = [share / job.busy_s for job in JOBS]
    for job, rate_rps, (arrival_s, latency_s) in zip(JOBS, rates, served(rates)):
        twins = [twin_p99_s(job, rate_rps, seed) for seed in range(TWINS)]
        low, median, high = np.quantile(twins, [0.025, 0.5, 0.975])
        p99_s = np.quantile(latency_s, 0.99)
        found = f"live {p99_s:.3f} s, twin {median:.3f} s ({low:.3f} to {high:.3f})"
        print(f"{job.name} at {share:.0%}, {len(arrival_s)} requests: {found}")
        assert min(low, 0.85 * median) <= p99_s <= max(high, 1.15 * median)

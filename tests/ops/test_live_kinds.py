"""Emulated models that batch and that generate tokens, on a real Ray Serve, against their twins.

The twins are simulated.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from live_twins import JOBS, measures, served, twin
from waiting import in_virtual_time

from faro_lib.workload import Job
from faro_lib.workload.replicas import Batched, Concurrent, Continuous, mapping_of
from faro_ops.operate.rayserve.models import EmulatedBatches, EmulatedTokens
from faro_ops.operate.rayserve.replica import ReplicaQueue
from faro_ops.operate.rayserve.spec import serve_specs


def request():
    async def body():
        return b""

    return SimpleNamespace(body=body)


def test_the_default_model_of_a_job_emulates_its_kind_and_holds_all_its_requests():
    batches, tokens, _, concurrent = serve_specs(
        (*JOBS, Job("c", replica=Concurrent(3), model="m", service_time_s=0.1))
    )
    assert batches.import_path.endswith(":EmulatedBatches")
    assert tokens.import_path.endswith(":EmulatedTokens")
    assert (batches.max_ongoing_requests, batches.concurrency) == (16, 16)
    assert (concurrent.import_path.split(":")[1], concurrent.concurrency) == ("Emulated", 3)


def test_a_replica_that_cannot_be_emulated_is_refused_in_one_line():
    with pytest.raises(ValueError, match="is not emulated at scale 1; name an import_path"):
        serve_specs((Job("c", replica=Concurrent(3, 0.5)),))
    with pytest.raises(ValueError, match="is not emulated at scale 2"):
        serve_specs(JOBS, scale=2.0)


def test_a_batch_starts_when_it_is_full_or_after_the_wait_and_its_requests_end_together():
    kind = Batched(2, 0.2, 0.1, 0.05)

    async def answered():
        model = EmulatedBatches(mapping_of(kind))
        began = asyncio.get_running_loop().time()

        async def one():
            size = await model(request())
            return size, asyncio.get_running_loop().time() - began

        return await asyncio.gather(one(), one(), one())

    first, second, third = in_virtual_time(answered())
    assert [size for size, _ in (first, second, third)] == ["2", "2", "1"]
    ends_s = [end_s for _, end_s in (first, second, third)]
    assert ends_s == pytest.approx([0.2, 0.2, 0.2 + 0.2 + 0.15])  # the third waits for another one


def test_sequences_that_run_together_end_together_and_a_third_waits_for_a_place():
    kind = Continuous(0.05, 0.0, 0.0, 2, output_tokens=4, prompt_tokens=1)

    async def ends():
        model = EmulatedTokens(mapping_of(kind))
        began = asyncio.get_running_loop().time()

        async def one():
            await model(request())
            return asyncio.get_running_loop().time() - began

        return await asyncio.gather(one(), one(), one())

    assert in_virtual_time(ends()) == pytest.approx([0.2, 0.2, 0.4])


def test_a_streamed_answer_begins_with_its_first_token_and_is_ongoing_until_its_last():
    kind = Continuous(0.05, 0.0, 0.0, 2, output_tokens=5, prompt_tokens=1)

    async def streamed():
        model, queue = EmulatedTokens(mapping_of(kind), stream=True), ReplicaQueue(4, 4)
        began, ongoing = asyncio.get_running_loop().time(), []
        response = await queue.serve(lambda: model(request()))
        first_s = asyncio.get_running_loop().time() - began
        parts = []
        async for part in await queue.streamed(response.body_iterator, began):
            parts.append(part)
            ongoing.append(queue.ongoing)
        return first_s, asyncio.get_running_loop().time() - began, parts, ongoing, queue.ongoing

    first_s, all_s, parts, ongoing, after = in_virtual_time(streamed())
    assert parts == ["token\n"] * 5
    assert (first_s, all_s) == pytest.approx((0.05, 0.25))
    assert (set(ongoing), after) == ({1}, 0)


@pytest.fixture(scope="module")
def offer():
    with served() as offer:
        yield offer


@pytest.mark.live
@pytest.mark.study
@pytest.mark.parametrize("share", [0.5, 0.7, 0.85])
def test_the_live_p99_and_throughput_are_those_of_the_twin(offer, share):
    for job, (arrival_s, latency_s, lengths) in zip(
        JOBS, offer([share / job.busy_s for job in JOBS])
    ):
        live, simulated = measures(arrival_s, latency_s), twin(job, arrival_s, lengths)
        assert live[0] == pytest.approx(simulated[0], rel=0.15), job.name
        assert live[1] == pytest.approx(simulated[1], rel=0.05), job.name

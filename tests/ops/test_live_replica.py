"""A replica's admission, queue and reports, and the stats aggregator, without Ray."""

import asyncio
import contextlib
import contextvars
import json
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faro_ops.rayserve.replica import Dropped, ReplicaActor, ReplicaQueue, load_model
from faro_ops.rayserve.statistics import StatsAggregator, add_row, bucket_of, empty_row, latency_of


async def at_once(queue: ReplicaQueue, requests: int, service_s: float = 0.0) -> int:
    """Send requests together; how many were refused."""

    async def work():
        await asyncio.sleep(service_s)

    results = await asyncio.gather(
        *(queue.serve(work) for _ in range(requests)), return_exceptions=True
    )
    return sum(isinstance(result, Dropped) for result in results)


def totals(queue: ReplicaQueue) -> dict:
    total = empty_row()
    for row in queue.rows.values():
        add_row(total, row)
    return total


def test_a_replica_holds_at_most_max_ongoing_requests():
    queue = ReplicaQueue(max_ongoing_requests=4)
    assert asyncio.run(at_once(queue, 10, service_s=0.01)) == 6
    assert queue.ongoing == 0
    assert (totals(queue)["arrivals"], totals(queue)["dropped"], totals(queue)["done"]) == (
        10,
        6,
        4,
    )


def test_a_replica_serves_one_request_at_a_time():
    queue, inside, most = ReplicaQueue(max_ongoing_requests=10), 0, 0

    async def work():
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.001)
        inside -= 1

    async def all_of_them():
        await asyncio.gather(*(queue.serve(work) for _ in range(5)))

    asyncio.run(all_of_them())
    assert most == 1


@given(share=st.floats(0, 1), requests=st.integers(20, 300))
def test_the_accepted_share_is_the_share_that_was_set(share, requests):
    queue = ReplicaQueue(max_ongoing_requests=requests)
    queue.accept = share
    refused = asyncio.run(at_once(queue, requests))
    assert refused / requests == pytest.approx(1 - share, abs=6 / requests)


def test_a_model_that_raises_counts_as_failed_and_frees_its_slot():
    queue = ReplicaQueue(max_ongoing_requests=1)

    async def broken():
        raise KeyError("model")

    for _ in range(2):
        with pytest.raises(KeyError):
            asyncio.run(queue.serve(broken))
    assert totals(queue)["failed"] == 2
    assert totals(queue)["dropped"] == 0


def test_a_caller_that_disconnects_counts_as_failed_and_frees_its_slot():
    queue = ReplicaQueue(max_ongoing_requests=1)

    async def hang_up():
        request = asyncio.ensure_future(queue.serve(lambda: asyncio.sleep(60)))
        await asyncio.sleep(0.01)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)

    asyncio.run(hang_up())
    assert (totals(queue)["arrivals"], totals(queue)["failed"], queue.ongoing) == (1, 1, 0)


def test_time_in_the_queue_counts_as_latency_and_not_as_service():
    queue = ReplicaQueue(max_ongoing_requests=2)
    asyncio.run(at_once(queue, 2, service_s=0.02))
    total = totals(queue)
    assert total["latency_s"] > total["service_s"] + 0.01


def test_an_idle_second_is_reported_and_the_current_second_is_not():
    now = 100.5
    queue = ReplicaQueue(max_ongoing_requests=1, clock=lambda: now)
    queue.finished_seconds()
    now = 103.5
    assert list(queue.finished_seconds()) == [100, 101, 102]
    queue.forget([100, 101, 102])
    now = 104.5
    assert list(queue.finished_seconds()) == [103]


@given(st.floats(0.001, 100))
def test_latency_buckets_are_accurate_to_a_few_percent(latency_s):
    assert latency_of(bucket_of(latency_s)) == pytest.approx(latency_s, rel=0.023)


def row(**counts):
    return empty_row() | counts


def test_a_second_that_is_reported_twice_counts_once():
    stats = StatsAggregator()
    for _ in range(2):
        stats.report("a", "a#1", 0, {2_000_000_000: row(arrivals=7)})
    assert stats.read()["a"]["seconds"]["2000000000"]["arrivals"] == 7


def test_the_replicas_of_a_job_add_up_in_any_order():
    one, other = StatsAggregator(), StatsAggregator()
    reports = [
        ("a", "a#1", 2, {2_000_000_000: row(arrivals=3)}),
        ("a", "a#2", 5, {2_000_000_000: row(arrivals=4)}),
    ]
    for report in reports:
        one.report(*report)
    for report in reversed(reports):
        other.report(*report)
    assert one.read() == other.read()
    assert one.read()["a"]["seconds"]["2000000000"]["arrivals"] == 7
    assert (one.read()["a"]["ongoing"], one.read()["a"]["replicas"]) == (7, 2)


def test_the_heartbeat_returns_the_share_to_accept_once_it_is_set():
    stats = StatsAggregator()
    assert stats.report("a", "a#1", 0, {}) is None
    stats.accept({"a": 0.7})
    assert stats.report("a", "a#1", 0, {}) == 0.7


def test_a_job_for_which_no_share_is_set_any_more_accepts_everything():
    stats = StatsAggregator()
    stats.accept({"a": 1, "b": 0.6})
    stats.accept({"a": 1})
    assert stats.report("b", "b#1", 0, {}) == 1.0


class TestASharePastTheLease:
    @pytest.fixture
    def stats(self, monkeypatch):
        self.now_s = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)
        stats = StatsAggregator()
        stats.lease("first", 30.0)
        stats.accept({"a": 0.6})
        assert stats.report("a", "a#1", 0, {}) == 0.6
        return stats

    def test_holds_while_the_lease_is_renewed(self, stats):
        for self.now_s in (20.0, 40.0):
            stats.lease("first", 30.0)
        assert stats.report("a", "a#1", 0, {}) == 0.6

    @pytest.mark.parametrize("ends", ["killed", "released"])
    def test_is_one_again(self, stats, ends):
        if ends == "killed":
            self.now_s = 31.0
        else:
            stats.lease("first", 0.0)
        assert stats.read()["a"]["accept"] == 1.0
        assert stats.report("a", "a#1", 0, {}) == 1.0

    def test_does_not_return_with_the_next_controller(self, stats):
        self.now_s = 31.0
        assert stats.lease("second", 30.0) == "second"
        assert stats.report("a", "a#1", 0, {}) == 1.0
        stats.accept({"a": 0.8})
        assert stats.report("a", "a#1", 0, {}) == 0.8

    def test_holds_if_a_client_without_a_lease_has_set_it_since(self, stats):
        self.now_s = 31.0
        stats.accept({"a": 0.7})
        self.now_s = 1000.0
        assert stats.report("a", "a#1", 0, {}) == 0.7


def test_the_statistics_survive_json():
    stats = StatsAggregator()
    stats.report("a", "a#1", 0, {2_000_000_000: row(arrivals=1, buckets={"5": 1})})
    assert json.loads(json.dumps(stats.read())) == stats.read()


@pytest.mark.parametrize(
    ("path", "message"), [("json", "package.module:Name"), ("json:nothing", "has no nothing")]
)
def test_a_missing_model_is_one_line(path, message):
    with pytest.raises(ValueError, match=message):
        load_model(path)


def test_the_emulated_model_takes_the_time_in_the_request():
    from faro_ops.rayserve.models import Emulated

    class Request:
        async def body(self):
            return b"0.001"

    assert asyncio.run(Emulated(mean_s=100.0)(Request())) == "ok"


def test_a_body_that_the_emulated_model_cannot_read_is_answered_with_400():
    from faro_ops.rayserve.models import Emulated

    class Request:
        async def body(self):
            return b"{}"

    answer = asyncio.run(Emulated()(Request()))
    assert (answer.status_code, answer.body) == (
        400,
        b"the body must be a service time in seconds, 0 to 60",
    )


@pytest.mark.parametrize(
    ("status", "counted"), [(200, "done"), (400, "done"), (500, "failed"), (503, "failed")]
)
def test_an_answer_of_the_model_with_status_5xx_counts_as_failed_and_is_passed_on(status, counted):
    from starlette.responses import PlainTextResponse

    replica = ReplicaActor.__new__(ReplicaActor)  # without Ray
    replica._queue, replica._is_async = ReplicaQueue(max_ongoing_requests=1), False
    replica._model = lambda request: PlainTextResponse("answer", status)
    assert asyncio.run(replica(None)).status_code == status
    assert {key: totals(replica._queue)[key] for key in ("done", "failed")} == {
        "done": 0,
        "failed": 0,
        counted: 1,
    }


def test_calls_whose_clients_have_stopped_waiting_still_count_against_the_concurrency():
    replica, inside, most = ReplicaActor.__new__(ReplicaActor), [], []  # without Ray
    replica._queue, replica._is_async = ReplicaQueue(max_ongoing_requests=10), False

    def slow(request):
        inside.append(request)
        most.append(len(inside))
        time.sleep(0.05)
        inside.pop()
        return variable.get()

    replica._model, variable = slow, contextvars.ContextVar("variable", default="none")

    async def impatient():
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(replica(None), 0.02)
        variable.set("set")
        return await replica(None)

    assert asyncio.run(impatient()).body == b"set"
    assert max(most) == 1


def test_as_many_calls_run_at_once_as_the_concurrency_allows():
    replica, many = ReplicaActor.__new__(ReplicaActor), 40  # more than the threads of asyncio
    replica._queue, replica._is_async = (
        ReplicaQueue(max_ongoing_requests=many, concurrency=many),
        False,
    )
    replica._model = lambda request: threading.Barrier.wait(together, timeout=10)
    together = threading.Barrier(many)

    async def at_once():
        return await asyncio.gather(*(replica(None) for _ in range(many)))

    assert {answer.status_code for answer in asyncio.run(at_once())} == {200}


def test_without_torch_the_torchvision_model_says_what_to_install(monkeypatch):
    from faro_ops.rayserve.models import TorchVision

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"pip install 'faro_lib\[torch\]'"):
        TorchVision()


def test_the_torchvision_model_answers_a_class():
    pytest.importorskip(
        "torchvision", reason="the extra `torch` is not installed: the real network is NOT tested"
    )
    from faro_ops.rayserve.models import TorchVision

    assert 0 <= int(TorchVision("resnet18")(None)) < 1000


async def each_with_a_pause(parts):
    for part in parts:
        await asyncio.sleep(0.05)
        yield part


@pytest.mark.parametrize("parts", [[], ["one"], ["one", "two", "three"]])
def test_the_latency_of_a_streamed_answer_is_that_of_its_first_part(parts):
    from starlette.responses import StreamingResponse

    replica = ReplicaActor.__new__(ReplicaActor)  # without Ray
    replica._queue, replica._is_async = ReplicaQueue(max_ongoing_requests=1), False
    replica._model = lambda request: StreamingResponse(each_with_a_pause(parts))

    async def answered():
        return [part async for part in (await replica(None)).body_iterator]

    assert asyncio.run(answered()) == parts
    total = totals(replica._queue)
    assert (total["done"], replica._queue.ongoing) == (1, 0)
    assert (0.05 if parts else 0.0) <= total["latency_s"] < 0.1, "the pause before the first part"


def test_a_streamed_answer_that_fails_before_its_first_part_counts_as_failed():
    from starlette.responses import StreamingResponse

    async def failing():
        raise ValueError("out of memory")
        yield ""

    replica = ReplicaActor.__new__(ReplicaActor)
    replica._queue, replica._is_async = ReplicaQueue(max_ongoing_requests=1), False
    replica._model = lambda request: StreamingResponse(failing())
    with pytest.raises(ValueError, match="out of memory"):
        asyncio.run(replica(None))
    assert (totals(replica._queue)["failed"], replica._queue.ongoing) == (1, 0)

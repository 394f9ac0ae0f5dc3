"""A replica's admission, queue and reports, and the stats aggregator, without Ray."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import json
import math
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import PATIENCE_S, in_virtual_time

from faro_ops.operate.rayserve.clock_offset import FollowingClock, offset_after
from faro_ops.operate.rayserve.replica import Dropped, ReplicaActor, ReplicaQueue, load_model
from faro_ops.operate.rayserve.statistics import (
    JobStatistics,
    StatsAggregator,
    add_row,
    bucket_of,
    empty_row,
    latency_of,
)


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
    assert in_virtual_time(at_once(queue, 10, service_s=0.01)) == 6
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


def test_a_caller_that_disconnects_counts_as_cancelled_and_frees_its_slot():
    queue = ReplicaQueue(max_ongoing_requests=1)

    async def hang_up():
        request = asyncio.ensure_future(queue.serve(lambda: asyncio.sleep(60)))
        await asyncio.sleep(0.01)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)

    in_virtual_time(hang_up())
    counts = totals(queue)
    assert (counts["arrivals"], counts["cancelled"], counts["failed"]) == (1, 1, 0)
    assert queue.ongoing == 0


def test_time_in_the_queue_counts_as_latency_and_not_as_service():
    queue = ReplicaQueue(max_ongoing_requests=2)
    in_virtual_time(at_once(queue, 2, service_s=0.02))
    total = totals(queue)
    assert total["latency_s"] == pytest.approx(0.02 + 0.04)
    assert total["service_s"] == pytest.approx(0.02 + 0.02)


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


def test_the_replicas_of_a_job_add_up_in_any_order(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_999_999_999.0)
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
    assert stats.report("a", "a#1", 0, {}).accept is None
    stats.accept({"a": 0.7}, 30.0)
    assert stats.report("a", "a#1", 0, {}).accept == 0.7


def test_a_job_for_which_no_share_is_set_any_more_accepts_everything():
    stats = StatsAggregator()
    stats.accept({"a": 1, "b": 0.6}, 30.0)
    stats.accept({"a": 1}, 30.0)
    assert stats.report("b", "b#1", 0, {}).accept == 1.0


class TestAShare:
    """A share of 0.6 that a controller set for 30 s, when it was granted the lease for 30 s."""

    @pytest.fixture
    def stats(self, monkeypatch):
        self.now_s = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)
        stats = StatsAggregator()
        stats.lease("first", 30.0)
        stats.accept({"a": 0.6}, 30.0)
        assert self.share(stats) == 0.6
        return stats

    def share(self, stats, job="a"):
        return stats.report(job, f"{job}#1", 0, {}).accept

    def test_holds_while_it_is_renewed(self, stats):
        for self.now_s in (20.0, 40.0):
            stats.lease("first", 30.0)
            stats.accept({"a": 0.6}, 30.0)
        assert self.share(stats) == 0.6

    def test_ends_if_only_the_lease_is_renewed(self, stats):
        self.now_s = 20.0
        stats.lease("first", 30.0)
        self.now_s = 30.0
        assert self.share(stats) == 1.0

    @pytest.mark.parametrize("ends", ["killed", "released"])
    def test_is_one_again_after_its_controller(self, stats, ends):
        if ends == "killed":
            self.now_s = 31.0
        else:
            stats.lease("first", 0.0)
        assert stats.read()["a"]["accept"] == 1.0
        assert self.share(stats) == 1.0

    def test_does_not_return_with_the_next_controller(self, stats):
        self.now_s = 31.0
        assert stats.lease("second", 30.0) == "second"
        assert self.share(stats) == 1.0
        stats.accept({"a": 0.8}, 30.0)
        assert self.share(stats) == 0.8

    def test_of_a_client_without_a_lease_ends_too(self, stats):
        self.now_s = 31.0
        stats.accept({"a": 0.7}, 60.0)
        self.now_s = 90.0
        assert self.share(stats) == 0.7
        self.now_s = 91.0
        assert self.share(stats) == 1.0

    def test_comes_with_the_time_that_is_left(self, stats):
        self.now_s = 12.0
        assert stats.report("a", "a#1", 0, {}).for_s == 18.0

    def test_of_nothing_is_a_share(self, stats):
        stats.accept({"a": 0.0}, 30.0)
        assert stats.read()["a"]["accept"] == self.share(stats) == 0.0

    @pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -0.1, 1.5, None, "all"])
    def test_that_cannot_be_right_costs_only_its_job(self, stats, wrong):
        stats.accept({"a": wrong, "b": 0.5}, 30.0)
        assert (self.share(stats), self.share(stats, "b")) == (1.0, 0.5)


class Remote:
    """A replica without Ray, whose aggregator answers, hangs, or has died."""

    def __init__(self, stats):
        self.stats, self.delay_s = stats, 0.0
        self.actor = ReplicaActor.__new__(ReplicaActor)
        self.actor._job, self.actor._name = "a", "a#1"
        self.actor._clock = FollowingClock()
        self.actor._queue = ReplicaQueue(1_000_000, clock=self.actor._clock.now_s)
        self.actor._aggregator = self
        self.report = self

    def remote(self, *arguments):
        future = concurrent.futures.Future()
        try:
            future.set_result(self.stats.report(*arguments))
        except Exception as error:
            future.set_exception(error)
        return SimpleNamespace(future=lambda: future)

    def heartbeat(self):
        asyncio.run(self.actor._report())

    def dropped(self, requests=100):
        return asyncio.run(at_once(self.actor._queue, requests)) / requests


class TestADropRateOfSeventyPercent:
    @pytest.fixture
    def replica(self, monkeypatch):
        self.now_s = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr("faro_ops.operate.rayserve.replica.random.random", lambda: 0.5)
        replica = Remote(StatsAggregator())
        replica.stats.accept({"a": 0.3}, 30.0)
        replica.heartbeat()
        assert replica.dropped() == pytest.approx(0.7, abs=0.02)
        return replica

    def test_ends_after_its_time_if_the_controller_and_the_aggregator_are_gone(self, replica):
        self.now_s += 29.0
        assert replica.dropped() == pytest.approx(0.7, abs=0.02)
        self.now_s += 1.0
        assert replica.dropped() == 0.0

    def test_survives_a_restart_of_the_aggregator_until_the_controllers_next_tick(self, replica):
        replica.stats = StatsAggregator()
        self.now_s += 1.0
        replica.heartbeat()
        assert replica.dropped() == pytest.approx(0.7, abs=0.02)
        replica.stats.accept({"a": 0.6}, 30.0)
        replica.heartbeat()
        assert replica.dropped() == pytest.approx(0.4, abs=0.02)

    def test_ends_after_its_time_if_the_restarted_aggregator_hears_no_controller(self, replica):
        replica.stats = StatsAggregator()
        for _ in range(30):
            self.now_s += 1.0
            replica.heartbeat()
        assert replica.dropped() == 0.0

    def test_lasts_as_long_as_it_is_renewed(self, replica):
        for _ in range(100):
            self.now_s += 10.0
            replica.stats.accept({"a": 0.3}, 30.0)
            replica.heartbeat()
        assert replica.dropped() == pytest.approx(0.7, abs=0.02)

    def test_of_a_replica_that_accepts_nothing_is_one(self, replica):
        replica.stats.accept({"a": 0.0}, 30.0)
        replica.heartbeat()
        assert replica.dropped() == 1.0


WRONG = [
    ("arrivals", float("nan")),
    ("done", float("inf")),
    ("dropped", -1),
    ("latency_s", float("nan")),
    ("service_s2", -0.1),
    ("failed", "three"),
    ("buckets", {"5": -1}),
    ("buckets", {"x": 1}),
    ("buckets", None),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_measurements_that_cannot_be_right_cost_one_second_of_one_job(key, value):
    stats = StatsAggregator()
    good = {2_000_000_000 + n: row(arrivals=2) for n in range(3)}
    for job in ("a", "b"):
        stats.report(job, f"{job}#1", 0, good)
    stats.report("a", "a#2", 0, good | {2_000_000_001: row(arrivals=1) | {key: value}})
    read = json.loads(json.dumps(stats.read(), allow_nan=False))
    a, b = (JobStatistics.of(read[job]) for job in ("a", "b"))
    assert list(a.wrong) == [2_000_000_001]
    assert a.wrong[2_000_000_001].startswith("replica a#2 reports ")
    assert [a.seconds[second]["arrivals"] for second in (2_000_000_000, 2_000_000_002)] == [4, 4]
    assert (len(b.seconds), b.wrong) == (3, {})


def test_a_number_of_ongoing_requests_that_cannot_be_right_is_unknown():
    stats = StatsAggregator()
    for ongoing in (float("nan"), -1, float("inf")):
        stats.report("a", "a#1", ongoing, {})
        part = json.loads(json.dumps(stats.read(), allow_nan=False))["a"]
        assert math.isnan(JobStatistics.of(part).ongoing)


@pytest.mark.parametrize("ahead_s", [-20.0, 20.0, 3600.0])
def test_a_replica_on_a_node_with_another_time_counts_in_the_aggregators_seconds(
    ahead_s, monkeypatch
):
    true_s, here_s = 2_000_000_000.25, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: 500.0 + here_s)
    monkeypatch.setattr(time, "time", lambda: true_s + here_s + ahead_s)
    replica = Remote(StatsAggregator())
    report = replica.stats.report

    def on_its_own_node(*arguments):
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(time, "time", lambda: true_s + here_s)
            return report(*arguments)

    monkeypatch.setattr(replica.stats, "report", on_its_own_node)
    replica.heartbeat()
    for second in (1.0, 2.0, 3.0):
        here_s = second
        replica.dropped(10)
        replica.heartbeat()
    here_s = 4.0
    replica.heartbeat()
    seconds = replica.stats._seconds["a"]
    assert [seconds[2_000_000_000 + n]["arrivals"] for n in (1, 2, 3)] == [10, 10, 10]


def test_an_answer_that_takes_long_says_nothing_about_the_clocks():
    assert offset_after(0.0, 100.0, 120.0, 120.0) == 0.0
    assert offset_after(0.0, 100.0, 99.0, 80.0) == 0.0, "our clock was set back meanwhile"


def test_the_statistics_survive_json():
    stats = StatsAggregator()
    stats.report("a", "a#1", 0, {2_000_000_000: row(arrivals=1, buckets={"5": 1})})
    read = stats.read()
    assert json.loads(json.dumps(read)) == read


@pytest.mark.parametrize(
    ("path", "message"), [("json", "package.module:Name"), ("json:nothing", "has no nothing")]
)
def test_a_missing_model_is_one_line(path, message):
    with pytest.raises(ValueError, match=message):
        load_model(path)


def test_the_emulated_model_takes_the_time_in_the_request():
    from faro_ops.operate.rayserve.models import Emulated

    class Request:
        async def body(self):
            return b"0.001"

    assert asyncio.run(Emulated(mean_s=100.0)(Request())) == "ok"


def test_a_body_that_the_emulated_model_cannot_read_is_answered_with_400():
    from faro_ops.operate.rayserve.models import Emulated

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
    replica._model = lambda request: threading.Barrier.wait(together, timeout=PATIENCE_S)
    together = threading.Barrier(many)

    async def at_once():
        return await asyncio.gather(*(replica(None) for _ in range(many)))

    assert {answer.status_code for answer in asyncio.run(at_once())} == {200}


def test_without_torch_the_torchvision_model_says_what_to_install(monkeypatch):
    from faro_ops.operate.rayserve.models import TorchVision

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"pip install 'faro_lib\[torch\]'"):
        TorchVision()


def test_the_torchvision_model_answers_a_class():
    pytest.importorskip(
        "torchvision", reason="the extra `torch` is not installed: the real network is NOT tested"
    )
    from faro_ops.operate.rayserve.models import TorchVision

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

    assert in_virtual_time(answered()) == parts
    total = totals(replica._queue)
    assert (total["done"], replica._queue.ongoing) == (1, 0)
    assert total["latency_s"] == pytest.approx(0.05 if parts else 0.0), "until the first part"


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

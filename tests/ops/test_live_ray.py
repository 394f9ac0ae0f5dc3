"""A real Ray Serve: scaling, dropping, and the faults that an operator must expect.

One Ray serves all tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from contextlib import contextmanager

import numpy as np
import psutil
import pytest
from live_things import Wanting

from faro_lib.protocol import LATENCY_WINDOW_S
from faro_lib.workload import Job
from faro_lib.workload.replicas import Continuous, mapping_of
from faro_ops.advise.profile.load_generator import DROPPED, FAILED, UNSENT, Script
from faro_ops.advise.profile.profile import profile_job
from faro_ops.http import BUSY_RETRY_S
from faro_ops.journal import reading
from faro_ops.operate.clock import Clock
from faro_ops.operate.loop import resume
from faro_ops.operate.loop.loop import OBSERVE, run
from faro_ops.operate.rayserve import local
from faro_ops.operate.rayserve.backend import Endpoint
from faro_ops.operate.rayserve.cluster import RayServeCluster
from faro_ops.operate.rayserve.deploy import APPLICATIONS, configuration, deploy
from faro_ops.operate.rayserve.running_job import RunningJob
from faro_ops.operate.rayserve.spec import serve_specs
from studies.live.generator import Generator

pytestmark = pytest.mark.live

CAPACITY, START = 6, [2, 1]
SERVICE_S = 0.03
JOBS = (
    Job("a", slo_s=0.5, service_time_s=SERVICE_S, model="m"),
    Job("b", slo_s=0.5, service_time_s=SERVICE_S, model="m"),
)
SERVED = serve_specs(JOBS, {job.name: {"max_ongoing_requests": 20} for job in JOBS})
RECOVERED_S = 60.0
TICK_S = 2.0


@pytest.fixture(scope="module")
def ray():
    """A Ray that serves two jobs; afterwards none of its processes is left."""
    with local.start(CAPACITY) as running:
        port = urllib.parse.urlsplit(running.http.address).port
        deploy(running.rest, configuration(JOBS, SERVED, START), (local.HTTP_HOST, port))
        family = local.processes(running.process.pid)
        assert len(family) > 5
        yield Endpoint(running.rest, running.http, (running.process.pid,))
        family += local.processes(running.process.pid)
    assert not [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def until(holds, seconds=RECOVERED_S, what="waited in vain"):
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, what
        time.sleep(0.2)


def state(ray, job) -> dict:
    return ray.ray.get(APPLICATIONS, BUSY_RETRY_S)["applications"][job]["deployments"]["replica"]


def running(ray) -> list[int]:
    return [
        sum(one["state"] == "RUNNING" for one in state(ray, job.name)["replicas"]) for job in JOBS
    ]


class Loop:
    """A controller in its own thread, with its steps and failures."""

    def __init__(self, ray, policy, path=None):
        self.steps, self.failures = [], []
        self.stop = threading.Event()
        clock = Clock.starting_now(stop=self.stop, in_s=-900)
        cluster = RayServeCluster(JOBS, SERVED, ray.ray, ray.http, clock)
        self.thread = threading.Thread(
            target=run,
            args=(cluster, policy, JOBS),
            kwargs=dict(
                clock=clock,
                journal=path,
                on_step=self.steps.append,
                on_failure=lambda reason, text: self.failures.append(reason),
            ),
        )

    def ticks(self, more: int, seconds: float = 60.0) -> None:
        """Wait for `more` further ticks."""
        wanted = len(self.steps) + more
        until(lambda: len(self.steps) >= wanted, seconds, "the loop has stalled")


@contextmanager
def controlled(ray, policy=None, path=None):
    """A controller runs meanwhile; it must not end, exceed the capacity or scale a job to zero."""
    policy = policy or Wanting([2, 2])
    if isinstance(policy, Wanting):
        policy.tick_s = TICK_S
    loop = Loop(ray, policy, path)
    loop.thread.start()
    try:
        loop.ticks(2)
        yield loop
        assert loop.thread.is_alive(), "the loop ended"
    finally:
        loop.stop.set()
        loop.thread.join(60)
    for step in loop.steps:
        here = (
            step.observation.present if step.observation.present is not None else [True] * len(JOBS)
        )
        assert step.target.sum() <= CAPACITY
        assert (step.target[here] >= 1).all()


@contextmanager
def loaded(ray, seconds, rate_rps=15.0):
    """Evenly spaced load on both jobs; yields a function that waits for the outcomes."""
    n = int(seconds * rate_rps)
    job = np.arange(n) % len(JOBS)
    urls = tuple(ray.http.address + one.route for one in SERVED)
    script = Script(urls, np.arange(n) / rate_rps, job, np.full(n, SERVICE_S))
    generator = Generator(script, time.time() + 1.5)
    try:
        yield lambda: generator.result(timeout_s=seconds + 60)
    finally:
        generator.stop()


def test_scaling_up_and_down_loses_no_request(ray):
    policy = Wanting([2, 1])
    with controlled(ray, policy), loaded(ray, 30) as result:
        for target in ([4, 1], [1, 3], [2, 2]):
            policy.target = np.array(target)
            until(lambda target=target: running(ray) == target)
        sent = result()
    assert len(sent.outcome) == 450
    assert sent.count(FAILED) == sent.count(UNSENT) == 0
    assert sent.count(DROPPED) == 0


def test_a_drop_rate_of_0_3_is_in_force_two_seconds_later(ray):
    policy = Wanting([2, 2], drop=[0.3, 0.0])
    with controlled(ray, policy) as loop:
        loop.ticks(1)
        time.sleep(2.0)
        with loaded(ray, 12, rate_rps=40.0) as result:
            sent = result()
        policy.drop = np.zeros(2)
        loop.ticks(2)
    refused = (sent.outcome == DROPPED).reshape(-1, 2).mean(axis=0)
    assert abs(refused[0] - 0.3) < 0.05
    assert refused[1] == 0
    assert sent.count(FAILED) == 0


def test_the_observation_agrees_with_the_requests_sent(ray):
    time.sleep(
        LATENCY_WINDOW_S
    )  # what the test before had refused took no time; none of it shall be in the mean
    with controlled(ray) as loop:
        began = time.time()
        with loaded(ray, 8, rate_rps=30.0) as result:
            sent = result()
        time.sleep(2.5)
        told = ray.http.get(f"/faro-statistics?since={int(began)}")
        loop.ticks(1)
    assert sent.count(FAILED) == 0
    for job in JOBS:
        rows = told[job.name]["seconds"].values()
        assert sum(row["arrivals"] for row in rows) == 120
        assert sum(row["done"] for row in rows) == 120
    seen = loop.steps[-1].observation
    assert np.isfinite(seen.mean_latency_s).all()
    assert (seen.mean_latency_s > SERVICE_S).all()


def test_a_replica_that_is_killed_is_replaced(ray):
    with controlled(ray) as loop:
        until(lambda: running(ray) == [2, 2])
        victim = state(ray, "a")["replicas"][0]
        os.kill(victim["pid"], signal.SIGKILL)
        known = victim["replica_id"]
        until(lambda: known not in [one["replica_id"] for one in state(ray, "a")["replicas"]])
        until(lambda: running(ray) == [2, 2])
        loop.ticks(1)
        with loaded(ray, 4) as result:
            sent = result()
    assert sent.count(FAILED) == 0


def test_the_statistics_come_back_when_their_actor_is_killed(ray):
    with controlled(ray) as loop:
        before = loop.steps[-1].observation.minute
        (aggregator,) = [
            one
            for one in local.processes(ray.pids[0])
            if "ray::StatsAggregator" in " ".join(one.cmdline())
        ]
        aggregator.kill()
        killed = int(time.time())

        def heard_again() -> bool:
            try:
                told = ray.http.get(f"/faro-statistics?since={killed + 1}")
            except OSError:
                return False
            return all(
                told.get(job.name, {}).get("replicas", 0) >= 1 and told[job.name]["seconds"]
                for job in JOBS
            )

        until(heard_again)
        loop.ticks(2)
        assert np.isfinite(loop.steps[-1].observation.ongoing).all()
        assert np.isfinite(loop.steps[-1].observation.mean_latency_s).all()
    assert loop.steps[-1].observation.minute >= before


def test_a_dashboard_that_hangs_for_a_minute_stops_neither_the_loop_nor_the_service(ray):
    (dashboard,) = [
        one
        for one in local.processes(ray.pids[0])
        if "dashboard/dashboard.py" in " ".join(one.cmdline())
    ]
    with controlled(ray) as loop, loaded(ray, 55) as result:
        dashboard.suspend()
        try:
            time.sleep(60)
            assert loop.thread.is_alive()
        finally:
            dashboard.resume()
        sent = result()
        until(lambda: running(ray) == [2, 2])
        failures = len(loop.failures)
        loop.ticks(2, seconds=RECOVERED_S)
        assert len(loop.failures) <= failures + 1
    assert OBSERVE in loop.failures
    assert sent.count(FAILED) == sent.count(UNSENT) == 0


def test_a_job_that_is_deleted_and_added_again_gets_its_replicas_again(ray):
    with controlled(ray) as loop:
        deploy(ray.ray, [one for one in configuration(JOBS, SERVED, [1, 1]) if one["name"] != "b"])
        until(lambda: loop.steps[-1].observation.present is not None)
        assert loop.steps[-1].observation.present.tolist() == [True, False]
        until(lambda: state(ray, "a")["target_num_replicas"] == 2)
        deploy(ray.ray, configuration(JOBS, SERVED, [1, 1]))
        until(lambda: running(ray) == [2, 2])
        assert loop.steps[-1].observation.present is None


def command(ray, path, *arguments) -> tuple[list[str], dict[str, str]]:
    """`faro run` as an operator starts it, and the environment that holds its token."""
    jobs = path / "jobs.yaml"
    jobs.write_text("".join(f"- {{job: {job.name}, slo_s: 0.5, model: m}}\n" for job in JOBS))
    where = ["--address", ray.ray.address, "--serve-address", ray.http.address, "--jobs", str(jobs)]
    line = [
        sys.executable,
        "-m",
        "faro_ops.cli",
        "run",
        *where,
        "--policy",
        "FairShare",
        "--tick",
        "2",
        *arguments,
    ]
    return line, os.environ | {"RAY_AUTH_TOKEN": ray.ray.token, "RAY_AUTH_MODE": "token"}


def test_a_killed_controller_resumes_within_two_ticks_and_ends_on_sigterm(ray, tmp_path):
    line, environment = command(ray, tmp_path, "--apply", "--journal", str(tmp_path / "journal"))

    def begin():
        return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True)

    first = begin()
    try:
        told = json.loads(first.stdout.readline())
        until(lambda: [state(ray, job.name)["target_num_replicas"] for job in JOBS] == [3, 3])
    finally:
        first.kill()
        first.communicate()
    assert told["applied"]
    ray.ray.post("/api/v1/applications/a/deployments/replica/scale", {"target_num_replicas": 1})
    second = begin()
    try:
        resumed = [json.loads(second.stdout.readline()) for _ in range(2)]
        assert resumed[0]["plan"]["a"] == {"replicas": 3, "drop": 0.0, "reason": "drift-corrected"}
        assert [state(ray, job.name)["target_num_replicas"] for job in JOBS] == [3, 3]
        assert resumed[1]["now_s"] > resumed[0]["now_s"] > told["now_s"]
        second.send_signal(signal.SIGTERM)
        assert second.wait(30) == 0
    finally:
        if second.poll() is None:
            second.kill()
        second.communicate()
    assert [state(ray, job.name)["target_num_replicas"] for job in JOBS] == [3, 3]
    _, ticks = reading.read(tmp_path / "journal")
    assert len(ticks) >= 3


@pytest.mark.parametrize(
    ("token", "message"),
    [("wrong", "the token is wrong"), (None, "requires a token and none was given")],
)
def test_a_wrong_or_missing_token_is_refused_in_one_line(ray, token, message, tmp_path):
    line, environment = command(ray, tmp_path)
    environment["HOME"] = str(tmp_path)
    environment.pop("RAY_AUTH_TOKEN_PATH", None)
    if token is None:
        del environment["RAY_AUTH_TOKEN"]
    else:
        environment["RAY_AUTH_TOKEN"] = token
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_journal_of_a_live_run_replays_to_the_same_plans(ray, tmp_path):
    from faro_lib.forecast.kalman import untrained
    from faro_lib.policies import PolicyContext, make
    from faro_ops.operate.limits.pacing import paced

    def policy():
        context = PolicyContext(JOBS, untrained(("a", "b")))
        return paced(make("Faro-PenaltySum", context), TICK_S, switching_cost=0.0)

    with (
        controlled(ray, policy(), tmp_path / "journal") as loop,
        loaded(ray, 20, rate_rps=60.0) as result,
    ):
        assert result().count(FAILED) == 0
        loop.ticks(1)
    header, ticks = reading.read(tmp_path / "journal")
    assert len(ticks) >= 8
    for taken, again in resume.replay(policy(), header, ticks):
        np.testing.assert_array_equal(again.target, taken.target)
        np.testing.assert_array_equal(again.plan.drop, taken.plan.drop)
        assert again.plan.reason == taken.plan.reason


def test_a_profile_measures_the_service_time_and_restores_the_replica_count(ray):
    before = [state(ray, job.name)["target_num_replicas"] for job in JOBS]
    if sum(before) == CAPACITY:
        ray.ray.post(
            "/api/v1/applications/a/deployments/replica/scale",
            {"target_num_replicas": before[0] - 1},
        )
        before[0] -= 1
        until(lambda: running(ray) == before)
    measured = profile_job(RunningJob(ray.ray, ray.http, "a", SERVED[0]), requests=50)
    assert measured.requests == 50
    assert measured.service_time_s > 0.8 * SERVICE_S  # of a mean of 50 draws
    assert measured.network_overhead_s > 0
    assert 0 < measured.cold_start_s < RECOVERED_S
    assert [state(ray, job.name)["target_num_replicas"] for job in JOBS] == before


TOKENS = {"prompt_tokens": 10, "output_tokens": 20}
MODELS = {
    "emulated": {"import_path": "faro_ops.operate.rayserve.models:EmulatedTokens"},
    "llama.cpp": {
        "import_path": "studies.live.engine.model:Engine",
        "args": {"lengths": TOKENS, "slots": 8, "size": {"context": 512}},
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_a_streaming_service_is_observed_by_both_its_latencies(ray, name):
    """What the controller observes in a minute is what the clients of that minute measured."""
    kind = Continuous(
        *(0.03, 0.001, 1e-5, 8),
        **TOKENS,
        slo_on="both",
        per_token_weight=20,
    )
    if name != "emulated":
        pytest.importorskip("xllamacpp", reason="pip install 'faro_lib[llm]'")
    # A trace minute takes 15 s, and a trace second a quarter: the SLO of 0.9 s is 0.225 s here, and
    # the limit per later token is 0.045 s, or 11 ms here.
    scale = 4.0
    chat = Job(name, slo_s=0.9, quantile=0.9, replica=kind, cores=0.1, service_time_s=0.6)
    model = {"args": {"replica": mapping_of(kind), "stream": True}} | MODELS[name]
    (spec,) = serve_specs((chat,), {name: model | {"max_ongoing_requests": 50}})
    port = urllib.parse.urlsplit(ray.http.address).port
    applications = configuration((*JOBS, chat), (*SERVED, spec), [*START, 1])
    deploy(ray.ray, applications, (local.HTTP_HOST, port))

    clock = Clock.starting_now(scale=scale, in_s=1.0)
    cluster = RayServeCluster((chat,), (spec,), ray.ray, ray.http, clock)
    due_s = np.arange(0.0, 31.0, 0.25)
    script = Script(
        (ray.http.address + spec.route,),
        due_s,
        np.zeros(len(due_s), int),
        np.full(len(due_s), np.nan),
    )
    generator = Generator(script, clock.origin_s)
    try:
        cluster.observe()  # from now on the replicas' seconds are followed
        cluster.advance(126.0)
        seen = cluster.observe()
        sent = generator.result(timeout_s=60)
    finally:
        generator.stop()
    assert seen.minute == 2
    ended_s = due_s + sent.latency_s
    in_minute = (ended_s >= 15) & (ended_s < 30)
    first_s = sent.first_s[in_minute]
    later_s = ((sent.latency_s - sent.first_s) / (sent.parts - 1))[in_minute]
    assert in_minute.sum() > 40
    if name != "emulated":
        # Its tokens take less than the way to the client: the times are known, and not longer.
        assert 0 < seen.first_token_s[0] <= 1.1 * scale * np.quantile(first_s, 0.9)
        assert 0 < seen.per_token_s[0] < np.inf
        assert 0 < seen.goodput_rps[0] <= 1.1 * in_minute.sum() / 60
        return
    # The clients' times include the network's.
    measured = scale * np.quantile(first_s, 0.9), scale * np.quantile(later_s, 0.9)
    assert seen.first_token_s[0] == pytest.approx(measured[0], rel=0.3)
    assert seen.per_token_s[0] == pytest.approx(measured[1], rel=0.15)
    worse_s = scale * np.maximum(first_s, 20 * later_s)
    assert seen.tail_latency_s[0] == pytest.approx(np.quantile(worse_s, 0.9), rel=0.15)
    # Requests near the limit may count on either side of it.
    fewest, most = ((worse_s <= limit_s).sum() / 60 for limit_s in (0.8 * 0.9, 1.2 * 0.9))
    assert 0.95 * fewest - 0.05 <= seen.goodput_rps[0] <= 1.05 * most + 0.05

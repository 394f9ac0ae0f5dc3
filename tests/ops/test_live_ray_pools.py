"""A pool on a real Ray Serve: loads and drops under load, a killed replica, a load that fails.

One Ray serves all tests. Nothing here costs CPU: the models sleep.
"""

from __future__ import annotations

import os
import signal
import time
import urllib.parse
from pathlib import Path

import numpy as np
import pytest

from faro_lib.workload import Job, Placement, pools_of
from faro_ops.advise.profile.load_generator import DROPPED, FAILED, UNSENT, Script
from faro_ops.http import BUSY_RETRY_S
from faro_ops.operate.clock import Clock
from faro_ops.operate.job_states import FINE, MISCONFIGURED, JobStates
from faro_ops.operate.rayserve import local
from faro_ops.operate.rayserve.backend import Endpoint
from faro_ops.operate.rayserve.cluster import RayServeCluster
from faro_ops.operate.rayserve.deploy import APPLICATIONS, PLACEMENTS_QUERY, configuration, deploy
from faro_ops.operate.rayserve.spec import serve_specs
from studies.live.generator import Generator

pytestmark = pytest.mark.live

SERVICE_S = 0.05
NAMES = ("a", "b", "c")
SHARED = {"pool": "p", "models_per_replica": 2, "service_time_s": SERVICE_S, "model": "m"}
JOBS = tuple(Job(name, slo_s=1.0, load_s=0.5, **SHARED) for name in NAMES)
TARGET = np.array([2, 1, 1])
HOME = np.repeat(np.arange(3), TARGET)
PATIENCE_S = 60.0


def placement(*rows: str) -> Placement:
    return Placement(HOME, np.array([[name in row for name in NAMES] for row in rows]))


FIRST = placement("ab", "ab", "bc", "ca")
SECOND = placement("ac", "ac", "bc", "ca")


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """While this file exists, the model of c cannot be loaded."""
    return tmp_path_factory.mktemp("model") / "broken"


@pytest.fixture(scope="module")
def ray(broken):
    flaky = {"broken": str(broken), "mean_s": SERVICE_S, "scv": 0.1, "load_s": 0.5}
    specs = serve_specs(JOBS, {"c": {"import_path": "flaky_model:Flaky", "args": flaky}})
    support = str(Path(__file__).parents[1] / "support")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", support, prepend=os.pathsep)
        with local.start(int(TARGET.sum())) as running:
            port = urllib.parse.urlsplit(running.http.address).port
            deploy(running.rest, configuration(JOBS, specs, TARGET), (local.HTTP_HOST, port))
            yield Endpoint(running.rest, running.http, (running.process.pid,)), specs


def controller(ray, states=None):
    endpoint, specs = ray
    clock = Clock.starting_now(in_s=-900)
    cluster = RayServeCluster(JOBS, specs, endpoint.ray, endpoint.http, clock, states=states)
    cluster.observe()
    return cluster


def request(cluster, wished):
    cluster.place({"p": wished})
    cluster.apply(TARGET, np.zeros(3))


def replicas(ray) -> dict[str, dict]:
    return ray[0].http.get(f"/faro-statistics?{PLACEMENTS_QUERY}")["p"]["replicas"]


def held(ray) -> list[str]:
    return sorted("".join(one["holds"]) for one in replicas(ray).values())


def rows(wished: Placement) -> list[str]:
    return sorted(
        "".join(name for name, here in zip(NAMES, row) if here) for row in wished.resident
    )


def until(holds, seconds=PATIENCE_S):
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, "waited in vain"
        time.sleep(0.2)


def loaded(ray, seconds, rate_rps=30.0):
    """Evenly spaced requests to all jobs in turn."""
    endpoint, specs = ray
    n = int(seconds * rate_rps)
    urls = tuple(endpoint.http.address + spec.route for spec in specs)
    requests = np.arange(n) / rate_rps, np.arange(n) % 3, np.full(n, SERVICE_S)
    return Generator(Script(urls, *requests), time.time() + 1.5)


def test_models_come_and_go_under_load_and_a_load_that_fails_is_tried_again(ray, broken):
    states = JobStates()
    cluster = controller(ray, states)
    request(cluster, FIRST)
    until(lambda: held(ray) == rows(FIRST))
    began = int(time.time())
    generator = loaded(ray, 30)
    try:
        time.sleep(2)
        broken.touch()
        request(cluster, SECOND)
        until(lambda: any(one["failures"] for one in replicas(ray).values()))
        cluster.observe()
        told = states.of("c")
        assert set("".join(held(ray))) == set(NAMES)
        broken.unlink()
        until(lambda: held(ray) == rows(SECOND))
        request(cluster, FIRST)
        until(lambda: held(ray) == rows(FIRST))
        sent = generator.result(PATIENCE_S)
    finally:
        generator.stop()
    assert told.state == MISCONFIGURED
    assert "the model's file is damaged" in told.reason
    assert np.bincount(sent.outcome, minlength=4).tolist() == [900, 0, 0, 0]

    time.sleep(2)  # until the last second is reported
    seen = cluster.observe()
    assert states.of("c").state == FINE
    assert seen.target.tolist() == seen.running.tolist() == TARGET.tolist()
    assert seen.ongoing.tolist() == [0, 0, 0]
    counted = [total for total, _ in cluster._recent.totals(began, int(time.time()))]
    assert [total["done"] for total in counted] == [300, 300, 300]
    assert all(total["latency_s"] >= 300 * SERVICE_S for total in counted)


def test_a_killed_replica_loses_only_what_it_served_and_its_successor_gets_its_models(ray):
    cluster = controller(ray)
    request(cluster, FIRST)
    until(lambda: held(ray) == rows(FIRST))
    deployments = ray[0].ray.get(APPLICATIONS, BUSY_RETRY_S)["applications"]["pool-p"][
        "deployments"
    ]
    victim = deployments["replica"]["replicas"][0]
    generator = loaded(ray, 10)
    try:
        time.sleep(4)
        os.kill(victim["pid"], signal.SIGKILL)
        sent = generator.result(PATIENCE_S)
    finally:
        generator.stop()
    assert sent.count(FAILED) <= 1
    assert sent.count(UNSENT) == sent.count(DROPPED) == 0
    until(lambda: victim["replica_id"] not in replicas(ray))
    until(lambda: held(ray) == rows(FIRST))

    restarted = controller(ray)
    known = restarted.observe().placement["p"]
    assert pools_of(JOBS)[0].holds(known.resident).all()
    assert rows(known) == rows(FIRST)
    assert known.replicas.tolist() == TARGET.tolist()

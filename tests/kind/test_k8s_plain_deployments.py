"""On a kind cluster: Faro scales model servers under load.

With and without an HPA on the same Deployment.
"""

from __future__ import annotations

import math

import pytest
from k8s_faro import Load, failed
from k8s_models import CORES, ModelWorld, Prometheus
from k8s_world import World, apply, path_of, until

pytestmark = [pytest.mark.k8s, pytest.mark.slow]
REPLICAS = 6  # that the quota admits
BUSY_RPS, IDLE_RPS = 20.0, 1.0  # two replicas of the busy job would be busy all the time
METRICS_S = 180.0  # kubelet, metrics-server and the HPA each look every 15 s
PLANNED_S = 240.0


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Another namespace, from which the load comes."""
    one = World(tmp_path_factory.mktemp("elsewhere"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def prometheus(elsewhere):
    return Prometheus(elsewhere.api)


@pytest.fixture
def models(tmp_path):
    one = ModelWorld(tmp_path, ("busy", "idle"), REPLICAS)
    yield one
    one.close()


@pytest.fixture
def load(models, elsewhere):
    rates = {"busy": BUSY_RPS, "idle": IDLE_RPS}
    return {
        name: Load(
            models,
            f"load-{models.namespace}-{name}",
            rate,
            models.address(name),
            namespace=elsewhere.namespace,
        )
        for name, rate in rates.items()
    }


def targets(models) -> tuple[int, int]:
    return models.replicas("busy"), models.replicas("idle")


def planned(controller) -> dict[str, int]:
    """Replicas in the last plan that a controller has printed."""
    ticks = controller.ticks
    return (
        {name: job["replicas"] for name, job in ticks[-1][1]["plan"].items()}
        if ticks
        else {"busy": 0, "idle": 0}
    )


def test_load_on_one_of_two_services_moves_replicas_to_it_within_the_capacity(
    models, load, prometheus
):
    tail = models.row("busy")["deployment"]["queries"]["latency_s"].replace("$window", "60s")
    before_s = until(
        lambda: (one := prometheus(tail)) and math.isfinite(one) and one,
        180,
        "Prometheus has a p99",
    )
    slo_s = models.row("busy")["slo_s"]
    assert before_s > slo_s, "one replica is overloaded"

    dry = models.faro(prometheus, "Faro-Sum")
    until(
        lambda: planned(dry)["busy"] > planned(dry)["idle"] > 0,
        PLANNED_S,
        lambda: f"a plan: {dry.said[-5:]}",
    )
    assert dry.end() == 0
    assert targets(models) == (1, 1), "a dry run scales nothing"

    acting = models.faro(prometheus, "Faro-Sum", "--apply")
    until(lambda: targets(models)[0] > 2, PLANNED_S, lambda: f"it scales: {acting.said[-5:]}")
    until(lambda: models.ready("busy") == models.replicas("busy"), 120, "the new replicas serve")

    def observed() -> float:
        return models.plan()["jobs"][0].get("observedTailLatencySeconds", math.inf)

    until(
        lambda: observed() < before_s,
        240,
        lambda: f"the latency falls below {before_s:g} s: {models.plan()}",
    )
    assert acting.end() == 0
    assert all(
        sum(one["replicas"] for one in step["plan"].values()) <= REPLICAS
        for _, step in acting.ticks
    )
    assert models.plan()["capacityCores"] == pytest.approx(REPLICAS * CORES)
    assert models.pending() == []
    idle = load["idle"].end()
    print(f"p99 {before_s:.2f} s -> {observed():.2f} s, {targets(models)}")
    print(f"idle: {len(failed(idle))} of {len(idle)} failed")
    assert failed(idle) == []


def test_the_autoscaler_of_kubernetes_scales_by_the_cpu_that_metrics_server_measures(
    models, load, prometheus
):
    apply(models.api, models.autoscaler("by-cpu", "busy", 1, 3, utilisation=5))

    def status() -> dict:
        return models.get("/apis/autoscaling/v2/{ns}/horizontalpodautoscalers/by-cpu")["status"]

    until(lambda: models.replicas("busy") == 3, METRICS_S, lambda: f"it scales: {status()}")
    assert models.replicas("idle") == 1


def test_faro_starts_beside_an_autoscaler_and_leaves_its_job_alone(models, prometheus):
    autoscaler = models.autoscaler("by-cpu", "busy", 2, 2)
    apply(models.api, autoscaler)
    until(lambda: models.replicas("busy") == 2, METRICS_S, "the HPA scales")
    problem = "is also scaled by HorizontalPodAutoscaler 'by-cpu'; delete it"
    named = f"deployment '{models.namespace}/busy' {problem}"
    dry = models.faro(prometheus, "FairShare")
    until(lambda: dry.ticks, 120, lambda: f"it plans: {dry.said}")
    assert dry.heard(named)
    assert planned(dry)["busy"] == 3, "a dry run plans for the job, too"
    assert dry.end() == 0
    acting = models.faro(prometheus, "FairShare", "--apply")
    until(lambda: targets(models) == (2, 3), 120, lambda: f"it scales: {acting.said[-5:]}")
    assert acting.heard(named)
    models.api.send("DELETE", path_of(autoscaler))
    until(lambda: targets(models) == (3, 3), 120, lambda: f"it scales: {acting.said[-5:]}")
    assert acting.end() == 0


def test_a_job_is_left_to_an_autoscaler_that_appears_until_it_is_deleted(models, prometheus):
    faro = models.faro(prometheus, "FairShare", "--apply")
    until(lambda: targets(models) == (3, 3), 120, lambda: f"it scales: {faro.said[-5:]}")
    autoscaler = models.autoscaler("by-cpu", "busy", 2, 2)
    apply(models.api, autoscaler)
    until(lambda: targets(models) == (2, 3), METRICS_S, "the HPA scales")
    named = "is also scaled by HorizontalPodAutoscaler 'by-cpu'; delete it"
    until(lambda: faro.heard(named), 60, lambda: f"Faro names it: {faro.said[-5:]}")
    seen = len(faro.ticks)
    until(lambda: len(faro.ticks) > seen + 2, 60, "more ticks")
    assert targets(models) == (2, 3)
    models.api.send("DELETE", path_of(autoscaler))
    until(lambda: targets(models) == (3, 3), 60, lambda: f"Faro scales it again: {faro.said[-5:]}")
    assert faro.end() == 0

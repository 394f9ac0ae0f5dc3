"""Ray Serve's own autoscaling state and policy, behind the protocol of `studies/arena/own_code.py`.

    python studies/arena/own/ray_serve.py      # lines of JSON on stdin and stdout

Each service is a `DeploymentAutoscalingState` with one handle, which reports its ongoing requests
by Ray's own `InMemoryMetricsStore`. The controller's and the policy's clock shows the simulated
time.

Ray documents the policy function, but not the state that averages the reports and applies the
delays. So this file imports private modules of the pinned version. It is a reference for the
comparison in docs/arena.md only; nothing that serves requests imports it.
"""

import json
import logging
import sys
from typing import Any

import ray
from ray.serve import autoscaling_policy
from ray.serve._private import autoscaling_state
from ray.serve._private.autoscaling_state import DeploymentAutoscalingState
from ray.serve._private.common import (
    RUNNING_REQUESTS_KEY,
    DeploymentHandleSource,
    DeploymentID,
    HandleMetricReport,
    ReplicaID,
)
from ray.serve._private.config import DeploymentConfig, ReplicaConfig
from ray.serve._private.deployment_info import DeploymentInfo
from ray.serve._private.metrics_utils import InMemoryMetricsStore
from ray.serve.config import AutoscalingConfig

QUEUED = "queued"


class Clock:
    """The simulated time in place of the module `time`."""

    now_s = 0.0

    def time(self) -> float:
        return self.now_s

    monotonic = time


class Service:
    """One deployment and its handle."""

    def __init__(self, job: dict[str, Any], settings: dict[str, Any]):
        bounds = {name: job[name] for name in ("min_replicas", "max_replicas")}
        self.config = AutoscalingConfig(**bounds, **settings)
        self.deployment = DeploymentID(name=job["name"], app_name="faro")
        self.state = DeploymentAutoscalingState(self.deployment)
        config = DeploymentConfig(autoscaling_config=self.config)
        replica = ReplicaConfig.create(lambda: None)
        self.state.register(DeploymentInfo(config, replica, 0, "faro"), job["min_replicas"])
        self.store = InMemoryMetricsStore()

    def report(self, now_s: float, ongoing: float | None) -> None:
        """The handle records its ongoing requests and sends those of the look-back period."""
        if ongoing is not None:
            self.store.add_metrics_point({QUEUED: ongoing}, now_s)
        self.store.prune_keys_and_compact_data(now_s - self.config.look_back_period_s)
        report = HandleMetricReport(
            deployment_id=self.deployment,
            handle_id="handle",
            actor_id="",
            handle_source=DeploymentHandleSource.UNKNOWN,
            queued_requests=list(self.store.data.get(QUEUED, [])),
            metrics={RUNNING_REQUESTS_KEY: {}},
            timestamp=now_s,
        )
        self.state.record_request_metrics_for_handle(report)

    def decide(self, running: int, target: int) -> int:
        replicas = [ReplicaID(str(n), self.deployment) for n in range(running)]
        self.state.update_running_replica_ids(replicas)
        return self.state.get_decision_num_replicas(target)


def main() -> None:
    logging.disable(logging.WARNING)
    answers, sys.stdout = sys.stdout, sys.stderr

    def answer(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    clock = Clock()
    autoscaling_state.time = autoscaling_policy.time = clock  # type: ignore[assignment]
    start = json.loads(sys.stdin.readline())
    services = [Service(job, start["settings"]) for job in start["jobs"]]
    answer({"versions": {"ray": ray.__version__}})
    for line in sys.stdin:
        tick = json.loads(line)
        clock.now_s = tick["now_s"]
        targets = []
        for n, service in enumerate(services):
            service.report(clock.now_s, tick["ongoing"][n])
            targets.append(service.decide(tick["running"][n], tick["target"][n]))
        answer({"target": targets})


if __name__ == "__main__":
    main()

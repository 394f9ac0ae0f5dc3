"""One job that runs on Ray Serve: where it answers, what its replicas report, more replicas."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from faro_ops.http import BUSY_RETRY_S, HttpClient
from faro_ops.operate.rayserve.deploy import APPLICATIONS, STATS_ROUTE, scale_path
from faro_ops.operate.rayserve.spec import ServeSpec
from faro_ops.operate.rayserve.statistics import add_row, empty_row

START_S = 180.0


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job whose replicas Ray Serve runs.

    ray, http : clients of Ray's dashboard and of Ray Serve.
    """

    ray: HttpClient
    http: HttpClient
    name: str
    spec: ServeSpec

    @property
    def url(self) -> str:
        """The address to which its requests are sent."""
        return self.http.address + self.spec.route

    @property
    def max_ongoing_requests(self) -> int:
        return self.spec.max_ongoing_requests

    def sums_since(self, second: int) -> dict[str, Any]:
        """The sum of what its replicas have measured since this Unix second (`empty_row`)."""
        total = empty_row()
        seconds = self.http.get(f"{STATS_ROUTE}?since={second}", BUSY_RETRY_S)[self.name]["seconds"]
        for row in seconds.values():
            add_row(total, row)
        return total

    @contextmanager
    def more_replicas(self, more: int) -> Iterator[tuple[int, float]]:
        """A context with `more` additional replicas.

        It yields (total replicas, wall seconds until the new ones served).
        """
        before = self._deployment()["target_num_replicas"]
        began = time.monotonic()
        self._scale(before + more)
        try:
            while self._serving() < before + more:
                if time.monotonic() - began > START_S:
                    name = self.spec.application
                    problem = f"no new replica of {name!r} serves after {START_S:g} s"
                    raise ValueError(f"{problem}; is there room for one?")
                time.sleep(0.1)
            yield before + more, time.monotonic() - began
        finally:
            self._scale(before)

    def _deployment(self) -> dict[str, Any]:
        applications = self.ray.get(APPLICATIONS, BUSY_RETRY_S)["applications"]
        return applications[self.spec.application]["deployments"][self.spec.deployment]

    def _serving(self) -> int:
        return sum(replica["state"] == "RUNNING" for replica in self._deployment()["replicas"])

    def _scale(self, replicas: int) -> None:
        self.ray.post(scale_path(self.spec), {"target_num_replicas": replicas})

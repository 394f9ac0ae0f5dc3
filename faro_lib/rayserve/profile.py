"""How long a model really takes, and a replica to start: measured on the replicas themselves."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from faro_lib.rayserve.deploy import APPLICATIONS, WINDOW_ROUTE
from faro_lib.rayserve.load import SERVED, Script, send
from faro_lib.rayserve.rest import PATIENCE_S, Rest
from faro_lib.rayserve.spec import Served
from faro_lib.rayserve.statistics import add_row, empty_row

START_S = 180.0
REPORTED_S = 2.5  # until a second has been reported


@dataclass(frozen=True, slots=True)
class Profile:
    """Wall seconds. network_overhead_s : what a request spends outside the replica, between sending and the answer, on average."""

    service_time_s: float
    service_scv: float
    network_overhead_s: float
    requests: int
    cold_start_s: float | None = None


def moments(row: dict[str, Any]) -> tuple[float, float]:
    """Mean and squared coefficient of variation of the service times that a row sums up.

    >>> moments({"done": 2, "service_s": 4.0, "service_s2": 10.0})
    (2.0, 0.25)
    """
    if not row["done"]:
        raise ValueError("no request was served, so there is nothing to profile")
    mean = row["service_s"] / row["done"]
    return mean, max(0.0, row["service_s2"] / row["done"] / mean**2 - 1)


def service(http: Rest, job: str, served: Served, requests: int = 200, rate_rps: float | None = None) -> Profile:
    """Send requests one at a time, or at a rate, and read what the replicas measured."""
    began = int(time.time()) + 1  # statistics are of whole seconds: none before shall be in it
    time.sleep(began - time.time())
    spacing_s = 1 / rate_rps if rate_rps else 0.0
    latencies: list[float] = []
    url = (http.address + served.route,)
    if spacing_s:
        due_s = np.arange(requests) * spacing_s
        script = Script(url, due_s, np.zeros(requests, int), np.full(requests, np.nan))
        sent = asyncio.run(send(script, time.time() + 0.1))
        latencies = sent.latency_s[sent.outcome == SERVED].tolist()
    else:
        for _ in range(requests):
            script = Script(url, np.zeros(1), np.zeros(1, int), np.full(1, np.nan))
            sent = asyncio.run(send(script, time.time()))
            latencies += sent.latency_s[sent.outcome == SERVED].tolist()
    time.sleep(REPORTED_S)
    seconds = http.get(f"{WINDOW_ROUTE}?since={began}", PATIENCE_S)[job]["seconds"]
    total = empty_row()
    for row in seconds.values():
        add_row(total, row)
    mean_s, scv = moments(total)
    network_overhead_s = float(np.mean(latencies)) - total["latency_s"] / total["done"]
    return Profile(mean_s, scv, network_overhead_s, total["done"])


def start_time(ray: Rest, served: Served, more: int = 1) -> float:
    """Wall seconds from asking for `more` replicas until they serve; afterwards there are as many as before."""
    path = f"/api/v1/applications/{served.application}/deployments/{served.deployment}/scale"

    def deployment() -> dict[str, Any]:
        return ray.get(APPLICATIONS, PATIENCE_S)["applications"][served.application]["deployments"][served.deployment]

    def running() -> int:
        return sum(one["state"] == "RUNNING" for one in deployment()["replicas"])

    before = deployment()["target_num_replicas"]
    began = time.monotonic()
    ray.post(path, {"target_num_replicas": before + more})
    try:
        while running() < before + more:
            if time.monotonic() - began > START_S:
                raise ValueError(
                    f"no new replica of {served.application!r} serves after {START_S:g} s; is there room for one?"
                )
            time.sleep(0.1)
        return time.monotonic() - began
    finally:
        ray.post(path, {"target_num_replicas": before})


def whole(ray: Rest, http: Rest, job: str, served: Served, requests: int = 200) -> Profile:
    """Service and start time of one job."""
    return replace(service(http, job, served, requests), cold_start_s=start_time(ray, served))


def write(path: str | Path, profiles: dict[str, Profile], scale: float = 1.0) -> None:
    """Put what was measured into the table of jobs, a .yaml; nothing else in it changes but its comments, which are lost.

    Parameters
    ----------
    scale : trace seconds in a wall second; the table is in trace time.
    """
    import yaml

    path = Path(path)
    if path.suffix not in (".yaml", ".yml"):
        raise ValueError(f"{path}: profiles are written into a .yaml table")
    table = yaml.safe_load(path.read_text())
    for row in table["jobs"] if isinstance(table, dict) else table:
        if found := profiles.get(str(row.get("job"))):
            row["service_time_s"] = round(found.service_time_s * scale, 5)
            row["service_scv"] = round(found.service_scv, 4)
            if found.cold_start_s is not None:
                row["cold_start_s"] = round(found.cold_start_s * scale, 1)
    partial = path.with_name(f".{path.name}")
    partial.write_text(yaml.safe_dump(table, sort_keys=False))
    partial.replace(path)

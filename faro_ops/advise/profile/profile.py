"""Measure service times and cold starts on running replicas."""

import asyncio
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml

from faro_lib.files import atomic_write
from faro_lib.workload.replicas import mapping_of
from faro_lib.workload.service import MODELS
from faro_ops.advise.calibrate import CALIBRATED, CalibratedService, Calibration
from faro_ops.advise.profile.load_generator import SERVED, Script, send

LEAST_ERROR = 0.001  # of a service time in the table; constant times have no sampling error
REPORTED_S = 2.5  # a request appears in the statistics within this many seconds of its end


class RunningService(Protocol):
    """A running service that can be measured."""

    @property
    def url(self) -> str: ...

    @property
    def max_ongoing_requests(self) -> int: ...

    def sums_since(self, second: int) -> dict[str, Any]:
        """The replicas' sums since this Unix second: done, latency_s, service_s, service_s2."""

    def more_replicas(self, more: int) -> AbstractContextManager[tuple[int, float]]:
        """A context with `more` additional replicas.

        It yields (total replicas, wall seconds until the new ones served).
        """


@dataclass(frozen=True, slots=True)
class Profile:
    """Measurements of one job, in wall seconds."""

    service_time_s: float  # mean
    service_scv: float
    network_overhead_s: float  # mean time of a request outside the replica
    requests: int
    cold_start_s: float | None = None  # None if it was not measured
    calibration: Calibration | None = None  # fitted replica model; None if none was fitted

    @property
    def service_time_error(self) -> float:
        """Relative standard error of the mean service time."""
        return float(np.sqrt(self.service_scv / self.requests))


def moments(row: dict[str, Any]) -> tuple[float, float]:
    """Mean and squared coefficient of variation of the service times in a row of statistics.

    >>> moments({"done": 2, "service_s": 4.0, "service_s2": 10.0})
    (2.0, 0.25)
    """
    if not row["done"]:
        raise ValueError("no request was served, so there is nothing to profile")
    mean = row["service_s"] / row["done"]
    return mean, max(0.0, row["service_s2"] / row["done"] / mean**2 - 1)


def profile_job(service: RunningService, requests: int = 200) -> Profile:
    """Measure the service time of one job, then its cold start.

    Each request is sent after the answer to the one before. Raises ValueError if none is served.
    """
    began = int(time.time()) + 1
    time.sleep(began - time.time())  # statistics are per second, so start when a second begins
    script = Script((service.url,), np.zeros(1), np.zeros(1, int), np.full(1, np.nan))
    answers = [asyncio.run(send(script, time.time())) for _ in range(requests)]
    times_s = [(one.first_s[0], one.latency_s[0]) for one in answers if one.outcome[0] == SERVED]
    time.sleep(REPORTED_S)
    total = service.sums_since(began)
    # Replicas count 4xx answers too, so `total` may have requests although no answer was 200.
    to_first_part_s, scv = moments(total if times_s else {"done": 0})
    # Mean seconds to the first and to the last part of an answer; replicas measure to the first.
    first_s, last_s = np.mean(times_s, axis=0)
    with service.more_replicas(1) as (_, cold_start_s):
        pass
    return Profile(
        service_time_s=to_first_part_s + float(last_s - first_s),
        service_scv=scv,
        network_overhead_s=float(first_s) - total["latency_s"] / total["done"],
        requests=total["done"],
        cold_start_s=cold_start_s,
    )


def write_profiles(path: str | Path, profiles: dict[str, Profile]) -> None:
    """Write the profiles, by job name, into the jobs' table `path`, a .yaml file.

    If a replica model was calibrated, it is written too, and its service time and scv replace those
    of the profile. Comments in the file are lost.
    """
    path = Path(path)
    table = yaml.safe_load(path.read_text())
    for row in table["jobs"] if isinstance(table, dict) else table:
        if profile := profiles.get(str(row.get("job"))):
            _write_profile(row, profile)
    with atomic_write(path) as partial:
        partial.write_text(yaml.safe_dump(table, sort_keys=False))


def _write_profile(row: dict[str, Any], profile: Profile) -> None:
    """Write a profile into its job's row of the table."""
    service: Profile | CalibratedService = profile
    error = profile.service_time_error
    if profile.calibration and profile.calibration.verdict == CALIBRATED:
        service, error = profile.calibration.service, profile.calibration.service_time_error
        replica = {
            name: float(f"{one:.4g}") if isinstance(one, float) else one
            for name, one in mapping_of(service.replica).items()
        }
        if replica["kind"] == "continuous":
            # The user's choices are not measured.
            chosen = ("slo_on", "per_token_weight")
            replica |= {key: row["replica"][key] for key in chosen if key in row["replica"]}
        row["replica"] = replica
    row.pop("service_std_s", None)
    row["service_time_s"] = round(service.service_time_s, 5)
    row["service_scv"] = round(service.service_scv, 4)
    row["service_time_error"] = max(LEAST_ERROR, round(error, 3))
    if row.get("model") in MODELS:
        del row["model"]  # its published service time would override the measured one
    if profile.cold_start_s is not None:
        row["cold_start_s"] = round(profile.cold_start_s, 1)

"""Sixteen services with known replicas, measured as `faro profile` would.

They run in the plain simulator of the tests. No code of `faro_lib.simulate` takes part, so that a
calibrator that simulates is not tested on its own output.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from math import log1p, sqrt

import numpy as np
import reference_simulator as reference

from faro_lib.workload.replicas import Batched, Concurrent, Continuous, Replica, mapping_of
from faro_ops.advise.calibrate import FIRST_TOKEN, LATENCY, PER_TOKEN, Calibration, Measurements
from faro_ops.advise.profile.load_profile import (
    FIRST_UTILISATION,
    climb,
    measurements_of,
    to_repeat,
)

ROUTER_S, ROUTER_CV = 0.0048, 0.12  # about that of the published system
COLUMNS = ((LATENCY, 0.5), (LATENCY, 0.9), (LATENCY, 0.99), (LATENCY, None))
TOKENS = ("prompt_tokens", "prompt_cv", "output_tokens", "output_cv", "max_tokens")


@dataclass(frozen=True)
class Known:
    """A service whose replica is known."""

    replica: Replica
    service_time_s: float = 1.0  # of the kinds serial and concurrent
    cv: float = 0.0  # of the service time
    requests: int = 1000  # of each rate

    def __str__(self) -> str:
        spread = f", cv={self.cv:g}" if self.cv else ""
        has_time = self.replica.kind in ("serial", "concurrent")
        own = f" of {self.service_time_s:g} s" if has_time else ""
        return f"{self.replica}{own}{spread}"

    @property
    def places(self) -> int:
        return max(10, self.replica.fewest_places)

    @property
    def capacity_rps(self) -> float:
        return self.replica.capacity_rps(self.service_time_s)

    @property
    def tokens(self) -> dict[str, float] | None:
        if not isinstance(self.replica, Continuous):
            return None
        return {name: getattr(self.replica, name) for name in TOKENS}

    def parameters(self) -> dict[str, float]:
        """The parameters that a calibration must find within 15 %."""
        if isinstance(self.replica, Concurrent):  # slowdown may be 0, which has no relative error
            full = 1 + self.replica.slowdown * (self.replica.at_once - 1)
            own = {"at_once": self.replica.at_once, "stretch": full}
        else:
            own = {
                name: value
                for name, value in mapping_of(self.replica).items()
                if name not in ("kind", *TOKENS)
            }
        times = (
            {"service_time_s": self.service_time_s}
            if self.replica.kind in ("serial", "concurrent")
            else {}
        )
        return {"capacity_rps": self.capacity_rps} | times | own


SERVICES = (
    Known(Replica(), 0.03),
    Known(Replica(), 0.1, cv=0.3),
    Known(Replica(), 0.18, cv=0.6),
    Known(Replica(), 0.4, cv=1.0),
    Known(Concurrent(2), 0.12, cv=0.3),
    Known(Concurrent(4, 0.2), 0.1, cv=0.3),
    Known(Concurrent(4, 0.6), 0.25, cv=0.5),
    Known(Concurrent(8, 0.1), 0.2, cv=0.2),
    Known(Batched(4, 0.02, 0.08, 0.01)),
    Known(Batched(8, 0.05, 0.1, 0.01)),
    Known(Batched(8, 0.0, 0.06, 0.03)),
    Known(Batched(16, 0.1, 0.2, 0.01), cv=0.1),
    Known(Continuous(0.02, 0.002, 0.0002, 8, 40.0, 100.0, 0.5, 0.5)),
    Known(Continuous(0.03, 0.001, 0.0003, 16, 20.0, 200.0, 0.8, 0.5)),
    Known(Continuous(0.015, 0.003, 0.0002, 4, 30.0, 150.0, 0.5, 0.3)),
    Known(Continuous(0.04, 0.0005, 0.0001, 8, 25.0, 400.0, 0.3, 0.8)),
)


def found(calibration: Calibration) -> dict[str, float]:
    """The posterior medians of the parameters, with the names that `Known.parameters` uses."""
    medians = {name: float(interval[1]) for name, interval in calibration.intervals.items()}
    if "slowdown" in medians:
        medians["stretch"] = 1 + medians["slowdown"] * (medians["at_once"] - 1)
    return medians


def lognormal(rng: np.random.Generator, mean: float, cv: float, n: int) -> np.ndarray:
    shape = sqrt(log1p(cv**2))
    return mean * np.exp(shape * rng.standard_normal(n) - shape**2 / 2)


def latencies(known: Known, rate_rps: float, replicas: int, seed: int) -> dict[str, np.ndarray]:
    """Quantity -> seconds of each request, inf if dropped, without the first tenth.

    There are n Poisson arrivals in n / rate.
    """
    quantities = {LATENCY: "end_to_end"}
    if known.tokens:
        quantities |= {FIRST_TOKEN: "first_token", PER_TOKEN: "per_token"}
    return {
        name: _simulated(known, rate_rps, replicas, seed, slo_on)
        for name, slo_on in quantities.items()
    }


def _simulated(known: Known, rate_rps: float, replicas: int, seed: int, slo_on: str) -> np.ndarray:
    rng, n, kind = np.random.default_rng(seed), known.requests, mapping_of(known.replica)
    mean_s = 1.0 if kind["kind"] in ("batched", "continuous") else known.service_time_s
    columns = [
        np.sort(rng.uniform(0, n / rate_rps, n)),
        lognormal(rng, ROUTER_S, ROUTER_CV, n),
        lognormal(rng, mean_s, known.cv, n),
        lognormal(rng, ROUTER_S, ROUTER_CV, n),
        np.ones(n),
    ]
    if tokens := known.tokens:
        for name in ("prompt", "output"):
            lengths = lognormal(rng, tokens[f"{name}_tokens"], tokens[f"{name}_cv"], n)
            columns.append(np.maximum(np.rint(lengths), 1).astype(int))
    if isinstance(known.replica, Batched):
        kind["batch_s"] = known.replica.durations_s
    requests = [reference.Request(*row) for row in zip(*(column.tolist() for column in columns))]
    kind = dataclasses.asdict(known.replica) | kind | {"slo_on": slo_on}
    clock = reference.Clock()
    service = reference.Service(clock, requests, range, kind, known.places)
    for _ in range(replicas):
        service.add_replica()
    clock.run(lambda: False)
    return np.array([request.latency_s for request in requests])[n // 10 :]


def profiled(known: Known, seed: int = 1) -> Measurements:
    """What `faro profile` measures: increasing rates on one replica, then two of them on two.

    The SLO is 1.5 times the p99 latency of the idle service, and the first rate follows from its
    mean latency.
    """
    idle = latencies(known, 0.02 * known.capacity_rps, 1, seed)[LATENCY]
    slo_s, rows = 1.5 * float(np.quantile(idle, 0.99)), []

    def offer(replicas: int):
        def at(rate_per_replica: float):
            rate_rps = replicas * rate_per_replica
            samples = latencies(known, rate_rps, replicas, seed + 1000 * (1 + len(rows)))
            rows.append((rate_rps, replicas, samples))
            return samples

        return at

    rates = climb(offer(1), FIRST_UTILISATION / idle.mean(), slo_s, 100.0)
    for rate in to_repeat(rates):
        offer(2)(rate)
    return measurements_of(rows)


def recorded(
    known: Known, columns: Sequence, utilisations: Sequence, seed: int = 1
) -> Measurements:
    """These columns of the latency at these (replicas, utilisations)."""
    rows = []
    for replicas, shares in utilisations:
        for share in shares:
            rate_rps = share * replicas * known.capacity_rps
            latency_s = latencies(known, rate_rps, replicas, seed + 1000 * (1 + len(rows)))[LATENCY]
            served = latency_s[np.isfinite(latency_s)]
            values = [
                served.mean() if level is None else np.quantile(served, level)
                for _, level in columns
            ]
            rows.append((rate_rps, replicas, len(latency_s), *values))
    rate, counts, requests, *values = np.array(rows).T
    return Measurements(rate, counts, requests, tuple(columns), np.stack(values, axis=1))

"""Prior distributions of the parameters of each kind of replica.

They are scaled by a typical latency at low load. The priors are wide. For example, a service time
may be 1/20 of the typical latency. Only the kind serial is limited to one request at a time. All
other kinds can serve at least two at once. Squared uniform draws favour small values of some
parameters that are 0 in many services, such as the slowdown of concurrent requests and the wait of
a batch.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from faro_lib.workload.replicas import SERIAL, Batched, Concurrent, Continuous, Replica

# What `tokens_of` knows of prompts and outputs: fields of `Continuous`.
OF_TOKENS = ("output_tokens", "prompt_tokens", "output_cv", "prompt_cv", "max_tokens")

SHORTEST, LONGEST = 0.05, 2.0  # bounds of the service time, relative to the typical latency
MOST_AT_ONCE, MOST_PER_BATCH, MOST_SEQUENCES = 32, 64, 256
SHORTEST_S = 1e-4  # shortest service time that `Job` accepts
MAX_CV = 1.5  # largest coefficient of variation of the service time


def tokens_of(replica: Replica) -> dict[str, float] | None:
    """Name -> value of OF_TOKENS, None if the replica generates no tokens.

    Calibration knows no quantiles, so their coefficient of variation stands for them.
    """
    if not isinstance(replica, Continuous):
        return None
    tokens = {name: getattr(replica, name) for name in OF_TOKENS}
    drawn = replica.lengths(np.random.default_rng(0), 10_000)
    for kind, lengths in zip(("prompt", "output"), drawn):
        if getattr(replica, f"{kind}_quantiles"):
            tokens[f"{kind}_cv"] = float(lengths.std() / lengths.mean())
    return tokens


@dataclass(frozen=True, slots=True)
class CalibratedService:
    """A service that the simulator can run, such as a draw of the posterior."""

    replica: Replica
    service_time_s: float  # mean service time of one request alone
    service_scv: float
    overhead_s: float = 0.0  # constant time of a request outside the replicas

    @property
    def job_fields(self) -> dict[str, Any]:
        """The fields of `Job` that describe the service."""
        times = {"service_time_s": self.service_time_s, "service_scv": self.service_scv}
        return {"replica": self.replica, "model": "calibrated"} | times

    @property
    def capacity_rps(self) -> float:
        """Largest rate that one replica can sustain."""
        return self.replica.capacity_rps(self.service_time_s)

    def parameters(self) -> dict[str, float]:
        """Name -> number: capacity_rps, the service's fields, and numeric fields of `replica`."""
        names = ("capacity_rps", "service_time_s", "service_scv", "overhead_s")
        of_replica = dataclasses.asdict(self.replica).items()
        numbers = {name: value for name, value in of_replica if isinstance(value, int | float)}
        return {name: getattr(self, name) for name in names} | numbers


@dataclass(frozen=True, slots=True)
class Prior:
    """Prior of a replica kind: `service` maps a standard normal point to a service."""

    kind: str
    scale_s: float  # typical latency: the smallest of the median latencies of all measured rows
    places: int  # max_ongoing_requests
    # Fields of `Continuous` that describe prompts and outputs, such as output_tokens.
    tokens: Mapping[str, Any]
    max_overhead_s: float
    # Probability that the overhead is not 0 but uniform up to `max_overhead_s`.
    overhead_probability: float = 1.0

    @property
    def dimensions(self) -> int:
        return PRIORS[self.kind][0] + (self.max_overhead_s > 0)

    def service(self, point: np.ndarray) -> CalibratedService:
        """The service at a point (dimensions,)."""
        u = ndtr(point)  # uniform in [0, 1]
        _, service_at = PRIORS[self.kind]
        replica, service_time_s, cv = service_at(u, self)
        overhead_s = self.max_overhead_s * max(0.0, 1 - (1 - u[-1]) / self.overhead_probability)
        return CalibratedService(replica, float(service_time_s), float(cv**2), float(overhead_s))

    def one_s(self, u: float) -> float:
        """Service time in seconds of one request alone.

        It is log-uniform from SHORTEST to LONGEST x `scale_s`, but at least SHORTEST_S.
        """
        return max(self.scale_s * _log_uniform(u, SHORTEST, LONGEST), SHORTEST_S)

    def at_once(self, u: float, most: int) -> int:
        """A log-uniform whole number from 2 to the smaller of `most` and max_ongoing_requests."""
        most = max(2, min(most, self.places))
        return min(int(_log_uniform(u, 2, most + 1)), most)


def _log_uniform(u: float, low: float, high: float) -> float:
    return float(low * (high / low) ** u)


Drawn = tuple[Replica, float, float]  # (replica, mean service time, its coefficient of variation)


def _serial(u: np.ndarray, prior: Prior) -> Drawn:
    return SERIAL, prior.one_s(u[0]), MAX_CV * u[1]


def _concurrent(u: np.ndarray, prior: Prior) -> Drawn:
    replica = Concurrent(prior.at_once(u[2], MOST_AT_ONCE), float(u[3] ** 2))
    return replica, prior.one_s(u[0]), MAX_CV * u[1]


def _batched(u: np.ndarray, prior: Prior) -> Drawn:
    # First draw the two times that measurements determine best: alone_s, the latency of a lone
    # request, and full_s, the duration of a full batch. Here alone_s = wait_s + one_s, where one_s
    # is the duration of a batch of one. Because full_s / most <= one_s <= full_s, wait_s is between
    # `shortest` and `longest`.
    most = prior.at_once(u[4], MOST_PER_BATCH)
    alone_s = prior.one_s(u[0])
    full_s = alone_s * _log_uniform(u[2], SHORTEST, most)
    shortest = max(alone_s - full_s, 0.0)
    longest = alone_s - full_s / most
    wait_s = shortest + (longest - shortest) * float(u[3] ** 2)
    one_s = max(alone_s - wait_s, SHORTEST_S)
    per_request_s = max(full_s - one_s, 0.0) / (most - 1)
    per_batch_s = max(one_s - per_request_s, 0.0)
    return Batched(most, wait_s, per_batch_s, per_request_s), one_s, MAX_CV / 3 * u[1] ** 2


def _continuous(u: np.ndarray, prior: Prior) -> Drawn:
    iteration_s = prior.one_s(u[0]) / prior.tokens["output_tokens"]
    share = float(u[1])  # the part of an iteration's time that grows with the running requests
    alpha_s = max(iteration_s * (1 - share), 2e-6)
    beta_s = iteration_s * share
    gamma_s = prior.scale_s * _log_uniform(u[2], 1e-4, 1.0) / prior.tokens["prompt_tokens"]
    sequences = prior.at_once(u[3], MOST_SEQUENCES)
    replica = Continuous(alpha_s, beta_s, gamma_s, sequences, **prior.tokens)
    return replica, iteration_s * replica.output_tokens + gamma_s * replica.prompt_tokens, 0.0


# Kind of replica -> (dimensions, function of a point in the unit cube).
PRIORS: dict[str, tuple[int, Callable[[np.ndarray, Prior], Drawn]]] = {
    "serial": (2, _serial),
    "concurrent": (4, _concurrent),
    "batched": (5, _batched),
    "continuous": (4, _continuous),
}

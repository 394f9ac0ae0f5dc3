"""Kinds of replica: how a replica serves the requests that it holds.

`max_in_service` is the largest number of requests that a replica serves at once. `capacity_rps` is the largest arrival
rate that a replica can sustain, in requests/s. A replica with a permanent queue completes requests at this rate.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from faro_lib.errors import nearest

# Requests that a replica of a live service queues or serves at once, unless its job says otherwise.
MAX_ONGOING_REQUESTS = 10
OF_TOKENS = ("output_tokens", "prompt_tokens", "output_cv", "prompt_cv", "max_tokens")
SLO_ON = (
    "first_token",
    "per_token",
    "end_to_end",
)  # latencies that the SLO of a token-generating service can limit


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica that serves one request at a time, first in first out (kind `serial`); base class of other kinds."""

    kind: ClassVar[str] = "serial"

    @property
    def max_in_service(self) -> int:
        return 1

    @property
    def fewest_places(self) -> int:
        """Smallest default limit on the requests in a replica. It includes waiting requests unless `kind` is serial."""
        return 1 if self.kind == "serial" else 2 * self.max_in_service

    def __str__(self) -> str:
        values = ", ".join(
            f"{name}={value}" for name, value in mapping_of(self).items() if name != "kind"
        )
        return f"{self.kind}({values})" if values else self.kind

    def capacity_rps(self, service_time_s: float) -> float:
        """Largest sustainable requests/s; `service_time_s` is the mean duration of a request that is served alone."""
        return 1 / service_time_s

    def _check(self, field: str, accepted: str, holds: bool) -> None:
        if not holds:
            raise ValueError(
                f"replica of kind {self.kind}: {field}={getattr(self, field)!r} must be {accepted}"
            )

    def _check_numbers(self, *fields: str) -> None:
        for field in fields:
            self._check(field, "a finite number >= 0", 0 <= getattr(self, field) < math.inf)

    def _check_counts(self, *fields: str) -> None:
        for field in fields:
            value = getattr(self, field)
            self._check(
                field,
                "a whole number from 1 to 10000",
                1 <= value <= 10_000 and value == int(value),
            )
            object.__setattr__(self, field, int(value))


@dataclass(frozen=True, slots=True)
class Concurrent(Replica):
    """A replica that serves up to `at_once` requests at the same time. Other requests wait, first in first out.

    If n requests are in service, each has the speed 1 / (1 + slowdown (n - 1)). Service times are given for speed 1.
    A slowdown of 0 means independent servers, and a slowdown of 1 means processor sharing.
    """

    kind: ClassVar[str] = "concurrent"
    at_once: int
    slowdown: float = 0.0

    def __post_init__(self):
        self._check_counts("at_once")
        self._check_numbers("slowdown")

    @property
    def max_in_service(self) -> int:
        return self.at_once

    def capacity_rps(self, service_time_s: float) -> float:
        """Largest sustainable requests/s: k / (S (1 + slowdown (k - 1))), with k = at_once and S = service_time_s."""
        return self.at_once / (service_time_s * (1 + self.slowdown * (self.at_once - 1)))


@dataclass(frozen=True, slots=True)
class Batched(Replica):
    """A replica that serves one batch of up to `max_batch` requests at a time, first in first out.

    A batch of b requests takes s(b) = base_s + per_request_s b seconds on average, or `batch_s[b - 1]` if given. Batch
    times are lognormal with the job's `service_scv`. The requests of a batch end together. A free replica starts a full
    batch at once. It starts a smaller batch after it has been free and a request has been waiting for `wait_s` seconds.
    """

    kind: ClassVar[str] = "batched"
    max_batch: int
    wait_s: float = 0.0
    base_s: float = 0.0
    per_request_s: float = 0.0
    batch_s: tuple[float, ...] = ()  # s(1), ..., s(max_batch), instead of base_s and per_request_s

    def __post_init__(self):
        self._check_counts("max_batch")
        self._check_numbers("wait_s", "base_s", "per_request_s")
        object.__setattr__(self, "batch_s", tuple(float(value) for value in self.batch_s))
        fits = not self.batch_s or (
            len(self.batch_s) == self.max_batch and self.base_s == self.per_request_s == 0
        )
        self._check(
            "batch_s",
            "one time for each size up to max_batch, without base_s and per_request_s",
            fits,
        )
        positive = all(1e-6 <= time_s < math.inf for time_s in self.durations_s)
        self._check(
            "batch_s" if self.batch_s else "base_s",
            "such that a batch takes at least 1e-6 s",
            positive,
        )

    @property
    def max_in_service(self) -> int:
        return self.max_batch

    @property
    def durations_s(self) -> tuple[float, ...]:
        """Mean seconds s(1), ..., s(max_batch) that batches of 1, ..., max_batch requests take."""
        return self.batch_s or tuple(
            self.base_s + self.per_request_s * b for b in range(1, self.max_batch + 1)
        )

    def capacity_rps(self, service_time_s: float) -> float:
        """Largest sustainable requests/s: max_batch divided by the mean duration of a full batch."""
        return self.max_batch / self.durations_s[-1]


@dataclass(frozen=True, slots=True)
class Continuous(Replica):
    """A replica that generates tokens, with continuous batching; a request is one sequence.

    An iteration first admits waiting sequences, first in first out, with p prompt tokens in total. It then gives one
    output token to each of the n sequences in service. Its duration is alpha_s + beta_s n + gamma_s p. Admission stops
    before n exceeds max_sequences or p exceeds max_tokens, but an empty replica always admits the first sequence. The
    lengths of prompts and outputs are lognormal, rounded, and at least 1.
    """

    kind: ClassVar[str] = "continuous"
    alpha_s: float
    beta_s: float
    gamma_s: float
    max_sequences: int
    output_tokens: float  # mean number per request
    prompt_tokens: float  # mean number per request
    output_cv: float = 0.0  # coefficient of variation of the number of output tokens
    prompt_cv: float = 0.0
    max_tokens: int = 2048
    slo_on: str = "end_to_end"  # one of SLO_ON

    def __post_init__(self):
        self._check_numbers("beta_s", "gamma_s", "output_cv", "prompt_cv")
        self._check("alpha_s", "a finite number > 1e-06", 1e-6 < self.alpha_s < math.inf)
        self._check_counts("max_sequences")
        for field in ("output_tokens", "prompt_tokens"):
            self._check(field, "a number from 1 to 1e6", 1 <= getattr(self, field) <= 1e6)
        self._check("max_tokens", "a number >= 1", self.max_tokens >= 1)
        self._check("slo_on", f"one of {', '.join(SLO_ON)}", self.slo_on in SLO_ON)

    @property
    def of_tokens(self) -> dict[str, float]:
        """Name -> value of the fields OF_TOKENS, which describe prompts and outputs."""
        return {name: getattr(self, name) for name in OF_TOKENS}

    @property
    def max_in_service(self) -> int:
        return self.max_sequences

    def lengths(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """(prompt tokens, output tokens) of n requests, whole numbers of shape (2, n)."""
        lengths = rng.standard_normal((2, n))
        moments = (self.prompt_tokens, self.prompt_cv), (self.output_tokens, self.output_cv)
        for row, (mean, cv) in zip(lengths, moments):
            variance = np.log1p(cv**2)
            row[:] = mean * np.exp(np.sqrt(variance) * row - variance / 2)
        return np.maximum(np.rint(lengths), 1.0)

    def capacity_rps(self, service_time_s: float) -> float:
        """Largest sustainable requests/s: 1 / (o (alpha_s + beta_s n) / n + gamma_s p).

        o and p are the mean numbers of output and prompt tokens. An iteration admits at most m = max(1, max_tokens / p)
        sequences. Each sequence stays for o iterations. Little's law thus limits the sequences in service to o m. n is
        the smaller of o m and max_sequences. The n sequences in service share the time of an iteration.
        """
        o, p = self.output_tokens, self.prompt_tokens
        n = min(self.max_sequences, o * max(1.0, self.max_tokens / p))
        return 1 / (o * (self.alpha_s + self.beta_s * n) / n + self.gamma_s * p)


SERIAL = Replica()
KINDS: dict[str, type[Replica]] = {
    kind.kind: kind for kind in (Replica, Concurrent, Batched, Continuous)
}


def replica_of(mapping: Mapping[str, Any] | str) -> Replica:
    """Make a replica from a mapping with its kind and parameters, or from that mapping as JSON; ValueError if invalid.

    >>> replica_of({"kind": "batched", "max_batch": 8, "base_s": 0.02, "per_request_s": 0.001}).max_in_service
    8
    """
    if isinstance(mapping, str):
        try:
            mapping = json.loads(mapping)
        except json.JSONDecodeError:
            raise ValueError(
                f'replica={mapping!r} is not JSON, such as {{"kind": "serial"}}'
            ) from None
    if not isinstance(mapping, Mapping) or "kind" not in mapping:
        raise ValueError(
            f"replica={mapping!r} must be a mapping with a kind; accepted kinds: {', '.join(KINDS)}"
        )
    values = dict(mapping)
    kind = KINDS.get(str(values.pop("kind")))
    if kind is None:
        raise ValueError(
            f"replica: kind={mapping['kind']!r} is unknown; accepted: {', '.join(KINDS)}"
        )
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            raise ValueError(
                f"replica of kind {kind.kind}: unknown field {name!r}; {nearest(str(name), fields)}"
            )
    missing = [
        n for n, field in fields.items() if field.default is dataclasses.MISSING and n not in values
    ]
    if missing:
        raise ValueError(f"replica of kind {kind.kind}: {', '.join(missing)} is missing")
    try:
        return kind(**values)
    except TypeError:
        raise ValueError(
            f"replica of kind {kind.kind}: {values} has a value that is not a number"
        ) from None


def mapping_of(replica: Replica) -> dict[str, Any]:
    """The mapping from which `replica_of` makes this replica, without fields that have their default."""
    names = [
        field.name
        for field in dataclasses.fields(replica)
        if getattr(replica, field.name) != field.default
    ]
    values = {name: getattr(replica, name) for name in names}
    return {"kind": replica.kind} | {
        name: list(v) if isinstance(v, tuple) else v for name, v in values.items()
    }

"""Kinds of replica: how a replica serves the requests that it holds.

`max_in_service` is the largest number of requests that a replica serves at once. `capacity_rps` is
the largest arrival rate that a replica can sustain, in requests/s. A replica with a permanent queue
completes requests at this rate.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from faro_lib.errors import nearest
from faro_lib.files import read_yaml

# Requests that a replica of a live service queues or serves at once, unless its job says otherwise.
MAX_ONGOING_REQUESTS = 10
OF_GPU = ("gpu", "model", "tensor_parallel")  # fields that name what `measured_gpus` has
# Shares at which the lengths of a log are kept: dense at the end, which decides a p99.
SHARES = (*np.arange(0.0, 1.0, 0.02).round(2).tolist(), 0.99, 0.995, 0.999, 1.0)
# Latencies that the SLO of a token-generating service can limit.
SLO_ON = ("first_token", "per_token", "end_to_end", "both")


@dataclass(frozen=True, slots=True)
class Replica:
    """Kind `serial`: one request at a time, first in first out. The base class of other kinds."""

    kind: ClassVar[str] = "serial"

    @property
    def max_in_service(self) -> int:
        return 1

    @property
    def fewest_places(self) -> int:
        """Smallest default limit on the requests in a replica, with waiting ones unless serial."""
        return 1 if self.kind == "serial" else 2 * self.max_in_service

    def __str__(self) -> str:
        values = mapping_of(self)
        kind = values.pop("kind")
        if not values:
            return kind
        return f"{kind}({', '.join(f'{name}={value}' for name, value in values.items())})"

    def capacity_rps(self, service_time_s: float) -> float:
        """Largest sustainable requests/s.

        `service_time_s` is the mean duration of a request that is served alone.
        """
        return 1 / service_time_s

    def _check(self, field: str, holds: bool, accepted: str) -> None:
        if not holds:
            value = getattr(self, field)
            raise ValueError(f"replica of kind {self.kind}: {field}={value!r} must be {accepted}")

    def _check_numbers(self, *fields: str) -> None:
        for field in fields:
            self._check(field, 0 <= getattr(self, field) < math.inf, "a finite number >= 0")

    def _check_count(self, field: str) -> None:
        value = getattr(self, field)
        whole = 1 <= value <= 10_000 and value == int(value)
        self._check(field, whole, "a whole number from 1 to 10000")
        object.__setattr__(self, field, int(value))


@dataclass(frozen=True, slots=True)
class Concurrent(Replica):
    """A replica that serves up to `at_once` requests at the same time.

    Other requests wait, first in first out. If n requests are in service, each has the speed 1 / (1
    + slowdown (n - 1)). Service times are given for speed 1. A slowdown of 0 means independent
    servers, and a slowdown of 1 means processor sharing.
    """

    kind: ClassVar[str] = "concurrent"
    at_once: int
    slowdown: float = 0.0

    def __post_init__(self):
        self._check_count("at_once")
        self._check_numbers("slowdown")

    @property
    def max_in_service(self) -> int:
        return self.at_once

    def capacity_rps(self, service_time_s: float) -> float:
        """Largest sustainable requests/s: k / (S (1 + slowdown (k - 1))).

        k is `at_once` and S is `service_time_s`.
        """
        return self.at_once / (service_time_s * (1 + self.slowdown * (self.at_once - 1)))


@dataclass(frozen=True, slots=True)
class Batched(Replica):
    """A replica that serves one batch of up to `max_batch` requests at a time, first in first out.

    A batch of b requests takes s(b) seconds on average: entry b of `batch_s` if given, otherwise
    base_s + per_request_s b. Batch times are lognormal with the job's `service_scv`. The requests
    of a batch end together. A free replica starts a full batch at once. It starts a smaller batch
    after it has been free and a request has been waiting for `wait_s` seconds.
    """

    kind: ClassVar[str] = "batched"
    max_batch: int
    wait_s: float = 0.0
    base_s: float = 0.0
    per_request_s: float = 0.0
    batch_s: tuple[float, ...] = ()  # s(1), ..., s(max_batch), instead of base_s and per_request_s

    def __post_init__(self):
        self._check_count("max_batch")
        self._check_numbers("wait_s", "base_s", "per_request_s")
        object.__setattr__(self, "batch_s", tuple(float(value) for value in self.batch_s))
        if self.batch_s:
            fits = len(self.batch_s) == self.max_batch and self.base_s == self.per_request_s == 0
            accepted = "one time for each size up to max_batch, without base_s and per_request_s"
            self._check("batch_s", fits, accepted)
        positive = all(1e-6 <= time_s < math.inf for time_s in self.durations_s)
        field = "batch_s" if self.batch_s else "base_s"
        self._check(field, positive, "such that a batch takes at least 1e-6 s")

    @property
    def max_in_service(self) -> int:
        return self.max_batch

    @property
    def durations_s(self) -> tuple[float, ...]:
        """Mean seconds s(1), ..., s(max_batch) that batches of 1, ..., max_batch requests take."""
        sizes = range(1, self.max_batch + 1)
        return self.batch_s or tuple(self.base_s + self.per_request_s * size for size in sizes)

    def capacity_rps(self, service_time_s: float) -> float:
        """Largest sustainable requests/s: max_batch / the mean duration of a full batch."""
        return self.max_batch / self.durations_s[-1]


@dataclass(frozen=True, slots=True)
class Continuous(Replica):
    """A replica that generates tokens, with continuous batching; a request is one sequence.

    An iteration first admits waiting sequences, first in first out, with p prompt tokens in total.
    It then gives one output token to each of the n sequences in service. Its duration is alpha_s +
    beta_s n + gamma_s p. Admission stops before n exceeds max_sequences or p exceeds max_tokens,
    but an empty replica always admits the first sequence. The lengths of prompts and outputs are
    lognormal, or have quantiles, which are scaled to the mean; rounded, and at least 1.

    With `slo_on: both`, a request has two limits: slo_s to the first token, and
    slo_s / per_token_weight per later token. Its latency is the larger of the time to the first
    token and of per_token_weight times the time per token. So it meets both limits if its latency
    is at most slo_s, and a quantile of latencies is the share of requests that meet both.

    Real GPUs are not linear: a knee (x, extra_s) makes each sequence (`beta_knees`) or prompt token
    (`gamma_knees`) after the first x take extra_s more.
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
    beta_knees: tuple[tuple[float, float], ...] = ()
    gamma_knees: tuple[tuple[float, float], ...] = ()
    cache_tokens: float = math.inf  # size of the KV cache, which limits max_sequences
    per_token_weight: float = 0.0  # of `slo_on: both`
    # Pairs (share of the requests, their most tokens), linear between them; () = lognormal.
    output_quantiles: tuple[tuple[float, float], ...] = ()
    prompt_quantiles: tuple[tuple[float, float], ...] = ()

    def __post_init__(self):
        self._check_numbers("beta_s", "gamma_s", "output_cv", "prompt_cv")
        self._check("alpha_s", 1e-6 < self.alpha_s < math.inf, "a finite number > 1e-06")
        self._check_count("max_sequences")
        for field in ("output_tokens", "prompt_tokens"):
            self._check(field, 1 <= getattr(self, field) <= 1e6, "a number from 1 to 1e6")
        self._check("max_tokens", self.max_tokens >= 1, "a number >= 1")
        self._check("slo_on", self.slo_on in SLO_ON, f"one of {', '.join(SLO_ON)}")
        weighs = 0 < self.per_token_weight < math.inf
        accepted = "a finite number > 0 with slo_on: both, and absent otherwise"
        fits = weighs if self.slo_on == "both" else self.per_token_weight == 0
        self._check("per_token_weight", fits, accepted)
        self._check_knees("beta_knees", self.beta_s)
        self._check_knees("gamma_knees", self.gamma_s)
        self._check_quantiles("output_quantiles", self.output_cv)
        self._check_quantiles("prompt_quantiles", self.prompt_cv)
        cached = self.cache_tokens / (self.prompt_tokens + self.output_tokens)
        self._check("cache_tokens", cached >= 1, "enough for a prompt and an output of mean length")
        object.__setattr__(self, "max_sequences", int(min(self.max_sequences, cached)))

    def _columns(self, field: str, accepted: str) -> np.ndarray:
        """The field, whose pairs become floats, as (2, pairs)."""
        pairs = tuple(tuple(map(float, pair)) for pair in getattr(self, field))
        self._check(field, all(len(pair) == 2 for pair in pairs), accepted)
        object.__setattr__(self, field, pairs)
        return np.array(pairs).reshape(-1, 2).T

    def _check_knees(self, field: str, slope_s: float) -> None:
        accepted = "pairs (x, extra seconds) with rising x > 0, after which no time falls"
        at, extras_s = self._columns(field, accepted)
        rising = (np.diff(at, prepend=0.0) > 0).all()
        grows = (slope_s + np.cumsum(extras_s) > -1e-9).all()
        self._check(field, bool(rising and grows), accepted)

    def _check_quantiles(self, field: str, cv: float) -> None:
        accepted = "pairs (share, tokens from 1 to 1e6) that rise from share 0 to 1, without a cv"
        share, tokens = self._columns(field, accepted)
        grows = (np.diff(tokens, prepend=1.0, append=1e6) >= 0).all()
        rises = (np.diff(share) > 0).all() and {0.0, 1.0} <= set(share.tolist())
        self._check(field, not share.size or bool(rises and grows and cv == 0), accepted)

    def decode_s(self, sequences: float) -> float:
        """Seconds of an iteration with this many sequences and without new prompts."""
        return self.alpha_s + self.beta_s * sequences + _beyond(self.beta_knees, sequences)

    def prefill_s(self, prompt_tokens: float) -> float:
        """Seconds that new prompts with this many tokens in total add to an iteration."""
        return self.gamma_s * prompt_tokens + _beyond(self.gamma_knees, prompt_tokens)

    @property
    def durations_s(self) -> tuple[float, ...]:
        """`decode_s` of 1, ..., max_sequences sequences."""
        return tuple(self.decode_s(n) for n in range(1, self.max_sequences + 1))

    @property
    def max_in_service(self) -> int:
        return self.max_sequences

    def lengths(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """(prompt tokens, output tokens) of n requests, whole numbers of shape (2, n)."""
        lengths = rng.standard_normal((2, n))
        prompts = self.prompt_tokens, self.prompt_cv, self.prompt_quantiles
        outputs = self.output_tokens, self.output_cv, self.output_quantiles
        for row, (mean, cv, quantiles) in zip(lengths, (prompts, outputs)):
            variance = np.log1p(cv**2)
            row[:] = mean * np.exp(np.sqrt(variance) * row - variance / 2)
            if quantiles:
                share, tokens = np.transpose(quantiles)
                unscaled = np.interp(rng.random(n), share, tokens)
                row[:] = unscaled * (mean / np.trapezoid(tokens, share))
        return np.maximum(np.rint(lengths), 1.0)

    def capacity_rps(self, service_time_s: float) -> float:
        """Largest sustainable requests/s: 1 / (o decode_s(n) / n + prefill_s(p a) / a).

        o and p are the mean numbers of output and prompt tokens. An iteration admits at most
        m = max(1, max_tokens / p) sequences. Each sequence stays for o iterations. Little's law
        thus limits the sequences in service to o m. n is the smaller of o m and max_sequences. The
        n sequences in service share the time of an iteration, and the a = max(1, n / o) prompts
        that begin together share that of their prompts.
        """
        o, p = self.output_tokens, self.prompt_tokens
        n = min(self.max_sequences, o * max(1.0, self.max_tokens / p))
        together = max(1.0, n / o)
        shared_s = _beyond(self.gamma_knees, p * together) / together
        return 1 / (o * self.decode_s(n) / n + self.gamma_s * p + shared_s)


def _beyond(knees: tuple[tuple[float, float], ...], x: float) -> float:
    """Seconds that the knees below x add."""
    return sum(extra_s * (x - at) for at, extra_s in knees if x > at)


@dataclass(frozen=True, slots=True)
class Disaggregated(Continuous):
    """Replicas that generate tokens, with prefill and decode apart; all have the same GPUs.

    A prefill replica computes the prompt of a request, which gives the first token. Prompts that
    begin together have at most `prefill_max_tokens` tokens; by default, one begins at a time. The
    link then hands the KV cache over to a decode replica, which gives the later tokens. The
    hand-over counts as time of these. It slows no replica down, and prefill never waits for decode.
    A single replica does both, as kind `continuous`, and so do all of a number without prefill
    replicas. The other fields are those of a replica that does both.
    """

    kind: ClassVar[str] = "disaggregated"
    link_gbps: float = dataclasses.field(kw_only=True)  # bandwidth in 1e9 bits per second
    kv_bytes_per_token: float = dataclasses.field(kw_only=True)  # of the KV cache
    prefill_max_tokens: int = 1
    # Prefill replicas of 1, 2, 3, ... replicas; more replicas have the share of the last number. So
    # no replica changes its role if their number changes.
    prefill: tuple[int, ...] = ()

    def __post_init__(self):
        Continuous.__post_init__(self)
        for name in ("link_gbps", "kv_bytes_per_token"):
            self._check(name, 0 < getattr(self, name) < math.inf, "a finite number > 0")
        self._check("prefill_max_tokens", self.prefill_max_tokens >= 1, "a number >= 1")
        object.__setattr__(self, "prefill", tuple(self.prefill))
        more = np.diff(self.prefill, prepend=0)
        fits = bool(np.isin(more, (0, 1)).all()) and not any(self.prefill[:1])
        accepted = "of 1, 2, 3, ... replicas: from 0 on, each the last one or one more"
        self._check("prefill", fits, f"the prefill replicas {accepted}")

    def prefill_of(self, replicas: int) -> int:
        """How many of so many replicas do prefill; the others do decode. 0: all do both."""
        if not self.prefill:
            missing = "prefill, the prefill replicas of 1, 2, 3, ... replicas, is missing"
            raise ValueError(f"replica of kind {self.kind}: {missing}")
        if replicas <= len(self.prefill):
            return int(self.prefill[max(replicas, 1) - 1])
        return round(replicas * self.prefill[-1] / len(self.prefill))

    def handover_s(self, prompt_tokens: np.ndarray) -> np.ndarray:
        """Seconds in which the link hands over the KV caches of prompts, of the same shape."""
        return prompt_tokens * self.kv_bytes_per_token / (self.link_gbps * 1e9 / 8)

    @property
    def does_both(self) -> Continuous:
        """A replica without a role."""
        return Continuous(
            **{one.name: getattr(self, one.name) for one in dataclasses.fields(Continuous)}
        )

    @property
    def prefill_replica(self) -> Continuous:
        """A prefill replica, which gives requests one token."""
        return dataclasses.replace(
            self.does_both,
            output_tokens=1.0,
            output_cv=0.0,
            output_quantiles=(),
            max_tokens=self.prefill_max_tokens,
            slo_on="first_token",
            per_token_weight=0.0,
        )

    @property
    def decode_replica(self) -> Continuous:
        """A decode replica, if requests come to it with prompts that take no time."""
        return dataclasses.replace(self.does_both, slo_on="end_to_end", per_token_weight=0.0)


SERIAL = Replica()
KINDS: dict[str, type[Replica]] = {
    kind.kind: kind for kind in (Replica, Concurrent, Batched, Continuous, Disaggregated)
}


def replica_of(mapping: Mapping[str, Any] | str) -> Replica:
    """A replica from a mapping with its kind and parameters, or from that mapping as JSON.

    Raises ValueError if it is invalid.

    >>> replica_of({"kind": "concurrent", "at_once": 8, "slowdown": 0.1}).max_in_service
    8
    """
    if isinstance(mapping, str):
        try:
            mapping = json.loads(mapping)
        except json.JSONDecodeError:
            raise ValueError(
                f'replica={mapping!r} is not JSON, such as {{"kind": "serial"}}'
            ) from None
    if isinstance(mapping, Mapping) and "gpu" in mapping:
        mapping = _of_gpu(mapping)
    if not isinstance(mapping, Mapping) or "kind" not in mapping:
        accepted = f"accepted kinds: {', '.join(KINDS)}"
        raise ValueError(f"replica={mapping!r} must be a mapping with a kind; {accepted}")
    values = dict(mapping)
    kind = KINDS.get(str(values.pop("kind")))
    if kind is None:
        accepted = ", ".join(KINDS)
        raise ValueError(f"replica: kind={mapping['kind']!r} is unknown; accepted: {accepted}")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            raise ValueError(
                f"replica of kind {kind.kind}: unknown field {name!r}; {nearest(str(name), fields)}"
            )
    required = [n for n, field in fields.items() if field.default is dataclasses.MISSING]
    missing = [name for name in required if name not in values]
    if missing:
        raise ValueError(f"replica of kind {kind.kind}: {', '.join(missing)} is missing")
    try:
        return kind(**values)
    except TypeError:
        raise ValueError(
            f"replica of kind {kind.kind}: {values} has a value that is not a number"
        ) from None


def measured_gpus() -> dict[tuple[str, ...], dict[str, Any]]:
    """GPU, model and tensor parallelism as text -> what `faro_ops` has fitted for them."""
    entries = read_yaml(Path(__file__).with_name("gpus.yaml"))
    return {tuple(str(entry[name]) for name in OF_GPU): entry for entry in entries}


def _of_gpu(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with what was measured for its GPU, model and tensor parallelism."""
    values, measured = dict(mapping), measured_gpus()
    named = tuple(str(values.pop(name, "")) for name in OF_GPU)
    for n, name in enumerate(OF_GPU):
        at_hand = sorted({one[n] for one in measured if one[:n] == named[:n]})
        if named[n] not in at_hand:
            accepted = f"at hand: {', '.join(at_hand)}"
            raise ValueError(f"replica: {name}={named[n]!r} is not measured; {accepted}")
    return measured[named]["replica"] | values


def mapping_of(replica: Replica) -> dict[str, Any]:
    """The mapping from which `replica_of` makes this replica, without fields at their default."""
    mapping: dict[str, Any] = {"kind": replica.kind}
    for field in dataclasses.fields(replica):
        value = getattr(replica, field.name)
        if value != field.default:
            mapping[field.name] = list(value) if isinstance(value, tuple) else value
    return mapping

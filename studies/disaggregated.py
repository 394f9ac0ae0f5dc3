"""Prefill and decode apart, or on one pool: the latencies of the same requests.

A prefill replica computes the prompt of a request, which gives its first token. The KV cache is
handed over to a decode replica, which gives the later tokens. A prefill replica never waits for a
decode replica, so each stage is a run of the simulator's kind `continuous`: prefill with outputs of
one token, decode with prompts that take no time.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from faro_lib.simulate import Draws
from faro_lib.simulate.replicas import SHORTEST_S
from faro_lib.simulate.serving import constant_latencies
from faro_lib.workload import Job
from faro_lib.workload.replicas import Continuous

# Keys and values of a token in 16 bits: 80 layers, 8 heads of 128 (Llama 2 70B, arXiv 2307.09288).
KV_BYTES = 2 * 80 * 8 * 128 * 2
DISPATCH = "least-outstanding"  # of every pool: to the replica with the fewest requests


class Requests(NamedTuple):
    """Requests in the order of their arrival; arrays have shape (requests,)."""

    arrival_s: np.ndarray
    prompt_tokens: np.ndarray  # whole numbers >= 1, as the output tokens
    output_tokens: np.ndarray


@dataclass(frozen=True, slots=True)
class Disaggregated:
    """The kind `disaggregated`: what a prefill replica, a decode replica and the link are.

    `replica` is one that does both, with the SLO on both the first and the later tokens. Its
    `max_sequences` and `cache_tokens` limit the sequences of a decode replica. The link hands the
    caches over at full speed, however many there are, and does not slow the replicas down.
    """

    replica: Continuous
    link_bytes_per_s: float
    # Prompts that begin together have at most this number of tokens; 1: one prompt at a time.
    prefill_max_tokens: int = 1
    bytes_per_token: float = KV_BYTES

    def __post_init__(self) -> None:
        if self.replica.slo_on != "both":
            raise ValueError(f"slo_on={self.replica.slo_on!r} of the replica must be 'both'")
        if not self.link_bytes_per_s > 0:
            raise ValueError(f"link_bytes_per_s={self.link_bytes_per_s} must be a number > 0")

    @property
    def prefill(self) -> Continuous:
        """A replica that gives each request its first token."""
        return replace(
            self.replica,
            output_tokens=1,
            output_cv=0.0,
            max_tokens=self.prefill_max_tokens,
            slo_on="first_token",
            per_token_weight=0.0,
        )

    @property
    def decode(self) -> Continuous:
        """A replica that gives later tokens: the time of its steps depends on sequences only."""
        return replace(
            self.replica,
            gamma_s=0.0,
            gamma_knees=(),
            max_tokens=10**9,
            slo_on="end_to_end",
            per_token_weight=0.0,
        )

    def handover_s(self, prompt_tokens: np.ndarray) -> np.ndarray:
        """Seconds until a prompt's KV cache is with the decode replica, of the prompts' shape."""
        return prompt_tokens * self.bytes_per_token / self.link_bytes_per_s


def pooled_latency_s(replica: Continuous, requests: Requests, replicas: int) -> np.ndarray:
    """Latency of every request in s (requests,) on one pool; what it is, says `slo_on`."""
    n = len(requests.arrival_s)
    empty = np.empty(0)
    draws = Draws(
        first=np.array([0, n]),
        arrival_s=requests.arrival_s,
        router_in_s=empty,
        service_s=np.ones(n),
        router_out_s=empty,
        coin=np.zeros(n, np.float32),
        seed=0,
        prompt_tokens=requests.prompt_tokens,
        output_tokens=requests.output_tokens,
    )
    jobs = (Job("requests", replica=replica),)
    # With as many places as requests, none waits elsewhere than in a replica, and none is dropped.
    return constant_latencies(jobs, draws, [replicas], DISPATCH, 0, np.array([n]))


def first_token_s(kind: Disaggregated, requests: Requests, prefill: int) -> np.ndarray:
    """Time from the arrival to the first token of every request (requests,)."""
    one_token = np.ones(len(requests.arrival_s))
    return pooled_latency_s(kind.prefill, requests._replace(output_tokens=one_token), prefill)


def apart_latency_s(
    kind: Disaggregated, requests: Requests, waited_s: np.ndarray, decode: int
) -> np.ndarray:
    """Latency of every request in s (requests,), as `slo_on: both` defines it.

    It is the larger of the time to the first token, `waited_s` (`first_token_s`), and of
    `per_token_weight` times the mean time of a later token. The latter includes the hand-over and
    the wait for a decode replica.
    """
    later = requests.output_tokens - 1
    decoded = np.flatnonzero(later > 0)
    handover_s = kind.handover_s(requests.prompt_tokens)
    ready_s = (requests.arrival_s + waited_s + handover_s)[decoded]
    order = np.argsort(ready_s, kind="stable")
    decoded, ready_s = decoded[order], ready_s[order]
    per_token_s = np.full(len(later), SHORTEST_S)
    if len(decoded):
        arriving = Requests(ready_s, requests.prompt_tokens[decoded], later[decoded])
        spent_s = pooled_latency_s(kind.decode, arriving, decode)
        per_token_s[decoded] = (handover_s[decoded] + spent_s) / later[decoded]
    return np.maximum(waited_s, kind.replica.per_token_weight * per_token_s)

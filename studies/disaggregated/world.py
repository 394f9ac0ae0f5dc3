"""Prefill and decode apart, or on one pool: the latencies of the same requests."""

from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np

from faro_lib.simulate import Draws
from faro_lib.simulate.serving import constant_latencies
from faro_lib.workload import Job
from faro_lib.workload.replicas import Continuous, Disaggregated

# Keys and values of a token in 16 bits: 80 layers, 8 heads of 128 (Llama 2 70B, arXiv 2307.09288).
KV_BYTES = 2 * 80 * 8 * 128 * 2
DISPATCH = "least-outstanding"  # of every pool: to the replica with the fewest requests


class Requests(NamedTuple):
    """Requests in the order of their arrival; arrays have shape (requests,)."""

    arrival_s: np.ndarray
    prompt_tokens: np.ndarray  # whole numbers >= 1, as the output tokens
    output_tokens: np.ndarray


def disaggregated(
    replica: Continuous, link_gbps: float, prefill_max_tokens: int = 1
) -> Disaggregated:
    """The kind `disaggregated` of which `replica` is one that does both."""
    of_replica = {field.name: getattr(replica, field.name) for field in fields(Continuous)}
    return Disaggregated(
        **of_replica,
        link_gbps=link_gbps,
        kv_bytes_per_token=KV_BYTES,
        prefill_max_tokens=prefill_max_tokens,
    )


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


def apart_latency_s(
    kind: Disaggregated, requests: Requests, prefill: int, decode: int
) -> np.ndarray:
    """As `pooled_latency_s`, on so many prefill and decode replicas."""
    replicas = prefill + decode
    pair = replace(kind, prefill=(*[0] * decode, *range(1, prefill + 1)))
    return pooled_latency_s(pair, requests, replicas)

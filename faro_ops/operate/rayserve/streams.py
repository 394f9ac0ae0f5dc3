"""Latencies of streamed answers: to the first token, per later token, and end to end.

A replica counts the streamed answers that end in a second by the buckets of all three, so the
controller can form the latency that a job's SLO limits, also the worse of two for each request.
Each part of an answer counts as a token. An answer that is not streamed is in no stream; its
latency is that of the whole answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from faro_lib.workload.replicas import Continuous, Replica
from faro_ops.operate.rayserve.statistics import bucket_of, latency_of


def stream_key(first_s: float, all_s: float, parts: int) -> str:
    """The key of an answer in `streams` of a second's measurements.

    first_s, all_s : seconds from the arrival to the first and to the last part.
    parts : number of parts; with a single one, the time per later part is the shortest.

    >>> stream_key(0.004, 0.012, 5)
    '32,16,57'
    """
    later_s = (all_s - first_s) / (parts - 1) if parts > 1 else 0.0
    return ",".join(str(bucket_of(one)) for one in (first_s, later_s, all_s))


@dataclass(frozen=True, slots=True)
class Streams:
    """Streamed answers: their number and latencies in wall seconds, arrays (kinds of answer,)."""

    count: np.ndarray
    first_s: np.ndarray
    per_token_s: np.ndarray
    all_s: np.ndarray

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The streamed answers of a second's measurements, or of a sum of several."""
        streams = row.get("streams", {})
        buckets = np.array([key.split(",") for key in streams], int).reshape(-1, 3)
        latencies_s = latency_of(buckets)
        return cls(np.array(list(streams.values()), int), *latencies_s.T)

    def of_slo(self, replica: Continuous) -> np.ndarray:
        """The latencies that the replica's `slo_on` names; `Continuous` says how two combine."""
        if replica.slo_on == "first_token":
            return self.first_s
        if replica.slo_on == "per_token":
            return self.per_token_s
        if replica.slo_on == "end_to_end":
            return self.all_s
        return np.maximum(self.first_s, replica.per_token_weight * self.per_token_s)


def counted(count: np.ndarray, latency_s: np.ndarray) -> dict[str, Any]:
    """`done`, `latency_s` and `buckets` of a row of measurements with these answers."""
    buckets: dict[str, int] = {}
    for number, one_s in zip(count.tolist(), latency_s.tolist()):
        key = str(bucket_of(one_s))
        buckets[key] = buckets.get(key, 0) + number
    return {
        "done": int(count.sum()),
        "latency_s": float(count @ latency_s),
        "buckets": buckets,
    }


def by_slo(row: dict[str, Any], replica: Replica | None) -> dict[str, Any]:
    """The measurements of a job with the latency that its SLO limits.

    Without streams, or for a job without tokens, they are those of `row`, whose latencies of
    streamed answers end with the first part; then no time per token is known.
    """
    if not isinstance(replica, Continuous):
        return row
    if not row.get("streams") and replica.slo_on != "per_token":
        return row
    streams = Streams.of(row)
    return row | counted(streams.count, streams.of_slo(replica))

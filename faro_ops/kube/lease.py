"""Leader election with a Lease: at most one controller acts.

A candidate takes over a lease that it has seen unchanged for the lease's duration, measured by its own clock. A leader
stops acting earlier: `renew_deadline_s` after it *sent* its last successful renewal. The machines' clocks may differ,
but must run equally fast. The official client's election is not used. It counts the deadline from the answer to a
renewal, cannot tell whether it still leads, and sends requests that may hang until the lease has expired.
"""

import logging
import math
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self

from faro_ops.kube.client import Api, ApiError, found

LOG = logging.getLogger(__name__)
NOBODY = "nobody"  # written as the holder when a missing lease is created, because its former holder may still lead


@dataclass(frozen=True, slots=True)
class LeaseTimings:
    """Timings of a leader election in seconds, with the names of client-go."""

    duration_s: float = 10.0  # a lease that is not renewed for longer may be taken over
    retry_period_s: float = 2.0  # interval between attempts to acquire or renew the lease
    renew_deadline_s: float = 8.0  # how long a leader acts without a renewal

    def __post_init__(self) -> None:
        if not 0 < self.retry_period_s < self.renew_deadline_s < self.duration_s:
            rest = (
                f"renew_deadline_s={self.renew_deadline_s} < duration_s={self.duration_s} must hold"
            )
            raise ValueError(f"0 < retry_period_s={self.retry_period_s} < {rest}")


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one candidate for leadership knows about the lease."""

    identity: str  # unique among the candidates
    record: tuple[str, str] | None = (
        None  # (holder, renewal time) of the lease as last read; None: missing or not read
    )
    since_s: float = 0.0  # when this record was first read, on the monotonic clock
    until_s: float = float("-inf")  # when the leadership of this candidate ends, on the same clock

    def is_leader(self, now_s: float) -> bool:
        return now_s < self.until_s


def observe(
    candidate: Candidate, lease: dict | None, now_s: float, timings: LeaseTimings = LeaseTimings()
) -> tuple[Candidate, str | None]:
    """Return the candidate's new state, and the holder to write: its identity, `NOBODY`, or None to write nothing.

    If the lease is missing, a user may have deleted it while its holder still leads. A candidate that does not lead
    therefore creates it with holder `NOBODY`, and takes it over after it expires. If the candidate only waited, it
    could miss that the leader recreates the lease and a user deletes it again. It would then be a second leader.

    lease : the object as read; None if there is none.
    now_s : monotonic time of the reading or later.
    """
    leads = candidate.is_leader(now_s)
    if lease is None:
        return replace(candidate, record=None), candidate.identity if leads else NOBODY
    spec = lease.get("spec") or {}
    record = (spec.get("holderIdentity") or "", spec.get("renewTime") or "")
    if record != candidate.record:
        candidate = replace(candidate, record=record, since_s=now_s)
    ours = record[0] in ("", candidate.identity) or (record[0] == NOBODY and leads)
    expired = now_s - candidate.since_s > float(
        spec.get("leaseDurationSeconds") or timings.duration_s
    )
    return candidate, candidate.identity if ours or expired else None


def written(candidate: Candidate, timings: LeaseTimings, sent_s: float) -> Candidate:
    """Return the candidate's state after it has written its identity into the lease. It sent the write at `sent_s`."""
    return replace(candidate, until_s=sent_s + timings.renew_deadline_s)


def seconds_unled(api: Api, namespace: str, name: str) -> float:
    """Seconds since the last renewal of the lease, by this machine's clock; infinite if it is missing or not yet renewed."""
    lease = found(api, f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}") or {}
    renewed = (lease.get("spec") or {}).get("renewTime")
    return (
        (datetime.now(UTC) - datetime.fromisoformat(renewed)).total_seconds()
        if renewed
        else math.inf
    )


class Leadership:
    """Acquires and renews a lease in a thread.

    `api` should have few retries and a short time-out: a renewal that hangs must fail well before the lease expires.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        timings: LeaseTimings = LeaseTimings(),
    ):
        self._api, self.timings = api, timings
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self.name, self.candidate = name, Candidate(identity)
        self.error: Exception | None = None  # error of the last `tick`; None if it succeeded
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"lease {name}", daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    def is_leader(self, for_s: float = 0.0) -> bool:
        """Whether this controller is the leader and will certainly be for another `for_s` seconds."""
        return self.candidate.is_leader(time.monotonic() + for_s)

    @property
    def holder(self) -> str:
        """The holder of the lease as last read; "" if there is none."""
        return self.candidate.record[0] if self.candidate.record else ""

    @property
    def unled_s(self) -> float:
        """Seconds since this candidate last saw the lease change; 0 if the lease is missing or cannot be read."""
        return (
            time.monotonic() - self.candidate.since_s
            if self.candidate.record and not self.error
            else 0.0
        )

    def wait(self, timeout_s: float = math.inf) -> bool:
        """Wait until this controller is the leader; returns whether it is."""
        until_s = time.monotonic() + timeout_s
        while not self.is_leader() and time.monotonic() < until_s and not self._stop.is_set():
            time.sleep(0.05)
        return self.is_leader()

    def stop(self) -> None:
        """Stop leading, and release the lease, so that another controller need not wait until it expires."""
        self._stop.set()
        self._thread.join(self.timings.duration_s)
        led, self.candidate = self.is_leader(), replace(self.candidate, until_s=float("-inf"))
        if led:
            with suppress(ApiError):  # if this fails, the lease just expires
                lease = self._api.get(f"{self._path}/{self.name}")
                if (lease.get("spec") or {}).get("holderIdentity") == self.candidate.identity:
                    lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                    self._api.send("PUT", f"{self._path}/{self.name}", lease)

    def _follow(self) -> None:
        while not self._stop.is_set():
            began_s = time.monotonic()
            try:
                self.tick()
                self.error = None
            except (
                Exception
            ) as error:  # any error, because without this thread we would never lead again
                if self.error is None:
                    LOG.warning(
                        "lease %s: %s",
                        self.name,
                        error if isinstance(error, ApiError) else repr(error),
                    )
                self.error = error
            self._stop.wait(max(0.1, self.timings.retry_period_s - (time.monotonic() - began_s)))

    def tick(self) -> None:
        """Try to acquire or renew the lease. If another candidate wrote it first (409), the next tick tries again."""
        path = f"{self._path}/{self.name}"
        lease = found(self._api, path)
        self.candidate, holder = observe(self.candidate, lease, time.monotonic(), self.timings)
        if holder is None:
            return
        method, path = ("POST", self._path) if lease is None else ("PUT", path)
        lease = lease or {"metadata": {"name": self.name}}
        spec = lease["spec"] = (
            lease.get("spec") or {}
        )  # a lease that a user has created may have no spec
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if spec.get("holderIdentity") != holder:
            spec |= {"holderIdentity": holder, "acquireTime": now}
            spec["leaseTransitions"] = (spec.get("leaseTransitions") or 0) + (holder != NOBODY)
        spec |= {
            "renewTime": now,
            "leaseDurationSeconds": max(1, math.ceil(self.timings.duration_s)),
        }
        sent_s = time.monotonic()
        try:
            self._api.send(method, path, lease)
        except ApiError as error:
            if error.status != 409:
                raise
            return
        if holder != NOBODY:
            self.candidate = written(self.candidate, self.timings, sent_s)

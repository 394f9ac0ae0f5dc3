"""Leadership: of several controllers one acts, the holder of a Lease, and never two.

A candidate takes the lease only after it has seen the same record for as long as the record itself says, by its own
clock; a holder stops acting `margin_s` before that, counted from the instant at which it *sent* the last renewal that
succeeded. So the clocks need not agree, only run equally fast. The client library's own election counts from the
answer, has no time-out on its requests and no way to ask whether one still leads, so that a call that hangs outlives
the lease.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from faro_lib.kube.client import Api, ApiError

LOG = logging.getLogger(__name__)
NOBODY = "nobody"  # holds a lease that vanished, until whoever held it before must have noticed


@dataclass(frozen=True, slots=True)
class LeaseTimings:
    """How long a lease lasts, how often it is renewed, how long before its end its holder rests its hands; seconds."""

    duration_s: float = 10.0
    retry_period_s: float = 2.0
    margin_s: float = 2.0

    def __post_init__(self):
        if not 0 < self.retry_period_s < self.duration_s - self.margin_s:
            raise ValueError(f"retry_period_s={self.retry_period_s} must lie between 0 and duration_s - margin_s")


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one candidate knows.

    Attributes
    ----------
    identity : unique among the candidates.
    seen : the lease's (holder, renewals) as last read, None before.
    since_s : by our own clock, when it was first seen so.
    until_s : we may act until then.
    """

    identity: str
    seen: tuple[str, str] | None = None
    since_s: float = 0.0
    until_s: float = float("-inf")

    def is_leader(self, now_s: float) -> bool:
        return now_s < self.until_s


def observe(
    candidate: Candidate, lease: dict | None, now_s: float, terms: LeaseTimings = LeaseTimings()
) -> tuple[Candidate, str | None]:
    """Take notice of a lease; in whose name it is to be written now: our own, `NOBODY`'s, or None to leave it alone.

    A lease that is not there may have been deleted, or lost with the server's memory, while somebody holds it. Unless that
    is us it is written down as nobody's, and runs out like any other: that it stayed away cannot be seen, for between two
    looks it may have come and gone.

    Parameters
    ----------
    lease : the object as read; None if there is none.
    now_s : instant, of a clock that never jumps, at or after the reading.
    """
    leads = candidate.is_leader(now_s)
    if lease is None:
        return replace(candidate, seen=None), candidate.identity if leads else NOBODY
    spec = lease.get("spec") or {}
    record = (spec.get("holderIdentity") or "", spec.get("renewTime") or "")
    if record != candidate.seen:
        candidate = replace(candidate, seen=record, since_s=now_s)
    ours = record[0] in ("", candidate.identity) or (record[0] == NOBODY and leads)
    run_out = now_s - candidate.since_s > float(spec.get("leaseDurationSeconds") or terms.duration_s)
    return candidate, candidate.identity if ours or run_out else None


def written(candidate: Candidate, terms: LeaseTimings, sent_s: float) -> Candidate:
    """After a write that succeeded and was sent at `sent_s`."""
    return replace(candidate, until_s=sent_s + terms.duration_s - terms.margin_s)


class Leadership:
    """Keeps trying for a lease in a thread of its own; `leads` may be asked at any time.

    Parameters
    ----------
    api : best with few retries and a time-out well below `terms.duration_s`.
    """

    def __init__(self, api: Api, namespace: str, name: str, identity: str, terms: LeaseTimings = LeaseTimings()):
        self._api, self.terms = api, terms
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self.name, self.candidate = name, Candidate(identity)
        self.error: Exception | None = None  # of the last try
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"lease {name}", daemon=True)

    def start(self) -> Leadership:
        self._thread.start()
        return self

    def is_leader(self, for_s: float = 0.0) -> bool:
        """Whether we lead, and will for another `for_s` whatever happens."""
        return self.candidate.is_leader(time.monotonic() + for_s)

    @property
    def holder(self) -> str:
        """Who holds the lease as far as we know."""
        return self.candidate.seen[0] if self.candidate.seen else ""

    def wait(self, timeout_s: float = math.inf) -> bool:
        """Until we lead; whether we do."""
        until_s = time.monotonic() + timeout_s
        while not self.is_leader() and time.monotonic() < until_s and not self._stop.is_set():
            time.sleep(0.05)
        return self.is_leader()

    def stop(self) -> None:
        """Rest, and give the lease back so that another need not wait for its end."""
        self._stop.set()
        self._thread.join(self.terms.duration_s)
        led, self.candidate = self.is_leader(), replace(self.candidate, until_s=float("-inf"))
        if led:
            with suppress(ApiError):  # else it runs out by itself
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
            except Exception as error:  # until_s says how long we may still act; who gave up here would never act again
                if self.error is None:
                    LOG.warning("lease %s: %s", self.name, error if isinstance(error, ApiError) else repr(error))
                self.error = error
            self._stop.wait(max(0.1, self.terms.retry_period_s - (time.monotonic() - began_s)))

    def tick(self) -> None:
        """Read the lease, and write it if it is ours to write. A lost race is a 409, and nothing happens."""
        try:
            lease: dict | None = self._api.get(f"{self._path}/{self.name}")
        except ApiError as absent:
            if absent.status != 404:
                raise
            lease = None
        self.candidate, holder = observe(self.candidate, lease, time.monotonic(), self.terms)
        if holder is None:
            return
        new = lease is None
        lease = lease or {"metadata": {"name": self.name}}
        lease["spec"] = lease.get("spec") or {}  # one that somebody made by hand may have none
        spec, now = lease["spec"], datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if spec.get("holderIdentity") != holder:
            spec |= {"holderIdentity": holder, "acquireTime": now}
            spec["leaseTransitions"] = (spec.get("leaseTransitions") or 0) + (holder != NOBODY)
        spec |= {"renewTime": now, "leaseDurationSeconds": max(1, math.ceil(self.terms.duration_s))}
        sent_s = time.monotonic()
        try:
            if new:
                self._api.send("POST", self._path, lease)
            else:
                self._api.send("PUT", f"{self._path}/{self.name}", lease)
        except ApiError as refused:
            if refused.status != 409:
                raise
            return
        if holder != NOBODY:
            self.candidate = written(self.candidate, self.terms, sent_s)

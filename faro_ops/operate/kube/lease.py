"""Leader election with a Lease: at most one controller acts.

A candidate takes over a lease that it has seen unchanged for the lease's duration, measured by its
own clock. A leader stops acting earlier: `renew_deadline_s` after it *sent* its last successful
renewal. The machines' clocks may differ, but must run equally fast. The official client's election
is not used. It counts the deadline from the answer to a renewal, cannot tell whether it still
leads, and sends requests that may hang until the lease has expired.

`Leadership` is the thread that acquires and renews the lease. leader_gate.py asks it before each
change of the cluster. `LeaseWatch` says for how long nobody has led, from what its observer has
read; `seconds_unled` watches a lease in this way for a process without a `Leadership`.
"""

import logging
import math
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Self

from faro_ops.operate.kube.client import Api, ApiError, found

LOG = logging.getLogger(__name__)
# Written as the holder when a missing lease is created, because its former holder may still lead.
NOBODY = "nobody"
# Environment variables of a controller's pod: its name and UID (downward API).
POD_NAME, POD_UID = "POD_NAME", "POD_UID"
# Two readings of a lease this far apart show at most this much time without a leader: while the API
# server is away, no leader can renew, and the live one does so soon after.
LONGEST_GAP_S = 10.0
WATCH_PERIOD_S = 2.0  # interval between readings of a lease that is watched


def candidate_identity() -> str:
    """The identity of this process as a candidate: POD-UID.PROCESS, or HOST-RANDOM.PROCESS.

    Pods of one host with hostNetwork have the same host name, and processes of several pods the
    same number. After the last "-" is no part of the pod's name.
    """
    host = os.environ.get(POD_NAME) or os.environ.get("HOSTNAME") or socket.gethostname()
    unique = os.environ.get(POD_UID, "")[:8] or _random()
    return f"{host}-{unique}.{os.getpid()}"


@cache
def _random() -> str:
    """Eight hexadecimal digits, the same ones whenever this process asks."""
    return uuid.uuid4().hex[:8]


@dataclass(frozen=True, slots=True)
class LeaseTimings:
    """Timings of a leader election in seconds, with the names of client-go."""

    duration_s: float = 10.0  # a lease that is not renewed for longer may be taken over
    retry_period_s: float = 2.0  # interval between attempts to acquire or renew the lease
    renew_deadline_s: float = 8.0  # how long a leader acts without a renewal

    def __post_init__(self) -> None:
        if not 0 < self.retry_period_s < self.renew_deadline_s < self.duration_s:
            raise ValueError(
                f"0 < retry_period_s={self.retry_period_s} < "
                f"renew_deadline_s={self.renew_deadline_s} < duration_s={self.duration_s} must hold"
            )


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one candidate for leadership knows about the lease."""

    identity: str  # unique among the candidates
    # (holder, renewal time) of the lease as last read; None: missing or not read.
    record: tuple[str, str] | None = None
    since_s: float = 0.0  # when this record was first read, on the monotonic clock
    until_s: float = float("-inf")  # when the leadership of this candidate ends, on the same clock

    def is_leader(self, now_s: float) -> bool:
        return now_s < self.until_s


def observe(
    candidate: Candidate, lease: dict | None, now_s: float, timings: LeaseTimings = LeaseTimings()
) -> tuple[Candidate, str | None]:
    """The candidate's new state after it has read the lease, and the holder to write.

    The holder is the candidate's identity, `NOBODY`, or None to write nothing.

    If the lease is missing, a user may have deleted it while its holder still leads. A candidate
    that does not lead therefore creates it with holder `NOBODY`, and takes it over after it
    expires. If the candidate only waited, it could miss that the leader recreates the lease and a
    user deletes it again. It would then be a second leader.

    lease : the object as read; None if there is none.
    now_s : monotonic time of the reading or later.
    """
    leads = candidate.is_leader(now_s)
    if lease is None:
        return replace(candidate, record=None), candidate.identity if leads else NOBODY
    spec = lease.get("spec") or {}
    record = record_of(lease)
    holder, _ = record
    if record != candidate.record:
        candidate = replace(candidate, record=record, since_s=now_s)
    ours = holder in ("", candidate.identity) or (holder == NOBODY and leads)
    duration_s = float(spec.get("leaseDurationSeconds") or timings.duration_s)
    expired = now_s - candidate.since_s > duration_s
    return candidate, candidate.identity if ours or expired else None


def written(candidate: Candidate, timings: LeaseTimings, sent_s: float) -> Candidate:
    """The candidate's state after it has written its identity in a request sent at `sent_s`."""
    return replace(candidate, until_s=sent_s + timings.renew_deadline_s)


def record_of(lease: dict) -> tuple[str, str]:
    """(holder, renewal time) of a lease, which every renewal changes."""
    spec = lease.get("spec") or {}
    return spec.get("holderIdentity") or "", spec.get("renewTime") or ""


@dataclass(frozen=True, slots=True)
class LeaseWatch:
    """For how long an observer has read a lease again and again without seeing it change.

    A live leader renews its lease every two seconds, so nobody leads meanwhile. Only readings
    count, by the observer's monotonic clock. The times in the lease, which another machine's clock
    has written, do not, nor does it matter whether the observer can write the lease itself. A lease
    that is missing counts like any other that does not change.
    """

    record: tuple[str, str] | None = None  # of the last reading; None: the lease was missing
    read_s: float = -math.inf  # monotonic time of the last reading
    unchanged_s: float = 0.0  # seconds between the readings that saw this record

    def after(self, lease: dict | None, now_s: float) -> Self:
        """The watch after another reading of the lease, None if it is missing."""
        record = record_of(lease) if lease else None
        gap_s = min(now_s - self.read_s, LONGEST_GAP_S)
        first = math.isinf(self.read_s)
        unchanged_s = 0.0 if first or record != self.record else self.unchanged_s + gap_s
        return replace(self, record=record, read_s=now_s, unchanged_s=unchanged_s)

    def unled_s(self, now_s: float) -> float:
        """Seconds without a leader; 0 if the lease has not been read for LONGEST_GAP_S."""
        return self.unchanged_s if now_s - self.read_s <= LONGEST_GAP_S else 0.0


class Leadership:
    """Acquires and renews a lease in a thread.

    `api` should have few retries and a short time-out: a renewal that hangs must fail well before
    the lease expires.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        identity: str,
        timings: LeaseTimings = LeaseTimings(),
    ):
        self._api = api
        self.timings = timings
        self._path = leases_path(namespace)
        self.name = name
        self.candidate = Candidate(identity)
        self.watch = LeaseWatch()
        self.error: Exception | None = None  # error of the last `tick`; None if it succeeded
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"lease {name}", daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    def is_leader(self, for_s: float = 0.0) -> bool:
        """Whether this controller is the leader, and certainly for another `for_s` seconds."""
        return self.candidate.is_leader(time.monotonic() + for_s)

    @property
    def holder(self) -> str:
        """The holder of the lease as last read; "" if there is none."""
        return self.candidate.record[0] if self.candidate.record else ""

    @property
    def unled_s(self) -> float:
        """Seconds for which this candidate has seen no leader; see `LeaseWatch`."""
        return self.watch.unled_s(time.monotonic())

    def wait(self, timeout_s: float = math.inf) -> bool:
        """Wait until this controller is the leader; returns whether it is."""
        until_s = time.monotonic() + timeout_s
        while not self.is_leader() and time.monotonic() < until_s and not self._stop.is_set():
            time.sleep(0.05)
        return self.is_leader()

    def _follow(self) -> None:
        while not self._stop.is_set():
            began_s = time.monotonic()
            try:
                self.tick()
                self.error = None
            # Any error, because without this thread the controller would never lead again.
            except Exception as error:
                if self.error is None:  # one warning for failures in a row
                    text = error if isinstance(error, ApiError) else repr(error)
                    LOG.warning("lease %s: %s", self.name, text)
                self.error = error
            took_s = time.monotonic() - began_s
            self._stop.wait(max(0.1, self.timings.retry_period_s - took_s))

    def tick(self) -> None:
        """Try to acquire or renew the lease.

        If another candidate wrote it first (409), the next tick tries again.
        """
        lease = found(self._api, f"{self._path}/{self.name}")
        now_s = time.monotonic()
        self.watch = self.watch.after(lease, now_s)
        self.candidate, holder = observe(self.candidate, lease, now_s, self.timings)
        if holder is None:
            return
        if lease is None:
            method, path = "POST", self._path
        else:
            method, path = "PUT", f"{self._path}/{self.name}"
        lease = lease or {"metadata": {"name": self.name}}
        # A lease that a user has created may have no spec.
        lease["spec"] = self._spec_for(holder, lease.get("spec") or {})
        sent_s = time.monotonic()
        try:
            self._api.send(method, path, lease)
        except ApiError as error:
            if error.status != 409:
                raise
            return
        if holder != NOBODY:
            self.candidate = written(self.candidate, self.timings, sent_s)

    def _spec_for(self, holder: str, spec: dict) -> dict:
        """The lease's new spec, made from the one that was read."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        new = {
            **spec,
            "renewTime": now,
            "leaseDurationSeconds": max(1, math.ceil(self.timings.duration_s)),
        }
        if spec.get("holderIdentity") != holder:
            transitions = spec.get("leaseTransitions") or 0
            new["holderIdentity"] = holder
            new["acquireTime"] = now
            new["leaseTransitions"] = transitions + (holder != NOBODY)
        return new

    def stop(self) -> None:
        """Stop leading and release the lease, so that no other controller waits for its expiry."""
        self._stop.set()
        self._thread.join(self.timings.duration_s)
        led = self.is_leader()
        self.candidate = replace(self.candidate, until_s=float("-inf"))
        if not led:
            return
        path = f"{self._path}/{self.name}"
        with suppress(ApiError):  # if this fails, the lease just expires
            lease = self._api.get(path)
            if (lease.get("spec") or {}).get("holderIdentity") == self.candidate.identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                self._api.send("PUT", path, lease)


def leases_path(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


def seconds_unled(api: Api, namespace: str, name: str, enough_s: float) -> float:
    """Watch a lease until it changes or until nobody has led for `enough_s` seconds.

    Returns the seconds for which nobody has led until then. Under a live leader that takes one or
    two readings, and else the whole time: a new process knows nothing from before, and no clock of
    another machine says how long ago a renewal was. Readings that fail count for nothing; raises
    ApiError if they take `enough_s` in all.
    """
    path = f"{leases_path(namespace)}/{name}"
    until_s = time.monotonic() + 2 * enough_s
    watch: LeaseWatch | None = None
    while True:
        try:
            lease = found(api, path)
        except ApiError:
            if time.monotonic() > until_s:
                raise
        else:
            before, watch = watch, (watch or LeaseWatch()).after(lease, time.monotonic())
            changed = before is not None and watch.record != before.record
            if changed or watch.unchanged_s >= enough_s:
                return watch.unchanged_s
        time.sleep(WATCH_PERIOD_S)

"""The replicas' measurements (request counts, latencies) per second.

A Ray actor sums them for each job.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

KEEP_S = 20 * 60  # seconds for which statistics are kept; policies use the last 15 minutes
# A replica stores the measurements of this many seconds while the aggregator does not answer.
UNREPORTED_S = 300
FRESH_S = 5.0  # a replica whose last heartbeat is older does not count as running
PER_OCTAVE = 16  # latency buckets per doubling of the latency, each 4.4 % wide
FLOOR_S = 1e-3
MAX_MEASURE = 1e15  # a larger count or sum of seconds cannot be right
COUNTS = ("arrivals", "dropped", "failed", "cancelled", "done")
SUMS = ("latency_s", "service_s", "service_s2")
BY_BUCKET = ("buckets", "streams")  # counts by latency bucket


def bucket_of(latency_s: float) -> int:
    """Index of the log-spaced bucket of a latency in seconds.

    Bucket 0 holds latencies up to about a millisecond.

    >>> bucket_of(0.0005), bucket_of(0.002), bucket_of(0.004)
    (0, 16, 32)
    """
    return max(0, round(PER_OCTAVE * math.log2(max(latency_s, FLOOR_S) / FLOOR_S)))


def latency_of(bucket):
    """Latency in seconds in the middle of a bucket, or of each bucket in an array."""
    return FLOOR_S * 2 ** (bucket / PER_OCTAVE)


def empty_row() -> dict[str, Any]:
    """Measurements of one second of a replica or a job, all zero.

    arrivals, dropped : requests that arrived in the second.
    done, failed, cancelled : requests that ended in the second: they were served, the model or
        its replica failed, or their client hung up.
    latency_s : sum of the time in the replica, over `done`.
    service_s, service_s2 : sums of the service time and of its square, over `done`.
    buckets : number of `done` by latency bucket; the keys are strings, as in JSON.
    streams : number of streamed answers that ended, by `streams.stream_key`; each is in `done` of
        the second of its first part.
    """
    return dict.fromkeys(COUNTS, 0) | dict.fromkeys(SUMS, 0.0) | {key: {} for key in BY_BUCKET}


def add_row(total: dict[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Add the measurements `row` to `total`, in place, and return `total`."""
    for key, value in row.items():
        if key in BY_BUCKET:
            add_row(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value
    return total


def fault_of(row: Any) -> str:
    """What cannot be right in the measurements of a second; "" if nothing is wrong.

    >>> fault_of(empty_row() | {"arrivals": math.nan})
    'arrivals=nan'
    """
    try:
        row = {"cancelled": 0} | row  # an older replica does not count them apart
        values = {key: row[key] for key in (*COUNTS, *SUMS)}
        values |= {f"buckets[{int(key)}]": count for key, count in row["buckets"].items()}
        for key, count in row.get("streams", {}).items():  # an older replica has none
            first, later, every = map(int, key.split(","))
            values[f"streams[{first},{later},{every}]"] = count
    except (KeyError, TypeError, ValueError, AttributeError):
        return f"{repr(row)[:60]} instead of measurements"
    for name, value in values.items():
        if not is_measure(value):
            return f"{name}={repr(value)[:30]}"
    return ""


def is_measure(value: Any) -> bool:
    """Whether a value can be a count or a sum of seconds: a finite number >= 0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value < MAX_MEASURE


def is_share(value: Any) -> bool:
    return is_measure(value) and value <= 1


@dataclass(frozen=True, slots=True)
class Reply:
    """The aggregator's answer to the report of a replica."""

    # Share of requests to accept; None if no controller has set one since the aggregator started.
    accept: float | None
    for_s: float  # seconds for which `accept` holds; after them, the replica accepts all requests
    now_s: float  # the aggregator's Unix time


@dataclass(frozen=True, slots=True)
class Reported:
    """What one replica has reported: the Unix seconds from `first` to `until` - 1."""

    first: int
    until: int
    age_s: float  # seconds since its last report


@dataclass(frozen=True, slots=True)
class JobStatistics:
    """The statistics of one job, as the controller reads them."""

    seconds: Mapping[int, dict[str, Any]]  # Unix second -> measurements
    wrong: Mapping[int, str]  # Unix second -> why a replica's measurements of it cannot be right
    reported: Mapping[str, Reported]  # by replica
    ongoing: float  # ongoing requests; NaN if no replica has reported lately
    accept: float | None  # share of requests that the replicas were told to accept; None if never

    @classmethod
    def of(cls, answer: Any, shift_s: int = 0) -> Self:
        """Parse the part of one job in an answer of `StatsAggregator.read`.

        shift_s : added to all Unix seconds.

        Raises ValueError if the answer has another form.
        """
        try:
            rows = {int(second) + shift_s: row for second, row in answer["seconds"].items()}
            wrong = {int(second) + shift_s: str(why) for second, why in answer["wrong"].items()}
            wrong |= {second: why for second, row in rows.items() if (why := fault_of(row))}
            reported = {
                str(name): Reported(int(first) + shift_s, int(until) + shift_s, float(age_s))
                for name, (first, until, age_s) in answer["reported"].items()
            }
            ongoing, accept = answer["ongoing"], answer["accept"]
            heard = bool(answer["replicas"]) and is_measure(ongoing)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            problem = f"{type(error).__name__}: {error}"[:100]
            raise ValueError(f"its statistics cannot be read ({problem})") from None
        return cls(
            {second: row for second, row in rows.items() if second not in wrong},
            wrong,
            reported,
            float(ongoing) if heard else math.nan,
            accept if is_share(accept) else None,
        )


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The last report of a replica, and which seconds it has reported (None: none yet)."""

    heard_s: float  # Unix time
    ongoing: float  # ongoing requests
    first: int | None = None
    last: int | None = None


class StatsAggregator:
    """Ray actor with the jobs' measurements and shares of accepted requests, and with the lease.

    The lease is the right to scale the jobs. A share holds for a time that its controller states;
    afterwards, and if the lease ends, all requests are accepted.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, dict[int, dict]] = {}
        self._wrong: dict[str, dict[int, str]] = {}  # job -> second -> what a replica reports
        self._replicas: dict[str, dict[str, Heartbeat]] = {}  # job -> replica
        self._accept: dict[str, float] = {}
        self._accept_ends_s = math.inf  # by time.monotonic()
        self._holder = ""  # "" if nobody has the lease
        self._lease_ends_s = 0.0  # by time.monotonic()

    def report(self, job: str, replica: str, ongoing: float, rows: Mapping[int, dict]) -> Reply:
        """Record a replica's heartbeat, and return the share of requests that it should accept.

        `rows` maps Unix seconds to measurements (`empty_row`). A second that a replica sends twice
        counts once. If measurements cannot be right, this second of the job is unknown.
        """
        now_s = time.time()
        oldest = now_s - KEEP_S
        seconds = self._seconds.setdefault(job, {})
        wrong = self._wrong.setdefault(job, {})
        replicas = self._replicas.setdefault(job, {})
        before = replicas.get(replica, Heartbeat(now_s, ongoing))
        first, last = before.first, before.last
        if rows and last is not None and last > max(rows) + FRESH_S:  # the clock was set back
            first = last = None
            seconds = {second: row for second, row in seconds.items() if second <= max(rows)}
            wrong = {second: why for second, why in wrong.items() if second <= max(rows)}
        for second in sorted(rows):
            if last is not None and second <= last:
                continue
            if problem := fault_of(rows[second]):
                wrong[second] = f"replica {replica} reports {problem}"
            else:
                add_row(seconds.setdefault(second, empty_row()), rows[second])
            first = second if first is None else first
            last = second
        replicas[replica] = Heartbeat(now_s, ongoing, first, last)
        self._seconds[job] = {second: row for second, row in seconds.items() if second >= oldest}
        self._wrong[job] = {second: why for second, why in wrong.items() if second >= oldest}
        self._replicas[job] = {name: one for name, one in replicas.items() if one.heard_s >= oldest}
        self._end()
        left_s = max(0.0, self._accept_ends_s - time.monotonic())
        return Reply(self._accept.get(job), left_s, now_s)

    def accept(self, shares: Mapping[str, float], for_s: float) -> None:
        """Set the share of requests that each job in `shares` accepts, for `for_s` seconds.

        Other jobs accept all requests. A share outside 0..1 counts as 1.
        """
        self._end()
        valid = {job: share if is_share(share) else 1.0 for job, share in shares.items()}
        self._accept = dict.fromkeys(self._accept, 1.0) | valid
        self._accept_ends_s = time.monotonic() + for_s

    def lease(self, holder: str, duration_s: float, force: bool = False) -> str:
        """Grant `holder` the lease if no other controller has it, or if `force`.

        Returns the holder after this call.
        """
        self._end()
        now_s = time.monotonic()
        if force or now_s >= self._lease_ends_s or holder == self._holder:
            self._holder = holder
            self._lease_ends_s = now_s + duration_s
        return self._holder

    def _end(self) -> None:
        """End the lease if it has expired. Without it, or if shares have expired, accept all."""
        now_s = time.monotonic()
        lease_over = bool(self._holder) and now_s >= self._lease_ends_s
        if lease_over:
            self._holder = ""
        if lease_over or now_s >= self._accept_ends_s:
            self._accept = dict.fromkeys(self._accept, 1.0)
            self._accept_ends_s = math.inf

    def read(self, since: int = 0) -> dict[str, dict[str, Any]]:
        """The statistics of each job, as JSON.

        seconds : the measurements by Unix second, from `since` on.
        wrong : why the measurements of a second cannot be right, by Unix second from `since` on.
        ongoing, replicas : numbers of ongoing requests and of live replicas.
        reported : by replica, the fields of `Reported`.
        accept : the share of requests that the replicas accept; None if never set.
        now_s : the aggregator's Unix time.
        """
        self._end()
        now_s = time.time()
        jobs = {}
        for job, seconds in self._seconds.items():
            heartbeats = self._replicas[job]
            ongoing = [one.ongoing for one in heartbeats.values() if now_s - one.heard_s <= FRESH_S]
            jobs[job] = {
                "seconds": {str(second): row for second, row in seconds.items() if second >= since},
                "wrong": {
                    str(second): why for second, why in self._wrong[job].items() if second >= since
                },
                "ongoing": sum(ongoing) if all(map(is_measure, ongoing)) else None,
                "replicas": len(ongoing),
                "reported": {
                    name: [one.first, one.last + 1, now_s - one.heard_s]
                    for name, one in heartbeats.items()
                    if one.first is not None and one.last is not None
                },
                "accept": self._accept.get(job),
                "now_s": now_s,
            }
        return jobs

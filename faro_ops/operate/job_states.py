"""The state of each job, with one reason: what is wrong with it alone, and since when.

Code that meets a problem of one job reports it here instead of raising an error, which would stop
the other jobs, too: the readers of metrics, of the jobs' table, of Deployments and their templates,
and the loop. The library sees only what it knows already: missing data, or a fixed number of
replicas. The FaroPlan's status, the metrics, the journal and `faro explain` show the board.

An order of `faro set` that is not in force is no state of a job; the board keeps it apart.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

FINE = "fine"
FAILING = "failing"  # its requests fail, or its clients hang up; Faro scales it as before
MISSING = "missing"  # its load or latency is not known
MISCONFIGURED = "misconfigured"  # Faro cannot scale it as it is described, and keeps its replicas
CONTESTED = "contested"  # another client scales it, too
GONE = "gone"  # its Deployment or application does not exist
STATES = (FINE, FAILING, MISSING, MISCONFIGURED, CONTESTED, GONE)  # from best to worst


@dataclass(frozen=True, slots=True)
class JobState:
    """The state of one job."""

    state: str = FINE  # one of STATES
    reason: str = ""  # one line: what is wrong, where, and what to do; "" if it is fine
    since_s: float = 0.0  # Unix time at which this state began; 0 if it is fine

    def __post_init__(self) -> None:
        if self.state not in STATES:
            accepted = ", ".join(STATES)
            raise ValueError(f"state={self.state!r} is unknown; accepted: {accepted}")
        object.__setattr__(self, "reason", " ".join(self.reason.split()))


class JobStates:
    """A board of what is wrong with each job, by the source that noticed it. Thread-safe, no I/O.

    A source, such as "metrics" or "templates", replaces and clears only its own reports.

    now_s : returns the Unix time.
    """

    def __init__(self, now_s: Callable[[], float] = time.time):
        self._now_s = now_s
        self._data_at_s: dict[str, float] = {}  # job -> monotonic time at which its data was known
        self._lock = threading.Lock()
        self._reports: dict[str, dict[str, JobState]] = {}  # job -> source -> its report
        self._refused: dict[str, str] = {}  # job of an order that is not in force -> the reason

    def report(self, job: str, state: str, reason: str, *, by: str) -> None:
        """Note the state of a job; FINE clears the source's report.

        A source that repeats a state keeps its `since_s`, even if the reason changes.
        """
        new = JobState(state, reason, self._now_s())
        if state == FINE:
            self.clear(job, by=by)
            return
        with self._lock:
            reports = self._reports.setdefault(job, {})
            before = reports.get(by)
            if before and before.state == state:
                new = JobState(state, reason, before.since_s)
            reports[by] = new

    def report_all(self, state: str, reasons: Mapping[str, str], *, by: str) -> None:
        """Note `state` for the jobs in `reasons` (job -> reason) and for no other job."""
        for job in self._named(by) - set(reasons):
            self.clear(job, by=by)
        for job, reason in reasons.items():
            self.report(job, state, reason, by=by)

    def clear(self, job: str, *, by: str) -> None:
        """Remove a source's report of a job, if there is one."""
        with self._lock:
            reports = self._reports.get(job, {})
            reports.pop(by, None)
            if not reports:
                self._reports.pop(job, None)

    def keep_only(self, jobs: Collection[str]) -> None:
        """Forget the jobs that are not in `jobs`, for example after the jobs' table has changed."""
        with self._lock:
            self._reports = {job: one for job, one in self._reports.items() if job in jobs}
            self._data_at_s = {job: one for job, one in self._data_at_s.items() if job in jobs}

    def of(self, job: str, *, without: str = "") -> JobState:
        """The worst state that any source reports; of equal ones, the one that began first.

        without : a source that does not count.
        """
        with self._lock:
            reports = self._reports.get(job, {})
            return _worst({by: one for by, one in reports.items() if by != without})

    def troubled(self) -> dict[str, JobState]:
        """The worst state of each job that is not fine, by job name."""
        with self._lock:
            return {job: _worst(reports) for job, reports in self._reports.items()}

    def saw_data(self, jobs: Iterable[str]) -> None:
        """Note that the data of these jobs is known now."""
        with self._lock:
            self._data_at_s |= dict.fromkeys(jobs, time.monotonic())

    def data_age_s(self, job: str) -> float:
        """Seconds since the job's data was last known; inf if it never was."""
        with self._lock:
            return time.monotonic() - self._data_at_s.get(job, -math.inf)

    def refuse_orders(self, reasons: Mapping[str, str]) -> None:
        """Note all orders that are not in force: the order's job -> the reason."""
        with self._lock:
            self._refused = dict(reasons)

    def refused_orders(self) -> dict[str, str]:
        """Job -> why an order for it is not in force; also of jobs that are not in the table."""
        with self._lock:
            return dict(self._refused)

    def _named(self, by: str) -> set[str]:
        with self._lock:
            return {job for job, reports in self._reports.items() if by in reports}


def _worst(reports: Mapping[str, JobState]) -> JobState:
    def badness(one: JobState) -> tuple[int, float]:
        return STATES.index(one.state), -one.since_s

    return max(reports.values(), key=badness, default=JobState())

"""The wished placements of the pools, and what their replicas report. A Ray actor has them.

The controller sends placements, replicas report what they hold and are told what to load and drop.
The actor survives the controller, which finds its placements here again. If the actor itself is
restarted, placements are what the replicas hold, until the controller sends them again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from faro_ops.operate.rayserve.residency import (
    Held,
    ModelStep,
    PoolJobs,
    Row,
    assigned_rows,
    first_rows,
    next_step,
)
from faro_ops.operate.rayserve.statistics import FRESH_S

# No model is dropped for this long after replicas or rows changed. It is longer than FRESH_S, so
# that a replica that has ended no longer counts.
SETTLE_S = 6.0


@dataclass(frozen=True, slots=True)
class ModelReport:
    """What a replica reports about its models."""

    held: Held
    failures: Mapping[str, str] = field(default_factory=dict)  # job -> why its last load failed


@dataclass(slots=True)
class _PoolState:
    rows: tuple[Row, ...] = ()  # as wished by the controller; () if it has not sent any
    reports: dict[str, ModelReport] = field(default_factory=dict)  # by replica
    heard_s: dict[str, float] = field(default_factory=dict)  # by replica
    followed: dict[str, Row] = field(default_factory=dict)  # by replica
    changed_s: float = 0.0  # when replicas or rows changed last

    def forget_older_than(self, time_s: float) -> bool:
        """Forget replicas that have not reported since; return whether there were any."""
        gone = [name for name, heard_s in self.heard_s.items() if heard_s < time_s]
        for name in gone:
            for of_replica in (self.reports, self.heard_s, self.followed):
                of_replica.pop(name, None)
        return bool(gone)


class Placements:
    """Ray actor with the wished rows of each pool and the reports of its replicas."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._pools: dict[str, _PoolState] = {}

    def wish(self, wishes: Mapping[str, Sequence[Sequence[str]]]) -> None:
        """Set the rows of pools: the names of the jobs that each replica should hold, home first.

        A pool that is not in `wishes` keeps its rows.
        """
        for name, rows in wishes.items():
            state = self._pools.setdefault(name, _PoolState())
            wished = tuple(tuple(map(str, row)) for row in rows if row)
            if sorted(wished) != sorted(state.rows):
                state.rows, state.changed_s = wished, self._now_s()

    def report(self, of: PoolJobs, replica: str, told: ModelReport) -> tuple[Row, ModelStep]:
        """Record what a replica holds; return the row that it follows and what it should do now."""
        now_s = self._now_s()
        state = self._pools.setdefault(of.pool.name, _PoolState())
        gone = state.forget_older_than(now_s - FRESH_S)
        if gone or replica not in state.reports:
            state.changed_s = now_s
        state.reports[replica], state.heard_s[replica] = told, now_s

        held = {name: one.held for name, one in state.reports.items()}
        # After a redeployment, rows may have jobs that are gone, until the controller sends others.
        known = (tuple(job for job in row if job in of.names) for row in state.rows)
        rows = tuple(row for row in known if row) or first_rows(of.pool, of.names, len(held))
        state.followed = assigned_rows(of, rows, held, state.followed)
        row = state.followed.get(replica)
        if row is None:  # there are more replicas than rows
            row = tuple(sorted(told.held.holds)) or rows[0]
        settled = now_s - state.changed_s > SETTLE_S
        step = next_step(of, replica, rows, row, held, settled)
        if step.drop:  # the next replica that asks must not drop the other copy
            left = Held(told.held.holds - set(step.drop), step.load, told.held.failed)
            state.reports[replica] = ModelReport(left, told.failures)
        return row, step

    def read(self) -> dict[str, dict[str, Any]]:
        """The rows and the replicas of each pool, as JSON.

        rows : the wished rows; what the replicas hold if no rows have been sent.
        replicas : by name: the row that it follows, the models that it holds, the one that it
            loads ("" if none), and why loads failed, by job.
        """
        pools = {}
        for name, state in self._pools.items():
            state.forget_older_than(self._now_s() - FRESH_S)
            replicas: dict[str, dict[str, Any]] = {
                replica: {
                    "row": list(state.followed.get(replica, ())),
                    "holds": sorted(told.held.holds),
                    "loading": told.held.loading,
                    "failures": dict(told.failures),
                }
                for replica, told in state.reports.items()
            }
            rows = state.rows or [_seen(one["row"], one["holds"]) for one in replicas.values()]
            pools[name] = {"rows": [list(row) for row in rows if row], "replicas": replicas}
        return pools


def _seen(row: Sequence[str], holds: Sequence[str]) -> Sequence[str]:
    """What a replica holds, its home first if it holds its model."""
    home = [job for job in row[:1] if job in holds]
    return [*home, *(job for job in holds if job not in home)]

"""Which seconds of a job all of its replicas have reported.

A count is right only if it includes all replicas. A replica that reports late is expected until Ray
no longer lists it, and its seconds are read again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from faro_ops.operate.rayserve.statistics import FRESH_S, KEEP_S, UNREPORTED_S, Reported

RUNNING = "RUNNING"


@dataclass(frozen=True, slots=True)
class Coverage:
    """What one job's replicas have reported, as of the last read. Times are whole Unix seconds."""

    # Replica that is expected to report -> the second after its last reported one.
    until: Mapping[str, int] = field(default_factory=dict)
    # Replica that has never reported -> the time of the read before it ran.
    awaited: Mapping[str, int] = field(default_factory=dict)
    # (first, end) of seconds that some replica has not reported and never will.
    lost: tuple[tuple[int, int], ...] = ()
    read_s: int | None = None  # time of the last read; None if there was none

    def after(
        self, now_s: int, reported: Mapping[str, Reported], listed: Mapping[str, str] | None
    ) -> Self:
        """The coverage after a read.

        reported : what each replica has reported to the statistics actor.
        listed : Ray's state of each replica; None if Ray does not say. Then only the replicas that
            report are expected to.
        """
        until: dict[str, int] = {}
        lost = [hole for hole in self.lost if hole[1] > now_s - KEEP_S]
        for name, one in reported.items():
            # A replica that reports may be newer than Ray's list.
            if name not in (listed or {}) and one.age_s > FRESH_S:
                continue
            known = self.until.get(name)
            if known is not None and name not in self.awaited and one.first > known:
                lost.append((known, one.first))  # the actor has restarted since it was read
            until[name] = one.until

        awaited = {}
        for name, state in (listed or {}).items():
            if name in until:
                continue
            if name in self.until and name not in self.awaited:
                until[name] = self.until[name]  # a restarted actor has not heard it yet
            elif state == RUNNING:
                until[name] = self.until.get(name, now_s)
                before_s = now_s if self.read_s is None else self.read_s
                awaited[name] = self.awaited.get(name, before_s)

        for name in self.until.keys() - until.keys():
            # A replica usually reports until it ends, so its last second or two do not matter.
            if name in self.late:
                lost.append((self.until[name], now_s))
        forgotten = now_s - UNREPORTED_S  # replicas store no earlier measurements
        for name, second in until.items():
            if second < forgotten:
                lost.append((second, forgotten))
                until[name] = forgotten
        return type(self)(until, awaited, tuple(lost), now_s)

    @property
    def since(self) -> int:
        """The first second to read again; 0 before the first read."""
        return min((*self.until.values(), *self.awaited.values()), default=self.read_s or 0)

    @property
    def late(self) -> dict[str, int]:
        """Replicas that should have reported more than FRESH_S seconds ago -> by how many."""
        now_s = self.read_s or 0
        behind = {name: now_s - second for name, second in self.until.items()}
        return {name: seconds for name, seconds in behind.items() if seconds > FRESH_S}

    def complete(self, first: int, last: int) -> list[int]:
        """The seconds from `first` to `last` - 1 that all replicas have reported."""
        end = min(last, *self.until.values()) if self.until else last
        return [
            second
            for second in range(first, end)
            if not any(begin <= second < over for begin, over in self.lost)
        ]

"""The queue in front of a pool: a free replica takes the earliest deadline of its models.

It belongs to one event loop and knows nothing of Ray.
"""

import asyncio
import heapq
from collections.abc import Mapping
from itertools import count
from typing import Self


class LateQueue:
    """Requests that wait, and the replicas that are free.

    limit : requests that a replica has at once.
    """

    def __init__(self, limit: int = 1):
        self._limit = limit
        self._holds: dict[str, frozenset[str]] = {}  # replica -> jobs whose models it holds
        self._inside: dict[str, int] = {}  # replica -> requests that it has
        self._free: dict[str, None] = {}  # free replicas, longest free first
        # job -> heap of (deadline, number, future of the replica)
        self._waiting: dict[str, list[tuple[float, int, asyncio.Future[str]]]] = {}
        self._number = count()

    def update(self, holds: Mapping[str, frozenset[str]]) -> None:
        """Note the replicas that run, and the jobs whose models they hold."""
        self._holds = dict(holds)
        # A replica that is gone may come back while it still has requests.
        self._inside = {name: n for name, n in self._inside.items() if n or name in holds}
        self._free = {name: None for name in self._free if name in holds}
        for name in holds:
            if self._inside.setdefault(name, 0) < self._limit:
                self._free.setdefault(name)
        for name in list(self._free):
            self._match(name)

    def note(self, replica: str, holds: frozenset[str]) -> None:
        """Note what one running replica holds."""
        if self._holds.get(replica, holds) != holds:
            self._holds[replica] = holds
            self._match(replica)

    def forget(self, replica: str) -> None:
        """Send nothing to a replica until the next `update` that has it."""
        self._holds.pop(replica, None)
        self._free.pop(replica, None)

    async def take(self, job: str, deadline_s: float) -> str:
        """Wait for a replica that holds the job's model, and return its name."""
        for name in self._free:
            if job in self._holds[name]:
                self._begin(name)
                return name
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting.setdefault(job, []), (deadline_s, next(self._number), future))
        try:
            return await future
        except asyncio.CancelledError:
            # A replica may have been given to a request whose client has just gone.
            if future.done() and not future.cancelled():
                self.give_back(future.result())
            raise

    def give_back(self, replica: str) -> None:
        """The replica has one request less."""
        self._inside[replica] -= 1
        if replica in self._holds:
            self._free.setdefault(replica)
            self._match(replica)
        elif not self._inside[replica]:
            del self._inside[replica]

    def _begin(self, replica: str) -> None:
        self._inside[replica] += 1
        del self._free[replica]
        if self._inside[replica] < self._limit:
            self._free[replica] = None

    def _match(self, replica: str) -> None:
        """Give the replica waiting requests while it is free, the earliest deadline first."""
        while replica in self._free:
            heads = [job for job in self._holds[replica] if self._head(job) is not None]
            if not heads:
                return
            _, _, future = heapq.heappop(min((self._waiting[job] for job in heads), key=_first))
            self._begin(replica)
            future.set_result(replica)

    def _head(self, job: str) -> tuple[float, int] | None:
        """Deadline and number of a job's first waiting request; None if none waits."""
        heap = self._waiting.get(job, [])
        while heap and heap[0][2].done():  # its client has gone
            heapq.heappop(heap)
        return heap[0][:2] if heap else None


def _first(heap: list[tuple[float, int, asyncio.Future[str]]]) -> tuple[float, int]:
    return heap[0][:2]


class Place:
    """A context in which a request has a replica, whose name is `replica`."""

    def __init__(self, queue: LateQueue, job: str, deadline_s: float):
        self._queue = queue
        self._wanted = job, deadline_s
        self.replica = ""

    async def __aenter__(self) -> Self:
        self.replica = await self._queue.take(*self._wanted)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.replica:
            self._queue.give_back(self.replica)

    async def change(self) -> None:
        """Give the replica back and wait for one again, with the same deadline."""
        self._queue.give_back(self.replica)
        self.replica = ""
        self.replica = await self._queue.take(*self._wanted)

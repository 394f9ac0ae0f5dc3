"""The queue in front of a pool: a free replica takes the earliest deadline of its models.

A replica that is about to be free gets its next request a little earlier, so that it does not idle
while the answer travels to the queue and the next request back. It belongs to one event loop and
knows nothing of Ray.
"""

import asyncio
import heapq
import math
from collections.abc import Callable, Mapping
from itertools import count
from typing import Self


def when_it_ends(job: str) -> float:
    """A replica gets its next request when the one before has ended."""
    return math.inf


class Place:
    """A context in which a request has a replica, whose name is `replica`.

    ahead : the replica still serves the request before.
    """

    def __init__(self, queue: "LateQueue", job: str, deadline_s: float):
        self._queue = queue
        self.job = job
        self.deadline_s = deadline_s
        self.replica = ""
        self.ahead = False

    async def __aenter__(self) -> Self:
        await self._queue.take(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.replica:
            self._queue.give_back(self)

    async def change(self) -> None:
        """Give the replica back and wait for one again, with the same deadline."""
        self._queue.give_back(self)
        await self._queue.take(self)


class LateQueue:
    """Requests that wait, and the replicas that are free.

    A replica is free if it has no request, or one that began long enough ago. So it has at most two
    requests.

    free_after_s : seconds after a request of a job begins until its replica is free for the next
        one; infinity: it is free when the request has ended.
    """

    def __init__(self, free_after_s: Callable[[str], float] = when_it_ends):
        self._free_after_s = free_after_s
        self._holds: dict[str, frozenset[str]] = {}  # replica -> jobs whose models it holds
        self._inside: dict[str, list[Place]] = {}  # replica -> its requests, the first in service
        self._free: dict[str, None] = {}  # free replicas, longest free first
        # job -> heap of (deadline, number, place, future that is done when it has a replica)
        self._waiting: dict[str, list[tuple[float, int, Place, asyncio.Future[None]]]] = {}
        self._number = count()

    def update(self, holds: Mapping[str, frozenset[str]]) -> None:
        """Note the replicas that run, and the jobs whose models they hold."""
        self._holds = dict(holds)
        # A replica that is gone may come back while it still has requests.
        self._inside = {name: has for name, has in self._inside.items() if has or name in holds}
        self._free = {name: None for name in self._free if name in holds}
        for name in holds:
            if not self._inside.setdefault(name, []):
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

    async def take(self, place: Place) -> None:
        """Wait for a replica that holds the model of the place's job, and give it to the place."""
        # Replicas without any request come first; sorting keeps the order among equals.
        for name in sorted(self._free, key=lambda name: len(self._inside[name])):
            if place.job in self._holds[name]:
                self._give(name, place)
                return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(place.job, [])
        heapq.heappush(waiting, (place.deadline_s, next(self._number), place, future))
        try:
            await future
        except asyncio.CancelledError:
            # A replica may have been given to a request whose client has just gone.
            if future.done() and not future.cancelled():
                self.give_back(place)
            raise

    def give_back(self, place: Place) -> None:
        """The place's request has ended, or will not be served there."""
        replica, place.replica = place.replica, ""
        inside = self._inside[replica]
        inside.remove(place)
        if replica not in self._holds:
            if not inside:
                del self._inside[replica]
        elif inside and inside[0].ahead:
            self._begin(inside[0])
        else:
            self._free.setdefault(replica)
            self._match(replica)

    def _give(self, replica: str, place: Place) -> None:
        inside = self._inside[replica]
        del self._free[replica]
        place.replica = replica
        place.ahead = bool(inside)
        inside.append(place)
        if not place.ahead:
            self._begin(place)

    def _begin(self, place: Place) -> None:
        """The request is the first of its replica now."""
        place.ahead = False
        after_s = self._free_after_s(place.job)
        if after_s < math.inf:
            loop = asyncio.get_running_loop()
            loop.call_later(after_s, self._soon_free, place.replica, place)

    def _soon_free(self, replica: str, place: Place) -> None:
        if self._inside.get(replica) == [place] and replica in self._holds:
            self._free.setdefault(replica)
            self._match(replica)

    def _match(self, replica: str) -> None:
        """Give the replica to a waiting request if it is free, the earliest deadline first."""
        while replica in self._free:
            heads = [job for job in self._holds[replica] if self._head(job) is not None]
            if not heads:
                return
            first = min((self._waiting[job] for job in heads), key=_first)
            _, _, place, future = heapq.heappop(first)
            self._give(replica, place)
            future.set_result(None)

    def _head(self, job: str) -> tuple[float, int] | None:
        """Deadline and number of a job's first waiting request; None if none waits."""
        heap = self._waiting.get(job, [])
        while heap and heap[0][3].done():  # its client has gone
            heapq.heappop(heap)
        return heap[0][:2] if heap else None


def _first(heap: list[tuple[float, int, Place, asyncio.Future[None]]]) -> tuple[float, int]:
    return heap[0][:2]

"""A second implementation of pools of replicas: one event queue, no arrays, nothing of ours.

It follows the rules in docs/design.md and in the docstrings of `faro_lib.simulate`, one event and
one replica at a time. Which row of a placement a replica follows is passed in, because several
choices can be equally good. `PoolWorld` has serial replicas, `ConcurrentWorld` and `BatchedWorld`
the other kinds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import floor, inf

from reference_simulator import Clock, ConcurrentReplica, Request, Router

# The order of events at equal times; a request passes the router as in `reference_simulator`.
PASS, SERVICE, BATCH, LOAD, SCRIPT = 1, 2, 2.5, 3, 4


@dataclass(eq=False)
class Replica:
    number: int
    home: int
    holds: set[int]
    row: set[int]
    free_since: tuple
    alive: bool = True
    free_s: float = -inf  # batched: when it became free
    slots: ConcurrentReplica | None = None  # concurrent: what it serves
    serving: tuple[int, Request] | None = None
    queue: list[tuple[int, Request]] = field(default_factory=list)
    loading: tuple[float, int] | None = None
    used_s: dict[int, float] = field(default_factory=dict)
    history: list[tuple[float, int]] = field(default_factory=list)  # requests inside, from when
    sent: list[tuple[float, int]] = field(default_factory=list)  # (time, gateway)

    def inside(self):
        return len(self.queue) + (self.serving is not None)


class PoolWorld:
    """One pool, whose replicas a script adds, removes and gives other models.

    Parameters
    ----------
    requests : for each job its requests, by arrival.
    slo_s, load_s, memory_of, places : of each job.
    models, memory_gib : what a replica holds; memory_gib is inf if it is not stated.
    router : "late", "early" or "lru", with its `age_s` and `gateways`.
    script : (time, action, argument) tuples: "add", None; "remove", None; "drop", rates;
        "place", (homes, rows, the row of each replica, oldest first).
    """

    def __init__(
        self,
        requests,
        slo_s,
        load_s,
        memory_of,
        places,
        models,
        memory_gib,
        router,
        age_s,
        gateways,
        queue_limit,
        has_router,
        script,
    ):
        self.clock = Clock()
        self.requests = requests
        self.slo_s, self.load_s, self.memory_of, self.places = slo_s, load_s, memory_of, places
        self.models, self.memory_gib = models, memory_gib
        self.router, self.age_s, self.gateways = router, age_s, gateways
        self.queue_limit, self.has_router = queue_limit, has_router
        self.jobs = range(len(requests))
        self.routers = [Router(self.clock) for _ in self.jobs]
        self.waiting = [deque() for _ in self.jobs]
        self.drop = [0.0] * len(requests)
        self.replicas: list[Replica] = []  # oldest first
        self.born = 0
        self.freed = 0
        self.turn = 0
        self.routed = 0
        self.homes: list[int] = []
        self.rows: list[set[int]] = []
        self.followed: list[int] = []
        for job, own in enumerate(requests):
            for request in own:
                self.clock.at(
                    request.arrival_s, 0, lambda j=job, r=request: self._arrive(j, r), tie=job
                )
        for at_s, action, argument in script:
            do = getattr(self, "_script_" + action)
            if at_s == -inf:
                self.clock.now_s = at_s
                do(argument)
            else:
                self.clock.at(at_s, SCRIPT, lambda d=do, a=argument: d(a))

    def run(self):
        self.clock.run(lambda: False)
        return [[request.latency_s for request in own] for own in self.requests]

    # Requests.

    def _through(self, job, passes_s, then):
        if self.has_router:
            self.routers[job].enter(passes_s, then)
        else:
            then()

    def _arrive(self, job, request):
        self._through(job, request.router_in_s, lambda: self._passed(job, request))

    def _passed(self, job, request):
        if request.coin < self.drop[job] or not self._route(job, request):
            request.dropped = True
            self._leave(job, request)

    def _leave(self, job, request):
        self._through(job, request.router_out_s, lambda: self._end(request))

    def _end(self, request):
        request.latency_s = inf if request.dropped else self.clock.now_s - request.arrival_s

    def _deadline_s(self, job, request):
        return request.arrival_s + self.slo_s[job]

    def _waits(self, job):
        queued = sum(own == job for replica in self._all() for own, _ in replica.queue)
        return len(self.waiting[job]) + queued

    def _all(self):
        return self.replicas

    def _route(self, job, request):
        """Send a request to a replica, or let it wait; False if too many wait."""
        replica = self._choice(job)
        if replica is not None and replica.serving is None:
            self._begin(replica, job, request)
            return True
        if self._waits(job) > self.queue_limit:
            return False
        if replica is None:
            self.waiting[job].append(request)
            return True
        replica.queue.append((job, request))
        if self.router == "early":
            replica.queue.sort(key=lambda entry: self._deadline_s(*entry))
        self._note(replica)
        return True

    def _choice(self, job):
        holders = [replica for replica in self.replicas if job in replica.holds]
        if self.router == "late":
            free = [replica for replica in holders if replica.serving is None]
            return min(free, key=lambda r: (r.home != job, r.free_since), default=None)
        gateway = self.routed % self.gateways
        self.routed += 1
        if self.router == "early":
            chosen = self._fewest(holders, gateway)
        else:
            room = [r for r in holders if self._known(r, gateway) < self.places[job]]
            chosen = self._fewest(room or self.replicas, gateway)
        if chosen and (chosen.serving is None or self._waits(job) <= self.queue_limit):
            chosen.sent.append((self.clock.now_s, gateway))
        return chosen

    def _fewest(self, candidates, gateway):
        in_turn = self.replicas[self.turn :] + self.replicas[: self.turn]
        candidates = [replica for replica in in_turn if replica in candidates]
        if not candidates:
            return None
        chosen = min(candidates, key=lambda replica: self._known(replica, gateway))
        self.turn = (self.replicas.index(chosen) + 1) % len(self.replicas)
        return chosen

    def _known(self, replica, gateway):
        if self.age_s == 0:
            return replica.inside()
        counted_s = floor(self.clock.now_s / self.age_s) * self.age_s
        before = [inside for at_s, inside in replica.history if at_s < counted_s]
        since = [1 for at_s, by in replica.sent if at_s >= counted_s and by == gateway]
        return (before[-1] if before else 0) + len(since)

    def _note(self, replica):
        replica.history.append((self.clock.now_s, replica.inside()))

    def _begin(self, replica, job, request):
        takes_s = request.service_s
        if self.router == "lru":
            if job not in replica.holds:
                takes_s += self.load_s[job]
                while not self._fits(replica.holds | {job}, self.models):
                    replica.holds.remove(min(replica.holds, key=lambda m: (replica.used_s[m], m)))
                replica.holds.add(job)
            replica.used_s[job] = self.clock.now_s
        replica.serving = (job, request)
        self._note(replica)
        at_s = self.clock.now_s + takes_s
        self.clock.at(at_s, SERVICE, lambda: self._complete(replica), tie=replica.number)

    def _complete(self, replica):
        job, request = replica.serving
        replica.serving = None
        self.freed += 1
        replica.free_since = (self.freed,)
        self._note(replica)
        if self.router == "late":
            self._take(replica)
        elif replica.queue:
            self._begin(replica, *replica.queue.pop(0))
        self._leave(job, request)

    def _take(self, replica):
        """LATE: a free replica takes the earliest deadline of the requests that it can serve."""
        jobs = [job for job in self.jobs if self.waiting[job] and job in replica.holds]
        if jobs and replica.alive:
            job = min(jobs, key=lambda job: self._deadline_s(job, self.waiting[job][0]))
            self._begin(replica, job, self.waiting[job].popleft())

    # Replicas.

    def _script_drop(self, rates):
        self.drop = rates

    def _script_add(self, _):
        row = min(set(range(len(self.rows))) - set(self.followed))
        self.freed += 1
        replica = Replica(
            self.born, self.homes[row], set(self.rows[row]), self.rows[row], (self.freed,)
        )
        replica.used_s = dict.fromkeys(self.jobs, self.clock.now_s)
        replica.free_s = self.clock.now_s
        self.born += 1
        self.replicas.append(replica)
        self.followed.append(row)
        self.turn = 0
        self._settle()

    def _script_remove(self, _):
        replica = self.replicas.pop()
        self.followed.pop()
        replica.alive = False
        replica.loading = None
        self.turn = 0
        queue, replica.queue = replica.queue, []
        self._note(replica)
        for entry in queue:
            self._route(*entry)

    def _script_place(self, wish):
        self.homes, self.rows, self.followed = wish
        self.followed = list(self.followed)
        for replica, row in zip(self.replicas, self.followed):
            replica.home, replica.row = self.homes[row], self.rows[row]
            if replica.loading and replica.loading[1] not in replica.row:
                replica.loading = None
        self._settle()

    def _fits(self, models, most):
        return (
            len(models) <= most
            and sum(self.memory_of[model] for model in models) <= self.memory_gib + 1e-9
        )

    def _may_drop(self, replica, model):
        elsewhere = any(model in other.holds for other in self.replicas if other is not replica)
        return elsewhere or not any(model in row for row in self.rows)

    def _settle(self):
        if self.router != "lru":
            for replica in self.replicas:
                if replica.loading is None:
                    self._change(replica)
        if self.router == "late":
            self._serve_waiting()
            return
        able = [
            job
            for job in self.jobs
            if any(job in replica.holds for replica in self.replicas)
            or (self.router == "lru" and self.replicas)
        ]
        ready = []
        while waiting := [job for job in able if self.waiting[job]]:
            job = min(waiting, key=lambda job: self._deadline_s(job, self.waiting[job][0]))
            ready.append((job, self.waiting[job].popleft()))
        for entry in ready:
            self._route(*entry)

    def _serve_waiting(self):
        free = [replica for replica in self.replicas if replica.serving is None]
        for replica in sorted(free, key=lambda replica: replica.free_since):
            self._take(replica)

    def _change(self, replica):
        missing = sorted(replica.row - replica.holds, key=lambda m: (m != replica.home, m))
        surplus = sorted(replica.holds - replica.row)
        surplus = [model for model in surplus if self._may_drop(replica, model)]
        if not missing:
            for model in surplus:
                self._drop(replica, model)
            return
        for going in range(len(surplus) + 1):
            if self._fits(replica.holds - set(surplus[:going]) | {missing[0]}, self.models + 1):
                for model in surplus[:going]:
                    self._drop(replica, model)
                self._load(replica, missing[0])
                return

    def _load(self, replica, model):
        end_s = self.clock.now_s + self.load_s[model]
        loading = replica.loading = (end_s, model)
        self.clock.at(end_s, LOAD, lambda: self._loaded(replica, loading), tie=replica.number)

    def _loaded(self, replica, loading):
        if replica.loading is loading:
            replica.loading = None
            replica.holds.add(loading[1])
            self._settle()

    def _drop(self, replica, model):
        replica.holds.remove(model)
        moving = [entry for entry in replica.queue if entry[0] == model]
        replica.queue = [entry for entry in replica.queue if entry[0] != model]
        self._note(replica)
        for entry in moving:
            self._route(*entry)


class ConcurrentWorld(PoolWorld):
    """Late binding to replicas that serve up to `at_once` requests, slower if there are several."""

    def __init__(self, kinds, *arguments):
        self.kinds = kinds  # the fields of each job's replica
        super().__init__(*arguments)

    def _inside(self, replica):
        return len(replica.slots.line) if replica.slots else 0

    def _has_room(self, replica):
        return self._inside(replica) < self.kinds[0]["at_once"]

    def _route(self, job, request):
        replica = min(
            (r for r in self.replicas if job in r.holds and self._has_room(r)),
            key=lambda r: (self._inside(r), r.home != job, r.free_since),
            default=None,
        )
        if replica is None and len(self.waiting[job]) > self.queue_limit:
            return False
        if replica is None:
            self.waiting[job].append(request)
        else:
            self._begin(replica, job, request)
        return True

    def _begin(self, replica, job, request):
        if replica.slots is None:
            replica.slots = ConcurrentReplica(
                self.clock, replica.number, lambda done: self._served(replica, done), self.kinds[0]
            )
        request.job = job
        replica.slots.accept(request)
        self._note_event(replica)

    def _note_event(self, replica):
        self.freed += 1
        replica.free_since = (self.freed,)

    def _served(self, replica, done):
        self._note_event(replica)
        self._take(replica)
        for request in done:
            self._leave(request.job, request)

    def _serve_waiting(self):
        while True:
            before = sum(map(len, self.waiting))
            for replica in sorted(self.replicas, key=lambda replica: replica.free_since):
                if self._has_room(replica):
                    self._take(replica)
                if sum(map(len, self.waiting)) < before:
                    break
            else:
                return


class BatchedWorld(PoolWorld):
    """Late binding to replicas that serve a batch of requests of one job at a time."""

    def __init__(self, kinds, *arguments):
        self.kinds = kinds
        self.most, self.wait_s = kinds[0]["max_batch"], kinds[0]["wait_s"]
        super().__init__(*arguments)

    def _route(self, job, request):
        replica = self._choice(job)
        room = self.queue_limit + self.most - 1  # for a batch beside the queue
        if replica is None and len(self.waiting[job]) > room:
            return False
        request.entered_s = self.clock.now_s
        self.waiting[job].append(request)
        if replica and (self.wait_s == 0 or len(self.waiting[job]) >= self.most):
            self._begin_batch(replica, job)
        self._plan_batches()
        return True

    def _begin_batch(self, replica, job):
        queue = self.waiting[job]
        batch = [queue.popleft() for _ in range(min(len(queue), self.most))]
        replica.serving = (job, batch)
        takes_s = self.kinds[job]["batch_s"][len(batch) - 1] * batch[0].service_s
        at_s = self.clock.now_s + takes_s
        self.clock.at(at_s, SERVICE, lambda: self._complete(replica), tie=replica.number)

    def _complete(self, replica):
        job, batch = replica.serving
        replica.serving = None
        self.freed += 1
        replica.free_since, replica.free_s = (self.freed,), self.clock.now_s
        self._take(replica)
        for request in batch:
            self._leave(job, request)
        self._plan_batches()

    def _at_latest_s(self, replica, job):
        return max(replica.free_s, self.waiting[job][0].entered_s) + self.wait_s

    def _take(self, replica):
        ready = [
            job
            for job in self.jobs
            if self.waiting[job]
            and job in replica.holds
            and (
                len(self.waiting[job]) >= self.most
                or self._at_latest_s(replica, job) <= self.clock.now_s
            )
        ]
        if ready and replica.alive:
            self._begin_batch(
                replica, min(ready, key=lambda job: self._deadline_s(job, self.waiting[job][0]))
            )

    def _due_s(self, job):
        """When the job's next batch starts, full or not; inf without waiting or free replicas."""
        free = [r for r in self.replicas if r.serving is None and job in r.holds]
        if not free or not self.waiting[job]:
            return inf
        return min(self._at_latest_s(replica, job) for replica in free)

    def _plan_batches(self):
        for job in self.jobs:
            due_s = self._due_s(job)
            if due_s < inf:
                self.clock.at(
                    due_s, BATCH, lambda j=job, d=due_s: self._start_if_due(j, d), tie=job
                )

    def _start_if_due(self, job, planned_s):
        if self._due_s(job) == planned_s:
            self._begin_batch(self._choice(job), job)
            self._plan_batches()

    def _serve_waiting(self):
        super()._serve_waiting()
        self._plan_batches()

    def _script_remove(self, argument):
        super()._script_remove(argument)
        self._plan_batches()


WORLDS = {"concurrent": ConcurrentWorld, "batched": BatchedWorld}

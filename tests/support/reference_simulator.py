"""A second implementation of the paper's simulator: one event queue, no arrays, nothing of ours.

It follows the description of the authors' simulator (EuroSys'25, section 6, and the published
artifact), so that the compiled one can be compared with it request by request. All randomness is
passed in.

Where the description says nothing, both assume: a replica starts before the controller observes at
the same time; of a job's idle pods the one idle longest is reused first; jobs that retry at the
same time do so in file order; of replicas with an event at the same time, that in the lower slot
comes first. A new replica takes the lowest slot that is empty.

The kinds of replica other than serial are written here from their definition (docs/replicas.md),
one event at a time.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field
from math import inf

QUEUE_LIMIT = 50
REUSE_S = 3
COLD_START_S = 35
RETRY_S = 5
IDLE_S = 30
CHECK_S = 5
WINDOW_S = 30
# The order of events at equal times.
ARRIVAL, ROUTER, SERVICE, BIRTH, CONTROLLER, COLLECTION, RETRY = range(7)


@dataclass(eq=False)
class Request:
    arrival_s: float
    router_in_s: float
    service_s: float
    router_out_s: float
    coin: float
    prompt_tokens: int = 1
    output_tokens: int = 1
    entered_s: float = 0.0  # into its replica
    finish_at: float = 0.0  # service attained (concurrent) or iteration (continuous) at its end
    first_token_s: float = 0.0
    dropped: bool = False
    latency_s: float | None = None


@dataclass
class Observed:
    """What the controller observes of every job before it acts."""

    now_s: float
    running: list[int]
    terminating: list[int]
    changing: list[bool]
    ongoing: list[int]
    mean_latency_s: list[float]


class Clock:
    def __init__(self):
        self.now_s = 0.0
        self._events: list = []
        self._order = itertools.count()

    def at(self, time_s, kind, action, tie=0):
        heapq.heappush(self._events, (time_s, kind, tie, next(self._order), action))

    def run(self, until_done):
        while self._events and not until_done():
            self.now_s, _, _, _, action = heapq.heappop(self._events)
            action()


class Router:
    """One server, first in first out, for requests on their way in and answers on their way out."""

    def __init__(self, clock):
        self.clock = clock
        self.line = deque()

    def enter(self, service_s, then):
        self.line.append((service_s, then))
        if len(self.line) == 1:
            self._begin()

    def _begin(self):
        self.clock.at(self.clock.now_s + self.line[0][0], ROUTER, self._leave)

    def _leave(self):
        _, then = self.line.popleft()
        if self.line:
            self._begin()
        then()


class Replica:
    """A serial replica. It calls `served` with requests that leave, which refills free places."""

    def __init__(self, clock, slot, served, kind):
        self.clock = clock
        self.slot = slot
        self.served = served
        self.kind = kind
        self.line: list[Request] = []
        self.planned = 0  # events planned; only the last one takes place

    def accept(self, request):
        request.entered_s = self.clock.now_s
        self.line.append(request)
        if len(self.line) == 1:
            self._begin()

    def plan(self, at_s, action):
        self.planned += 1
        number = self.planned
        self.clock.at(
            at_s, SERVICE, lambda: action() if number == self.planned else None, tie=self.slot
        )

    def _begin(self):
        self.plan(self.clock.now_s + self.line[0].service_s, self._complete)

    def _complete(self):
        request = self.line.pop(0)
        if self.line:
            self._begin()
        self.served([request])


class ConcurrentReplica(Replica):
    """Up to at_once requests in service, each at speed 1 / (1 + slowdown (n - 1))."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.serving: list[Request] = []
        self.attained_s = 0.0
        self.since_s = 0.0

    def _slower(self):
        return 1 + self.kind["slowdown"] * (len(self.serving) - 1)

    def accept(self, request):
        self.line.append(request)
        if len(self.serving) < self.kind["at_once"]:
            elapsed_s = self.clock.now_s - self.since_s
            self.attained_s = self.attained_s + elapsed_s / self._slower() if self.serving else 0.0
            self.since_s = self.clock.now_s
            self._enter_service(request)
            self._plan_next()

    def _enter_service(self, request):
        request.finish_at = self.attained_s + request.service_s
        self.serving.append(request)

    def _plan_next(self):
        if self.serving:
            left_s = max(min(request.finish_at for request in self.serving) - self.attained_s, 0.0)
            self.plan(self.clock.now_s + left_s * self._slower(), self._complete)

    def _complete(self):
        # Of equal ones, the one that entered first.
        first = min(self.serving, key=lambda request: request.finish_at)
        self.attained_s = first.finish_at
        self.since_s = self.clock.now_s
        self.serving.remove(first)
        self.line.remove(first)
        if len(self.line) > len(self.serving):
            self._enter_service(self.line[len(self.serving)])
        self._plan_next()
        self.served([first])


class BatchedReplica(Replica):
    """One batch of up to max_batch requests, `wait_s` after the replica is free and holds one."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.batch: list[Request] = []
        self.free_s = 0.0
        self.refilling = False

    def accept(self, request):
        request.entered_s = self.clock.now_s
        self.line.append(request)
        if not self.batch and not self.refilling:
            full = len(self.line) >= self.kind["max_batch"]
            self.plan(self.clock.now_s if full else self._at_latest_s(), self._begin)

    def _at_latest_s(self):
        return max(self.free_s, self.line[0].entered_s) + self.kind["wait_s"]

    def _begin(self):
        self.batch = self.line[: self.kind["max_batch"]]
        duration_s = self.kind["batch_s"][len(self.batch) - 1] * self.batch[0].service_s
        self.plan(self.clock.now_s + duration_s, self._complete)

    def _complete(self):
        done = self.batch
        self.batch = []
        self.free_s = self.clock.now_s
        del self.line[: len(done)]
        self.refilling = True
        self.served(done)
        self.refilling = False
        if len(self.line) >= self.kind["max_batch"] or (
            self.line and self._at_latest_s() <= self.clock.now_s
        ):
            self._begin()
        elif self.line:
            self.plan(self._at_latest_s(), self._begin)


class ContinuousReplica(Replica):
    """Iterations, each of which gives a token to every running sequence."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.running: list[Request] = []
        self.admitted: list[Request] = []
        self.tokens_left: dict[int, int] = {}
        self.busy = False

    def accept(self, request):
        self.line.append(request)
        if not self.busy:
            self.busy = True
            self.plan(self.clock.now_s, self._begin)

    def _begin(self):
        self.admitted = []
        prompts = 0
        for request in self.line[len(self.running) :]:
            n = len(self.running) + len(self.admitted)
            if n >= self.kind["max_sequences"]:
                break
            if n > 0 and prompts + request.prompt_tokens > self.kind["max_tokens"]:
                break
            prompts += request.prompt_tokens
            self.admitted.append(request)
            self.tokens_left[id(request)] = request.output_tokens
        self.running += self.admitted
        self.busy = bool(self.running)
        if self.busy:
            n = len(self.running)
            length_s = self.kind["alpha_s"] + self.kind["beta_s"] * n
            length_s += sum(extra_s * max(n - at, 0) for at, extra_s in self.kind["beta_knees"])
            length_s += self.kind["gamma_s"] * prompts
            for at, extra_s in self.kind["gamma_knees"]:
                length_s += extra_s * max(prompts - at, 0)
            self.plan(self.clock.now_s + length_s, self._end)

    def _end(self):
        for request in self.admitted:
            request.first_token_s = self.clock.now_s
        for request in self.running:
            self.tokens_left[id(request)] -= 1
        done = [request for request in self.running if self.tokens_left[id(request)] == 0]
        self.running = [request for request in self.running if request not in done]
        self.line = [request for request in self.line if request not in done]
        if done:
            self.served(done)
        self._begin()


KINDS = {
    "serial": Replica,
    "concurrent": ConcurrentReplica,
    "batched": BatchedReplica,
    "continuous": ContinuousReplica,
}


class Service:
    """One job: router, queue, dispatcher, replicas."""

    def __init__(self, clock, requests, permutation, kind, places):
        self.clock = clock
        self.requests = requests
        self.permutation = permutation
        self.kind = kind
        self.places = places
        self.router = Router(clock)
        self.queue = deque()
        self.held = None
        self.drop = 0.0
        self.replicas: list[Replica] = []  # oldest first
        self.retired: list[Replica] = []
        self.order: list[Replica] = []
        self.turn = 0
        self.ended: list[tuple[float, float]] = []  # (time, time in the system)
        for request in requests:
            clock.at(request.arrival_s, ARRIVAL, lambda request=request: self._arrive(request))

    def add_replica(self):
        self.retired = [replica for replica in self.retired if replica.line]
        taken = {replica.slot for replica in self.replicas + self.retired}
        slot = next(slot for slot in itertools.count() if slot not in taken)
        self.replicas.append(KINDS[self.kind["kind"]](self.clock, slot, self._served, self.kind))
        self._shuffle()

    def remove_newest_replica(self):
        self.retired.append(self.replicas.pop())
        self._shuffle()

    def _shuffle(self):
        self.order = [self.replicas[i] for i in self.permutation(len(self.replicas))]
        self.turn = 0

    def _arrive(self, request):
        self.router.enter(request.router_in_s, lambda: self._passed(request))

    def _passed(self, request):
        if request.coin < self.drop or len(self.queue) > QUEUE_LIMIT:
            request.dropped = True
            self._leave(request)
            return
        self.queue.append(request)
        if self.held is None:
            self._dispatch()

    def _served(self, requests):
        for request in requests:
            self._leave(request)
        self._dispatch()

    def _leave(self, request):
        left_s = self.clock.now_s
        self.router.enter(request.router_out_s, lambda: self._end(request, left_s))

    def _end(self, request, left_s):
        spent_s = self.clock.now_s - request.arrival_s
        slo_on = "end_to_end" if request.dropped else self.kind.get("slo_on", "end_to_end")
        if slo_on != "end_to_end":
            later = request.output_tokens - 1
            limited_s = {
                "first_token": request.first_token_s - request.arrival_s,
                "per_token": (left_s - request.first_token_s) / later if later else 1e-9,
            }
            weighted_s = self.kind.get("per_token_weight", 0.0) * limited_s["per_token"]
            limited_s["both"] = max(limited_s["first_token"], weighted_s)
            spent_s = limited_s[slo_on]
        request.latency_s = inf if request.dropped else spent_s
        self.ended.append((self.clock.now_s, spent_s))

    def _dispatch(self):
        while self.held is not None or self.queue:
            if self.held is None:
                self.held = self.queue.popleft()
            replica = self._next_with_room()
            if replica is None:
                return
            replica.accept(self.held)
            self.held = None

    def _next_with_room(self):
        for _ in self.order:
            replica = self.order[self.turn]
            self.turn = (self.turn + 1) % len(self.order)
            if len(replica.line) < self.places:
                return replica
        return None

    def inside(self):
        lines = sum(len(replica.line) for replica in self.replicas + self.retired)
        return len(self.queue) + (self.held is not None) + lines

    def mean_latency_s(self):
        recent = [
            spent
            for at, spent in self.ended
            if self.clock.now_s - WINDOW_S <= at < self.clock.now_s
        ]
        return sum(recent) / len(recent) if recent else 0.0


@dataclass
class Pods:
    tenths: int  # of a core, a replica
    target: int
    starting: int = 0
    waiting: int = 0
    idle_since_s: list[float] = field(default_factory=list)
    removed_s: float = -inf


class Cluster:
    """All jobs in one capacity, and a controller that follows a schedule.

    Parameters
    ----------
    requests : for each job its requests, by arrival.
    tenths, capacity_tenths : cores of each job's replica and of the cluster, in tenths.
    schedule : (time, wanted replicas, drop rates, attempts) tuples; at each time, the controller
        observes, clamps and acts.
    permutations : for each job a callable n -> order of 0..n-1.
    kinds : for each job a mapping with its kind of replica and the parameters of it.
    places : for each job the most requests in a replica.
    """

    def __init__(
        self, requests, tenths, capacity_tenths, initial, schedule, permutations, kinds, places
    ):
        self.clock = clock = Clock()
        self.capacity_tenths = capacity_tenths
        self.services = [Service(clock, *own) for own in zip(requests, permutations, kinds, places)]
        self.pods = [Pods(cores, target) for cores, target in zip(tenths, initial)]
        self.carried: dict[int, tuple[int, int]] = {}  # job -> (wanted, attempts left)
        self.seen: list[Observed] = []
        self.targets: list[list[int]] = []
        for service, replicas in zip(self.services, initial):
            for _ in range(replicas):
                service.add_replica()
        for now_s, wanted, drop, attempts in schedule:
            clock.at(now_s, CONTROLLER, lambda w=wanted, d=drop, t=attempts: self._control(w, d, t))
        clock.at(CHECK_S, COLLECTION, self._collect)

    def run(self):
        left = [request for service in self.services for request in service.requests]

        def finished():
            while left and left[-1].latency_s is not None:
                left.pop()
            return not left

        self.clock.run(finished)
        return [[request.latency_s for request in service.requests] for service in self.services]

    def used_tenths(self):
        return sum(
            (len(service.replicas) + pods.starting + len(pods.idle_since_s)) * pods.tenths
            for service, pods in zip(self.services, self.pods)
        )

    def changing(self, job):
        pods = self.pods[job]
        return bool(pods.starting or pods.waiting or self.clock.now_s < pods.removed_s + REUSE_S)

    def _control(self, wanted, drop, attempts):
        jobs = range(len(self.pods))
        self.seen.append(
            Observed(
                self.clock.now_s,
                [len(service.replicas) for service in self.services],
                [len(pods.idle_since_s) for pods in self.pods],
                [self.changing(job) for job in jobs],
                [service.inside() for service in self.services],
                [service.mean_latency_s() for service in self.services],
            )
        )
        for service, rate in zip(self.services, drop):
            service.drop = rate
        # An action is a job whose wanted replicas differ from its target; a newer one replaces what
        # was carried over.
        actions = dict(self.carried)
        fresh = []
        for job in jobs:
            if wanted[job] != self.pods[job].target and not (job in actions and attempts == 1):
                actions[job] = (wanted[job], attempts)
                fresh.append(job)
        self.carried = {}
        downs = [job for job in jobs if job in actions and actions[job][0] < self.pods[job].target]
        ups = [job for job in jobs if job in actions and actions[job][0] > self.pods[job].target]
        ups.sort(key=lambda job: job in fresh)
        # Scale-downs first, then actions carried over, then file order; the cluster acts after all
        # are clamped.
        clamped = [pods.target for pods in self.pods]
        for job in downs + ups:
            target, left = actions[job]
            if not self.changing(job):
                free = self.capacity_tenths - sum(
                    a * pods.tenths for a, pods in zip(clamped, self.pods)
                )
                clamped[job] = min(target, clamped[job] + max(0, free // self.pods[job].tenths))
            if clamped[job] != target and left > 1:
                self.carried[job] = (target, left - 1)
        self.targets.append(clamped)
        for job in jobs:
            if clamped[job] < self.pods[job].target:
                self._shrink(job, self.pods[job].target - clamped[job])
        for job in jobs:
            if clamped[job] > self.pods[job].target:
                self._grow(job, clamped[job] - self.pods[job].target)
        for pods, target in zip(self.pods, clamped):
            pods.target = target

    def _shrink(self, job, replicas):
        for _ in range(replicas):
            self.services[job].remove_newest_replica()
            self.pods[job].idle_since_s.append(self.clock.now_s)
        self.pods[job].removed_s = self.clock.now_s

    def _grow(self, job, replicas):
        pods = self.pods[job]
        now_s = self.clock.now_s
        pods.waiting = 0
        for _ in range(replicas):
            if pods.idle_since_s:
                pods.idle_since_s.pop(0)
                self._start(job, now_s + REUSE_S)
            elif self.used_tenths() + pods.tenths <= self.capacity_tenths:
                self._start(job, now_s + COLD_START_S)
            else:
                pods.waiting += 1
        if pods.waiting:
            self.clock.at(now_s + RETRY_S, RETRY, lambda: self._grow(job, pods.waiting), tie=job)

    def _start(self, job, at_s):
        self.pods[job].starting += 1
        self.clock.at(at_s, BIRTH, lambda: self._birth(job), tie=job)

    def _birth(self, job):
        self.pods[job].starting -= 1
        self.services[job].add_replica()

    def _collect(self):
        for pods in self.pods:
            pods.idle_since_s = [
                since for since in pods.idle_since_s if self.clock.now_s - since < IDLE_S
            ]
        self.clock.at(self.clock.now_s + CHECK_S, COLLECTION, self._collect)

"""The compiled event loop of the simulator. Replicas come and go only between calls of the loop.

Between decisions, jobs do not interact, so each job is advanced alone. A job has three kinds of
events: a request arrives, ends its first pass through the router, or is completed by a replica.
Simultaneous events are processed in this order. Simultaneous completions are processed in the order
of the replicas' slots in `Station`. A request passes the router, if there is one, before and after
service. The router is one FIFO server. The end of the first pass is therefore known when the
request arrives. `Station.head` and `Station.next_arrival` bound the requests in their first pass.

This module simulates replicas that serve one request at a time ("serial"). The module `replicas`
simulates concurrent and batching replicas. For jobs with such replicas, numba compiles a second
version of the loop, which calls `replicas`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from faro_lib.simulate import replicas

# Dispatch: round robin, the replica with the fewest requests, or any replica.
ROUTER, LEAST_OUTSTANDING, RANDOM = 0, 1, 2
NONE = -1
# Value of each field of `Station` in a slot without requests.
EMPTY_SLOT = {
    "order": 0,
    "inside": 0,
    "ring": 0,
    "ring_done_s": 0.0,
    "ring_head": 0,
    "next_done_s": np.inf,
    "last_done_s": 0.0,
}


class Requests(NamedTuple):
    """Arrival times, random numbers and latencies; the requests of job j begin at index first[j].

    latency_s is inf for a dropped request. While a request is in the system, its entry is minus the
    time when it leaves the router's first pass. This saves an array. A continuous replica may
    overwrite the entry at the first token.
    """

    first: np.ndarray
    arrival_s: np.ndarray
    router_in_s: np.ndarray
    service_s: np.ndarray
    router_out_s: np.ndarray
    coin: np.ndarray
    latency_s: np.ndarray
    elsewhere_s: float  # added to every latency


class Station(NamedTuple):
    """State of all jobs; a slot stores the requests in one replica. Shapes are (jobs,) or stated.

    Ring buffers of slots are (jobs, slots, places), where places is the largest of `places`.
    """

    next_arrival: np.ndarray  # index of the next request to arrive
    head: np.ndarray  # index of the next request to leave the router's first pass
    router_free_s: np.ndarray  # time at which the router is free; not used without a router
    drop: np.ndarray  # drop rate
    held: np.ndarray  # the first request in the queue, which waits for a replica with room, or NONE
    waiting: np.ndarray  # (jobs, queue length) requests queued behind `held`, a ring buffer
    waiting_head: np.ndarray  # position of the oldest request in `waiting`
    waiting_count: np.ndarray  # number of requests in `waiting`
    order: np.ndarray  # (jobs, slots) begins with the `active` slots, in the order of dispatch
    active: np.ndarray  # number of active slots: those of replicas that have not been removed
    turn: np.ndarray  # position in `order` of the slot to try next
    inside: np.ndarray  # (jobs, slots) number of requests in the slot, in service or queued
    ring: np.ndarray  # (jobs, slots, places) the requests in the slot, a ring buffer
    ring_done_s: np.ndarray  # (jobs, slots, places) completion times of these requests
    ring_head: np.ndarray  # (jobs, slots) position of the slot's oldest request in `ring`
    next_done_s: np.ndarray  # (jobs, slots) time of the slot's next event; inf if empty
    last_done_s: np.ndarray  # (jobs, slots) completion time of the newest request in the slot
    places: np.ndarray  # max_ongoing_requests of each of the job's replicas
    finished: np.ndarray  # (jobs, seconds) requests that ended, dropped or not, in each second
    finished_latency_s: np.ndarray  # (jobs, seconds) sum of the times that these were in the system


def new_station(
    slots: int, queue_length: int, places: np.ndarray, seconds: int, first: np.ndarray
) -> Station:
    """A `Station` without requests or replicas; the requests of job j begin at index first[j]."""
    jobs, most = len(places), int(places.max())

    def zeros(*shape, dtype=np.int64):
        return np.zeros((jobs, *shape), dtype)

    return Station(
        next_arrival=first[:-1].copy(),
        head=first[:-1].copy(),
        router_free_s=np.zeros(jobs),
        drop=np.zeros(jobs),
        held=np.full(jobs, NONE),
        waiting=zeros(queue_length),
        waiting_head=zeros(),
        waiting_count=zeros(),
        order=zeros(slots),
        active=zeros(),
        turn=zeros(),
        inside=zeros(slots),
        ring=zeros(slots, most),
        ring_done_s=zeros(slots, most, dtype=float),
        ring_head=zeros(slots),
        next_done_s=np.full((jobs, slots), np.inf),
        last_done_s=zeros(slots, dtype=float),
        places=places,
        finished=zeros(seconds),
        finished_latency_s=zeros(seconds, dtype=float),
    )


def with_slots(state: Any, slots: int, empty: Mapping[str, float], axis: int = 1) -> Any:
    """`state`, a tuple of named arrays, with slots added up to `slots`.

    `empty` has the fields with slots, which are along `axis`, and their values in an empty slot.
    """
    wider = {}
    for field, value in empty.items():
        array = getattr(state, field)
        added = [(0, 0)] * array.ndim
        added[axis] = (0, slots - array.shape[axis])
        wider[field] = np.pad(array, added, constant_values=value)
    return state._replace(**wider)


@njit(cache=True, inline="always")
def wrap(place, places):
    """`place` modulo `places`, for place < 2 * places. A division would double an event's time."""
    return place if place < places else place - places


@njit(cache=True, inline="always")
def _next_with_room(order, active, turn, inside, places):
    """Round robin: the next active slot with room, or NONE, and the next position in `order`."""
    for _ in range(active):
        slot = order[turn]
        turn = wrap(turn + 1, active)
        if inside[slot] < places:
            return slot, turn
    return NONE, turn


@njit(cache=True, inline="always")
def _least_outstanding(order, active, turn, inside, places):
    """The active slot with the fewest requests, or NONE if all are full, and the next position."""
    best, fewest, next_turn = NONE, places, turn
    for _ in range(active):
        slot = order[turn]
        turn = wrap(turn + 1, active)
        if inside[slot] < fewest:
            best, fewest, next_turn = slot, inside[slot], turn
    return best, next_turn


@njit(cache=True, inline="always")
def _any_replica(order, active, request, inside, places):
    """A replica that does not depend on the requests inside: (slot, 0); NONE if it has no room.

    The choice is a hash of the request's number in its job, so it is the same for all policies.
    """
    if active == 0:
        return NONE, 0
    mixed = np.uint64(request) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    slot = order[(mixed >> np.uint64(33)) % np.uint64(active)]
    return (slot if inside[slot] < places else NONE), 0


@njit(cache=True, inline="always")
def soonest(next_done_s):
    """(time of the next event of any replica, its slot); (inf, NONE) if all slots are empty."""
    done, slot = np.inf, NONE
    for s in range(len(next_done_s)):
        if next_done_s[s] < done:
            done, slot = next_done_s[s], s
    return done, slot


@njit(cache=True, inline="always")
def through_router(free_s, now, passes_s, request):
    """When a request that enters the router now leaves it: at once if there is no router."""
    if len(passes_s) == 0:
        return now
    return max(free_s, now) + passes_s[request]


@njit(cache=True, inline="always")
def ended(second, spent, finished, finished_latency_s):
    """Count a request that ends in second `second` of the run, `spent` seconds after it arrived."""
    if second < len(finished):
        finished[second] += 1
        finished_latency_s[second] += spent


@njit(cache=True, nogil=True)
def advance_job(
    job: int,
    until_s: float,
    dispatch: int,
    queue_limit: int,
    requests: Requests,
    station: Station,
    kinds: replicas.Kinds | None,
) -> None:
    """Process one job's events up to and including `until_s`.

    `kinds` is None if the job's replicas are serial. One long function, because calls and
    attribute access at every event would make it several times slower. Requests wait in the queue
    only while another request is `held`.
    """
    arrival_s, service_s, coin = requests.arrival_s, requests.service_s, requests.coin
    router_in_s, router_out_s = requests.router_in_s, requests.router_out_s
    latency_s, elsewhere_s = requests.latency_s, requests.elsewhere_s
    first, end = requests.first[job], requests.first[job + 1]
    places, drop = station.places[job], station.drop[job]
    order, active, inside = station.order[job], station.active[job], station.inside[job]
    ring, ring_head = station.ring[job], station.ring_head[job]
    ring_done_s = station.ring_done_s[job]
    next_done_s, last_done_s = station.next_done_s[job], station.last_done_s[job]
    finished, finished_latency_s = station.finished[job], station.finished_latency_s[job]
    waiting = station.waiting[job]
    queue_length = len(waiting)
    waiting_head, waiting_count = station.waiting_head[job], station.waiting_count[job]
    held, turn = station.held[job], station.turn[job]
    arriving, head = station.next_arrival[job], station.head[job]
    router_free = station.router_free_s[job]
    done, done_slot = soonest(next_done_s)
    while True:
        arrives = arrival_s[arriving] if arriving < end else np.inf
        routed = -latency_s[head] if head < arriving else np.inf
        if arrives <= routed and arrives <= done:
            if arrives > until_s:
                break
            router_free = through_router(router_free, arrives, router_in_s, arriving)
            latency_s[arriving] = -router_free
            arriving += 1
            continue

        now = routed if routed <= done else done
        if now > until_s:
            break
        leaving = NONE  # the request that leaves at this event, if only one can
        served = True  # whether it was served and not dropped
        coming = NONE  # the request that is dispatched
        source = NONE  # the slot whose event this is, and how many of `kinds.left` leave it
        gone = 0
        if routed <= done:
            request = head
            head += 1
            if drop > 0 and coin[request] < drop:
                leaving = request
                served = False
            elif held == NONE:
                coming = request
            elif waiting_count > queue_limit:
                leaving = request
                served = False
            else:  # queue behind the request `held`, for which no replica has room
                waiting[wrap(waiting_head + waiting_count, queue_length)] = request
                waiting_count += 1
        elif kinds is None:
            oldest = ring_head[done_slot]
            leaving = ring[done_slot, oldest]
            oldest = wrap(oldest + 1, places)
            ring_head[done_slot] = oldest
            inside[done_slot] -= 1
            next_done_s[done_slot] = ring_done_s[done_slot, oldest] if inside[done_slot] else np.inf
            coming = held
            held = NONE
            done, done_slot = soonest(next_done_s)
        else:
            source = done_slot
            n = inside[source]
            gone = replicas.event(kinds, job, source, n, now, arrival_s, service_s, latency_s)
            inside[source] -= gone
            if gone > 0:
                coming = held
                held = NONE

        while coming != NONE:
            if dispatch == ROUTER:
                slot, turn = _next_with_room(order, active, turn, inside, places)
            elif dispatch == LEAST_OUTSTANDING:
                slot, turn = _least_outstanding(order, active, turn, inside, places)
            else:
                slot, turn = _any_replica(order, active, coming - first, inside, places)
            if slot == NONE:
                if dispatch == ROUTER:
                    held = coming
                else:
                    leaving = coming
                    served = False
                break
            if kinds is None:
                # Append to the replica's FIFO queue. If the queue is empty, last_done_s <= now, so
                # service starts now.
                completes = max(now, last_done_s[slot]) + service_s[coming]
                place = wrap(ring_head[slot] + inside[slot], places)
                ring[slot, place] = coming
                ring_done_s[slot, place] = completes
                last_done_s[slot] = completes
                if inside[slot] == 0:
                    next_done_s[slot] = completes
                    if completes < done or (completes == done and slot < done_slot):
                        done, done_slot = completes, slot
            else:
                n, its_next_s = inside[slot], next_done_s[slot]
                next_done_s[slot] = replicas.enter(
                    kinds, job, slot, coming, n, its_next_s, now, service_s
                )
            inside[slot] += 1
            coming = NONE
            if waiting_count > 0:
                coming = waiting[waiting_head]
                waiting_head = wrap(waiting_head + 1, queue_length)
                waiting_count -= 1

        if leaving != NONE:  # served or dropped, the request passes the router again
            router_free = through_router(router_free, now, router_out_s, leaving)
            spent = router_free - arrival_s[leaving] + elsewhere_s
            latency_s[leaving] = spent if served else np.inf
            ended(int(router_free), spent, finished, finished_latency_s)
        if kinds is not None:
            if source != NONE:
                n = inside[source]
                next_done_s[source] = replicas.begin(kinds, job, source, n, now, service_s)
            done, done_slot = soonest(next_done_s)
            for n in range(gone):
                request = kinds.left[n]
                router_free = through_router(router_free, now, router_out_s, request)
                spent = router_free - arrival_s[request] + elsewhere_s
                spent = replicas.measured(kinds, job, request, spent, now, arrival_s)
                latency_s[request] = spent
                ended(int(router_free), spent, finished, finished_latency_s)
    station.next_arrival[job], station.head[job] = arriving, head
    station.router_free_s[job] = router_free
    station.held[job], station.turn[job] = held, turn
    station.waiting_head[job], station.waiting_count[job] = waiting_head, waiting_count


@njit(cache=True, nogil=True)
def advance_jobs(
    first: int,
    end: int,
    until_s: float,
    dispatch: int,
    queue_limit: int,
    requests: Requests,
    station: Station,
    kinds: replicas.Kinds | None,
) -> None:
    """`advance_job` for the jobs `first` to `end` - 1; `kinds` is None if all are serial."""
    for job in range(first, end):
        if kinds is None or kinds.kind[job] == replicas.SERIAL:
            advance_job(job, until_s, dispatch, queue_limit, requests, station, None)
        else:
            advance_job(job, until_s, dispatch, queue_limit, requests, station, kinds)

"""The compiled event loop: what happens to requests between two changes of the replica set.

Jobs do not touch each other between decisions, so each is advanced alone. Three kinds of event exist for a job: a request
arrives, a request leaves the router's first pass, a replica completes a request. The router is one FIFO server, so its
departures are known the moment a request enters it and need no event of their own; first-pass departures happen in the
order of arrival, so the requests inside the router are always the index range head..next_arrival.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

ROUTER, LEAST_OUTSTANDING = 0, 1  # dispatch rules
NOBODY = -1


class Requests(NamedTuple):
    """The requests of a trial, as in `Draws`, and what becomes of them.

    While a request is inside, its latency_s holds minus the instant at which it leaves the first pass; afterwards its
    latency, inf = refused.
    """

    first: np.ndarray
    arrival_s: np.ndarray
    router_in_s: np.ndarray
    service_s: np.ndarray
    router_out_s: np.ndarray
    coin: np.ndarray
    latency_s: np.ndarray


class Station(NamedTuple):
    """State of every job's serving station.

    Shapes: (jobs,) but where noted; a *slot* is a replica, active or finishing what it holds.
    """

    next_arrival: np.ndarray  # index of the next request to arrive
    head: np.ndarray  # index of the next request to leave the router's first pass
    router_free_s: np.ndarray  # instant at which the router is free
    drop: np.ndarray  # asked drop rate
    held: np.ndarray  # request in the dispatcher's hands
    waiting: np.ndarray  # (jobs, queue places) ring of requests
    waiting_head: np.ndarray
    waiting_count: np.ndarray
    order: np.ndarray  # (jobs, slots) active slots in the order of dispatch
    active: np.ndarray  # number of active slots
    turn: np.ndarray  # position in `order` whose turn it is
    inside: np.ndarray  # (jobs, slots) requests that a slot holds
    ring: np.ndarray  # (jobs, slots, slot places) their indices
    ring_done_s: np.ndarray  # (jobs, slots, slot places) their instants of completion
    ring_head: np.ndarray  # (jobs, slots)
    next_done_s: np.ndarray  # (jobs, slots) completion of the oldest request in the slot, inf where it is empty
    last_done_s: np.ndarray  # (jobs, slots) completion of the newest request in the slot
    finished: np.ndarray  # (jobs, seconds) requests that ended in that second, refused ones included
    finished_latency_s: np.ndarray  # (jobs, seconds) the sum of their times in the system


def new_station(jobs: int, slots: int, queue_places: int, slot_places: int, seconds: int, first: np.ndarray) -> Station:
    """An empty station for each job."""

    def zeros(*shape):
        return np.zeros((jobs, *shape), np.int64)

    return Station(
        next_arrival=first[:-1].copy(),
        head=first[:-1].copy(),
        router_free_s=np.zeros(jobs),
        drop=np.zeros(jobs),
        held=np.full(jobs, NOBODY),
        waiting=zeros(queue_places),
        waiting_head=zeros(),
        waiting_count=zeros(),
        order=zeros(slots),
        active=zeros(),
        turn=zeros(),
        inside=zeros(slots),
        ring=zeros(slots, slot_places),
        ring_done_s=np.zeros((jobs, slots, slot_places)),
        ring_head=zeros(slots),
        next_done_s=np.full((jobs, slots), np.inf),
        last_done_s=np.zeros((jobs, slots)),
        finished=zeros(seconds),
        finished_latency_s=np.zeros((jobs, seconds)),
    )


def with_slots(station: Station, slots: int) -> Station:
    """The same station with room for more replicas."""

    def grown(array, empty):
        wider = np.full((array.shape[0], slots, *array.shape[2:]), empty, array.dtype)
        wider[:, : array.shape[1]] = array
        return wider

    empty = dict(order=0, inside=0, ring=0, ring_done_s=0.0, ring_head=0, next_done_s=np.inf, last_done_s=0.0)
    return station._replace(**{field: grown(getattr(station, field), value) for field, value in empty.items()})


@njit(cache=True, inline="always")
def _wrap(place, places):
    """Position in a ring; a comparison, since a division costs as much as the rest of an event."""
    return place if place < places else place - places


@njit(cache=True, inline="always")
def _end(job, request, now, served, requests, station, router_free):
    """Second pass through the router, then the end; returns the router's next free instant."""
    leaves = now
    if len(requests.router_out_s):
        leaves = max(router_free, now) + requests.router_out_s[request]
        router_free = leaves
    spent = leaves - requests.arrival_s[request]
    requests.latency_s[request] = spent if served else np.inf
    second = int(leaves)
    if second < station.finished.shape[1]:
        station.finished[job, second] += 1
        station.finished_latency_s[job, second] += spent
    return router_free


@njit(cache=True, inline="always")
def _assign(job, slot, request, now, requests, station):
    """Put a request into a replica's own FIFO; returns its instant of completion."""
    inside = station.inside[job, slot]
    done = (max(now, station.last_done_s[job, slot]) if inside else now) + requests.service_s[request]
    if inside == 0:
        station.next_done_s[job, slot] = done
    place = _wrap(station.ring_head[job, slot] + inside, station.ring.shape[2])
    station.ring[job, slot, place] = request
    station.ring_done_s[job, slot, place] = done
    station.inside[job, slot] = inside + 1
    station.last_done_s[job, slot] = done
    return done


@njit(cache=True, inline="always")
def _dispatch_round_robin(job, now, requests, station):
    """The paper's dispatcher: hold one request until the next replica in turn has room; a full replica loses its turn.

    Returns (soonest completion among the assigned, its slot).
    """
    soonest, soonest_slot = np.inf, NOBODY
    places = station.ring.shape[2]
    active = station.active[job]
    turn = station.turn[job]
    held = station.held[job]
    count = station.waiting_count[job]
    while True:
        if held == NOBODY:
            if count == 0:
                break
            head = station.waiting_head[job]
            held = station.waiting[job, head]
            station.waiting_head[job] = _wrap(head + 1, station.waiting.shape[1])
            count -= 1
        slot = NOBODY
        for _ in range(active):
            candidate = station.order[job, turn]
            turn = _wrap(turn + 1, active)
            if station.inside[job, candidate] < places:
                slot = candidate
                break
        if slot == NOBODY:
            break
        done = _assign(job, slot, held, now, requests, station)
        held = NOBODY
        if done < soonest:
            soonest, soonest_slot = done, slot
    station.held[job] = held
    station.turn[job] = turn
    station.waiting_count[job] = count
    return soonest, soonest_slot


@njit(cache=True, inline="always")
def _least_outstanding(job, station):
    """The active replica with the fewest requests inside, ties in turn; NOBODY if all are full."""
    best, best_inside, best_turn = NOBODY, station.ring.shape[2], 0
    active = station.active[job]
    turn = station.turn[job]
    for _ in range(active):
        slot = station.order[job, turn]
        turn = _wrap(turn + 1, active)
        if station.inside[job, slot] < best_inside:
            best, best_inside, best_turn = slot, station.inside[job, slot], turn
    if best != NOBODY:
        station.turn[job] = best_turn
    return best


@njit(cache=True, inline="always")
def _soonest(job, station):
    """The next completion among all slots, and its slot; (inf, NOBODY) if all are empty."""
    done, slot = np.inf, NOBODY
    for s in range(station.next_done_s.shape[1]):
        if station.next_done_s[job, s] < done:
            done, slot = station.next_done_s[job, s], s
    return done, slot


@njit(cache=True)
def advance_job(job, until_s, dispatch, queue_limit, requests, station):
    """Carry one job's requests through every event up to and including until_s."""
    end = requests.first[job + 1]
    has_router = len(requests.router_in_s) > 0
    arriving = station.next_arrival[job]
    head = station.head[job]
    router_free = station.router_free_s[job]
    drop = station.drop[job]
    done, done_slot = _soonest(job, station)
    while True:
        arrives = requests.arrival_s[arriving] if arriving < end else np.inf
        routed = -requests.latency_s[head] if head < arriving else np.inf
        if arrives <= routed and arrives <= done:
            if arrives > until_s:
                break
            passed = arrives
            if has_router:
                passed = max(router_free, arrives) + requests.router_in_s[arriving]
                router_free = passed
            requests.latency_s[arriving] = -passed
            arriving += 1
        elif routed <= done:
            if routed > until_s:
                break
            request = head
            head += 1
            if drop > 0 and requests.coin[request] < drop:
                router_free = _end(job, request, routed, False, requests, station, router_free)
            elif dispatch == LEAST_OUTSTANDING:
                slot = _least_outstanding(job, station)
                if slot == NOBODY:
                    router_free = _end(job, request, routed, False, requests, station, router_free)
                else:
                    candidate = _assign(job, slot, request, routed, requests, station)
                    if candidate < done:
                        done, done_slot = candidate, slot
            elif station.waiting_count[job] > queue_limit:
                router_free = _end(job, request, routed, False, requests, station, router_free)
            else:
                place = _wrap(station.waiting_head[job] + station.waiting_count[job], station.waiting.shape[1])
                station.waiting[job, place] = request
                station.waiting_count[job] += 1
                # A dispatcher that holds a request looks again only when a replica completes one.
                if station.held[job] == NOBODY:
                    candidate, slot = _dispatch_round_robin(job, routed, requests, station)
                    if candidate < done:
                        done, done_slot = candidate, slot
        else:
            if done > until_s:
                break
            now, slot = done, done_slot
            ring_head = station.ring_head[job, slot]
            request = station.ring[job, slot, ring_head]
            ring_head = _wrap(ring_head + 1, station.ring.shape[2])
            station.ring_head[job, slot] = ring_head
            station.inside[job, slot] -= 1
            station.next_done_s[job, slot] = (
                station.ring_done_s[job, slot, ring_head] if station.inside[job, slot] else np.inf
            )
            router_free = _end(job, request, now, True, requests, station, router_free)
            if dispatch == ROUTER and (station.held[job] != NOBODY or station.waiting_count[job] > 0):
                _dispatch_round_robin(job, now, requests, station)
            done, done_slot = _soonest(job, station)
    station.next_arrival[job] = arriving
    station.head[job] = head
    station.router_free_s[job] = router_free


@njit(cache=True)
def advance_all(until_s, dispatch, queue_limit, requests, station):
    """Carry every job to until_s."""
    for job in range(len(station.drop)):
        advance_job(job, until_s, dispatch, queue_limit, requests, station)

"""The compiled event loop of one pool: jobs whose requests are served by shared replicas.

Events are those of `events`, with the requests of all jobs of the pool in one loop: a request
arrives, ends its first pass through its job's router, or is completed by a replica. Simultaneous
events of different jobs are processed in the order of the jobs, before completions, and those in
the order of the slots. Between two calls, replicas come and go and load models (module `pools`).

Requests wait in one FIFO queue per job (late binding). A replica that becomes free takes, of the
first requests of the jobs whose models it holds, the one with the earliest deadline. A request that
finds free replicas goes to one at home with its job if there is one, and otherwise to any that
holds its model; of these, to the one that has been free for longest.

Replicas of other kinds serve as the module `replicas` says. A concurrent replica is free while it
has room. A request goes to the one that serves the fewest, and an event moves a free replica to the
end of those that are free. A batch has requests of one job, first in first out. It starts when it
is full and a replica that holds the model is free. A smaller batch starts after its first request
has waited, and such a replica has been free, for `wait_s`; after completions at the same time.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from faro_lib.simulate import replicas
from faro_lib.simulate.events import (
    NONE,
    Requests,
    Station,
    ended,
    soonest,
    through_router,
    wrap,
)

CACHE_LINE = 8  # numbers of 8 bytes in a cache line


class Members(NamedTuple):
    """The jobs of the pool; arrays are (jobs of the pool,)."""

    jobs: np.ndarray  # positions in the workload
    slo_s: np.ndarray
    wait_s: float  # batched: how long the first request of a batch that is not full waits


class PoolState(NamedTuple):
    """Replicas of one pool; a slot stores one replica. Shapes as stated."""

    alive: np.ndarray  # bool (slots,) whether the slot is that of a replica that was not removed
    free: np.ndarray  # (slots,) begins with the `idle` free slots, free for longest first
    free_since_s: np.ndarray  # (slots,) batched: when the replica became free
    idle: np.ndarray  # (1,)
    home: np.ndarray  # (slots,) the home job, its position in the pool
    holds: np.ndarray  # bool (slots, jobs) the models in each replica
    serving: np.ndarray  # (slots,) serial: the request in service, or NONE
    # (slots,) its job, or that of the batch, as position in the pool; concurrent: 0
    serving_job: np.ndarray
    done_s: np.ndarray  # (slots,) the next completion; inf if the replica serves nothing
    in_replicas: np.ndarray  # (jobs,) requests in service


# Value of each field in a slot without a replica.
EMPTY_SLOT = {
    "alive": False,
    "free": 0,
    "free_since_s": 0.0,
    "home": 0,
    "holds": False,
    "serving": NONE,
    "serving_job": 0,
    "done_s": np.inf,
}


def new_pool_state(slots: int, jobs: int) -> PoolState:
    """A `PoolState` without replicas and requests."""
    arrays = {name: np.full(slots, value) for name, value in EMPTY_SLOT.items()}
    arrays |= {"holds": np.zeros((slots, jobs), bool), "idle": np.zeros(1, np.int64)}
    return PoolState(**arrays, in_replicas=np.zeros(jobs, np.int64))


@njit(cache=True)
def next_pass_s(n, head, arriving, end, free_s, arrival_s, router_in_s, latency_s):
    """When job n's next request ends its first pass if none leaves the system before; or inf."""
    if head[n] < arriving[n]:
        return -latency_s[head[n]]
    if head[n] < end[n]:
        return through_router(free_s[n], arrival_s[head[n]], router_in_s, head[n])
    return np.inf


@njit(cache=True)
def enter_router(n, until_s, arriving, end, free_s, arrival_s, router_in_s, latency_s):
    """Let job n's requests that arrive up to `until_s` enter its router."""
    request, its_free_s = arriving[n], free_s[n]
    while request < end[n] and arrival_s[request] <= until_s:
        its_free_s = through_router(its_free_s, arrival_s[request], router_in_s, request)
        latency_s[request] = -its_free_s
        request += 1
    arriving[n], free_s[n] = request, its_free_s


@njit(cache=True, inline="always")
def leave(n, request, served, now, arriving, end, free_s, requests, finished, finished_latency_s):
    """Let a request of job n pass the job's router again, after it was served or dropped.

    The job's requests that have arrived until now enter the router before it.
    """
    arrival_s, latency_s = requests.arrival_s, requests.latency_s
    coming = arriving[n]
    if coming < end[n] and arrival_s[coming] <= now:
        enter_router(n, now, arriving, end, free_s, arrival_s, requests.router_in_s, latency_s)
    free_s[n] = through_router(free_s[n], now, requests.router_out_s, request)
    spent_s = free_s[n] - arrival_s[request] + requests.elsewhere_s
    latency_s[request] = spent_s if served else np.inf
    ended(int(free_s[n]), spent_s, finished, finished_latency_s)


@njit(cache=True)
def read_ahead(until_s, head, end, requests):
    """Read the requests of a job that arrive up to `until_s`, one in each cache line.

    The event loop reads the requests of all jobs in turn, from more places than the processor can
    foresee, and would wait for the memory. Returns a sum of the times that were read.
    """
    total_s = 0.0
    request = head
    while request < end and requests.arrival_s[request] <= until_s:
        total_s += requests.service_s[request]
        if len(requests.router_in_s) > 0:
            total_s += requests.router_in_s[request] + requests.router_out_s[request]
        request += CACHE_LINE
    return total_s


@njit(cache=True)
def busy_slots(done_s):
    """The busy slots by completion time, then by slot, in a ring buffer; the times; their number.

    The number of slots is a power of two.
    """
    busy = np.argsort(done_s, kind="mergesort")
    return busy, done_s[busy], np.sum(done_s < np.inf)


@njit(cache=True)
def insert_busy(slot, at_s, busy, busy_s, busy_from, busy_count):
    """Insert a slot into `busy_slots`, which begin at position `busy_from` of the ring."""
    mask = len(busy) - 1
    place = busy_from + busy_count
    while place > busy_from:
        before = (place - 1) & mask
        if busy_s[before] < at_s or (busy_s[before] == at_s and busy[before] < slot):
            break
        busy[place & mask], busy_s[place & mask] = busy[before], busy_s[before]
        place -= 1
    busy[place & mask], busy_s[place & mask] = slot, at_s


@njit(cache=True, inline="always")
def earliest(at_s):
    """Index of the least of the times, the first one of equal ones."""
    first, least_s = 0, at_s[0]
    for n in range(1, len(at_s)):
        sooner = at_s[n] < least_s
        first = n if sooner else first
        least_s = at_s[n] if sooner else least_s
    return first


@njit(cache=True)
def _append(after, before, end, slot):
    """Append a slot to a doubly linked list, which is a circle with the entry `end`."""
    last = before[end]
    after[last], before[slot] = slot, last
    after[slot], before[end] = end, slot


@njit(cache=True)
def _unlink(after, before, slot):
    after[before[slot]], before[after[slot]] = after[slot], before[slot]


@njit(cache=True)
def _first_holding(position, after, end, holds):
    """The first slot of a list that holds the job's model, or NONE."""
    slot = after[end]
    while slot != end and not holds[slot, position]:
        slot = after[slot]
    return NONE if slot == end else slot


@njit(cache=True)
def _least_busy(position, after, end, holds, home, serving):
    """The slot of a list that holds the job's model and serves the fewest requests, or NONE.

    Of these, it is the first one at home with the job, or else the first one.
    """
    best, fewest = NONE, np.inf
    slot = after[end]
    while slot != end:
        busy = serving[slot] + 0.5 * (home[slot] != position)
        if holds[slot, position] and busy < fewest:
            best, fewest = slot, busy
        slot = after[slot]
    return best


@njit(cache=True)
def _next_batch(urgent_s, waits_since_s, after, end, holds, free_since_s, wait_s):
    """When the next batch starts that is not full, and the position of its job; or inf and NONE."""
    next_s, position = np.inf, NONE
    for n in range(len(urgent_s)):
        slot = NONE
        if urgent_s[n] < np.inf:
            slot = _first_holding(n, after, end, holds)
        if slot != NONE:
            at_s = max(free_since_s[slot], waits_since_s[n]) + wait_s
            if at_s < next_s:
                next_s, position = at_s, n
    return next_s, position


@njit(cache=True, nogil=True)
def advance_pool(
    until_s: float,
    changed: bool,
    queue_limit: int,
    members: Members,
    requests: Requests,
    station: Station,
    pool: PoolState,
    kinds: replicas.Kinds | None,
) -> None:
    """Process the pool's events up to and including `until_s`.

    If the replicas have `changed`, free ones first take waiting requests, at `until_s`. `kinds` has
    a row for each job of the pool and waits for no batch; it is None if the replicas are serial.
    One long function for the reason given in `events.advance_job`.
    """
    jobs, slo_s, wait_s = members.jobs, members.slo_s, members.wait_s
    arrival_s, service_s, latency_s = requests.arrival_s, requests.service_s, requests.latency_s
    router_in_s, coin = requests.router_in_s, requests.coin
    waiting, waiting_head = station.waiting, station.waiting_head
    waiting_count = station.waiting_count
    finished, finished_latency_s = station.finished, station.finished_latency_s
    alive, home, holds = pool.alive, pool.home, pool.holds
    serving, serving_job, done_s = pool.serving, pool.serving_job, pool.done_s
    in_replicas, free_since_s = pool.in_replicas, pool.free_since_s
    queue_length = waiting.shape[1]
    batched, at_once = False, 1
    if kinds is not None:
        batched, at_once = kinds.kind[0] == replicas.BATCHED, kinds.at_once[0]

    size, slots = len(jobs), len(home)
    end = requests.first[jobs + 1]
    arriving, head = station.next_arrival[jobs], station.head[jobs]
    router_free_s, drop = station.router_free_s[jobs], station.drop[jobs]
    next_s = np.empty(size)  # `next_pass_s` of each job
    urgent_s = np.full(size, np.inf)  # of each job, the deadline of its first waiting request
    waits_since_s = np.zeros(size)  # when it began to wait; only for batches
    any_waiting = 0
    ahead_s = 0.0
    for n in range(size):
        ahead_s += read_ahead(until_s, head[n], end[n], requests)
        next_s[n] = next_pass_s(
            n, head, arriving, end, router_free_s, arrival_s, router_in_s, latency_s
        )
        count = waiting_count[jobs[n]]
        any_waiting += count
        if count > 0:
            first = waiting[jobs[n], waiting_head[jobs[n]]]
            urgent_s[n], waits_since_s[n] = arrival_s[first] + slo_s[n], -latency_s[first]
    if ahead_s < 0:  # never; unless they are used, the compiler leaves out what was read
        return
    busy, busy_s, busy_count = busy_slots(done_s)
    busy_from, mask = 0, len(busy) - 1
    next_job = earliest(next_s)  # the job whose request ends its first pass next
    # Free slots, free for longest first: all of them in a list that ends with number `slots`, and
    # those at home with each job in one that ends with `slots` + job.
    after_free, before_free = np.full((2, slots + 1), slots)
    after_home, before_home = np.arange(slots + size), np.arange(slots + size)
    for slot in pool.free[: pool.idle[0]]:
        _append(after_free, before_free, slots, slot)
        _append(after_home, before_home, slots + home[slot], slot)
    looking = after_free[slots] if changed else slots  # the next free slot that looks for requests
    while True:
        gone = 0  # requests that leave at this event: `leaving`, or the first of `kinds.left`
        leaving = NONE
        served = True  # whether they were served and not dropped
        slot = NONE  # the replica that begins to serve requests of job `of`
        of = NONE
        begun = NONE  # the request that it begins; NONE: those that wait
        was_free = True  # whether the replica was free before this event
        looks = False  # whether it looks for waiting requests of any job
        position = 0
        next_at_s = next_s[next_job]
        batch_at_s, batch_job = np.inf, NONE
        if kinds is None:
            done_slot = busy[busy_from & mask]
            done_at_s = busy_s[busy_from & mask] if busy_count > 0 else np.inf
        else:
            done_at_s, done_slot = soonest(done_s)
            if batched and any_waiting > 0:
                batch_at_s, batch_job = _next_batch(
                    urgent_s, waits_since_s, after_free, slots, holds, free_since_s, wait_s
                )
        now = min(next_at_s, done_at_s, batch_at_s)
        if looking != slots:
            now, slot, looks = until_s, looking, True
            looking = after_free[slot]
        elif now > until_s or now == np.inf:
            break
        elif next_at_s == now:
            position = next_job
            job = jobs[position]
            request = head[position]
            if request == arriving[position]:  # it has arrived since the job's last event
                arriving[position] += 1
                latency_s[request] = -now
                router_free_s[position] = now
            head[position] += 1
            dropped = drop[position] > 0 and coin[request] < drop[position]
            if not dropped:
                if kinds is None:
                    slot = after_home[slots + position]
                    if slot >= slots or not holds[slot, position]:
                        slot = _first_holding(position, after_home, slots + position, holds)
                        if slot == NONE:
                            slot = _first_holding(position, after_free, slots, holds)
                else:
                    slot = _least_busy(position, after_free, slots, holds, home, kinds.serving[0])
                dropped = slot == NONE and waiting_count[job] > queue_limit
            if dropped:
                gone, leaving, served = 1, request, False
            elif slot != NONE and not batched:
                of, begun = position, request
            else:
                waiting[job, wrap(waiting_head[job] + waiting_count[job], queue_length)] = request
                waiting_count[job] += 1
                any_waiting += 1
                if waiting_count[job] == 1:
                    urgent_s[position] = arrival_s[request] + slo_s[position]
                    waits_since_s[position] = now
                if slot != NONE and (wait_s == 0 or waiting_count[job] >= at_once):
                    of = position
        elif done_at_s == now:
            slot, was_free, looks = done_slot, False, alive[done_slot]
            if kinds is None:
                busy_from += 1
                busy_count -= 1
                gone, leaving, position = 1, serving[slot], serving_job[slot]
                serving[slot] = NONE
                done_s[slot] = np.inf
            else:
                row = serving_job[slot]
                inside = kinds.serving[row, slot]
                if looks and not batched and inside < at_once:
                    _unlink(after_free, before_free, slot)
                    _unlink(after_home, before_home, slot)
                gone = replicas.event(
                    kinds, row, slot, inside, now, arrival_s, service_s, latency_s
                )
                done_s[slot] = replicas.begin(kinds, row, slot, inside - gone, now, service_s)
                position = np.searchsorted(end, kinds.left[0], side="right")
                free_since_s[slot] = now
            in_replicas[position] -= gone
        elif kinds is not None:
            of = batch_job
            slot = _least_busy(of, after_free, slots, holds, home, kinds.serving[0])

        if looks:
            if any_waiting > 0:
                earliest_s = np.inf
                for n in range(size):
                    if urgent_s[n] < earliest_s and holds[slot, n]:
                        ready = not batched or waiting_count[jobs[n]] >= at_once
                        if ready or max(free_since_s[slot], waits_since_s[n]) + wait_s <= now:
                            of, earliest_s = n, urgent_s[n]
            if of == NONE and not was_free:
                _append(after_free, before_free, slots, slot)
                _append(after_home, before_home, slots + home[slot], slot)
        if of != NONE:
            if was_free:
                _unlink(after_free, before_free, slot)
                _unlink(after_home, before_home, slot)
            job = jobs[of]
            takes = min(waiting_count[job], at_once) if batched else 1
            row = of if batched else 0
            inside = 0
            if kinds is not None:
                inside = kinds.serving[row, slot]
            for _ in range(takes):
                if begun != NONE:
                    request = begun
                else:
                    request = waiting[job, waiting_head[job]]
                    waiting_head[job] = wrap(waiting_head[job] + 1, queue_length)
                    waiting_count[job] -= 1
                    any_waiting -= 1
                    urgent_s[of] = np.inf
                    if waiting_count[job] > 0:
                        first = waiting[job, waiting_head[job]]
                        urgent_s[of] = arrival_s[first] + slo_s[of]
                        if batched:
                            waits_since_s[of] = -latency_s[first]
                if kinds is None:
                    serving[slot], serving_job[slot] = request, of
                    done_s[slot] = now + service_s[request]
                    insert_busy(slot, done_s[slot], busy, busy_s, busy_from, busy_count)
                    busy_count += 1
                else:
                    replicas.enter(kinds, row, slot, request, inside, np.inf, now, service_s)
                    inside += 1
            in_replicas[of] += takes
            if kinds is not None:
                serving_job[slot] = row
                done_s[slot] = replicas.begin(kinds, row, slot, inside, now, service_s)
                if not batched and inside < at_once:  # it has room
                    _append(after_free, before_free, slots, slot)
                    _append(after_home, before_home, slots + home[slot], slot)
            if looks and was_free:
                looking = after_free[slots]

        for n in range(gone):
            if kinds is not None and served:
                leaving = kinds.left[n]
            leave(
                position,
                leaving,
                served,
                now,
                arriving,
                end,
                router_free_s,
                requests,
                finished[jobs[position]],
                finished_latency_s[jobs[position]],
            )
        # A pass is never earlier than it was expected, so other jobs' passes do not come before the
        # soonest one.
        next_s[position] = next_pass_s(
            position, head, arriving, end, router_free_s, arrival_s, router_in_s, latency_s
        )
        if position == next_job:
            next_job = earliest(next_s)
    for n in range(size):
        enter_router(n, until_s, arriving, end, router_free_s, arrival_s, router_in_s, latency_s)
        station.next_arrival[jobs[n]], station.head[jobs[n]] = arriving[n], head[n]
        station.router_free_s[jobs[n]] = router_free_s[n]
    idle, slot = 0, after_free[slots]
    while slot != slots:
        pool.free[idle] = slot
        idle, slot = idle + 1, after_free[slot]
    pool.idle[0] = idle

"""The compiled event loop of one pool: jobs whose requests are served by shared replicas.

Events are those of `events`, with the requests of all jobs of the pool in one loop: a request
arrives, ends its first pass through its job's router, or is completed by a replica. Simultaneous
events of different jobs are processed in the order of the jobs, before completions, and those in
the order of the slots. Between two calls, replicas come and go and load models (module `pools`).

Requests wait in one FIFO queue per job (late binding). A replica that becomes free takes, of the
first requests of the jobs whose models it holds, the one with the earliest deadline. A request that
finds free replicas goes to one at home with its job if there is one, and otherwise to any that
holds its model; of these, to the one that has been free for longest.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from faro_lib.simulate.events import NONE, Requests, Station, through_router, wrap

CACHE_LINE = 8  # numbers of 8 bytes in a cache line


class Members(NamedTuple):
    """The jobs of the pool; arrays are (jobs of the pool,)."""

    jobs: np.ndarray  # positions in the workload
    slo_s: np.ndarray


class PoolState(NamedTuple):
    """Replicas of one pool; a slot stores one replica. Shapes as stated."""

    alive: np.ndarray  # bool (slots,) whether the slot is that of a replica that was not removed
    free: np.ndarray  # (slots,) begins with the `idle` free slots, free for longest first
    idle: np.ndarray  # (1,)
    home: np.ndarray  # (slots,) the home job, its position in the pool
    holds: np.ndarray  # bool (slots, jobs) the models in each replica
    serving: np.ndarray  # (slots,) the request in service, or NONE
    serving_job: np.ndarray  # (slots,) its job, the position in the pool
    done_s: np.ndarray  # (slots,) when it is completed; inf if the replica is free
    in_replicas: np.ndarray  # (jobs,) requests in service


# Value of each field in a slot without a replica.
EMPTY_SLOT = {
    "alive": False,
    "free": 0,
    "home": 0,
    "holds": False,
    "serving": NONE,
    "serving_job": 0,
    "done_s": np.inf,
}


def new_pool_state(slots: int, jobs: int) -> PoolState:
    """A `PoolState` without replicas and requests."""
    return PoolState(
        alive=np.zeros(slots, bool),
        free=np.zeros(slots, np.int64),
        idle=np.zeros(1, np.int64),
        home=np.zeros(slots, np.int64),
        holds=np.zeros((slots, jobs), bool),
        serving=np.full(slots, NONE),
        serving_job=np.zeros(slots, np.int64),
        done_s=np.full(slots, np.inf),
        in_replicas=np.zeros(jobs, np.int64),
    )


@njit(cache=True)
def next_pass_s(head, arriving, end, free_s, arrival_s, router_in_s, latency_s):
    """When a job's next request ends its first pass if none leaves the system before; or inf."""
    if head < arriving:
        return -latency_s[head]
    if head < end:
        return through_router(free_s, arrival_s[head], router_in_s, head)
    return np.inf


@njit(cache=True)
def enter_router(until_s, arriving, end, free_s, arrival_s, router_in_s, latency_s):
    """Let a job's requests that arrive up to `until_s` enter its router.

    Returns the next request to arrive, and when the router is free.
    """
    while arriving < end and arrival_s[arriving] <= until_s:
        free_s = through_router(free_s, arrival_s[arriving], router_in_s, arriving)
        latency_s[arriving] = -free_s
        arriving += 1
    return arriving, free_s


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
def busy_slots(serving, done_s):
    """The busy slots by completion time, then by slot, in a ring buffer; the times; their number.

    The number of slots is a power of two.
    """
    busy, count = np.argsort(done_s, kind="mergesort"), 0
    for slot in busy:
        if serving[slot] != NONE:
            busy[count] = slot
            count += 1
    return busy, done_s[busy], count


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


@njit(cache=True, nogil=True)
def advance_pool(
    until_s: float,
    queue_limit: int,
    members: Members,
    requests: Requests,
    station: Station,
    pool: PoolState,
) -> None:
    """Process the pool's events up to and including `until_s`.

    One long function for the reason given in `events.advance_job`.
    """
    jobs, slo_s = members.jobs, members.slo_s
    arrival_s, service_s, latency_s = requests.arrival_s, requests.service_s, requests.latency_s
    router_in_s, router_out_s, coin = requests.router_in_s, requests.router_out_s, requests.coin
    waiting, waiting_head = station.waiting, station.waiting_head
    waiting_count = station.waiting_count
    finished, finished_latency_s = station.finished, station.finished_latency_s
    alive, home, holds = pool.alive, pool.home, pool.holds
    serving, serving_job, done_s = pool.serving, pool.serving_job, pool.done_s
    in_replicas = pool.in_replicas
    queue_length, seconds = waiting.shape[1], finished.shape[1]

    size, slots = len(jobs), len(home)
    end = requests.first[jobs + 1]
    arriving, head = station.next_arrival[jobs], station.head[jobs]
    router_free_s, drop = station.router_free_s[jobs], station.drop[jobs]
    next_s = np.empty(size)  # `next_pass_s` of each job
    urgent_s = np.full(size, np.inf)  # of each job, the deadline of its first waiting request
    any_waiting = 0
    ahead_s = 0.0
    for n in range(size):
        ahead_s += read_ahead(until_s, head[n], end[n], requests)
        next_s[n] = next_pass_s(
            head[n], arriving[n], end[n], router_free_s[n], arrival_s, router_in_s, latency_s
        )
        count = waiting_count[jobs[n]]
        any_waiting += count
        if count > 0:
            urgent_s[n] = arrival_s[waiting[jobs[n], waiting_head[jobs[n]]]] + slo_s[n]
    if ahead_s < 0:  # never; unless they are used, the compiler leaves out what was read
        return
    busy, busy_s, busy_count = busy_slots(serving, done_s)
    busy_from, mask = 0, len(busy) - 1
    soonest = earliest(next_s)  # the job whose request ends its first pass next
    # Free slots, free for longest first: all of them in a list that ends with number `slots`, and
    # those at home with each job in one that ends with `slots` + job.
    after_free, before_free = np.full((2, slots + 1), slots)
    after_home, before_home = np.arange(slots + size), np.arange(slots + size)
    for slot in pool.free[: pool.idle[0]]:
        _append(after_free, before_free, slots, slot)
        _append(after_home, before_home, slots + home[slot], slot)
    while True:
        leaving = NONE  # the request that leaves at this event
        served = True  # whether it was served and not dropped
        starting = NONE  # the replica that begins to serve the request `begun` of job `of`
        begun = NONE
        of = NONE
        next_at_s = next_s[soonest]
        done_at_s = busy_s[busy_from & mask] if busy_count > 0 else np.inf
        now = min(next_at_s, done_at_s)
        if now > until_s or now == np.inf:
            break
        if next_at_s <= done_at_s:
            position = soonest
            job = jobs[position]
            request = head[position]
            if request == arriving[position]:  # it has arrived since the job's last event
                arriving[position] += 1
                latency_s[request] = -now
                router_free_s[position] = now
            head[position] += 1
            slot = NONE
            dropped = drop[position] > 0 and coin[request] < drop[position]
            if not dropped:
                slot = _first_holding(position, after_home, slots + position, holds)
                if slot == NONE:
                    slot = _first_holding(position, after_free, slots, holds)
                dropped = slot == NONE and waiting_count[job] > queue_limit
            if dropped:
                leaving = request
                served = False
            elif slot != NONE:
                starting, begun, of = slot, request, position
                _unlink(after_free, before_free, slot)
                _unlink(after_home, before_home, slot)
            else:
                waiting[job, wrap(waiting_head[job] + waiting_count[job], queue_length)] = request
                waiting_count[job] += 1
                any_waiting += 1
                if waiting_count[job] == 1:
                    urgent_s[position] = arrival_s[request] + slo_s[position]
        else:
            slot = busy[busy_from & mask]
            busy_from += 1
            busy_count -= 1
            leaving, position = serving[slot], serving_job[slot]
            serving[slot] = NONE
            done_s[slot] = np.inf
            in_replicas[position] -= 1
            if alive[slot]:
                if any_waiting > 0:
                    earliest_s = np.inf
                    for n in range(size):
                        if urgent_s[n] < earliest_s and holds[slot, n]:
                            of, earliest_s = n, urgent_s[n]
                if of == NONE:
                    _append(after_free, before_free, slots, slot)
                    _append(after_home, before_home, slots + home[slot], slot)
                else:
                    job = jobs[of]
                    starting, begun = slot, waiting[job, waiting_head[job]]
                    waiting_head[job] = wrap(waiting_head[job] + 1, queue_length)
                    waiting_count[job] -= 1
                    any_waiting -= 1
                    urgent_s[of] = np.inf
                    if waiting_count[job] > 0:
                        urgent_s[of] = arrival_s[waiting[job, waiting_head[job]]] + slo_s[of]

        if starting != NONE:
            serving[starting], serving_job[starting] = begun, of
            in_replicas[of] += 1
            done_s[starting] = now + service_s[begun]
            insert_busy(starting, done_s[starting], busy, busy_s, busy_from, busy_count)
            busy_count += 1
        free_s = router_free_s[position]
        if leaving != NONE:  # served or dropped, the request passes the router again
            # Requests that have arrived by now enter the router first.
            arriving[position], free_s = enter_router(
                now, arriving[position], end[position], free_s, arrival_s, router_in_s, latency_s
            )
            free_s = through_router(free_s, now, router_out_s, leaving)
            router_free_s[position] = free_s
            spent_s = free_s - arrival_s[leaving]
            latency_s[leaving] = spent_s if served else np.inf
            second = int(free_s)
            if second < seconds:
                finished[jobs[position], second] += 1
                finished_latency_s[jobs[position], second] += spent_s
        at_s = next_pass_s(
            head[position],
            arriving[position],
            end[position],
            free_s,
            arrival_s,
            router_in_s,
            latency_s,
        )
        # A pass is never earlier than it was expected, so other jobs' passes do not come before the
        # soonest one.
        next_s[position] = at_s
        if position == soonest:
            soonest = earliest(next_s)
    for n in range(size):
        job = jobs[n]
        station.next_arrival[job], station.router_free_s[job] = enter_router(
            until_s, arriving[n], end[n], router_free_s[n], arrival_s, router_in_s, latency_s
        )
        station.head[job] = head[n]
    idle, slot = 0, after_free[slots]
    while slot != slots:
        pool.free[idle] = slot
        idle, slot = idle + 1, after_free[slot]
    pool.idle[0] = idle

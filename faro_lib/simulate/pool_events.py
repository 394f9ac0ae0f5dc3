"""The compiled event loop of one pool: jobs whose requests are served by shared replicas.

Events are those of `events`, with the requests of all jobs of the pool in one loop: a request
arrives, ends its first pass through its job's router, or is completed by a replica. Simultaneous
events of different jobs are processed in the order of the jobs, before completions, and those in
the order of the slots. Between two calls, replicas come and go and load models (module `pools`).

Three routers choose the replica of a request:

LATE   Requests wait in one FIFO queue per job. A replica that becomes free takes, of the first
       requests of the jobs whose models it holds, the one with the earliest deadline.
EARLY  A request joins the replica with the fewest requests among those that hold its model. A
       replica serves the earliest deadline in its queue. A gateway knows the numbers of requests
       as they were when they were counted last, and what it has sent since.
LRU    A request joins such a replica if that has fewer than max_ongoing_requests, and otherwise
       the replica with the fewest requests, which loads the model before it serves the request and
       drops the models that it has used least recently. A replica serves its queue in order.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from faro_lib.simulate.events import NONE, Requests, Station, wrap

LATE, EARLY, LRU = 0, 1, 2
NO_LIMIT = np.iinfo(np.int64).max


class Rules(NamedTuple):
    """What does not change in a run; arrays are (jobs of the pool,)."""

    router: int
    queue_limit: int
    counts_age_s: float  # seconds between two counts of the requests in replicas
    jobs: np.ndarray  # positions in the workload
    slo_s: np.ndarray
    load_s: np.ndarray
    memory_of: np.ndarray  # GiB
    memory_gib: float
    models: int


class PoolState(NamedTuple):
    """Replicas of one pool and their requests; a slot stores one replica. Shapes as stated.

    The queues of replicas are linked lists of nodes, one node per request.
    """

    order: np.ndarray  # (slots,) begins with the `active` slots, oldest replica first
    active: np.ndarray  # (1,) number of active slots: those of replicas that were not removed
    turn: np.ndarray  # (1,) position in `order` at which the next search begins
    alive: np.ndarray  # bool (slots,) whether the slot is active
    free: np.ndarray  # (slots,) LATE: begins with the `idle` free slots, free for longest first
    idle: np.ndarray  # (1,)
    home: np.ndarray  # (slots,) the home job, its position in the pool
    holds: np.ndarray  # bool (slots, jobs) the models in each replica
    used_s: np.ndarray  # (slots, jobs) when the replica last began to serve the model
    serving: np.ndarray  # (slots,) the request in service, or NONE
    serving_job: np.ndarray  # (slots,) its job, the position in the pool
    done_s: np.ndarray  # (slots,) when it is completed; inf if the replica is free
    inside: np.ndarray  # (slots,) requests in the replica, in service or queued
    first_node: np.ndarray  # (slots,) first request of the replica's queue, or NONE
    last_node: np.ndarray  # (slots,)
    node_request: np.ndarray  # (nodes,)
    node_job: np.ndarray  # (nodes,) position in the pool
    node_deadline_s: np.ndarray  # (nodes,)
    node_next: np.ndarray  # (nodes,) next node of the queue, or of the unused nodes, or NONE
    unused_node: np.ndarray  # (1,)
    counted: np.ndarray  # (slots,) `inside` when it was counted last
    sent: np.ndarray  # (gateways, slots) what each gateway has sent since then
    next_count_s: np.ndarray  # (1,) when the requests are counted next
    routed: np.ndarray  # (1,) requests for which a replica was sought; tells the gateway
    in_replicas: np.ndarray  # (jobs,) requests in replicas, in service or queued
    queued: np.ndarray  # (jobs,) requests queued in replicas


PER_POOL_SLOT = {
    "order",
    "alive",
    "free",
    "home",
    "holds",
    "used_s",
    "serving",
    "serving_job",
    "done_s",
    "inside",
    "first_node",
    "last_node",
    "counted",
}
EMPTY = {"serving": NONE, "done_s": np.inf, "first_node": NONE, "last_node": NONE}


def new_pool_state(slots: int, jobs: int, queue_limit: int, gateways: int) -> PoolState:
    """A `PoolState` without replicas and requests."""
    nodes = jobs * (queue_limit + 1)
    following = np.arange(1, nodes + 1)
    following[-1] = NONE
    return PoolState(
        order=np.zeros(slots, np.int64),
        active=np.zeros(1, np.int64),
        turn=np.zeros(1, np.int64),
        alive=np.zeros(slots, bool),
        free=np.zeros(slots, np.int64),
        idle=np.zeros(1, np.int64),
        home=np.zeros(slots, np.int64),
        holds=np.zeros((slots, jobs), bool),
        used_s=np.zeros((slots, jobs)),
        serving=np.full(slots, NONE),
        serving_job=np.zeros(slots, np.int64),
        done_s=np.full(slots, np.inf),
        inside=np.zeros(slots, np.int64),
        first_node=np.full(slots, NONE),
        last_node=np.full(slots, NONE),
        node_request=np.zeros(nodes, np.int64),
        node_job=np.zeros(nodes, np.int64),
        node_deadline_s=np.zeros(nodes),
        node_next=following,
        unused_node=np.zeros(1, np.int64),
        counted=np.zeros(slots, np.int64),
        sent=np.zeros((gateways, slots), np.int64),
        next_count_s=np.zeros(1),
        routed=np.zeros(1, np.int64),
        in_replicas=np.zeros(jobs, np.int64),
        queued=np.zeros(jobs, np.int64),
    )


def with_pool_slots(state: PoolState, slots: int) -> PoolState:
    """The state with empty slots added up to `slots`."""
    wider = {}
    for field in PER_POOL_SLOT:
        array = getattr(state, field)
        wider[field] = np.full((slots, *array.shape[1:]), EMPTY.get(field, 0), array.dtype)
        wider[field][: len(array)] = array
    sent = np.zeros((len(state.sent), slots), np.int64)
    sent[:, : state.sent.shape[1]] = state.sent
    return state._replace(**wider, sent=sent)


@njit(cache=True)
def _next_count_s(now, age_s):
    """The first multiple of `age_s` after now."""
    next_s = (np.floor(now / age_s) + 1) * age_s
    return next_s if next_s > now else next_s + age_s


@njit(cache=True)
def _use(rules, holds, used_s, position, now):
    """Seconds until an LRU replica has the model, for which it drops others if it must."""
    takes_s = 0.0
    if not holds[position]:
        takes_s = rules.load_s[position]
        while True:
            models, memory_gib, oldest = 1, rules.memory_of[position], NONE
            for other in range(len(holds)):
                if holds[other]:
                    models += 1
                    memory_gib += rules.memory_of[other]
                    if oldest == NONE or used_s[other] < used_s[oldest]:
                        oldest = other
            if models <= rules.models and memory_gib <= rules.memory_gib + 1e-9:
                break
            holds[oldest] = False
        holds[position] = True
    used_s[position] = now
    return takes_s


@njit(cache=True)
def take_out(pool, slot, position, requests, positions):
    """Take a job's requests (of all jobs if `position` is NONE) out of a replica's queue.

    Writes them to `requests` and `positions` and returns their number.
    """
    count, before, node = 0, NONE, pool.first_node[slot]
    while node != NONE:
        after = pool.node_next[node]
        if position == NONE or pool.node_job[node] == position:
            if before == NONE:
                pool.first_node[slot] = after
            else:
                pool.node_next[before] = after
            pool.node_next[node] = pool.unused_node[0]
            pool.unused_node[0] = node
            its_job = pool.node_job[node]
            pool.queued[its_job] -= 1
            pool.in_replicas[its_job] -= 1
            pool.inside[slot] -= 1
            requests[count] = pool.node_request[node]
            positions[count] = its_job
            count += 1
        else:
            before = node
        node = after
    pool.last_node[slot] = before
    return count


@njit(cache=True, nogil=True)
def advance_pool(
    until_s: float,
    moved: np.ndarray,
    moved_job: np.ndarray,
    rules: Rules,
    requests: Requests,
    station: Station,
    pool: PoolState,
) -> None:
    """Process the pool's events up to and including `until_s`.

    The requests `moved`, of the jobs at positions `moved_job`, are sent to replicas first, at
    `until_s`. One long function for the reason given in `events.advance_job`.
    """
    router, queue_limit, age_s = rules.router, rules.queue_limit, rules.counts_age_s
    jobs, slo_s = rules.jobs, rules.slo_s
    arrival_s, service_s, latency_s = requests.arrival_s, requests.service_s, requests.latency_s
    router_in_s, router_out_s, coin = requests.router_in_s, requests.router_out_s, requests.coin
    first = requests.first
    places, seconds = station.places, station.finished.shape[1]
    waiting, waiting_head = station.waiting, station.waiting_head
    waiting_count = station.waiting_count
    finished, finished_latency_s = station.finished, station.finished_latency_s
    order, active, turn = pool.order, pool.active[0], pool.turn[0]
    alive, home, holds, used_s = pool.alive, pool.home, pool.holds, pool.used_s
    free, idle = pool.free, pool.idle[0]
    serving, serving_job, done_s = pool.serving, pool.serving_job, pool.done_s
    inside, in_replicas, queued = pool.inside, pool.in_replicas, pool.queued
    first_node, last_node, unused = pool.first_node, pool.last_node, pool.unused_node[0]
    node_request, node_job, node_next = pool.node_request, pool.node_job, pool.node_next
    node_deadline_s = pool.node_deadline_s
    sent, next_count_s, routed = pool.sent, pool.next_count_s[0], pool.routed[0]
    counted = pool.counted if age_s > 0 else inside
    queue_length = waiting.shape[1]

    size = len(jobs)
    has_router = len(router_in_s) > 0
    end = first[jobs + 1]
    arriving, head = station.next_arrival[jobs], station.head[jobs]
    router_free_s, drop = station.router_free_s[jobs], station.drop[jobs]
    # Of each job, when its next request ends its first pass if none leaves the system before then.
    next_s = np.full(size, np.inf)
    urgent_s = np.full(size, np.inf)  # LATE: of each job, the deadline of its first waiting request
    any_waiting = 0
    for n in range(size):
        if head[n] < arriving[n]:
            next_s[n] = -latency_s[head[n]]
        elif head[n] < end[n]:
            takes_s = router_in_s[head[n]] if has_router else 0.0
            next_s[n] = max(router_free_s[n], arrival_s[head[n]]) + takes_s
        count = waiting_count[jobs[n]]
        any_waiting += count
        if count > 0:
            urgent_s[n] = arrival_s[waiting[jobs[n], waiting_head[jobs[n]]]] + slo_s[n]
    busy, busy_from, busy_count = np.empty(len(done_s), np.int64), 0, 0
    for slot in np.argsort(done_s, kind="mergesort"):
        if serving[slot] != NONE:
            busy[busy_count] = slot
            busy_count += 1
    mask = len(busy) - 1
    next_at_s, next_job = np.inf, NONE  # of all jobs
    search = True
    moves = 0
    while True:
        leaving = NONE  # the request that leaves at this event
        served = True  # whether it was served and not dropped
        coming = NONE  # the request that needs a replica
        starting = NONE  # the replica that begins to serve the request `begun`
        begun = NONE
        if search:
            next_at_s = np.inf
            for n in range(size):
                if next_s[n] < next_at_s:
                    next_at_s, next_job = next_s[n], n
            search = False
        if moves < len(moved):
            now = until_s
            coming, position = moved[moves], moved_job[moves]
            moves += 1
        else:
            done_at_s = done_s[busy[busy_from & mask]] if busy_count > 0 else np.inf
            now = min(next_at_s, done_at_s)
            if now > until_s or now == np.inf:
                break
            if age_s > 0 and now >= next_count_s:
                next_count_s = _next_count_s(now, age_s)
                counted[:] = inside
                sent[:] = 0
            if next_at_s <= done_at_s:
                position = next_job
                request = head[position]
                if request == arriving[position]:  # it has arrived since the job's last event
                    arriving[position] += 1
                    latency_s[request] = -now
                    router_free_s[position] = now
                head[position] += 1
                if drop[position] > 0 and coin[request] < drop[position]:
                    leaving = request
                    served = False
                else:
                    coming = request
            else:
                slot = busy[busy_from & mask]
                busy_from += 1
                busy_count -= 1
                leaving, position = serving[slot], serving_job[slot]
                serving[slot] = NONE
                done_s[slot] = np.inf
                inside[slot] -= 1
                in_replicas[position] -= 1
                if router == LATE:
                    if alive[slot]:
                        next_position = NONE
                        if any_waiting > 0:
                            earliest_s = np.inf
                            for n in range(size):
                                if urgent_s[n] < earliest_s and holds[slot, n]:
                                    next_position, earliest_s = n, urgent_s[n]
                        if next_position != NONE:
                            job = jobs[next_position]
                            starting, begun = slot, waiting[job, waiting_head[job]]
                            waiting_head[job] = wrap(waiting_head[job] + 1, queue_length)
                            waiting_count[job] -= 1
                            any_waiting -= 1
                            urgent_s[next_position] = np.inf
                            if waiting_count[job] > 0:
                                oldest = waiting[job, waiting_head[job]]
                                urgent_s[next_position] = arrival_s[oldest] + slo_s[next_position]
                            inside[slot] += 1
                            in_replicas[next_position] += 1
                            serving_job[slot] = next_position
                        else:
                            free[idle] = slot
                            idle += 1
                elif first_node[slot] != NONE:
                    node = first_node[slot]
                    first_node[slot] = node_next[node]
                    if first_node[slot] == NONE:
                        last_node[slot] = NONE
                    node_next[node] = unused
                    unused = node
                    starting, begun = slot, node_request[node]
                    queued[node_job[node]] -= 1
                    serving_job[slot] = node_job[node]

        if coming != NONE:
            job = jobs[position]
            slot = NONE
            if router == LATE:
                place = NONE
                for n in range(idle):
                    if holds[free[n], position]:
                        if home[free[n]] == position:
                            place = n
                            break
                        if place == NONE:
                            place = n
                if place != NONE:
                    slot = free[place]
                    idle -= 1
                    for n in range(place, idle):
                        free[n] = free[n + 1]
            else:
                gateway = routed % len(sent)
                routed += 1
                any_model = False
                most = places[job] if router == LRU else NO_LIMIT
                while True:  # behind the replica found last, so that equal replicas take turns
                    place, fewest, next_turn = turn, most, turn
                    for _ in range(active):
                        one = order[place]
                        place = wrap(place + 1, active)
                        known = counted[one] + sent[gateway, one]
                        if known < fewest and (any_model or holds[one, position]):
                            slot, fewest, next_turn = one, known, place
                    turn = next_turn
                    if slot != NONE or any_model or router == EARLY:
                        break
                    any_model = True
                    most = NO_LIMIT
            is_free = slot != NONE and serving[slot] == NONE
            if not is_free and waiting_count[job] + queued[position] > queue_limit:
                leaving = coming
                served = False
            elif slot == NONE:
                waiting[job, wrap(waiting_head[job] + waiting_count[job], queue_length)] = coming
                waiting_count[job] += 1
                any_waiting += 1
                if waiting_count[job] == 1:
                    urgent_s[position] = arrival_s[coming] + slo_s[position]
            else:
                inside[slot] += 1
                in_replicas[position] += 1
                if age_s > 0 and router != LATE:
                    sent[gateway, slot] += 1
                if is_free:
                    starting, begun = slot, coming
                    serving_job[slot] = position
                else:
                    node = unused
                    unused = node_next[node]
                    node_request[node], node_job[node] = coming, position
                    deadline_s = arrival_s[coming] + slo_s[position]
                    node_deadline_s[node] = deadline_s
                    before = last_node[slot]
                    if before != NONE and router == EARLY and node_deadline_s[before] > deadline_s:
                        before, after = NONE, first_node[slot]
                        while node_deadline_s[after] <= deadline_s:
                            before, after = after, node_next[after]
                    if before == NONE:
                        node_next[node] = first_node[slot]
                        first_node[slot] = node
                    else:
                        node_next[node] = node_next[before]
                        node_next[before] = node
                    if node_next[node] == NONE:
                        last_node[slot] = node
                    queued[position] += 1

        if starting != NONE:
            takes_s = service_s[begun]
            if router == LRU:
                its_job = serving_job[starting]
                takes_s += _use(rules, holds[starting], used_s[starting], its_job, now)
            serving[starting] = begun
            at_s = now + takes_s
            place = busy_from + busy_count
            while place > busy_from:
                other = busy[(place - 1) & mask]
                if done_s[other] < at_s or (done_s[other] == at_s and other < starting):
                    break
                busy[place & mask] = other
                place -= 1
            busy[place & mask] = starting
            done_s[starting] = at_s
            busy_count += 1
        free_s = router_free_s[position]
        request, last = arriving[position], end[position]
        if leaving != NONE:  # served or dropped, the request passes the router again
            # Requests that have arrived by now enter the router first.
            while request < last and arrival_s[request] <= now:
                takes_s = router_in_s[request] if has_router else 0.0
                free_s = max(free_s, arrival_s[request]) + takes_s
                latency_s[request] = -free_s
                request += 1
            arriving[position] = request
            takes_s = router_out_s[leaving] if has_router else 0.0
            free_s = max(free_s, now) + takes_s
            router_free_s[position] = free_s
            spent_s = free_s - arrival_s[leaving]
            latency_s[leaving] = spent_s if served else np.inf
            second = int(free_s)
            if second < seconds:
                finished[jobs[position], second] += 1
                finished_latency_s[jobs[position], second] += spent_s
        if head[position] < request:
            at_s = -latency_s[head[position]]
        elif request < last:
            takes_s = router_in_s[request] if has_router else 0.0
            at_s = max(free_s, arrival_s[request]) + takes_s
        else:
            at_s = np.inf
        if at_s != next_s[position]:
            next_s[position] = at_s
            if position == next_job:
                search = True
    for n in range(size):
        while arriving[n] < end[n] and arrival_s[arriving[n]] <= until_s:
            request = arriving[n]
            takes_s = router_in_s[request] if has_router else 0.0
            router_free_s[n] = max(router_free_s[n], arrival_s[request]) + takes_s
            latency_s[request] = -router_free_s[n]
            arriving[n] += 1
        job = jobs[n]
        station.next_arrival[job], station.head[job] = arriving[n], head[n]
        station.router_free_s[job] = router_free_s[n]
    if age_s > 0 and until_s >= next_count_s:
        next_count_s = _next_count_s(until_s, age_s)
        counted[:] = inside
        sent[:] = 0
    pool.turn[0], pool.idle[0], pool.unused_node[0] = turn, idle, unused
    pool.next_count_s[0], pool.routed[0] = next_count_s, routed

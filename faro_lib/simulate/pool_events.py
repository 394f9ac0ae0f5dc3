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

from faro_lib.simulate.events import NONE, Requests, Station, ended, soonest, through_router, wrap

LATE, EARLY, LRU = 0, 1, 2


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
    home: np.ndarray  # (slots,) the home job, its position in the pool
    holds: np.ndarray  # bool (slots, jobs) the models in each replica
    used_s: np.ndarray  # (slots, jobs) when the replica last began to serve the model
    serving: np.ndarray  # (slots,) the request in service, or NONE
    serving_job: np.ndarray  # (slots,) its job, the position in the pool
    done_s: np.ndarray  # (slots,) when it is completed; inf if the replica is free
    free_s: np.ndarray  # (slots,) since when the replica is free
    inside: np.ndarray  # (slots,) requests in the replica, in service or queued
    first_node: np.ndarray  # (slots,) first request of the replica's queue, or NONE
    last_node: np.ndarray  # (slots,)
    node_request: np.ndarray  # (nodes,)
    node_job: np.ndarray  # (nodes,) position in the pool
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
    "home",
    "holds",
    "used_s",
    "serving",
    "serving_job",
    "done_s",
    "free_s",
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
        home=np.zeros(slots, np.int64),
        holds=np.zeros((slots, jobs), bool),
        used_s=np.zeros((slots, jobs)),
        serving=np.full(slots, NONE),
        serving_job=np.zeros(slots, np.int64),
        done_s=np.full(slots, np.inf),
        free_s=np.zeros(slots),
        inside=np.zeros(slots, np.int64),
        first_node=np.full(slots, NONE),
        last_node=np.full(slots, NONE),
        node_request=np.zeros(nodes, np.int64),
        node_job=np.zeros(nodes, np.int64),
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


@njit(cache=True, inline="always")
def _count(rules, pool, now):
    """Count the requests in replicas, if the time for it has come."""
    if now >= pool.next_count_s[0]:
        age_s = rules.counts_age_s
        next_s = (np.floor(now / age_s) + 1) * age_s
        pool.next_count_s[0] = next_s if next_s > now else next_s + age_s
        pool.counted[:] = pool.inside
        pool.sent[:] = 0


@njit(cache=True)
def _use(rules, pool, slot, position, now):
    """Seconds until an LRU replica has the model, for which it drops others if it must."""
    holds, used_s = pool.holds[slot], pool.used_s[slot]
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


@njit(cache=True, inline="always")
def _begin(rules, pool, slot, position, request, now, service_s):
    """Begin to serve the request in a free replica."""
    takes_s = service_s[request]
    if rules.router == LRU:
        takes_s += _use(rules, pool, slot, position, now)
    pool.serving[slot] = request
    pool.serving_job[slot] = position
    pool.done_s[slot] = now + takes_s


@njit(cache=True)
def _queue_in(rules, pool, slot, position, request, arrival_s):
    """Put the request into the replica's queue: by deadline, or last under LRU."""
    node = pool.unused_node[0]
    pool.unused_node[0] = pool.node_next[node]
    pool.node_request[node] = request
    pool.node_job[node] = position
    deadline_s = arrival_s[request] + rules.slo_s[position]
    before = pool.last_node[slot]
    if before != NONE and rules.router == EARLY:
        other = pool.node_request[before]
        if arrival_s[other] + rules.slo_s[pool.node_job[before]] > deadline_s:
            before, after = NONE, pool.first_node[slot]
            while True:
                other = pool.node_request[after]
                if arrival_s[other] + rules.slo_s[pool.node_job[after]] > deadline_s:
                    break
                before, after = after, pool.node_next[after]
    if before == NONE:
        pool.node_next[node] = pool.first_node[slot]
        pool.first_node[slot] = node
    else:
        pool.node_next[node] = pool.node_next[before]
        pool.node_next[before] = node
    if pool.node_next[node] == NONE:
        pool.last_node[slot] = node
    pool.queued[position] += 1


@njit(cache=True, inline="always")
def _free_node(pool, node):
    """The request and job of a node, which is unused afterwards."""
    pool.node_next[node] = pool.unused_node[0]
    pool.unused_node[0] = node
    position = pool.node_job[node]
    pool.queued[position] -= 1
    return pool.node_request[node], position


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
            requests[count], positions[count] = _free_node(pool, node)
            pool.in_replicas[positions[count]] -= 1
            pool.inside[slot] -= 1
            count += 1
        else:
            before = node
        node = after
    pool.last_node[slot] = before
    return count


@njit(cache=True)
def _fewest(rules, pool, position, gateway, most):
    """The replica with fewer than `most` requests that has the fewest, or NONE.

    It holds the model of the job at `position`; with NONE, any replica will do. The search begins
    behind the replica found last, so that equal replicas take turns.
    """
    best, fewest, next_turn = NONE, most, pool.turn[0]
    turn, active = pool.turn[0], pool.active[0]
    for _ in range(active):
        slot = pool.order[turn]
        turn = wrap(turn + 1, active)
        if position != NONE and not pool.holds[slot, position]:
            continue
        if rules.counts_age_s > 0:
            requests = pool.counted[slot] + pool.sent[gateway, slot]
        else:
            requests = pool.inside[slot]
        if requests < fewest:
            best, fewest, next_turn = slot, requests, turn
    pool.turn[0] = next_turn
    return best


@njit(cache=True, inline="always")
def _push(rules, station, position, request):
    """Put the request into its job's queue, which has room."""
    job = rules.jobs[position]
    length = station.waiting.shape[1]
    place = wrap(station.waiting_head[job] + station.waiting_count[job], length)
    station.waiting[job, place] = request
    station.waiting_count[job] += 1


@njit(cache=True, inline="always")
def _pop(rules, station, position):
    """Take the first request out of its job's queue."""
    job = rules.jobs[position]
    head = station.waiting_head[job]
    station.waiting_head[job] = wrap(head + 1, station.waiting.shape[1])
    station.waiting_count[job] -= 1
    return station.waiting[job, head]


@njit(cache=True)
def _bind(rules, pool, station, position, request, now, requests):
    """Send the request to a replica (EARLY, LRU); whether there was one, or room in the queue."""
    job = rules.jobs[position]
    most = np.iinfo(np.int64).max
    gateway = pool.routed[0] % len(pool.sent)
    pool.routed[0] += 1
    if rules.router == EARLY:
        slot = _fewest(rules, pool, position, gateway, most)
    else:
        slot = _fewest(rules, pool, position, gateway, station.places[job])
        if slot == NONE:
            slot = _fewest(rules, pool, NONE, gateway, most)
    free = slot != NONE and pool.serving[slot] == NONE
    if not free and station.waiting_count[job] + pool.queued[position] > rules.queue_limit:
        return False
    if slot == NONE:
        _push(rules, station, position, request)
        return True
    pool.sent[gateway, slot] += 1
    pool.inside[slot] += 1
    pool.in_replicas[position] += 1
    if free:
        _begin(rules, pool, slot, position, request, now, requests.service_s)
    else:
        _queue_in(rules, pool, slot, position, request, requests.arrival_s)
    return True


@njit(cache=True, inline="always")
def _free_holder(pool, position):
    """LATE: the free replica that serves the job, at home with it or free for longest, or NONE."""
    best = NONE
    best_home = False
    for slot in range(len(pool.alive)):
        if pool.alive[slot] and pool.serving[slot] == NONE and pool.holds[slot, position]:
            at_home = pool.home[slot] == position
            longer = best == NONE or pool.free_s[slot] < pool.free_s[best]
            if (at_home and not best_home) or (at_home == best_home and longer):
                best = slot
                best_home = at_home
    return best


@njit(cache=True, inline="always")
def _urgent(rules, pool, station, slot, arrival_s):
    """LATE: the job whose first request has the earliest deadline of those the replica serves."""
    best, earliest_s = NONE, np.inf
    for position in range(len(rules.jobs)):
        job = rules.jobs[position]
        if station.waiting_count[job] > 0 and pool.holds[slot, position]:
            request = station.waiting[job, station.waiting_head[job]]
            deadline_s = arrival_s[request] + rules.slo_s[position]
            if deadline_s < earliest_s:
                best, earliest_s = position, deadline_s
    return best


@njit(cache=True, inline="always")
def _next_event(requests, station, job):
    """When the job's next request arrives or leaves its first pass, whichever is first."""
    arriving, head = station.next_arrival[job], station.head[job]
    at_s = np.inf
    if arriving < requests.first[job + 1]:
        at_s = requests.arrival_s[arriving]
    if head < arriving and -requests.latency_s[head] < at_s:
        at_s = -requests.latency_s[head]
    return at_s


@njit(cache=True, nogil=True)
def advance_pool(
    until_s: float, rules: Rules, requests: Requests, station: Station, pool: PoolState
) -> None:
    """Process the pool's events up to and including `until_s`."""
    arrival_s, service_s, latency_s = requests.arrival_s, requests.service_s, requests.latency_s
    router_in_s, router_out_s = requests.router_in_s, requests.router_out_s
    next_s = np.empty(len(rules.jobs))
    for position in range(len(next_s)):
        next_s[position] = _next_event(requests, station, rules.jobs[position])
    coming_s, coming = soonest(next_s)
    done_s, slot = soonest(pool.done_s)
    while True:
        now = coming_s if coming_s <= done_s else done_s
        if now > until_s or now == np.inf:
            break
        if rules.counts_age_s > 0:
            _count(rules, pool, now)

        if coming_s <= done_s:
            job = rules.jobs[coming]
            arriving, head = station.next_arrival[job], station.head[job]
            routed_s = -latency_s[head] if head < arriving else np.inf
            if arriving < requests.first[job + 1] and arrival_s[arriving] <= routed_s:
                free_s = through_router(station.router_free_s[job], now, router_in_s, arriving)
                station.router_free_s[job] = free_s
                latency_s[arriving] = -free_s
                station.next_arrival[job] = arriving + 1
            else:  # the request has passed the router
                station.head[job] = head + 1
                served = True
                if station.drop[job] > 0 and requests.coin[head] < station.drop[job]:
                    served = False
                elif rules.router == LATE:
                    free = _free_holder(pool, coming)
                    if free != NONE:
                        pool.inside[free] += 1
                        pool.in_replicas[coming] += 1
                        _begin(rules, pool, free, coming, head, now, service_s)
                    elif station.waiting_count[job] > rules.queue_limit:
                        served = False
                    else:
                        _push(rules, station, coming, head)
                else:
                    served = _bind(rules, pool, station, coming, head, now, requests)
                done_s, slot = soonest(pool.done_s)
                if not served:
                    free_s = through_router(station.router_free_s[job], now, router_out_s, head)
                    station.router_free_s[job] = free_s
                    latency_s[head] = np.inf
                    spent_s = free_s - arrival_s[head]
                    ended(
                        int(free_s), spent_s, station.finished[job], station.finished_latency_s[job]
                    )
            next_s[coming] = _next_event(requests, station, job)
            coming_s, coming = soonest(next_s)
            continue

        request, position = pool.serving[slot], pool.serving_job[slot]
        job = rules.jobs[position]
        pool.serving[slot] = NONE
        pool.done_s[slot] = np.inf
        pool.free_s[slot] = now
        pool.inside[slot] -= 1
        pool.in_replicas[position] -= 1
        if rules.router == LATE:
            if pool.alive[slot]:
                urgent = _urgent(rules, pool, station, slot, arrival_s)
                if urgent != NONE:
                    pool.inside[slot] += 1
                    pool.in_replicas[urgent] += 1
                    following = _pop(rules, station, urgent)
                    _begin(rules, pool, slot, urgent, following, now, service_s)
        elif pool.first_node[slot] != NONE:
            node = pool.first_node[slot]
            pool.first_node[slot] = pool.node_next[node]
            if pool.first_node[slot] == NONE:
                pool.last_node[slot] = NONE
            following, its_job = _free_node(pool, node)
            _begin(rules, pool, slot, its_job, following, now, service_s)
        done_s, slot = soonest(pool.done_s)
        free_s = through_router(station.router_free_s[job], now, router_out_s, request)
        station.router_free_s[job] = free_s
        spent_s = free_s - arrival_s[request]
        latency_s[request] = spent_s
        ended(int(free_s), spent_s, station.finished[job], station.finished_latency_s[job])
    if rules.counts_age_s > 0:
        _count(rules, pool, until_s)


@njit(cache=True)
def reroute(
    now: float,
    moved: np.ndarray,
    positions: np.ndarray,
    rules: Rules,
    requests: Requests,
    station: Station,
    pool: PoolState,
) -> None:
    """Send requests, which were taken out of replicas' queues, to other replicas."""
    for n in range(len(moved)):
        _bind(rules, pool, station, positions[n], moved[n], now, requests)


@njit(cache=True)
def wake(now: float, rules: Rules, requests: Requests, station: Station, pool: PoolState) -> None:
    """Give replicas the waiting requests that they can serve since they changed.

    LATE: each free replica takes one, in the order of the slots. EARLY, LRU: requests wait in front
    of the replicas only while none can take them; they are sent by deadline.
    """
    arrival_s = requests.arrival_s
    if rules.router == LATE:
        for slot in range(len(pool.alive)):
            if pool.alive[slot] and pool.serving[slot] == NONE:
                urgent = _urgent(rules, pool, station, slot, arrival_s)
                if urgent != NONE:
                    pool.inside[slot] += 1
                    pool.in_replicas[urgent] += 1
                    request = _pop(rules, station, urgent)
                    _begin(rules, pool, slot, urgent, request, now, requests.service_s)
        return
    active = pool.order[: pool.active[0]]
    while True:
        best, earliest_s = NONE, np.inf
        for position in range(len(rules.jobs)):
            job = rules.jobs[position]
            can = rules.router == LRU and len(active) > 0
            for slot in active:
                can = can or pool.holds[slot, position]
            if can and station.waiting_count[job] > 0:
                request = station.waiting[job, station.waiting_head[job]]
                deadline_s = arrival_s[request] + rules.slo_s[position]
                if deadline_s < earliest_s:
                    best, earliest_s = position, deadline_s
        if best == NONE:
            return
        request = _pop(rules, station, best)
        _bind(rules, pool, station, best, request, now, requests)

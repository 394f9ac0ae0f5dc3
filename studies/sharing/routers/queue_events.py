"""The compiled event loop of a pool whose replicas have queues of their own.

Events are those of `pool_events`. A gateway chooses the replica of a request when it arrives: one
with the fewest requests, as far as the gateway knows. It knows the numbers of requests as they were
when they were counted last, and what it has sent since.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from faro_lib.simulate.events import NONE, Requests, Station, wrap
from faro_lib.simulate.pool_events import (
    Members,
    PoolState,
    busy_slots,
    earliest,
    enter_router,
    insert_busy,
    leave,
    next_pass_s,
    read_ahead,
)

NO_LIMIT = np.iinfo(np.int64).max


class Rules(NamedTuple):
    """What does not change in a run; arrays are (jobs of the pool,)."""

    loads_on_demand: bool  # whether replicas load missing models, and serve queues in order
    queue_limit: int
    counts_age_s: float  # seconds between two counts of the requests in replicas
    load_s: np.ndarray
    memory_of: np.ndarray  # GiB
    memory_gib: float
    models: int


class Queues(NamedTuple):
    """The queues of replicas, and what gateways know of them. Shapes as stated.

    The queues are linked lists of nodes, one node per request.
    """

    order: np.ndarray  # (slots,) begins with the `active` slots, oldest replica first
    active: np.ndarray  # (1,) number of active slots: those of replicas that were not removed
    turn: np.ndarray  # (1,) position in `order` at which the next search begins
    used_s: np.ndarray  # (slots, jobs) when the replica last began to serve the model
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
    queued: np.ndarray  # (jobs,) requests queued in replicas


# Value of each field in a slot without a replica.
EMPTY_SLOT = {
    "order": 0,
    "used_s": 0.0,
    "inside": 0,
    "first_node": NONE,
    "last_node": NONE,
    "counted": 0,
}


def new_queues(slots: int, jobs: int, queue_limit: int, gateways: int) -> Queues:
    """`Queues` without requests."""
    nodes = jobs * (queue_limit + 1)
    following = np.arange(1, nodes + 1)
    following[-1] = NONE
    return Queues(
        order=np.zeros(slots, np.int64),
        active=np.zeros(1, np.int64),
        turn=np.zeros(1, np.int64),
        used_s=np.zeros((slots, jobs)),
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
        queued=np.zeros(jobs, np.int64),
    )


@njit(cache=True)
def _next_count_s(now, age_s):
    """The first multiple of `age_s` after now."""
    next_s = (np.floor(now / age_s) + 1) * age_s
    return next_s if next_s > now else next_s + age_s


@njit(cache=True)
def _use(rules, holds, used_s, position, now):
    """Seconds until a replica has the model, for which it drops others if it must."""
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
def take_out(pool, queues, slot, position, requests, positions):
    """Take a job's requests (of all jobs if `position` is NONE) out of a replica's queue.

    Writes them to `requests` and `positions` and returns their number.
    """
    count, before, node = 0, NONE, queues.first_node[slot]
    while node != NONE:
        after = queues.node_next[node]
        if position == NONE or queues.node_job[node] == position:
            if before == NONE:
                queues.first_node[slot] = after
            else:
                queues.node_next[before] = after
            queues.node_next[node] = queues.unused_node[0]
            queues.unused_node[0] = node
            its_job = queues.node_job[node]
            queues.queued[its_job] -= 1
            pool.in_replicas[its_job] -= 1
            queues.inside[slot] -= 1
            requests[count] = queues.node_request[node]
            positions[count] = its_job
            count += 1
        else:
            before = node
        node = after
    queues.last_node[slot] = before
    return count


@njit(cache=True, nogil=True)
def advance_queues(
    until_s: float,
    moved: np.ndarray,
    moved_job: np.ndarray,
    rules: Rules,
    members: Members,
    requests: Requests,
    station: Station,
    pool: PoolState,
    queues: Queues,
) -> None:
    """Process the pool's events up to and including `until_s`.

    The requests `moved`, of the jobs at positions `moved_job`, are sent to replicas first, at
    `until_s`. One long function for the reason given in `events.advance_job`.
    """
    on_demand, queue_limit = rules.loads_on_demand, rules.queue_limit
    age_s = rules.counts_age_s
    jobs, slo_s = members.jobs, members.slo_s
    arrival_s, service_s, latency_s = requests.arrival_s, requests.service_s, requests.latency_s
    router_in_s, coin = requests.router_in_s, requests.coin
    places = station.places
    waiting, waiting_head = station.waiting, station.waiting_head
    waiting_count = station.waiting_count
    finished, finished_latency_s = station.finished, station.finished_latency_s
    holds = pool.holds
    serving, serving_job, done_s = pool.serving, pool.serving_job, pool.done_s
    in_replicas, queued = pool.in_replicas, queues.queued
    order, active, turn = queues.order, queues.active[0], queues.turn[0]
    used_s, inside = queues.used_s, queues.inside
    first_node, last_node, unused = queues.first_node, queues.last_node, queues.unused_node[0]
    node_request, node_job, node_next = queues.node_request, queues.node_job, queues.node_next
    node_deadline_s = queues.node_deadline_s
    sent, next_count_s, routed = queues.sent, queues.next_count_s[0], queues.routed[0]
    counted = queues.counted if age_s > 0 else inside
    queue_length = waiting.shape[1]

    size = len(jobs)
    end = requests.first[jobs + 1]
    arriving, head = station.next_arrival[jobs], station.head[jobs]
    router_free_s, drop = station.router_free_s[jobs], station.drop[jobs]
    next_s = np.empty(size)  # `next_pass_s` of each job
    ahead_s = 0.0
    for n in range(size):
        ahead_s += read_ahead(until_s, head[n], end[n], requests)
        next_s[n] = next_pass_s(
            n, head, arriving, end, router_free_s, arrival_s, router_in_s, latency_s
        )
    if ahead_s < 0:  # never; unless they are used, the compiler leaves out what was read
        return
    busy, busy_s, busy_count = busy_slots(done_s)
    busy_from, mask = 0, len(busy) - 1
    soonest = earliest(next_s)  # the job whose request ends its first pass next
    moves = 0
    while True:
        leaving = NONE  # the request that leaves at this event
        served = True  # whether it was served and not dropped
        coming = NONE  # the request that needs a replica
        starting = NONE  # the replica that begins to serve the request `begun` of job `of`
        begun = NONE
        of = NONE
        next_at_s = next_s[soonest]
        if moves < len(moved):
            now = until_s
            coming, position = moved[moves], moved_job[moves]
            moves += 1
        else:
            done_at_s = busy_s[busy_from & mask] if busy_count > 0 else np.inf
            now = min(next_at_s, done_at_s)
            if now > until_s or now == np.inf:
                break
            if age_s > 0 and now >= next_count_s:
                next_count_s = _next_count_s(now, age_s)
                counted[:] = inside
                sent[:] = 0
            if next_at_s <= done_at_s:
                position = soonest
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
                if first_node[slot] != NONE:
                    node = first_node[slot]
                    first_node[slot] = node_next[node]
                    if first_node[slot] == NONE:
                        last_node[slot] = NONE
                    node_next[node] = unused
                    unused = node
                    starting, begun, of = slot, node_request[node], node_job[node]
                    queued[of] -= 1

        if coming != NONE:
            job = jobs[position]
            slot = NONE
            gateway = routed % len(sent)
            routed += 1
            any_model = False
            most = places[job] if on_demand else NO_LIMIT
            while True:  # behind the replica found last, so that equal replicas take turns
                place, fewest, next_turn = turn, most, turn
                for _ in range(active):
                    one = order[place]
                    place = wrap(place + 1, active)
                    known = counted[one] + sent[gateway, one]
                    if known < fewest and (any_model or holds[one, position]):
                        slot, fewest, next_turn = one, known, place
                turn = next_turn
                if slot != NONE or any_model or not on_demand:
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
            else:
                inside[slot] += 1
                in_replicas[position] += 1
                if age_s > 0:
                    sent[gateway, slot] += 1
                if is_free:
                    starting, begun, of = slot, coming, position
                else:
                    node = unused
                    unused = node_next[node]
                    node_request[node], node_job[node] = coming, position
                    deadline_s = arrival_s[coming] + slo_s[position]
                    node_deadline_s[node] = deadline_s
                    before = last_node[slot]
                    if before != NONE and not on_demand and node_deadline_s[before] > deadline_s:
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
            if on_demand:
                takes_s += _use(rules, holds[starting], used_s[starting], of, now)
            serving[starting], serving_job[starting] = begun, of
            done_s[starting] = now + takes_s
            insert_busy(starting, done_s[starting], busy, busy_s, busy_from, busy_count)
            busy_count += 1
        if leaving != NONE:
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
        next_s[position] = next_pass_s(
            position, head, arriving, end, router_free_s, arrival_s, router_in_s, latency_s
        )
        if position == soonest:  # as in `pool_events.advance_pool`
            soonest = earliest(next_s)
    for n in range(size):
        enter_router(n, until_s, arriving, end, router_free_s, arrival_s, router_in_s, latency_s)
        station.next_arrival[jobs[n]], station.head[jobs[n]] = arriving[n], head[n]
        station.router_free_s[jobs[n]] = router_free_s[n]
    if age_s > 0 and until_s >= next_count_s:
        next_count_s = _next_count_s(until_s, age_s)
        counted[:] = inside
        sent[:] = 0
    queues.turn[0], queues.unused_node[0] = turn, unused
    queues.next_count_s[0], queues.routed[0] = next_count_s, routed

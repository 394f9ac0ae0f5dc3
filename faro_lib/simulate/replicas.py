"""Service by concurrent, batched and continuously batching replicas, for the event loop (`events`).

A slot stores the requests in one replica. Its events are the end of a service, and the start and
end of a batch or iteration. At an event, `event` completes requests. The loop then dispatches
requests to replicas with room, and `begin` starts the next batch or iteration. `begin` skips
iterations that neither admit nor complete a request. If a request enters while iterations are
skipped, `enter` makes the end of the current one the slot's next event, to admit it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

from faro_lib.workload import Job
from faro_lib.workload.replicas import KINDS, SLO_ON, Replica

SERIAL, CONCURRENT, BATCHED, CONTINUOUS = range(4)
FIRST_TOKEN, PER_TOKEN, END_TO_END, BOTH = range(4)
BETWEEN = -1  # value of `Kinds.fresh` between two iterations
# Time per token of a one-token answer; not 0, because that would mark the request as unfinished.
SHORTEST_S = 1e-9


class Kinds(NamedTuple):
    """Replica parameters (jobs,) and slot states (jobs, slots), unless another shape is stated.

    `places` in shapes is the largest max_ongoing_requests.
    """

    kind: np.ndarray
    at_once: np.ndarray  # limit on the requests that one replica serves at once
    # The fields from here to `per_token_weight` are explained in `workload.replicas`.
    slowdown: np.ndarray
    wait_s: np.ndarray
    durations_s: np.ndarray  # (jobs, most at once) of a batch or iteration of 1, 2, ... requests
    prompt_knees: np.ndarray  # (jobs, knees, 2) `gamma_knees` after (0, gamma_s)
    max_tokens: np.ndarray
    slo_on: np.ndarray
    per_token_weight: np.ndarray
    prompt_tokens: np.ndarray  # (requests,)
    output_tokens: np.ndarray  # (requests,)
    first_token_s: np.ndarray  # (requests,) time of the first token; 0 before it
    left: np.ndarray  # (places,) indices of the requests that leave at an event
    line: np.ndarray  # (jobs, slots, places) requests by entry; the first `serving` are in service
    # (jobs, slots, places) a number for each request in `line`. Concurrent: value of `attained_s`
    # at which the request ends. Batched: time at which it entered the slot. Continuous: number of
    # the iteration that gives its last token.
    mark: np.ndarray
    serving: np.ndarray  # number of requests in service
    # Time when `attained_s` was updated (concurrent), the last batch ended (batched) or `iteration`
    # began (continuous).
    since_s: np.ndarray
    # Concurrent: integral of the service speed from when the slot was last empty to `since_s`.
    attained_s: np.ndarray
    iteration: np.ndarray  # continuous: number of the iteration that began at `since_s`
    # Continuous: the next event is the end of this iteration; no request leaves before it.
    last_iteration: np.ndarray
    # Continuous: number of requests admitted at `since_s`; BETWEEN between two iterations.
    fresh: np.ndarray


# Value of each field of `Kinds` in a slot without requests.
EMPTY_SLOT = {
    "line": 0,
    "mark": 0,
    "serving": 0,
    "since_s": 0.0,
    "attained_s": 0.0,
    "iteration": 0,
    "last_iteration": 0,
    "fresh": BETWEEN,
}


def new_kinds(
    jobs: Sequence[Job],
    slots: int,
    places: np.ndarray,
    prompt_tokens: np.ndarray,
    output_tokens: np.ndarray,
) -> Kinds | None:
    """`Kinds` with empty slots; None if all jobs have serial replicas (see `events.Station`)."""
    replicas = [job.replica for job in jobs]
    if all(replica == Replica() for replica in replicas):
        return None

    # One type whatever the jobs are, or the event loop would be compiled once for each.
    def column(field: str, dtype: type = float) -> np.ndarray:
        return np.array([getattr(replica, field, 0.0) for replica in replicas], dtype)

    durations = [getattr(replica, "durations_s", ()) for replica in replicas]
    durations_s = np.full((len(jobs), max(map(len, durations))), np.inf)
    for row, of_job in zip(durations_s, durations):
        row[: len(of_job)] = of_job
    knees = [
        ((0.0, getattr(replica, "gamma_s", 0.0)), *getattr(replica, "gamma_knees", ()))
        for replica in replicas
    ]
    prompt_knees = np.zeros((len(jobs), max(map(len, knees)), 2))
    for rows, of_job in zip(prompt_knees, knees):
        rows[: len(of_job)] = of_job
    slo_on = [getattr(replica, "slo_on", SLO_ON[END_TO_END]) for replica in replicas]
    most = int(places.max())
    shape = (len(jobs), slots)
    return Kinds(
        kind=np.array([list(KINDS).index(replica.kind) for replica in replicas]),
        at_once=column("max_in_service", np.int64),
        slowdown=column("slowdown"),
        wait_s=column("wait_s"),
        durations_s=durations_s,
        prompt_knees=prompt_knees,
        max_tokens=column("max_tokens"),
        slo_on=np.array([SLO_ON.index(one) for one in slo_on]),
        per_token_weight=column("per_token_weight"),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        first_token_s=np.zeros(len(output_tokens)),
        left=np.zeros(most, np.int64),
        line=np.zeros((*shape, most), np.int64),
        mark=np.zeros((*shape, most)),
        serving=np.zeros(shape, np.int64),
        since_s=np.zeros(shape),
        attained_s=np.zeros(shape),
        iteration=np.zeros(shape, np.int64),
        last_iteration=np.zeros(shape, np.int64),
        fresh=np.full(shape, BETWEEN),
    )


@njit(cache=True, inline="always")
def enter(kinds, job, slot, request, inside, next_s, now, service_s) -> float:
    """Add a request to a slot with `inside` requests; the new time of its next event, `next_s`."""
    mark, serving, at_once = kinds.mark[job, slot], kinds.serving[job, slot], kinds.at_once[job]
    kinds.line[job, slot, inside] = request
    if kinds.kind[job] == CONCURRENT:
        if serving == at_once:
            return next_s
        attained_s = 0.0
        if serving > 0:
            slower = 1 + kinds.slowdown[job] * (serving - 1)
            attained_s = kinds.attained_s[job, slot] + (now - kinds.since_s[job, slot]) / slower
        mark[inside] = attained_s + service_s[request]
        kinds.serving[job, slot] = serving + 1
        kinds.attained_s[job, slot] = attained_s
        kinds.since_s[job, slot] = now
        return begin(kinds, job, slot, inside + 1, now, service_s)
    if kinds.kind[job] == BATCHED:
        mark[inside] = now
        if serving > 0:
            return next_s
        if inside + 1 >= at_once:
            return now
        return max(kinds.since_s[job, slot], mark[0]) + kinds.wait_s[job]
    if inside == 0:
        return now
    too_long = kinds.prompt_tokens[request] > kinds.max_tokens[job]
    if kinds.fresh[job, slot] != 0 or serving < inside or serving == at_once or too_long:
        return next_s
    # Find the iteration that runs now. The request is admitted at its end, which becomes the next
    # event. An iteration that ends exactly now still runs, because requests enter before iterations
    # end if both happen at the same time.
    start_s = kinds.since_s[job, slot]
    length_s = kinds.durations_s[job, serving - 1]
    end_s = start_s + length_s
    iteration = kinds.iteration[job, slot]
    while end_s < now:
        start_s = end_s
        end_s += length_s
        iteration += 1
    kinds.since_s[job, slot] = start_s
    kinds.iteration[job, slot] = kinds.last_iteration[job, slot] = iteration
    return end_s


@njit(cache=True, inline="always")
def event(kinds, job, slot, inside, now, arrival_s, service_s, latency_s) -> int:
    """Complete a slot's service, batch or iteration.

    Returns the number of requests that leave, whose indices are then in `kinds.left`.
    """
    line, mark, serving = kinds.line[job, slot], kinds.mark[job, slot], kinds.serving[job, slot]
    left = kinds.left
    if serving == 0:
        return 0
    if kinds.kind[job] == CONCURRENT:
        first = np.argmin(mark[:serving])
        left[0] = line[first]
        attained_s = mark[first]
        for n in range(first, inside - 1):
            line[n], mark[n] = line[n + 1], mark[n + 1]
        kinds.attained_s[job, slot] = attained_s
        kinds.since_s[job, slot] = now
        if inside > serving:
            mark[serving - 1] = attained_s + service_s[line[serving - 1]]
        else:
            kinds.serving[job, slot] = serving - 1
        return 1
    if kinds.kind[job] == BATCHED:
        left[:serving] = line[:serving]
        for n in range(serving, inside):
            line[n - serving], mark[n - serving] = line[n], mark[n]
        kinds.serving[job, slot] = 0
        kinds.since_s[job, slot] = now
        return serving
    iteration = kinds.iteration[job, slot] = kinds.last_iteration[job, slot]
    for n in range(serving - kinds.fresh[job, slot], serving):
        kinds.first_token_s[line[n]] = now
        if kinds.slo_on[job] == FIRST_TOKEN:
            latency_s[line[n]] = now - arrival_s[line[n]]
    kinds.fresh[job, slot] = BETWEEN
    gone = 0
    for n in range(inside):
        if n < serving and mark[n] == iteration:
            left[gone] = line[n]
            gone += 1
        elif gone > 0:
            line[n - gone], mark[n - gone] = line[n], mark[n]
    kinds.serving[job, slot] = serving - gone
    return gone


@njit(cache=True, inline="always")
def begin(kinds, job, slot, inside, now, service_s) -> float:
    """Start a slot's next batch or iteration, if one is due; the time of its next event, or inf."""
    line, mark = kinds.line[job, slot], kinds.mark[job, slot]
    serving, at_once = kinds.serving[job, slot], kinds.at_once[job]
    if inside == 0:
        return np.inf
    if kinds.kind[job] == CONCURRENT:
        left_s = max(np.min(mark[:serving]) - kinds.attained_s[job, slot], 0.0)
        return now + left_s * (1 + kinds.slowdown[job] * (serving - 1))
    if kinds.kind[job] == BATCHED:
        at_latest_s = max(kinds.since_s[job, slot], mark[0]) + kinds.wait_s[job]
        if inside < at_once and at_latest_s > now:
            return at_latest_s
        size = min(inside, at_once)
        kinds.serving[job, slot] = size
        return now + kinds.durations_s[job, size - 1] * service_s[line[0]]
    iteration = kinds.iteration[job, slot] + 1
    fresh = 0  # requests that are admitted, and the tokens of their prompts
    tokens = 0
    while serving < at_once and serving < inside:
        prompt = kinds.prompt_tokens[line[serving]]
        if serving > 0 and tokens + prompt > kinds.max_tokens[job]:
            break
        mark[serving] = iteration + kinds.output_tokens[line[serving]] - 1
        tokens += prompt
        fresh += 1
        serving += 1
    kinds.serving[job, slot] = serving
    kinds.fresh[job, slot] = fresh
    kinds.since_s[job, slot] = now
    kinds.iteration[job, slot] = kinds.last_iteration[job, slot] = iteration
    length_s = kinds.durations_s[job, serving - 1]
    knees = kinds.prompt_knees[job]
    for knee in range(len(knees)):
        length_s += knees[knee, 1] * max(tokens - knees[knee, 0], 0.0)
    end_s = now + length_s
    if fresh == 0:
        for _ in range(int(np.min(mark[:serving])) - iteration):
            end_s += length_s
            kinds.last_iteration[job, slot] += 1
    return end_s


@njit(cache=True, inline="always")
def measured(kinds, job, request, spent_s, now, arrival_s) -> float:
    """The latency that `slo_on` selects: to the first token, per later token, both, or `spent_s`.

    Both are combined as in `workload.replicas.Continuous`.
    """
    slo_on = kinds.slo_on[job]
    if slo_on == END_TO_END:
        return spent_s
    first_token_s = kinds.first_token_s[request]
    waited_s = first_token_s - arrival_s[request]
    if slo_on == FIRST_TOKEN:
        return waited_s
    later = kinds.output_tokens[request] - 1
    per_token_s = (now - first_token_s) / later if later > 0 else SHORTEST_S
    if slo_on == PER_TOKEN:
        return per_token_s
    return max(waited_s, kinds.per_token_weight[job] * per_token_s)

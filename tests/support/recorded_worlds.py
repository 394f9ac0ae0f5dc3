"""Services with known replicas that an autoscaler or a policy of Faro runs.

They are for the tests of `faro audit`. The simulator is written here: one heap of events, no
arrays, service times from a gamma distribution. No code of `faro_lib.simulate` takes part, so the
audit is not tested on its own output.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from faro_lib.policies import Observation, Policy
from faro_lib.workload import Job
from faro_ops.advise.sources.serving_history import ServingHistory, serving_of

PLACES, TICK_S, WINDOW_S = 10, 10.0, 30.0
TARGET_UTILISATION, STABILISATION_MINUTES = 0.7, 5  # of the incumbent, an HPA
ARRIVAL, DONE, READY, CONTROL = range(4)


@dataclass(eq=False)
class Replica:
    line: deque = field(default_factory=deque)  # indices of its requests


class Service:
    """One service. Requests go to the replica with the fewest, or wait while all hold PLACES."""

    def __init__(self, arrival_s: np.ndarray, service_s: np.ndarray, cold_start_s: float):
        self.arrival_s = arrival_s.tolist()
        self.service_s = service_s.tolist()
        self.cold_start_s = cold_start_s
        self.done_s = [np.inf] * len(arrival_s)
        self.replicas: list[Replica] = []  # that accept requests, oldest first
        self.queue: deque = deque()
        self.starting, self.cancelled, self.target = 0, 0, 0
        self.ended: list[int] = []  # in order of completion


def run(
    arrivals: list[np.ndarray],
    times: list[np.ndarray],
    cold_start_s: float,
    initial: list[int],
    end_s: float,
    control: Callable[[float, list[Service]], list[int]],
) -> tuple[list[Service], np.ndarray]:
    """(the services after all requests, the replicas that served at the end of each minute).

    The latter have shape (jobs, minutes).
    """
    services = [Service(*one, cold_start_s) for one in zip(arrivals, times)]
    events: list = [(now_s, CONTROL, 0, None) for now_s in np.arange(0, end_s, TICK_S).tolist()]
    served = np.zeros((len(services), int(end_s / 60)), int)
    for n, (service, count) in enumerate(zip(services, initial)):
        service.replicas, service.target = [Replica() for _ in range(count)], count
        events += [(at_s, ARRIVAL, n, k) for k, at_s in enumerate(service.arrival_s)]
    heapq.heapify(events)

    def enter(n: int, replica: Replica, k: int, now_s: float) -> None:
        replica.line.append(k)
        if len(replica.line) == 1:
            heapq.heappush(events, (now_s + services[n].service_s[k], DONE, n, replica))

    while events:
        now_s, kind, n, what = heapq.heappop(events)
        service = services[n]
        if kind == ARRIVAL:
            service.queue.append(what)
        elif kind == DONE:
            k = what.line.popleft()
            service.done_s[k] = now_s
            service.ended.append(k)
            if what.line:
                heapq.heappush(events, (now_s + service.service_s[what.line[0]], DONE, n, what))
        elif kind == READY:
            service.starting -= 1
            if service.cancelled:
                service.cancelled -= 1
            else:
                service.replicas.append(Replica())
        else:
            if now_s >= 60 and now_s % 60 == 0:
                served[:, int(now_s / 60) - 1] = [len(one.replicas) for one in services]
            for m, (one, wanted) in enumerate(zip(services, control(now_s, services))):
                one.target = int(wanted)
                more = one.target - (len(one.replicas) + one.starting - one.cancelled)
                for _ in range(max(more, 0)):
                    one.starting += 1
                    heapq.heappush(events, (now_s + one.cold_start_s, READY, m, None))
                for _ in range(max(-more, 0)):
                    if one.starting > one.cancelled:
                        one.cancelled += 1
                    elif len(one.replicas) > 1:
                        one.replicas.pop()
        while service.queue and service.replicas:
            replica = min(service.replicas, key=lambda one: len(one.line))
            if len(replica.line) >= PLACES:
                break
            enter(n, replica, service.queue.popleft(), now_s)
    served[:, -1] = [len(one.replicas) for one in services]
    return services, served


@dataclass(frozen=True)
class World:
    """Two services, their true mean service times and SLOs, and the requests of a few hours."""

    jobs: tuple[Job, ...]  # as in the operator's table, which may be wrong
    true_s: tuple[float, ...]
    counts: np.ndarray  # (jobs, minutes)
    cv: tuple[float, ...]
    seed: int
    capacity: int

    def requests(self, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """(arrival times, service times) of each service, in seconds."""
        rng = np.random.default_rng([self.seed, seed])
        arrivals = [
            np.sort(np.concatenate([60 * m + 60 * rng.random(c) for m, c in enumerate(row)]))
            for row in self.counts
        ]
        times = [
            rng.gamma(1 / cv**2, mean_s * cv**2, len(one))
            for one, mean_s, cv in zip(arrivals, self.true_s, self.cv)
        ]
        return arrivals, times


def world(seed: int, wrong: float = 1.0, minutes: int = 180) -> World:
    """A random world; the table gives the first service `wrong` times its true service time."""
    rng = np.random.default_rng(seed)
    true_s, cv = rng.uniform(0.05, 0.4, 2), rng.uniform(0.2, 0.9, 2)
    replicas, phase = rng.uniform(2.0, 4.5, 2), rng.uniform(0, 2 * np.pi, 2)
    wave = 1 + 0.5 * np.sin(
        2 * np.pi * np.arange(minutes) / rng.uniform(60, 160, (2, 1)) + phase[:, None]
    )
    level = 0.6 * replicas / true_s * 60
    counts = rng.poisson(level[:, None] * wave * rng.gamma(40, 1 / 40, (2, minutes)))
    jobs = tuple(
        Job(
            name,
            slo_s=round(float(s * rng.uniform(3, 6)), 3),
            quantile=0.95,
            service_time_s=round(float(s * f), 4),
            service_scv=0.1,
            cold_start_s=30.0,
            model=name,
        )
        for name, s, f in zip(("checkout", "search"), true_s, (wrong, 1.0))
    )
    return World(jobs, tuple(true_s), counts, tuple(cv), seed, int(np.ceil(replicas.sum() * 1.3)))


def incumbent(world: World) -> Callable[[float, list[Service]], list[int]]:
    """An autoscaler for each service: the last minute's utilisation over the target.

    It scales down after a while.
    """
    wanted: list[list[int]] = [[] for _ in world.jobs]

    def control(now_s: float, services: list[Service]) -> list[int]:
        minute = int(now_s // 60)
        if minute < 1 or now_s % 60:
            return [one.target for one in services]
        for row, counts, mean_s in zip(wanted, world.counts, world.true_s):
            row.append(int(np.ceil(counts[minute - 1] / 60 * mean_s / TARGET_UTILISATION)))
        return [max(1, *row[-STABILISATION_MINUTES:]) for row in wanted]

    return control


def recorded(world: World, levels=(0.5, 0.95, 0.99)) -> tuple[ServingHistory, np.ndarray]:
    """(what the incumbent's run shows, minute by minute; the true share of late requests).

    The share is that of each service.
    """
    arrivals, times = world.requests(0)
    minutes = world.counts.shape[1]
    services, served = run(arrivals, times, 30.0, [2, 2], 60.0 * minutes, incumbent(world))
    latency_s = np.full((1 + len(levels), *world.counts.shape), np.nan)
    for n, one in enumerate(services):
        latencies = np.array(one.done_s) - np.array(one.arrival_s)
        ended = (np.array(one.done_s) // 60).astype(int)  # monitoring counts a request when it ends
        for m in range(minutes):
            if len(of_minute := latencies[ended == m]):
                latency_s[:, n, m] = [of_minute.mean(), *np.quantile(of_minute, levels)]
    columns = np.repeat(np.array([np.nan, *levels])[:, None], len(world.jobs), axis=1)
    return serving_of(world.jobs, world.counts, served, columns, latency_s), late(world, services)


def late(world: World, services: list[Service]) -> np.ndarray:
    """The share of late requests of each service."""
    return np.array(
        [
            np.mean(np.array(one.done_s) - np.array(one.arrival_s) > job.slo_s)
            for one, job in zip(services, world.jobs)
        ]
    )


def lost(world: World, services: list[Service]) -> float:
    """Lost utility per minute of both services, by minute of arrival.

    In a minute it is 1 - min(1, SLO / latency at the quantile).
    """
    total = 0.0
    for job, one, counts in zip(world.jobs, services, world.counts):
        latencies = np.array(one.done_s) - np.array(one.arrival_s)
        for part in np.split(latencies, np.cumsum(counts)[:-1]):
            if len(part):
                total += 1 - min(1.0, job.slo_s / np.quantile(part, job.quantile))
    return total / world.counts.shape[1]


def run_policy(
    world: World, policy: Policy, jobs: tuple[Job, ...], initial: np.ndarray
) -> list[Service]:
    """The services after a run of `policy`, which knows `jobs`.

    The requests are those of `recorded`, with other service times.
    """
    arrivals, times = world.requests(1)
    state, ticks = policy.start(jobs), [0.0]

    def control(now_s: float, services: list[Service]) -> list[int]:
        nonlocal state
        if now_s < max(ticks[0], 60.0):
            return [one.target for one in services]
        ticks[0] += policy.tick_s
        minute = int(now_s // 60)
        mean_s, tail_s, ongoing = [], [], []
        for one, job in zip(services, jobs):
            recent = [k for k in one.ended[-600:] if one.done_s[k] >= now_s - WINDOW_S]
            mean_s.append(
                float(np.mean([one.done_s[k] - one.arrival_s[k] for k in recent]))
                if recent
                else 0.0
            )
            last = [
                k for k in one.ended[-1500:] if 60 * (minute - 1) <= one.done_s[k] < 60 * minute
            ]
            sample = [one.done_s[k] - one.arrival_s[k] for k in last]
            tail_s.append(float(np.quantile(sample, job.quantile)) if sample else 0.0)
            ongoing.append(len(one.queue) + sum(len(replica.line) for replica in one.replicas))
        running = np.array([len(one.replicas) for one in services])
        starting = np.array([one.starting - one.cancelled for one in services])
        none = np.zeros(len(services))
        observation = Observation(
            now_s=now_s,
            capacity=world.capacity,
            minute=minute,
            arrivals_per_min=world.counts[:, max(0, minute - 15) : minute].astype(float),
            mean_latency_s=np.array(mean_s),
            tail_latency_s=np.array(tail_s),
            ongoing=np.array(ongoing),
            running=running,
            starting=starting,
            target=np.array([one.target for one in services]),
            terminating=none.astype(int),
            changing=starting > 0,
            drop=none,
            arrivals_now=np.array(
                [np.sum((60 * minute <= one) & (one < now_s)) for one in arrivals], float
            ),
        )
        state, plan = policy.decide(state, observation)
        return [int(x) for x in plan.target]

    return run(
        arrivals, times, 30.0, [int(x) for x in initial], 60.0 * world.counts.shape[1], control
    )[0]

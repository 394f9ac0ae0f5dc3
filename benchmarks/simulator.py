"""Speed of the simulator against the same queue in simpy, and its growth with the number of jobs.

    python benchmarks/simulator.py

Times are CPU seconds of one thread without compilation, the minimum of several runs. Uses the
published traces if they are in data/raw, and the synthetic workload otherwise.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import simpy

from faro_lib.metrics.measures import summarize
from faro_lib.policies import FairShare
from faro_lib.simulate import Draws, SimulatedCluster, draw, simulate
from faro_lib.workload import Workload
from faro_lib.workload.published import read_artifact
from faro_lib.workload.synthetic import synthetic

RAW = Path(__file__).resolve().parent.parent / "data/raw"
TWITTER = RAW / "top9_twitter_1_1600_avgproc_min_int5m_reduced_6hr_augmented.pkl"
FILES = (RAW / "input.json", TWITTER)
SEED = 24
REPLICAS_PER_JOB = 3
SLICE_MINUTES = 6
QUEUE_LIMIT = 50
MAX_ONGOING_REQUESTS = 4


def evaluation_day() -> Workload:
    traces = read_artifact(*FILES) if all(file.exists() for file in FILES) else synthetic()
    return traces.workload()


def cpu_s(action, times: int = 5) -> float:
    """The minimum CPU seconds of `times` calls; a first call, which compiles, does not count."""
    action()
    taken = []
    for _ in range(times):
        began = time.process_time()
        action()
        taken.append(time.process_time() - began)
    return min(taken)


def whole_run(workload: Workload) -> dict:
    """Draw, simulate and measure one trial."""
    return summarize(simulate(workload, FairShare(), REPLICAS_PER_JOB * len(workload.jobs), SEED))


def compiled_latencies(workload: Workload, draws: Draws) -> np.ndarray:
    replicas = np.full(len(workload.jobs), REPLICAS_PER_JOB)
    cluster = SimulatedCluster(workload, draws, float(replicas.sum()), replicas)
    cluster.finish()
    return cluster.latency_s


def simpy_latencies(draws: Draws) -> np.ndarray:
    """Latencies with the same serving model, draws and replicas in simpy."""
    latency_s = np.empty(len(draws.arrival_s))
    env = simpy.Environment()
    for job, (a, b) in enumerate(zip(draws.first[:-1], draws.first[1:])):
        shuffler = draws.shuffler(job)
        order = [shuffler.permutation(n) for n in range(1, REPLICAS_PER_JOB + 1)][-1].tolist()
        _simpy_job(env, draws, int(a), int(b), order, latency_s)
    env.run()
    return latency_s


def _simpy_job(env, draws, a, b, order, latency_s):
    columns = (draws.arrival_s, draws.router_in_s, draws.service_s, draws.router_out_s)
    arrival_s, router_in_s, service_s, router_out_s = (column[a:b].tolist() for column in columns)
    router = simpy.Resource(env, 1)
    queue = simpy.Store(env)
    lines = [simpy.Store(env) for _ in order]
    inside = [0] * len(order)
    served: dict[int, simpy.Event] = {}
    room = None

    def source():
        for n, at_s in enumerate(arrival_s):
            yield env.timeout(at_s - env.now)
            env.process(request(n))

    def request(n):
        began_s = env.now
        with router.request() as slot:
            yield slot
            yield env.timeout(router_in_s[n])
        dropped = len(queue.items) > QUEUE_LIMIT
        if not dropped:
            end_of_service = served[n] = env.event()
            queue.put(n)
            yield end_of_service
        with router.request() as slot:
            yield slot
            yield env.timeout(router_out_s[n])
        latency_s[a + n] = np.inf if dropped else env.now - began_s

    def dispatcher():
        nonlocal room
        turn = 0
        while True:
            n = yield queue.get()
            while True:
                slot = None
                for _ in order:
                    candidate = order[turn]
                    turn = (turn + 1) % len(order)
                    if inside[candidate] < MAX_ONGOING_REQUESTS:
                        slot = candidate
                        break
                if slot is not None:
                    break
                room = env.event()
                yield room
            inside[slot] += 1
            lines[slot].put(n)

    def replica(slot):
        nonlocal room
        while True:
            n = yield lines[slot].get()
            yield env.timeout(service_s[n])
            inside[slot] -= 1
            served.pop(n).succeed()
            if room is not None:
                waited_for = room
                room = None
                waited_for.succeed()

    env.process(source())
    env.process(dispatcher())
    for slot in range(len(order)):
        env.process(replica(slot))


def repeated(workload: Workload, times: int) -> Workload:
    jobs = tuple(
        replace(job, name=f"{job.name}-{copy}") for copy in range(times) for job in workload.jobs
    )
    return Workload(jobs, np.tile(workload.requests_per_min, (times, 1)))


def grown(times: int, results) -> None:
    """Put (CPU seconds, peak GB, requests) of a run with `times` copies of the jobs."""
    workload = evaluation_day()
    whole_run(workload.between(0, 2))
    workload = repeated(workload, times)
    took_s = cpu_s(lambda: whole_run(workload), 2)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    results.put((took_s, peak_gb, int(workload.requests_per_min.sum())))


def main() -> None:
    day = evaluation_day()
    requests = int(day.requests_per_min.sum())
    took_s = cpu_s(lambda: whole_run(day))
    print(
        f"one run, {len(day.jobs)} jobs, {day.minutes} min, {requests:,} requests: "
        f"{took_s:.3f} CPU-s with drawing and measuring, {requests / took_s:,.0f} requests/s"
    )

    part = day.between(0, SLICE_MINUTES)
    draws = draw(part, SEED)
    began = time.process_time()
    theirs = simpy_latencies(draws)
    simpy_s = time.process_time() - began
    ours = compiled_latencies(part, draws)
    ours_s = cpu_s(lambda: [compiled_latencies(part, draws) for _ in range(20)]) / 20
    same = np.isclose(theirs, ours, rtol=1e-6).mean()
    print(
        f"the queue alone, {len(ours):,} requests: simpy {simpy_s:.2f} CPU-s, "
        f"ours {ours_s:.4f} CPU-s, ratio {simpy_s / ours_s:.0f}; "
        f"{same:.2%} of the latencies are the same"
    )

    context = multiprocessing.get_context("spawn")
    sizes = []
    for times in (1, 10):
        results = context.Queue()
        process = context.Process(target=grown, args=(times, results))
        process.start()
        sizes.append(results.get())
        process.join()
    (small_s, small_gb, few), (large_s, large_gb, many) = sizes
    print(
        f"{len(day.jobs)} -> {10 * len(day.jobs)} jobs: "
        f"requests x{many / few:.1f} to {many:,}, "
        f"CPU time x{large_s / small_s:.1f} to {large_s:.2f} s, "
        f"peak memory x{large_gb / small_gb:.1f} to {large_gb:.2f} GB"
    )


if __name__ == "__main__":
    main()

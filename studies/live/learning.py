"""Learn a wrong service time while real requests are served: how soon, and what does it cost?

    python -m studies.live.learning ray            # three trials on Ray Serve, 35 minutes
    python -m studies.live.learning deployments    # Deployments, measured by a Prometheus

Three services share a capacity that just suffices. The table states the right time for two of them;
the third takes 1.5 times as long. In each trial, the same requests meet Faro that learns, that has
the true table, and that believes the wrong one. Each run is simulated, too.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.trials import Report, trial_seeds
from faro_lib.policies import Faro, Policy, PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.policies.learning import Learned, Learner
from faro_lib.queueing.service_factor import mean_factor, relative_error
from faro_lib.simulate import Run
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job, Traces, Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.operate.clock import Clock
from faro_ops.operate.rayserve.backend import serving
from faro_ops.operate.rayserve.spec import serve_specs
from studies.live.agreement import LIVE, SIMULATION
from studies.live.deployments import check_prometheus, run_on_deployments
from studies.live.emulated_deployments import FEWEST, RANDOM
from studies.live.live_slice import Slice, matched_simulation, run_live
from studies.misspecification.world import ASSUMING, KNOWING, LEARNING, Remembers
from studies.tables.frames import write_csv

WRONG = 1.5  # true / stated service time of SLOW
SLOW = "c"
CAPACITY = 10  # cores; with the truth, a and b get three each, and c gets four
RATE_RPS = (2.3, 2.0, 1.9)  # by the wrong table, a needs the tenth core most
LIMIT = 10  # requests that a replica may hold
HISTORY_MINUTES = 30  # of the same load, with which forecasts start
TICK_S = 20.0
MIN_TICK_S = 3.0  # wall seconds; few replicas change
COLD_START_S = 12.0  # of the trace
LEARNED_BY = 10  # minutes that Faro may take to learn
# Platform -> relative error that counts as learned.
TOLERANCE = {"ray": 0.10, "deployments": 0.15, "deployments-random": 0.15}
SIMULATED = ("ray", "deployments")  # the simulator has no balancer that chooses at random
MIN_MINUTES = 13  # some minutes after LEARNED_BY are compared
START_S = 600.0  # that Ray and its replicas may take on a busy machine
BURST = 2.0  # rate of the busiest ten seconds / mean rate

# Serves a slice under a policy: (slice, policy, seed, journal) -> (run, columns about the run).
Serve = Callable[[Slice, Policy, int, Path], tuple[Run, dict[str, Any]]]


def stated_jobs() -> tuple[Job, ...]:
    """Three services as the table states them, in seconds of the trace."""
    one = Job(
        "a",
        slo_s=4.0,
        quantile=0.9,
        service_time_s=1.0,
        service_scv=0.1,
        model="own",
        cold_start_s=COLD_START_S,
    )
    return tuple(replace(one, name=name) for name in "abc")


def true_factor(jobs: Sequence[Job]) -> np.ndarray:
    """True / stated service times, (jobs,)."""
    return np.array([WRONG if job.name == SLOW else 1.0 for job in jobs])


def slice_of(policy: str, minutes: int, scale: float) -> Slice:
    """The jobs and requests of a run; the table has the true service times only for KNOWING.

    scale : trace seconds per wall second.
    """
    jobs = stated_jobs()
    factor = true_factor(jobs)
    if policy == KNOWING:
        pairs = zip(jobs, factor.tolist())
        jobs = tuple(replace(job, service_time_s=job.service_time_s * x) for job, x in pairs)
    rate_per_min = np.round(MINUTE_S * np.array(RATE_RPS)).astype(int)
    per_min = np.repeat(rate_per_min[:, None], HISTORY_MINUTES + minutes, axis=1)
    return Slice(
        Workload(jobs, per_min[:, HISTORY_MINUTES:]),
        CAPACITY,
        scale,
        TICK_S,
        LIMIT,
        before=per_min[:, :HISTORY_MINUTES],
        factor=None if policy == KNOWING else factor,
        min_tick_s=MIN_TICK_S,
    )


def faro(policy: str, one: Slice) -> Faro:
    """Faro-Sum as `faro run` makes it; it learns service times only if `policy` is LEARNING."""
    jobs, counts = one.workload.jobs, one.workload.requests_per_min
    no_days = Traces(jobs, np.zeros((0, 1, *counts.shape), int), counts[None])
    latency_model = measure(jobs, serving_model=one.serving_model)
    context = PolicyContext(jobs, forecast.fit("auto", no_days), latency_model)
    return tuned(context, learner=Learner() if policy == LEARNING else None)


# --- what a run says ------------------------------------------------------------------------------


def factors_of(learned: Sequence[Learned], jobs: Sequence[Job], true: np.ndarray) -> pd.DataFrame:
    """What was known after each complete minute: columns minute, job, true, factor, error.

    learned : at each tick.
    true : (jobs,) true / stated service time.
    """
    by_minute = {one.minute: one.belief for one in learned if one.minute > 0}
    rows = [
        {"minute": minute, "job": job.name, "true": true[n], "factor": factor[n], "error": error[n]}
        for minute, weight in sorted(by_minute.items())
        for factor, error in [(mean_factor(weight), relative_error(weight))]
        for n, job in enumerate(jobs)
    ]
    return pd.DataFrame(rows, columns=["minute", "job", "true", "factor", "error"])


def learned_minute(factors: pd.DataFrame, tolerance: float) -> float:
    """The minute from which on a job's factor stays within `tolerance` of the truth.

    factors : rows of one run and job, ascending in `minute`. inf if the last factor is outside.
    """
    wrong = (factors["factor"] / factors["true"] - 1).abs() > tolerance
    minutes = factors["minute"].to_numpy()
    if not len(minutes) or wrong.iloc[-1]:
        return np.inf
    last_wrong = np.flatnonzero(wrong)
    return float(minutes[last_wrong[-1] + 1 if len(last_wrong) else 0])


def missed_later(run: Run) -> tuple[int, float]:
    """(requests after minute LEARNED_BY, share of them dropped or slower than the SLO)."""
    minutes = slice(LEARNED_BY, run.workload.minutes)
    requests = int(run.requests[:, minutes].sum())
    missed = run.dropped[:, minutes].sum() + run.slo_missed[:, minutes].sum()
    return requests, float(missed / requests)


# --- trials ---------------------------------------------------------------------------------------


def trial(
    number: int,
    seed: int,
    serve: Serve,
    folder: Path,
    *,
    minutes: int,
    scale: float,
    policies: Sequence[str] = (LEARNING, KNOWING, ASSUMING),
    simulate: bool = True,
    report: Report = print,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(learned factors, one row per run) of a trial, live and, if `simulate`, simulated.

    folder : for journals.
    """
    factors, runs = [], []
    environments = {SIMULATION: simulated, LIVE: serve} if simulate else {LIVE: serve}
    for policy, (environment, on) in product(policies, environments.items()):
        one = slice_of(policy, minutes, scale)
        remembers = Remembers(faro(policy, one), [])
        run, columns = on(one, remembers, seed, folder / f"{number}-{policy}.journal")
        requests, missed = missed_later(run)
        report(f"trial {number}, {environment}, {policy}: {missed:.1%} missed")
        key = {"trial": number, "environment": environment}
        row = key | {"policy": policy, "requests": requests, "missed_share": missed}
        runs.append(row | {"scale": scale} | columns)
        if policy == LEARNING:
            jobs = one.workload.jobs
            known = factors_of(remembers.learned, jobs, true_factor(jobs))
            factors.append(known.assign(**key))
    return pd.concat(factors, ignore_index=True), pd.DataFrame(runs)


def simulated(one: Slice, policy: Policy, seed: int, journal: Path) -> tuple[Run, dict[str, Any]]:
    """The same run in the simulator, which keeps no journal."""
    return matched_simulation(one, policy, seed), {}


@contextmanager
def on_ray(scale: float, report: Report = print) -> Iterator[Serve]:
    """Ray Serve on this machine, with the three services."""
    jobs = stated_jobs()
    specs = serve_specs(jobs, {job.name: {"max_ongoing_requests": LIMIT} for job in jobs}, scale)
    max_rps = BURST * sum(RATE_RPS) * scale
    initial = slice_of(LEARNING, 1, scale).initial

    ray = serving("local", jobs, specs, initial, CAPACITY, start_timeout_s=START_S, report=report)
    with ray as endpoint:

        def serve(
            one: Slice, policy: Policy, seed: int, journal: Path
        ) -> tuple[Run, dict[str, Any]]:
            run, columns, _ = run_live(one, policy, seed, specs, endpoint, journal, max_rps)
            return run, columns

        yield serve


@contextmanager
def on_deployments(scale: float, report: Report = print, balancer: str = FEWEST) -> Iterator[Serve]:
    """Emulated Deployments, new ones for each run, and a Prometheus."""
    report("each run starts Deployments and a Prometheus on this machine")
    max_rps = BURST * sum(RATE_RPS) * scale

    def serve(one: Slice, policy: Policy, seed: int, journal: Path) -> tuple[Run, dict[str, Any]]:
        return run_on_deployments(one, policy, seed, journal, max_rps=max_rps, balancer=balancer)

    yield serve


PLATFORMS: dict[str, Callable[[float], AbstractContextManager[Serve]]] = {
    "ray": on_ray,
    "deployments": on_deployments,
    "deployments-random": partial(on_deployments, balancer=RANDOM),
}


def trials(
    platform: str, numbers: range, minutes: int, scale: float
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """(factors, runs) of each of these trials on a platform."""
    with PLATFORMS[platform](scale) as serve, tempfile.TemporaryDirectory() as folder:
        seeds = trial_seeds(numbers.stop)
        for number in numbers:
            yield trial(
                number,
                seeds[number],
                serve,
                Path(folder),
                minutes=minutes,
                scale=scale,
                simulate=platform in SIMULATED,
            )


def check(platform: str, numbers: range, minutes: int, scale: float) -> None:
    """Raise ValueError if the trials cannot be run."""
    if numbers.start < 0 or not numbers:
        raise ValueError(f"--trials {numbers.stop} --first {numbers.start}: there is no such trial")
    if minutes < MIN_MINUTES:
        raise ValueError(f"--minutes {minutes}: at least {MIN_MINUTES} are needed")
    Clock.starting_now(scale)
    slice_of(LEARNING, minutes, scale)
    if platform.startswith("deployments"):
        check_prometheus()


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("platform", choices=list(PLATFORMS))
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument(
        "--first", type=int, default=0, help="first trial to run; the tables keep earlier ones"
    )
    parser.add_argument("--minutes", type=int, default=14, help="minutes of load")
    parser.add_argument("--scale", type=float, default=4.0, help="load minutes per minute")
    parser.add_argument("--out", type=Path, default=Path("data/recorded-learning"))
    given = parser.parse_args(words)
    numbers = range(given.first, given.trials)
    try:
        check(given.platform, numbers, given.minutes, given.scale)
        finished = earlier(given.out, given.platform, given.first)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for one in trials(given.platform, numbers, given.minutes, given.scale):
        finished.append(one)  # a later trial may fail; the tables have those that finished
        for path, tables in zip(paths(given.out, given.platform), zip(*finished)):
            write_csv(pd.concat(tables, ignore_index=True), path)


def paths(folder: Path, platform: str) -> tuple[Path, Path]:
    """The files of a platform's tables: factors, runs."""
    return folder / f"{platform}-factors.csv", folder / f"{platform}-runs.csv"


def earlier(folder: Path, platform: str, first: int) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """The recorded tables of the trials before `first`, [] if it is 0."""
    if first == 0:
        return []
    factors, runs = (pd.read_csv(path) for path in paths(folder, platform))
    return [(factors[factors["trial"] < first], runs[runs["trial"] < first])]


if __name__ == "__main__":
    main()

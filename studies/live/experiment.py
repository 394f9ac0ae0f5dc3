"""Compare policies in live runs on real replicas and in simulations of the same requests."""

import hashlib
import inspect
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.trials import Report, trial_seeds
from faro_lib.policies import Policy, PolicyContext, make
from faro_lib.simulate.measure import measure
from faro_ops.operate.rayserve.backend import Endpoint, serving
from faro_ops.operate.rayserve.deploy import configuration, deploy
from faro_ops.operate.rayserve.running_job import RunningJob
from faro_ops.operate.rayserve.spec import ServeSpec, serve_specs
from studies.live.agreement import LIVE, SIMULATION
from studies.live.live_slice import Slice, limit_rate, matched_simulation, part_of, run_live
from studies.tables.frames import Tables, joined, read_tables, write_tables
from studies.tables.run_tables import tables_of, with_key
from studies.traces.files import read_traces

BURST = 4 / 3  # rate of a minute's busiest ten seconds / the minute's mean rate


def compare_live(
    results: str | Path,
    backend: str,
    *,
    jobs: Sequence[int] | None,
    capacity: int,
    max_ongoing_requests: int,
    first_minute: int,
    minutes: int,
    scale: float,
    tick_s: float,
    max_rps: float,
    trials: int,
    policies: Sequence[str],
    history_minutes: int = 0,
    lost_worker_trial: int | None = None,
    address: str | None = None,
    serve_address: str | None = None,
    report: Report = print,
) -> Tables:
    """Serve a slice of the evaluation day under each policy, then simulate the same slice.

    Journals are written to results/live/<backend>, and the tables of each finished run to
    results/live/<backend>/finished. After an interruption, the next call with the same settings
    skips finished runs, unless their policy's class has changed. The parameters are the settings in
    section `live` of the configuration.

    Parameters
    ----------
    jobs : indices of jobs in the workload; None = the first three.
    first_minute, minutes : start and length of the slice.
    tick_s : wall seconds between decisions.
    history_minutes : recorded minutes before the slice with which forecasts start.
    lost_worker_trial : the trial in which a Ray worker is deleted halfway, counted from 0; None =
        in no trial.
    """
    if lost_worker_trial is not None and backend == "local":
        raise ValueError(
            f"lost_worker_trial={lost_worker_trial}: backend=local has no worker that is replaced"
        )
    traces = read_traces(Path(results) / "traces")
    chosen = range(len(traces.jobs))[:3] if jobs is None else jobs
    traces = part_of(traces, chosen, first_minute - history_minutes)
    recorded = traces.workload().between(0, history_minutes + minutes)
    workload, share = limit_rate(recorded, scale, max_rps)
    if share < 1:
        report(
            f"{share:.0%} of the requests are sent; all of them would exceed {max_rps:g} per second"
        )
    before = workload.requests_per_min[:, :history_minutes]
    workload = workload.between(history_minutes, history_minutes + minutes)
    one = Slice(workload, capacity, scale, tick_s * scale, max_ongoing_requests, before=before)
    latency_model = measure(workload.jobs, serving_model=one.serving_model)
    context = PolicyContext(workload.jobs, forecast.fit("auto", traces), latency_model)
    made = {name: make(name, context) for name in policies}
    how = serve_specs(workload.jobs, scale=scale)
    journals = Path(results) / "live" / backend
    load = (workload, before.tolist())
    settings = (*load, capacity, scale, tick_s, max_ongoing_requests, lost_worker_trial)
    finished = journals / "finished" / _fingerprint(repr(settings))
    with _endpoint(backend, one, how, address, serve_address, report) as endpoint:
        live = _live(
            one, made, how, endpoint, trials, lost_worker_trial, journals, finished, max_rps, report
        )
        about = (endpoint.workers.about(),) if endpoint.workers else ()
    tables = replace(joined([live, *_simulated(one, made, live.summary)]), about=about)
    shutil.rmtree(finished)  # otherwise the next comparison would skip these runs
    return tables


def _live(
    one: Slice,
    policies: Mapping[str, Policy],
    how: tuple[ServeSpec, ...],
    endpoint: Endpoint,
    trials: int,
    lost_worker_trial: int | None,
    journals: Path,
    finished: Path,
    max_rps: float,
    report: Report,
) -> Tables:
    """Run every policy live, trial by trial, except for runs whose tables are in `finished`."""
    short = replace(one, workload=one.workload.between(0, 2))
    for policy in policies.values():  # so that no live decision waits for compilation
        matched_simulation(short, policy, trial_seeds(1)[0])
    cases = [
        (name, trial, seed) for trial, seed in enumerate(trial_seeds(trials)) for name in policies
    ]
    folders = {}
    for name, trial, _ in cases:
        code = _fingerprint(inspect.getsource(type(policies[name])))
        folders[name, trial] = finished / f"{name}-{trial}-{code}"
    cold_start_s = None
    for name, trial, seed in cases:
        if (folders[name, trial] / "summary.csv").exists():
            report(f"{name}, trial {trial + 1} of {trials}: finished earlier")
            continue
        if cold_start_s is None:
            first = RunningJob(endpoint.ray, endpoint.http, one.workload.jobs[0].name, how[0])
            cold_start_s = _cold_start_s(one, first, report)
        journal = journals / f"{name}-{trial}.journal"
        shutil.rmtree(journal, ignore_errors=True)
        lose = trial == lost_worker_trial
        run, columns, recovery = run_live(
            one, policies[name], seed, how, endpoint, journal, BURST * max_rps, lose
        )
        key = {"environment": LIVE, "policy": name, "capacity_cores": one.capacity, "trial": trial}
        tables = tables_of(run, key, **columns, cold_start_s=cold_start_s, scale=one.scale)
        tables = replace(tables, recovery=with_key(recovery, {"policy": name, "trial": trial}))
        write_tables(tables, folders[name, trial])
        report(
            f"{name}, trial {trial + 1} of {trials}: {columns['served']} served, "
            f"{columns['dropped']} dropped, {columns['failed'] + columns['unsent']} lost; other "
            f"processes used {columns['background_cpu']:.1f} "
            f"processors{', too many' if columns['noisy_host'] else ''}"
        )
    return joined(map(read_tables, folders.values()))


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _simulated(one: Slice, policies: Mapping[str, Policy], live: pd.DataFrame) -> Iterator[Tables]:
    """Simulate each live run with its changes of capacity.

    All simulations have the mean cold start and the mean overhead of all live runs.
    """
    overhead_s = max(0.0, float(live["overhead_s"].mean()))
    cold_start_s = float(live["cold_start_s"].mean())
    jobs = tuple(replace(job, cold_start_s=cold_start_s) for job in one.workload.jobs)
    measured = replace(one, workload=replace(one.workload, jobs=jobs), overhead_s=overhead_s)
    seeds = trial_seeds(int(live["trial"].max()) + 1)
    for row in live.itertuples():
        steps = tuple((time_s, cores) for time_s, cores in json.loads(row.capacity_steps))
        key = {"environment": SIMULATION, "policy": row.policy}
        key |= {"capacity_cores": one.capacity, "trial": row.trial}
        run = matched_simulation(measured, policies[row.policy], seeds[row.trial], steps)
        yield tables_of(run, key, cold_start_s=cold_start_s, scale=one.scale)


@contextmanager
def _endpoint(
    backend: str,
    one: Slice,
    how: tuple[ServeSpec, ...],
    address: str | None,
    serve_address: str | None,
    report: Report,
) -> Iterator[Endpoint]:
    """A Ray cluster that serves the jobs.

    It is local, the cluster at `address`, or a RayService with exclusive access.
    """
    from studies.live.exclusive import CONTEXTS, exclusive_access

    jobs = one.workload.jobs
    addresses: dict[str, Any] = {"address": address, "serve_address": serve_address}
    if backend in CONTEXTS:
        with exclusive_access(backend, address=address, serve_address=serve_address) as endpoint:
            deploy(endpoint.ray, configuration(jobs, how, one.initial), report=report)
            yield endpoint
    else:
        replicas, cores = one.initial, one.capacity
        with serving(backend, jobs, how, replicas, cores, report=report, **addresses) as endpoint:
            yield endpoint


def _cold_start_s(one: Slice, first: RunningJob, report: Report) -> float:
    """Measure the cold start of up to 3 replicas of the first job, in trace seconds.

    If none fits, return the first job's setting.
    """
    room = min(one.capacity - int(one.initial.sum()), 3)
    if room < 1:
        return one.workload.jobs[0].cold_start_s
    with first.more_replicas(room) as (_, wall_s):
        pass
    report(f"{room} replicas start in {wall_s:.1f} s of wall time")
    return wall_s * one.scale

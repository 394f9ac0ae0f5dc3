"""Policies compared on real replicas, and on the same requests in the simulator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from faro_lib import forecast
from faro_lib.experiments.live_slice import Notes, Slice, limit_rate, matched_simulation, part_of, run_live
from faro_lib.experiments.trials import Report, trial_seeds
from faro_lib.http import HttpClient
from faro_lib.metrics.agreement import LIVE, SIMULATION
from faro_lib.metrics.frames import Tables, joined, tables_of
from faro_lib.policies import Policy, PolicyContext, make
from faro_lib.rayserve import profile
from faro_lib.rayserve.backend import Endpoint, serving
from faro_lib.rayserve.deploy import configuration, deploy
from faro_lib.rayserve.machine import NOISY_CPUS
from faro_lib.rayserve.spec import ServeSpec, serve_specs
from faro_lib.simulate import Run
from faro_lib.simulate.measure import measure
from faro_lib.workload.tables import read_traces

BURST = 4 / 3  # rate of the busiest ten seconds of a minute over its mean


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
    address: str | None = None,
    serve_address: str | None = None,
    report: Report = print,
) -> Tables:
    """Serve a slice of the evaluation day under each policy, then simulate the same slice.

    Journals are written to results/live/<backend>. The parameters are the settings of section `live`.

    Parameters
    ----------
    jobs : indices in the workload; None = the first three.
    first_minute, minutes : start and length of the slice.
    tick_s : wall seconds between decisions.
    """
    traces = read_traces(Path(results) / "traces")
    traces = part_of(traces, range(len(traces.jobs))[:3] if jobs is None else jobs, first_minute)
    workload, share = limit_rate(traces.workload().between(0, minutes), scale, max_rps)
    if share < 1:
        report(f"{share:.0%} of the requests are sent; all of them would exceed {max_rps:g} per second")
    one = Slice(workload, capacity, scale, tick_s * scale, max_ongoing_requests)
    latency_model = measure(workload.jobs, serving_model=one.serving_model)
    context = PolicyContext(workload.jobs, forecast.fit("auto", traces), latency_model)
    made = {name: make(name, context) for name in policies}
    how = serve_specs(workload.jobs, scale=scale)
    with _endpoint(backend, one, how, address, serve_address, report) as endpoint:
        return _compare(one, made, how, endpoint, trials, Path(results) / "live" / backend, max_rps, report)


def _compare(
    one: Slice,
    policies: Mapping[str, Policy],
    how: tuple[ServeSpec, ...],
    endpoint: Endpoint,
    trials: int,
    journals: Path,
    max_rps: float,
    report: Report,
) -> Tables:
    """Run every policy live, trial by trial, then simulate the same with the times measured live."""
    for policy in policies.values():  # compile before a live decision waits for it
        matched_simulation(replace(one, workload=one.workload.between(0, 2)), policy, trial_seeds(1)[0])
    cases = [(name, trial, seed) for trial, seed in enumerate(trial_seeds(trials)) for name in policies]
    columns = ("environment", "policy", "capacity_cores", "trial")
    cold_start_s = _cold_start_s(one, how, endpoint.ray, report)
    runs: list[tuple[dict[str, Any], Run, Notes | None]] = []
    for name, trial, seed in cases:
        journal = journals / f"journal-{name}-{trial}.jsonl"
        journal.unlink(missing_ok=True)
        run, notes = run_live(one, policies[name], seed, how, endpoint, journal, BURST * max_rps)
        runs.append((dict(zip(columns, (LIVE, name, one.capacity, trial))), run, notes))
        report(
            f"{name}, trial {trial + 1} of {trials}: {notes.served} served, {notes.dropped} dropped, "
            f"{notes.failed + notes.unsent} lost; other processes used {notes.background_cpu:.1f} processors"
            f"{', too many' if noisy_host(notes) else ''}"
        )
    overhead_s = float(np.nanmean([notes.overhead_s for _, _, notes in runs if notes]))
    jobs = tuple(replace(job, cold_start_s=cold_start_s) for job in one.workload.jobs)
    measured = replace(one, workload=replace(one.workload, jobs=jobs), overhead_s=max(0.0, overhead_s))
    for name, trial, seed in cases:
        key = dict(zip(columns, (SIMULATION, name, one.capacity, trial)))
        runs.append((key, matched_simulation(measured, policies[name], seed), None))
    about: dict[str, Any] = {"cold_start_s": cold_start_s, "scale": one.scale}
    return joined(tables_of(run, key, **_columns(notes), **about) for key, run, notes in runs)


def noisy_host(notes: Notes) -> bool:
    """Whether other processes of normal priority used more than NOISY_CPUS processors."""
    return notes.background_cpu - notes.niced_cpu > NOISY_CPUS


def _columns(notes: Notes | None) -> dict[str, Any]:
    if notes is None:
        return {}
    return asdict(notes) | {"failures": len(notes.failures), "noisy_host": noisy_host(notes)}


@contextmanager
def _endpoint(
    backend: str, one: Slice, how: tuple[ServeSpec, ...], address: str | None, serve_address: str | None, report: Report
) -> Iterator[Endpoint]:
    """A Ray cluster that serves the jobs: a local one, one at `address`, or a RayService with exclusive access."""
    from faro_lib.kube.exclusive import CONTEXTS, exclusive_access

    jobs = one.workload.jobs
    addresses: dict[str, Any] = {"address": address, "serve_address": serve_address}
    if backend in CONTEXTS:
        with exclusive_access(backend, address=address, serve_address=serve_address) as endpoint:
            deploy(endpoint.ray, configuration(jobs, how, one.initial), report=report)
            yield endpoint
    else:
        with serving(backend, jobs, how, one.initial, one.capacity, report=report, **addresses) as endpoint:
            yield endpoint


def _cold_start_s(one: Slice, how: tuple[ServeSpec, ...], ray: HttpClient, report: Report) -> float:
    """Trace seconds until up to three new replicas serve; the jobs' own cold start if there is no room for one."""
    room = min(one.capacity - int(one.initial.sum()), 3)
    if room < 1:
        return one.workload.jobs[0].cold_start_s
    wall_s = profile.measure_cold_start(ray, how[0], more=room)
    report(f"{room} replicas start in {wall_s:.1f} s of wall time")
    return wall_s * one.scale

"""Policies against each other on real replicas, and beside them the simulator's word on the very same requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.experiments.compare import trial_seeds
from faro_lib.experiments.live_slice import Notes, Slice, live, part_of, twin
from faro_lib.http import HttpClient
from faro_lib.metrics.frames import decisions_frame, minutes_frame
from faro_lib.metrics.measures import summarize
from faro_lib.policies import Policy, PolicyContext, make
from faro_lib.rayserve import profile
from faro_lib.rayserve.backend import Endpoint, serving
from faro_lib.rayserve.deploy import configuration, deploy
from faro_lib.rayserve.machine import NOISY_CPUS
from faro_lib.rayserve.spec import ServeSpec, serve_specs
from faro_lib.simulate import Run
from faro_lib.simulate.measure import measure
from faro_lib.workload import Workload
from faro_lib.workload.tables import read_traces

LIVE, SIMULATION = "live", "simulation"
BURST = 4 / 3  # chance may make ten seconds of a minute so much busier than its mean


@dataclass(frozen=True, slots=True)
class LiveTables:
    """The files under results/<workload>/live/<backend>/; every row says in `environment` where it comes from."""

    summary: pd.DataFrame
    minutes: pd.DataFrame
    decisions: pd.DataFrame


def thinned(workload: Workload, scale: float, max_rps: float) -> tuple[Workload, float]:
    """The workload with so much of its requests that its busiest minute stays within the bound, and which share that is."""
    peak_rps = float(workload.requests_per_min.sum(axis=0).max()) / 60 * scale
    share = min(1.0, max_rps / peak_rps) if peak_rps else 1.0
    counts = np.floor(workload.requests_per_min * share).astype(np.int64)
    return replace(workload, requests_per_min=counts), share


def study(
    one: Slice,
    policies: Mapping[str, Policy],
    how: tuple[ServeSpec, ...],
    trials: int,
    *,
    backend: str = "local",
    address: str | None = None,
    serve_address: str | None = None,
    journals: str | Path | None = None,
    max_rps: float = 150.0,
    report: Callable[[str], None] = print,
) -> LiveTables:
    """Every policy live, trial by trial; then the same in the simulator, with the times that were measured meanwhile."""
    for policy in policies.values():  # compiles what is compiled, so that no live decision waits for it
        twin(replace(one, workload=one.workload.between(0, 2)), policy, trial_seeds(1)[0])
    runs: list[tuple[dict, Run, Notes | None]] = []
    addresses = dict(address=address, serve_address=serve_address)
    with reached(backend, one, how, report, **addresses) as ray:
        cold_start_s = _start_s(one, how, ray.ray, report)
        for trial, seed in enumerate(trial_seeds(trials)):
            for name, policy in policies.items():
                journal = Path(journals) / f"journal-{name}-{trial}.jsonl" if journals else None
                if journal:
                    journal.unlink(missing_ok=True)
                run, notes = live(
                    one,
                    policy,
                    seed,
                    how,
                    ray.ray,
                    ray.http,
                    pids=ray.pids,
                    journal=journal,
                    max_rps=BURST * max_rps,
                )
                key = {"environment": LIVE, "policy": name, "capacity_cores": one.capacity, "trial": trial}
                runs.append((key, run, notes))
                report(_told(key, run, notes, trials))
    overhead_s = float(np.nanmean([notes.overhead_s for _, _, notes in runs if notes]))
    jobs = tuple(replace(job, cold_start_s=cold_start_s) for job in one.workload.jobs)
    known = replace(one, workload=replace(one.workload, jobs=jobs), overhead_s=max(0.0, overhead_s))
    for trial, seed in enumerate(trial_seeds(trials)):
        for name, policy in policies.items():
            key = {"environment": SIMULATION, "policy": name, "capacity_cores": one.capacity, "trial": trial}
            runs.append((key, twin(known, policy, seed), None))
    rows = [
        key | summarize(run) | _noted(notes) | {"cold_start_s": cold_start_s, "scale": one.scale}
        for key, run, notes in runs
    ]
    return LiveTables(
        pd.DataFrame(rows),
        pd.concat([minutes_frame(run).assign(**key) for key, run, _ in runs], ignore_index=True),
        pd.concat([decisions_frame(run).assign(**key) for key, run, _ in runs], ignore_index=True),
    )


@contextmanager
def reached(
    backend: str, one: Slice, how, report, *, address: str | None, serve_address: str | None
) -> Iterator[Endpoint]:
    """A Ray that serves the slice's jobs: one of our own, or that of a RayService with exclusive access."""
    from faro_lib.kube.exclusive import CONTEXTS, exclusive_access

    jobs, addresses = one.workload.jobs, dict(address=address, serve_address=serve_address)
    if backend in CONTEXTS:
        with exclusive_access(backend, address=address, serve_address=serve_address) as ray:
            deploy(ray.ray, configuration(jobs, how, one.initial), report=report)
            yield ray
    else:
        with serving(backend, jobs, how, one.initial, one.capacity, report=report, **addresses) as ray:
            yield ray


def _start_s(one: Slice, how, ray: HttpClient, report) -> float:
    """How long a few replicas take to start, as many as there is room for; what the jobs say where there is none."""
    room = min(one.capacity - int(one.initial.sum()), 3)
    if room < 1:
        return one.workload.jobs[0].cold_start_s
    wall_s = profile.measure_cold_start(ray, how[0], more=room)
    report(f"{room} replicas start in {wall_s:.1f} s of wall time")
    return wall_s * one.scale


def _noted(notes: Notes | None) -> dict:
    if notes is None:
        return {}
    told = asdict(notes) | {"failures": len(notes.failures)}
    return told | {"noisy_host": too_much(notes)}


def too_much(notes: Notes) -> bool:
    """Whether others that do not give way kept the machine too busy for the run to be trusted."""
    return notes.background_cpu - notes.niced_cpu > NOISY_CPUS


def _told(key, run, notes: Notes, trials: int) -> str:
    mark = f"; {notes.background_cpu:.1f} processors were busy with others" + (", too many" if too_much(notes) else "")
    rate = summarize(run)["slo_violation_rate"]
    return (
        f"{key['policy']}, trial {key['trial'] + 1} of {trials}: violations {rate:.2%}, {notes.served} served, {notes.dropped} "
        f"dropped, {notes.failed + notes.unsent} lost{mark}"
    )


def pairs(summary: pd.DataFrame, measure: str = "slo_violation_rate", errors: float = 2.0) -> pd.DataFrame:
    """Every two policies: what they differ by in each environment, and whether both agree who is ahead.

    Differences are taken trial by trial, as trials share their requests.

    Returns
    -------
    a row a pair: policy, other, for each environment the mean difference and its standard error (NaN of one trial),
    decided (both differ by more than `errors` standard errors), agree (the same sign).
    """
    wide = summary.pivot_table(index=["environment", "trial"], columns="policy", values=measure, sort=False)
    rows = []
    for policy, other in combinations(dict.fromkeys(summary["policy"]), 2):
        row: dict = {"policy": policy, "other": other}
        sure = []
        for environment in (LIVE, SIMULATION):
            difference = (wide[policy] - wide[other]).loc[environment]
            error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.nan
            row |= {environment: difference.mean(), f"{environment}_error": error}
            sure.append(bool(abs(difference.mean()) > errors * error))
        agree = bool(np.sign(row[LIVE]) == np.sign(row[SIMULATION]))
        rows.append(row | {"decided": all(sure), "agree": agree})
    columns = ["policy", "other", LIVE, f"{LIVE}_error", SIMULATION, f"{SIMULATION}_error", "decided", "agree"]
    return pd.DataFrame(rows, columns=columns).astype({"decided": bool, "agree": bool})


def ranking_distance(summary: pd.DataFrame, measure: str = "lost_utility") -> float:
    """Normalised Kendall tau distance of the two environments' orders of the policies: pairs in another order, of all.

    0 = the same order, 1 = the reverse one.
    """
    table = pairs(summary, measure)
    return float((~table["agree"]).mean()) if len(table) else 0.0


def published_distance(table: pd.DataFrame, policies: list[str]) -> float:
    """The same of the paper's simulator and cluster, mean over its cluster sizes.

    Parameters
    ----------
    table : data/published/published_main.csv.
    """
    names = {"MArk/Cocktail/Barista": "MArk"}
    table = table.replace({"system": names, "env": {"cluster": LIVE}}).rename(
        columns={"system": "policy", "env": "environment"}
    )
    table = table[table["policy"].isin(policies)].assign(trial=0, lost_utility=table["lost_cluster_utility_mean"])
    return float(np.mean([ranking_distance(part) for _, part in table.groupby("capacity_cores")]))


def lost_utility_error(summary: pd.DataFrame) -> pd.DataFrame:
    """By policy: mean lost utility live and in simulation, and the difference."""
    mean = summary.pivot_table(index="policy", columns="environment", values="lost_utility", sort=False)
    return mean.assign(error=mean[SIMULATION] - mean[LIVE]).reset_index()


def write_live(tables: LiveTables, directory: str | Path) -> None:
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tables.summary.to_csv(directory / "summary.csv", index=False)
    tables.minutes.to_parquet(directory / "minutes.parquet", index=False)
    tables.decisions.to_parquet(directory / "decisions.parquet", index=False)


def read_live(directory: str | Path) -> LiveTables:
    directory = Path(directory)
    if not (directory / "summary.csv").exists():
        raise FileNotFoundError(f"{directory}/summary.csv: no such file; expected the tables of a live run")
    frames = (pd.read_parquet(directory / f"{name}.parquet") for name in ("minutes", "decisions"))
    return LiveTables(pd.read_csv(directory / "summary.csv"), *frames)


def replay(
    results: str | Path,
    backend: str,
    *,
    jobs: Sequence[int] | None,
    replicas: int,
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
    report: Callable[[str], None] = print,
) -> LiveTables:
    """The stage of the pipeline: a slice of the workload in `results`, live and in simulation; journals lie beside the tables.

    Parameters
    ----------
    jobs : max_ongoing_requests in the workload, None the first three.
    first_minute, minutes : of the evaluation day.
    tick_s : wall seconds between decisions.
    """
    traces = read_traces(Path(results) / "traces")
    traces = part_of(traces, range(len(traces.jobs))[:3] if jobs is None else jobs, first_minute)
    workload, share = thinned(traces.workload().between(0, minutes), scale, max_rps)
    if share < 1:
        report(f"{share:.0%} of the requests are sent, as all would be more than {max_rps:g} a second")
    one = Slice(workload, replicas, scale, tick_s * scale, max_ongoing_requests)
    context = PolicyContext(
        workload.jobs, forecast.fit("ar", traces), measure(workload.jobs, serving_model=one.serving_model)
    )
    return study(
        one,
        {name: make(name, context) for name in policies},
        serve_specs(workload.jobs, scale=scale),
        trials,
        backend=backend,
        address=address,
        serve_address=serve_address,
        journals=Path(results) / "live" / backend,
        max_rps=max_rps,
        report=report,
    )

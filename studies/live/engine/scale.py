"""`faro run` scales two services of a real engine whose requests come in bursts.

    python -m studies.live.engine.scale               # ten minutes, into data/recorded-engine
    python -m studies.live.engine.scale --minutes 1   # a short form

Two services of llama.cpp (`engine`) share a few cores. Their requests come as those of two clients
of a production service (ServeGen): each of its ten-minute windows lasts one minute here, with its
own burstiness and its rate relative to the others. `faro run` is the command that operators use.
Its table states the bursts of the forty minutes before, and it observes both limits of each
request. A client outside measures the same, which is compared with the journal of `faro run`.
"""

import argparse
import asyncio
import csv
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.log_traces import with_bursts
from faro_lib.workload.replicas import Continuous, mapping_of, replica_of
from faro_lib.workload.request_log import TIME, read_request_log
from faro_ops.advise.profile.load_generator import OUTCOMES, SERVED, Script, Sent
from faro_ops.journal import reading
from faro_ops.operate.rayserve.backend import Endpoint, serving
from faro_ops.operate.rayserve.spec import ServeSpec, serve_specs
from faro_ops.protocol import live_observation
from studies.live.engine.model import check_engine
from studies.live.engine.trials import (
    LENGTHS,
    LIMIT,
    OUT,
    SIZE,
    SLOTS,
    START_S,
    answers,
    of_profile,
    own_timings,
    slowed,
    slower,
)
from studies.live.generator import Generator
from studies.live.machine import BackgroundLoad
from studies.tables.frames import write_csv

WINDOWS = OUT / "windows.csv"  # of ServeGen: `job, start_s, rate_rps, interarrival_cv, family, ...`
CLIENTS = {"chat": "m-large-140", "code": "m-large-15"}  # service -> client of ServeGen
HISTORY = 40  # windows before the run
CAPACITY = 3  # cores, one per replica
SHARE = 0.2  # mean load of all services together / capacity
SLO_S, PER_TOKEN_SLO_S, QUANTILE = 1.0, 0.1, 0.95
TICK_S = 10.0
LEAD_S = 5.0  # between the start of `faro run` and of the load


def services(kind: Continuous) -> tuple[tuple[Job, ...], tuple[ServeSpec, ...]]:
    """The two services, with replicas of this kind."""
    kind = replace(kind, slo_on="both", per_token_weight=SLO_S / PER_TOKEN_SLO_S)
    one = Job(
        "service", slo_s=SLO_S, quantile=QUANTILE, replica=kind, model="own", cold_start_s=10.0
    )
    jobs = tuple(replace(one, name=name) for name in CLIENTS)
    return jobs, serve_specs(jobs, {job.name: serve_section() for job in jobs})


def serve_section() -> dict[str, Any]:
    """The section `serve` of a service in the jobs' table."""
    return {
        "import_path": "studies.live.engine.model:Engine",
        "args": {"lengths": LENGTHS, "slots": SLOTS, "size": SIZE},
        "max_ongoing_requests": LIMIT,
        "concurrency": LIMIT,
    }


# --- requests -------------------------------------------------------------------------------------


def arrivals_of(windows: pd.DataFrame, mean_rps: float, rng: np.random.Generator) -> np.ndarray:
    """Arrival times of one service in seconds, ascending; each window lasts a minute.

    windows : of one client, in order; within a window, requests are a renewal process of its family
        and shape.
    mean_rps : the rate of the mean window.
    """
    factor = mean_rps / windows["rate_rps"].mean()
    times_s = []
    for n, one in enumerate(windows.itertuples()):
        rate_rps = factor * one.rate_rps
        count = int(5 * rate_rps * MINUTE_S + 100)
        if one.family == "gamma":
            gaps = rng.gamma(one.shape, 1 / one.shape, count)
        else:
            gaps = rng.weibull(one.shape, count) / math.gamma(1 + 1 / one.shape)
        at_s = np.cumsum(gaps) / rate_rps
        times_s.append(n * MINUTE_S + at_s[at_s < MINUTE_S])
    return np.concatenate(times_s)


def requests(
    windows: pd.DataFrame, jobs: Sequence[Job], minutes: int, seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(arrivals of each service in the minutes before the run, and in the run), from 0 s each.

    The services have the same mean load. ValueError if there are too few windows.
    """
    past, coming = [], []
    rng = np.random.default_rng(seed)
    for job in jobs:
        of_job = windows[windows["job"] == CLIENTS[job.name]]
        if len(of_job) < HISTORY + minutes:
            raise ValueError(f"minutes={minutes}: there are windows for {len(of_job) - HISTORY}")
        mean_rps = SHARE * CAPACITY / len(jobs) / job.busy_s
        first, later = of_job[:HISTORY], of_job[HISTORY : HISTORY + minutes]
        # Both parts have the same factor on the rates.
        past.append(arrivals_of(first, mean_rps, rng))
        ratio = later["rate_rps"].mean() / first["rate_rps"].mean()
        coming.append(arrivals_of(later, mean_rps * ratio, rng))
    return past, coming


def with_bursts_of(
    jobs: Sequence[Job], past: Sequence[np.ndarray], folder: Path
) -> tuple[Job, ...]:
    """The jobs with the dispersion of a request log, as `faro recommend` fits it.

    past : arrival times in seconds of each job.
    """
    log = folder / "log.csv"
    rows = sorted((at, job.name) for job, times in zip(jobs, past) for at in times.tolist())
    with log.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("time", "job"))
        lines.writerows((f"{at:.3f}", name) for at, name in rows)
    return with_bursts(jobs, read_request_log(log, [job.name for job in jobs], keep=TIME))


# --- the run --------------------------------------------------------------------------------------


@contextmanager
def controller(endpoint: Endpoint, folder: Path) -> Iterator[Path]:
    """`faro run --apply` in a process of its own; yields its journal."""
    path = folder / "run.journal"
    where = ["--address", endpoint.ray.address, "--serve-address", endpoint.http.address]
    words = ["run", "--jobs", str(folder / "jobs.yaml"), *where, "--apply"]
    words += ["--capacity", str(CAPACITY), "--tick", f"{TICK_S:g}", "--journal", str(path)]
    token = endpoint.ray.token
    assert isinstance(token, str), "the Ray that this process has started"
    environment = os.environ | {"RAY_AUTH_TOKEN": token, "RAY_AUTH_MODE": "token"}
    with (folder / "run.log").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "faro_ops.cli", *words],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        while not _has_ticks(path):
            if process.poll() is not None:
                text = (folder / "run.log").read_text()
                raise RuntimeError(f"faro run ended: {text[-500:]}")
            time.sleep(0.5)
        yield path
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _has_ticks(path: Path) -> bool:
    """Whether a journal has a tick."""
    try:
        return bool(reading.read(path)[1])
    except (OSError, ValueError):
        return False


def write_table(path: Path, jobs: Sequence[Job]) -> None:
    """Write the jobs' table of `faro run`."""
    rows = [
        {
            "job": job.name,
            "slo_s": job.slo_s,
            "quantile": job.quantile,
            "cold_start_s": job.cold_start_s,
            "model": job.model,
            "service_time_s": job.service_time_s,
            "replica": mapping_of(job.replica),
            "serve": serve_section(),
            "dispersion_10s": job.dispersion_10s,
            "dispersion_1s": job.dispersion_1s,
            "dispersion_100ms": job.dispersion_100ms,
        }
        for job in jobs
    ]
    # By way of JSON, because YAML would write what two services share as an alias.
    path.write_text(yaml.safe_dump(json.loads(json.dumps(rows)), sort_keys=False))


def observed(path: Path, origin_s: float) -> pd.DataFrame:
    """What `faro run` recorded: a row per complete minute and service.

    minute : that ended, counted from `origin_s`, the Unix time at which the load began.
    """
    header, ticks = reading.read(path)
    rows = []
    for tick in ticks:
        seen = live_observation(tick.step.observation)
        ended_s = (header.origin_s or 0) + MINUTE_S * seen.minute - origin_s
        for n, job in enumerate(header.jobs):
            row = {"minute": ended_s / MINUTE_S, "job": job.name}
            row |= {"replicas": seen.running[n], "target": tick.step.target[n]}
            row |= {"arrivals": seen.arrivals_per_min[n, -1], "tail_s": seen.tail_latency_s[n]}
            for name in ("first_token_s", "per_token_s", "goodput_rps"):
                column = getattr(seen, name)
                row[name] = np.nan if column is None else column[n]
            factor = getattr(tick.step.plan, "service_factor", None)
            rows.append(row | {"factor": np.nan if factor is None else factor[n]})
    return pd.DataFrame(rows).drop_duplicates(["minute", "job"], keep="last")


def at_clients(script: Script, sent: Sent, names: Sequence[str], shift_s: float) -> pd.DataFrame:
    """What the clients measured: a row per minute of the end and service.

    shift_s : seconds from the beginning of a minute of `faro run` to the beginning of the load.
    """
    later_s = np.where(sent.parts > 1, (sent.latency_s - sent.first_s) / (sent.parts - 1), 0.0)
    table = pd.DataFrame(
        {
            "job": np.array(names)[script.job],
            "minute": (script.due_s + np.nan_to_num(sent.latency_s) + shift_s) // MINUTE_S,
            "served": sent.outcome == SERVED,
            "first_s": sent.first_s,
            "later_s": later_s,
        }
    )
    table["met"] = (
        table["served"] & (table["first_s"] <= SLO_S) & (table["later_s"] <= PER_TOKEN_SLO_S)
    )
    groups = table[table["served"]].groupby(["job", "minute"])
    return groups.agg(
        served=("served", "size"),
        met=("met", "sum"),
        first_token_s=("first_s", lambda one: one.quantile(QUANTILE)),
        per_token_s=("later_s", lambda one: one.quantile(QUANTILE)),
    ).reset_index()


def same_minutes(
    seen: pd.DataFrame, script: Script, sent: Sent, names: Sequence[str]
) -> pd.DataFrame:
    """What `faro run` observed and what the clients measured in the same minutes of `faro run`."""
    # The load begins so many seconds after a minute of `faro run` does.
    shift_s = float(-seen["minute"].iloc[0] * MINUTE_S % MINUTE_S)
    ended = np.round(seen["minute"] + shift_s / MINUTE_S).astype(int) - 1
    clients = at_clients(script, sent, names, shift_s)
    return seen.assign(minute=ended).merge(clients, on=["job", "minute"], suffixes=("", "_clients"))


def run(kind: Continuous, minutes: int, seed: int = 1) -> tuple[pd.DataFrame, dict[str, Any]]:
    """(minutes of the services, summary) of a run.

    kind : of the replicas, as a profile of this engine found it; its times are multiplied by how
        much slower the engine is when the run begins.
    """
    windows = pd.read_csv(WINDOWS)
    jobs, specs = services(kind)
    initial = [1] * len(jobs)
    ray = serving("local", jobs, specs, initial, CAPACITY, start_timeout_s=START_S, report=print)
    with ray as endpoint, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        urls = tuple(endpoint.http.address + spec.route for spec in specs)
        for url in urls:  # the first request of a replica is slower
            asyncio.run(answers(url, [{"prompt_tokens": 1, "output_tokens": 1}]))
        jobs, _ = services(slowed(kind, factor_now(urls[0], kind)))
        past, coming = requests(windows, jobs, minutes, seed)
        jobs = with_bursts_of(jobs, past, folder)
        write_table(folder / "jobs.yaml", jobs)
        due_s = np.concatenate(coming)
        of_job = np.repeat(np.arange(len(jobs)), [len(one) for one in coming])
        order = np.argsort(due_s, kind="stable")
        script = Script(urls, due_s[order], of_job[order], np.full(len(due_s), np.nan))
        with controller(endpoint, folder) as path:
            origin_s = time.time() + LEAD_S
            with BackgroundLoad((*endpoint.pids, os.getpid())) as load:
                sent = Generator(script, origin_s).result(timeout_s=60 * minutes + 180)
            time.sleep(TICK_S + MINUTE_S)  # until the last minute is observed
            seen = observed(path, origin_s)
    table = same_minutes(seen, script, sent, [job.name for job in jobs])
    return table, summary(table, sent) | {"other_cpu": load.processors, "requests": len(due_s)}


def factor_now(url: str, kind: Continuous) -> float:
    """How much slower the engine is now than `kind` says, from llama.cpp's own timings."""
    own = own_timings(url)
    return slower(own, own.assign(seconds=of_profile(kind, own)))


def summary(table: pd.DataFrame, sent: Sent) -> dict[str, Any]:
    """Outcomes, the share that met both limits, and what Faro observed of the same minutes."""
    served, met = table["served"].sum(), table["met"].sum()
    found = {name: sent.count(n) for n, name in enumerate(OUTCOMES)}
    known = table[table["goodput_rps"].notna()]
    return found | {
        "met_share": met / served,
        "goodput_rps": known["met"].sum() / MINUTE_S / known["minute"].nunique(),
        "observed_goodput_rps": known["goodput_rps"].sum() / known["minute"].nunique(),
    }


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=10, help="minutes of load")
    parser.add_argument("--out", type=Path, default=OUT, help="folder with profile.json")
    given = parser.parse_args(words)
    try:
        check_engine()
        kind = read_profile(given.out)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    table, found = run(kind, given.minutes)
    write_csv(table.round(5), given.out / "scale.csv")
    write_csv(pd.DataFrame([found]).round(5), given.out / "scale-summary.csv")
    print(table.to_string(), found, sep="\n")


def read_profile(folder: Path) -> Continuous:
    """The kind in profile.json, which `trials` writes."""
    kind = replica_of(json.loads((folder / "profile.json").read_text())["replica"])
    if not isinstance(kind, Continuous):
        raise ValueError(f"{folder}/profile.json: the kind {kind.kind} generates no tokens")
    return kind


if __name__ == "__main__":
    main()

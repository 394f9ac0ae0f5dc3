"""A real engine on Ray Serve: what `faro profile` finds, its simulated twin, and its cold start.

    python -m studies.live.engine.trials   # twenty minutes, into data/recorded-engine

One replica of llama.cpp with random weights (`engine`) streams tokens. The same replica is profiled
and then serves loads of 50, 70 and 85 % of the measured capacity, each with the twin's requests.
Before and after each part, llama.cpp's own timings say how fast the engine is then: other programs
use the machine, too.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pandas as pd

from faro_lib.simulate import Draws
from faro_lib.simulate.serving import constant_latencies
from faro_lib.workload import Job
from faro_lib.workload.replicas import Continuous, mapping_of
from faro_ops.advise.profile.load_generator import SERVED, Script, Sent
from faro_ops.advise.profile.load_profile import measure_kind
from faro_ops.advise.profile.profile import profile_job
from faro_ops.operate.rayserve.backend import Endpoint, serving
from faro_ops.operate.rayserve.running_job import RunningJob
from faro_ops.operate.rayserve.spec import ServeSpec, serve_specs
from studies.live.engine.model import BATCH_TOKENS, TIMINGS, check_engine
from studies.live.engine.steps import in_service, of_steps, steps_of, tokens_of_one
from studies.live.generator import Generator
from studies.live.machine import BackgroundLoad
from studies.tables.frames import write_csv

OUT = Path("data/recorded-engine")
SIZE = {"width": 512, "feed_forward": 1408, "heads": 8, "context": 1024}
LENGTHS: dict[str, Any] = {
    "prompt_tokens": 40,
    "output_tokens": 20,
    "prompt_cv": 0.5,
    "output_cv": 0.5,
}
SLOTS = 8
LIMIT = 100  # requests in a replica, so that none is dropped
LOADS = (0.5, 0.7, 0.85)
PROFILE_S = 20.0  # length of each rate of the profile
START_S = 600.0  # that Ray and its replicas may take on a busy machine
QUANTILE = 0.99
# Own timings: sequences that run together, prompts, tokens of each sequence, and repetitions.
TOGETHER = (1, 2, 4, 8)
PROMPTS = (10, 40, 80, 160)
TOKENS = 40
REPEATS = 3
QUANTITIES = ("first_token", "per_token", "end_to_end")  # values of `slo_on`


def chat(record: str | None = None) -> tuple[Job, ServeSpec]:
    """The service. Its step and prompt times are a guess, which the profile replaces.

    record : folder for llama.cpp's timings of every token.
    """
    guess = Continuous(
        *(0.005, 0.003, 0.002, SLOTS),
        max_tokens=BATCH_TOKENS,
        slo_on="both",
        per_token_weight=10.0,
        **LENGTHS,
    )
    job = Job("chat", slo_s=1.0, quantile=QUANTILE, replica=guess, model="own", service_time_s=0.2)
    model = {
        "import_path": "studies.live.engine.model:Engine",
        "args": {"lengths": LENGTHS, "slots": SLOTS, "size": SIZE, "record": record},
        "max_ongoing_requests": LIMIT,
        "concurrency": LIMIT,
    }
    return job, serve_specs((job,), {job.name: model})[0]


# --- llama.cpp's own timings ----------------------------------------------------------------------


async def answers(url: str, asked: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Send these requests at once; llama.cpp's timings of each."""

    async def one(body: dict[str, Any]) -> dict[str, Any]:
        async with session.post(url, data=json.dumps(body | {"timings": True})) as answer:
            text = await answer.text()
        if answer.status != 200 or TIMINGS not in text:
            raise RuntimeError(f"{url} answers {answer.status}: {text[:200]}")
        return json.loads(text.partition(TIMINGS)[2])

    async with aiohttp.ClientSession() as session:
        return await asyncio.gather(*map(one, asked))


def own_timings(url: str) -> pd.DataFrame:
    """What llama.cpp measures: columns quantity, of, seconds, load_s; medians of REPEATS.

    quantity : `step` of `of` sequences that run together, or `prompt` of `of` tokens with one step.
    """
    rows = []
    for count in TOGETHER:
        asked = [{"prompt_tokens": 1, "output_tokens": TOKENS}] * count
        repeats = [asyncio.run(answers(url, asked)) for _ in range(REPEATS)]
        steps_ms = [statistics.fmean(one["predicted_per_token_ms"] for one in r) for r in repeats]
        rows.append(("step", count, statistics.median(steps_ms) / 1e3, repeats[-1][0]["load_s"]))
    for tokens in PROMPTS:
        asked = [{"prompt_tokens": tokens, "output_tokens": 1}]
        repeats = [asyncio.run(answers(url, asked)) for _ in range(REPEATS)]
        prompts_ms = [one["prompt_ms"] for (one,) in repeats]
        rows.append(
            ("prompt", tokens, statistics.median(prompts_ms) / 1e3, repeats[-1][0]["load_s"])
        )
    return pd.DataFrame(rows, columns=["quantity", "of", "seconds", "load_s"])


def of_profile(replica: Continuous, own: pd.DataFrame) -> np.ndarray:
    """The times that a replica predicts for the rows of `own_timings`, in seconds."""
    return np.array(
        [
            replica.decode_s(of)
            if quantity == "step"
            else replica.decode_s(1) + replica.prefill_s(of)
            for quantity, of in zip(own["quantity"], own["of"])
        ]
    )


def slower(own: pd.DataFrame, than: pd.DataFrame) -> float:
    """How much slower the engine is than in other timings: geometric mean of the ratios."""
    return float(np.exp(np.log(own["seconds"] / than["seconds"]).mean()))


# --- the twin -------------------------------------------------------------------------------------


def offered(url: str, rate_rps: float, seconds: float, seed: int) -> tuple[Script, Sent]:
    """Offer Poisson load to the service, whose lengths begin with this seed."""
    reset = {"prompt_tokens": 1, "output_tokens": 1, "seed": seed}
    asyncio.run(answers(url, [reset]))
    rng = np.random.default_rng(seed)
    n = rng.poisson(rate_rps * seconds)
    due_s = np.sort(rng.uniform(0, seconds, n))
    script = Script((url,), due_s, np.zeros(n, int), np.full(n, np.nan))
    sent = Generator(script, time.time() + 3).result(timeout_s=seconds + 120)
    if (sent.outcome != SERVED).any():
        raise RuntimeError(f"{(sent.outcome != SERVED).sum()} of {n} requests were not served")
    return script, sent


def lengths_of(replica: Continuous, seed: int, n: int) -> np.ndarray:
    """(prompt tokens, output tokens) of the first n requests after a reset, shape (2, n)."""
    rng = np.random.default_rng(seed)
    return np.concatenate([replica.lengths(rng, 1) for _ in range(n)], axis=1)


def live_measures(script: Script, sent: Sent, output_tokens: np.ndarray) -> dict[str, float]:
    """p99 of each quantity, and requests per second from the first arrival to the last answer."""
    later = output_tokens > 1
    per_token_s = (sent.latency_s - sent.first_s)[later] / (output_tokens[later] - 1)
    return {
        "first_token": float(np.quantile(sent.first_s, QUANTILE)),
        "per_token": float(np.quantile(per_token_s, QUANTILE)),
        "end_to_end": float(np.quantile(sent.latency_s, QUANTILE)),
        "rps": len(script.due_s) / float((script.due_s + sent.latency_s).max() - script.due_s[0]),
    }


def twin_measures(
    job: Job, due_s: np.ndarray, lengths: np.ndarray, overhead_s: float
) -> dict[str, float]:
    """`live_measures` of a simulated replica with the same requests.

    overhead_s : time of a request outside the engine.
    """
    n = len(due_s)
    columns = due_s, np.empty(0), np.ones(n), np.empty(0), np.ones(n, np.float32)
    draws = Draws(np.array([0, n]), *columns, 0, *lengths)
    assert isinstance(job.replica, Continuous)
    rules = "least-outstanding", LIMIT, np.array([LIMIT])
    found = {}  # quantity -> (requests,)
    for quantity in QUANTITIES:
        replica = replace(job.replica, slo_on=quantity, per_token_weight=0.0)
        found[quantity] = constant_latencies((replace(job, replica=replica),), draws, [1], *rules)
    found["per_token"] = found["per_token"][lengths[1] > 1]
    for quantity in ("first_token", "end_to_end"):
        found[quantity] = found[quantity] + overhead_s
    measures = {name: float(np.quantile(one, QUANTILE)) for name, one in found.items()}
    last_s = float((due_s + found["end_to_end"]).max())
    return measures | {"rps": n / (last_s - float(due_s[0]))}


def slowed(replica: Continuous, factor: float) -> Continuous:
    """The replica with all times multiplied by `factor`."""
    return replace(
        replica,
        alpha_s=factor * replica.alpha_s,
        beta_s=factor * replica.beta_s,
        gamma_s=factor * replica.gamma_s,
        beta_knees=tuple((at, factor * extra_s) for at, extra_s in replica.beta_knees),
        gamma_knees=tuple((at, factor * extra_s) for at, extra_s in replica.gamma_knees),
    )


# --- trials ---------------------------------------------------------------------------------------


def profiled(
    endpoint: Endpoint, job: Job, spec: ServeSpec, record: str, seconds: float
) -> dict[str, Any]:
    """What `faro profile` measures of the running service, and llama.cpp's timings.

    `own` are those of an idle service before and after it, `steps` those of one replica in service
    during the profile, from the folder `record`.
    """
    service = RunningJob(endpoint.ray, endpoint.http, job.name, spec)
    before = own_timings(service.url)
    with BackgroundLoad(endpoint.pids) as load:
        single = profile_job(service, 50)
        began_s = time.perf_counter()
        # Two engines slow each other down on two processors, so one is profiled alone.
        _, calibration = measure_kind(service, job, single, seconds, more=0)
    after = own_timings(service.url)
    print("\n".join(calibration.lines()), flush=True)
    own = before.assign(seconds=np.sqrt(before["seconds"] * after["seconds"]))
    return {
        "kind": calibration.kind,
        "verdict": calibration.verdict,
        "service": calibration.service,
        "capacity_rps": float(calibration.capacity_rps[1]),
        "cold_start_s": single.cold_start_s,
        "own": own,
        "steps": steps_of(tokens_of_one(record, began_s)),
        "drift": slower(after, before),
        "other_cpu": load.processors,
    }


def at_load(
    endpoint: Endpoint,
    job: Job,
    spec: ServeSpec,
    found: dict[str, Any],
    *,
    share: float,
    seed: int,
    seconds: float,
) -> dict[str, Any]:
    """One load, live and simulated by three twins.

    They have the profile as it is, the profile as fast as the engine is now, and llama.cpp's own
    steps in service, as fast as the engine is now.
    """
    url = endpoint.http.address + spec.route
    rate_rps = share * found["capacity_rps"]
    before = own_timings(url)
    with BackgroundLoad(endpoint.pids) as load:
        script, sent = offered(url, rate_rps, seconds, seed)
    after = own_timings(url)
    factor = float(np.sqrt(slower(before, found["own"]) * slower(after, found["own"])))
    service = found["service"]
    lengths = lengths_of(service.replica, seed, len(script.due_s))
    row = {"load": share, "seed": seed, "rate_rps": rate_rps, "requests": len(script.due_s)}
    row |= {"slower": factor, "drift": slower(after, before), "other_cpu": load.processors}
    live = live_measures(script, sent, lengths[1])
    row |= {f"live_{name}": value for name, value in live.items()}
    replicas = {
        "twin": service.replica,
        "paired": slowed(service.replica, factor),
        "own": slowed(of_steps(found["steps"], TOGETHER, service.replica), factor),
    }
    for name, replica in replicas.items():
        of_twin = replace(job, replica=replica)
        twin = twin_measures(of_twin, script.due_s, lengths, service.overhead_s)
        row |= {f"{name}_{quantity}": value for quantity, value in twin.items()}
    print(json.dumps({key: round(value, 4) for key, value in row.items()}), flush=True)
    return row


def write(out: Path, found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write profile.json, own-timings.csv and twins.csv into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    service, own = found["service"], found["own"]
    profile = {key: found[key] for key in ("kind", "verdict", "capacity_rps", "cold_start_s")}
    profile |= {"drift": found["drift"], "other_cpu": found["other_cpu"]}
    profile |= {"load_s": float(own["load_s"].iloc[0]), "overhead_s": service.overhead_s}
    profile |= {"replica": mapping_of(service.replica)}
    (out / "profile.json").write_text(json.dumps(profile, indent=1) + "\n")
    idle = own[["quantity", "of", "seconds"]].rename(columns={"seconds": "idle"})
    compared = in_service(found["steps"], service.replica, TOGETHER, PROMPTS)
    timings = compared.merge(idle, on=["quantity", "of"])
    write_csv(timings.round(6), out / "own-timings.csv")
    write_csv(pd.DataFrame(rows).round(5), out / "twins.csv")
    write_csv(found["steps"].round(6), out / "steps.csv.gz")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1, help="runs per load")
    parser.add_argument("--seconds", type=float, default=150.0, help="length of a run")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(words)
    try:
        check_engine()
    except ValueError as error:
        parser.error(str(error))
    record = tempfile.mkdtemp(prefix="faro-engine-")
    job, spec = chat(record)
    # One more replica is started to time a cold start.
    serve = serving("local", (job,), (spec,), [1], 2, start_timeout_s=START_S, report=print)
    with serve as endpoint:
        found = profiled(endpoint, job, spec, record, PROFILE_S)
        if not isinstance(found["service"].replica, Continuous):
            raise SystemExit(f"the profile names the kind {found['kind']}, not continuous")
        rows: list[dict[str, Any]] = []
        for number in range(given.trials):
            for share in LOADS:
                seed = 100 + number
                parts = endpoint, job, spec, found
                rows.append(at_load(*parts, share=share, seed=seed, seconds=given.seconds))
                write(given.out, found, rows)  # a later run may fail


if __name__ == "__main__":
    main()

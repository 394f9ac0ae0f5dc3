"""The real engine with random weights, its twin, and bursts scaled down from ServeGen."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from observations import observed as observation_of

from faro_lib.control.tick import Step
from faro_lib.protocol import hold
from faro_lib.workload import Job
from faro_lib.workload.replicas import Continuous
from faro_ops.advise.profile.load_generator import Sent
from faro_ops.journal.ticks import Header
from faro_ops.journal.writing import Journal
from faro_ops.protocol import LiveGuardrails
from studies.live.engine import scale as engine_scale
from studies.live.engine.model import TIMINGS, Engine, check_engine, model_file
from studies.live.engine.random_model import FIRST_WORD, Size, write_model
from studies.live.engine.scale import CLIENTS, HISTORY, arrivals_of, at_clients, services
from studies.live.engine.trials import (
    chat,
    lengths_of,
    live_measures,
    of_profile,
    slowed,
    slower,
    twin_measures,
)

KIND = Continuous(
    0.02, 0.003, 0.001, 8, 20.0, 40.0, 0.5, 0.5, beta_knees=((4, 0.001),), slo_on="end_to_end"
)
SMALL = {"layers": 2, "width": 64, "feed_forward": 128, "heads": 2, "context": 256}
LENGTHS = {"prompt_tokens": 8, "output_tokens": 4, "prompt_cv": 0.5, "output_cv": 0.5}


# --- the model and the engine ---------------------------------------------------------------------


def test_a_model_of_random_weights_is_the_same_for_the_same_seed_and_generates_words(tmp_path):
    gguf = pytest.importorskip("gguf", reason="pip install 'faro_lib[llm]'")
    paths = [tmp_path / f"{n}.gguf" for n in range(3)]
    for path, seed in zip(paths, (0, 0, 1)):
        write_model(path, Size(**SMALL), seed)
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()
    tensors = {one.name: one.data for one in gguf.GGUFReader(paths[0]).tensors}
    output = tensors["output.weight"]
    assert output.shape == (Size().tokens, SMALL["width"])
    assert not output[:FIRST_WORD].any(), "no token of a single byte is ever the likeliest"
    assert output[FIRST_WORD:].any(axis=1).all()


def request(**body):
    async def read():
        return json.dumps(body).encode() if body else b""

    return SimpleNamespace(body=read)


@pytest.fixture(scope="module")
def engine():
    pytest.importorskip("xllamacpp", reason="pip install 'faro_lib[llm]'")
    return Engine(LENGTHS, slots=2, size=SMALL)


def parts_of(engine, *requests) -> list[list[str]]:
    async def one(asked):
        return [part async for part in (await engine(asked)).body_iterator]

    async def every():
        return await asyncio.gather(*map(one, requests))

    return asyncio.run(every())


def test_the_engine_streams_exactly_the_tokens_that_are_asked_for_and_its_own_timings(engine):
    asked = {"prompt_tokens": 30, "output_tokens": 7, "timings": True}
    *tokens, last = parts_of(engine, request(**asked))[0]
    assert len(tokens) == 7
    timings = json.loads(last.removeprefix(TIMINGS))
    assert (timings["prompt_n"], timings["predicted_n"]) == (30, 7)
    assert min(timings["prompt_ms"], timings["predicted_ms"], timings["load_s"]) > 0


def test_more_requests_than_slots_are_all_answered(engine):
    parts = parts_of(engine, *[request(prompt_tokens=3, output_tokens=5)] * 6)
    assert [len(one) for one in parts] == [5] * 6


def test_a_seed_begins_the_lengths_that_the_twin_draws(engine):
    parts_of(engine, request(prompt_tokens=1, output_tokens=1, seed=7))
    kind = Continuous(1.0, 0.0, 0.0, 2, **LENGTHS)
    drawn = lengths_of(kind, 7, 5)[1]
    assert [len(parts_of(engine, request())[0]) for _ in range(5)] == drawn.tolist()


def test_an_engine_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "xllamacpp", None)
    with pytest.raises(ValueError, match=r"pip install 'faro_lib\[llm\]'"):
        check_engine()


def test_a_model_is_written_once(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr("studies.live.engine.model.tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(
        "studies.live.engine.model.write_model",
        lambda path, size: (written.append(size), path.touch()),
    )
    assert model_file() == model_file()
    assert model_file(Size(**SMALL)) != model_file()
    assert written == [Size(), Size(**SMALL)]


# --- the twin -------------------------------------------------------------------------------------


def test_the_twin_of_a_request_alone_takes_its_prompt_and_its_steps():
    job = Job("chat", replica=KIND, model="own")
    lengths = np.array([[40.0], [21.0]])
    found = twin_measures(job, np.array([0.0]), lengths, overhead_s=0.5)
    first_s = KIND.decode_s(1) + KIND.prefill_s(40)
    assert found["first_token"] == pytest.approx(first_s + 0.5)
    assert found["per_token"] == pytest.approx(KIND.decode_s(1))
    assert found["end_to_end"] == pytest.approx(first_s + 20 * KIND.decode_s(1) + 0.5)


def test_live_measures_are_those_of_the_twin_if_the_replica_is():
    job, due_s = Job("chat", replica=KIND, model="own"), np.arange(0, 20, 0.1)
    lengths = lengths_of(KIND, 3, len(due_s))
    twin = twin_measures(job, due_s, lengths, 0.0)
    first_s, last_s = np.full(200, 0.2), 0.2 + 0.03 * (lengths[1] - 1)
    sent = SimpleNamespace(first_s=first_s, latency_s=last_s)
    live = live_measures(SimpleNamespace(due_s=due_s), sent, lengths[1])
    assert set(live) == set(twin)
    assert (live["first_token"], live["per_token"]) == pytest.approx((0.2, 0.03))


def test_a_slowed_replica_takes_longer_for_everything_by_the_same_factor():
    slow = slowed(KIND, 1.5)
    own = pd.DataFrame(
        [("step", 2, 0.0), ("step", 8, 0.0), ("prompt", 100, 0.0)],
        columns=["quantity", "of", "seconds"],
    )
    fast_s, slow_s = of_profile(KIND, own), of_profile(slow, own)
    assert slow_s == pytest.approx(1.5 * fast_s)
    assert slower(own.assign(seconds=slow_s), own.assign(seconds=fast_s)) == pytest.approx(1.5)
    assert fast_s[0] == pytest.approx(0.02 + 2 * 0.003)
    assert fast_s[2] == pytest.approx(0.023 + 0.1)


def test_the_profiled_service_streams_through_all_requests_at_once():
    job, spec = chat()
    assert spec.import_path == "studies.live.engine.model:Engine"
    assert spec.concurrency == spec.max_ongoing_requests
    assert spec.args["slots"] == job.replica.max_sequences


# --- bursts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "shape", "cv"), [("gamma", 0.25, 2.0), ("weibull", 0.5, 2.24)])
def test_requests_within_a_window_have_its_rate_and_its_variation(family, shape, cv):
    windows = pd.DataFrame({"rate_rps": [3.0] * 60, "family": family, "shape": shape})
    times_s = arrivals_of(windows, 20.0, np.random.default_rng(0))
    assert (np.diff(times_s) >= 0).all()
    assert len(times_s) / 3600 == pytest.approx(20.0, rel=0.05)
    gaps = np.diff(times_s)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.1)


def test_windows_keep_their_rates_relative_to_each_other():
    windows = pd.DataFrame({"rate_rps": [1.0, 3.0], "family": "gamma", "shape": 1.0})
    times_s = arrivals_of(windows, 100.0, np.random.default_rng(0))
    counts = np.bincount((times_s // 60).astype(int))
    assert counts / 60 == pytest.approx([50.0, 150.0], rel=0.05)


def test_the_recorded_windows_suffice_for_the_run_and_its_history():
    windows = pd.read_csv(engine_scale.WINDOWS)
    for client in CLIENTS.values():
        of_client = windows[windows["job"] == client]
        assert len(of_client) >= HISTORY + 10
        assert (of_client["start_s"].diff().dropna() > 0).all()
    jobs, _ = services(KIND)
    _, coming = engine_scale.requests(windows, jobs, 10, seed=1)
    assert all(one.min() >= 0 and one.max() < 600 for one in coming)
    rates_rps = [len(one) / 600 for one in coming]
    assert all(rate_rps < 2 / job.busy_s for rate_rps, job in zip(rates_rps, jobs))
    with pytest.raises(ValueError, match="there are windows for 10"):
        engine_scale.requests(windows, jobs, 11, seed=1)


def test_a_request_meets_both_limits_or_does_not_count_as_met():
    script = SimpleNamespace(due_s=np.array([1.0, 2.0, 3.0, 61.0]), job=np.zeros(4, int))
    sent = SimpleNamespace(
        outcome=np.array([0, 0, 0, 1]),
        first_s=np.array([0.1, 2.0, 0.1, np.nan]),
        latency_s=np.array([0.5, 2.5, 5.1, np.nan]),
        parts=np.array([11, 11, 11, 0]),
    )
    (row,) = at_clients(script, sent, ["chat"], 0.0).itertuples()
    assert (row.served, row.met) == (3, 1)


def test_the_minutes_of_the_controller_and_of_the_clients_are_the_same(tmp_path):
    """The load begins 20 s after a minute of the controller does, and each minute has one count."""
    jobs, _ = services(KIND)
    origin_s = 1_000_000
    load_s = origin_s + 15 * 60 + 20.0
    with Journal(tmp_path / "journal") as written:
        written.begin(Header("x", jobs, LiveGuardrails(), 10.0, True, origin_s=origin_s))
        for minute in range(15, 20):
            for second in (0.0, 30.0):
                seen = observation_of(
                    [1, 2],
                    now_s=60.0 * minute + second,
                    minute=minute,
                    arrivals_per_min=np.full((2, 1), float(minute)),
                    goodput_rps=np.array([1.0, 2.0]),
                )
                written.tick(Step(seen, hold(seen), np.array([1, 3]), 0.0), None)
    seen = engine_scale.observed(tmp_path / "journal", load_s)
    due_s = np.arange(0.5, 160.0)
    n = len(due_s)
    script = SimpleNamespace(due_s=due_s, job=np.arange(n) % 2)
    parts, latency_s = np.full(n, 11), np.full(n, 0.2)
    sent = Sent(np.zeros(n, np.int8), latency_s, np.zeros(n), np.full(n, 0.1), parts)
    table = engine_scale.same_minutes(seen, script, sent, [job.name for job in jobs])
    # 40 s of the controller's first minute, then two complete ones.
    assert table["served"].tolist() == [20, 20, 30, 30, 30, 30]
    assert table["minute"].tolist() == [0, 0, 1, 1, 2, 2]
    assert table["arrivals"].tolist() == [16, 16, 17, 17, 18, 18]
    found = engine_scale.summary(table, sent)
    assert (found["served"], found["met_share"]) == (n, 1.0)
    assert found["observed_goodput_rps"] == pytest.approx(3.0)
    assert found["goodput_rps"] == pytest.approx(160 / 180)

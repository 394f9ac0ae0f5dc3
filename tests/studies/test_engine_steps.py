"""The steps of an engine, found from the timings that each of its tokens carries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_engine import LENGTHS, SMALL, parts_of, request

from faro_lib.workload.replicas import Continuous
from studies.live.engine.model import TOKEN_COLUMNS, Engine
from studies.live.engine.steps import in_service, of_steps, steps_of, tokens_of_one

LAW = Continuous(0.008, 0.002, 0.001, 8, output_tokens=20, prompt_tokens=40)


def served(arrival_s, prompts, outputs, rng):
    """Tokens (TOKEN_COLUMNS, in any order) of an engine with LAW, and its steps after another.

    A step is (seconds, sequences, prompt tokens). Python hears of each token a little later.
    """
    waiting = list(range(len(arrival_s)))
    running, given, begin_s = [], {}, {}
    tokens, steps, now = [], [], 0.0
    while waiting or running:
        if not running:
            now = max(now, arrival_s[waiting[0]])
        new = [one for one in waiting if arrival_s[one] <= now][: 8 - len(running)]
        waiting = waiting[len(new) :]
        goes_on = bool(running)
        running += new
        duration = LAW.decode_s(len(running)) + LAW.prefill_s(sum(prompts[one] for one in new))
        now += duration
        if goes_on:
            steps.append((duration, len(running), sum(prompts[one] for one in new)))
        for one in list(running):
            if one in new:
                begin_s[one], given[one] = now, 0
            given[one] += 1
            heard_s = now + rng.exponential(0.0002)
            output_ms = 1e3 * (now - begin_s[one])
            tokens.append((one, 500 + heard_s, prompts[one], 1e3 * duration, given[one], output_ms))
            if given[one] == outputs[one]:
                running.remove(one)
    rng.shuffle(tokens)  # threads write them in any order
    return pd.DataFrame(tokens, columns=list(TOKEN_COLUMNS)), steps


def test_durations_sequences_and_prompts_of_all_steps_are_found():
    rng = np.random.default_rng(3)
    n = 300
    arrival_s = np.cumsum(rng.exponential(0.15, n))
    prompts, outputs = rng.integers(5, 90, n), rng.integers(4, 40, n)
    tokens, steps = served(arrival_s, prompts, outputs, rng)
    found = steps_of(tokens)
    assert len(found) == len(steps) > 2000
    np.testing.assert_allclose(found["seconds"], [one[0] for one in steps], atol=1e-9)
    np.testing.assert_array_equal(found[["sequences", "prompt_tokens"]], [o[1:] for o in steps])


def test_requests_of_one_or_two_tokens_belong_to_the_steps_of_others():
    rng = np.random.default_rng(4)
    n = 300
    arrival_s = np.cumsum(rng.exponential(0.15, n))
    prompts, outputs = rng.integers(5, 90, n), rng.choice([1, 2, 30], n)
    tokens, steps = served(arrival_s, prompts, outputs, rng)
    found = steps_of(tokens)
    law_s = [LAW.decode_s(n) + LAW.prefill_s(p) for n, p in found.to_numpy()[:, 1:]]
    right = np.isclose(found["seconds"], law_s)
    assert len(found) > 0.95 * len(steps)
    assert right.mean() > 0.95


def test_a_profile_is_compared_with_the_steps_of_its_own_service():
    rng = np.random.default_rng(5)
    n = 400
    outputs = rng.integers(4, 40, n)
    prompts = np.full(n, 40)
    tokens, _ = served(np.cumsum(rng.exponential(0.12, n)), prompts, outputs, rng)
    compared = in_service(steps_of(tokens), LAW, (1, 4), (40, 80, 500))
    assert compared["of"].tolist() == [1, 4, 40, 80, 500]
    np.testing.assert_allclose(compared["profile"][:4], compared["seconds"][:4])
    assert (compared["steps"][:4] > 10).all()
    nothing = compared.iloc[-1]
    assert nothing["steps"] == 0
    assert nothing[["seconds", "profile"]].isna().all()


def test_the_engine_writes_the_timings_of_each_token_as_it_gives_it(tmp_path):
    pytest.importorskip("xllamacpp", reason="pip install 'faro_lib[llm]'")
    engine = Engine(LENGTHS, slots=2, size=SMALL, record=str(tmp_path))
    parts_of(engine, *[request(prompt_tokens=9, output_tokens=6)] * 2)
    tokens = tokens_of_one(tmp_path, 0.0)
    assert set(tokens["request"]) == {0, 1}
    assert set(tokens["prompt_n"]) == {9}
    assert (
        tokens.groupby("request")["predicted_n"].unique().map(sorted).tolist()
        == [[1, 2, 3, 4, 5, 6]] * 2
    )
    assert (steps_of(tokens)["seconds"] > 0).all()


def test_the_tokens_are_those_of_the_longest_time_without_another_engine(tmp_path):
    row = "0,{},9,20.0,1,0.001\n"
    (tmp_path / "1.csv").write_text("".join(row.format(s) for s in (1.0, 3.5, 5.0, 7.0, 9.0)))
    (tmp_path / "2.csv").write_text("".join(row.format(s) for s in (2.0, 4.0, 8.0)))
    (tmp_path / "3.csv").touch()
    assert tokens_of_one(tmp_path, 3.0)["heard_s"].tolist() == [5.0, 7.0]
    assert tokens_of_one(tmp_path, 8.5)["heard_s"].tolist() == [9.0]
    with pytest.raises(ValueError, match="no engine has served a token"):
        tokens_of_one(tmp_path, 10.0)


def test_a_replica_with_the_engines_steps_has_their_medians():
    rng = np.random.default_rng(6)
    n = 500
    prompts, outputs = rng.integers(5, 90, n), rng.integers(4, 40, n)
    tokens, _ = served(np.cumsum(rng.exponential(0.12, n)), prompts, outputs, rng)
    replica = of_steps(steps_of(tokens), (1, 2, 4, 8), replace(LAW, alpha_s=0.1, beta_s=0.1))
    times_s = [(one.decode_s(4), one.prefill_s(50)) for one in (replica, LAW)]
    assert times_s[0] == pytest.approx(times_s[1])
    assert replica.max_sequences == LAW.max_sequences


def test_a_step_of_more_sequences_counts_as_at_least_as_long():
    seconds = [0.010, 0.014, 0.020, 0.018]
    steps = pd.DataFrame({"seconds": seconds, "sequences": [1, 2, 4, 8], "prompt_tokens": 0})
    with_prompt = pd.DataFrame({"seconds": [0.07], "sequences": [4], "prompt_tokens": [50]})
    replica = of_steps(pd.concat([steps, with_prompt]), (1, 2, 4, 8), LAW)
    times_s = [replica.decode_s(n) for n in (1, 2, 3, 4, 8)]
    assert times_s == pytest.approx([0.010, 0.014, 0.017, 0.020, 0.020])
    assert replica.gamma_s == pytest.approx(0.001)

"""Options are chosen on training days only, run by run against what was chosen."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest

from faro_lib import forecast
from faro_lib.experiments import tuning as choosing
from faro_lib.policies import PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.workload.synthetic import synthetic


def until(true, within_s=10.0):
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def world():
    traces = synthetic(seed=1, jobs=3, days=10, minutes=30)
    return traces, PolicyContext(traces.jobs, forecaster=forecast.fit("ar", traces))


def test_what_is_judged_are_training_days_and_the_forecasters_saw_those_before(world, monkeypatch):
    seen = {}
    monkeypatch.setattr(choosing.forecast, "fit", lambda name, traces, **_: seen.setdefault(name, traces.days))
    monkeypatch.setattr(choosing, "measure", lambda jobs: None)
    choosing.kits(world[0], posterior=None)
    assert seen == {"bayes": 8, "ar": 8}
    assert min(choosing.DAYS) == 9
    assert max(choosing.DAYS) == world[0].days, "the evaluation day is day 11"


def test_an_alternative_differs_from_what_was_chosen_in_what_its_name_says(world):
    _, context = world
    every = choosing.alternatives(context, context)
    differ = {
        name: {
            field.name
            for field in fields(policy)
            if field.name != "forecaster"
            and getattr(policy, field.name) != getattr(tuned(context, policy.objective), field.name)
        }
        for name, policy in every.items()
    }
    assert differ["moves are free"] == differ["FairSum: a move costs 0.1"] == {"switching_cost"}
    assert differ["no nowcast"] == {"nowcast"}
    assert differ["FairSum: no deficit_weighting"] == differ["Fair: no deficit_weighting"] == {"deficit_weighting"}
    assert all(len(changed) <= 1 for changed in differ.values())
    assert [name for name, changed in differ.items() if not changed] == [
        "chosen",
        "M/G/c by correction",  # what is chosen where nothing was measured, as here
        "pooled autoregression",
        "FairSum: chosen",
        "Fair: chosen",
    ]


def test_runs_are_compared_with_the_chosen_ones_of_the_same_day_phase_and_size():
    def rows(option, lost):
        return [
            {
                "option": option,
                "day": day,
                "phase": 0,
                "capacity_cores": 8,
                "lost_utility": value,
                "slo_violation_rate": 0.1,
            }
            | {"worst_job": 0.9}
            for day, value in zip((9, 10), lost)
        ]

    lost = {"chosen": (1.0, 3.0), "moves are free": (1.1, 3.3), "FairSum: chosen": (2.0, 2.0)}
    lost["FairSum: no deficit_weighting"] = (2.5, 2.5)
    table = pd.DataFrame([row for option, values in lost.items() for row in rows(option, values)])
    found = choosing.differences(table).set_index("option")
    assert found["more"].to_dict() == pytest.approx(
        {"chosen": 0, "moves are free": 0.2, "FairSum: chosen": 0, "FairSum: no deficit_weighting": 0.5}
    )
    assert found.loc["moves are free", "more_error"] == pytest.approx(np.std([0.1, 0.3], ddof=1) / np.sqrt(2))
    assert found.loc["moves are free", "lost_utility"] == pytest.approx(2.2)


def test_a_run_says_what_was_lost_and_by_whom(world):
    traces, context = world
    table = choosing.measured(traces, {"chosen": tuned(context)}, day=9, phase=0, size=6, seed=24)
    assert table[["option", "day", "phase", "capacity_cores"]].iloc[0].tolist() == ["chosen", 9, 0, 6]
    assert 0 <= table["worst_job"].iloc[0] <= 1 - table["lost_utility_excl_overrun"].iloc[0] / 3


def test_what_is_measured_is_on_disk_at_once_and_looks_complete_only_when_it_is(tmp_path):
    first, second = Future(), Future()
    out = tmp_path / "choices.csv"
    partial = tmp_path / "choices.partial.csv"
    with ThreadPoolExecutor() as pool:
        gathering = pool.submit(choosing.gathered, [first, second], out)
        second.set_result(pd.DataFrame({"option": ["b"]}))
        until(partial.exists)
        assert not out.exists()
        first.set_result(pd.DataFrame({"option": ["a"]}))
        table = gathering.result(10)
    assert table["option"].tolist() == ["a", "b"]
    assert table.index.is_unique, "or its rows cannot be compared"
    assert pd.read_csv(out)["option"].tolist() == ["a", "b"]
    assert not partial.exists()


def test_with_a_run_that_fails_nothing_looks_complete(tmp_path):
    good, bad = Future(), Future()
    good.set_result(pd.DataFrame({"option": ["a"]}))
    bad.set_exception(RuntimeError("no memory"))
    with pytest.raises(RuntimeError, match="no memory"):
        choosing.gathered([good, bad], tmp_path / "choices.csv")
    assert not (tmp_path / "choices.csv").exists()

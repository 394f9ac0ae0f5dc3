"""Options are tuned on training days only, and compared run by run with the tuned defaults."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from waiting import PATIENCE_S, until

from faro_lib import forecast
from faro_lib.policies import PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.workload.synthetic import synthetic
from studies.tuning import run as tuning

pytestmark = pytest.mark.usefixtures("coarse_tables")


@pytest.fixture(scope="module")
def world():
    traces = synthetic(seed=1, jobs=3, days=10, minutes=30)
    return traces, PolicyContext(traces.jobs, forecaster=forecast.fit("ar", traces))


def test_tuning_scores_training_days_with_forecasters_fitted_to_earlier_ones(world, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        tuning.forecast, "fit", lambda name, traces, **_: seen.setdefault(name, traces.days)
    )
    monkeypatch.setattr(tuning, "measure", lambda jobs: None)
    tuning.contexts(world[0], posterior=None)
    assert seen == {"bayes": 8, "ar": 8}
    assert min(tuning.DAYS) == 9
    assert max(tuning.DAYS) == world[0].days, "the evaluation day is day 11"


def test_an_alternative_differs_from_the_tuned_defaults_in_the_option_it_names(world):
    _, context = world
    every = tuning.alternatives(context, context)
    differ = {
        name: {
            field.name
            for field in fields(policy)
            if field.name != "forecaster"
            and getattr(policy, field.name) != getattr(tuned(context, policy.objective), field.name)
        }
        for name, policy in every.items()
    }
    assert (
        differ["no switching cost"] == differ["FairSum: switching cost 0.1"] == {"switching_cost"}
    )
    assert differ["no nowcast"] == {"nowcast"}
    assert (
        differ["FairSum: no deficit weighting"]
        == differ["Fair: no deficit weighting"]
        == {"deficit_weighting"}
    )
    assert all(len(changed) <= 1 for changed in differ.values())
    assert [name for name, changed in differ.items() if not changed] == [
        "chosen",
        "M/G/c by correction",  # the default where no latency was measured, as here
        "pooled autoregression",
        "FairSum: chosen",
        "Fair: chosen",
    ]


def test_differences_are_taken_between_runs_of_the_same_day_phase_and_capacity():
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

    lost = {"chosen": (1.0, 3.0), "no switching cost": (1.1, 3.3), "FairSum: chosen": (2.0, 2.0)}
    lost["FairSum: no deficit weighting"] = (2.5, 2.5)
    table = pd.DataFrame([row for option, values in lost.items() for row in rows(option, values)])
    table = tuning.differences(table).set_index("option")
    assert table["more"].to_dict() == pytest.approx(
        {
            "chosen": 0,
            "no switching cost": 0.2,
            "FairSum: chosen": 0,
            "FairSum: no deficit weighting": 0.5,
        }
    )
    assert table.loc["no switching cost", "more_error"] == pytest.approx(
        np.std([0.1, 0.3], ddof=1) / np.sqrt(2)
    )
    assert table.loc["no switching cost", "lost_utility"] == pytest.approx(2.2)


def test_a_run_reports_its_key_its_measures_and_its_worst_job(world):
    traces, context = world
    table = tuning.measured(traces, {"chosen": tuned(context)}, day=9, phase=0, capacity=6, seed=24)
    assert table[["option", "day", "phase", "capacity_cores"]].iloc[0].tolist() == [
        "chosen",
        9,
        0,
        6,
    ]
    assert 0 <= table["worst_job"].iloc[0] <= 1 - table["lost_utility"].iloc[0] / 3


def test_finished_runs_are_in_the_partial_file_until_all_are_finished(tmp_path):
    first, second = Future(), Future()
    out = tmp_path / "tuning.csv"
    partial = tmp_path / "tuning.partial.csv"
    with ThreadPoolExecutor() as pool:
        gathering = pool.submit(tuning.gathered, [first, second], out)
        second.set_result(pd.DataFrame({"option": ["b"]}))
        until(partial.exists)
        assert not out.exists()
        first.set_result(pd.DataFrame({"option": ["a"]}))
        table = gathering.result(PATIENCE_S)
    assert table["option"].tolist() == ["a", "b"]
    assert table.index.is_unique, "or its rows cannot be compared"
    assert pd.read_csv(out)["option"].tolist() == ["a", "b"]
    assert not partial.exists()


def test_a_run_that_fails_leaves_no_complete_table(tmp_path):
    good, bad = Future(), Future()
    good.set_result(pd.DataFrame({"option": ["a"]}))
    bad.set_exception(RuntimeError("no memory"))
    with pytest.raises(RuntimeError, match="no memory"):
        tuning.gathered([good, bad], tmp_path / "tuning.csv")
    assert not (tmp_path / "tuning.csv").exists()

"""The comparison of solvers looks at honest inputs."""

from dataclasses import replace

import numpy as np
import pytest

from faro_lib.experiments import solvers as study
from faro_lib.workload.synthetic import synthetic


@pytest.fixture(scope="module")
def traces():
    return synthetic(seed=2, jobs=4, days=3, minutes=90)


@pytest.fixture(scope="module")
def windows(traces):
    return study.decision_windows(traces, 14, days=[3], count=4, forecaster="persistence", samples=20)


def test_a_window_knows_nothing_of_what_comes(traces, windows):
    first = windows[0]
    minute = int(first.name.rsplit(" ", 1)[1])
    train = traces.train.copy()
    train[2, :, :, minute:] = 7
    changed = study.decision_windows(
        replace(traces, train=train), 14, days=[3], count=4, forecaster="persistence", samples=20
    )[0]
    np.testing.assert_array_equal(changed.rates_rps, first.rates_rps)
    np.testing.assert_array_equal(changed.running, first.running)
    assert not np.array_equal(changed.truth_rps, first.truth_rps)


def test_a_window_has_the_rates_that_came(traces, windows):
    minute = int(windows[1].name.rsplit(" ", 1)[1])
    np.testing.assert_allclose(windows[1].truth_rps * 60, traces.train[2, 0, :, minute : minute + 7])


def test_every_solver_answers_every_window_and_none_beats_exact(windows):
    answers = study.compare_solvers(
        windows, [14], ["Sum", "FairSum"], ["exact", "greedy"], slow=["slsqp"], slow_windows=1
    )
    assert tuple(answers.columns) == study.COLUMNS
    assert len(answers) == 2 * 2 * (4 * 2 + 1)
    assert (answers["value"] <= answers["optimum"] + 1e-9).all()
    assert (answers.loc[answers["solver"] == "exact", "gap"] == 0).all()


def test_deciding_on_a_utility_is_best_for_that_utility_as_expected(windows):
    scored = study.score_formulations(windows, [8], ["Sum"], ["exact"])
    expected = scored.groupby(["window", "scored_by", "formulation"])["expected"].mean().unstack()
    assert (expected.xs("relaxed", level="scored_by").diff(axis=1)["relaxed"] >= -1e-9).all()
    assert (expected.xs("precise", level="scored_by").diff(axis=1)["relaxed"] <= 1e-9).all()


def test_groups_are_never_better_than_all_jobs_at_once(windows):
    scales = study.compare_scales(windows[0], [6, 12], groups=3, cobyla_up_to=0)
    assert set(scales["solver"]) == {"exact", "hierarchical-exact"}
    assert (scales["gap"] >= -1e-9).all()

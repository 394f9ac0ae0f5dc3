"""The comparison of solvers: inputs without knowledge of the future, and consistent answers."""

from dataclasses import replace

import numpy as np
import pytest

from faro_lib.workload.synthetic import synthetic
from studies.sloppify import run as study


@pytest.fixture(scope="module")
def traces():
    return synthetic(seed=2, jobs=4, days=3, minutes=90)


@pytest.fixture(scope="module")
def windows(traces):
    return study.decision_windows(
        traces, 14, days=[3], count=4, forecaster="persistence", samples=20
    )


def test_a_window_does_not_depend_on_the_minutes_after_it(traces, windows):
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


def test_a_window_has_the_actual_rates_of_its_minutes(traces, windows):
    minute = int(windows[1].name.rsplit(" ", 1)[1])
    np.testing.assert_allclose(
        windows[1].truth_rps * 60, traces.train[2, 0, :, minute : minute + 7]
    )


def test_every_solver_solves_every_window_and_none_beats_exact(windows):
    answers = study.compare_solvers(
        windows, [14], ["Sum", "FairSum"], ["exact", "greedy"], slow=["slsqp"], slow_windows=1
    )
    assert tuple(answers.columns) == study.COLUMNS
    assert len(answers) == 2 * 2 * (4 * 2 + 1)
    assert (answers["value"] <= answers["optimum"] + 1e-9).all()
    assert (answers.loc[answers["solver"] == "exact", "gap_per_job"] == 0).all()
    # Per job, not relative to the optimum, which may be near zero.
    below = (answers["optimum"] - answers["value"]) / len(windows[0].jobs)
    assert answers["gap_per_job"].tolist() == pytest.approx(below.tolist())


def test_a_decision_has_the_best_expected_score_by_its_own_formulation(windows):
    scored = study.score_formulations(windows, [8], ["Sum"], ["exact"])
    expected = scored.groupby(["window", "scored_by", "formulation"])["expected"].mean().unstack()
    assert (expected.xs("relaxed", level="scored_by").diff(axis=1)["relaxed"] >= -1e-9).all()
    assert (expected.xs("precise", level="scored_by").diff(axis=1)["relaxed"] <= 1e-9).all()


@pytest.mark.parametrize("field", ["cores", "quota", "minimum"])
def test_more_jobs_have_one_core_each_and_no_quota_and_need_one_replica_at_most(windows, field):
    of = {
        "cores": lambda n: {"cores": 1.0 + n % 2},
        "quota": lambda n: {"tenant": "team", "tenant_quota": 4.0},
        "minimum": lambda n: {"min_replicas": 4},
    }[field]
    own = replace(
        windows[0], jobs=tuple(replace(job, **of(n)) for n, job in enumerate(windows[0].jobs))
    )
    plain, scaled = (
        study.compare_scales(window, [6], groups=3, cobyla_up_to=0) for window in (windows[0], own)
    )
    assert scaled["value"].tolist() == plain["value"].tolist()


def test_solving_in_groups_is_never_better_than_all_jobs_at_once(windows):
    scales = study.compare_scales(windows[0], [6, 12], groups=3, cobyla_up_to=0)
    assert set(scales["solver"]) == {"exact", "hierarchical-exact"}
    assert (scales["gap_per_job"] >= -1e-9).all()

"""Worlds in which services are not as stated, and what policies know of them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from faro_lib import forecast
from faro_lib.policies import PolicyContext, make
from faro_lib.policies.faro import tuned
from faro_lib.policies.learning import Learner
from faro_lib.queueing import Formula
from faro_lib.queueing.service_factor import mean_factor
from faro_lib.simulate import draw, simulate
from faro_lib.simulate.measure import measure
from faro_lib.workload import Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.synthetic import synthetic
from studies.misspecification.figures import finding, lost_by_world
from studies.misspecification.rivals import added
from studies.misspecification.run import rivals_in
from studies.misspecification.tables import OTHERS, RUNS, published, table
from studies.misspecification.world import (
    ASSUMING,
    FAROS,
    KNOWING,
    LEARNING,
    Known,
    Remembers,
    World,
    chosen,
    compared,
    renewal_arrivals,
    worlds,
)
from studies.rivals.autoscalers import RIVALS
from studies.tables.pages import content

WORLDS = {world.name: world for world in worlds(10, 360)}


@pytest.fixture(scope="module")
def traces():
    return synthetic(seed=2, jobs=4, days=3, minutes=60)


@pytest.fixture(scope="module")
def context(traces):
    fitted = forecast.fit("ar", traces)
    return PolicyContext(traces.jobs, fitted, latency_model=Formula("mgc"), traces=traces)


def test_static_stands_still_in_a_world_and_a_searched_rival_has_its_best_settings(
    traces, context, monkeypatch
):
    world = World("±60 %", np.array([[1.6], [1 / 1.6], [1.6], [1 / 1.6]]) * np.ones((4, 60)))
    runs, tried = added(traces, context, world, 12, 2, "Static")
    assert runs["trial"].tolist() == [0, 1]
    assert tried.empty
    few = {"ongoing": (0.7, 4.0), "stabilisation_s": (300.0,)}
    few = replace(RIVALS["KEDA, queue"], settings=few)
    monkeypatch.setitem(RIVALS, "KEDA, queue", few)
    runs, tried = added(traces, context, world, 12, 1, "KEDA, queue")
    assert runs["policy"].tolist() == ["KEDA, queue"]
    assert {"lost_later", "lost_0", "world", "capacity_cores"} <= set(runs)
    assert tried["lost_utility"].idxmin() == tried["chosen"].idxmax()
    assert len(tried) == 2


def test_every_world_has_static_and_keda_and_worlds_of_interest_have_all_rivals():
    assert rivals_in("±100 %") == ("Static", "KEDA, queue")
    assert rivals_in("±25 %") == ("Static", "KEDA, queue", "Predictive HPA", "MArk")


def test_the_best_rival_of_a_row_is_the_best_of_all_that_the_row_has():
    runs = content(RUNS)
    text = table(published(runs))
    mean = published(runs).groupby(["world", "capacity_cores", "policy"])["lost_later"].mean()
    for line in text.splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        of_row = mean[cells[0], int(cells[1])].drop(list(FAROS))
        bold = [cell.split("**")[1] for cell in cells if "**" in cell]
        assert bold == [f"{of_row.min():.3f}"]
        others = cells[-2].replace("**", "").split(" ", 1)
        best_other = of_row.reindex(OTHERS).idxmin()
        assert others == [f"{of_row[best_other]:.3f}", best_other]
        assert "Static" in of_row


@pytest.mark.parametrize("variation", [0.5, 1.0, 2.0, 3.0])
def test_renewal_arrivals_have_their_minutes_and_burstiness(variation):
    counts = np.array([[600, 0, 600], [300, 600, 1]])
    arrival_s = renewal_arrivals(counts, variation, np.random.default_rng(1))
    jobs = np.split(arrival_s, [counts[0].sum()])
    for of_job, per_minute in zip(jobs, counts):
        assert (np.diff(of_job) >= 0).all()
        assert np.bincount((of_job // MINUTE_S).astype(int), minlength=3).tolist() == (
            per_minute.tolist()
        )
    gaps = np.diff(jobs[0][:600])
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.25)


def test_a_draw_is_that_of_the_stated_services_times_the_factor(traces):
    workload = traces.workload()
    minute = np.arange(workload.minutes)
    world = World("later", np.where(minute < 30, 1.0, 1.5) * np.ones((4, 1)))
    draws, stated = world.draws(workload, 24), draw(workload, 24)
    factor = draws.service_s / stated.service_s
    assert np.array_equal(draws.arrival_s, stated.arrival_s)
    assert factor[draws.arrival_s < 30 * MINUTE_S] == pytest.approx(1.0)
    assert factor[draws.arrival_s >= 30 * MINUTE_S] == pytest.approx(1.5)


def test_errors_differ_by_job_and_have_no_common_part():
    factor = WORLDS["±40 %"].factor
    assert factor.shape == (10, 360)
    assert factor[:, 0].tolist() == pytest.approx([1.4, 1 / 1.4] * 5)
    assert np.log(factor).mean() == pytest.approx(0.0)


def test_a_roll_out_changes_times_at_noon_and_a_drift_all_day():
    noon, drift = WORLDS["roll-out at noon"].factor, WORLDS["drift to ±50 %"].factor
    assert (noon[:, :180] == 1).all()
    assert noon[0, 180:].tolist() == [1.5] * 180
    assert (drift[:, 0] == 1).all()
    assert drift[0, -1] == pytest.approx(1.5)
    assert (np.diff(drift[0]) > 0).all()


def test_slow_hours_last_for_a_while_and_have_the_stated_size():
    logs = np.log(np.concatenate([next(_slow_hours(seed)) for seed in range(20)]))
    assert logs.std() == pytest.approx(0.2, rel=0.1)
    lagged = np.corrcoef(logs[:, :-30].ravel(), logs[:, 30:].ravel())[0, 1]
    assert lagged == pytest.approx(np.exp(-1), abs=0.1)


def _slow_hours(seed):
    yield from (one.factor for one in worlds(10, 360, seed) if one.name == "hours slow, hours fast")


def test_an_hpa_sees_its_own_cpu(traces, context):
    """A service that is twice as slow keeps twice the replicas busy."""
    workload = traces.workload()
    targets = {}
    for factor in (0.7, 1.4):
        world = World("all", np.full((4, workload.minutes), factor))
        draws = world.draws(workload, 24)
        run = simulate(workload, make("HPA-60", context), 60.0, draws=draws)
        targets[factor] = np.mean(run.decisions.target, axis=0)
    assert (targets[1.4] / targets[0.7]).mean() == pytest.approx(2.0, rel=0.2)


def test_who_knows_has_the_factor_of_the_minute():
    known = Known(of=np.array([[1.0, 1.5], [2.0, 0.5]]))
    learned = Learner().start(tuple(synthetic(jobs=2, days=1, minutes=5).jobs))
    assert known.factors(learned, 2).tolist() == [[1.0, 1.0], [2.0, 2.0]]
    later = replace(learned, minute=7)
    assert known.factors(later, 1).tolist() == [[1.5], [0.5]]


def test_targets_are_chosen_on_the_last_training_day(traces, context):
    world = WORLDS["as stated"]
    world = World(world.name, np.ones((4, 60)))
    table = chosen(traces, context, world, 12, {"HPA": ("HPA-60", "HPA-95"), "AIAD": ("AIAD",)})
    assert table["candidate"].tolist() == ["HPA-60", "HPA-95", "AIAD"]
    assert table.groupby("rival")["chosen"].sum().to_dict() == {"AIAD": 1, "HPA": 1}
    best = table[table["chosen"]].set_index("rival")["lost_utility"]
    assert best["HPA"] == table["lost_utility"][:2].min()
    changed = Workload(traces.jobs, 0 * traces.evaluation[0])
    without_day = traces.__class__(traces.jobs, traces.train, changed.requests_per_min[None])
    same = chosen(without_day, context, world, 12, {"HPA": ("HPA-60", "HPA-95"), "AIAD": ("AIAD",)})
    assert same.equals(table)


def test_the_comparison_has_every_policy_and_how_well_times_were_learned(traces, context):
    world = World("±60 %", np.array([[1.6], [1 / 1.6], [1.6], [1 / 1.6]]) * np.ones((4, 60)))
    runs, choices = compared(
        traces, context, [world], [12], 1, {"HPA": ("HPA-60",)}, report=lambda _: None
    )
    assert set(runs["policy"]) == {*FAROS, "HPA"}
    lost = runs.set_index("policy")["lost_later"]
    assert lost[LEARNING] < lost[ASSUMING]
    error = runs.set_index("policy")["learned_error"]
    assert error[LEARNING] < 0.15
    assert error.drop(LEARNING).isna().all()
    assert choices["world"].unique().tolist() == ["±60 %"]
    text = finding(runs)
    assert f"{lost[KNOWING]:.3f} if it knows the truth" in text


def test_a_roll_out_is_learned_within_ten_percent_in_ten_minutes(traces, context):
    """At minute 30, every service becomes 1.5 times slower."""
    workload = traces.workload()
    later = np.arange(workload.minutes) >= 30
    world = World("roll-out", np.where(later, 1.5, 1.0) * np.ones((4, 1)))
    table = measure(traces.jobs, capacity=20)
    policy = tuned(replace(context, latency_model=table), learner=Learner())
    learned = []
    simulate(workload, Remembers(policy, learned), 20.0, draws=world.draws(workload, 24))
    factor = {one.minute: mean_factor(one.weight) for one in learned}
    assert factor[30] == pytest.approx(np.ones(4), rel=0.1)
    assert factor[41] == pytest.approx(np.full(4, 1.5), rel=0.1)


def test_the_marker_of_the_first_and_the_last_row_is_not_cut_and_no_part_of_the_axis_is_empty():
    """A few worlds, as notebook 67 draws by its defaults."""
    worlds, policies = ("as stated", "±40 %", "roll-out"), (ASSUMING, "HPA")
    losses = dict(zip(policies, (0.3, 4.0)))
    rows = [(8, world, policy, losses[policy]) for world in worlds for policy in policies]
    columns = ["capacity_cores", "world", "policy", "lost_later"]
    figure = lost_by_world(pd.DataFrame(rows, columns=columns))
    (axis,) = figure.axes
    assert axis.get_ylim() == (2.5, -0.5)
    left, right = axis.get_xlim()
    assert 0.1 < left < 0.3
    assert 4 < right < 10

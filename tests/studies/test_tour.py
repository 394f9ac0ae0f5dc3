"""The pictures of the tour: a row of the table is a mean of paths, a price is a difference of
optima.
"""

from base64 import b64decode

import numpy as np
import pytest

from faro_lib.allocate import solve
from faro_lib.figures.style import check_legible
from faro_lib.workload import Job
from studies.tour import figures as tour

JOBS = (Job("a"), Job("b"), Job("c", slo_s=1.5))
RATES_RPS = np.random.default_rng(1).gamma(4.0, [[[2.0]], [[3.0]], [[5.0]]], (3, 20, 7))


def decision(**options) -> tour.Decision:
    return tour.decide(JOBS, RATES_RPS, [2, 2, 2], 8, **options)


@pytest.mark.parametrize("cold_start_s", [0.0, 90.0])
@pytest.mark.parametrize("job", range(3))
def test_a_row_of_the_table_is_the_mean_over_its_sample_paths(job, cold_start_s):
    one = decision(cold_start_s=cold_start_s)
    np.testing.assert_allclose(
        tour.utility_of_paths(one, job).mean(axis=0), one.utility[job], atol=1e-12
    )


def test_the_price_of_a_replica_is_the_gain_of_the_optimum_from_one_more_core():
    curve = tour.by_budget(decision(), range(3, 15)).set_index("budget")
    room = tour.decide(JOBS, RATES_RPS, [2, 2, 2], 14)
    best = [solve(room.table, budget).value for budget in (8, 9)]
    assert curve["value"][8] == pytest.approx(best[0])
    assert curve["price"][8] == pytest.approx(best[1] - best[0])
    assert (curve["price"].dropna() >= 0).all()
    assert np.isnan(curve["price"].iloc[-1])


def test_a_reason_is_the_difference_of_two_cells_of_the_table():
    one = decision()
    job, replicas = 2, int(one.allocation.replicas[2])
    cost = one.utility[job, replicas] - one.utility[job, replicas - 1]
    assert replicas > 1
    assert tour.reasons(one)[job].endswith(f"; one less would cost {cost:.2f}")
    fewest = tour.decide(JOBS, RATES_RPS, [2, 2, 2], 3)
    assert all(line.endswith("; its minimum suffices") for line in tour.reasons(fewest))


def test_a_tighter_slo_or_a_slower_start_is_worth_no_more():
    assert decision(slo_s=0.4).allocation.value < decision(slo_s=0.8).allocation.value
    assert decision(cold_start_s=120.0).allocation.value < decision().allocation.value


def test_fair_raises_the_least_utility_and_sum_the_sum():
    chosen = {
        name: one.utility[range(3), one.allocation.replicas]
        for name in ("Sum", "Fair")
        for one in [decision(objective=name)]
    }
    assert chosen["Fair"].min() >= chosen["Sum"].min()
    assert chosen["Sum"].sum() >= chosen["Fair"].sum()


def test_an_objective_with_drops_has_a_table_with_drops():
    assert decision(objective="PenaltySum").table.with_drops
    assert not decision(objective="Sum").table.with_drops


def test_the_caption_of_the_table_names_who_gets_how_much_and_who_falls_short():
    one = decision()
    caption = tour.table_caption(one)
    assert caption.startswith("Of 8 cores: ")
    for job, x in enumerate(one.allocation.replicas):
        assert f"{x} for {JOBS[job].name}" in caption
        short = one.utility[job, x] < tour.KEPT
        assert (f"{JOBS[job].name} ({one.utility[job, x]:.2f})" in caption) == short


def test_the_caption_of_the_forecast_counts_what_its_bands_contain():
    paths = np.tile(np.arange(100.0)[:, None], (1, 1, 3))
    assert "contain 2 of the 3 counts" in tour.forecast_caption(
        ["a"], paths, np.array([[50.0, 99.0, 20.0]])
    )


def test_the_caption_of_the_price_names_the_budget_from_which_a_core_adds_little():
    curve = tour.by_budget(decision(), range(3, 40))
    enough = int(tour.price_caption(curve, 8).split("From ")[1].split(" cores")[0])
    price = curve.set_index("budget")["price"]
    assert price[enough - 1] >= 0.01
    assert (price[enough:].dropna() < 0.01).all()


def test_every_figure_is_legible():
    one, counts = decision(), 60 * RATES_RPS[:, 0]
    drawn = [
        tour.forecast_fans("abc", counts, 60 * RATES_RPS, counts),
        tour.row_as_curve(one, 0),
        tour.table_as_map(one),
        tour.budget_and_price(tour.by_budget(one, range(3, 9)), 8),
        tour.overview(one, 0),
    ]
    for figure in drawn:
        check_legible(figure, "tour")


def test_a_control_draws_again_and_a_page_without_widgets_has_the_picture(monkeypatch):
    import ipywidgets
    from IPython import display

    shown: list = []
    monkeypatch.setattr(display, "display", lambda bundle, raw: shown.append(bundle))
    slider = ipywidgets.IntSlider(8, 3, 12)

    def draw(replicas):
        one = tour.decide(JOBS, RATES_RPS, [2, 2, 2], replicas)
        return tour.overview(one, 0), tour.table_caption(one)

    box = tour.controls(draw, replicas=slider)
    bundle, sentence = shown[0], box.children[-1].value
    still = b64decode(bundle["image/png"])
    assert still.startswith(b"\x89PNG")
    assert "application/vnd.jupyter.widget-view+json" in bundle
    slider.value = 10
    assert box.children[-1].value != sentence
    assert box.children[1].value != still

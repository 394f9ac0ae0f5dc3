"""The pictures of docs/tour.md: those of notebook 00 by its defaults."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from faro_lib import forecast
from faro_lib.experiments.trials import policy_context
from faro_lib.policies import make
from faro_lib.workload import Traces, Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.tables import load_workload
from studies.comparison.figures import policy_timeline
from studies.comparison.run import compare
from studies.tables.pages import ROOT, Part, Picture
from studies.tour import figures as tour

EXAMPLE = "data/example.csv"
REPLICAS = 12
MINUTE = 45  # of the last day: when a plan is asked for
POLICIES = ("FairShare", "AIAD", "Faro-Sum")


class Morning(NamedTuple):
    """The example day until MINUTE, the forecast, and the plan."""

    traces: Traces
    day: Workload
    paths_per_min: np.ndarray  # (jobs, paths, minutes ahead)
    decision: tour.Decision


@cache
def morning() -> Morning:
    traces = load_workload(str(ROOT / EXAMPLE))
    day = traces.workload()
    forecaster = forecast.fit("ar", traces).start()
    for counts in day.requests_per_min[:, :MINUTE].T:
        forecaster = forecaster.update(counts)
    paths_per_min = forecaster.sample(horizon=7, n=100)
    running = [3] * len(traces.names)
    decision = tour.decide(day.jobs, paths_per_min / MINUTE_S, running, REPLICAS)
    return Morning(traces, day, paths_per_min, decision)


def forecasts() -> Figure:
    traces, day, paths_per_min, _ = morning()
    counts = day.requests_per_min
    ahead = counts[:, MINUTE : MINUTE + paths_per_min.shape[2]]
    return tour.forecast_fans(traces.names, counts[:, :MINUTE], paths_per_min, ahead)


def row() -> Figure:
    """The row of the job with the most replicas."""
    decision = morning().decision
    return tour.row_as_curve(decision, int(decision.allocation.replicas.argmax()))


def table() -> Figure:
    return tour.table_as_map(morning().decision)


def price() -> Figure:
    decision = morning().decision
    budgets = range(len(decision.jobs), 2 * REPLICAS + 1)
    return tour.budget_and_price(tour.by_budget(decision, budgets), REPLICAS)


def day() -> Figure:
    traces, workload, _, _ = morning()
    context = policy_context(traces)
    policies = {name: make(name, context) for name in POLICIES}
    tables = compare(workload, policies, REPLICAS, trials=1)
    series = (tables.minutes, tables.running)
    return policy_timeline(*series, workload.jobs, REPLICAS, tables.clairvoyant)


def picture(name: str, draw: Callable[[], Figure]) -> Picture:
    """A picture of EXAMPLE, which `morning` reads as the notebook does: as a workload."""
    return Picture(f"docs/images/tour-{name}.png", [EXAMPLE], lambda _counts: draw())


DRAWN = {"forecast": forecasts, "row": row, "table": table, "price": price, "day": day}
PARTS: list[Part] = []
PICTURES = [picture(name, draw) for name, draw in DRAWN.items()]

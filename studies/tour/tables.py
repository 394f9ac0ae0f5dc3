"""The pictures of docs/concepts.md: two of notebook 00, by its defaults."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from faro_lib import forecast
from faro_lib.workload import Traces, Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.tables import load_workload
from studies.tables.pages import ROOT, Part, Picture
from studies.tour import figures as tour

EXAMPLE = "data/example.csv"
REPLICAS = 12
MINUTE = 45  # of the last day: when a plan is asked for


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


def table() -> Figure:
    return tour.table_as_map(morning().decision)


# `morning` loads EXAMPLE as a workload, as the notebook does, so the pictures ignore the counts
# that they are given.
PARTS: list[Part] = []
PICTURES = [
    Picture("docs/images/tour-forecast.png", [EXAMPLE], lambda _counts: forecasts()),
    Picture("docs/images/tour-table.png", [EXAMPLE], lambda _counts: table()),
]

"""Forecasts of the offered load: as a series of its own, or as requests times a length.

The load of a minute is the sum of its requests' costs (`engines.costs`). Lengths drift over hours,
so requests times the mean length of earlier days are wrong by as much as the lengths have changed.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from faro_lib import forecast
from faro_lib.forecast import CONTEXT_MINUTES, HORIZON_MINUTES
from faro_lib.forecast.scores import crps_terms
from faro_lib.workload import Traces
from studies.llm.world import Services

SERIES = "load as a series"
LONG_MEAN = "requests x mean length of earlier days"
RECENT_MEAN = "requests x mean length of the last 15 minutes"
WAYS = (SERIES, RECENT_MEAN, LONG_MEAN)
PATHS = 100
EVERY_MINUTES = 5  # between two forecasts that are scored


def traces_before(services: Services, series: np.ndarray, day: int) -> Traces:
    """The days before `day` of a series (days, jobs, minutes), in whole numbers."""
    before = np.rint(series[: day - 1])[:, None]
    return Traces(services.jobs, before, 0 * before[0])


def load_terms(services: Services, day: int) -> dict[str, np.ndarray]:
    """CRPS of the mean load of the next HORIZON_MINUTES, by way of forecasting.

    Arrays (forecasts, jobs) in replicas: load x busy seconds of a request of mean length.
    """
    busy_min = np.array([job.busy_s for job in services.jobs])[:, None] / 60
    requests, load = services.requests[day - 1], services.load[day - 1]
    before = services.requests[: day - 1].sum(axis=(0, 2))
    mean_cost = services.load[: day - 1].sum(axis=(0, 2)) / np.maximum(before, 1)
    of_load = forecast.fit("auto", traces_before(services, services.load, day)).start()
    of_requests = forecast.fit("auto", traces_before(services, services.requests, day)).start()
    terms: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
    last = requests.shape[1] - HORIZON_MINUTES
    for minute in range(last + 1):
        if minute >= CONTEXT_MINUTES and minute % EVERY_MINUTES == 0:
            recent = slice(minute - CONTEXT_MINUTES, minute)
            seen = requests[:, recent].sum(axis=1)
            recent_cost = np.where(
                seen > 0, load[:, recent].sum(axis=1) / np.maximum(seen, 1), mean_cost
            )
            paths = of_requests.sample(HORIZON_MINUTES, PATHS).mean(axis=2)
            samples = {
                SERIES: of_load.sample(HORIZON_MINUTES, PATHS).mean(axis=2),
                RECENT_MEAN: paths * recent_cost[:, None],
                LONG_MEAN: paths * mean_cost[:, None],
            }
            truth = load[:, minute : minute + HORIZON_MINUTES].mean(axis=1)
            for way, drawn in samples.items():
                scaled = (drawn * busy_min)[None, :, :, None]
                terms[way].append(
                    crps_terms(scaled, (truth * busy_min[:, 0])[None, :, None])[0, :, 0]
                )
        of_load = of_load.update(load[:, minute])
        of_requests = of_requests.update(requests[:, minute])
    return {way: np.array(rows) for way, rows in terms.items()}


def load_scores(services: Services, days: Sequence[int]) -> pd.DataFrame:
    """A row per day, job and way: the mean CRPS in replicas, and the mean load."""
    rows = []
    busy_s = np.array([job.busy_s for job in services.jobs])
    for day in days:
        mean = services.load[day - 1].mean(axis=1) * busy_s / 60
        for way, terms in load_terms(services, day).items():
            for job, crps, of_job in zip(services.jobs, terms.mean(axis=0), mean):
                row = {"day": day, "job": job.name, "way": way}
                rows.append(row | {"crps_replicas": crps, "load_replicas": of_job})
    return pd.DataFrame(rows)

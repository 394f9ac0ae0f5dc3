"""Forecasts of packages that need an environment of their own, as sample paths.

    predict.py REQUESTS.parquet OUT.npz

AutoETS and AutoARIMA (statsforecast) and Fracast-0 (a zero-shot model whose weights are in its
package) forecast the evaluation day from every EVERY minutes, each from the CONTEXT minutes before.
They predict quantiles of each minute; a sample path takes the same quantile in all minutes, because
these models say nothing about their dependence.
"""

from __future__ import annotations

import sys
import time
import warnings
from importlib.util import find_spec

import numpy as np
import pandas as pd

CONTEXT = 360
HORIZON = 7
FIRST = 15
EVERY = 30
PATHS = 100
DECILES = np.arange(1, 10) / 10


def counts_of(path: str) -> tuple[list[str], np.ndarray, int]:
    """Names of the jobs, counts (jobs, minutes) of all days in a row, and the minutes of a day."""
    table = pd.read_parquet(path)
    table = table[table["sample"] == 0]
    jobs = list(dict.fromkeys(table["job"]))
    wide = table.pivot(index=["day", "minute"], columns="job", values="requests").sort_index()
    return jobs, wide[jobs].to_numpy(float).T, table["minute"].nunique()


def paths_of(quantiles: np.ndarray) -> np.ndarray:
    """Sample paths (jobs, PATHS, HORIZON) from deciles (jobs, HORIZON, 9).

    Beyond the deciles, the outer slope goes on.
    """
    level = (np.arange(PATHS) + 0.5) / PATHS
    paths = np.empty((len(quantiles), PATHS, quantiles.shape[1]))
    for job, minutes in enumerate(np.sort(quantiles, axis=-1)):
        for minute, deciles in enumerate(minutes):
            inside = np.interp(level, DECILES, deciles)
            low = deciles[0] - (0.1 - level) * (deciles[1] - deciles[0]) / 0.1
            high = deciles[-1] + (level - 0.9) * (deciles[-1] - deciles[-2]) / 0.1
            paths[job, :, minute] = np.where(level < 0.1, low, np.where(level > 0.9, high, inside))
    return np.maximum(paths, 0.0)


def statistical(kind: str):
    """A forecaster of statsforecast: contexts (jobs, minutes) to deciles (jobs, HORIZON, 9)."""
    from statsforecast import models

    levels = [20, 40, 60, 80]  # central intervals; their ends are all deciles but the median

    def predict(contexts: np.ndarray) -> np.ndarray:
        deciles = []
        for context in contexts:
            made = getattr(models, kind)(season_length=1).forecast(context, HORIZON, level=levels)
            low, high = ([made[f"{side}-{level}"] for level in levels] for side in ("lo", "hi"))
            deciles.append(np.stack([*low[::-1], made["mean"], *high], axis=-1))
        return np.array(deciles)

    return predict


def zero_shot():
    """Fracast-0: contexts (jobs, minutes) to deciles (jobs, HORIZON, 9)."""
    from fracast import FracastModel

    model = FracastModel.from_pretrained()
    assert np.allclose(model.quantiles, DECILES)
    return lambda contexts: model.forecast(contexts, horizon=HORIZON)


def main(requests: str, out: str) -> None:
    warnings.filterwarnings("ignore")
    jobs, counts, day_minutes = counts_of(requests)
    begins = counts.shape[1] - day_minutes
    origins = np.arange(FIRST, day_minutes - HORIZON + 1, EVERY)
    arrays = {"jobs": np.array(jobs), "origins": origins}
    models = {"AutoETS": statistical("AutoETS"), "AutoARIMA": statistical("AutoARIMA")}
    if find_spec("fracast"):
        models["Fracast-0"] = zero_shot()
    else:
        print(
            "Fracast-0 is not installed and is left out; "
            "`make forecasters ZERO_SHOT=1` installs it",
            file=sys.stderr,
        )
    for name, made in models.items():
        start = time.perf_counter()
        windows = [
            counts[:, max(0, begins + origin - CONTEXT) : begins + origin] for origin in origins
        ]
        arrays[name] = np.array([paths_of(made(window)) for window in windows], np.float32)
        took_s = time.perf_counter() - start
        done = f"{len(origins)} forecasts of {len(jobs)} jobs in {took_s:.0f} s"
        print(f"{name}: {done}", file=sys.stderr)
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])

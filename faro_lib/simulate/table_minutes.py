"""What measured latency tables have in common: their grid, and the minutes at a grid point."""

import os
from functools import cache
from pathlib import Path

import numpy as np

from faro_lib.simulate.latencies import quantile_of

# The grid is finest near saturation, where latency grows as 1 / (1 - rho) and drops begin.
LOW = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
NEAR_SATURATION = (0.65, 0.7, 0.75, 0.8, 0.84, 0.88, 0.91, 0.94, 0.97, 1.0, 1.03, 1.06, 1.1)
OVERLOAD = (1.2, 1.5, 2.0, 3.0)
UTILISATIONS = (*LOW, *NEAR_SATURATION, *OVERLOAD)
MINUTES = 31  # number of simulated minutes stored for each rate and replica count
SEED = 1  # seed of the simulated requests
# Shortest warm-up before the first minute, in service times; needed because queues begin empty.
WARM_UP = 50
THREADS = min(8, os.cpu_count() or 1)  # few, because each simulation needs about 50 MB


@cache
def code_key() -> tuple[str, bytes]:
    """numpy's version and the code on which results depend, as parts of the cache key."""
    library = Path(__file__).parents[1]
    files = sorted([*library.glob("simulate/*.py"), *library.glob("workload/*.py")])
    return np.__version__, b"".join(path.read_bytes() for path in files)


def table_minutes(
    latency_s: np.ndarray, edges: np.ndarray, quantile: float, shrink: float
) -> tuple[np.ndarray, np.ndarray]:
    """Tail latency in s of served requests, and excess drop rate, in each of MINUTES minutes.

    The minutes are equally likely. The excess drop rate is the drop rate minus (1 - quantile). Time
    window i has the requests edges[i] to edges[i + 1]. The windows are sorted by tail latency, and
    both results are interpolated between them at equally spaced ranks. `shrink` reduces the
    variation of the results, because whole minutes vary less than shorter windows.
    """
    windows = [latency_s[a:b] for a, b in zip(edges[:-1], edges[1:]) if a < b]
    _, tail_s, excess = np.array(sorted(_window(of_window, quantile) for of_window in windows)).T
    longest = tail_s[np.isfinite(tail_s)].max(initial=0.0) or 1e6
    rank = (np.arange(MINUTES) + 0.5) / MINUTES * len(windows) - 0.5

    def interpolated(values: np.ndarray) -> np.ndarray:
        at_rank = np.interp(rank, np.arange(len(windows)), values)
        return shrink * at_rank + (1 - shrink) * values.mean()

    return np.exp(interpolated(np.log(np.minimum(tail_s, longest)))), interpolated(excess)


def _window(latency_s: np.ndarray, quantile: float) -> tuple[bool, float, float]:
    """(whether too many requests were dropped, tail latency of the others, excess drop rate)."""
    n = len(latency_s)
    served = latency_s[np.isfinite(latency_s)]
    excess = 1 - len(served) / n - (1 - quantile)
    # A dropped request has infinite latency, so the quantile of all requests is a higher quantile
    # of the served ones.
    if not np.isfinite(quantile_of(latency_s, quantile)):
        tail_s = quantile_of(served, 1.0) if len(served) else np.inf
        return True, tail_s, max(excess, 0.5 / n)
    level = min(1.0, quantile * (n - 1) / max(len(served) - 1, 1))
    return False, quantile_of(served, level), min(excess, -0.5 / n)

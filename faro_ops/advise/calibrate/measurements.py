"""Measurements of one service: latency quantiles and means at several arrival rates."""

from dataclasses import dataclass

import numpy as np

from faro_lib.workload.jobs import frozen

LATENCY = "latency"  # end to end
FIRST_TOKEN = "first_token"  # until the first token
PER_TOKEN = "per_token"  # per later token
# Mean size of groups of requests ending within TOGETHER_S of each other, as in a batch.
TOGETHER = "requests_together"
QUANTITIES = (LATENCY, FIRST_TOKEN, PER_TOKEN, TOGETHER)
TOGETHER_S = 0.01
Column = tuple[str, float | None]  # (quantity, level of the quantile; None = the mean)


@dataclass(frozen=True, slots=True, eq=False)
class Measurements:
    """Latency quantiles and means of one service.

    Each row has a constant arrival rate and replica count. A row of a load test covers one period.
    A row of recorded minutes covers several one-minute periods with equal replica counts and
    similar rates. Its `values` are geometric means over the periods. Dropped requests are ignored.
    """

    rate_rps: np.ndarray  # mean arrival rate of all replicas together, shape (rows,)
    replicas: np.ndarray  # whole numbers >= 1, shape (rows,)
    requests: np.ndarray  # requests per period, shape (rows,)
    columns: tuple[Column, ...]  # such as (("latency", 0.5), ("latency", 0.99), ("latency", None))
    # In seconds, but TOGETHER in requests; shape (rows, columns); NaN = not measured.
    values: np.ndarray
    periods: np.ndarray | int = 1  # number of periods averaged in each row, shape (rows,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "periods", np.broadcast_to(self.periods, np.shape(self.requests)))
        for name in ("rate_rps", "replicas", "requests", "values", "periods"):
            kind = float if name in ("rate_rps", "values") else int
            array = frozen(np.array(getattr(self, name), kind))
            object.__setattr__(self, name, array)
            rows = self.rate_rps.shape
            shape = (*rows, len(self.columns)) if name == "values" else rows
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}; expected {shape}")
            if name != "values" and not np.all(array > 0):
                raise ValueError(f"{name} must be > 0 in every row")
        for quantity, level in self.columns:
            if quantity not in QUANTITIES:
                accepted = ", ".join(QUANTITIES)
                raise ValueError(f"column {quantity!r} is unknown; accepted: {accepted}")
            if level is not None and not 0 < level < 1:
                problem = f"level={level} must lie strictly between 0 and 1, or be None"
                raise ValueError(f"column {quantity!r}: {problem}")
        measured = self.values[~np.isnan(self.values)]
        if not len(measured) or not np.all((measured > 0) & np.isfinite(measured)):
            problem = "must be finite and > 0 where measured, and at least one must be measured"
            raise ValueError(f"values {problem}")


def requests_together(end_s: np.ndarray) -> np.ndarray:
    """Mean size of groups of requests whose successive ends are at most TOGETHER_S apart.

    `end_s` has shape (..., requests), and is inf for dropped requests.

    >>> float(requests_together(np.array([1.0, 1.001, 1.002, 2.0, np.inf])))
    2.0
    """
    end_s = np.sort(end_s, axis=-1)
    served = np.isfinite(end_s)
    apart = np.diff(np.where(served, end_s, 0.0), axis=-1) > TOGETHER_S
    return np.maximum(served.sum(axis=-1), 1) / (1 + apart.sum(axis=-1))

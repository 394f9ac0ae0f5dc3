"""Measurements of one service: latency quantiles and means at several arrival rates."""

from dataclasses import dataclass

import numpy as np

from faro_lib.workload.jobs import frozen

LATENCY, FIRST_TOKEN, PER_TOKEN = (
    "latency",
    "first_token",
    "per_token",
)  # end to end, to first token, per later token
TOGETHER = "requests_together"  # mean size of groups of requests ending within TOGETHER_S of each other, as in a batch
QUANTITIES = (LATENCY, FIRST_TOKEN, PER_TOKEN, TOGETHER)
TOGETHER_S = 0.01
Column = tuple[str, float | None]  # (quantity, level of the quantile; None = the mean)


@dataclass(frozen=True, slots=True, eq=False)
class Measurements:
    """Latency quantiles and means of one service. Each row has a constant arrival rate and replica count.

    A row of a load test covers one period. A row of recorded minutes covers several one-minute periods with equal
    replica counts and similar rates. Its `values` are geometric means over the periods. Dropped requests are ignored.
    """

    rate_rps: np.ndarray  # mean arrival rate of all replicas together, shape (rows,)
    replicas: np.ndarray  # whole numbers >= 1, shape (rows,)
    requests: np.ndarray  # requests per period, shape (rows,)
    columns: tuple[
        Column, ...
    ]  # for example (("latency", 0.5), ("latency", 0.99), ("latency", None))
    values: (
        np.ndarray
    )  # in seconds, TOGETHER in requests; shape (rows, columns); NaN = not measured
    periods: np.ndarray | int = 1  # number of periods averaged in each row, shape (rows,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "periods", np.broadcast_to(self.periods, np.shape(self.requests)))
        numbers = (
            ("rate_rps", float),
            ("replicas", int),
            ("requests", int),
            ("values", float),
            ("periods", int),
        )
        for name, kind in numbers:
            array = frozen(np.array(getattr(self, name), kind))
            object.__setattr__(self, name, array)
            shape = (
                self.rate_rps.shape if name != "values" else (len(self.rate_rps), len(self.columns))
            )
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}; expected {shape}")
            if name != "values" and not np.all(array > 0):
                raise ValueError(f"{name} must be > 0 in every row")
        for quantity, level in self.columns:
            if quantity not in QUANTITIES:
                raise ValueError(
                    f"column {quantity!r} is unknown; accepted: {', '.join(QUANTITIES)}"
                )
            if level is not None and not 0 < level < 1:
                raise ValueError(
                    f"column {quantity!r}: level={level} must lie strictly between 0 and 1, or be None"
                )
        measured = self.values[~np.isnan(self.values)]
        if not len(measured) or not np.all((measured > 0) & np.isfinite(measured)):
            raise ValueError(
                "values must be finite and > 0 where measured, and at least one must be measured"
            )


def requests_together(end_s: np.ndarray) -> np.ndarray:
    """Mean size of groups of requests whose successive ends are at most TOGETHER_S apart. For drops, `end_s` is inf.

    >>> float(requests_together(np.array([1.0, 1.001, 1.002, 2.0, np.inf])))
    2.0
    """
    end_s = np.sort(end_s, axis=-1)
    served = np.isfinite(end_s)
    apart = np.diff(np.where(served, end_s, 0.0), axis=-1) > TOGETHER_S
    return np.maximum(served.sum(axis=-1), 1) / (1 + apart.sum(axis=-1))

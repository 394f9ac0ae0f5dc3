"""Whether a newly fitted forecaster should replace the one in use, and how it takes over."""

from dataclasses import replace

import numpy as np

from faro_lib.forecast.auto import backtest_terms
from faro_lib.forecast.forecaster import Forecaster, fit
from faro_lib.forecast.scores import difference
from faro_lib.workload import Traces
from faro_ops.operate.loop.expected import Expected

# Forecasts per bootstrap block: an hour of a backtest with the usual 120 forecasts per day.
BLOCK = 5


def fitted(name: str, traces: Traces) -> Forecaster:
    """The forecaster `name`, fitted to the training days and the evaluation day."""
    all_days = np.concatenate([traces.train, traces.evaluation[None]])
    return fit(name, Traces(traces.jobs, all_days, traces.evaluation))


def renewal(name: str, traces: Traces, serving: Forecaster) -> tuple[Forecaster | None, str]:
    """Fit forecaster `name` to all days; return it, or None if it is worse, and the scores as text.

    The new forecaster is worse than `serving` if a forecast is not finite, or if its CRPS on the
    last day (`traces.evaluation`) is higher and the 95 % interval of the difference excludes zero.
    `serving` was not fitted to the last day. For a fair comparison, the new forecaster's CRPS comes
    from a fit to the other days, if there are any.
    """
    new, last = fitted(name, traces), traces.evaluation[0]
    compared = fit(name, traces) if traces.days else new
    ours, theirs = backtest_terms(compared, last) / 2, backtest_terms(serving, last) / 2
    _, low, high = difference(ours, theirs, block=BLOCK)
    crps = f"CRPS {ours.mean():.4g} instead of {theirs.mean():.4g} requests per minute"
    interval = f"95 % interval of the difference {low:+.3g} to {high:+.3g}"
    scores = f"{crps} on the last day ({interval})"
    forecasts = new.start().update(last[:, 0]).sample()
    finite = np.isfinite(ours).all() and np.isfinite(forecasts).all()
    worse = not finite or (np.isfinite(theirs).all() and low > 0)
    return None if worse else new, scores


def renewed(serving: Forecaster, new: Forecaster) -> Forecaster:
    """`new`, a forecaster of the same jobs, updated with the counts that `serving` stores.

    If `serving` knows announced events, the result knows them, too.
    """
    if isinstance(serving, Expected):
        inner = renewed(serving.inner, new)
        return replace(serving, inner=inner, past=inner.past)
    minutes = serving.counts.shape[1]
    seen = min(serving.minutes_seen, minutes)
    later = new.start(serving.minute_of_day - seen)
    for counts in serving.counts[:, minutes - seen :].T:
        later = later.update(counts)
    return later

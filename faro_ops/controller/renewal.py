"""Whether a newly fitted forecaster should replace the one in use, and how it takes over."""

from dataclasses import replace

import numpy as np

from faro_lib.forecast.auto import backtest_terms
from faro_lib.forecast.forecaster import Forecaster, fit
from faro_lib.forecast.scores import difference
from faro_lib.workload import Traces
from faro_ops.controller.expected import Expected

BLOCK = 5  # forecasts per bootstrap block, which is one hour of a backtest with the usual 120 forecasts per day


def fitted(name: str, traces: Traces) -> Forecaster:
    """The forecaster `name`, fitted to the training days and the evaluation day."""
    return fit(
        name,
        Traces(
            traces.jobs, np.concatenate([traces.train, traces.evaluation[None]]), traces.evaluation
        ),
    )


def renewal(name: str, traces: Traces, serving: Forecaster) -> tuple[Forecaster | None, str]:
    """Fit forecaster `name` to all days. Return it, or None if it is worse than `serving`, with their scores as text.

    The new forecaster is worse if a forecast is not finite, or if its CRPS on the last day (`traces.evaluation`) is
    higher and the 95 % interval of the difference excludes zero. `serving` was not fitted to the last day. For a fair
    comparison, the new forecaster's CRPS comes from a fit to the other days, if there are any.
    """
    new, last = fitted(name, traces), traces.evaluation[0]
    ours, theirs = (
        backtest_terms(one, last) / 2
        for one in (fit(name, traces) if traces.days else new, serving)
    )
    _, low, high = difference(ours, theirs, block=BLOCK)
    crps = (
        f"CRPS {ours.mean():.4g} instead of {theirs.mean():.4g} requests per minute on the last day"
    )
    finite = np.isfinite(ours).all() and np.isfinite(new.start().update(last[:, 0]).sample()).all()
    worse = not finite or (np.isfinite(theirs).all() and low > 0)
    return (
        None if worse else new,
        f"{crps} (95 % interval of the difference {low:+.3g} to {high:+.3g})",
    )


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

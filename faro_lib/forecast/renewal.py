"""Whether a newly fitted forecaster should replace the one that serves."""

import hashlib
from dataclasses import dataclass

import numpy as np

from faro_lib.forecast.auto import backtest_terms
from faro_lib.forecast.forecaster import Forecaster, fit
from faro_lib.forecast.scores import difference
from faro_lib.workload import Traces

BLOCK = 5  # forecasts of about an hour, whose errors are correlated
ACCEPTED, REFUSED, UNCHANGED = "accepted", "refused", "unchanged"


@dataclass(frozen=True, slots=True)
class Model:
    """A forecaster, and a digest of the counts that it was fitted to."""

    forecaster: Forecaster
    digest: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a refit, and why; `model` is the new one if it was accepted."""

    outcome: str
    reason: str
    model: Model | None = None


def fitted(name: str, traces: Traces) -> Model:
    """The forecaster `name`, fitted to all days, the last one too."""
    days = np.concatenate([traces.train, traces.evaluation[None]])
    digest = hashlib.sha256(days.tobytes()).hexdigest()
    return Model(fit(name, Traces(traces.jobs, days, traces.evaluation)), digest)


def renewal(name: str, traces: Traces, serving: Model) -> Verdict:
    """Fit the forecaster `name`, and accept it unless it is worse than the serving one on the last day.

    What is compared is a fit to the days before the last, because the serving forecaster has not seen that day either
    (with a single day, a fit to it). Worse means that the 95 % interval of the difference of their CRPS is above zero,
    or that a forecast is not finite.
    """
    new = fitted(name, traces)
    if new.digest == serving.digest:
        return Verdict(UNCHANGED, "there is no day that has not been learnt")
    last = traces.evaluation[0]
    tried = fit(name, traces) if traces.days else new.forecaster
    ours, theirs = backtest_terms(tried, last), backtest_terms(serving.forecaster, last)
    _, low, high = difference(ours, theirs, block=BLOCK)
    reason = (
        f"CRPS {ours.mean() / 2:.4g} instead of {theirs.mean() / 2:.4g} requests per minute on the last day"
        f" (95 % interval of the difference {low / 2:+.3g} to {high / 2:+.3g})"
    )
    finite = np.isfinite(ours).all() and np.isfinite(new.forecaster.start().update(last[:, 0]).sample()).all()
    if not finite or (np.isfinite(theirs).all() and low > 0):
        return Verdict(REFUSED, reason)
    return Verdict(ACCEPTED, reason, new)

"""The PyMC model of requests per minute. No other package imports pymc."""

from studies.bayes.demand import convergence, fit_bayes, posterior_of

__all__ = ["convergence", "fit_bayes", "posterior_of"]

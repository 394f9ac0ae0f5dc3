"""PyMC models, fitted offline and exported as arrays; no other package imports pymc."""

from faro_lib.bayes.demand import convergence, fit_bayes, posterior_of

__all__ = ["convergence", "fit_bayes", "posterior_of"]

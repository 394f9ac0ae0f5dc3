"""The PyMC model of demand, fitted offline; its posterior is exported as arrays. No other package imports pymc."""

from faro_lib.bayes.demand import convergence, fit_bayes, posterior_of

__all__ = ["convergence", "fit_bayes", "posterior_of"]

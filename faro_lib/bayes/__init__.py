"""PyMC models, fitted offline and exported to plain arrays; no other package imports pymc."""

from faro_lib.bayes.demand import convergence, export_posterior, fit_bayes, posterior_of

__all__ = ["convergence", "export_posterior", "fit_bayes", "posterior_of"]

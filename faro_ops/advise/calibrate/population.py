"""Draw weighted points from a posterior, and estimate the marginal likelihood.

No gradients of the likelihood are needed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax
from scipy.stats import gaussian_kde, multivariate_normal
from scipy.stats.qmc import MultivariateNormalQMC

# `Population.draw` flattens the weights until their effective sample size is at least this.
MIN_EFFECTIVE = 20.0
SMALLEST = 1e-9  # points of smaller weight get no kernel in the density estimate
# Exponents of the weights, which `flattened` tries in this order.
POWERS = np.append(np.geomspace(1.0, 1e-5, 50), 0.0)
LogDensity = Callable[[np.ndarray], np.ndarray]  # maps points (n, dimensions) to values (n,)


class Population:
    """Parameter points weighted by a posterior.

    The prior is a standard normal in every coordinate.

    The method is adaptive multiple importance sampling (Cornuet, Marin, Mira and Robert, 2012). The
    first round draws points from the prior. Later rounds draw from a kernel density estimate of the
    weighted points. Weights are prior x likelihood divided by the mixture density of all rounds.
    `log_likelihood` maps new points (n, dimensions) to the log likelihoods of all points so far.
    """

    def __init__(
        self,
        log_likelihood: Callable[[np.ndarray], np.ndarray],
        dimensions: int,
        rng: np.random.Generator,
    ):
        self._log_likelihood = log_likelihood
        self._rng = rng
        self.points = np.empty((0, dimensions))
        # log(prior x likelihood / mixture of the proposals), shape (points,)
        self.log_weights = np.empty(0)
        self._prior = multivariate_normal(np.zeros(dimensions))
        self._proposals: list[tuple[int, LogDensity]] = []  # (number of points, log density)

    @property
    def log_evidence(self) -> float:
        """Estimate of the log marginal likelihood."""
        return float(logsumexp(self.log_weights) - np.log(len(self.points)))

    def draw(self, number: int, proposal: Any = None) -> None:
        """Add a round of `number` points.

        The first round is a Sobol sequence from the prior, with `number` rounded up to a power of
        two. In later rounds, half of the points are drawn from `proposal`, a scipy distribution, if
        it is given.
        """
        new = self._drawn(number, proposal) if self._proposals else self._first_drawn(number)
        self.points = np.vstack([self.points, new])
        self.weigh(self._log_likelihood(new))

    def _first_drawn(self, number: int) -> np.ndarray:
        number = 1 << (number - 1).bit_length()
        mean = np.zeros(self.points.shape[1])
        self._proposals.append((number, self._prior.logpdf))
        return MultivariateNormalQMC(mean, seed=self._rng).random(number)

    def _drawn(self, number: int, proposal: Any) -> np.ndarray:
        weights = self.flattened(MIN_EFFECTIVE)
        used = weights > SMALLEST
        kernels = gaussian_kde(self.points[used].T, weights=weights[used])
        others = number // 2 if proposal else 0
        new = kernels.resample(number - others, self._rng).T
        self._proposals.append((number - others, lambda points: kernels.logpdf(points.T)))
        if others:
            more = proposal.rvs(others, random_state=self._rng).reshape(others, -1)
            self._proposals.append((others, proposal.logpdf))
            new = np.vstack([new, more])
        return new  # (number, dimensions)

    def flattened(self, effective: float) -> np.ndarray:
        """The normalised weights (points,), raised to the largest of POWERS that flattens enough.

        The effective sample size must reach `effective`, or half of the number of points.
        """
        least = min(effective, len(self.points) / 2)
        weights = (softmax(power * self.log_weights) for power in POWERS)
        return next(one for one in weights if 1 / (one**2).sum() >= least)

    def weigh(self, log_likelihood: np.ndarray) -> None:
        """Set `log_weights` of all points from their log likelihoods (points,)."""
        shares = np.array([number for number, _ in self._proposals]) / len(self.points)
        densities = np.array([log_density(self.points) for _, log_density in self._proposals])
        mixture = logsumexp(densities, axis=0, b=shares[:, None])
        self.log_weights = log_likelihood + self._prior.logpdf(self.points) - mixture

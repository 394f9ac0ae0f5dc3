"""Draw weighted points from a posterior and estimate the marginal likelihood, without gradients of the likelihood."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax
from scipy.stats import gaussian_kde, multivariate_normal
from scipy.stats.qmc import MultivariateNormalQMC

MIN_EFFECTIVE = 20.0  # `Population.draw` flattens the weights until their effective sample size is at least this
SMALLEST = 1e-9  # points of smaller weight get no kernel in the density estimate
POWERS = np.append(
    np.geomspace(1.0, 1e-5, 50), 0.0
)  # exponents of the weights, which `flattened` tries in this order


class Population:
    """Parameter points weighted by a posterior whose prior is a standard normal in every coordinate.

    The method is adaptive multiple importance sampling (Cornuet, Marin, Mira and Robert, 2012). The first round draws
    points from the prior. Later rounds draw from a kernel density estimate of the weighted points. Weights are prior x
    likelihood divided by the mixture density of all rounds. `log_likelihood` maps new points (n, dimensions) to the log
    likelihoods of all points so far.
    """

    def __init__(
        self,
        log_likelihood: Callable[[np.ndarray], np.ndarray],
        dimensions: int,
        rng: np.random.Generator,
    ):
        self._log_likelihood, self._rng = log_likelihood, rng
        self.points = np.empty((0, dimensions))
        self.log_weights = np.empty(
            0
        )  # log(prior x likelihood / mixture of the proposals), shape (points,)
        self._prior = multivariate_normal(np.zeros(dimensions))
        self._proposals: list[
            tuple[int, Callable[[np.ndarray], np.ndarray]]
        ] = []  # (number of points, log density)

    @property
    def log_evidence(self) -> float:
        """Estimate of the log marginal likelihood."""
        return float(logsumexp(self.log_weights) - np.log(len(self.points)))

    def draw(self, number: int, proposal: Any = None) -> None:
        """Add a round of `number` points. Half of them are drawn from `proposal`, a scipy distribution, if it is given.

        The first round is a Sobol sequence from the prior instead, with `number` rounded up to a power of two.
        """
        if self._proposals:
            flattened = self.flattened(MIN_EFFECTIVE)
            used = flattened > SMALLEST
            kernels = gaussian_kde(self.points[used].T, weights=flattened[used])
            others = number // 2 if proposal else 0
            new = kernels.resample(number - others, self._rng).T
            self._proposals.append((number - others, lambda points: kernels.logpdf(points.T)))
            if others:
                new = np.vstack(
                    [new, proposal.rvs(others, random_state=self._rng).reshape(others, -1)]
                )
                self._proposals.append((others, proposal.logpdf))
        else:
            number = 1 << (number - 1).bit_length()
            new = MultivariateNormalQMC(np.zeros(self.points.shape[1]), seed=self._rng).random(
                number
            )
            self._proposals.append((number, self._prior.logpdf))
        self.points = np.vstack([self.points, new])
        self.weigh(self._log_likelihood(new))

    def flattened(self, effective: float) -> np.ndarray:
        """Raise weights to the largest power in POWERS with effective sample size >= `effective`. Normalise them."""
        weights = (softmax(power * self.log_weights) for power in POWERS)
        return next(one for one in weights if 1 / (one**2).sum() >= min(effective, len(one) / 2))

    def weigh(self, log_likelihood: np.ndarray) -> None:
        """Set `log_weights` of all points from their log likelihoods (points,)."""
        shares = np.array([number for number, _ in self._proposals]) / len(self.points)
        densities = np.array([log_density(self.points) for _, log_density in self._proposals])
        mixture = logsumexp(densities, axis=0, b=shares[:, None])
        self.log_weights = log_likelihood + self._prior.logpdf(self.points) - mixture

"""Weighted draws from a posterior, and its marginal likelihood, where a likelihood is simulated and has no gradient."""

from collections.abc import Callable

import numpy as np
from scipy.special import gammaln, logsumexp

FREEDOM = 5  # of the Student-t kernels of a proposal: tails heavier than the posterior's keep weights bounded
MIN_EFFECTIVE = 12.0  # points that must share the weight from which the next round is drawn
KERNELS = 40  # of a proposal
POWERS = np.geomspace(1.0, 1e-4, 40)  # of the weights to try


class Population:
    """Parameter points weighted by a posterior whose prior is a standard normal in every coordinate.

    Adaptive multiple importance sampling (Cornuet, Marin, Mira and Robert, 2012): the first round of points is drawn from
    the prior, later ones around the points that weigh most, and each point is weighted by the mixture of all proposals.
    `log_likelihood` maps new points (n, dimensions) to the log likelihoods of all points so far, the new ones last.
    """

    def __init__(self, log_likelihood: Callable[[np.ndarray], np.ndarray], dimensions: int, rng: np.random.Generator):
        self.points = np.empty((0, dimensions))
        self._log_likelihood, self._rng = log_likelihood, rng
        self._numbers: list[int] = []  # points drawn from each proposal
        self._kernels: list[
            tuple[np.ndarray, np.ndarray]
        ] = []  # (centres, Cholesky factor) of each proposal but the prior
        self._densities: list[np.ndarray] = []  # log density of each proposal at every point
        self.log_weights = np.empty(0)  # log(prior x likelihood / mixture of the proposals), shape (points,)

    @property
    def weights(self) -> np.ndarray:
        """Weights that sum to 1, shape (points,)."""
        return np.exp(self.log_weights - logsumexp(self.log_weights))

    @property
    def log_evidence(self) -> float:
        """Estimate of the log marginal likelihood."""
        return float(logsumexp(self.log_weights) - np.log(len(self.points)))

    def draw(self, number: int) -> None:
        """Add a round of points."""
        new = self._rng.standard_normal((number, self.points.shape[1]))
        if self._numbers:
            centres, factor = kernels = self._proposal()
            stretch = np.sqrt(FREEDOM / self._rng.chisquare(FREEDOM, (number, 1)))
            new = centres[self._rng.integers(len(centres), size=number)] + stretch * new @ factor.T
            self._kernels.append(kernels)
            self._densities.append(_log_kernels(self.points, *kernels))
        else:
            self._densities.append(np.empty(0))
        densities = [_log_normal(new), *(_log_kernels(new, *kernels) for kernels in self._kernels)]
        self._densities = [np.append(old, at_new) for old, at_new in zip(self._densities, densities)]
        self._numbers.append(number)
        self.points = np.vstack([self.points, new])
        self.weigh(self._log_likelihood(new))

    def weigh(self, log_likelihood: np.ndarray) -> None:
        """Weigh all points by these log likelihoods (points,)."""
        shares = np.array(self._numbers) / len(self.points)
        mixture = logsumexp(np.array(self._densities), axis=0, b=shares[:, None])
        self.log_weights = log_likelihood + self._densities[0] - mixture

    def _proposal(self) -> tuple[np.ndarray, np.ndarray]:
        """A kernel density estimate of the posterior, flattened by a power until enough points share the weight."""
        for power in POWERS:
            weights = np.exp(power * (self.log_weights - self.log_weights.max()))
            weights /= weights.sum()
            effective = 1 / (weights**2).sum()
            if effective >= MIN_EFFECTIVE:
                break
        dimensions = self.points.shape[1]
        covariance = np.cov(self.points.T, aweights=weights, ddof=0).reshape(dimensions, dimensions)
        width = (4 / ((dimensions + 2) * effective)) ** (1 / (dimensions + 4))  # Silverman (1986)
        factor = np.linalg.cholesky(width**2 * covariance + 1e-8 * np.eye(dimensions))
        return self.points[self._rng.choice(len(self.points), size=KERNELS, p=weights)], factor


def _log_normal(points):
    return -0.5 * (points**2).sum(axis=1) - 0.5 * points.shape[1] * np.log(2 * np.pi)


def _log_kernels(points, centres, factor):
    """Log density at the points (n, dimensions) of an equal mixture of multivariate t kernels."""
    dimensions = points.shape[1]
    apart = (points[:, None] - centres).reshape(-1, dimensions)
    squares = (np.linalg.solve(factor, apart.T) ** 2).sum(axis=0).reshape(len(points), len(centres))
    constant = gammaln((FREEDOM + dimensions) / 2) - gammaln(FREEDOM / 2) - 0.5 * dimensions * np.log(FREEDOM * np.pi)
    constant -= np.log(np.diag(factor)).sum() + np.log(len(centres))
    return constant + logsumexp(-0.5 * (FREEDOM + dimensions) * np.log1p(squares / FREEDOM), axis=1)

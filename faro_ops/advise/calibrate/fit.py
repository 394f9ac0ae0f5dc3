"""The fit of one kind of replica: simulated parameter points and their likelihood."""

from typing import Any

import numpy as np
from scipy.linalg import block_diag
from scipy.special import logsumexp, softmax
from scipy.stats import multivariate_t

from faro_ops.advise.calibrate.measurements import Measurements
from faro_ops.advise.calibrate.population import Population
from faro_ops.advise.calibrate.predict import Simulator
from faro_ops.advise.calibrate.priors import CalibratedService, Prior

DISCREPANCIES = np.geomspace(0.002, 0.6, 20)  # grid of relative errors of the model
EXPECTED_DISCREPANCY = 0.05  # mean of the exponential prior of the discrepancy
# log(prior density x spacing of the grid)
LOG_PRIOR = np.log(DISCREPANCIES) - DISCREPANCIES / EXPECTED_DISCREPANCY
LOG_PRIOR -= logsumexp(LOG_PRIOR)
MISSING = 1e6  # variance of a value that was not measured: so large that it has no influence
POINTS_PER_DIMENSION = 4  # points per coefficient in the regression of `_linearised`
CHANGED = 0.1  # change of a prediction's logarithm at which the sampling errors are simulated again
# Probability that `_linearised` uses points on one side of the best one only, by one coordinate.
ELSEWHERE = 0.6
# `_linearised` clips the centre of its t distribution to +-LARGEST prior standard deviations.
LARGEST = 3.0
FIRST_ERROR = 0.05  # assumed sampling error until a point has been simulated


def log_likelihoods(predicted: np.ndarray, values: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Log likelihood of N parameter points at each of DISCREPANCIES, shape (N, discrepancies).

    In every row, ln values ~ Normal(predicted, errors + discrepancy^2 I). The constant term is left
    out.

    Parameters
    ----------
    predicted : logarithms of the predicted values, shape (N, rows, columns).
    values : measured values, NaN where not measured, shape (rows, columns).
    errors : covariance of the sampling errors of ln values, shape (rows, columns, columns).
    """
    measured = np.isfinite(values)
    both = measured[:, :, None] & measured[:, None, :]
    errors = np.where(both, errors, MISSING * np.eye(values.shape[1]) * ~both)
    variances, axes = np.linalg.eigh(errors)
    residuals = np.where(measured, predicted - np.log(np.where(measured, values, 1.0)), 0.0)
    # In the principal axes k of the errors:
    squares = np.einsum("nrc,rck->nrk", residuals, axes) ** 2  # (N, rows, axes)
    total = variances + DISCREPANCIES[:, None, None] ** 2  # (discrepancies, rows, axes)
    return -0.5 * (np.einsum("nrk,grk->ng", squares, 1 / total) + np.log(total).sum(axis=(1, 2)))


class Fit:
    """The simulated points of one kind of replica, with their predictions and likelihoods."""

    def __init__(self, prior: Prior, simulator: Simulator, measurements: Measurements, seed: int):
        rows, columns = measurements.values.shape
        self.prior = prior
        self._simulator = simulator
        self._values = measurements.values
        self._rng = np.random.default_rng(seed)
        self.population = Population(self._simulate, prior.dimensions, self._rng)
        self.services: list[CalibratedService] = []  # one per point
        self._simulated: list[np.ndarray] = []  # the rows of `predicted`
        # Logarithms of the predicted values, shape (points, rows, columns).
        self.predicted = np.empty(0)
        # Log likelihood + log prior, shape (points, discrepancies).
        self.by_discrepancy = np.empty((0, len(DISCREPANCIES)))
        # Covariance of the sampling errors, and the log predictions at which it was simulated.
        self.errors = np.tile(FIRST_ERROR**2 * np.eye(columns), (rows, 1, 1))
        self._errors_at = np.zeros((rows, columns))

    @property
    def weights(self) -> np.ndarray:
        """Posterior weights of the points, which sum to 1, shape (points,)."""
        return softmax(self.population.log_weights)

    @property
    def log_likelihood(self) -> np.ndarray:
        """Log likelihood of each point, with the discrepancy integrated out, shape (points,)."""
        return logsumexp(self.by_discrepancy, axis=1)

    def score(self, errors: np.ndarray) -> np.ndarray:
        """Set the covariance of the sampling errors; return each point's new log likelihood."""
        self.errors = errors
        self.by_discrepancy = log_likelihoods(self.predicted, self._values, errors) + LOG_PRIOR
        return self.log_likelihood

    def draw(self, number: int) -> None:
        """Simulate `number` more points.

        After the first call, half of them are drawn from the distribution `_linearised`.
        """
        self.population.draw(number, self._linearised() if self.services else None)

    def _linearised(self) -> Any:
        """A t distribution that approximates the posterior, for use as a proposal in `draw`.

        A Gauss-Newton step gives its centre and covariance. The derivatives come from a linear
        regression over likely points. To find other local optima, the regression often uses only
        points on one side of the best point.
        """
        dimensions = self.prior.dimensions
        points = self.population.points  # (points, dimensions)
        number = POINTS_PER_DIMENSION * (1 + dimensions)
        best = np.argsort(self.log_likelihood)  # the best point is the last
        if self._rng.random() < ELSEWHERE:
            coordinate = self._rng.integers(dimensions)
            side = self._rng.choice([-1, 1])
            apart = side * (points[best, coordinate] - points[best[-1], coordinate])
            if np.count_nonzero(apart > 0) >= number:
                best = best[apart > 0]
        best = best[-number:]
        measured = np.isfinite(self._values).ravel()  # (rows x columns,)
        predicted = self.predicted[best].reshape(len(best), -1)[:, measured]
        features = np.column_stack([np.ones(len(best)), points[best]])
        coefficients, *_ = np.linalg.lstsq(features, predicted, rcond=None)
        at_zero, slopes = coefficients[0], coefficients[1:]  # (measured,), (dimensions, measured)
        discrepancy = DISCREPANCIES[self.by_discrepancy.max(axis=0).argmax()]
        errors = block_diag(*self.errors + discrepancy**2 * np.eye(self._values.shape[1]))
        errors = errors[np.ix_(measured, measured)]
        gain = np.linalg.solve(errors, slopes.T)  # (measured, dimensions)
        covariance = np.linalg.inv(np.eye(dimensions) + slopes @ gain)
        middle = covariance @ gain.T @ (np.log(self._values.ravel()[measured]) - at_zero)
        return multivariate_t(np.clip(middle, -LARGEST, LARGEST), covariance, df=5)

    def _simulate(self, points: np.ndarray) -> np.ndarray:
        for point in points:
            service = self.prior.service(point)
            self.services.append(service)
            self._simulated.append(self._simulator.values(service))
        self.predicted = np.array(self._simulated)
        best = self.score(self.errors).argmax()
        measured = np.where(np.isfinite(self._values), self.predicted[best], 0.0)
        # Simulate the sampling errors again if the best predictions have changed since last time.
        if np.abs(measured - self._errors_at).max() > CHANGED:
            self._errors_at = measured
            self.errors = self._simulator.errors(self.services[best])
        return self.score(self.errors)

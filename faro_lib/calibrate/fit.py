"""The fit of one kind of replica: simulated parameter points and their likelihood."""

import numpy as np
from scipy.special import logsumexp

from faro_lib.calibrate.measurements import Measurements
from faro_lib.calibrate.population import Population
from faro_lib.calibrate.predict import Simulator
from faro_lib.calibrate.priors import CalibratedService, Prior

DISCREPANCIES = np.geomspace(0.002, 0.6, 20)  # relative errors of the model that are tried
EXPECTED_DISCREPANCY = 0.05  # mean of its exponential prior
LOG_PRIOR = np.log(DISCREPANCIES) - DISCREPANCIES / EXPECTED_DISCREPANCY  # density on the geometric grid
LOG_PRIOR -= logsumexp(LOG_PRIOR)
MISSING = 1e6  # variance of a value that was not measured
FIRST_ERROR = 0.05  # assumed sampling error until a point has been simulated


def log_likelihoods(predicted: np.ndarray, values: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Log likelihood of N points for each of DISCREPANCIES, shape (N, discrepancies).

    ln values ~ Normal(predicted, errors + discrepancy^2 I) in every row, without the rows' constant.

    Parameters
    ----------
    predicted : logarithms of the predicted values, shape (N, rows, columns).
    values : measured values, NaN where not measured, shape (rows, columns).
    errors : covariance of the sampling errors of their logarithms, shape (rows, columns, columns).
    """
    measured = np.isfinite(values)
    both = measured[:, :, None] & measured[:, None, :]
    errors = np.where(both, errors, MISSING * np.eye(values.shape[1]) * ~both)
    variances, axes = np.linalg.eigh(errors)
    residuals = np.where(measured, predicted - np.log(np.where(measured, values, 1.0)), 0.0)
    squares = np.einsum("nrc,rck->nrk", residuals, axes) ** 2
    total = variances + DISCREPANCIES[:, None, None] ** 2
    return -0.5 * (np.einsum("nrk,grk->ng", squares, 1 / total) + np.log(total).sum(axis=(1, 2)))


class Fit:
    """The population of one kind; arrays are over its simulated points."""

    def __init__(self, prior: Prior, simulator: Simulator, measurements: Measurements, seed: int):
        self.prior, self._simulator, self._values = prior, simulator, measurements.values
        self.population = Population(self._simulate, prior.dimensions, np.random.default_rng(seed))
        self.services: list[CalibratedService] = []
        self._predicted: list[np.ndarray] = []
        self._best: CalibratedService | None = None
        self.by_discrepancy = np.empty((0, len(DISCREPANCIES)))  # log likelihood plus log prior of the discrepancy
        rows, columns = measurements.values.shape
        self.errors = np.tile(FIRST_ERROR**2 * np.eye(columns), (rows, 1, 1))

    @property
    def predicted(self) -> np.ndarray:
        """Logarithms of the predicted values, shape (points, rows, columns)."""
        return np.array(self._predicted)

    @property
    def log_likelihood(self) -> np.ndarray:
        """Log likelihood of each point, shape (points,)."""
        return logsumexp(self.by_discrepancy, axis=1)

    def score(self, errors: np.ndarray) -> np.ndarray:
        """Set the covariance of the sampling errors, and return the log likelihood of each point with it."""
        self.errors = errors
        self.by_discrepancy = log_likelihoods(self.predicted, self._values, errors) + LOG_PRIOR
        return self.log_likelihood

    def _simulate(self, points: np.ndarray) -> np.ndarray:
        for point in points:
            service = self.prior.service(point)
            self.services.append(service)
            self._predicted.append(self._simulator.values(service))
        best = self.services[self.score(self.errors).argmax()]
        if best is not self._best:  # the sampling errors are those of a run of the best point
            self._best, self.errors = best, self._simulator.errors(best)
        return self.score(self.errors)

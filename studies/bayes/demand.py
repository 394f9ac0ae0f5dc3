"""The Bayesian model of requests per minute: a hierarchical Student-t autoregression.

The likelihood is in `forecast.regression`. The errors of job j have a scale of about
exp(s_j + g_j v_j), where v_j is the log of recent changes in demand. The priors for job j and
feature k (lag, profile minute or constant) are:

    a_jk, b_jk, c_j ~ Normal(m_k, tau)   coefficients of lags (a) and daily profile (b); constant
    m_k ~ Normal(0, MEAN_WIDTH)          mean of a coefficient over jobs
    log tau ~ Normal(log WIDTHS, 0.4)    one tau for the lags, one for the profile; c's is fixed
    s_j + g_j mean(v_j) ~ Normal(-3, 1)  log of the errors' scale at the mean of v_j over time
    g_j ~ Normal(0.3, 0.3)               increase of this log per unit of v_j
    log(nu_j - 3) ~ Normal(0.7, 0.7)     nu_j: degrees of freedom of the errors

The model is fitted by NUTS, which samples m and the coefficients in coordinates that make the
posterior of a ridge regression (`Ridge`) spherical, whatever tau is. In these coordinates, the
model's posterior has similar scales in all directions, even where the data say little.
"""

import logging
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from faro_lib.forecast.forecaster import CONTEXT_MINUTES, training_counts
from faro_lib.forecast.posterior import (
    NORMAL_GRID,
    Convergence,
    Posterior,
    correlation_root,
    data_hashes,
)
from faro_lib.forecast.regression import (
    RECENT_MINUTES,
    USUAL_CHANGE,
    log_change,
    root,
    shapes_of_other_days,
    spread_of,
    windows,
)
from faro_lib.workload import Traces

log = logging.getLogger(__name__)
Report = Callable[[str], None]

# The group of each feature: 0 lag, 1 profile, 2 constant.
GROUP_OF_FEATURE = np.repeat([0, 1, 2], [CONTEXT_MINUTES, CONTEXT_MINUTES + 1, 1])
# tau, the SD of a coefficient over jobs, for each group. The first two are prior medians. The last
# one is fixed.
WIDTHS = np.array([0.1, 0.1, 0.01])
MEAN_WIDTH = 0.5
USUAL_FOLLOW = 0.3
# Minimum degrees of freedom; with 2 or fewer, a count (a squared Student-t value) has no mean.
MIN_NU = 3.0
MIN_CORRELATION = 0.2  # weaker correlations between jobs are set to 0
ROWS = 4000  # minutes per job used in the fit; more would narrow the posterior, not the forecasts
LONGER = 2  # factor on the draws and tuning steps of a repeated fit
DEEPEST = 10  # doublings of a trajectory that NUTS accepts without a limit of ours


def design(y: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, recent change and target of the regression for each minute t of a day.

    The first t is CONTEXT_MINUTES, and m below is the number of minutes minus CONTEXT_MINUTES.

    Parameters
    ----------
    y : root(count) / unit, shape (..., minutes).
    shape : daily profile p of y, shape (..., minutes). z = y - p are the deviations from it.

    Returns
    -------
    features : z[t-15..t-1], p[t-15..t] - 1, and 1; shape (..., m, 2 x CONTEXT_MINUTES + 2).
    change : v, the `log_change` of z before minute t, shape (..., m).
    target : z[t], shape (..., m).
    """
    runs = windows(y - shape, CONTEXT_MINUTES + 1)
    lags = runs[..., :-1]
    constant = np.ones((*lags.shape[:-1], 1))
    features = np.concatenate([lags, windows(shape - 1, CONTEXT_MINUTES + 1), constant], axis=-1)
    return features, log_change(lags[..., -RECENT_MINUTES - 1 :]), runs[..., -1]


def units(counts: np.ndarray) -> np.ndarray:
    """Mean `root` of each job's counts (days, jobs, minutes), at least 1; shape (jobs,)."""
    return np.maximum(root(counts).mean(axis=(0, 2)), 1.0)


def build_model(traces: Traces, rows: int = ROWS):
    """The PyMC model of the training days, with at most `rows` minutes per job, chosen at random.

    Only the first sample of each day is used. The other samples show the same day, downsampled with
    other offsets.
    """
    import pytensor

    # nutpie brings its own BLAS; PyTensor would search for one and warn.
    pytensor.config.blas__ldflags = ""
    import pymc as pm
    import pytensor.tensor as pt

    counts = training_counts(traces)[:, 0]
    unit = units(counts)
    y = root(counts) / unit[:, None]
    features, change, target = design(y, shapes_of_other_days(y))
    days, jobs, minutes = target.shape
    # Rows are random, because every n-th one would alias periodic load.
    chosen = np.random.default_rng(0).permutation(days * minutes)[:rows]

    def rows_of(array: np.ndarray) -> np.ndarray:
        """(days, jobs, minutes, ...) -> (jobs, chosen rows, ...)"""
        return np.moveaxis(array, 1, 0).reshape(jobs, days * minutes, *array.shape[3:])[:, chosen]

    features, change, target = rows_of(features), rows_of(change), rows_of(target)
    fit = ridge(features, change, target)
    usual = change.mean(axis=1)

    coords = {
        "job": list(traces.names),
        "feature": np.arange(len(GROUP_OF_FEATURE)),
        "group": ["lag", "shape"],
    }
    with pm.Model(coords=coords) as model:
        # This prior keeps tau away from 0 (Chung et al. 2013). With few, similar jobs, a tau near 0
        # causes a funnel.
        tau = pm.LogNormal("tau", np.log(WIDTHS[:2]), 0.4, dims="group")
        width = pt.concatenate([tau, WIDTHS[2:]])
        mean = fit.mean + pt.dot(fit.mean_root, pm.Flat("theta_mean", dims="feature"))
        pm.Potential("mean_prior", pm.logp(pm.Normal.dist(0, MEAN_WIDTH), mean).sum())
        # Given tau, the ridge posterior is spherical in theta and theta_mean.
        theta = pm.Flat("theta", dims=("job", "feature"))
        precision = fit.curvature + pt.dot(fit.share, (WIDTHS / width) ** 2)  # (jobs, features)
        gain = fit.gain - pt.dot(fit.gain_of_mean, mean)
        along = gain / precision + theta / pt.sqrt(precision)
        deviations = (fit.basis * along[:, None, :]).sum(axis=-1)
        of_prior = pm.logp(pm.Normal.dist(0, width[GROUP_OF_FEATURE]), deviations)
        jacobian = -0.5 * pt.log(precision).sum()  # but for a constant
        pm.Potential("deviations_prior", of_prior.sum() + jacobian)
        coefficients = pm.Deterministic("coefficients", mean + deviations, dims=("job", "feature"))

        usual_spread = pm.Normal("log_usual_spread", -3.0, 1.0, dims="job")
        follow = pm.Normal("follow", USUAL_FOLLOW, 0.3, dims="job")
        log_spread = pm.Deterministic("log_spread", usual_spread - follow * usual, dims="job")
        log_nu = pm.Normal("log_nu", 0.7, 0.7, dims="job")
        nu = pm.Deterministic("nu", MIN_NU + pt.exp(log_nu), dims="job")
        scale = spread_of(log_spread[:, None], follow[:, None], change, unit[:, None], exp=pt.exp)
        location = pt.matmul(features, coefficients[:, :, None])[:, :, 0]
        pm.StudentT("z", nu=nu[:, None], mu=location, sigma=scale, observed=target)
    return model


class Ridge(NamedTuple):
    """Ridge regression of all jobs, in coordinates in which its posterior is spherical.

    Coefficients of job j are m + V_j a_j. m is their mean over jobs. The basis V_j makes the
    precision of the data, H_j, diagonal with the values h_j, and that of the prior, WIDTHS^-2, the
    identity. Given m, a_j has the posterior mean gain / (h_j + 1) and variance 1 / (h_j + 1).
    """

    mean: np.ndarray  # posterior mean of m, (features,)
    mean_root: np.ndarray  # square root of the posterior covariance of m, (features, features)
    basis: np.ndarray  # V, (jobs, features, features)
    curvature: np.ndarray  # h, (jobs, features)
    gain: np.ndarray  # V'g, (jobs, features); g is the gradient of the log-likelihood at m = 0
    gain_of_mean: np.ndarray  # V'H, by which m reduces the gain, (jobs, features, features)
    # Share of lags, profile and constant in the prior's precision along each direction of the
    # basis, (jobs, features, groups).
    share: np.ndarray


def ridge(features: np.ndarray, change: np.ndarray, target: np.ndarray) -> Ridge:
    """The `Ridge` of features (jobs, rows, features) and of change and target (jobs, rows).

    The log of the errors' scale is taken to rise by USUAL_FOLLOW per unit of `change`.
    """
    usual = change.mean(axis=1, keepdims=True)
    precision = (USUAL_CHANGE * np.exp(usual + USUAL_FOLLOW * (change - usual))) ** -2
    weighted = features * precision[:, :, None]
    data = np.swapaxes(weighted, 1, 2) @ features  # H, (jobs, features, features)
    gradient = np.einsum("jnk,jn->jk", weighted, target)
    width = WIDTHS[GROUP_OF_FEATURE]
    curvature, rotation = np.linalg.eigh(width[:, None] * data * width)
    basis = width[:, None] * rotation
    inverse = np.swapaxes(rotation, 1, 2) / width
    gain = np.einsum("jkl,jk->jl", basis, gradient)
    # With the deviations a_j integrated out, the data have the precision h / (h + 1) on m.
    of_mean = np.einsum("jlk,jl,jlm->km", inverse, curvature / (curvature + 1), inverse)
    covariance = np.linalg.inv(of_mean + np.eye(len(width)) / MEAN_WIDTH**2)
    return Ridge(
        mean=covariance @ np.einsum("jlk,jl->k", inverse, gain / (curvature + 1)),
        mean_root=np.linalg.cholesky(covariance),
        basis=basis,
        curvature=curvature,
        gain=gain,
        gain_of_mean=curvature[:, :, None] * inverse,
        share=np.einsum("jkl,kg->jlg", rotation**2, np.eye(len(WIDTHS))[GROUP_OF_FEATURE]),
    )


def fit_bayes(
    traces: Traces,
    *,
    seed: int = 0,
    rows: int = ROWS,
    draws: int = 1000,
    tune: int = 600,
    chains: int = 4,
    depth: int = DEEPEST,
    progress: Report = log.info,
) -> Any:
    """Fit the model with nutpie; returns ArviZ InferenceData.

    The result is reproducible for a given seed. A fit that has not converged (`convergence`) is
    repeated once, with LONGER times the draws and tuning steps, and without a limit on `depth`.
    The posterior group has the attributes `seed` and `fit_s` (seconds for compiling and all fits).

    depth : doublings of a trajectory, which then has at most 2^depth - 1 steps. In the coordinates
        of `Ridge` the posterior is almost spherical, and NUTS takes 15 steps, the last of which
        turn back. Seven cost half; only tau then has fewer effective draws.
    """
    import nutpie

    started = time.perf_counter()
    compiled = nutpie.compile_pymc_model(build_model(traces, rows))
    progress(f"model of {len(traces.jobs)} jobs compiled in {time.perf_counter() - started:.0f} s")
    cores = min(chains, os.cpu_count() or 1)
    for factor, most in ((1, depth), (LONGER, DEEPEST)):
        idata = nutpie.sample(
            compiled,
            draws=factor * draws,
            tune=factor * tune,
            chains=chains,
            cores=cores,
            seed=seed,
            maxdepth=most,
            progress_bar=False,
            save_warmup=False,
        )
        fit_s = time.perf_counter() - started
        reached = convergence(idata)
        steps = f"{chains} x ({factor * tune} + {factor * draws}) draws"
        progress(f"fitted in {fit_s:.0f} s with {steps}. {reached}")
        if reached.passed:
            break
    idata.posterior.attrs.update(seed=seed, fit_s=fit_s)
    return idata


def convergence(idata) -> Convergence:
    """The convergence diagnostics of a fit (InferenceData from `fit_bayes`), computed by ArviZ."""
    import arviz as az

    table = az.summary(
        idata, var_names=["~theta"], filter_vars="like", kind="diagnostics", round_to="none"
    )
    return Convergence(
        r_hat=float(table["r_hat"].max()),
        ess_bulk=float(table["ess_bulk"].min()),
        ess_tail=float(table["ess_tail"].min()),
        divergences=float(idata.sample_stats["diverging"].sum()),
    )


def posterior_of(idata, traces: Traces, *, draws: int = 200) -> Posterior:
    """A `Posterior` of `draws` evenly spaced draws of `idata`; ValueError if the jobs differ."""
    from scipy.special import ndtr
    from scipy.stats import t

    all_draws = idata.posterior.stack(draw_=("chain", "draw")).transpose("draw_", ...)
    fitted = tuple(all_draws["job"].values)
    if fitted != traces.names:
        raise ValueError(f"idata is of jobs {fitted}; traces are of {traces.names}")
    number = all_draws.sizes["draw_"]
    kept = all_draws.isel(draw_=np.linspace(0, number - 1, min(draws, number)).astype(int))
    coefficients = kept["coefficients"].values  # (draws, jobs, features)
    log_spread = kept["log_spread"].values  # (draws, jobs)
    follow = kept["follow"].values  # (draws, jobs)
    nu = np.median(kept["nu"].values, axis=0)  # (jobs,)

    counts = training_counts(traces)[:, 0]
    unit = units(counts)
    y = root(counts) / unit[:, None]
    features, change, target = design(y, shapes_of_other_days(y))
    location = np.einsum("djmk,jk->djm", features, coefficients.mean(axis=0))
    scale = spread_of(
        log_spread.mean(axis=0)[:, None], follow.mean(axis=0)[:, None], change, unit[:, None]
    )
    residuals = (target - location) / scale  # (days, jobs, minutes)
    # The errors are Student-t quantiles, at most as large as the largest residual.
    largest = np.abs(residuals).max(axis=(0, 2))[:, None]
    errors = np.clip(t.ppf(ndtr(NORMAL_GRID), nu[:, None]), -largest, largest)
    return Posterior(
        jobs=traces.names,
        day_minutes=counts.shape[-1],
        unit=unit,
        shape=y.mean(axis=0) if len(y) > 1 else shapes_of_other_days(y)[0],
        off_shape=(y - shapes_of_other_days(y)).std(axis=(0, 2)),
        most=counts.max(axis=(0, 2)),
        coefficients=coefficients.astype(np.float32),
        log_spread=log_spread.astype(np.float32),
        follow=follow.astype(np.float32),
        errors=errors.astype(np.float32),
        root_correlation=correlation_root(normal_score_correlation(residuals)),
        convergence=convergence(idata),
        data=data_hashes(traces),
    )


def normal_score_correlation(residuals: np.ndarray) -> np.ndarray:
    """Correlation (jobs, jobs) of rank-normalised residuals (days, jobs, minutes); 0 where weak."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    rows = np.moveaxis(residuals, 1, 0).reshape(residuals.shape[1], -1)
    scores = ndtri(rankdata(rows, axis=1) / (rows.shape[1] + 1))
    with np.errstate(invalid="ignore"):  # constant residuals give NaN, set to 0 below
        correlation = np.atleast_2d(np.corrcoef(scores))
    return np.where(np.abs(correlation) >= MIN_CORRELATION, correlation, np.eye(len(rows)))

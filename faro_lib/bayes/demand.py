"""The Bayesian model of requests per minute: a hierarchical Student-t autoregression, fitted by NUTS.

`forecast.regression` has the likelihood and its symbols. The priors pool the parameters of all jobs j:

    a_j, b_j, c_j ~ Normal(m, tau)         coefficients of lags, profile and constant; one tau per group
    s_j ~ Normal(m_s, tau_s)               log of the error's scale
    g_j ~ Normal(m_g, tau_g)               effect of the recent change v on that log
    log(nu_j - 3) ~ Normal(m_nu, tau_nu)   degrees of freedom

NUTS samples the coefficients in the coordinates of a QR decomposition of each job's design, where the
likelihood is nearly spherical (Stan user's guide, "The QR reparameterization").
"""

import logging
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from faro_lib.forecast.forecaster import CONTEXT_MINUTES, training_counts
from faro_lib.forecast.posterior import CONVERGENCE, NORMAL_GRID, Posterior, correlation_root
from faro_lib.forecast.regression import design, root, shapes_of_other_days, units
from faro_lib.workload import Traces

log = logging.getLogger(__name__)

GROUPS = ["lag", "shape", "constant"]
GROUP_OF_FEATURE = np.repeat([0, 1, 2], [CONTEXT_MINUTES, CONTEXT_MINUTES + 1, 1])  # index in GROUPS
CONSTANT_WIDTH = 0.01  # tau of the constant, fixed because one coefficient per job is too little to estimate it
MIN_NU = 3.0  # a count is a squared root, so its mean is finite only above 2 degrees of freedom
MIN_CORRELATION = 0.2  # weaker correlations between jobs are set to 0


def build_model(traces: Traces, *, data_stride: int = 1):
    """The PyMC model, given a random share 1 / `data_stride` of the minutes of the training days.

    It uses only sample 0 of each day, because the others are the same day shifted by minutes.
    """
    import pymc as pm
    import pytensor.tensor as pt

    counts = training_counts(traces)[:, 0]
    y = root(counts) / units(counts)[:, None]
    features, change, target = design(y, shapes_of_other_days(y))
    # (days, jobs, minutes, ...) -> (jobs, rows, ...). Rows are chosen at random: every N-th would alias periodic load.
    chosen = np.random.default_rng(0).permutation(target.shape[0] * target.shape[2])[::data_stride]
    features, change, target = (
        np.moveaxis(array, 1, 0).reshape(array.shape[1], -1, *array.shape[3:])[:, chosen]
        for array in (features, change, target)
    )
    names = traces.names
    ridge = 1e-6 * np.eye(features.shape[2])
    # F = Q R, with R from the Cholesky factor of F'F / rows, so the columns of Q are orthogonal with mean square 1.
    upper = np.linalg.cholesky(np.swapaxes(features, 1, 2) @ features / features.shape[1] + ridge).swapaxes(1, 2)
    inverse = np.linalg.inv(upper)
    q = features @ inverse
    start = np.einsum("jnk,jn->jk", q, target) / features.shape[1]

    coords = {"job": list(names), "feature": np.arange(len(GROUP_OF_FEATURE)), "group": GROUPS[:2]}
    with pm.Model(coords=coords) as model:
        mean = pm.Normal("m", 0.0, 0.5, dims="feature")
        # The prior keeps tau away from 0 (Chung et al. 2013); near 0, as with few similar jobs, the posterior is a funnel.
        tau = pm.LogNormal("tau", np.log(0.1), 0.4, dims="group")
        width = pt.concatenate([tau, [CONSTANT_WIDTH]])
        theta = pm.Flat("theta", initval=start, dims=("job", "feature"))
        coefficients = pm.Deterministic(
            "coefficients", (inverse * theta[:, None, :]).sum(axis=-1), dims=("job", "feature")
        )
        # theta = R @ coefficients with R constant, so the log Jacobian is a constant and is omitted.
        pm.Potential("coefficients_prior", pm.logp(pm.Normal.dist(mean, width[GROUP_OF_FEATURE]), coefficients).sum())

        def pooled(name, centre, width, initial):
            m, t = pm.Normal(f"m_{name}", centre, width), pm.Gamma(f"tau_{name}", alpha=2, beta=4)
            return pm.Normal(name, m, t, dims="job", initval=np.full(len(names), initial))

        log_spread = pooled("log_spread", -3.0, 1.0, -3.0)
        follow = pooled("follow", 0.3, 0.3, 0.3)
        nu = pm.Deterministic("nu", MIN_NU + pt.exp(pooled("log_nu", 0.7, 0.7, 0.7)), dims="job")
        location = pt.stack([pt.dot(q[j], theta[j]) for j in range(len(names))])
        scale = pt.exp(log_spread[:, None] + follow[:, None] * change)
        pm.StudentT("z", nu=nu[:, None], mu=location, sigma=scale, observed=target)
    return model


def fit_bayes(
    traces: Traces,
    *,
    seed: int = 0,
    draws: int = 500,
    tune: int = 500,
    chains: int = 4,
    data_stride: int = 1,
    progress: Callable[[str], None] = log.info,
) -> Any:
    """Fit the model with nutpie; returns ArviZ InferenceData, which is reproducible for a given seed.

    The posterior group has the attributes `seed`, `fit_s`, `compile_s` and `data_stride`.
    """
    import nutpie

    started = time.perf_counter()
    model = build_model(traces, data_stride=data_stride)
    # The coefficients start at the least-squares fit, without the default jitter of +-1, which is far off.
    compiled = nutpie.compile_pymc_model(model, jitter_rvs={model["log_spread"], model["follow"], model["log_nu"]})
    compile_s = time.perf_counter() - started
    progress(
        f"model of {len(traces.jobs)} jobs compiled in {compile_s:.0f} s; sampling {chains} x ({tune} + {draws}) draws"
    )
    idata = nutpie.sample(
        compiled,
        draws=draws,
        tune=tune,
        chains=chains,
        cores=min(chains, os.cpu_count() or 1),
        seed=seed,
        progress_bar=False,
        save_warmup=False,
    )
    fit_s = time.perf_counter() - started
    worst = convergence(idata)
    progress(f"fitted in {fit_s:.0f} s: " + ", ".join(f"{name} {value:g}" for name, value in worst.items()))
    idata.posterior.attrs.update(seed=seed, fit_s=fit_s, compile_s=compile_s, data_stride=data_stride)
    return idata


def convergence(idata) -> dict[str, float]:
    """Diagnostics of the fit: largest R-hat, smallest bulk and tail ESS, number of divergences."""
    import arviz as az

    table = az.summary(idata, var_names=["~theta"], kind="diagnostics")
    return {
        "r_hat": float(table["r_hat"].max()),
        "ess_bulk": float(table["ess_bulk"].min()),
        "ess_tail": float(table["ess_tail"].min()),
        "divergences": float(idata.sample_stats["diverging"].sum()),
    }


def posterior_of(idata, traces: Traces, *, draws: int = 200) -> Posterior:
    """The `Posterior` for forecasting, with `draws` evenly spaced posterior draws; ValueError if the jobs differ."""
    counts = training_counts(traces)[:, 0]
    flat = idata.posterior.stack(draw_=("chain", "draw")).transpose("draw_", ...)
    if tuple(flat["job"].values) != traces.names:
        raise ValueError(f"idata is of jobs {tuple(flat['job'].values)}; traces are of {traces.names}")
    flat = flat.isel(draw_=np.linspace(0, flat.sizes["draw_"] - 1, min(draws, flat.sizes["draw_"])).astype(int))
    value = {name: flat[name].values for name in ("coefficients", "log_spread", "follow", "nu")}

    unit = units(counts)
    y = root(counts) / unit[:, None]
    features, change, target = design(y, shapes_of_other_days(y))
    location = np.einsum("djmk,jk->djm", features, value["coefficients"].mean(axis=0))
    scale = np.exp(value["log_spread"].mean(axis=0)[:, None] + value["follow"].mean(axis=0)[:, None] * change)
    residuals = (target - location) / scale
    largest = np.abs(residuals).max(axis=(0, 2))
    worst = convergence(idata)
    return Posterior(
        jobs=traces.names,
        day_minutes=counts.shape[-1],
        unit=unit,
        shape=y.mean(axis=0),
        off_shape=(y - shapes_of_other_days(y)).std(axis=(0, 2)),
        most=counts.max(axis=(0, 2)),
        coefficients=value["coefficients"].astype(np.float32),
        log_spread=value["log_spread"].astype(np.float32),
        follow=value["follow"].astype(np.float32),
        errors=error_quantiles(np.median(value["nu"], axis=0), largest).astype(np.float32),
        root_correlation=correlation_root(normal_score_correlation(residuals)),
        convergence=np.array([worst[name] for name in CONVERGENCE]),
    )


def error_quantiles(nu: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Student-t quantiles (jobs, grid) at NORMAL_GRID, clipped to +-`largest`, so that squared errors have a finite mean."""
    from scipy.special import ndtr
    from scipy.stats import t

    return np.clip(t.ppf(ndtr(NORMAL_GRID), nu[:, None]), -largest[:, None], largest[:, None])


def normal_score_correlation(residuals: np.ndarray) -> np.ndarray:
    """Correlation between jobs (jobs, jobs) of residuals (days, jobs, minutes), after a rank transform to normals."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    rows = np.moveaxis(residuals, 1, 0).reshape(residuals.shape[1], -1)
    scores = ndtri(rankdata(rows, axis=1) / (rows.shape[1] + 1))
    correlation = np.atleast_2d(np.corrcoef(scores))
    return np.where(np.abs(correlation) < MIN_CORRELATION, 0.0, correlation)

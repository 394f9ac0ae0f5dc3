"""The Bayesian model of requests per minute: a hierarchical Student-t autoregression around a day shape, by NUTS.

The only module that imports PyMC. `forecast.regression` holds the equation; here are its priors. All jobs share one
regression, and each job departs from it as far as the data says:

    a_j, b_j, c_j ~ Normal(m, tau)      m, tau for each group: lags, shape
    s_j ~ Normal(m_s, tau_s)            log spread
    g_j ~ Normal(m_g, tau_g)            how the spread follows the recent movement
    log(nu_j - 3) ~ Normal(m_nu, tau_nu)   tails

Sampling is in the coordinates of the QR factors of each job's design, where the likelihood is round (Stan user's
guide, "The QR reparameterization").
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from faro_lib.forecast.forecaster import CONTEXT_MINUTES, job_names, training_counts
from faro_lib.forecast.posterior import NORMAL_GRID, Posterior, correlation_root, save_posterior
from faro_lib.forecast.regression import design, root, shapes_of_other_days, units
from faro_lib.workload import Traces

log = logging.getLogger(__name__)

FEATURES = ["lag"] * CONTEXT_MINUTES + ["shape"] * (CONTEXT_MINUTES + 1) + ["constant"]
GROUPS = ["lag", "shape", "constant"]
CONSTANT_WIDTH = 0.01  # one coefficient a job is too little to learn its spread from
LEAST_NU = 3.0  # counts are squares of roots: heavier tails would leave them hardly a mean (2 and 3 do equally well)


def build_model(traces: Traces, *, sample: int = 0, data_stride: int = 1):
    """The PyMC model of the training days at phase `sample`; one minute in `data_stride`, chosen at random.

    The phases of a day are the same day, so only one of them counts as evidence: the one that is to be forecast.
    """
    import pymc as pm
    import pytensor.tensor as pt

    counts = _days(traces, sample)
    y = root(counts) / units(counts)[:, None]
    features, moved, target = design(y, shapes_of_other_days(y))
    # (days, jobs, minutes, ...) -> (jobs, rows, ...); rows at random: every third one would miss what has a period
    chosen = np.random.default_rng(0).permutation(target.shape[0] * target.shape[2])[::data_stride]
    features, moved, target = (
        np.moveaxis(array, 1, 0).reshape(array.shape[1], -1, *array.shape[3:])[:, chosen]
        for array in (features, moved, target)
    )
    names = job_names(traces)
    group = np.array([GROUPS.index(name) for name in FEATURES])
    ridge = 1e-6 * np.eye(features.shape[2])
    # R of the QR factors, from the Gram matrix; Q = F R^-1 has rows of unit variance.
    upper = np.linalg.cholesky(np.swapaxes(features, 1, 2) @ features / features.shape[1] + ridge).swapaxes(1, 2)
    inverse = np.linalg.inv(upper)
    q = features @ inverse
    start = np.einsum("jnk,jn->jk", q, target) / features.shape[1]

    coords = {"job": list(names), "feature": np.arange(len(FEATURES)), "group": GROUPS[:2]}
    with pm.Model(coords=coords) as model:
        mean = pm.Normal("m", 0.0, 0.5, dims="feature")
        # Priors that keep off zero, where few jobs that are alike would make a funnel (Chung et al. 2013).
        tau = pm.LogNormal("tau", np.log(0.1), 0.4, dims="group")
        width = pt.concatenate([tau, [CONSTANT_WIDTH]])
        theta = pm.Flat("theta", initval=start, dims=("job", "feature"))
        coefficients = pm.Deterministic(
            "coefficients", (inverse * theta[:, None, :]).sum(axis=-1), dims=("job", "feature")
        )
        # theta = R coefficients is linear, so the prior needs no Jacobian.
        pm.Potential("coefficients_prior", pm.logp(pm.Normal.dist(mean, width[group]), coefficients).sum())

        def pooled(name, centre, width, initial):
            m, t = pm.Normal(f"m_{name}", centre, width), pm.Gamma(f"tau_{name}", alpha=2, beta=4)
            return pm.Normal(name, m, t, dims="job", initval=np.full(len(names), initial))

        log_spread = pooled("log_spread", -3.0, 1.0, -3.0)
        follow = pooled("follow", 0.3, 0.3, 0.3)
        nu = pm.Deterministic("nu", LEAST_NU + pt.exp(pooled("log_nu", 0.7, 0.7, 0.7)), dims="job")
        location = pt.stack([pt.dot(q[j], theta[j]) for j in range(len(names))])
        scale = pt.exp(log_spread[:, None] + follow[:, None] * moved)
        pm.StudentT("z", nu=nu[:, None], mu=location, sigma=scale, observed=target)
    return model


def fit_bayes(
    traces: Traces,
    *,
    seed: int = 0,
    draws: int = 500,
    tune: int = 500,
    chains: int = 4,
    sample: int = 0,
    data_stride: int = 1,
    progress: Callable[[str], None] = log.info,
) -> Any:
    """Fit with nutpie and return ArviZ InferenceData; the same seed gives the same draws.

    The attributes of its posterior say what the draws belong to: `fit_s`, `compile_s`, `seed`; `export_posterior`
    and `posterior_of` make the online forecaster's arrays of it.
    """
    import nutpie

    started = time.perf_counter()
    model = build_model(traces, sample=sample, data_stride=data_stride)
    # Coefficients start at least squares; the jitter of +-1 that chains get by default would be far from anything.
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
    idata.posterior.attrs.update(seed=seed, fit_s=fit_s, compile_s=compile_s, sample=sample, data_stride=data_stride)
    return idata


def convergence(idata) -> dict[str, float]:
    """The worst of every parameter: largest R-hat, smallest bulk and tail ESS; and the number of divergences."""
    import arviz as az

    table = az.summary(idata, var_names=["~theta"], kind="diagnostics")
    return {
        "r_hat": float(table["r_hat"].max()),
        "ess_bulk": float(table["ess_bulk"].min()),
        "ess_tail": float(table["ess_tail"].min()),
        "divergences": float(idata.sample_stats["diverging"].sum()),
    }


def posterior_of(idata, traces: Traces, *, draws: int = 200, seed: int = 0) -> Posterior:
    """The arrays of the online forecaster: `draws` thinned posterior draws, day shapes, and how jobs go together.

    Correlations over jobs are those of the normal scores of the residuals; one that is below 0.2 counts as none.
    """
    counts = _days(traces, int(idata.posterior.attrs["sample"]))
    names = job_names(traces)
    flat = idata.posterior.stack(draw_=("chain", "draw")).transpose("draw_", ...)
    if tuple(flat["job"].values) != names:
        raise ValueError(f"idata is of jobs {tuple(flat['job'].values)}; traces are of {names}")
    flat = flat.isel(draw_=np.linspace(0, flat.sizes["draw_"] - 1, min(draws, flat.sizes["draw_"])).astype(int))
    value = {name: flat[name].values for name in flat.data_vars}

    unit = units(counts)
    y = root(counts) / unit[:, None]
    features, moved, target = design(y, shapes_of_other_days(y))
    location = np.einsum("djmk,jk->djm", features, value["coefficients"].mean(axis=0))
    scale = np.exp(value["log_spread"].mean(axis=0)[:, None] + value["follow"].mean(axis=0)[:, None] * moved)
    residuals = (target - location) / scale
    errors = np.stack([error_quantiles(value["nu"][:, j], np.abs(residuals[:, j]).max()) for j in range(len(names))])

    rng = np.random.default_rng(seed)
    group = np.array([GROUPS.index(name) for name in FEATURES])
    count = len(value["m"])

    def new(name):
        return value[f"m_{name}"] + value[f"tau_{name}"] * rng.standard_normal(count)

    new_nu = LEAST_NU + np.exp(new("log_nu"))
    return Posterior(
        jobs=names,
        day_minutes=counts.shape[-1],
        unit=unit,
        shape=y.mean(axis=0),
        off_shape=(y - shapes_of_other_days(y)).std(axis=(0, 2)),
        most=counts.max(axis=(0, 2)),
        coefficients=value["coefficients"].astype(np.float32),
        log_spread=value["log_spread"].astype(np.float32),
        follow=value["follow"].astype(np.float32),
        errors=errors.astype(np.float32),
        root_correlation=correlation_root(normal_score_correlation(residuals)),
        new_coefficients=(
            value["m"]
            + np.column_stack([value["tau"], np.full(count, CONSTANT_WIDTH)])[:, group]
            * rng.standard_normal(value["m"].shape)
        ).astype(np.float32),
        new_log_spread=new("log_spread").astype(np.float32),
        new_follow=new("follow").astype(np.float32),
        new_errors=error_quantiles(new_nu, float(np.median(errors.max(axis=1)))).astype(np.float32),
        new_off_shape=float(y.std()),
        new_unit=float(np.median(unit)),
        new_unit_spread=float(np.log(unit).std()) if len(unit) > 1 else 1.0,
    )


def error_quantiles(nu: np.ndarray, most: float) -> np.ndarray:
    """Quantiles of the Student-t at the median of `nu`, on NORMAL_GRID, cut at the largest error ever seen.

    The cut keeps the mean of the counts (squares of the roots) finite where nu is near 2.
    """
    from scipy.special import ndtr
    from scipy.stats import t

    return np.clip(t.ppf(ndtr(NORMAL_GRID), np.median(nu)), -most, most)


def normal_score_correlation(residuals: np.ndarray, least: float = 0.2) -> np.ndarray:
    """Correlation over jobs of the normal scores of residuals (days, jobs, minutes); below `least` it is 0."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    rows = np.moveaxis(residuals, 1, 0).reshape(residuals.shape[1], -1)
    scores = ndtri(rankdata(rows, axis=1) / (rows.shape[1] + 1))
    correlation = np.atleast_2d(np.corrcoef(scores))
    return np.where(np.abs(correlation) < least, 0.0, correlation)


def export_posterior(idata, path: str | Path, traces: Traces, *, draws: int = 200) -> Posterior:
    """Write what the online forecaster needs to `path` (.npz) and return it; `forecast.load_posterior` reads it."""
    posterior = posterior_of(idata, traces, draws=draws)
    save_posterior(posterior, path)
    return posterior


def _days(traces: Traces, sample: int) -> np.ndarray:
    """The training days at one phase, shape (days, jobs, minutes)."""
    train = training_counts(traces)
    if not 0 <= sample < train.shape[1]:
        raise ValueError(f"sample={sample} is not a phase of the training days; there are 0 to {train.shape[1] - 1}")
    return train[:, sample]

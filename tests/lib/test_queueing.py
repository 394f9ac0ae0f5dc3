"""Latency formulas against theory and simulation, and the measured latency table."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from faro_lib.queueing import _latency_kernels as kernels
from faro_lib.queueing import (
    erlang_c,
    half_mmc,
    latency,
    mdc,
    mgc,
    mmc,
    mmc_wait,
    relaxed,
    upper_bound,
)
from faro_lib.queueing._latency_kernels import wait_quantile


def mdc_wait_cdf(x, rho, servers):
    """P(W <= x D) in M/D/c."""
    below = np.cumsum(kernels.waiting_distribution(rho, servers, 1e-12))
    return np.vectorize(lambda one: kernels.wait_cdf(one, rho, servers, below))(
        np.asarray(x, float)
    )


rates = st.floats(0.01, 200.0)
counts = st.integers(1, 40)
services = st.floats(0.01, 2.0)
quantiles = st.sampled_from([0.5, 0.9, 0.99])
CASES = [(2, 0.5), (2, 0.9), (4, 0.8), (8, 0.9), (16, 0.9), (32, 0.95)]


@pytest.mark.parametrize(
    ("load", "servers"), [(0.3, 1), (1.7, 2), (7.2, 8), (30.0, 32), (95.0, 100)]
)
def test_erlang_c_is_the_share_of_poisson_states_that_wait(load, servers):
    # Textbook sum over the states of M/M/c.
    states = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    assert erlang_c(load, servers) == pytest.approx(last / (sum(states) + last), rel=1e-12)


def test_an_mm1_queue_waits_as_theory_says():
    # P(W > t) = rho e^(-(mu - lam) t)
    wait_s = mmc_wait(8.0, 1, 0.1, 0.99)
    assert 0.8 * math.exp(-2.0 * wait_s) == pytest.approx(0.01, rel=1e-12)


def test_mmc_waits_as_erlang_c_says():
    wait_s = float(mmc_wait(36.0, 4, 0.1, 0.95))
    assert erlang_c(3.6, 4) * math.exp(-4.0 * wait_s) == pytest.approx(0.05, rel=1e-12)


@pytest.mark.parametrize("rho", [0.2, 0.7, 0.95])
@pytest.mark.parametrize("x", [0.0, 0.4, 1.3, 2.9, 4.7])
def test_an_md1_queue_waits_as_erlang_said_in_1909(rho, x):
    terms = [
        (-rho * (x - k)) ** k / math.factorial(k) * math.exp(rho * (x - k))
        for k in range(int(x) + 1)
    ]
    assert mdc_wait_cdf(x, rho, 1) == pytest.approx((1 - rho) * sum(terms), abs=1e-9)


@pytest.mark.parametrize("rho", [0.3, 0.8, 0.95])
def test_an_md1_queue_waits_on_average_as_pollaczek_and_khinchine_say(rho):
    x = np.linspace(0, 60 / (1 - rho), 40_001)
    mean = np.trapezoid(1 - mdc_wait_cdf(x, rho, 1), x)
    assert mean == pytest.approx(rho / (2 * (1 - rho)), rel=1e-3)


@pytest.mark.parametrize(("servers", "rho"), CASES)
def test_the_mean_wait_in_mdc_is_crommelins_series(servers, rho):
    from faro_lib.queueing import _latency_kernels as _compiled

    a = rho * servers
    k = np.arange(1, 20_000)
    # Crommelin (1932): E[W] / D = sum_k P(N_ka >= kc) - P(N_ka >= kc + 1) / rho, N_m Poisson with
    # mean m.
    series = np.sum(
        stats.poisson.sf(k * servers - 1, k * a) - stats.poisson.sf(k * servers, k * a) / rho
    )
    waiting = _compiled.waiting_distribution(rho, servers, 1e-13)
    assert np.arange(len(waiting)) @ waiting / a == pytest.approx(series, rel=1e-6)


def simulated_waits(servers, rho, customers, seed):
    """Waits in service times: with constant service, customer n follows customer n - c."""
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(1 / (rho * servers), customers))
    ends = np.zeros(customers + servers)
    for n, arrival in enumerate(arrivals.tolist()):
        ends[n + servers] = max(arrival, ends[n]) + 1.0
    return ends[servers:] - 1.0 - arrivals


@pytest.mark.parametrize(("servers", "rho"), CASES)
def test_a_long_simulation_of_mdc_waits_as_the_exact_distribution_says(servers, rho):
    waits = np.sort(simulated_waits(servers, rho, 400_000, seed=servers)[10_000:])
    at = np.quantile(waits, [0.3, 0.5, 0.8, 0.9, 0.99])
    measured = np.searchsorted(waits, at + 1e-9, side="right") / len(waits)
    # Waits are correlated over about 1 / (1 - rho)^2 customers, which makes the error of 390,000
    # about this large.
    error = 4 * np.sqrt(0.25 / (len(waits) * (1 - rho) ** 2 / 2))
    np.testing.assert_allclose(mdc_wait_cdf(at + 1e-9, rho, servers), measured, atol=error)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.97, 0.99, 0.999, 0.9999])
@pytest.mark.parametrize("servers", [1, 2, 4, 10, 45, 90])
def test_the_interpolated_latency_is_within_half_a_percent_of_the_exact_one(quantile, servers):
    rho = np.concatenate([np.geomspace(1e-4, 0.95, 300), 1 - np.geomspace(0.99, 0.03, 100)])
    exact = [1 + wait_quantile(r, servers, quantile) for r in rho]
    np.testing.assert_allclose(mdc(rho * servers, servers, 1.0, quantile), exact, rtol=0.005)


@pytest.mark.parametrize("servers", [8, 45, 90])
def test_the_interpolated_latency_is_within_half_a_percent_near_saturation(servers):
    rho = np.array([0.975, 0.98, 0.985])
    exact = [1 + wait_quantile(r, servers, 0.99) for r in rho]
    np.testing.assert_allclose(mdc(rho * servers, servers, 1.0, 0.99), exact, rtol=0.005)


def test_a_new_quantile_needs_few_exact_waits_and_none_of_one_server_near_saturation(monkeypatch):
    """An exact wait takes seconds at 99 % utilisation; 700 utilisations took half a minute."""
    computed, exact = [], kernels.wait_quantile
    monkeypatch.setattr(
        kernels, "wait_quantile", lambda rho, c, q: computed.append((c, rho)) or exact(rho, c, q)
    )
    mgc(0.5 * np.arange(1, 101), np.arange(1, 101), 1.0, 0.9713, service_scv=0.3)
    assert len(computed) <= 182 * 100
    assert max(rho for c, rho in computed if c < 10) <= 0.97


@pytest.mark.parametrize("servers", [600, 900])
def test_a_request_of_a_very_large_mdc_queue_does_not_wait_if_a_server_becomes_free(servers):
    below = np.cumsum(kernels.waiting_distribution(0.9, servers, 1e-12))
    arrivals = np.arange(servers)  # in one service time; those in service have left at its end
    none = stats.poisson.pmf(arrivals, 0.9 * servers) @ below[servers - 1 - arrivals]
    assert kernels.wait_cdf(0.0, 0.9, servers, below) == pytest.approx(none, rel=1e-9)


def test_a_thousand_servers_at_90_percent_hardly_make_anyone_wait():
    assert mdc(0.9 * 1000, 1000, 1.0, 0.99) < 1.1


def test_half_mmc_overestimates_mdc_for_few_servers_and_underestimates_it_for_many():
    assert half_mmc(1.0, 2, 1.0, 0.99) > mdc(1.0, 2, 1.0, 0.99)
    assert half_mmc(0.8 * 16, 16, 1.0, 0.99) < mdc(0.8 * 16, 16, 1.0, 0.99)


def test_mgc_equals_mdc_at_scv_0_and_mmc_at_scv_1_and_lies_between_them():
    at = (6.0, 4, 0.5, 0.99)
    assert mgc(*at, service_scv=0.0) == pytest.approx(mdc(*at))
    assert mgc(*at, service_scv=1.0) == pytest.approx(mmc(*at))
    assert mdc(*at) < mgc(*at, service_scv=0.3) < mmc(*at)


@given(rates, counts, services, quantiles, st.sampled_from([upper_bound, mmc, half_mmc, mdc]))
def test_more_replicas_never_increase_the_latency(rate, replicas, service, quantile, model):
    assert model(rate, replicas + 1, service, quantile) <= model(
        rate, replicas, service, quantile
    ) * (1 + 1e-3)


@given(
    rates,
    counts,
    services,
    quantiles,
    st.sampled_from(["upper-bound", "mmc", "half-mmc", "mdc", "mgc"]),
)
def test_the_relaxed_latency_is_finite_and_grows_with_the_rate(
    rate, replicas, service, quantile, model
):
    low, high = (
        latency(model, r, replicas, service, quantile, service_scv=0.4) for r in (rate, rate * 1.01)
    )
    assert np.isfinite(high)
    assert low <= high * (1 + 1e-9)


@given(counts, services, quantiles, st.floats(0.5, 0.99))
def test_the_relaxation_is_continuous_at_rho_max(replicas, service, quantile, rho_max):
    at = rho_max * replicas / service
    below, above = (
        relaxed(half_mmc, at * f, replicas, service, quantile, rho_max=rho_max)
        for f in (1 - 1e-9, 1 + 1e-9)
    )
    assert above == pytest.approx(below, rel=1e-5)


def test_fractional_replicas_are_rounded_down_in_the_erlang_sum_but_not_in_the_utilisation():
    blocked = 2.0**2 / 2 / (1 + 2.0 + 2.0**2 / 2)
    rho = 2.0 / 2.5
    assert erlang_c(2.0, 2.5) == pytest.approx(blocked / (1 - rho * (1 - blocked)))


def test_latency_functions_broadcast_their_arguments():
    shape = half_mmc(np.ones((3, 1)), np.arange(1, 6), 0.1, 0.99).shape
    assert shape == mdc(np.ones((3, 1)), np.arange(1, 6), 0.1, 0.99).shape == (3, 5)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((float("nan"), 1, 0.1, 0.99), "rate_rps=nan"),
        ((-1.0, 1, 0.1, 0.99), "rate_rps=-1.0"),
        ((1.0, 0, 0.1, 0.99), "replicas=0.0"),
        ((1.0, 1, 0.0, 0.99), "service_time_s=0.0"),
        ((1.0, 1, 0.1, 1.0), "quantile=1.0"),
    ],
)
def test_bad_input_is_named_with_what_is_accepted(arguments, field):
    with pytest.raises(ValueError, match=rf"{field} must be"):
        half_mmc(*arguments)


def test_an_unknown_model_is_named_with_what_is_accepted():
    with pytest.raises(
        ValueError, match=r"latency_model='mm1' is not a model; accepted: upper-bound, half-mmc"
    ):
        latency("mm1", 1.0, 1, 0.1, 0.99)

"""Faults during a simulated day: the loop continues, targets fit, and reasons are recorded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

import studies.paper.cilantro  # noqa: F401, registers Cilantro
from faro_lib.allocate.solve import SOLVERS
from faro_lib.control import GuardrailConfig, PolicyFailed
from faro_lib.forecast.kalman import LocalLevel, kalman
from faro_lib.metrics.measures import minute_utility
from faro_lib.policies import PolicyContext, make
from faro_lib.protocol import (
    CAPACITY,
    DRIFT_CORRECTED,
    FAILED,
    HOLD,
    JOB_ADDED,
    JOB_REMOVED,
    MISSING,
    REASONS,
)
from faro_lib.simulate import SimulatedCluster, draw, simulate
from faro_lib.workload import Workload
from faro_lib.workload.synthetic import synthetic
from studies.tables.run_tables import decisions_frame

SEED = 24
CAPACITY_CORES = 36
MINUTES = 60
FROM_S, UNTIL_S = 30 * 60.0, 35 * 60.0  # a fault of five minutes after half an hour
RECOVERED_MINUTE = 45
OTHERS = ("FairShare", "Oneshot", "HPA", "RayServe", "Cilantro", "MArk", "Faro-PenaltyFairSum")
POLICIES = ("AIAD", "Faro-Sum", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS))


@pytest.fixture(scope="module")
def traces():
    return synthetic(seed=1)


@pytest.fixture(scope="module")
def day(traces):
    return traces.workload().between(30, 30 + MINUTES)


@pytest.fixture(scope="module")
def draws(day):
    return draw(day, SEED)


@pytest.fixture(scope="module")
def context(traces, day):
    return PolicyContext(day.jobs, kalman(traces, seed=0))


@pytest.fixture
def decided(tmp_path):
    """The decisions.parquet of a run, after checks that every run must pass."""

    def read(run, capacity=lambda now_s: CAPACITY_CORES):
        assert (np.diff(run.decisions.time_s) > 0).all()
        assert run.decisions.time_s[-1] >= 60 * (MINUTES - 1)  # the loop went on to the end
        for now_s, target in zip(run.decisions.time_s, run.decisions.target):
            assert target.sum() <= capacity(now_s)
        decisions_frame(run).to_parquet(tmp_path / "decisions.parquet")
        decisions = pd.read_parquet(tmp_path / "decisions.parquet")
        assert set(decisions.reason) <= set(REASONS)
        return decisions

    return read


def recovered(run, undisturbed):
    """Whether the utility from RECOVERED_MINUTE on is within 0.2 % of that without the fault."""
    utility, reference = (
        np.nanmean(minute_utility(r)[:, RECOVERED_MINUTE:-1]) for r in (run, undisturbed)
    )
    return utility >= 0.998 * reference


@dataclass(frozen=True, slots=True)
class NoForecast(LocalLevel):
    """A forecaster that returns NaN for five minutes."""

    def sample(self, horizon=7, n=100):
        paths = super(NoForecast, self).sample(horizon, n)
        return np.full_like(paths, np.nan) if FROM_S <= 60 * self.minutes_seen <= UNTIL_S else paths


@pytest.fixture(scope="module")
def undisturbed(day, draws, context):
    return simulate(day, make("Faro-Sum", context), CAPACITY_CORES, draws=draws)


def test_a_day_without_faults_has_no_reasons_of_the_guardrails(undisturbed, decided):
    with warnings.catch_warnings():
        warnings.simplefilter("error", PolicyFailed)
        assert set(decided(undisturbed).reason) <= {"start", "planned", "reactive-scale-up", "hold"}


@pytest.mark.parametrize("fail_mode", ["hold", "fair-share"])
def test_when_forecasts_are_nan_the_fail_mode_applies(
    day, draws, context, undisturbed, decided, fail_mode
):
    fields = {
        name: getattr(context.forecaster, name) for name in context.forecaster.__dataclass_fields__
    }
    policy = make("Faro-Sum", replace(context, forecaster=NoForecast(**fields)))
    with pytest.warns(PolicyFailed):
        run = simulate(
            day, policy, CAPACITY_CORES, draws=draws, guardrails=GuardrailConfig(fail_mode)
        )
    decisions = decided(run)
    failed = decisions[decisions.reason == FAILED]
    assert len(failed) >= len(day.jobs)
    assert failed.time_s.between(
        FROM_S - 60, UNTIL_S + 60
    ).all()  # it plans up to a minute ahead of the count
    if fail_mode == "fair-share":
        assert (
            failed.replicas_target <= CAPACITY_CORES // len(day.jobs)
        ).mean() > 0.8  # 3 each, but for jobs that are changing
    assert (decisions[decisions.time_s > UNTIL_S + 60].reason == "planned").any()
    assert recovered(run, undisturbed)


def test_when_the_solver_raises_five_decisions_fail_and_the_next_succeed(
    day, draws, context, undisturbed, decided, monkeypatch
):
    exact = SOLVERS["exact"]
    calls = []

    def failing(problem, **options):
        calls.append(problem)
        if 20 <= len(calls) < 25:
            raise ArithmeticError("no solution")
        return exact(problem, **options)

    monkeypatch.setitem(SOLVERS, "exact", failing)
    with pytest.warns(PolicyFailed, match="no solution"):
        run = simulate(day, make("Faro-Sum", context), CAPACITY_CORES, draws=draws)
    decisions = decided(run)
    failed = decisions[decisions.reason == FAILED]
    assert (failed.groupby("time_s").size() == len(day.jobs)).all()  # for each job
    assert failed.time_s.nunique() == 5
    assert (decisions[decisions.time_s > failed.time_s.max()].reason == "planned").any()
    assert recovered(run, undisturbed)


def data_missing(observe):
    def observed(cluster):
        observation = observe(cluster)
        nothing = np.full(len(observation.target), np.nan)
        counts = observation.arrivals_per_min.copy()
        counts[:, -1] = np.nan
        return replace(
            observation,
            arrivals_per_min=counts,
            mean_latency_s=nothing,
            tail_latency_s=nothing,
            ongoing=nothing,
        )

    return observed


@pytest.mark.parametrize("name", POLICIES)
def test_when_observations_stop_targets_are_held_after_a_minute(
    day, draws, context, decided, monkeypatch, name
):
    observe = SimulatedCluster.observe
    broken = data_missing(observe)
    monkeypatch.setattr(
        SimulatedCluster,
        "observe",
        lambda c: broken(c) if FROM_S < c.now_s <= UNTIL_S else observe(c),
    )
    policy = make(name, context)
    run = simulate(day, policy, CAPACITY_CORES, draws=draws)
    decisions = decided(run)
    missing = decisions[decisions.reason == MISSING]
    # More than 60 s without data.
    ticks = np.arange(FROM_S + 60 + policy.tick_s, UNTIL_S + 1, policy.tick_s)
    assert sorted(missing.time_s.unique()) == ticks.tolist()
    assert (missing.groupby("time_s").size() == len(day.jobs)).all()
    held = missing.sort_values("time_s").groupby("job").replicas_target
    assert (held.first() == held.last()).all()
    assert (decisions[decisions.time_s > UNTIL_S].reason != HOLD).any() or name == "FairShare"


@pytest.mark.parametrize("name", POLICIES)
def test_after_capacity_shrinks_by_a_third_the_targets_fit_and_no_job_is_without_replicas(
    day, draws, context, decided, name
):
    run = simulate(
        day, make(name, context), CAPACITY_CORES, draws=draws, capacity_steps=((FROM_S - 1, 24.0),)
    )
    decisions = decided(run, lambda now_s: 36 if now_s < FROM_S - 1 else 24)
    before = np.searchsorted(run.decisions.time_s, FROM_S) - 1
    if run.decisions.target[before].sum() > 24 and name != "FairShare":
        at_once = decisions[decisions.time_s == run.decisions.time_s[before + 1]]
        assert (at_once.reason == CAPACITY).any() or (at_once.reason == "planned").any()
    # Every job keeps a replica, and no more replicas serve than fit.
    assert (np.array(run.decisions.target) >= 1).all()
    assert run.decisions.running[-1].sum() <= 24


def test_replicas_that_no_longer_fit_have_the_reason_capacity(day, draws, context, decided):
    steps = ((FROM_S + 5, 24.0),)  # not at a tick of the long-term loop
    run = simulate(
        day, make("Faro-Sum", context), CAPACITY_CORES, draws=draws, capacity_steps=steps
    )
    decisions = decided(run, lambda now_s: 36 if now_s < FROM_S + 5 else 24)
    at_once = decisions[decisions.time_s == FROM_S + 10]
    assert (at_once.reason == CAPACITY).any()


@pytest.mark.parametrize("name", POLICIES)
def test_an_added_job_starts_at_its_minimum_and_a_removed_job_gives_up_its_replicas(
    day, draws, context, decided, name
):
    added_s, removed_s = 25 * 60.0, 50 * 60.0
    counts = day.requests_per_min.copy()
    counts[0, :25], counts[1, 50:] = 0, 0
    workload = Workload(day.jobs, counts)
    policy = make(name, context)
    run = simulate(
        workload,
        policy,
        CAPACITY_CORES,
        SEED,
        lifetimes=((0, added_s, np.inf), (1, 0.0, removed_s)),
    )
    decisions = decided(run)
    time_s = np.array(run.decisions.time_s)
    target = np.array(run.decisions.target)
    assert (target[time_s < added_s, 0] == 0).all()
    assert (target[time_s >= added_s, 0] >= 1).all()
    assert (target[time_s < removed_s, 1] >= 1).all()
    assert (target[time_s >= removed_s, 1] == 0).all()
    (added,), (removed,) = (
        decisions[decisions.reason == JOB_ADDED].index,
        decisions[decisions.reason == JOB_REMOVED].index,
    )
    assert decisions.loc[added, ["time_s", "job", "replicas_target"]].tolist() == [
        added_s,
        "job0",
        1,
    ]
    assert decisions.loc[removed, ["time_s", "job", "replicas_target"]].tolist() == [
        removed_s,
        "job1",
        0,
    ]
    served = run.requests - run.dropped
    assert served[0, 30:MINUTES].sum() > 0.5 * run.requests[0, 30:MINUTES].sum()
    assert served[1, :50].sum() > 0.5 * run.requests[1, :50].sum()


def test_targets_changed_by_another_client_are_restored(
    day, draws, context, undisturbed, decided, monkeypatch
):
    observe = SimulatedCluster.observe

    def meddled(cluster):
        if cluster.now_s == FROM_S + 10:
            cluster.apply(np.ones(len(day.jobs), int), np.zeros(len(day.jobs)))
        return observe(cluster)

    monkeypatch.setattr(SimulatedCluster, "observe", meddled)
    run = simulate(day, make("Faro-Sum", context), CAPACITY_CORES, draws=draws)
    decisions = decided(run)
    corrected = decisions[decisions.reason == DRIFT_CORRECTED]
    assert set(corrected.time_s) == {FROM_S + 10}
    before = decisions[(decisions.time_s < FROM_S + 10)].groupby("job").replicas_target.last()
    assert (corrected.set_index("job").replicas_target == before[corrected.job]).all()
    assert recovered(run, undisturbed)

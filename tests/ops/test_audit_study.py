"""What `faro audit` says of twenty recorded runs with known truth holds (`make test-studies`)."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import recorded_worlds as worlds

from faro_lib import forecast
from faro_lib.policies import PolicyContext, make
from faro_lib.simulate.measure import measure
from faro_lib.workload.shares import fair_share
from faro_ops.advise.audit.audit import WAITING, audit

pytestmark = [pytest.mark.study, pytest.mark.slow]
WORLDS = range(1, 21)
WRONG = (1.0, 2.0, 1.0, 0.5)  # factors on the first service's time in the table, in turn


def outcome(seed: int) -> dict:
    """What the audit says of one world, beside the truth."""
    world = worlds.world(seed, WRONG[seed % len(WRONG)])
    records, late = worlds.recorded(world)
    result = audit(records, world.capacity, policies=("Faro-Sum",), report=lambda line: None)
    services = [
        {
            "refused": bool(one.refusal),
            "refusal": one.refusal,
            "late": float(truth),
            "interval": one.violation_rate.tolist(),
            "busy": float(1 / one.calibration.capacity_rps[1]) / true_s
            if one.calibration
            else np.nan,
        }
        for one, truth, true_s in zip(result.services, late, world.true_s)
    ]
    found = {"seed": seed, "services": services, "lost": np.nan, "counterfactual": None}
    if not any(one["refused"] for one in services):  # Faro then runs with what the audit has found
        jobs = tuple(one.job for one in result.services)
        untrained = replace(
            records.history.traces, jobs=jobs, train=records.history.traces.train[:0]
        )
        latency_model = measure(jobs, capacity=world.capacity, serving_model=WAITING)
        policy = make(
            "Faro-Sum", PolicyContext(jobs, forecast.fit("auto", untrained), latency_model)
        )
        later = worlds.run_policy(world, policy, jobs, fair_share(jobs, world.capacity))
        found["lost"] = worlds.lost(world, later)
        found["counterfactual"] = result.policies["Faro-Sum"]["lost_utility"].tolist()
    return found


@pytest.fixture(scope="module")
def outcomes():
    with ProcessPoolExecutor() as pool:
        return list(pool.map(outcome, WORLDS))


def test_the_interval_holds_the_late_requests_of_what_ran(outcomes):
    kept = [one for world in outcomes for one in world["services"] if not one["refused"]]
    held = [one["interval"][0] <= one["late"] <= one["interval"][2] for one in kept]
    assert len(kept) >= 20
    assert np.mean(held) >= 0.85


def test_a_wrong_service_time_is_found_or_refused(outcomes):
    for world in outcomes:
        for one in world["services"]:
            assert one["refused"] or abs(one["busy"] - 1) <= 0.15, world


def test_a_later_run_of_faro_lies_in_the_interval(outcomes):
    runs = [world for world in outcomes if world["counterfactual"]]
    held = [
        world["counterfactual"][0] <= world["lost"] <= world["counterfactual"][2] for world in runs
    ]
    assert len(runs) >= 10
    assert np.mean(held) >= 0.8

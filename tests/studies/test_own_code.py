"""Autoscalers of other projects in a process: the protocol, and by which rules their own code
differs from our readings.
"""

import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from observations import observed

from faro_lib.control import PolicyFailed
from faro_lib.policies import HPA
from faro_lib.policies.platforms import RayServe
from faro_lib.simulate import simulate
from faro_lib.workload import Job, Workload
from studies.arena.agreement import KEPT, compared
from studies.arena.as_built import BUILT
from studies.arena.hpa_behavior import SLOW_DOWN, BehaviorHPA
from studies.arena.keda import KEDA
from studies.arena.knative import KPA
from studies.arena.own_code import OWN, Bridge, OwnCode, ProcessFailed, program

JOB = (Job("a", service_time_s=0.2),)
# A child that asks for one replica more, and says what it read last.
CHILD = """
import json, sys
start = json.loads(sys.stdin.readline())
print(json.dumps({"versions": {"child": "1.0"}}), flush=True)
for line in sys.stdin:
    tick = json.loads(line)
    %s
    print(json.dumps({"target": [n + 1 for n in tick["target"]], "tick": tick}), flush=True)
"""


def child(line="pass") -> tuple[str, ...]:
    return (sys.executable, "-c", CHILD % line)


def a_tick(target, now_s, rate_rps=0.0, busy_s=None, **fields):
    """An observation of one job."""
    arrivals = np.array([[rate_rps * 60]])
    measured = None if busy_s is None else np.array([busy_s])
    return observed([target], now_s=now_s, arrivals_per_min=arrivals, busy_s=measured, **fields)


def test_a_process_gets_a_line_per_tick_with_the_simulated_time():
    policy = OwnCode(10.0, child())
    state, plan = policy.decide(policy.start(JOB), a_tick(3, 10.0))
    assert (state.versions, plan.target.tolist()) == ({"child": "1.0"}, [4])
    answer = state.bridge.ask({"now_s": 20.0, "target": [5], "ongoing": [None]})
    assert answer["tick"] == {"now_s": 20.0, "target": [5], "ongoing": [None]}


def test_an_unknown_number_is_null():
    policy = OwnCode(10.0, child("assert tick['ongoing'] == [None] and tick['busy_s'] == [0.2]"))
    _, plan = policy.decide(policy.start(JOB), a_tick(3, 10.0, ongoing=np.array([np.nan])))
    assert plan.target.tolist() == [4]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("print('disk full', file=sys.stderr); sys.exit(3)", "ended with status 3: disk full"),
        ("print('disk full', file=sys.stderr); sys.stdin.close(); break", "status 0: disk full"),
        ("print('{', flush=True)", "answered '{', not JSON"),
        ("print(json.dumps({'error': 'no metric'}), flush=True)", "no metric"),
    ],
)
def test_a_process_that_fails_is_one_line(line, message):
    bridge = Bridge(child(line))
    bridge.ask({})
    with pytest.raises(ProcessFailed, match=message) as raised:
        bridge.ask({"target": [1]})
    assert "\n" not in str(raised.value)


def test_a_process_that_does_not_answer_in_time_is_one_line():
    bridge = Bridge((sys.executable, "-c", "import sys; sys.stdin.read()"))
    with pytest.raises(ProcessFailed, match=r"no answer within 0\.1 s$"):
        bridge.ask({}, 0.1)
    bridge.close()


def test_a_program_that_is_missing_says_how_to_build_it():
    with pytest.raises(ProcessFailed, match=r"studies.arena.agreement --build"):
        Bridge(("/nowhere/own", "hpa"))


@pytest.mark.slow
def test_a_run_holds_its_replicas_when_the_process_has_died():
    workload = Workload(JOB, np.full((1, 4), 60))
    policy = OwnCode(30.0, child("tick['now_s'] > 60 and sys.exit(3)"))
    with warnings.catch_warnings(record=True, category=PolicyFailed, action="always") as caught:
        simulate(workload, policy, 20.0, seed=1)
    assert len(caught) == 5  # of 7 ticks
    assert "ended with status 3" in str(caught[0].message)


@pytest.mark.slow
def test_ray_decides_as_our_reading_when_its_window_has_one_sample():
    """`_apply_delay_logic` and the policy of Ray 2.60; only their means over a window differ."""
    ray = pytest.importorskip("ray.serve.autoscaling_policy")
    from ray.serve.config import AutoscalingConfig

    config = AutoscalingConfig(min_replicas=1, max_replicas=100)
    reading = RayServe(look_back_s=10.0)
    state, policy_state = reading.start(JOB), {}
    rng = np.random.default_rng(3)
    target, targets = 5, []
    for tick in range(1, 3000):
        # Long stretches of much and of little load, so that both delays pass.
        ongoing = float(rng.poisson(30 if tick // 100 % 2 else 6))
        now_s = 10.0 * tick
        state, plan = reading.decide(state, a_tick(target, now_s, ongoing=np.array([ongoing])))
        desired = ray._apply_scaling_factors(ongoing / 2, target, config)
        desired = min(max(desired, 1), 100)
        ours = int(plan.target[0])
        theirs, policy_state = ray._apply_delay_logic(
            desired, target, config, policy_state, _now=now_s
        )
        assert theirs == ours, f"tick {tick}"
        target = ours
        targets.append(target)
    assert len(set(targets)) > 5
    assert min(np.diff(targets)) < 0 < max(np.diff(targets))


@pytest.mark.slow
def test_ray_averages_over_time_and_so_leaves_out_the_sample_of_this_moment():
    ours, theirs = RayServe(up_after_s=0.0), OWN["RayServe-2.60"]()
    state, other = ours.start(JOB), theirs.start(JOB)
    asked = []
    for tick, ongoing in enumerate([0.0, 0.0, 59.0, 59.0, 59.0, 59.0, 59.0], start=1):
        now = a_tick(1, 10.0 * tick, ongoing=np.array([ongoing]))
        state, plan = ours.decide(state, now)
        other, own = theirs.decide(other, now)
        asked.append((int(plan.target[0]), int(own.target[0])))
    assert other.versions["ray"]
    # Our mean is 19.7 at the third tick. Ray's is 0: the 59 have lasted for no time. Ray asks for
    # more from the fourth tick on, and acts 30 s later.
    assert asked[2] == (10, 1)
    assert asked[6] == (30, 30)


# The programs in Go: `python -m studies.arena.agreement --build`.
go = pytest.mark.skipif(not program().exists(), reason="`make rivals` builds it")


def both(reading, ticks):
    """Targets of our reading and of the own code, for the same observations."""
    own = OWN[reading.name]()
    state, other = reading.start(JOB), own.start(JOB)
    targets = []
    for now in ticks:
        state, plan = reading.decide(state, now)
        other, answer = own.decide(other, now)
        targets.append((int(plan.target[0]), int(answer.target[0])))
    return targets


@go
@pytest.mark.slow
def test_kubernetes_decides_as_our_reading_on_steady_pods():
    rng = np.random.default_rng(1)
    rates = rng.uniform(5, 20, 400).repeat(4)
    # Whole per cents of eight pods, so that nothing is cut off.
    ticks = [
        a_tick(8, 15.0 * n, rate_rps=np.round(rate * 2.5) / 2.5, busy_s=0.2)
        for n, rate in enumerate(rates, start=1)
    ]
    ours, theirs = np.array(both(HPA(), ticks)).T
    assert (ours == theirs).mean() > 0.95
    assert len(set(theirs)) > 3


@go
@pytest.mark.slow
def test_kubernetes_limits_a_scale_up_to_twice_the_pods_or_four():
    """Its page says 4 pods or 100 % more, as in an HPA with a `behavior`. Without one, the
    controller has limits of its own: `calculateScaleUpLimit`.
    """
    ten = a_tick(1, 15.0, rate_rps=40.0)
    assert both(KEDA(), [ten]) == [(5, 4)]


@go
@pytest.mark.slow
def test_kubernetes_goes_up_to_the_highest_recommendation_of_five_minutes():
    """Our reading only limits the way down by it."""
    much, less = a_tick(4, 15.0, rate_rps=40.0), a_tick(4, 30.0, rate_rps=20.0)
    assert both(KEDA(), [much, less]) == [(8, 8), (5, 8)]


@go
@pytest.mark.slow
def test_kubernetes_keeps_a_recommendation_that_is_five_minutes_old():
    first = a_tick(10, 15.0, rate_rps=40.0)
    later = [a_tick(10, 15.0 * n, rate_rps=20.0) for n in range(2, 24)]
    ours, theirs = zip(*both(KEDA(), [first, *later]))
    assert (ours.index(5), theirs.index(5)) == (20, 21)


@go
@pytest.mark.slow
def test_kubernetes_cuts_a_utilisation_off_to_whole_per_cents():
    """88.9 % of 8 pods are 1.11 of the target, but 88 % are within the tolerance."""
    now = a_tick(8, 15.0, rate_rps=8 * 0.889 / 0.2, busy_s=0.2)
    assert both(HPA(), [now]) == [(9, 8)]


@go
@pytest.mark.slow
def test_kubernetes_counts_a_pod_as_idle_until_its_cpu_was_measured_for_a_window():
    one = a_tick(2, 15.0, rate_rps=1.0, running=np.array([1]), starting=np.array([1]))
    two = [a_tick(2, now_s, rate_rps=20.0) for now_s in (30.0, 45.0)]
    assert both(HPA(), [one, *two])[1:] == [(3, 2), (3, 3)]


@go
@pytest.mark.slow
def test_knative_panics_for_a_tick_longer():
    """Until later than a stable window after the last reason, not until then."""
    busy = [a_tick(1, 2.0, ongoing=np.array([10.0]))]
    calm = [a_tick(15, 2.0 * n, ongoing=np.array([1.0])) for n in range(2, 60)]
    ours, theirs = zip(*both(KPA(), [*busy, *calm]))
    assert ours[0] == theirs[0] == 15
    fell = [next(n for n, pods in enumerate(path) if pods < 15) for path in (ours, theirs)]
    assert fell[1] == fell[0] + 1


def random_ticks(policies, own, cold_start, ceiling, ticks=500):
    """By policy, the share of targets that equal those of `own`, whose targets are followed.

    The loads of ten services drift, replicas start after `cold_start` ticks, and half of the time a
    service may not have more than `ceiling`.
    """
    rng = np.random.default_rng(7)
    jobs = tuple(Job(str(n), service_time_s=0.2) for n in range(10))
    states, other = [policy.start(jobs) for policy in policies], own.start(jobs)
    target = running = np.ones(10, np.int64)
    begun = []  # (tick at which a replica serves, job)
    rate_rps, equal = rng.uniform(1, 30, 10), []
    for tick in range(1, ticks):
        if tick % 4 == 1:
            rate_rps = np.clip(rate_rps * np.exp(rng.normal(0, 0.15, 10)), 0.5, 60)
        ready = [job for at, job in begun if at <= tick]
        begun = [(at, job) for at, job in begun if at > tick]
        running = np.minimum(running + np.bincount(ready, minlength=10), target)
        now = observed(
            target,
            capacity=200.0,
            now_s=own.tick_s * tick,
            arrivals_per_min=rate_rps[:, None] * 60,
            running=running,
            starting=target - running,
            ongoing=rng.poisson(rate_rps * 0.3).astype(float),
        )
        other, answer = own.decide(other, now)
        decided = [policy.decide(state, now) for policy, state in zip(policies, states)]
        states = [state for state, _ in decided]
        equal.append([(plan.target == answer.target).mean() for _, plan in decided])
        target = answer.target
        if rng.random() < 0.5:
            target = np.minimum(target, ceiling)
        running = np.minimum(running, target)
        starting = target - running
        begun = [
            (at, job)
            for n, (at, job) in enumerate(begun)
            if sum(one == job for _, one in begun[:n]) < starting[job]
        ]
        waiting = np.bincount([job for _, job in begun], minlength=10)
        for job in np.repeat(np.arange(10), starting - waiting):
            begun.append((tick + cold_start, job))
    return np.mean(equal, axis=0)


READINGS = (HPA(), BehaviorHPA(down=SLOW_DOWN, stabilisation_s=60.0), KEDA(), KPA(), RayServe())


@go
@pytest.mark.slow
@pytest.mark.parametrize(("cold_start", "ceiling"), [(2, 6), (30, 100)])
@pytest.mark.parametrize("reading", READINGS, ids=lambda one: one.name)
def test_our_readings_with_these_rules_ask_for_what_the_own_code_asks(reading, cold_start, ceiling):
    policies = (BUILT[reading.name], reading)
    with_rules, without = random_ticks(policies, OWN[reading.name](), cold_start, ceiling)
    assert with_rules == 1
    assert without < 1


@go
@pytest.mark.slow
def test_a_comparison_makes_a_row_of_the_recorded_table():
    row, differences = compared("HPA", "giant-v1", "public", 106)
    recorded = pd.read_csv(KEPT / "own-code.csv")
    assert list(row) == list(recorded.columns)
    assert row["equal"] < row["decisions"]
    assert set(differences) >= {"reading", "own", "now_s", "job"}

"""Earned authority: what its statistical tests promise, and what each level allows."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from observations import observed

from faro_lib import forecast
from faro_lib.control import Memory, PolicyFailed
from faro_lib.policies import PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.protocol import HOLD, PLANNED, Plan
from faro_lib.simulate import draw, simulate
from faro_lib.simulate.cluster import PAPER, SimulatedCluster
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job, Workload
from faro_lib.workload.synthetic import synthetic
from faro_lib.workload.tables import load_workload
from faro_ops import cli
from faro_ops.journal.reading import read
from faro_ops.journal.writing import Journal
from faro_ops.operate.limits.authority import (
    ADVISE,
    ALPHA,
    CEILINGS,
    FULL,
    LEVELS,
    MARGIN,
    ONE,
    Authority,
    WithAuthority,
    expected_loss,
    implausible,
    judged,
    limited_jobs,
    limited_plan,
    weighed,
    with_evidence,
)
from faro_ops.operate.limits.bounds import HAND_BACK, KEEP_FLOOR, AsBounds
from faro_ops.operate.limits.earned import announcing, recorded_authority
from faro_ops.operate.loop import loop
from faro_ops.operate.loop.resume import resume_run
from faro_ops.operate.loop.tick import tick
from faro_ops.protocol import AUTHORITY, LiveGuardrails, LivePlan

MINUTES_24_DAYS = 24 * 1440
JOB = Job("a", slo_s=0.4, service_time_s=0.1, service_scv=0.2, model="own")


# --- the statistics -------------------------------------------------------------------------------


def first_rollback(lost, expected, doubled=None):
    """Minute (services,) at which each service steps back from FULL, -1 if it never does.

    The arguments are arrays (minutes, services).
    """
    authority = Authority.none(lost.shape[1], FULL)
    first = np.full(lost.shape[1], -1)
    for minute, (y, p) in enumerate(zip(lost, expected)):
        counted = np.ones(len(y), bool)
        authority = judged(
            weighed(authority, y, p, p if doubled is None else doubled[minute], counted, counted)
        )
        first = np.where((first < 0) & (authority.level < FULL), minute, first)
    return first


def test_a_service_at_the_margin_of_its_model_is_rolled_back_in_24_days_as_rarely_as_alpha_says():
    means = np.array([0.0, 0.02, 0.3])
    services = 100  # of each mean
    expected = np.tile(means.repeat(services), (MINUTES_24_DAYS, 1))
    random = np.tile(np.random.default_rng(1).random((MINUTES_24_DAYS, services)), len(means))
    lost = (random < expected + MARGIN).astype(float)  # the worst that the hypothesis allows
    rolled_back = (first_rollback(lost, expected) >= 0).reshape(len(means), services).mean(axis=1)
    assert (rolled_back <= ALPHA + 2 * np.sqrt(ALPHA / services)).all(), rolled_back


def test_a_service_that_agrees_with_its_model_is_never_rolled_back_in_24_days():
    rng = np.random.default_rng(2)
    expected = np.clip(0.3 * np.sin(np.arange(MINUTES_24_DAYS) / 1440 * 2 * np.pi), 0, 1)[
        :, None
    ] * np.ones(20)
    lost = np.clip(expected + rng.normal(0, 0.05, expected.shape), 0, 1)
    assert (first_rollback(lost, expected) == -1).all()


@pytest.mark.parametrize(("loss", "within"), [(0.5, 3), (0.3, 5), (0.15, 60)])
def test_a_service_that_is_slower_from_the_start_is_rolled_back_the_sooner_the_more_it_loses(
    loss, within
):
    rng = np.random.default_rng(3)
    lost = np.clip(rng.normal(loss, 0.1, (100, 50)), 0, 1)
    first = first_rollback(lost, np.zeros(lost.shape))
    assert (first >= 0).all()
    assert np.quantile(first + 1, 0.9) <= within


def test_a_change_after_20_good_days_is_noticed_within_ten_minutes():
    lost = np.zeros((20 * 1440 + 30, 1))
    lost[20 * 1440 :] = 0.5
    (first,) = first_rollback(lost, np.zeros(lost.shape))
    assert 0 <= first - 20 * 1440 < 10


def test_authority_grows_only_from_minutes_that_a_service_time_twice_as_long_would_spoil():
    authority = Authority.none(2)
    counted = np.ones(2, bool)
    levels = []
    for _ in range(60):
        authority = judged(
            weighed(authority, np.zeros(2), np.zeros(2), np.array([0.6, 0.1]), counted, counted)
        )
        levels.append(authority.level)
    levels = np.array(levels)
    assert (np.diff(levels[:, 0]) <= 1).all()
    assert levels[-1].tolist() == [FULL, ADVISE], "the second service has no load that would tell"


def test_a_service_that_is_twice_as_slow_earns_a_level_in_30_days_at_most_as_often_as_alpha_says():
    rng = np.random.default_rng(4)
    services = 200
    doubled = np.full(services, 0.5)
    authority = Authority.none(services)
    earned = np.zeros(services, bool)
    for _ in range(MINUTES_24_DAYS):
        # The least that the hypothesis allows.
        lost = (rng.random(services) < doubled / 2).astype(float)
        authority = weighed(
            authority, lost, np.zeros(services), doubled, *np.ones((2, services), bool)
        )
        earned |= authority.trust >= 2 / ALPHA
    assert earned.mean() <= ALPHA + 2 * np.sqrt(ALPHA / services)


# --- what is paired -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(coarse_tables):
    return measure((JOB,))


def minute(n, count=300.0, running=2, latency_s=0.1, tail_s=0.2, **fields):
    history = np.full((1, min(n, 15)), count) + np.arange(min(n, 15))[::-1] % 7
    defaults = dict(
        now_s=60.0 * n, minute=n, arrivals_per_min=history, tail_latency_s=np.array([tail_s])
    )
    defaults |= dict(
        mean_latency_s=np.array([latency_s + n * 1e-6]), ongoing=np.array([count / 60 * latency_s])
    )
    return observed([running], **(defaults | fields))


def test_at_twice_the_service_time_the_model_expects_the_loss_of_a_service_that_is_twice_as_slow(
    model,
):
    slow = replace(JOB, service_time_s=0.2, slo_s=0.4)
    rates = np.array([6.0])
    expected = expected_loss((JOB,), rates, np.array([2]), model, slower=2.0)
    own = expected_loss((slow,), rates, np.array([2]), measure((slow,)))
    assert expected[0] == pytest.approx(own[0], abs=0.08)
    assert expected[0] > 10 * expected_loss((JOB,), rates, np.array([2]), model)[0]


def test_a_minute_counts_once_and_not_if_data_is_missing(model):
    start = replace(Authority.none(1), running=np.array([2.0]), minute=np.array([4.0]))
    counted = with_evidence(start, (JOB,), minute(5, tail_s=0.8), model)
    assert counted.doubt[0] > 1
    assert with_evidence(counted, (JOB,), minute(5, tail_s=0.8), model) is counted
    for fields in (
        dict(tail_latency_s=np.array([np.nan])),
        dict(arrivals_per_min=np.array([[300.0, np.nan]])),
    ):
        assert with_evidence(start, (JOB,), minute(5, tail_s=0.8, **fields), model).doubt[0] == 1, (
            fields
        )


def test_while_replicas_change_only_the_fewer_are_expected_to_serve_and_nothing_is_earned(model):
    before = replace(Authority.none(1), running=np.array([1.0]), minute=np.array([4.0]))
    # One replica would be overloaded.
    grown = minute(5, count=500.0, tail_s=0.8, starting=np.array([0]))
    assert with_evidence(before, (JOB,), grown, model).doubt[0] == 1, (
        "a large loss is no surprise with one replica"
    )
    same = replace(before, running=np.array([2.0]))
    assert with_evidence(same, (JOB,), grown, model).doubt[0] > 1
    good = with_evidence(same, (JOB,), minute(5, count=500.0), model)
    assert good.trust[0] > 1
    changing = minute(5, count=500.0, changing=np.array([True]))
    assert with_evidence(same, (JOB,), changing, model).trust[0] == 1


# --- metrics that cannot be right -----------------------------------------------------------------


def level_after(model, observations):
    authority = replace(Authority.none(1, FULL), running=np.array([2.0]))
    levels = []
    for one in observations:
        authority = with_evidence(authority, (JOB,), one, model)
        levels.append(int(authority.level[0]))
    return levels


def frozen(n):
    return minute(n, mean_latency_s=np.array([0.123]), arrivals_per_min=np.full((1, 15), 300.0))


def wrong_unit(factor):
    def of(n):
        history = np.full((1, 15), 300.0)
        history[0, 15 - min(n - 20, 14) :] *= factor
        return minute(n, arrivals_per_min=history)

    return of


def test_the_same_count_in_two_minutes_without_a_latency_is_not_frozen(model):
    quiet = dict(mean_latency_s=np.array([0.0]), arrivals_per_min=np.full((1, 15), 2.0))
    assert level_after(model, [minute(n, **quiet) for n in range(10, 15)]) == [FULL] * 5


@pytest.mark.parametrize(
    "broken", [frozen, wrong_unit(60), wrong_unit(1 / 60)], ids=["frozen", "x 60", "/ 60"]
)
def test_metrics_that_cannot_be_right_take_the_authority_away_within_two_minutes(model, broken):
    good = [minute(n) for n in range(10, 21)]
    assert set(level_after(model, good)) == {FULL}
    levels = level_after(model, [*good, broken(21), broken(22), broken(23)])
    assert levels[-1] == levels[len(good) + 1 + (broken is frozen)] == ADVISE


def test_a_count_that_was_60_times_too_high_from_the_start_is_impossible(model):
    assert level_after(model, [minute(n, count=60 * 300.0) for n in range(1, 3)])[-1] == ADVISE


def test_a_count_that_was_60_times_too_low_contradicts_the_requests_in_the_system():
    busy = Job("b", service_time_s=0.5)
    one = minute(5, count=20.0, running=12, latency_s=0.5, ongoing=np.array([10.0]))
    assert implausible(Authority.none(1), (busy,), one).all()


def test_on_14_real_days_of_six_functions_no_two_minutes_in_a_row_look_implausible():
    traces = load_workload("data/azure-2019.csv.gz", "data/azure-2019-jobs.csv")
    counts = np.concatenate([*traces.train[:, 0], traces.evaluation[0]], axis=1).astype(float)
    jobs = traces.jobs * (counts.shape[1] - 15)  # every minute at once, as if it were a service
    history = (
        np.lib.stride_tricks.sliding_window_view(counts, 15, axis=1)[:, 1:]
        .transpose(1, 0, 2)
        .reshape(-1, 15)
    )
    latency_s = 0.1 + 1e-6 * np.arange(len(history))
    at = observed(np.full(len(history), 50), arrivals_per_min=history, mean_latency_s=latency_s)
    odd = implausible(
        Authority.none(len(history)), jobs, replace(at, ongoing=history[:, -1] / 60 * latency_s)
    )
    odd = odd.reshape(-1, 6)
    assert not (odd[1:] & odd[:-1]).any()


def test_missing_data_costs_the_authority_after_four_minutes(model):
    lost = [minute(n, mean_latency_s=np.array([np.nan])) for n in range(20, 24)]
    assert level_after(model, [minute(19), *lost]) == [FULL] * 4 + [ADVISE]


# --- what a level allows --------------------------------------------------------------------------


def test_a_level_bounds_the_replicas():
    jobs = tuple(Job(name, max_replicas=9) for name in "abcd")
    now = np.array([4, 4, 4, 4])
    level = np.arange(4)
    replicas = [
        (job.min_replicas, job.max_replicas)
        for job in limited_jobs(jobs, level, now, sets_bounds=False)
    ]
    assert replicas == [(4, 4), (4, 4), (3, 5), (1, 9)]
    bounded = [
        (job.min_replicas, job.max_replicas)
        for job in limited_jobs(jobs, level, now, sets_bounds=True)
    ]
    assert bounded == [(4, 4), (1, 9), (3, 5), (1, 9)]


def test_a_service_that_is_only_advised_gets_its_own_autoscaler_back_and_from_one_on_faro_chooses():
    plan = LivePlan(
        np.array([3, 5, 5, 5]), np.zeros(4), (PLANNED,) * 4, floor=np.array([1, 2, 2, 2])
    )
    authority = replace(Authority.none(4), level=np.arange(4.0))
    bounded = limited_plan(plan, authority, np.array([4, 4, 4, 4]), sets_bounds=True)
    assert bounded.floor.tolist() == [HAND_BACK, 2, 5, 5]
    assert bounded.target.tolist() == [4, 5, 5, 5]
    assert bounded.reason == (AUTHORITY, PLANNED, PLANNED, PLANNED)
    held = limited_plan(
        replace(plan, floor=None), authority, np.array([4, 4, 4, 4]), sets_bounds=True
    )
    assert held.floor.tolist() == [HAND_BACK, KEEP_FLOOR, KEEP_FLOOR, KEEP_FLOOR]
    assert [LEVELS[n] for n in (ADVISE, CEILINGS, ONE, FULL)] == list(LEVELS)


@pytest.mark.parametrize(
    ("is_bounding", "drop"), [(False, [0, 0, 0.4, 0.4]), (True, [0, 0.4, 0.4, 0.4])]
)
def test_requests_are_dropped_only_of_a_service_that_faro_may_change(is_bounding, drop):
    plan = Plan(np.array([4, 4, 4, 4]), np.full(4, 0.4), (PLANNED,) * 4)
    authority = replace(Authority.none(4), level=np.arange(4.0))
    assert limited_plan(plan, authority, plan.target, is_bounding).drop.tolist() == drop


# --- in the loop ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def traces():
    return synthetic(seed=2, jobs=3, days=2, minutes=60)


@pytest.fixture(scope="module")
def context(traces, coarse_tables):
    return PolicyContext(traces.jobs, forecast.fit("ar", traces), measure(traces.jobs))


def run(workload, policy, capacity=14, **options):
    """The steps of a simulation; `draws` are its requests and their service times."""
    steps = []
    draws = options.pop("draws", None) or draw(workload, 24, router=PAPER.router)
    simulate(workload, policy, capacity, draws=draws, on_step=steps.append, **options)
    return steps


def slower(workload, job, factor):
    """The requests of the workload; those of one job really take `factor` times as long."""
    changed = replace(
        workload.jobs[job], model="slow", service_time_s=factor * 0.18, service_scv=0.2
    )
    jobs = (*workload.jobs[:job], changed, *workload.jobs[job + 1 :])
    return draw(replace(workload, jobs=jobs), 24, router=PAPER.router)


def busy(traces, per_min=900):
    return Workload(traces.jobs, np.full((3, 60), per_min))


def test_a_service_time_that_is_twice_as_long_is_rolled_back_within_five_minutes_of_load(
    traces, context
):
    policy = WithAuthority.of(tuned(context), Authority.none(3, FULL))
    day = busy(traces)
    steps = run(day, policy, draws=slower(day, 0, 2.0), initial=np.array([4, 4, 4]))
    level = np.array([step.plan.authority[:, 0] for step in steps])
    back = int(np.argmax(level[:, 0] == ADVISE))
    assert level[back, 0] == ADVISE
    assert steps[back].observation.now_s <= 300 + 60
    assert (level[: back + 1, 1:] == FULL).all(), "the others keep their level"


def test_services_that_agree_with_their_model_earn_every_level_and_are_not_scaled_before(
    traces, context
):
    steps = run(
        busy(traces),
        WithAuthority.of(tuned(context), Authority.none(3)),
        initial=np.array([4, 4, 4]),
    )
    level = np.array([step.plan.authority[:, 0] for step in steps])
    assert (level[-1] == FULL).all()
    assert (np.diff(level, axis=0) >= 0).all()
    for step, of_jobs in zip(steps, level):
        change = np.abs(step.target - step.observation.target)
        assert (change[of_jobs <= CEILINGS] == 0).all()
        assert (change[of_jobs == ONE] <= 1).all()
        assert set(np.array(step.plan.reason)[of_jobs == ADVISE]) <= {AUTHORITY}


class Failing:
    """A policy that raises at one tick."""

    name = "Failing"
    tick_s = 10.0

    def __init__(self, inner, at_s):
        self.inner = inner
        self.at_s = at_s
        self.start = inner.start

    def decide(self, state, observation):
        if observation.now_s == self.at_s:
            raise ValueError("a bug")
        return self.inner.decide(state, observation)


def test_a_decision_that_fails_does_not_scale_a_service_back_that_is_left_to_another_autoscaler(
    traces, context
):
    day = busy(traces)
    steps = []
    cluster = SimulatedCluster(day, draw(day, 24), 14, np.array([4, 4, 4]))

    def other(step):
        steps.append(step)
        if step.observation.now_s == 130:  # just after the failure
            cluster.apply(np.array([3, 4, 4]), np.zeros(3))

    policy = Failing(WithAuthority.of(tuned(context), Authority.none(3)), 130.0)
    with pytest.warns(PolicyFailed):
        loop.run(cluster, policy, day.jobs, 200.0, on_step=other)
    assert [step.target[0] for step in steps if step.observation.now_s > 130] == [3] * 6


class Planning:
    """A policy with fixed levels of authority, targets and drop rates."""

    name = "Planning"
    tick_s = 10.0

    def __init__(self, level, target):
        self.authority = replace(Authority.none(len(level)), level=np.array(level, float))
        self.target = np.array(target)

    def start(self, jobs):
        return None

    def decide(self, state, observation):
        jobs = len(self.target)
        plan = Plan(self.target, np.full(jobs, 0.3), (PLANNED,) * jobs, attempts=5)
        return state, limited_plan(plan, self.authority, observation.target, sets_bounds=False)


UNKNOWN = np.full(2, np.nan)
AT_MOST_10 = Job("a", max_replicas=10), Job("b", max_replicas=10)


def decided(policy, observation, jobs=AT_MOST_10, **config):
    """The step at this observation."""
    return tick(policy, LiveGuardrails(**config), jobs, Memory.start(policy, jobs), observation)[1]


@pytest.mark.parametrize(
    ("now", "fields", "config"),
    [
        ([7, 7], dict(capacity=12.0), {}),
        ([12, 2], {}, {}),
        ([0, 2], {}, {}),
        ([7, 2], dict(mean_latency_s=UNKNOWN, now_s=90.0), dict(fail_mode="fair-share")),
    ],
    ids=[
        "more than the capacity",
        "more than the maximum",
        "less than the minimum",
        "missing data",
    ],
)
def test_the_replicas_of_services_that_are_only_advised_stay_as_they_are(now, fields, config):
    step = decided(Planning([ADVISE, ADVISE], [3, 3]), observed(now, **fields), **config)
    assert step.target.tolist() == now
    assert step.plan.drop.tolist() == [0, 0]


def test_other_services_make_room_for_one_that_is_only_advised():
    step = decided(Planning([ADVISE, FULL], [1, 5]), observed([4, 4], capacity=6.0))
    assert step.target.tolist() == [4, 2]


def test_an_earlier_plan_ends_when_a_service_falls_back_to_advice():
    policy = Planning([FULL, FULL], [6, 2])
    jobs = Job("a"), Job("b")
    memory, _ = tick(
        policy,
        LiveGuardrails(),
        jobs,
        Memory.start(policy, jobs),
        observed([2, 2], 4.0, now_s=10.0),
    )
    policy = Planning([ADVISE, FULL], [6, 2])
    _, step = tick(policy, LiveGuardrails(), jobs, memory, observed([2, 2], 9.0, now_s=20.0))
    assert step.target.tolist() == [2, 2]
    assert step.plan.drop.tolist() == [0, 0.3]


def test_an_operator_fixes_the_replicas_of_a_service_that_is_only_advised():
    jobs = Job("a", min_replicas=5, max_replicas=5), Job("b")
    step = decided(Planning([ADVISE, ADVISE], [1, 1]), observed([2, 2]), jobs=jobs, fixed=("a",))
    assert step.target.tolist() == [5, 2]


def test_the_autoscaler_of_a_service_back_at_advice_for_missing_data_gets_its_bounds_back():
    class Bounding(Planning):
        def decide(self, state, observation):
            plan = LivePlan(self.target, np.zeros(2), (PLANNED,) * 2, floor=np.array([2, 2]))
            return state, limited_plan(plan, self.authority, observation.target, sets_bounds=True)

    step = decided(
        Bounding([ADVISE, FULL], [3, 3]), observed([2, 2], mean_latency_s=UNKNOWN, now_s=90.0)
    )
    assert step.plan.floor.tolist() == [HAND_BACK, KEEP_FLOOR]


def test_when_it_is_handed_back_nothing_is_scaled_and_others_may_scale_it_without_a_contest(
    traces, context
):
    policy = WithAuthority.of(tuned(context), Authority.none(3))
    day = busy(traces)
    cluster = SimulatedCluster(day, draw(day, 24), 14, np.array([4, 4, 4]))
    steps = []

    def other(step):
        steps.append(step)
        if step.observation.now_s in (100, 110, 120, 130, 140):
            replicas = int(step.observation.now_s) // 10 % 2 + 3
            cluster.apply(np.array([replicas, 4, 4]), np.zeros(3))

    loop.run(cluster, policy, day.jobs, 200.0, on_step=other)
    assert {step.plan.reason[0] for step in steps} == {AUTHORITY}
    assert steps[-1].target.tolist() == steps[-1].observation.target.tolist()


def test_the_authority_is_in_the_journal_and_a_run_that_resumes_continues_with_it(
    traces, context, tmp_path
):
    day = busy(traces)
    path = tmp_path / "run.journal"
    whole = WithAuthority.of(tuned(context), Authority.none(3))
    cluster = SimulatedCluster(day, draw(day, 24), 14, np.array([4, 4, 4]))
    loop.run(cluster, whole, day.jobs, 1500.0, journal=path)
    header, ticks = read(path)
    last = ticks[-1].step.plan.authority
    assert last[:, 0].max() > ADVISE
    again = WithAuthority.of(tuned(context), recorded_authority(header, ticks, day.jobs))
    with Journal(path) as journal:
        past = resume_run(journal, again, journal.header)
    np.testing.assert_allclose(past.memory.state.authority.to_array(), last)


def test_faro_trust_shows_the_level_of_each_service_and_its_evidence(
    traces, context, tmp_path, capsys
):
    day = busy(traces)
    path = tmp_path / "run.journal"
    earning = WithAuthority.of(tuned(context), Authority.none(3))
    cluster = SimulatedCluster(day, draw(day, 24), 14, np.array([4, 4, 4]))
    said = announcing(day.jobs)
    loop.run(cluster, earning, day.jobs, 1200.0, journal=path, on_step=said)
    assert "job 'job0': authority advise -> ceilings" in capsys.readouterr().err
    assert cli.main(["trust", str(path), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ticks = read(path)[1]
    last = ticks[-1].step.plan.authority
    for n, row in enumerate(rows):  # since_s is the first tick with the present level
        since = next(
            (t for t in reversed(ticks) if t.step.plan.authority[n, 0] != last[n, 0]), None
        )
        later = [
            t.step.observation.now_s
            for t in ticks
            if since and t.step.observation.now_s > since.step.observation.now_s
        ]
        assert row["since_s"] == (later[0] if since else 0.0)
    assert [row["level"] for row in rows] == [LEVELS[int(level)] for level in last[:, 0]]
    assert all(0 < row["since_s"] < 1200 for row in rows if row["level"] != "advise")
    assert cli.main(["trust", str(path)]) == 0
    assert "a doubt of 40 takes the level away" in capsys.readouterr().out


def test_a_job_that_is_added_starts_without_authority_and_the_others_keep_theirs(
    traces, context, tmp_path
):
    day = busy(traces)
    path = tmp_path / "run.journal"
    earning = WithAuthority.of(tuned(context), Authority.none(3, ONE))
    cluster = SimulatedCluster(day, draw(day, 24), 14, np.array([4, 4, 4]))
    loop.run(cluster, earning, day.jobs, 120.0, journal=path)
    authority = recorded_authority(*read(path), (*day.jobs[1:], Job("new")))
    assert authority.level.tolist() == [ONE, ONE, ADVISE]


def test_bounds_follow_the_levels(traces, context):
    earned = replace(Authority.none(3), level=np.array([0.0, 1.0, 3.0]))
    policy = WithAuthority.of(AsBounds.of(tuned(context)), earned)
    day = busy(traces)
    cluster = SimulatedCluster(day, draw(day, 24), 14, np.array([4, 4, 4]))
    cluster.advance(10.0)
    _, plan = policy.decide(policy.start(day.jobs), cluster.observe())
    assert plan.floor[0] == HAND_BACK
    assert plan.target[0] == 4
    assert 1 <= plan.floor[1] <= plan.target[1]
    assert plan.floor[2] == plan.target[2]
    assert plan.target.sum() <= 14
    assert HOLD not in plan.reason[:1]


@pytest.mark.parametrize(
    ("quota", "capacity"), [(4.0, 14.0), (None, 4.0)], ids=["above its quota", "above the capacity"]
)
def test_a_plan_is_possible_beside_an_advised_service_with_more_replicas_than_faro_would_allow(
    quota, capacity
):
    jobs = (Job("a", tenant="t", tenant_quota=quota), Job("b"))
    few = synthetic(seed=2, jobs=2, days=2, minutes=60)
    earned = replace(Authority.none(2), level=np.array([ADVISE, FULL]))
    faro = tuned(PolicyContext(jobs, forecast.fit("ar", replace(few, jobs=jobs))))
    policy = WithAuthority.of(faro, earned)
    _, plan = policy.decide(
        policy.start(jobs), observed([5, 1], capacity=capacity, now_s=faro.first_s)
    )
    assert plan.target[0] == 5

"""A fault is not slowness: what minutes say about a service, and beliefs that are not confirmed."""

from dataclasses import replace
from itertools import count, islice

import numpy as np
import pytest
from observations import observed

from faro_lib.policies.evidence import Replicas, cut_off, evidence_of, of_units
from faro_lib.policies.learning import (
    HALF_LIFE_MINUTES,
    LONGEST_PAUSE_MINUTES,
    TRIAL_MINUTES,
    Learned,
    Learner,
)
from faro_lib.queueing import service_factor
from faro_lib.queueing.service_factor import FACTORS, mean_factor
from faro_lib.queueing.slower import Slower
from faro_lib.simulate.measure import measure
from faro_lib.workload import Job
from faro_lib.workload.replicas import Batched

JOB = Job("a", service_time_s=0.1, service_scv=0.2, slo_s=0.8, model="own")
MODEL = measure((JOB,), (1, 2, 3, 8))
REPLICAS = 3
COUNT = 600.0  # requests of a minute
ALL = dict(served=COUNT, failed=0.0, refused=0.0, cancelled=0.0)


def minute(replicas=REPLICAS, tail_s=0.4, mean_s=0.12, count=COUNT, jobs=(JOB,), at=1, **fields):
    """What is observed at the end of a minute; `served`, `failed` and so on are its counts."""
    of_all = np.ones(len(jobs))
    for name in ("served", "failed", "refused", "cancelled"):
        if name in fields:
            fields[f"{name}_per_min"] = fields.pop(name) * of_all
    for name in ("throttled", "drop"):
        if name in fields:
            fields[name] = fields[name] * of_all
    return replace(
        observed([replicas] * len(jobs), now_s=60.0 * at),
        minute=at,
        arrivals_per_min=np.full((len(jobs), 1), count),
        tail_latency_s=tail_s * of_all,
        mean_latency_s=mean_s * of_all,
        **fields,
    )


def evidence(observation, before=None, jobs=(JOB,)):
    replicas = Replicas.start(len(jobs))
    for one in (before or observation, observation):
        replicas = replicas.seen(one)
    return evidence_of(jobs, observation, replicas, MODEL)


def slow_minute(factor, replicas=REPLICAS, **fields):
    """A minute of a service that is `factor` times slower."""
    tail_s = float(Slower(MODEL, {"a": factor}).tail_latency_s(JOB, COUNT / 60, replicas))
    return minute(replicas, tail_s, tail_s / 4, **fields)


def learned_from(observation, minutes, learned=None, learner=None, first=1):
    """What is known after some minutes that look like the observation."""
    learner, learned = learner or Learner(), learned or Learner().start((JOB,))
    for n in range(first, first + minutes):
        for now in (replace(observation, minute=n - 1), replace(observation, minute=n)):
            learned = learner.updated((JOB,), learned, now, MODEL)
    return learned


def all_on(factor, learned=None):
    """A belief that has all its weight on one factor."""
    learned = learned or Learner().start((JOB,))
    weight = np.eye(len(FACTORS))[[np.abs(FACTORS - factor).argmin()]]
    return replace(learned, weight=weight, informative=np.ones(1), since_minute=np.zeros(1))


# --- which minutes say how fast a service is ------------------------------------------------------


def test_an_undisturbed_minute_is_informative():
    found = evidence(minute(**ALL))
    assert found.informative.all()
    assert not found.overloaded.any()
    assert found.met_slo.all()


@pytest.mark.parametrize(
    "what",
    [
        dict(failed=0.02 * COUNT),
        dict(cancelled=0.02 * COUNT),
        dict(failed=0.004 * COUNT, cancelled=0.004 * COUNT),
        dict(throttled=0.2),
        dict(tail_s=np.inf),
        dict(tail_s=np.nan),
        dict(tail_s=0.11, mean_s=0.1),
        dict(drop=0.5),
    ],
    ids=lambda what: "-".join(what),
)
def test_a_disturbed_minute_is_not_informative(what):
    assert not evidence(minute(**what)).informative.any()


@pytest.mark.parametrize(
    "what",
    [
        dict(failed=0.004 * COUNT),
        dict(failed=np.nan, cancelled=np.nan, refused=np.nan),
        dict(throttled=0.01),
        dict(throttled=np.nan),
    ],
    ids=lambda what: "-".join(what),
)
def test_a_few_failures_and_unknown_counts_disturb_nothing(what):
    assert evidence(minute(**what)).informative.all()


def test_failures_hide_the_latencies_of_no_other_request():
    """The quantile of all requests is infinite; that of the served ones is what counts."""
    seen = minute(tail_s=np.inf, served_tail_latency_s=np.array([0.4]), refused=2.0)
    assert evidence(seen).tail_s == pytest.approx(0.4)
    assert evidence(seen).informative.all()


@pytest.mark.parametrize(
    ("before", "after"),
    [((2, 3), (3, 3)), ((3, 3), (2, 3))],
    ids=["a replica starts", "a replica is lost"],
)
def test_a_minute_in_which_a_replica_starts_or_is_lost_is_not_informative(before, after):
    def seen(running, target):
        return replace(minute(running, **ALL), target=np.array([target]))

    assert not evidence(seen(*after), seen(*before)).informative.any()


def test_a_minute_in_which_replicas_are_removed_on_purpose_is_informative():
    assert evidence(minute(2, **ALL), minute(3, **ALL)).informative.all()


def test_overload_is_known_by_refused_requests_or_else_by_an_infinite_latency():
    assert evidence(minute(refused=0.3 * COUNT, tail_s=2.0)).overloaded.all()
    assert not evidence(minute(refused=0.3 * COUNT, tail_s=0.3)).overloaded.any(), "for a moment"
    assert evidence(minute(tail_s=np.inf)).overloaded.all()
    assert not evidence(minute(tail_s=np.inf, failed=0.02 * COUNT)).overloaded.any()
    assert not evidence(minute(refused=0.3 * COUNT, cancelled=0.02 * COUNT)).overloaded.any()
    own = minute(refused=0.003 * COUNT, drop=0.003)
    assert not evidence(own).overloaded.any(), "Faro refused these requests itself"


def test_latencies_that_are_all_short_and_alike_are_cut_off_and_those_of_a_fast_service_are_not():
    assert not evidence(minute(tail_s=0.11, mean_s=0.1)).informative.any()
    assert evidence(minute(tail_s=0.2, mean_s=0.05)).informative.all()
    batched = replace(JOB, replica=Batched(4, base_s=0.1))
    short = np.array([0.11]), np.array([0.1])
    assert cut_off((JOB,), np.array([0]), *short, MODEL).all()
    assert not cut_off((batched,), np.array([0]), *short, MODEL).any(), "a batch ends together"


def test_jobs_that_share_replicas_have_those_of_their_pool_whose_homes_may_move():
    pooled = tuple(replace(JOB, name=name, pool="x", models_per_replica=2) for name in "ab")
    before, after = (
        replace(minute(jobs=pooled, **ALL), running=np.array(homes), target=np.array(homes))
        for homes in ((1, 3), (2, 2))
    )
    replicas = Replicas.start(2)
    for one in (before, after):
        replicas = replicas.seen(of_units(pooled, one))
    found = evidence_of(pooled, after, replicas, MODEL)
    assert found.informative.all()
    assert (found.fewest == 4).all()
    assert (found.most == 4).all()
    assert not (found.met_slo | found.missed_slo).any(), "a job alone may be doubted"


# --- what such minutes leave of a belief ----------------------------------------------------------


FAULTS = {
    "failures": dict(failed=0.02 * COUNT, tail_s=np.inf),
    "hang-ups": dict(cancelled=0.3 * COUNT, tail_s=np.inf),
    "throttled": dict(throttled=0.5, tail_s=3.0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_ten_minutes_of_a_fault_make_no_service_slow(fault):
    before = learned_from(slow_minute(1.0, **ALL), 20)
    after = learned_from(minute(**(ALL | FAULTS[fault])), 10, before, first=21)
    assert mean_factor(after.belief)[0] == pytest.approx(mean_factor(before.belief)[0], rel=0.05)
    assert after.informative == before.informative


def test_a_real_slowdown_is_learned_in_ten_minutes():
    before = learned_from(slow_minute(1.0, **ALL), 20)
    after = learned_from(slow_minute(1.5, **ALL), 10, before, first=21)
    assert mean_factor(after.belief)[0] == pytest.approx(1.5, rel=0.05)


def test_beliefs_that_all_predict_overload_stay_equally_likely():
    weight = learned_from(minute(replicas=1, tail_s=np.inf), 1).belief
    start = service_factor.drifted(Learner().start((JOB,)).weight, 0.01, np.array([1e-3]))
    overloaded = FACTORS > 1.2  # one replica serves ten requests a second at 1
    ratio = (weight / start)[0, overloaded]
    assert ratio == pytest.approx(ratio[0], rel=0.05)


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_a_belief_fades_halfway_towards_the_stated_times_in_thirty_minutes_of_no_evidence(factor):
    still = Learner(drift=0.0, change=0.0)
    after = learned_from(minute(tail_s=np.nan), int(HALF_LIFE_MINUTES), all_on(factor), still)
    prior = Learner().start((JOB,)).prior
    expected = 0.5 * all_on(factor).weight + 0.5 * prior
    assert after.weight == pytest.approx(expected)


def test_minutes_that_nobody_saw_fade_a_belief_as_much():
    still = Learner(drift=0.0, change=0.0)
    seen = learned_from(minute(tail_s=np.nan), 30, all_on(4.0), still)
    missed = still.updated((JOB,), all_on(4.0), minute(at=30), MODEL)
    assert missed.weight == pytest.approx(seen.weight)


# --- no belief is kept alive by what it has caused ------------------------------------------------


def starved(factor_of_truth=1.0):
    """A minute of a service with one replica that serves as fast as it can."""
    served = 60 / (JOB.service_time_s * factor_of_truth)
    count = 2 * served
    return minute(1, np.inf, count=count, **(ALL | dict(served=served, refused=count - served)))


def test_what_a_replica_serves_refutes_a_belief_that_it_is_slower():
    after = learned_from(starved(), 3, all_on(4.0))
    assert mean_factor(after.belief)[0] < 1.2


def test_what_a_slow_replica_serves_refutes_no_belief_that_it_is_slow():
    after = learned_from(starved(factor_of_truth=2.0), 10, all_on(2.0))
    assert mean_factor(after.belief)[0] == pytest.approx(2.0, rel=0.1)


def test_bounds_end_with_the_next_informative_minute_and_are_no_part_of_what_is_kept():
    overloaded = learned_from(starved(factor_of_truth=2.0), 10)
    assert mean_factor(overloaded.belief)[0] > 1.1
    assert mean_factor(overloaded.weight)[0] == pytest.approx(1.0, rel=0.05)
    after = learned_from(slow_minute(1.0, **ALL), 2, overloaded, first=11)
    assert (after.bounds == 1).all()
    assert mean_factor(after.belief)[0] == pytest.approx(1.0, rel=0.05)


def test_one_overloaded_minute_does_not_decide_a_time_of_failures():
    before = learned_from(slow_minute(1.0, **ALL), 20)
    counts = dict(refused=0.1 * COUNT, served=0.9 * COUNT, failed=0.0, cancelled=0.0)
    burst = minute(tail_s=2.0, **counts)
    after = learned_from(burst, 1, before, first=21)
    later = learned_from(minute(**(ALL | FAULTS["failures"])), 10, after, first=22)
    assert mean_factor(later.belief)[0] < 1.1


def doubted(minutes):
    """A belief in a factor of 4 about a service that was healthy, after minutes without counts.

    In the minute before them, it has lost replicas.
    """
    return next(islice(each_minute_of_doubt(), minutes, None))


def each_minute_of_doubt():
    """What is known after 0, 1, 2... minutes without counts."""
    learned = all_on(4.0, learned_from(slow_minute(1.0), 3))
    for n in count(4):
        learned = learned_from(minute(1, np.nan), 1, learned, first=n)
        yield learned


def test_the_stated_times_are_tried_again_where_a_belief_takes_replicas_away():
    assert mean_factor(doubted(1).belief)[0] > 2
    tried = doubted(2)
    assert mean_factor(tried.belief)[0] == pytest.approx(1.0, rel=0.05)
    assert tried.doubt.left[0] == TRIAL_MINUTES


def test_trials_that_do_not_help_become_rarer():
    trying = [bool(after.doubt.left[0]) for after in islice(each_minute_of_doubt(), 1, 400)]
    begins = [n for n in range(1, len(trying)) if trying[n] and not trying[n - 1]]
    pauses = np.diff(begins)
    assert (np.diff(pauses) >= 0).all()
    assert pauses[0] <= 12
    assert pauses[-1] > 60
    assert pauses[-1] <= LONGEST_PAUSE_MINUTES + TRIAL_MINUTES + 2


def test_a_healthy_minute_ends_a_trial():
    after = learned_from(slow_minute(1.0), 2, doubted(3), first=8)  # in the first, replicas start
    assert after.doubt.left[0] == 0
    assert mean_factor(after.belief)[0] == pytest.approx(1.0, rel=0.1)


def test_nothing_is_tried_at_a_higher_load_or_where_served_requests_are_counted():
    healthy = learned_from(slow_minute(1.0), 3)
    more = learned_from(minute(1, np.nan, count=2 * COUNT), 10, healthy, first=4)
    counted = learned_from(minute(1, np.nan, **ALL), 10, healthy, first=4)
    assert more.doubt.left[0] == counted.doubt.left[0] == 0


@pytest.mark.parametrize("counts", [ALL, {}], ids=["counted", "not counted"])
@pytest.mark.parametrize("factor", [0.25, 0.5, 2.0, 4.0])
def test_a_healthy_service_is_back_within_ten_minutes_of_any_belief(factor, counts):
    after = learned_from(slow_minute(1.0, **counts), 10, all_on(factor))
    assert mean_factor(after.belief)[0] == pytest.approx(1.0, rel=0.1)


def test_a_roll_out_ends_bounds_and_doubts_of_its_job():
    after = Learner().changed(doubted(3), np.array([True]))
    assert (after.doubt.left, after.doubt.replicas) == (0, 0)
    assert (after.bounds == 1).all()


def test_learned_times_of_no_minute_are_the_stated_ones():
    prior = service_factor.prior(np.array([0.3]))
    assert (Learned.start(prior).belief == pytest.approx(prior)) is True

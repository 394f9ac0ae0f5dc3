"""Services that are slower because they share replicas, in the simulator."""

import numpy as np
import pandas as pd
import pytest
from observations import observed

from faro_lib import forecast
from faro_lib.experiments.trials import run_trials
from faro_lib.metrics.measures import summarize
from faro_lib.policies import PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.policies.learning import Learner
from faro_lib.queueing.service_factor import mean_factor
from faro_lib.queueing.shared_factor import SlowerPools
from faro_lib.simulate.measure import measure
from faro_lib.utility import predicted_latency
from faro_lib.workload import Job, Traces
from faro_lib.workload.jobs import MINUTE_S
from studies.misspecification.world import Remembers, World
from studies.sharing.slower import BELIEVES, KNOWS, LEARNS, Cell, policy_of
from studies.sharing.tables import slower_sentence, slower_table
from studies.sharing.world import sharing

MINUTES = 40
CORES = 9
FEW_CORES = 7  # too few for services that are 1.3 times slower


@pytest.fixture(scope="module")
def pool():
    """Four services with six erlangs together, each of which has its share at another time."""
    jobs, at = tuple(map(Job, "abcd")), 2 * np.pi * np.arange(MINUTES) / MINUTES
    share = 0.25 + 0.1 * np.sin(at + np.arange(4)[:, None] * np.pi / 2)
    counts = np.rint(6 * share / jobs[0].busy_s * MINUTE_S)
    traces = sharing(Traces(jobs, np.stack([counts[None]] * 2), counts[None]), 2)
    table = measure(traces.jobs, capacity=CORES)
    context = PolicyContext(traces.jobs, forecast.fit("ar", traces), table, traces=traces)
    return traces.workload(), context


def run_of(pool, policy, slower, cores=CORES):
    """(loss, what was learned at each tick) of a run in which services are so much slower."""
    workload, context = pool
    world, learned = World("slower", np.full((len(workload.jobs), MINUTES), slower)), []
    made = Remembers(policy_of(Cell(cores, slower, policy, 0), context, world), learned)
    (trial,) = run_trials(workload, {policy: made}, cores, [world.draws(workload, 1)])
    return summarize(trial.run)["lost_utility"], learned


@pytest.mark.parametrize("slower", [1.0, 1.3])
def test_how_much_slower_a_pool_is_is_found_within_minutes(pool, slower):
    _, learned = run_of(pool, LEARNS, slower)
    later = [one for one in learned if one.minute >= 15]
    means = [one.pools.mean(mean_factor(one.belief))[0] for one in later]
    assert sum(means) / len(means) == pytest.approx(slower, rel=0.06)
    assert max(means) < 1.2 * slower
    assert min(means) > slower / 1.2


def test_a_slow_pool_that_learns_loses_nearly_what_one_that_knows_does(pool):
    believes, learns, knows = (
        run_of(pool, policy, 1.3, FEW_CORES)[0] for policy in (BELIEVES, LEARNS, KNOWS)
    )
    assert believes > 1.5 * knows
    assert learns < 1.3 * knows + 0.02


def test_as_stated_learning_loses_about_what_believing_does(pool):
    believes, learns = (run_of(pool, policy, 1.0, FEW_CORES)[0] for policy in (BELIEVES, LEARNS))
    assert learns < 1.1 * believes + 0.02


def test_the_page_states_what_the_runs_lost():
    losses = {BELIEVES: 4.0, LEARNS: 2.12, KNOWS: 2.0, "isolated, learns": 3.0}
    rows = [
        {"cores": 24, "slower": 1.3, "policy": policy, "trial": 0, "loss": loss}
        for policy, loss in losses.items()
    ]
    stated = {BELIEVES: 0.4, LEARNS: 0.41}
    rows += [
        {"cores": 24, "slower": 1.0, "policy": policy, "trial": 0, "loss": loss}
        for policy, loss in stated.items()
    ]
    runs = pd.DataFrame(rows)
    assert "| 1.3 | 24 | 1 | 4.000 | 2.120 | 2.000 | 3.000 |" in slower_table(runs)
    assert "at most 1.05 times" in slower_sentence(runs)
    assert "1 of 1 cases" in slower_sentence(runs)
    assert "+0.010 to +0.010" in slower_sentence(runs)


@pytest.mark.parametrize(
    ("homes", "slower", "refuses"),
    [
        ((2, 2, 2, 1), 1.0, False),
        ((2, 2, 2, 1), 1.4, True),  # late, although the table expects all in time
        ((2, 1, 1, 1), 1.0, True),
        ((2, 1, 1, 1), 0.7, False),  # in time, although the table expects all late
    ],
)
def test_refusals_look_at_what_is_served_late_and_not_at_the_table_alone(
    pool, homes, slower, refuses
):
    _, context = pool
    assert refused(context, np.array(homes), slower).any() == refuses


def refused(context, homes, slower):
    """Which jobs with six erlangs together are refused after ten minutes, bool (jobs,)."""
    faro, jobs = tuned(context, learner=Learner()), context.jobs
    factors = dict.fromkeys((job.name for job in jobs), slower)
    truth = SlowerPools(context.latency_model, factors, factors)
    busy_s, cores = jobs[0].busy_s, homes.sum()
    tail_s = predicted_latency(jobs, np.full(4, 6 / busy_s), np.full(4, cores), latency_model=truth)
    state = faro.start(jobs)
    for tick in range(1, 61):
        minute = tick // 6
        observation = observed(
            homes,
            float(cores),
            now_s=10.0 * tick,
            minute=minute,
            arrivals_per_min=np.full((4, min(minute, 15)), 6 / 4 / busy_s * MINUTE_S),
            tail_latency_s=tail_s,
            mean_latency_s=tail_s / 3,
            served_tail_latency_s=np.minimum(tail_s, 3.0),
            refused_per_min=np.where(np.isinf(tail_s), 100.0, 0.0),  # for lack of replicas
        )
        state, plan = faro.decide(state, observation)
    return plan.drop > 0.5

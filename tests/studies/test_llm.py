"""The study of language-model services: gauges of engines, rivals on them, and goodput."""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pytest

from faro_lib.policies.baselines import Fixed
from faro_lib.policies.loops import LoopState
from faro_lib.protocol import PLANNED, Plan
from faro_lib.simulate import draw
from faro_lib.workload import Job, Workload
from faro_lib.workload.replicas import replica_of
from studies.forecast.oracle import Oracle
from studies.llm import goodput
from studies.llm.bounds import fewest_missed
from studies.llm.engines import EngineObservation, cache_tokens, simulate_engines
from studies.llm.goodput import REPLICAS, UTILISATIONS, Goodput, GoodputByLengths, mean_tokens
from studies.llm.load import LONG_MEAN, RECENT_MEAN, SERIES, load_scores
from studies.llm.rivals import (
    FARO,
    LLM_RIVALS,
    PREDICTORS,
    WITH_DROPS,
    Dropping,
    DynamoPlanner,
    GaugeHPA,
    Informed,
    Known,
    faro,
    load_of_last_minute,
    per_request,
    planner,
)
from studies.llm.stage import few_clients
from studies.llm.world import (
    BLOCK,
    LIVE,
    WARM_UP,
    Block,
    Services,
    blocks,
    latency_table,
    services_of,
    sizes_near,
)

REPLICA = replica_of(
    {
        "kind": "continuous",
        **{"alpha_s": 0.1, "beta_s": 0.0, "gamma_s": 0.001, "max_sequences": 2},
        **{"prompt_tokens": 100, "output_tokens": 1000, "cache_tokens": 11_000},
    }
)
JOBS = (Job("a", slo_s=1.0, replica=REPLICA), Job("b", slo_s=1.0, replica=REPLICA))


class Watching(Fixed):
    """Fixed replicas; keeps what it has observed."""

    def __init__(self, replicas):
        super().__init__(replicas, tick_s=30.0)
        object.__setattr__(self, "seen", [])

    def decide(self, state, observation):
        self.seen.append(observation)
        return super().decide(state, observation)


@pytest.fixture(scope="module")
def seen():
    """Job a has five requests of 100 s in the first second, job b has none."""
    times = (np.linspace(0.1, 1.0, 5), np.empty(0))
    workload = Workload(JOBS, np.array([[5, 0, 0], [0, 0, 0]]), times)
    draws = draw(workload, 1, router=None)
    policy = Watching(1)
    load = np.array([[7.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    simulate_engines(workload, policy, 2, draws, load, np.array([1, 1]), LIVE)
    return policy.seen


def test_requests_that_no_iteration_has_admitted_are_waiting(seen):
    assert seen[0].waiting.tolist() == [3, 0]
    assert seen[0].ongoing.tolist() == [5, 0]


def test_the_cache_holds_the_tokens_of_the_sequences_in_service(seen):
    # Two sequences of 1,100 tokens in a cache of 11,000.
    assert seen[0].cache_use == pytest.approx([0.2, 0.0])


def test_a_gpu_is_busy_while_its_replica_serves(seen):
    assert seen[0].busy_gpus.tolist() == [1.0, 0.0]


def test_a_replica_without_a_cache_is_refused():
    with pytest.raises(ValueError, match="job 'c': a replica of kind serial has no KV cache"):
        cache_tokens(Job("c"))


def test_the_load_of_complete_minutes_is_observed(seen):
    assert seen[0].load_per_min.shape == (2, 0)
    assert seen[2].load_per_min.tolist() == [[7.0], [0.0]]


def test_the_tokens_of_complete_minutes_are_observed(seen):
    assert seen[2].tokens_per_min.tolist() == [[[500.0], [0.0]], [[5000.0], [0.0]]]


def observation(seen, **changes) -> EngineObservation:
    return replace(seen[2], **changes)


def test_an_hpa_on_a_gauge_wants_its_sum_divided_by_the_target(seen):
    policy = GaugeHPA(gauge="waiting", goal=2.0, stabilisation_s=0.0)
    state = policy.start(JOBS)
    now = observation(seen, waiting=np.array([7, 0]))
    desired, known = policy.recommend(state, now)
    assert desired.tolist() == [4, 0]
    assert known.all()


def test_an_hpa_does_not_change_within_its_tolerance(seen):
    policy = GaugeHPA(gauge="busy_gpus", goal=0.5, stabilisation_s=0.0)
    running = np.array([2, 2])
    now = observation(seen, busy_gpus=np.array([1.05, 1.5]), running=running, target=running)
    assert policy.recommend(policy.start(JOBS), now)[0].tolist() == [2, 3]


def test_the_load_per_request_is_that_of_the_last_minutes(seen):
    counts = np.array([[9.0, 10.0], [0.0, 0.0]])
    now = observation(seen, arrivals_per_min=counts, load_per_min=np.array([[9.0, 30], [0, 0]]))
    assert per_request(now, 1).tolist() == [3.0, 1.0]


def test_dynamo_serves_the_predicted_requests_with_their_latest_lengths(seen):
    class Constant:
        def mean(self, minutes):
            return np.full((2, minutes), 6.0)

    counts = np.array([[60.0], [60.0]])
    now = observation(seen, arrivals_per_min=counts, load_per_min=np.array([[120.0], [60.0]]))
    policy = DynamoPlanner(forecaster=Constant(), load=0.5)

    class State:
        jobs = JOBS
        forecaster = Constant()

    # 0.1 requests/s of double and of mean length, at half of what a replica serves.
    wanted = np.ceil(np.array([0.2, 0.1]) / 0.5 * JOBS[0].busy_s)
    assert policy.plan(State(), now).target.tolist() == wanted.tolist()


@dataclass(frozen=True)
class Told:
    """Keeps the state and the observation that it is given, and the model that it has."""

    latency_model: object = None
    seen: list = field(default_factory=list)
    name, tick_s = "told", 10.0

    def is_long_term(self, now_s, last_s):
        return True

    def decide(self, state, observation):
        self.seen.append((state, observation, self.latency_model))
        return state, Plan(observation.target, observation.drop, (PLANNED, PLANNED))


class TokensAsGoodput:
    """Stands for `GoodputByLengths`: the shares are the tokens."""

    def at(self, tokens):
        return Goodput(dict(zip("ab", np.transpose(tokens).tolist())))


def test_faro_is_told_the_load_and_the_lengths_and_counts_requests(seen):
    told = Told()
    policy = Informed(told, JOBS, "Faro-Sum", TokensAsGoodput(), 1)
    state = LoopState(JOBS, None, np.zeros(2), np.zeros(2))
    load = np.array([[20.0], [2.0]])
    now = observation(
        seen,
        arrivals_per_min=np.array([[8.0], [2.0]]),
        load_per_min=load,
        tokens_per_min=np.array([[[80.0], [4.0]], [[16.0], [8.0]]]),
        arrivals_now=np.array([4.0, 0.0]),
    )
    policy.decide(state, now)
    _, observed, model = told.seen[0]
    assert observed.arrivals_per_min.tolist() == load.tolist()
    assert observed.arrivals_now.tolist() == [10.0, 0.0]
    assert model.share == {"a": [10.0, 2.0], "b": [2.0, 4.0]}
    # The mean of 9 and 3 requests per minute is 0.1 requests/s.
    assert model.weight == pytest.approx({"a": 4.0, "b": 10.0})


def test_faro_without_bursts_has_tables_of_random_arrivals():
    class WithBursts(TokensAsGoodput):
        random = TokensAsGoodput()

        def at_random(self):
            return self.random

    forecaster = Oracle(jobs=("a", "b"), truth=np.ones((2, 1)))
    known = Known(JOBS, WithBursts(), {"load": forecaster}, {"load": np.empty((2, 0))})
    settings = {"lengths_minutes": 15.0, "horizon_minutes": 5.0}
    assert faro(known, bursts=1.0, **settings).goodput is known.goodput
    assert faro(known, bursts=0.0, **settings).goodput is WithBursts.random
    assert faro(known, bursts=0.0, **settings).policy.horizon_minutes == 5


class HalfIsBest:
    """Stands for `GoodputByLengths`: half of the load of a full replica has the most goodput."""

    def at(self, tokens):
        share = np.where(np.array(UTILISATIONS) <= 0.5, 1.0, 0.0)
        return Goodput(dict.fromkeys("ab", np.repeat(share[:, None], len(REPLICAS), axis=1)))


def test_requests_beyond_the_load_with_the_most_goodput_are_dropped(seen):
    policy = Dropping(Told(), JOBS, "Faro-Sum", HalfIsBest(), 1)
    state = LoopState(JOBS, None, np.zeros(2), np.zeros(2))
    per_min = 60 / JOBS[0].busy_s  # what a full replica serves
    now = observation(
        seen,
        now_s=60.0,
        minute=1,
        running=np.array([2, 2]),
        arrivals_per_min=np.array([[per_min], [per_min]]),
        load_per_min=np.array([[4 * per_min], [0.5 * per_min]]),
        tokens_per_min=np.ones((2, 2, 1)),
        arrivals_now=np.zeros(2),
    )
    _, plan = policy.decide(state, now)
    assert plan.drop == pytest.approx([0.75, 0.0])


def test_every_policy_may_drop_requests_and_only_faro_plans_with_drops():
    forecaster = Oracle(jobs=("a", "b"), truth=np.ones((2, 1)))
    names = ("load", *PREDICTORS)
    known = Known(
        JOBS,
        TokensAsGoodput(),
        dict.fromkeys(names, forecaster),
        dict.fromkeys(names, np.empty((2, 0))),
    )
    policies = LLM_RIVALS | FARO
    assert list(WITH_DROPS) == list(policies)
    for name, rival in WITH_DROPS.items():
        assert rival.settings == policies[name].settings
        dropping = rival.make(known, **rival.start)
        assert isinstance(dropping, Dropping)
        without = policies[name].make(known, **rival.start)
        assert type(dropping.policy) is type(without)
        assert dropping.name == without.name == name
        assert getattr(dropping.policy, "with_drops", False) == (name in FARO)


def test_the_load_of_the_last_minute_has_parts_of_two_minutes(seen):
    now = observation(
        seen,
        now_s=75.0,
        minute=1,
        arrivals_per_min=np.array([[60.0], [60.0]]),
        load_per_min=np.array([[120.0], [60.0]]),
        arrivals_now=np.array([15.0, 0.0]),
    )
    assert load_of_last_minute(now).tolist() == [2.0, 0.75]


def test_mean_lengths_are_those_of_the_last_minutes_and_unknown_without_requests():
    tokens = np.array([[[90.0, 10.0, 20.0], [5.0, 0.0, 0.0]], [[9.0, 1.0, 2.0], [5.0, 0.0, 0.0]]])
    requests = np.array([[1.0, 1.0, 2.0], [1.0, 0.0, 0.0]])
    nan = np.nan
    np.testing.assert_array_equal(mean_tokens(tokens, requests, 2), [[10.0, nan], [1.0, nan]])
    np.testing.assert_array_equal(mean_tokens(tokens, requests, 15), [[30.0, 5.0], [3.0, 5.0]])
    np.testing.assert_array_equal(mean_tokens(tokens, requests, 0), np.full((2, 2), nan))


def flat_goodput(value: float) -> Goodput:
    return Goodput({"a": np.full((len(UTILISATIONS), len(REPLICAS)), value)})


def test_goodput_is_one_without_requests_and_falls_with_the_load_beyond_the_table():
    job, full_rps = JOBS[0], 1 / JOBS[0].busy_s
    rates_rps = np.array([0.0, 1.0, 2.0]) * UTILISATIONS[-1] * full_rps * 2
    found = flat_goodput(0.8).expected_utility(job, rates_rps, 2, "relaxed")
    assert found == pytest.approx([1.0, 0.8, 0.4])


def test_goodput_with_a_weight_counts_the_requests_that_meet_the_slo():
    rates_rps = np.array([0.0, 1.0, 2.0]) * UTILISATIONS[-1] / JOBS[0].busy_s
    goodput_of_requests = replace(flat_goodput(0.8), weight={"a": 3.0})
    found = goodput_of_requests.expected_utility(JOBS[0], rates_rps, 1, "relaxed")
    assert found == pytest.approx(3.0 * rates_rps * [0.8, 0.8, 0.4])


def test_goodput_is_interpolated_between_loads_and_replicas():
    share = np.add.outer(-np.array(UTILISATIONS), 0.1 * np.array(REPLICAS)) / 10 + 0.5
    rates_rps = 0.65 * 5 / JOBS[0].busy_s
    with_requests = min(1.0, 60 * rates_rps)
    found = Goodput({"a": share}).expected_utility(JOBS[0], rates_rps, 5, "relaxed")
    assert found == pytest.approx(1 - with_requests * (1 - (0.5 - 0.065 + 0.05)))


def test_with_drops_no_load_has_less_goodput_than_a_smaller_one():
    load = np.array(UTILISATIONS)[:, None]
    # All requests meet the SLO up to a load of 0.5 per replica, and none beyond it.
    share = np.repeat(np.where(load <= 0.5, 1.0, 0.0), len(REPLICAS), axis=1)
    cliff = Goodput({"a": share})
    np.testing.assert_allclose(cliff.with_drops().share["a"], np.minimum(1, 0.5 / load) + 0 * share)
    assert cliff.best_load(np.array([3])).tolist() == [1.5]
    assert cliff.with_drops().best_load(np.array([3])).tolist() == [1.5]


@pytest.fixture
def few_requests(monkeypatch):
    monkeypatch.setattr(goodput, "REQUESTS", 400)


# Prompts of another request that is admitted meanwhile take 0.1 s.
TOKENS = replica_of(
    {
        "kind": "continuous",
        **{"alpha_s": 0.02, "beta_s": 0.0, "gamma_s": 0.0001, "max_sequences": 16},
        **{"prompt_tokens": 1024, "output_tokens": 256, "max_tokens": 4096},
        **{"slo_on": "both", "per_token_weight": 20.0},
    }
)
SERVICE = Job("service", slo_s=1.0, replica=TOKENS)


def test_short_outputs_break_the_limit_per_token_where_long_ones_meet_it(few_requests):
    goodput_at = GoodputByLengths((SERVICE,), LIVE).at
    long, short = (goodput_at([[1024.0], [output]]).share["service"] for output in (256.0, 2.0))
    half_loaded = UTILISATIONS.index(0.5)
    assert long[half_loaded, -1] > 0.95
    assert short[half_loaded, -1] < 0.9


def test_goodput_between_measured_lengths_is_between_their_goodputs(few_requests):
    goodput_at = GoodputByLengths((SERVICE,), LIVE).at
    low, middle, high = (
        goodput_at([[1024.0], [output]]).share["service"] for output in (4.0, 4 * 2**0.25, 8.0)
    )
    assert middle == pytest.approx(0.75 * low + 0.25 * high)
    assumed = goodput_at([[np.nan], [np.nan]]).share["service"]
    assert assumed == pytest.approx(goodput_at([[1024.0], [256.0]]).share["service"])


def test_bursts_cost_goodput(few_requests):
    bursty = SERVICE.with_dispersion((20.0, 10.0, 5.0))
    tables = GoodputByLengths((bursty,), LIVE)
    half_loaded = UTILISATIONS.index(0.5)
    at = [[np.nan], [np.nan]]
    with_bursts, without = (one.at(at).share["service"] for one in (tables, tables.at_random()))
    assert with_bursts[half_loaded, 0] < without[half_loaded, 0] - 0.05


def tried_at(*shares_missed: float) -> pd.DataFrame:
    """The best of two rivals misses these shares at 10, 11, ... replicas."""
    rows = []
    for capacity, share in enumerate(shares_missed, start=10):
        rows += [(capacity, "a", share + 0.1), (capacity, "b", share)]
    return pd.DataFrame(rows, columns=["capacity_cores", "rival", "missed"])


def test_a_size_is_that_at_which_the_best_rival_is_nearest_to_the_share():
    assert sizes_near(tried_at(0.42, 0.3, 0.13, 0.06), (0.95, 0.85, 0.6)) == [13, 12, 10]


def test_there_are_no_sizes_if_one_share_is_not_nearly_reached():
    assert sizes_near(tried_at(0.3, 0.13, 0.06), (0.95, 0.85, 0.6)) == []


def test_sizes_that_leave_no_choice_are_ignored():
    assert sizes_near(tried_at(0.42, 0.3, 0.13, 0.06), (0.95, 0.85, 0.6), least=11) == []


def test_with_the_best_replicas_of_each_minute_no_fewer_requests_can_miss():
    """Job a has two requests in even minutes and job b in odd ones, and a replica serves one."""
    one_at_a_time = replace(REPLICA, max_sequences=1, output_tokens=5)
    jobs = tuple(replace(job, replica=one_at_a_time) for job in JOBS)
    counts = np.zeros((2, BLOCK), int)
    counts[0, ::2] = counts[1, 1::2] = 2
    times = [
        np.repeat(60.0 * np.flatnonzero(of_job), 2) + np.tile([1.0, 1.1], BLOCK // 2)
        for of_job in counts
    ]
    workload = Workload(jobs, counts, tuple(times))
    block = Block(11, 600, workload, draw(workload, 1, router=None), counts / 1.0, None)
    judged_ones = counts[:, WARM_UP:].sum()
    # With three replicas, one moves between the jobs; with two, every second request waits.
    assert fewest_missed(block, [2, 3]) == {2: judged_ones / 2, 3: 0}


@pytest.mark.slow
def test_policies_are_told_the_hour_before_a_block():
    services = services_of(few_clients())
    (block,) = blocks(services, latency_table(services.jobs), 9, (600,), seed=1)
    hour = slice(540, 600)
    np.testing.assert_array_equal(block.known.before["load"], services.load[8, :, hour])
    np.testing.assert_array_equal(block.known.before["ar"], services.requests[8, :, hour])
    policy = planner(block.known, "ar", load=0.5)
    forecaster = policy.start(services.jobs).forecaster
    assert forecaster.minute_of_day == 600
    np.testing.assert_array_equal(forecaster.counts[:, -30:], services.requests[8, :, 570:600])


@pytest.mark.slow
def test_a_series_of_loads_is_forecast_better_than_requests_times_old_lengths():
    rng = np.random.default_rng(1)
    requests = rng.poisson(60, (4, 2, 120)).astype(float)
    load = requests * np.array([1.0, 1.0, 1.0, 2.0])[:, None, None]  # requests of day 4 are longer
    services = Services(None, JOBS, requests, load)
    scores = load_scores(services, (4,)).groupby("way")["crps_replicas"].sum()
    assert scores[SERIES] < 0.5 * scores[LONG_MEAN]
    assert scores[RECENT_MEAN] < 0.5 * scores[LONG_MEAN]

"""The study of language-model services: gauges of engines, rivals on them, and goodput."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from faro_lib.policies.baselines import Fixed
from faro_lib.policies.loops import LoopState
from faro_lib.protocol import PLANNED, Plan
from faro_lib.simulate import draw
from faro_lib.workload import Job, Workload
from faro_lib.workload.replicas import replica_of
from studies.engines import EngineObservation, cache_tokens, simulate_engines
from studies.goodput import QUANTILES, share_met
from studies.llm import LIVE, Services, nearest_sizes
from studies.llm_azure import Log, fitted_job, read_logs, sizes_of
from studies.llm_load import LONG_MEAN, RECENT_MEAN, SERIES, load_scores
from studies.llm_rivals import DynamoPlanner, GaugeHPA, Informed, per_request, weighted

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


class Told:
    """Keeps the state and the observation that it is given."""

    name, tick_s = "told", 10.0

    def decide(self, state, observation):
        self.state, self.observation = state, observation
        return state, Plan(observation.target, observation.drop, (PLANNED, PLANNED))


def test_faro_is_told_the_load_and_weighs_jobs_by_their_requests(seen):
    told = Told()
    policy = Informed(told, JOBS, "Faro-Sum", by_load=True, by_requests=True)
    state = LoopState(JOBS, None, np.zeros(2), np.zeros(2))
    load = np.array([[20.0], [2.0]])
    now = observation(
        seen,
        arrivals_per_min=np.array([[8.0], [0.0]]),
        load_per_min=load,
        arrivals_now=np.array([4.0, 0.0]),
    )
    policy.decide(state, now)
    assert told.observation.arrivals_per_min.tolist() == load.tolist()
    assert told.observation.arrivals_now.tolist() == [10.0, 0.0]
    assert [job.weight for job in told.state.jobs] == pytest.approx([1.8, 0.2])


def test_weights_have_the_mean_one_and_no_job_has_none():
    weights = [job.weight for job in weighted(JOBS, np.array([[0.0, 2.0], [8.0, 8.0]]))]
    assert weights == pytest.approx([2 / 5.5, 9 / 5.5])


@pytest.mark.parametrize("level", [0.55, 0.8, 0.93, 0.97])
def test_the_share_that_meets_an_slo_is_the_level_of_its_quantile(level):
    # Exponential log latencies are not linear between quantiles, so compare with a linear law.
    quantiles = np.array(QUANTILES)
    slo_s = float(np.exp(np.interp(level, quantiles, 10 * quantiles)))
    share = share_met(np.exp(10 * quantiles), slo_s)
    assert float(share) == pytest.approx(level, abs=1e-9)


def test_all_requests_or_half_of_them_meet_an_slo_beyond_the_known_quantiles():
    assert float(share_met(np.full(5, 0.5), 1.0)) == 1.0
    assert float(share_met(np.full(5, 2.0), 1.0)) == pytest.approx(0.25)
    assert float(share_met(np.array([0.5, 1.0, np.inf, np.inf, np.inf]), 1.0)) == 0.8


def test_a_size_is_that_at_which_the_best_rival_is_nearest_to_the_share():
    rows = [(10, "a", 0.5), (10, "b", 0.42), (12, "a", 0.1), (12, "b", 0.2), (14, "b", 0.04)]
    tried = pd.DataFrame(rows, columns=["capacity_cores", "rival", "missed"])
    assert nearest_sizes(tried, (0.95, 0.85, 0.6)) == [14, 12, 10]


@pytest.mark.slow
def test_a_series_of_loads_is_forecast_better_than_requests_times_old_lengths():
    rng = np.random.default_rng(1)
    requests = rng.poisson(60, (4, 2, 120)).astype(float)
    load = requests * np.array([1.0, 1.0, 1.0, 2.0])[:, None, None]  # requests of day 4 are longer
    services = Services(None, JOBS, requests, load)
    scores = load_scores(services, (4,)).groupby("way")["crps_replicas"].sum()
    assert scores[SERIES] < 0.5 * scores[LONG_MEAN]
    assert scores[RECENT_MEAN] < 0.5 * scores[LONG_MEAN]


def test_a_log_has_whole_minutes_and_lengths_of_at_least_one_token(tmp_path):
    begin = pd.Timestamp("2023-11-16T18:17:30")
    for name in ("code", "conv"):
        times = [f"{begin + pd.Timedelta(seconds=one)}" for one in (0.0, 40.25, 100.0, 180.0)]
        tokens = {"ContextTokens": [10, 9000, 20, 30], "GeneratedTokens": [1, 2, 0, 4]}
        table = pd.DataFrame({"TIMESTAMP": times, **tokens})
        table.to_csv(tmp_path / f"{name}.csv.gz", index=False)
    log = read_logs(tmp_path)["code"]
    assert log.time_s.round(6).tolist() == [30.0, 70.25, 130.0]
    assert log.tokens.tolist() == [[10, 9000, 20], [1, 2, 1]]
    assert log.between(60, 120).time_s.round(6).tolist() == [10.25]


def test_a_job_has_the_lengths_and_the_bursts_of_its_log():
    time_s = np.repeat(np.arange(0.0, 1800, 20), 20)  # 20 requests at once
    tokens = np.array([[100.0, 300.0], [10.0, 30.0]]).repeat(900, axis=1)
    job = fitted_job("a", Log(time_s, tokens))
    assert (job.replica.prompt_tokens, job.replica.prompt_cv) == (200, 0.5)
    assert (job.replica.output_tokens, job.replica.output_cv) == (20, 0.5)
    assert job.dispersion_100ms > 10
    assert job.replica.slo_on == "first_token"


def test_sizes_grow_and_their_utilisation_is_at_most_the_wanted_one():
    assert sizes_of(8.0) == [10, 12, 16, 23, 32]
    assert sizes_of(0.1) == [1, 2, 3, 4, 5]

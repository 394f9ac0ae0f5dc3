"""The arena: its environment runs what the pipeline runs, its scenarios are fixed, and its scores
can be repeated.
"""

import dataclasses
import hashlib
import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from messages import assert_one_line

from faro_lib.experiments.limits import clairvoyants
from faro_lib.metrics.measures import lost_utility, minute_utility
from faro_lib.policies import AIAD, FACTORIES, HPA, FairShare, Plan
from faro_lib.protocol import hold
from faro_lib.simulate import draw, simulate
from faro_lib.workload import Job, Traces, Workload
from faro_lib.workload.changes import changed
from faro_lib.workload.pools import Placement
from faro_lib.workload.synthetic import synthetic
from faro_ops import cli
from faro_ops.advise.arena.scenarios import Instance, scenario_of, scenarios, with_wrong_times
from faro_ops.advise.arena.scoring import (
    MEASURED,
    library_files,
    places_models,
    policy_of,
    score,
    scored,
)

gymnasium = pytest.importorskip("gymnasium", reason="pip install gymnasium: the extra `arena`")
from gymnasium.utils.env_checker import check_env  # noqa: E402

from faro_ops.advise.arena.environment import FEATURES, Agent, plan_of  # noqa: E402
from studies.arena.fluid import FluidCluster  # noqa: E402

ROOT = Path(__file__).parents[2]
DAY = synthetic(seed=5, jobs=4, days=2, minutes=24)
CAPACITY = 14.0
JOB = Job("a")


def make(traces=DAY, capacity=CAPACITY, **options):
    return gymnasium.make("faro/Cluster-v0", traces=traces, capacity=capacity, **options)


def episode(env, policy, trial=24):
    """(return, number of steps) of a policy that decides outside of the environment."""
    bare = env.unwrapped
    initial = policy.initial(DAY.jobs, CAPACITY)
    env.reset(seed=0, options={"trial": trial, "initial": initial})
    state, total = policy.start(DAY.jobs), 0.0
    for steps in range(1, 10_000):
        state, plan = policy.decide(state, bare.observation)
        _, reward, terminated, truncated, _ = env.step(plan)
        total += reward
        if terminated or truncated:
            return total, steps
    raise AssertionError("the episode does not end")


@pytest.mark.parametrize(
    "options", [{}, {"actions": "shares"}, {"cluster": FluidCluster}, {"train": True}], ids=str
)
def test_gymnasium_accepts_the_environment(options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(**options).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("policy", [FairShare(), AIAD(), HPA()], ids=lambda policy: policy.name)
def test_a_policy_does_in_the_arena_what_it_does_in_the_pipeline_and_its_return_is_its_lost_utility(
    policy,
):
    env = make(tick_s=policy.tick_s)
    total, steps = episode(env, policy)
    run = simulate(DAY.workload(), policy, CAPACITY, 24)
    np.testing.assert_array_equal(env.unwrapped.run.tail_latency_s, run.tail_latency_s)
    np.testing.assert_array_equal(env.unwrapped.run.decisions.target, run.decisions.target)
    assert total == pytest.approx(-lost_utility(minute_utility(run)) * 24)
    assert steps == len(run.decisions.target)


def test_the_placement_of_a_plan_reaches_the_cluster():
    """So the cluster refuses a placement of a pool that does not exist."""
    env = make()
    env.reset(seed=0)
    wish = Placement(np.array([0]), np.ones((1, 1), bool))
    plan = replace(hold(env.unwrapped.observation), placement={"nowhere": wish})
    with pytest.raises(ValueError, match="placement of unknown pool 'nowhere'"):
        env.step(plan)


def test_the_same_agent_is_a_policy_of_the_pipeline():
    agent = Agent(
        lambda seen: 1 + np.floor(seen[:, FEATURES.index("load")]).clip(0).astype(int) % 5
    )
    env = make()
    (seen, _), total, ended = env.reset(options={"trial": 7}), 0.0, False
    while not ended:
        seen, reward, _, ended, _ = env.step(agent.act(seen))
        total += reward
    run = simulate(DAY.workload(), agent, CAPACITY, 7)
    assert total == pytest.approx(-lost_utility(minute_utility(run)) * 24)
    assert len({tuple(target) for target in run.decisions.target}) > 1


def test_counts_are_targets_and_shares_divide_what_the_minima_leave():
    observation = make().unwrapped
    observation.reset(seed=1)
    seen = observation.observation
    assert plan_of(DAY.jobs, seen, np.array([1, 2, 3, 4]), "counts").target.tolist() == [1, 2, 3, 4]
    assert plan_of(DAY.jobs, seen, np.array([1.0, 0.5, 0.5, 0.0]), "shares").target.tolist() == [
        6,
        3,
        3,
        1,
    ]
    assert plan_of(DAY.jobs, seen, np.zeros(4), "shares").target.tolist() == [1, 1, 1, 1]


def test_seeds_repeat_an_episode_and_training_days_are_never_the_evaluation_day():
    env, first = make(train=True), []
    for seed in range(6):
        one, _ = env.reset(seed=seed)
        again, _ = env.reset(seed=seed)
        np.testing.assert_array_equal(one, again)
        first.append(env.unwrapped.observation.arrivals_per_min[:, 0].tolist())
    days = [DAY.workload(day).requests_per_min for day in (1, 2)]
    bursts = [[float(counts[:, 0].sum()) for counts in days]]
    assert len({tuple(counts) for counts in first}) > 1
    for counts in first:
        assert min(abs(sum(counts) - total) / total for total in bursts[0]) < 0.2


@pytest.mark.parametrize("cluster", [None, FluidCluster])
def test_initial_replicas_beyond_the_capacity_are_refused(cluster):
    with pytest.raises(
        ValueError, match=r"initial=\[4, 4, 4, 4\] needs 16 cores; the capacity is 14"
    ):
        make(cluster=cluster).reset(options={"initial": [4, 4, 4, 4]})


def test_a_capacity_of_0_is_refused_and_not_replaced_by_that_of_the_scenario():
    with pytest.raises(ValueError, match="capacity=0 cores cannot hold the minimum"):
        gymnasium.make("faro/Cluster-v0", traces=next(iter(scenarios())), capacity=0)


def test_environments_run_side_by_side():
    kept = {"traces": DAY, "capacity": CAPACITY, "cluster": FluidCluster}
    env = gymnasium.make_vec("faro/Cluster-v0", num_envs=3, vectorization_mode="sync", **kept)
    seen, _ = env.reset(seed=3)
    assert seen.shape == (3, 4, len(FEATURES))
    _, rewards, *_ = env.step(np.full((3, 4), 3))
    assert rewards.shape == (3,)


def test_an_invalid_plan_is_an_error_and_not_a_held_decision():
    env = make()
    env.reset(seed=1)
    with pytest.raises(ValueError, match=r"plan.drop"):
        env.step(Plan(np.full(4, 2), np.full(4, 2.0), ("hold",) * 4))


def test_an_unknown_kind_of_action_names_what_is_accepted():
    with pytest.raises(ValueError, match="actions='x' is unknown; accepted: counts, shares"):
        make(actions="x")


def constant(per_min, replicas, cluster, minutes=120):
    """Mean utility of one job at a constant load with constant replicas."""
    counts = np.full((1, minutes), per_min)
    traces = Traces((JOB,), np.zeros((0, 1, 1, minutes), int), counts[None])
    env = make(traces, 30.0, cluster=cluster)
    env.reset(seed=4, options={"initial": [replicas]})
    lost, ended = 0.0, False
    while not ended:
        _, reward, _, ended, _ = env.step(np.array([replicas]))
        lost -= reward
    return 1 - lost / minutes


@pytest.mark.parametrize(("per_min", "replicas"), [(600, 4), (900, 2), (900, 3), (1400, 4)])
def test_the_fluid_model_loses_what_the_requests_lose_at_a_constant_load(per_min, replicas):
    assert constant(per_min, replicas, FluidCluster) == pytest.approx(
        constant(per_min, replicas, None), abs=0.1
    )


def test_a_fluid_replica_serves_from_the_minute_after_its_cold_start():
    counts = np.full((1, 1, 10), 900)
    traces = Traces((JOB,), np.zeros((0, 1, 1, 10), int), counts)
    env = make(traces, 30.0, cluster=FluidCluster)
    env.reset(seed=1)
    running, rewards = [], []
    for _ in range(4):
        _, reward, *_ = env.step(np.array([6]))
        running.append(int(env.unwrapped.observation.running[0]))
        rewards.append(reward)
    assert running[0] == 6  # 35 s after the decision
    assert (
        rewards[0] < -1.5
    )  # the minute before the decision and the minute of the cold start are lost
    assert rewards[1:] == [0.0] * 3


def test_every_scenario_of_the_list_can_be_made_and_holds_its_minima():
    for scenario in scenarios().values():
        if scenario.workload == "faro-10jobs":
            continue
        traces = scenario.traces(scenario.public_seed)
        assert traces.days >= 1
        assert len(traces.jobs) <= min(
            scenario.capacity, *(cores for _, cores in scenario.capacity_steps), np.inf
        )
    assert sum(scenario.quick for scenario in scenarios().values()) >= 6


# What a scenario of today is. A change here is a new version of the scenario's name.
FINGERPRINTS = {
    "steady-v1": "a2902e748a69b089",
    "launch-v1": "53899e84f891e75b",
    "giant-v1": "6204f0587c95784e",
    "neighbours-v1": "7c913c7fd4517d41",
    "llm-10-v1": "82f8c40af3d5f977",
}


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_a_scenario_never_changes_under_its_name(name):
    counts = scenario_of(name).traces(scenario_of(name).public_seed).evaluation
    assert hashlib.sha256(counts.astype("<i8").tobytes()).hexdigest()[:16] == FINGERPRINTS[name]


def test_one_job_of_giant_has_a_hundred_times_the_requests_of_another():
    totals = np.sort(scenario_of("giant-v1").traces(3).evaluation[0].sum(axis=1))
    assert 50 < totals[-1] / np.median(totals[:-1]) < 200


def test_the_new_changes_do_what_they_say():
    plain = synthetic(seed=2, jobs=6, days=2, minutes=120)
    ratio = changed(plain, "drift").evaluation / plain.evaluation
    assert ratio[0, :, 0] == pytest.approx(1.0)
    assert ratio[0, :, -1] == pytest.approx(1.5, rel=0.01)
    bursts = changed(plain, "bursts").evaluation[0] / plain.evaluation[0]
    assert set(np.flatnonzero(bursts.max(axis=1) > 1)) == {0, 3}
    assert set(np.unique(bursts)) <= {1.0, *(3.0**n for n in range(1, 5))}
    sparse = changed(plain, "sparse").evaluation[0].mean(axis=1)
    assert (sparse[[1, 2, 4, 5]] < 2).all()
    assert (sparse[[0, 3]] > 100).all()
    np.testing.assert_array_equal(changed(plain, "drift").train, plain.train)


@pytest.fixture
def small(monkeypatch):
    """A scenario of 36 minutes, with a node lost in the middle."""
    scenario = dataclasses.replace(
        scenario_of("steady-v1"),
        name="small",
        capacity=14,
        capacity_steps=((720.0, 8), (1440.0, 14)),
        synthetic={"jobs": 4, "days": 2, "minutes": 36},
    )
    monkeypatch.setitem(scenarios(), "small", scenario)
    return scenario


def test_the_bound_follows_the_capacity_and_no_policy_beats_it(small):
    instance = Instance(small, 9)
    whole, part = clairvoyants(instance.workload, instance.draws, [14, 8])
    np.testing.assert_array_equal(instance.bound[:, :12], whole.utility[:, :12])
    np.testing.assert_array_equal(instance.bound[:, 12:24], part.utility[:, 12:24])
    np.testing.assert_array_equal(instance.bound[:, 24:], whole.utility[:, 24:])
    for policy in ("FairShare", "HPA", "Faro-Sum"):
        row = scored(policy, instance)
        assert row["regret"] >= -1e-3
        assert row["low"] <= row["regret"] <= row["high"]
        assert row["regret"] == pytest.approx((row["lost_utility"] - row["bound"]) / 4)


def test_in_wrong_times_every_other_job_is_slower_than_stated_and_the_others_are_faster():
    workload = DAY.workload()
    stated = draw(workload, 3)
    assert with_wrong_times(stated, workload, 1.0) is stated
    true = with_wrong_times(stated, workload, 1.4)
    job = np.repeat(np.arange(4), np.diff(stated.first))
    ratio = true.service_s / stated.service_s
    assert [ratio[job == n].mean() for n in range(4)] == pytest.approx([1.4, 1 / 1.4] * 2)
    np.testing.assert_array_equal(true.arrival_s, stated.arrival_s)
    of_requests = [true.service_s[job == n].mean() for n in range(4)]
    assert true.busy_s.shape == (4, workload.minutes)
    assert true.busy_s[:, 0] == pytest.approx(of_requests, rel=0.02), "what the CPUs are busy"


@pytest.fixture
def wrong_times(monkeypatch):
    """A scenario of 90 minutes in which every other service is twice as slow as stated."""
    scenario = dataclasses.replace(
        scenario_of("wrong-times-2x-v1"),
        name="wrong",
        capacity=14,
        synthetic={"jobs": 4, "days": 2, "minutes": 90},
    )
    monkeypatch.setitem(scenarios(), "wrong", scenario)
    return scenario


def test_who_measures_or_learns_loses_less_where_times_are_wrong(wrong_times):
    instance = Instance(wrong_times, 9)
    assert instance.scenario.wrong_by == 2
    regret = {name: scored(name, instance)["regret"] for name in ("Faro-Sum", "Faro-Sum-learning")}
    assert 0 <= regret["Faro-Sum-learning"] < regret["Faro-Sum"] / 1.5
    unmeasured = replace(instance.draws, busy_s=None)
    lost = {
        draws is unmeasured: lost_utility(
            minute_utility(simulate(instance.workload, HPA(), 14, draws=draws))
        )
        for draws in (instance.draws, unmeasured)
    }
    assert lost[False] < lost[True], "an HPA without its CPU would believe the stated times"


def test_the_environment_of_wrong_times_has_the_true_times_and_no_faster_cluster(wrong_times):
    env = gymnasium.make("faro/Cluster-v0", traces="wrong")
    env.reset(seed=0)
    stated = gymnasium.make("faro/Cluster-v0", traces=env.unwrapped._traces, capacity=14)
    stated.reset(seed=0)
    busy_s = env.unwrapped.observation.busy_s
    assert busy_s[0] / busy_s[1] == pytest.approx(4)
    assert stated.unwrapped.observation.busy_s is None
    with pytest.raises(ValueError, match="traces='wrong': its services are not as stated"):
        gymnasium.make("faro/Cluster-v0", traces="wrong", cluster=FluidCluster)


@pytest.fixture
def shared(monkeypatch):
    """A scenario of 36 minutes with two pools of two jobs."""
    scenario = dataclasses.replace(
        scenario_of("shared-36-v1"),
        name="shared",
        capacity=9,
        synthetic={"jobs": 4, "days": 2, "minutes": 36},
    )
    monkeypatch.setitem(scenarios(), "shared", scenario)
    return scenario


def test_who_places_no_models_has_isolated_replicas_for_the_same_requests(shared):
    instance = Instance(shared, 9)
    assert [job.pool for job in instance.workload.jobs] == ["pool1", "pool2"] * 2
    alone = instance.isolated
    assert [job.pool for job in alone.workload.jobs] == [""] * 4
    for name in ("arrival_s", "service_s", "coin"):
        np.testing.assert_array_equal(
            getattr(instance.draws, name), getattr(alone.draws, name), err_msg=name
        )
    run = simulate(alone.workload, FairShare(), 9, draws=alone.draws)
    row = scored("FairShare", instance)
    assert row["lost_utility"] == lost_utility(minute_utility(run))
    assert not places_models("FairShare", instance)


def test_who_places_models_shares_replicas_and_the_bound_is_that_nothing_is_lost(shared):
    instance = Instance(shared, 9)
    assert places_models("Faro-Sum", instance)
    row, isolated = scored("Faro-Sum", instance), scored("Faro-Sum", instance.isolated)
    assert row["bound"] == 0
    assert row["regret"] == pytest.approx(row["lost_utility"] / 4)
    assert 0 <= row["lost_utility"] < isolated["lost_utility"]


def test_a_faster_cluster_has_no_shared_replicas(shared):
    with pytest.raises(ValueError, match="traces='shared': its jobs share replicas"):
        gymnasium.make("faro/Cluster-v0", traces="shared", cluster=FluidCluster)


GAUGE = """
import numpy as np

from faro_lib.policies import FairShare, register


class Watching(FairShare):
    def decide(self, state, observation):
        assert observation.waiting.shape == observation.cache_use.shape == (10,)
        return FairShare.decide(self, state, observation)


register("Watching")(lambda context: Watching())
"""


@pytest.fixture
def language_models(monkeypatch):
    """The scenario llm-10-v1 with days of 24 minutes."""
    scenario = dataclasses.replace(
        scenario_of("llm-10-v1"), name="llm", synthetic={"days": 1, "minutes": 24}
    )
    monkeypatch.setitem(scenarios(), "llm", scenario)
    return scenario


def test_language_models_have_the_rates_and_the_two_limits_of_the_described_services():
    scenario = scenario_of("llm-10-v1")
    traces = scenario.traces(3)
    mean_rps = pd.read_csv(ROOT / scenario.rates).set_index("job")["mean_rps"]
    assert list(mean_rps.index) == list(traces.names)
    of_days = traces.train.mean(axis=(0, 1, 3)) / 60
    np.testing.assert_allclose(of_days, mean_rps, rtol=0.01)
    assert {job.replica.slo_on for job in traces.jobs} == {"both"}
    assert {job.slo_s / job.replica.per_token_weight for job in traces.jobs} == {0.05}
    assert sum(job.bursty for job in traces.jobs) >= 8
    other = scenario.traces(4)
    assert (traces.evaluation != other.evaluation).mean() > 0.9, "a hidden seed hides the days"


@pytest.mark.slow
def test_an_entry_reads_the_gauges_of_engines_and_one_that_does_not_has_the_same_run(
    language_models, tmp_path
):
    file = tmp_path / "watching.py"
    file.write_text(GAUGE)
    watching = score(policy_of(str(file)), ["llm"], public_only=True)["scenarios"][0]
    FACTORIES.pop("Watching")
    usual = score("FairShare", ["llm"], public_only=True)["scenarios"][0]
    assert watching["regret"] == usual["regret"]
    assert usual["regret"] >= 0
    assert usual["inputs_sha256"] == watching["inputs_sha256"]


@pytest.mark.slow
def test_lengths_and_replicas_are_part_of_the_hash_of_the_inputs(language_models):
    instance = Instance(language_models, 3)
    longer = Instance(language_models, 3)
    longer.draws = replace(longer.draws, output_tokens=longer.draws.output_tokens + 1)
    assert longer.sha256 != instance.sha256
    slower = Instance(language_models, 3)
    job = slower.traces.jobs[0]
    replica = replace(job.replica, alpha_s=2 * job.replica.alpha_s)
    jobs = (replace(job, replica=replica), *slower.traces.jobs[1:])
    slower.traces = replace(slower.traces, jobs=jobs)
    assert slower.sha256 != instance.sha256


def test_the_environment_of_language_models_has_their_gauges_and_no_faster_cluster(
    language_models,
):
    env = gymnasium.make("faro/Cluster-v0", traces="llm")
    env.reset(seed=0)
    assert env.unwrapped.observation.waiting.shape == (10,)
    with pytest.raises(ValueError, match="traces='llm': its replicas are engines with gauges"):
        gymnasium.make("faro/Cluster-v0", traces="llm", cluster=FluidCluster)


def test_a_scenario_whose_cluster_is_not_at_hand_is_one_line(language_models):
    missing = dataclasses.replace(language_models, cluster="studies.absent:Cluster")
    problem = "scenario='llm' needs studies.absent, which only a checkout of the repository has"
    with pytest.raises(ValueError, match=problem):
        _ = missing.make_cluster


def test_a_score_can_be_repeated_with_its_hidden_seed_and_differs_with_another(small):
    one = score("HPA", ["small"])
    again = score("HPA", ["small"], one["hidden_seed"])
    for row in (
        *one["scenarios"],
        *again["scenarios"],
        *one["score"].values(),
        *again["score"].values(),
    ):
        for column in MEASURED:
            row.pop(column, None)
    assert one == again
    other = score("HPA", ["small"], one["hidden_seed"] + 1)["scenarios"]
    assert other[0]["inputs_sha256"] == one["scenarios"][0]["inputs_sha256"]  # the public seed
    assert other[1]["inputs_sha256"] != one["scenarios"][1]["inputs_sha256"]


def test_a_policy_that_decides_less_than_once_a_minute_is_refused(small, monkeypatch):
    monkeypatch.setitem(FACTORIES, "Slow", lambda context: FairShare(tick_s=61.0))
    with pytest.raises(ValueError, match=r"policy 'Slow': tick_s=61; the arena accepts at most 60"):
        score("Slow", ["small"], public_only=True)


FAILING = """
from faro_lib.policies import FairShare, register


class Failing(FairShare):
    def decide(self, state, observation):
        if observation.now_s > 600:
            raise RuntimeError("out of ideas")
        return FairShare.decide(self, state, observation)


register("%s")(lambda context: Failing())
"""


def test_a_policy_that_fails_has_no_score_and_its_error_is_printed(small, tmp_path, capsys):
    file, out = tmp_path / "failing.py", tmp_path / "score.json"
    file.write_text(FAILING % "Failing")
    status = cli.main(["arena", "run", str(file), "--scenario", "small", "--out", str(out)])
    FACTORIES.pop("Failing")
    assert status == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert not out.exists()
    line = printed.err.strip()
    assert "failing.py: no score in small (public seed" in line
    assert "policy 'FairShare' failed at" in line
    assert "out of ideas" in line
    assert "regret" not in line


MISTAKEN = """
from faro_lib.policies import FairShare, register
from faro_lib.workload import arrays_of


class Mistaken(FairShare):
    def decide(self, state, observation):
        return arrays_of(state).service_time_s


register("Mistaken")(lambda context: Mistaken())
"""


def test_the_error_of_a_missing_column_names_the_columns_that_jobs_have(small, tmp_path, capsys):
    file = tmp_path / "mistaken.py"
    file.write_text(MISTAKEN)
    assert cli.main(["arena", "run", str(file), "--scenario", "small", "--public"]) == 2
    FACTORIES.pop("Mistaken")
    printed = capsys.readouterr().err
    assert "jobs have no column 'service_time_s'; columns: slo_s, quantile, busy_s," in printed


class TestAgainst:
    """`--against` says by how much the regrets of two entries differ on the same requests."""

    def run(self, *options):
        return cli.main(["arena", "run", *options, "--scenario", "small"])

    def test_a_policy_differs_from_itself_by_nothing(self, small, capsys):
        assert self.run("FairShare", "--against", "FairShare") == 0
        printed = capsys.readouterr()
        against = json.loads(printed.out)["against"]
        assert against["policy"] == "FairShare"
        assert against["difference"] == against["low"] == against["high"] == 0
        assert "FairShare minus FairShare in small: regret +0.00% (+0.00% to +0.00%)" in printed.err

    def test_the_difference_is_that_of_the_mean_regrets_and_its_interval_holds_it(
        self, small, capsys
    ):
        assert self.run("FairShare", "--against", "AIAD", "--hidden-seed", "5") == 0
        found = json.loads(capsys.readouterr().out)
        other = score("AIAD", ["small"], 5)
        regret = [np.mean([row["regret"] for row in one["scenarios"]]) for one in (found, other)]
        against = found["against"]["scenarios"]["small"]
        assert against["difference"] == pytest.approx(regret[0] - regret[1])
        assert against["low"] < against["difference"] < against["high"]

    def test_an_earlier_score_gives_its_hidden_seed(self, small, tmp_path, capsys):
        earlier = str(tmp_path / "earlier.json")
        assert self.run("AIAD", "--hidden-seed", "5", "--out", earlier) == 0
        capsys.readouterr()
        assert self.run("FairShare", "--against", earlier) == 0
        assert json.loads(capsys.readouterr().out)["hidden_seed"] == 5
        assert self.run("FairShare", "--against", earlier, "--hidden-seed", "6") == 2
        assert "has the hidden seed 5; leave the option out" in capsys.readouterr().err

    def test_a_score_on_other_inputs_is_refused(self, small, tmp_path, capsys):
        earlier = tmp_path / "earlier.json"
        assert self.run("AIAD", "--hidden-seed", "5", "--out", str(earlier)) == 0
        changed = json.loads(earlier.read_text())
        changed["scenarios"][0]["inputs_sha256"] = "0"
        earlier.write_text(json.dumps(changed))
        assert self.run("FairShare", "--against", str(earlier)) == 2
        assert "AIAD was scored on other inputs in small" in capsys.readouterr().err

    def test_a_file_that_is_no_score_and_an_unknown_name_are_refused_before_anything_runs(
        self, small, tmp_path, capsys
    ):
        wrong = tmp_path / "wrong.json"
        wrong.write_text("[1]")
        assert self.run("FairShare", "--against", str(wrong)) == 2
        assert "wrong.json: not a score" in capsys.readouterr().err
        assert self.run("FairShare", "--against", "Unknown") == 2
        printed = capsys.readouterr().err
        assert "Unknown" in printed
        assert "regret" not in printed


def test_the_hash_of_the_library_covers_the_code_that_decides_scores():
    """That is `faro_lib`, which imports nothing of ours, and the arena, which imports the two."""
    hashed = [path.relative_to(ROOT) for path in library_files()]
    assert {path.parts[0] for path in hashed} == {"faro_lib", "faro_ops"}
    assert ROOT / "faro_lib/simulate/run.py" in library_files()
    arena = [path for path in hashed if path.parts[0] == "faro_ops"]
    assert {path.parts[1:3] for path in arena} == {("advise", "arena")}
    for path in arena:
        imported = re.findall(
            r"^\s*(?:from|import) (faro_ops[\w.]*)", (ROOT / path).read_text(), re.M
        )
        assert all(name.startswith("faro_ops.advise.arena") for name in imported), path


def test_tuning_needs_the_public_seeds_only(small):
    tuned = score("HPA", ["small"], public_only=True)
    assert [row["kind"] for row in tuned["scenarios"]] == list(tuned["score"]) == ["public"]
    assert tuned["hidden_seed"] is None


def test_a_file_with_two_policies_is_no_entry(tmp_path, capsys):
    (tmp_path / "two.py").write_text(FAILING % "One" + FAILING % "Two")
    assert cli.main(["arena", "run", str(tmp_path / "two.py")]) == 2
    for name in ("One", "Two"):
        FACTORIES.pop(name)
    assert_one_line(capsys.readouterr().err, "registers 2 policies")


def test_the_environment_knows_the_scenarios_by_name():
    env = gymnasium.make("faro/Cluster-v0", traces="node-lost-v1")
    env.reset(seed=0)
    for _ in range(95):
        env.step(np.full(10, 2))
    assert env.unwrapped.observation.capacity == 28
    assert isinstance(env.unwrapped._workload, Workload)

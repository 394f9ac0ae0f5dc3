"""Live trials of learning: what they serve, what their tables say, and the emulated Deployments."""

import asyncio
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from waiting import in_virtual_time

from faro_lib.policies.learning import Learned
from faro_lib.queueing.service_factor import FACTORS
from faro_lib.workload import Job
from faro_ops.operate.kube.deployment_metrics import Queries
from faro_ops.operate.kube.deployments import DeploymentState
from studies.live import learning
from studies.live.agreement import LIVE, SIMULATION
from studies.live.deployments import queries
from studies.live.emulated_deployments import BUCKETS, RANDOM, Deployment, Settings
from studies.misspecification import ASSUMING, KNOWING, LEARNING

ROOT = Path(__file__).parents[2]


# --- trials


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """(factors, runs) of a trial that is simulated instead of served."""
    folder = tmp_path_factory.mktemp("journals")
    how = {"minutes": 14, "scale": 4.0, "report": lambda line: None}
    return learning.trial(0, 24, learning.simulated, folder, **how)


def test_faro_with_the_true_table_gets_the_same_requests_as_faro_with_the_wrong_one():
    wrong = learning.slice_of(LEARNING, 14, 4.0)
    right = learning.slice_of(KNOWING, 14, 4.0)
    assert [job.service_time_s for job in wrong.workload.jobs] == [1.0, 1.0, 1.0]
    assert [job.service_time_s for job in right.workload.jobs] == [1.0, 1.0, 1.5]
    ours, theirs = wrong.draws(24), right.draws(24)
    assert np.array_equal(ours.arrival_s, theirs.arrival_s)
    assert ours.service_s == pytest.approx(theirs.service_s)
    slow = ours.service_s[ours.first[2] :]
    assert slow.mean() == pytest.approx(1.5, rel=0.05)


def test_a_wrong_table_costs_violations_and_learning_ends_that(trial):
    _, runs = trial
    missed = runs[runs["environment"] == LIVE].set_index("policy")["missed_share"]
    assert missed[ASSUMING] > 3 * missed[LEARNING]
    assert missed[LEARNING] == pytest.approx(missed[KNOWING], abs=0.02)


def test_the_simulator_learns_the_slow_service_within_a_tenth_in_ten_minutes(trial):
    factors, _ = trial
    slow = factors[(factors["environment"] == SIMULATION) & (factors["job"] == learning.SLOW)]
    assert (slow["true"] == 1.5).all()
    assert learning.learned_minute(slow, 0.1) <= 10


def test_only_faro_that_learns_has_factors(trial):
    factors, runs = trial
    assert len(runs) == 6  # three policies, served and simulated
    assert not factors.duplicated(["environment", "minute", "job"]).any()
    assert set(factors["environment"]) == {LIVE, SIMULATION}


# --- what a run says


def known(minute: int, *factors: float) -> Learned:
    """A learner that is sure of the factor in FACTORS next to each given one."""
    nearest = [np.abs(FACTORS - factor).argmin() for factor in factors]
    return replace(Learned.start(np.eye(len(FACTORS))[nearest]), minute=minute)


def test_the_factors_of_a_minute_are_those_after_it_is_complete():
    ticks = [known(0, 1.0), known(1, 1.0), known(1, 1.0), known(2, 1.5)]
    table = learning.factors_of(ticks, [Job("a")], np.array([1.5]))
    assert table["minute"].tolist() == [1, 2]
    assert table["factor"].tolist() == pytest.approx([1.0, 1.5], rel=0.03)
    assert table["error"].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("factors", "minute"),
    [
        ([1.0, 1.4, 1.5], 2),  # within a tenth from minute 2 on
        ([1.5, 1.5, 1.5], 1),
        ([1.5, 1.7, 1.5], 3),  # it was right before, too, but did not stay so
        ([1.5, 1.5, 1.7], np.inf),
        ([], np.inf),
    ],
)
def test_a_factor_is_learned_from_the_minute_on_from_which_it_stays_right(factors, minute):
    minutes = range(1, len(factors) + 1)
    table = pd.DataFrame({"minute": minutes, "true": 1.5, "factor": factors}, dtype=float)
    assert learning.learned_minute(table, 0.1) == minute


# --- bad input


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ray", "--minutes", "12"], "--minutes 12: at least 13 are needed"),
        (["ray", "--trials", "0"], "--trials 0 --first 0: there is no such trial"),
        (["ray", "--first", "3"], "--trials 3 --first 3: there is no such trial"),
        (["ray", "--first", "1"], "ray-factors.csv"),
        (["ray", "--scale", "7"], "scale=7.0 must divide 60"),
        (["ray", "--scale", "20"], "decisions must be at least 3 s apart"),
        (["slurm"], "invalid choice: 'slurm'"),
    ],
)
def test_bad_input_is_one_line_and_nothing_starts(words, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        learning.main([*words, "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_prometheus_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit) as ended:
        learning.main(["deployments"])
    assert ended.value.code == 2
    assert "apt-get install prometheus" in capsys.readouterr().err


def test_trials_that_finished_are_kept_if_a_later_one_fails(trial, tmp_path, monkeypatch):
    def two(*_):
        yield trial
        raise OSError("the disk is full")

    monkeypatch.setattr(learning, "trials", two)
    with pytest.raises(OSError, match="the disk is full"):
        learning.main(["ray", "--out", str(tmp_path)])
    assert len(pd.read_csv(tmp_path / "ray-runs.csv")) == 6


# --- emulated Deployments


def settings(**changes) -> Settings:
    usual = {"port": 1, "replicas": {"a": 2}, "max_ongoing_requests": 2, "cold_start_s": 0.0}
    return Settings(**usual | changes)


def test_settings_survive_the_command_line():
    assert Settings.of(str(settings())) == settings()


def test_a_request_goes_to_the_pod_with_the_fewest_and_a_full_pod_drops():
    async def served() -> list[bool]:
        one = Deployment("a", settings())
        tasks = []
        for _ in range(5):  # two pods with two places each
            tasks.append(asyncio.create_task(one.chosen().answer(0.01)))
            await asyncio.sleep(0)  # it is in its queue
        assert sorted(pod.queue.ongoing for pod in one.pods) == [2, 2]
        return await asyncio.gather(*tasks)

    assert in_virtual_time(served()) == [True] * 4 + [False]


def test_at_random_a_full_pod_gets_requests_although_another_is_idle():
    async def chosen() -> set[str]:
        one = Deployment("a", settings(balancer=RANDOM))
        busy = asyncio.create_task(one.pods[0].answer(0.01))
        await asyncio.sleep(0)
        names = {one.chosen().name for _ in range(50)}
        await busy
        return names

    assert in_virtual_time(chosen()) == {"a-0", "a-1"}


def test_a_new_pod_serves_after_its_cold_start_and_a_removed_one_ends_its_requests():
    async def scaled() -> None:
        one = Deployment("a", settings(replicas={"a": 1}))
        first = one.pods[0]
        one.scale(2)
        seen = DeploymentState.of(one.api_object())
        assert (seen.target, seen.ready, seen.settled) == (2, 1, False)
        assert one.chosen() is first
        await asyncio.gather(*one.starts)
        assert DeploymentState.of(one.api_object()).settled

        request = asyncio.create_task(one.pods[1].answer(0.01))
        await asyncio.sleep(0)
        one.scale(1)
        assert one.pods == [first]
        assert len(one.terminating) == 1
        assert await request

    in_virtual_time(scaled())


def test_the_queries_are_those_of_the_example():
    example = yaml.safe_load((ROOT / "cluster/jobs.yaml").read_text())["jobs"][0]
    stated = Queries.of("vision", example["deployment"]["queries"])
    assert queries(Job("vision", quantile=0.99)) == stated


def test_emulated_pods_have_the_buckets_of_the_model_server():
    spec = importlib.util.spec_from_file_location("server", ROOT / "cluster/model_server.py")
    server = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(server)
    assert server.BUCKETS == BUCKETS

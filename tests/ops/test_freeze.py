"""`faro freeze` keeps all jobs as they are until `faro thaw`, while the controller goes on."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from journal_things import count_ticks
from kube_api import KubeApi
from live_things import JOBS, FakeRay, Still, Wanting
from observations import observed
from test_kube_ceilings import cluster_on, two_services
from waiting import until

from faro_lib.protocol import OVERRIDE
from faro_lib.workload import Job
from faro_ops import cli
from faro_ops.journal import reading
from faro_ops.journal.database import day_files
from faro_ops.operate.kube.operate import NamespacedName
from faro_ops.operate.kube.plan_overrides import PlanOverrides
from faro_ops.operate.loop.loop import run
from faro_ops.operate.memory.override_store import JournalOverrides
from faro_ops.operate.memory.overrides import ALL_JOBS, LastKnown, Override, Watched
from faro_ops.protocol import LiveGuardrails, LivePlan

NOW_S = time.time()
NAMES = ("a", "b")


class Cluster:
    """Two jobs that are scaled at once; `fields` override what is observed."""

    def __init__(self, *target, **fields):
        self.target, self.fields, self.now_s = list(target), fields, 0.0
        self.fails = False

    def advance(self, until_s):
        self.now_s = until_s

    def observe(self):
        if self.fails:
            raise OSError("no answer")
        return observed(self.target, now_s=self.now_s, **self.fields)

    def apply(self, target, drop):
        self.target = target.tolist()


class TestTheLoop:
    def ticks(self, cluster, policy=None, **options):
        steps = []
        options = {"frozen": lambda: NAMES, "on_step": steps.append} | options
        run(cluster, policy or Wanting([9, 9]), JOBS, 55.0, **options)
        return steps

    def test_frozen_jobs_keep_their_replicas_and_the_loop_goes_on(self, tmp_path):
        cluster = Cluster(4, 2)
        steps = self.ticks(cluster, journal=tmp_path / "j")
        assert cluster.target == [4, 2]
        assert len(steps) == 5
        _, recorded = reading.read(tmp_path / "j")
        assert [one.step.observation.held.tolist() for one in recorded] == [[True, True]] * 5

    @pytest.mark.parametrize(
        "fields",
        [
            {"capacity": 1.0},
            {"mean_latency_s": np.full(2, np.nan), "tail_latency_s": np.full(2, np.nan)},
            {"held": np.array([True, False])},
        ],
        ids=["too little capacity", "missing data", "a misconfigured job"],
    )
    def test_whatever_is_observed(self, fields):
        cluster = Cluster(4, 2, **fields)
        self.ticks(cluster, guardrails=LiveGuardrails("fair-share", stale_after_s=0.0))
        assert cluster.target == [4, 2]

    def test_although_the_policy_fails(self):
        class Failing(Wanting):
            def decide(self, state, observation):
                raise ValueError("no plan")

        cluster = Cluster(4, 2)
        options = {"guardrails": LiveGuardrails("fair-share"), "on_failure": lambda *_: None}
        self.ticks(cluster, Failing([9, 9]), **options)
        assert cluster.target == [4, 2]

    def test_somebody_who_scales_a_frozen_job_by_hand_is_not_overruled(self):
        cluster = Cluster(4, 2)

        def by_hand(step):
            cluster.target[0] = 7

        self.ticks(cluster, on_step=by_hand)
        assert cluster.target == [7, 2]

    def test_a_job_that_appears_during_the_freeze_keeps_what_it_has(self):
        cluster = Cluster(0, 2, present=np.array([False, True]))

        def deployed(step):
            cluster.target[0] = 20
            cluster.fields = {}

        self.ticks(cluster, on_step=deployed)
        assert cluster.target == [20, 2], "and does not start with its minimum"

    def test_it_holds_after_a_restart_and_while_the_cluster_cannot_be_observed(self, tmp_path):
        path = tmp_path / "j"
        cluster = Cluster(4, 2)
        run(cluster, Wanting([4, 2]), JOBS, 35.0, journal=path)
        cluster.fails = True
        options = {"journal": path, "frozen": lambda: NAMES, "on_failure": lambda *_: None}
        run(cluster, Wanting([9, 9]), JOBS, 55.0, **options)
        cluster.fails = False
        run(cluster, Wanting([9, 9]), JOBS, 75.0, **options)
        assert cluster.target == [4, 2]

    def test_a_count_for_one_job_is_in_force_while_the_others_are_frozen(self):
        cluster = Cluster(4, 2)
        jobs = (Job("a", cold_start_s=5.0, max_replicas=6), JOBS[1])
        options = {"guardrails": LiveGuardrails(fixed=("a",)), "frozen": lambda: ("b",)}
        steps = []
        run(cluster, Wanting([9, 9]), jobs, 55.0, on_step=steps.append, **options)
        assert cluster.target == [6, 2]
        assert steps[-1].plan.reason[0] == OVERRIDE

    def test_the_bounds_of_hpas_stay(self):
        class Bounding(Wanting):
            def decide(self, state, observation):
                floor = np.array([3, 3])
                reason = ("planned",) * 2
                return state, LivePlan(np.array([8, 8]), np.zeros(2), reason, floor=floor)

        server = two_services()
        cluster = cluster_on(server)
        cluster.advance = lambda until_s: None
        self.ticks(cluster, Bounding([8, 8]))
        assert server.bounds() == {"a": (1, 4), "b": (1, 4)}
        assert server.writes == []


class TestTheSettings:
    """The later of two orders counts."""

    @pytest.fixture
    def store(self, tmp_path):
        return JournalOverrides(tmp_path / "j")

    @pytest.fixture
    def watched(self, tmp_path, store):
        (tmp_path / "jobs.yaml").write_text("- job: a\n- job: b\n")
        return Watched(tmp_path / "jobs.yaml", LastKnown(store.read))

    def given(self, store, *jobs):
        for n, job in enumerate(jobs):
            replicas = None if job == ALL_JOBS else 5
            store.change(adds=Override(job=job, by="me", from_s=NOW_S - 100 + n, replicas=replicas))

    def test_a_freeze_suspends_the_counts_before_it(self, store, watched):
        self.given(store, "a", ALL_JOBS)
        new = watched.new()
        assert (new.frozen_jobs, new.fixed_jobs) == (("a", "b"), ())
        assert [one.job for one in new.suspended] == ["a"]

    def test_a_count_after_it_is_in_force_and_the_other_jobs_are_frozen(self, store, watched):
        self.given(store, ALL_JOBS, "a")
        new = watched.new()
        assert (new.frozen_jobs, new.fixed_jobs, new.suspended) == (("b",), ("a",), ())

    def test_a_job_that_is_added_to_the_table_is_frozen_too(self, store, watched, tmp_path):
        self.given(store, ALL_JOBS)
        watched.new()
        (tmp_path / "jobs.yaml").write_text("- job: a\n- job: b\n- job: new\n")
        assert watched.new().frozen_jobs == ("a", "b", "new")

    def test_it_ends_at_its_end_and_the_counts_are_in_force_again(
        self, store, watched, monkeypatch
    ):
        self.given(store, "a")
        store.change(adds=Override(job=ALL_JOBS, by="me", from_s=NOW_S - 1, until_s=NOW_S + 3600))
        before = watched.new()
        monkeypatch.setattr(time, "time", lambda: NOW_S + 3601)
        after = watched.new()
        assert (after.frozen_jobs, after.fixed_jobs, after.suspended) == ((), ("a",), ())
        (line,) = before.changes(after)
        assert line.startswith("over or cleared: all jobs: frozen from ")

    def test_its_begin_is_one_line_that_says_who(self, store, watched):
        self.given(store, "a")
        before = watched.new()
        store.change(adds=Override(job=ALL_JOBS, by="me", from_s=NOW_S - 1))
        (line,) = before.changes(watched.new())
        assert line.startswith("all jobs: frozen from ")
        assert line.endswith(", by me")

    def test_it_holds_the_jobs_of_a_run_whose_newest_settings_are_rejected(self, store, watched):
        serving = watched.known
        self.given(store, ALL_JOBS, "a")
        newest = watched.new()
        assert serving.frozen_by(newest) == NAMES, "the count for a is not in force yet"
        assert newest.frozen_by(newest) == ("b",)
        assert newest.frozen_by(serving) == ()

    def test_a_place_that_cannot_be_read_does_not_end_it(self, store, watched):
        self.given(store, ALL_JOBS)
        watched.new()
        store.path.write_bytes(b"damaged")
        with pytest.raises(OSError):
            watched.new()
        assert watched.known.frozen_jobs == ("a", "b")


class TestTheCommandWithAJournal:
    @pytest.fixture
    def path(self, tmp_path):
        run(Still(), Wanting([1, 1]), JOBS, 15.0, journal=tmp_path / "j")
        return tmp_path / "j"

    def orders(self, path):
        return JournalOverrides(path).read().valid

    def test_freeze_and_thaw(self, path, capsys):
        assert cli.main(["freeze", "--journal", str(path)]) == 0
        assert [one.freezes for one in self.orders(path)] == [True]
        assert capsys.readouterr().out.startswith("all jobs: frozen from ")
        assert cli.main(["thaw", "--journal", str(path)]) == 0
        assert self.orders(path) == ()
        assert capsys.readouterr().out.startswith("over: all jobs: frozen from ")

    def test_a_second_freeze_replaces_the_first_and_keeps_other_orders(self, path):
        assert cli.main(["freeze", "--journal", str(path)]) == 0
        assert cli.main(["set", "a", "--journal", str(path), "--replicas", "2"]) == 0
        assert cli.main(["freeze", "--journal", str(path), "--until", "23:59"]) == 0
        assert [one.job for one in self.orders(path)] == ["a", ALL_JOBS]
        assert self.orders(path)[1].until_s is not None

    def test_thaw_without_a_freeze_says_so(self, path, capsys):
        assert cli.main(["thaw", "--journal", str(path)]) == 0
        assert capsys.readouterr().out == "all jobs: not frozen\n"

    def test_a_damaged_journal_does_not_prevent_a_freeze(self, path):
        (file,) = day_files(path)
        file.write_bytes(b"damaged")
        assert cli.main(["freeze", "--journal", str(path)]) == 0
        assert len(self.orders(path)) == 1


class TestTheCommandWithAPlan:
    @pytest.fixture
    def api(self, monkeypatch):
        fake = KubeApi(namespace="faro")
        fake.plan = {"spec": {"policy": "Faro-Sum"}, "status": {}}
        monkeypatch.setattr(NamespacedName, "connect", lambda self, **_: fake)
        return fake

    def test_two_controllers_obey_from_their_next_tick_on_and_after_a_restart(self, api, tmp_path):
        (tmp_path / "jobs.yaml").write_text("- job: a\n- job: b\n")

        def controller():
            orders = LastKnown(PlanOverrides(api, "faro", "faro").read)
            return Watched(tmp_path / "jobs.yaml", orders)

        controllers = [controller(), controller()]
        assert cli.main(["freeze", "--plan", "faro/faro"]) == 0
        assert [one.new().frozen_jobs for one in controllers] == [NAMES, NAMES]
        assert controller().known.frozen_jobs == NAMES
        assert cli.main(["thaw", "--plan", "faro/faro"]) == 0
        assert [one.new().frozen_jobs for one in controllers] == [(), ()]
        assert api.plan["spec"] == {"policy": "Faro-Sum", "overrides": []}

    def test_by_hand_a_row_for_the_job_star_freezes_all(self, api, tmp_path):
        api.order({"job": "*"})
        (tmp_path / "jobs.yaml").write_text("- job: a\n- job: b\n")
        orders = LastKnown(PlanOverrides(api, "faro", "faro").read)
        assert Watched(tmp_path / "jobs.yaml", orders).known.frozen_jobs == NAMES

    def test_without_a_plan_it_is_one_line(self, api, capsys):
        api.plan = None
        assert cli.main(["freeze", "--plan", "faro/faro"]) == 2
        assert "FaroPlan 'faro/faro' does not exist" in capsys.readouterr().err


def test_faro_run_is_frozen_restarted_and_thawed(tmp_path, capfd):
    """On a fake Ray, whose jobs have other replicas than the policy wants."""
    ray = FakeRay({"a": 1, "b": 1})
    path, table = tmp_path / "j", tmp_path / "jobs.yaml"
    table.write_text("- job: a\n- job: b\n")
    problems = []

    def ticks():
        return count_ticks(path)

    def controller(address, operator):
        def work():
            try:
                operator()
            except BaseException as error:
                problems.append(error)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=work)
        thread.start()
        command = f"run --jobs {table} --address {address} --serve-address {address} --apply"
        options = ["--policy", "FairShare", "--tick", "0.5", "--max-scale-down", "1"]
        options += ["--journal", str(path)]
        status = cli.main([*command.split(), *options])
        thread.join()
        assert status == 0

    def freeze():
        until(lambda: ray.targets == {"a": 4, "b": 4})
        assert cli.main(["freeze", "--journal", str(path)]) == 0
        seen = ticks()
        until(lambda: ticks() >= seen + 3)
        ray.targets["b"] = 2  # by hand
        seen = ticks()
        until(lambda: ticks() >= seen + 3)

    def thaw():
        seen = ticks()
        until(lambda: ticks() >= seen + 3)
        problems.extend([] if ray.targets == {"a": 4, "b": 2} else [ray.targets])
        assert cli.main(["set", "a", "--journal", str(path), "--replicas", "6"]) == 0
        until(lambda: ray.targets == {"a": 6, "b": 2})
        assert cli.main(["set", "a", "--journal", str(path), "--replicas", "7"]) == 0
        seen = ticks()
        until(lambda: ticks() >= seen + 3)
        problems.extend([] if ray.targets == {"a": 6, "b": 2} else [ray.targets])
        assert cli.main(["thaw", "--journal", str(path)]) == 0
        until(lambda: ray.targets == {"a": 7, "b": 1})
        assert cli.main(["set", "a", "--journal", str(path), "--clear"]) == 0
        until(lambda: ray.targets == {"a": 4, "b": 4})

    with ray.served() as address:
        controller(address, freeze)
        controller(address, thaw)
    assert problems == []
    said = capfd.readouterr().err
    assert "all jobs: frozen from" in said
    assert "over or cleared: all jobs: frozen" in said

"""Pools on Ray Serve without Ray: a gateway's queue, loads and drops, the controller's view."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from functools import reduce
from urllib.request import urlopen

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_things import FakeRay
from waiting import PATIENCE_S, in_virtual_time

from faro_lib.forecast.kalman import untrained
from faro_lib.policies import PolicyContext, make
from faro_lib.protocol import SharingCluster
from faro_lib.workload import Job, Placement, pools_of
from faro_lib.workload.pools import chained
from faro_ops import cli
from faro_ops.http import HttpClient
from faro_ops.journal import reading
from faro_ops.journal.ticks import plain
from faro_ops.operate.clock import Clock
from faro_ops.operate.export.exporter import Exporter
from faro_ops.operate.kube.leader_gate import LeaderGatedCluster
from faro_ops.operate.limits.pacing import paced
from faro_ops.operate.loop import resume
from faro_ops.operate.loop.loop import run
from faro_ops.operate.rayserve import pool_replica
from faro_ops.operate.rayserve.applications import Deployment
from faro_ops.operate.rayserve.cluster import RayServeCluster
from faro_ops.operate.rayserve.deploy import configuration
from faro_ops.operate.rayserve.gateway import Gateway
from faro_ops.operate.rayserve.late_queue import LateQueue, Place
from faro_ops.operate.rayserve.pace import Pace
from faro_ops.operate.rayserve.placements import SETTLE_S, ModelReport, Placements
from faro_ops.operate.rayserve.pool_replica import Answered, Forwarded, Models, ModelSpec
from faro_ops.operate.rayserve.pooled_jobs import PooledJobs
from faro_ops.operate.rayserve.replica import Failed, ReplicaQueue
from faro_ops.operate.rayserve.residency import Held, PoolJobs, assigned_rows, named_rows, next_step
from faro_ops.operate.rayserve.spec import serve_specs
from faro_ops.operate.rayserve.statistics import add_row, empty_row

NAMES = ("a", "b", "c")
JOBS = tuple(Job(name, pool="p", models_per_replica=2, model="m", load_s=2.0) for name in NAMES)
POOL = pools_of(JOBS)[0]
OF = PoolJobs(POOL, NAMES)
# Memory for two models only: one must go before another comes.
TIGHT = PoolJobs(replace(POOL, models=2, memory_gib=2.0, memory_of=(1.0,) * 3), NAMES)


def held(*models, loading="", failed=()):
    return Held(frozenset(models), loading, frozenset(failed))


class TestTheQueueOfAGateway:
    def test_a_free_replica_takes_the_earliest_deadline_of_the_models_that_it_holds(self):
        async def order():
            queue, served, go = LateQueue(), [], asyncio.Event()
            queue.update({"r": frozenset("ab")})

            async def request(job, deadline_s):
                async with Place(queue, job, deadline_s):
                    served.append((job, deadline_s))
                    await go.wait()

            first = asyncio.create_task(request("a", 9.0))
            await asyncio.sleep(0)
            waiting = [("b", 5.0), ("a", 3.0), ("c", 1.0), ("b", 4.0)]
            tasks = [asyncio.create_task(request(*one)) for one in waiting]
            await asyncio.sleep(0)  # all of them wait
            go.set()
            await asyncio.wait([first, *tasks[:2], tasks[3]])
            assert not tasks[2].done()  # nothing holds its model
            queue.update({"r": frozenset("ab"), "s": frozenset("c")})
            await tasks[2]
            return served

        served = asyncio.run(order())
        assert served == [("a", 9.0), ("a", 3.0), ("b", 4.0), ("b", 5.0), ("c", 1.0)]

    def test_a_request_whose_client_has_gone_keeps_no_replica(self):
        async def rest():
            queue = LateQueue()
            queue.update({"r": frozenset("a")})
            first, second, third = (Place(queue, "a", deadline_s) for deadline_s in (1.0, 2.0, 3.0))
            await queue.take(first)
            gone = asyncio.create_task(queue.take(second))
            late = asyncio.create_task(queue.take(third))
            await asyncio.sleep(0)
            queue.give_back(first)  # `second` has it now, but its task does not know yet
            gone.cancel()
            await asyncio.wait_for(late, PATIENCE_S)
            return third.replica

        assert asyncio.run(rest()) == "r"

    def test_a_replica_gets_the_next_request_when_it_is_almost_free(self):
        async def given():
            queue, seen = LateQueue(lambda job: 0.0 if job == "a" else math.inf), []
            queue.update({"r": frozenset("ab")})
            first, *later = (Place(queue, job, n) for n, job in enumerate("aabb"))
            await queue.take(first)
            tasks = [asyncio.create_task(queue.take(place)) for place in later]
            for leaves in (None, first, *later[:2]):
                if leaves:
                    queue.give_back(leaves)
                await asyncio.sleep(0.001)
                seen.append("".join("-sw"[bool(p.replica) + p.ahead] for p in (first, *later)))
            await asyncio.gather(*tasks)
            return seen

        # s: in service, w: waits in the replica. While b is in service, none waits there.
        assert asyncio.run(given()) == ["sw--", "-sw-", "--s-", "---s"]

    def test_a_replica_without_requests_comes_before_one_that_is_almost_free(self):
        async def given():
            queue = LateQueue(lambda _: 0.0)
            queue.update({"r": frozenset("a")})
            first, second = (Place(queue, "a", 1.0) for _ in range(2))
            await queue.take(first)
            await asyncio.sleep(0.001)
            queue.update({"r": frozenset("a"), "s": frozenset("a")})
            await queue.take(second)
            return first.replica, second.replica, second.ahead

        assert asyncio.run(given()) == ("r", "s", False)

    @given(
        st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=30),
        st.lists(st.sets(st.sampled_from("abc"), min_size=1), min_size=1, max_size=4),
        st.sampled_from([(math.inf, 1), (0.0, 2)]),
        st.randoms(use_true_random=False),
    )
    def test_all_requests_are_served_and_no_replica_has_more_at_once_than_it_may(
        self, requests, models, limits, random
    ):
        free_after_s, at_once = limits

        async def run():
            queue, inside = LateQueue(lambda _: free_after_s), Counter()
            most, done = Counter(), []
            every = {f"r{n}": frozenset(one) for n, one in enumerate(models)}

            async def request(job, deadline_s):
                async with Place(queue, job, deadline_s) as place:
                    inside[place.replica] += 1
                    most[place.replica] = max(most[place.replica], inside[place.replica])
                    for _ in range(random.randint(0, 3)):
                        await asyncio.sleep(0)
                    inside[place.replica] -= 1
                    done.append(job)

            tasks = [asyncio.create_task(request(*one)) for one in requests]
            for _ in range(5):  # replicas come and go
                some = random.sample(sorted(every), random.randint(0, len(every)))
                queue.update({name: every[name] for name in some})
                await asyncio.sleep(0)
            queue.update(every | {"all": frozenset("abc")})
            await asyncio.gather(*tasks)
            return done, most

        done, most = in_virtual_time(asyncio.wait_for(run(), PATIENCE_S))
        assert Counter(done) == Counter(job for job, _ in requests)
        assert max(most.values(), default=0) <= at_once


class TestOneStepOfAReplica:
    def test_a_model_is_loaded_before_the_old_one_goes_if_memory_allows(self):
        replicas = {"r": held("a", "b"), "s": held("b", "c")}
        rows = [("a", "c"), ("b", "c")]
        step = next_step(OF, "r", rows, rows[0], replicas)
        assert (step.drop, step.load) == ((), "c")
        step = next_step(TIGHT, "r", rows, rows[0], replicas)
        assert (step.drop, step.load) == (("b",), "c")

    def test_the_last_copy_of_a_model_stays_although_its_replica_should_drop_it(self):
        replicas, rows = {"r": held("a", "b"), "s": held("c")}, [("a", "c"), ("c", "b")]
        step = next_step(TIGHT, "r", rows, rows[0], replicas)
        assert (step.drop, step.load) == ((), "")
        after = replicas | {"s": held("b", "c")}
        assert next_step(TIGHT, "r", rows, rows[0], after).drop == ("b",)

    def test_a_model_that_could_not_be_loaded_costs_the_replica_nothing_that_it_holds(self):
        replicas = {"r": held("b", failed="a"), "s": held("b")}
        step = next_step(TIGHT, "r", [("a",), ("b",)], ("a",), replicas)
        assert (step.drop, step.load) == ((), "")

    def test_an_empty_replica_loads_another_model_until_its_own_is_tried_again(self):
        replicas = {"r": held(failed="a"), "s": held("b")}
        assert next_step(TIGHT, "r", [("a",), ("b",)], ("a",), replicas).load == "b"

    def test_nothing_is_dropped_soon_after_a_change(self):
        replicas, rows = {"r": held("a", "b"), "s": held("b")}, [("a",), ("b",)]
        assert next_step(OF, "r", rows, rows[0], replicas, settled=False).drop == ()
        assert next_step(OF, "r", rows, rows[0], replicas).drop == ("b",)

    def test_replicas_follow_the_rows_with_the_least_to_load(self):
        replicas = {"r": held("b", "c"), "s": held("a", "b"), "t": held("c", "a")}
        rows = [("a", "b"), ("b", "c"), ("c", "a")]
        assert assigned_rows(OF, rows, replicas, {}) == {
            "r": ("b", "c"),
            "s": ("a", "b"),
            "t": ("c", "a"),
        }


class World:
    """Replicas that do what the actor says; time passes by hand."""

    def __init__(self, broken=()):
        self.now_s, self.broken = 0.0, set(broken)
        self.actor = Placements(lambda: self.now_s)
        self.replicas: dict[str, Held] = {}

    def add(self, name):
        row, _ = self.actor.report(OF, name, ModelReport(held()))
        self.replicas[name] = held(*row)

    def second(self):
        self.now_s += 1.0
        for name, now in list(self.replicas.items()):
            if now.loading:
                failed = {now.loading} & self.broken
                now = Held(now.holds | ({now.loading} - failed), "", frozenset(failed))
            failures = dict.fromkeys(now.failed, "no such file")
            _, step = self.actor.report(OF, name, ModelReport(now, failures))
            now = Held(now.holds - set(step.drop), now.loading or step.load, now.failed)
            self.replicas[name] = now

    def copies(self):
        return Counter(model for one in self.replicas.values() for model in one.holds)


class TestThePlacementsOfPools:
    def test_replicas_reach_what_is_wished_and_no_model_is_ever_without_a_copy(self):
        world = World()
        for n in range(4):
            world.add(f"r{n}")
        assert set(world.copies()) == set(NAMES)
        wish = [("a", "b"), ("a", "c"), ("c", "b"), ("c", "a")]
        world.actor.wish({"p": wish})
        for _ in range(30):
            world.second()
            assert set(world.copies()) == set(NAMES)
        assert sorted(map(sorted, (one.holds for one in world.replicas.values()))) == sorted(
            map(sorted, wish)
        )

    def test_the_replica_that_replaces_a_dead_one_gets_its_row(self):
        world = World()
        wish = [("a", "b"), ("b", "c"), ("c", "a")]
        world.actor.wish({"p": wish})
        for name in "rst":
            world.add(name)
        gone = world.replicas.pop("s")
        for _ in range(int(SETTLE_S)):
            world.second()
        world.add("u")
        assert world.replicas["u"].holds == gone.holds

    def test_a_restarted_actor_is_told_the_placement_by_the_replicas(self):
        world = World()
        world.actor.wish({"p": [("a", "b"), ("b", "c"), ("c", "a")]})
        for name in "rst":
            world.add(name)
        world.actor = Placements(lambda: world.now_s)
        world.second()
        rows = world.actor.read()["p"]["rows"]
        assert sorted(map(sorted, rows)) == [["a", "b"], ["a", "c"], ["b", "c"]]

    def test_rows_of_a_job_that_is_gone_leave_the_others_where_they_are(self):
        world = World()
        world.actor.wish({"p": [("gone", "a"), ("b", "c"), ("gone",)]})
        for name in "rst":
            world.add(name)
        for _ in range(20):
            world.second()
        assert set(world.copies()) == set(NAMES)

    def test_a_load_that_fails_is_told_and_empties_no_replica(self):
        world = World(broken="c")
        for name in "rs":
            world.add(name)
        world.replicas = {"r": held("a", "b"), "s": held("a", "b")}
        world.actor.wish({"p": [("a", "c"), ("b", "c")]})
        for _ in range(20):
            world.second()
            assert {"a", "b"} <= set(world.copies())
            assert all(one.holds for one in world.replicas.values())
        told = world.actor.read()["p"]["replicas"].values()
        assert [one["failures"] for one in told] == [{"c": "no such file"}] * 2


class TestTheControllersView:
    def deployment(self, **states):
        return Deployment(len(states), Counter(states.values()), states)

    def divided(self, pools, deployment):
        total = np.full(3, deployment.target)
        running, stopping = np.full(3, deployment.running), np.zeros(3, int)
        pools.divide([deployment] * 3, total, running, stopping)
        return total.tolist(), running.tolist()

    def test_replicas_count_for_the_jobs_at_whose_home_they_are(self):
        pools = PooledJobs(JOBS)
        replicas = {"r": ("a", "b"), "s": ("a", "c"), "t": ("c", "a")}
        pools.read(
            {
                "p": {
                    "rows": list(map(list, replicas.values())),
                    "replicas": {
                        name: {"row": row, "failures": {}} for name, row in replicas.items()
                    },
                }
            }
        )
        seen = self.deployment(r="RUNNING", s="STARTING", t="RUNNING")
        assert self.divided(pools, seen) == ([2, 0, 1], [1, 0, 1])
        assert named_rows(pools.placement["p"], NAMES) == tuple(replicas.values())

    def test_replicas_of_which_no_home_is_known_fill_the_jobs_in_their_order(self):
        seen = self.deployment(r="RUNNING", s="RUNNING", t="RUNNING", u="STARTING")
        assert self.divided(PooledJobs(JOBS), seen) == ([2, 1, 1], [2, 1, 0])

    def test_a_placement_is_sent_with_the_targets_in_force(self):
        pools = PooledJobs(JOBS)
        pools.place({"p": chained(POOL, np.array([1, 1, 1]))})
        rows = pools.wishes(np.array([2, 1, 0]))["p"]
        assert rows == [["a", "b"], ["a", "b"], ["b", "c"]]
        assert pools.placement["p"].replicas.tolist() == [2, 1, 0]

    def test_a_placement_that_replicas_cannot_hold_is_refused(self):
        full = Placement(np.array([0]), np.ones((1, 3), bool))
        with pytest.raises(ValueError, match="cannot hold the models"):
            PooledJobs(JOBS).place({"p": full})
        with pytest.raises(ValueError, match="unknown pool 'q'; pools of jobs: p"):
            PooledJobs(JOBS).place({"q": full})


def test_the_jobs_of_a_pool_are_one_application_with_a_route_for_each():
    alone = Job("d", model="m")
    specs = serve_specs((*JOBS, alone))
    applications = configuration((*JOBS, alone), specs, [2, 1, 1, 3])
    assert [one["name"] for one in applications] == ["faro-statistics", "pool-p", "d"]
    assert applications[1]["args"]["replicas"] == 4
    assert [spec.route for spec in specs] == ["/pool-p/a", "/pool-p/b", "/pool-p/c", "/d"]
    assert specs[0].args["load_s"] == 2.0


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"a": {"application": "x"}}, "serve.application cannot be set in pool 'p'"),
        ({"a": {"concurrency": 2}}, "serve.concurrency cannot be set in pool 'p'"),
        ({"b": {"gateways": 2}}, "serve.gateways=2 differs from 1 of job 'a'"),
        ({"a": {"binding": "soon"}}, "binding='soon' is unknown; accepted: late, early"),
    ],
)
def test_a_section_that_contradicts_the_pool_is_refused(sections, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        serve_specs(JOBS, sections)


def test_a_pool_keeps_its_models_while_one_of_its_jobs_is_held():
    from faro_lib.policies.pooled import without_held_pools
    from faro_ops.protocol import LivePlan

    plan = LivePlan(np.ones(3), np.zeros(3), ("hold",) * 3, placement={"p": "any"})
    assert without_held_pools(JOBS, plan, np.array([False, True, False])).placement is None
    assert without_held_pools(JOBS, plan, np.zeros(3, bool)) is plan
    alone = tuple(replace(job, pool="", models_per_replica=None) for job in JOBS)
    assert without_held_pools(alone, plan, np.array([True] * 3)) == plan


def placed(steps) -> Placement:
    """The last placement that was planned."""
    return [step.plan.placement for step in steps if step.plan.placement][-1]["p"]


def test_the_placements_of_pools_pass_a_cluster_that_only_the_leader_changes():
    rest = HttpClient("http://127.0.0.1:1", None, 2.0)
    inner = RayServeCluster(JOBS, serve_specs(JOBS), rest, rest, Clock(0))
    gated = LeaderGatedCluster(inner)
    assert isinstance(gated, SharingCluster)
    gated.place({"p": chained(POOL, np.array([1, 1, 1]))})
    assert len(inner._pools.wishes(np.array([2, 1, 1]))["p"]) == 4


class TestTheLoop:
    """The live loop on a server that answers like Ray."""

    def steps(self, address, policy, path, ticks=4):
        """The steps of a controller that runs for some ticks."""
        clock = Clock(int(time.time()) - 900)
        rest = HttpClient(address)
        cluster = RayServeCluster(JOBS, serve_specs(JOBS), rest, rest, clock)
        steps = []

        def noted(step):
            steps.append(step)
            if len(steps) == ticks:
                clock.stop.set()

        run(cluster, policy, JOBS, clock=clock, journal=path, on_step=noted)
        return steps

    def ray(self):
        fake, now_s = FakeRay({"pool-p": 3}, cpus=6.0), int(time.time())
        for job, rate in zip(NAMES, (12, 6, 3)):
            fake.hear(job, rate, range(now_s - 900, now_s + 30), by="gateway#1")
        return fake

    def policy(self):
        context = PolicyContext(JOBS, untrained(NAMES))
        return paced(make("Faro-Sum", context), 0.5, interval_s=0.5)

    def test_a_pool_is_scaled_as_one_and_its_placement_is_sent(self):
        fake = self.ray()
        with fake.served() as address:
            steps = self.steps(address, self.policy(), None)
        assert {name for name, _ in fake.scaled} <= {"pool-p"}
        assert steps[0].observation.target.tolist() == [1, 1, 1]
        total = int(steps[-1].target.sum())
        assert fake.targets == {"pool-p": total}
        rows = fake.placements.read()["p"]["rows"]
        assert len(rows) == total
        assert all(1 <= len(row) <= 2 for row in rows)

    def test_a_second_controller_finds_the_placement_of_the_first(self):
        fake = self.ray()
        with fake.served() as address:
            first = self.steps(address, self.policy(), None)
            second = self.steps(address, self.policy(), None, ticks=1)
        left, found = placed(first), second[0].observation.placement["p"]
        np.testing.assert_array_equal(left.home, found.home)
        np.testing.assert_array_equal(left.resident, found.resident)
        assert second[0].observation.target.tolist() == first[-1].target.tolist()

    def test_the_journal_of_a_pool_replays_to_the_same_plans(self, tmp_path):
        fake, path = self.ray(), tmp_path / "journal"
        with fake.served() as address:
            self.steps(address, self.policy(), path)
        header, ticks = reading.read(path)
        assert any(one.step.plan.placement for one in ticks)
        for taken, again in resume.replay(self.policy(), header, ticks):
            np.testing.assert_array_equal(again.target, taken.target)
            assert plain(again.plan)["placement"] == plain(taken.plan)["placement"]

    def test_an_explanation_says_which_models_are_where_and_which_jobs_decide_that(
        self, tmp_path, capsys
    ):
        path = tmp_path / "journal"
        with self.ray().served() as address:
            steps = self.steps(address, self.policy(), path)
        assert cli.main(["explain", str(path)]) == 0
        told = capsys.readouterr().out
        wished = placed(steps)
        assert "pool 'p': " in told
        for n, name in enumerate(NAMES):
            assert f"its model is in {wished.resident[:, n].sum()} replicas" in told
            assert f"  {name}: load " in told
        assert f"of {len(wished.home)} replicas" in told  # all jobs together are the tightest set

    def test_the_exporter_shows_how_many_replicas_should_hold_each_model(self):
        with self.ray().served() as address:
            steps = self.steps(address, self.policy(), None)
        with closing(Exporter(JOBS, 0)) as exporter:
            exporter.step(steps[-1])
            metrics = urlopen(f"http://127.0.0.1:{exporter.port}/metrics").read().decode()
        for n, name in enumerate(NAMES):
            shown = f'faro_pool_replicas_with_model{{inference_job="{name}",pool="p"}}'
            assert f"{shown} {placed(steps).resident[:, n].sum():.1f}" in metrics


class TestThePaceOfAGateway:
    def test_it_sends_the_next_request_twice_the_time_of_the_path_before_the_service_ends(self):
        pace = Pace()
        pace.note("a", 0.15, 0.01)
        pace.note("b", 0.01, 0.01)
        assert pace.free_after_s("a") == pytest.approx(0.13)
        assert pace.free_after_s("b") == 0.0

    def test_a_job_without_an_answer_is_waited_for(self):
        pace = Pace()
        assert pace.free_after_s("a") == math.inf
        pace.note("a", 0.15, 0.01)
        assert pace.free_after_s("b") == math.inf

    def test_it_follows_services_that_become_slower(self):
        pace = Pace()
        for service_s in (*[0.1] * 10, *[0.2] * 60):
            pace.note("a", service_s, 0.0)
        assert pace.free_after_s("a") == pytest.approx(0.2, rel=0.01)


class Replicas:
    """The handle of a pool whose replicas answer as `answers` says, in this order."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    async def remote(self, sent):
        self.asked.append(sent.replica)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def gateway(handle, holds):
    """A gateway without Ray that knows what the replicas hold."""
    one = Gateway.__new__(Gateway)
    one._pool, one._late, one._versions = handle, LateQueue(), {}
    one._pace = Pace()
    one._queues = {"a": ReplicaQueue(10)}
    one._late.update(holds)
    return one


def served(one):
    """The outcome of a request to job a, and the gateway's counts."""

    async def run():
        place = Place(one._late, "a", 1.0)
        try:
            return await one._served(Forwarded("a", "", {}, b""), place)
        except Failed as error:
            return error.args[0]

    answer = in_virtual_time(asyncio.wait_for(run(), PATIENCE_S))
    return answer, reduce(add_row, one._queues["a"].rows.values(), empty_row())


HOLDS = {"r": frozenset("a"), "s": frozenset("ab")}


class TestAGateway:
    def test_a_request_whose_replica_has_just_dropped_the_model_is_sent_to_another_one(self):
        dropped = Answered("r", frozenset("b"))
        handle = Replicas(dropped, Answered("s", frozenset("ab"), 200, (), b"ok"))
        answer, row = served(gateway(handle, HOLDS))
        assert (handle.asked, answer.body) == (["r", "s"], b"ok")
        assert (row["arrivals"], row["done"], row["failed"]) == (1, 1, 0)

    def test_a_replica_that_dies_costs_the_request_that_it_served_and_gets_no_other(self):
        handle = Replicas(RuntimeError("died"), *[Answered("s", frozenset("ab"), 200)] * 2)
        one = gateway(handle, HOLDS)
        answer, row = served(one)
        assert (answer.status, row["failed"]) == (500, 1)
        assert [served(one)[0].status for _ in range(2)] == [200, 200]
        assert handle.asked == ["r", "s", "s"]

    def test_the_service_time_is_that_of_the_replica_without_the_wait_in_it(self):
        answer = Answered("r", frozenset("a"), 200, service_s=0.25, waited_s=3.0)
        _, row = served(gateway(Replicas(answer), HOLDS))
        assert (row["service_s"], row["service_s2"]) == (0.25, 0.0625)

    def test_a_request_that_waited_in_a_replica_that_dies_is_served_by_another_one(self):
        class Dies:
            """The handle of a pool whose replica r dies when it has two requests."""

            def __init__(self):
                self.asked = []
                self.dead = asyncio.Event()

            async def remote(self, sent):
                self.asked.append(sent.replica)
                if sent.replica == "s":
                    return Answered("s", frozenset("a"), 200)
                if self.asked.count("r") == 2:
                    self.dead.set()
                await self.dead.wait()
                raise RuntimeError("died")

        async def run():
            one = gateway(Dies(), {"r": frozenset("a")})
            one._late = LateQueue(lambda _: 0.0)
            one._late.update({"r": frozenset("a")})

            async def request():
                try:
                    return await one._served(Forwarded("a", "", {}, b""), Place(one._late, "a", 1))
                except Failed as error:
                    return error.args[0]

            answers = asyncio.gather(request(), request())
            await one._pool.dead.wait()
            await asyncio.sleep(0.01)
            one._late.update({"s": frozenset("a")})
            return [answer.status for answer in await answers], one._pool.asked

        assert in_virtual_time(asyncio.wait_for(run(), PATIENCE_S)) == ([500, 200], ["r", "r", "s"])

    def test_what_a_replica_held_before_is_not_believed_again(self):
        one = gateway(Replicas(), {})
        one._newest({"r": (2, frozenset("b"))})
        assert one._newest({"r": (1, frozenset("a"))}) == {"r": frozenset("b")}
        assert one._newest({"s": (0, frozenset("a"))}) == {"s": frozenset("a")}


class TestTheModelsOfAReplica:
    def test_a_load_that_fails_is_told_for_a_while_and_a_later_one_ends_that(self, monkeypatch):
        models = Models({"a": ModelSpec("collections:Nothing", {})})
        asyncio.run(models.load("a"))
        told = models.report()
        assert (told.held.holds, told.held.failed) == (frozenset(), {"a"})
        assert "has no Nothing" in told.failures["a"]

        monkeypatch.setattr(pool_replica, "RETRY_S", 0.0)
        assert not models.report().held.failed
        models._specs = {"a": ModelSpec("collections:OrderedDict", {})}
        asyncio.run(models.load("a"))
        assert models.report() == ModelReport(held("a"), {})

    def test_every_change_of_what_it_holds_has_a_new_version(self):
        models = Models({"a": ModelSpec("collections:OrderedDict", {})})
        models.load_now("a")
        loaded = models.version
        models.drop("a")
        assert models.version > loaded > 0
        assert models.holds == frozenset()

"""On Ray Serve, what goes wrong with one job, one replica or one node stays with it."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_things import JOBS, FakeRay, Wanting

from faro_ops.http import HttpError
from faro_ops.operate.clock import Clock
from faro_ops.operate.controller import backends
from faro_ops.operate.job_states import FINE, GONE, MISCONFIGURED, MISSING, JobStates
from faro_ops.operate.limits.steady_capacity import SHRINK_AFTER_S, STALE_S
from faro_ops.operate.memory.overrides import Settings
from faro_ops.operate.rayserve.applications import listing_of
from faro_ops.operate.rayserve.cluster import Lease, RayServeCluster, cores_of_nodes
from faro_ops.operate.rayserve.coverage import Coverage
from faro_ops.operate.rayserve.recent import RecentSeconds
from faro_ops.operate.rayserve.spec import serve_specs, usable_specs
from faro_ops.operate.rayserve.statistics import (
    UNREPORTED_S,
    JobStatistics,
    Reported,
    StatsAggregator,
    bucket_of,
    empty_row,
    fault_of,
)
from faro_ops.run_options import RunOptions

START_S = 1_800_000_000
PER_SECOND = 3  # requests that each replica serves


class World(FakeRay):
    """A Ray whose replicas report every second, and its controller; time passes by `run`.

    silent : replicas that store their measurements and report them later.
    broken : application -> what Ray lists about it.
    """

    address = "http://ray.test"

    def __init__(self, monkeypatch, replicas=4, tick_s=10, sections=()):
        super().__init__({"a": replicas, "b": 1}, cpus=16.0)
        self.now_s, self.tick_s = 0, tick_s
        self.skew_s = 0  # of the controller's node
        monkeypatch.setattr(time, "time", lambda: START_S + self.now_s + 0.5)
        monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + self.now_s)
        self.states = JobStates()
        self.replicas = {
            name: [f"{name}#{n}" for n in range(count)] for name, count in self.targets.items()
        }
        self.silent, self.unsent, self.broken = set(), {}, {}
        self.extra = {}  # replica -> what is wrong in its rows
        self.nodes = None  # Ray's answer about its nodes, if not the usual one
        self.use(dict(sections))

    def use(self, sections):
        """A new cluster, as after a change of the sections `serve`."""
        specs, unusable = usable_specs(JOBS, sections)
        self.cluster = RayServeCluster(
            JOBS,
            specs,
            self,
            self,
            Clock(START_S),
            lease=Lease("test", 30.0),
            states=self.states,
            unusable=unusable,
        )
        self.cluster.clock.stop.set()  # time passes by `run`

    def run(self, seconds):
        """Serve for some seconds; observe at every tick; the last observation."""
        seen = None
        for _ in range(seconds):
            second = START_S + self.now_s
            self.now_s += 1
            for job, replicas in self.replicas.items():
                for replica in replicas:
                    row = empty_row() | {
                        "arrivals": PER_SECOND,
                        "done": PER_SECOND,
                        "latency_s": 0.1 * PER_SECOND,
                        "buckets": {str(bucket_of(0.1)): PER_SECOND},
                    }
                    row |= self.extra.get(replica, {})
                    unsent = self.unsent.setdefault(replica, {})
                    unsent[second] = row
                    if replica not in self.silent:
                        self.stats.report(job, replica, 1, unsent)
                        self.unsent[replica] = {}
            if self.now_s % self.tick_s == 0:
                seen = self.observe()
        return seen

    def observe(self):
        self.cluster.advance(float(self.now_s))
        return self.cluster.observe()

    def application(self, name):
        state = super().application(name)
        listed = [{"state": "RUNNING", "replica_id": one} for one in self.replicas[name]]
        state["deployments"]["replica"]["replicas"] = listed
        return self.broken.get(name, state)

    def answer(self, method, path, body):
        if path.startswith("/api/v0/nodes") and self.nodes is not None:
            return 200, self.nodes
        return super().answer(method, path, body)

    # The calls of HttpClient.

    def get(self, path):
        return self._request("GET", path, None)

    def post(self, path, body):
        return self._request("POST", path, body)

    def _request(self, method, path, body):
        status, answer = self.answer(method, path, body)
        if status != 200:
            raise HttpError(path, status, "no")
        return json.loads(json.dumps(answer, allow_nan=False))


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


ALL = 60 * 4 * PER_SECOND  # requests a minute of job `a`
OF_B = 60 * PER_SECOND


# --- sections of the jobs' table ------------------------------------------------------------------

INVALID = [
    ({"replicas": 3}, "unknown key 'serve.replicas'"),
    ({"concurrency": 0}, "concurrency=0 must be a whole number >= 1"),
    ({"application": "../b"}, "application='../b' must be 1 to 100 letters"),
    ({"application": "a"}, "serve.application='a' belongs to job 'a'"),
    ({"route": "/a"}, "serve.route='/a' belongs to job 'a'"),
    ({"args": {"mean_s": 1}, "import_path": 5}, "import_path"),
    ("b", "serve='b' must be a mapping"),
]


@pytest.mark.parametrize(("section", "reason"), INVALID)
def test_an_invalid_section_of_one_job_is_named_and_leaves_the_other_specs(section, reason):
    specs, problems = usable_specs(JOBS, {"b": section})
    assert [one.application for one in specs] == ["a", "b"]
    assert specs[0] == serve_specs(JOBS)[0]
    assert list(problems) == [1]
    assert "'b'" in problems[1]
    assert reason in problems[1]
    assert "\n" not in problems[1]


def test_a_valid_section_keeps_its_application_although_an_invalid_one_names_it_first():
    sections = {"a": {"application": "x", "concurrency": 0}, "b": {"application": "x"}}
    specs, problems = usable_specs(JOBS, sections)
    assert [one.application for one in specs] == ["a", "x"]
    assert "concurrency=0" in problems[0]


def test_the_replicas_of_a_job_with_an_invalid_section_are_still_seen():
    specs, _ = usable_specs(JOBS, {"b": {"application": "other", "replicas": 3}})
    assert specs[1].application == "other"


def test_an_invalid_section_holds_its_job_until_it_is_valid_and_no_other(world):
    world.run(70)
    world.use({"b": {"concurrency": 0}})
    seen = world.run(70)
    assert seen.held.tolist() == [False, True]
    assert seen.target.tolist() == [4, 1]
    assert seen.arrivals_per_min[:, -1].tolist() == [ALL, OF_B]
    assert world.states.of("a").state == FINE
    assert world.states.of("b").state == MISCONFIGURED
    assert "concurrency=0" in world.states.of("b").reason
    world.use({})
    assert world.run(10).held is None
    assert world.states.of("b").state == FINE


def test_changed_settings_with_one_invalid_section_are_used_and_with_only_such_ones_are_not():
    ray = FakeRay({"a": 1, "b": 1})
    policy, clock = Wanting([1, 1]), Clock(START_S)
    with ray.served() as address:
        first = Settings(JOBS, {})
        options = RunOptions(jobs="jobs.yaml", address=address, serve_address=address)
        with backends.ray_serve(options, None, first, policy, clock=clock) as cluster_of:
            cluster_of(first)
            of_b = Settings(JOBS, {"serve": {"b": {"concurrency": 0}}})
            assert cluster_of(of_b).jobs == JOBS
            of_both = {"a": {"concurrency": 0}, "b": {"concurrency": 0}}
            with pytest.raises(ValueError, match="concurrency=0 must be"):
                cluster_of(Settings(JOBS, {"serve": of_both}))


# --- late reports ---------------------------------------------------------------------------------


@pytest.mark.parametrize("late_s", [20, 30, 120])
def test_requests_of_a_late_replica_are_counted_for_the_minutes_in_which_they_arrived(
    world, late_s
):
    world.run(120)
    world.silent.add("a#0")
    world.run(late_s)
    world.silent.clear()
    seen = world.run(240 - late_s)
    assert seen.arrivals_per_min.tolist() == [[ALL] * 6, [OF_B] * 6]
    assert world.states.troubled() == {}


@pytest.mark.parametrize("late_s", [20, 30, 120])
def test_a_minute_that_a_replica_has_not_reported_is_missing_and_not_lower(world, late_s):
    world.run(180 - late_s)
    world.silent.add("a#0")
    seen = world.run(late_s)
    assert np.isnan(seen.arrivals_per_min[0, -1])
    assert set(seen.arrivals_per_min[0, : 3 - -(-late_s // 60)].tolist()) <= {ALL}
    assert np.isnan(seen.ongoing[0])
    assert seen.arrivals_per_min[1].tolist() == [OF_B] * 3
    assert (seen.ongoing[1], seen.mean_latency_s[1]) == (1.0, pytest.approx(0.1))


def test_a_job_with_late_reports_is_named_with_its_replicas_and_their_ages(world):
    world.run(60)
    world.silent.update(["a#0", "a#2"])
    world.run(30)
    state = world.states.of("a")
    assert state.state == MISSING
    assert state.reason == "2 of 4 replicas report late: a#0 (30 s), a#2 (30 s)"
    assert world.states.of("b").state == FINE
    world.silent.clear()
    world.run(10)
    assert world.states.of("a").state == FINE


def test_a_few_seconds_of_delay_are_counted_from_the_seconds_that_are_complete(world):
    world.run(56)
    world.silent.add("a#0")
    assert world.run(4).arrivals_per_min.tolist() == [[ALL], [OF_B]]
    assert world.states.of("a").state == FINE


def test_a_replica_that_stops_by_plan_leaves_no_minute_unknown(world):
    world.run(65)
    world.replicas["a"].remove("a#3")
    seen = world.run(55)
    assert seen.arrivals_per_min[0].tolist() == [ALL, ALL - 55 * PER_SECOND]
    assert world.states.troubled() == {}


def test_a_late_replica_that_dies_takes_its_seconds_with_it_and_they_stay_unknown(world):
    world.run(60)
    world.silent.add("a#0")
    world.run(40)
    world.replicas["a"].remove("a#0")
    seen = world.run(80)
    assert np.isnan(seen.arrivals_per_min[0]).tolist() == [False, True, False]
    assert world.states.of("a").state == FINE


def test_a_replica_that_has_just_started_is_expected_and_counted(world):
    world.run(60)
    world.replicas["a"].append("a#new")
    world.silent.add("a#new")
    world.run(30)
    assert "a#new (20 s)" in world.states.of("a").reason, "it was first listed 20 s ago"
    world.silent.clear()
    seen = world.run(30)
    assert seen.arrivals_per_min[0].tolist() == [ALL, ALL + 60 * PER_SECOND]


def test_an_actor_that_restarts_leaves_only_unread_seconds_unknown(world):
    world.run(120)
    world.stats = StatsAggregator()
    seen = world.run(60)
    assert seen.arrivals_per_min.tolist() == [[ALL] * 3, [OF_B] * 3]
    world.run(25)
    world.stats = StatsAggregator()  # five seconds after the last read
    seen = world.run(35)
    assert seen.arrivals_per_min.tolist() == [[ALL] * 4, [OF_B] * 4]
    assert len(world.cluster._coverage["a"].lost) == 4


def test_a_silent_replica_delays_reads_no_longer_than_it_stores_measurements(world):
    world.run(60)
    world.silent.add("a#0")
    world.run(UNREPORTED_S + 60)
    coverage = world.cluster._coverage["a"]
    assert coverage.since == START_S + world.now_s - UNREPORTED_S
    assert coverage.lost


def test_without_names_of_replicas_those_that_report_are_expected():
    heard = {"a#1": Reported(0, 50, 1.0), "a#2": Reported(0, 20, 31.0)}
    coverage = Coverage().after(51, heard, None)
    assert dict(coverage.until) == {"a#1": 50}
    assert coverage.late == {}


@pytest.mark.parametrize("skew_s", [-30, 30])
def test_the_controllers_node_may_have_another_time(world, monkeypatch, skew_s):
    here = time.time
    read = world.stats.read

    def elsewhere(since=0):
        return {job: one | {"now_s": here() + skew_s} for job, one in read(since).items()}

    monkeypatch.setattr(world.stats, "read", elsewhere)
    for replica in ("a#0", "a#1", "a#2", "a#3", "b#0"):
        world.unsent[replica] = {}
    report = world.stats.report

    def shifted(job, replica, ongoing, rows):
        return report(job, replica, ongoing, {n + skew_s: row for n, row in rows.items()})

    monkeypatch.setattr(world.stats, "report", shifted)
    seen = world.run(120)
    assert seen.arrivals_per_min.tolist() == [[ALL] * 2, [OF_B] * 2]
    assert world.states.troubled() == {}


# --- measurements that cannot be right ------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("key", ["arrivals", "done", "latency_s"])
def test_impossible_measurements_of_one_replica_cost_only_its_jobs_minutes(world, key, value):
    world.run(60)
    world.extra["a#2"] = {key: value}
    seen = world.run(60)
    assert seen.arrivals_per_min[0, 0] == ALL
    assert np.isnan(seen.arrivals_per_min[0, 1])
    assert np.isnan([seen.mean_latency_s[0], seen.tail_latency_s[0]]).all()
    assert seen.arrivals_per_min[1].tolist() == [OF_B] * 2
    state = world.states.of("a")
    assert state.state == MISSING
    assert state.reason == f"replica a#2 reports {key}={value!r}"
    assert world.states.of("b").state == FINE
    world.extra.clear()
    seen = world.run(90)
    assert seen.arrivals_per_min[0, -1] == ALL
    assert world.states.of("a").state == FINE


WRONG_PARTS = [
    None,
    "text",
    [],
    {},
    {"seconds": {"x": {}}},
    {"seconds": [1]},
    {"reported": {"a#0": [1]}},
    {"reported": {"a#0": ["x", 1, 2]}},
]


@pytest.mark.parametrize("part", WRONG_PARTS)
def test_statistics_of_one_job_in_another_form_cost_only_that_jobs_data(world, monkeypatch, part):
    world.run(60)
    read = world.stats.read

    def damaged(since=0):
        right = read(since)
        wrong = right["a"] | part if isinstance(part, dict) and part else part
        return right | {"a": wrong}

    monkeypatch.setattr(world.stats, "read", damaged)
    seen = world.run(60)
    assert np.isnan(seen.ongoing[0])
    assert seen.arrivals_per_min[1].tolist() == [OF_B] * 2
    assert world.states.of("a").state == MISSING
    assert world.states.of("b").state == FINE


def test_rows_that_cannot_be_right_in_the_answer_cost_only_their_seconds(world, monkeypatch):
    read = world.stats.read

    def damaged(since=0):
        answer = json.loads(json.dumps(read(since)))
        for second in list(answer["a"]["seconds"])[::10]:
            answer["a"]["seconds"][second] = {"arrivals": -5}
        return answer

    monkeypatch.setattr(world.stats, "read", damaged)
    seen = world.run(60)
    assert seen.arrivals_per_min.tolist() == [[ALL], [OF_B]]


def test_if_no_statistics_can_be_read_all_jobs_say_so_and_have_no_data(world):
    world.run(60)
    world.window_status = 500
    world.run(10)
    for job in ("a", "b"):
        assert world.states.of(job).state == MISSING
        assert "statistics cannot be read" in world.states.of(job).reason


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("0123456789ax", max_size=4), inner)
    ),
    max_leaves=8,
)
RIGHT = StatsAggregator()
RIGHT.report("a", "a#0", 1, {START_S: empty_row()})
RIGHT = json.loads(json.dumps(RIGHT.read()["a"]))


@given(st.sampled_from(list(RIGHT)), ANY)
def test_any_statistics_are_read_or_are_a_value_error(key, value):
    try:
        read = JobStatistics.of(RIGHT | {key: value})
    except ValueError:
        return
    assert not any(map(fault_of, read.seconds.values()))
    assert np.isnan(read.ongoing) or read.ongoing >= 0
    coverage = Coverage().after(START_S + 1, read.reported, None)
    recent = RecentSeconds(("a",), Clock(START_S))
    recent.add("a", read.seconds, read.wrong, coverage)
    assert recent.arrivals_per_min(2).shape == (1, 2)


@given(ANY | st.fixed_dictionaries({"status": ANY, "deployments": ANY}))
def test_whatever_ray_lists_about_an_application_does_not_raise(state):
    (spec,) = serve_specs(JOBS[:1])
    found = listing_of({"a": state}, spec)
    assert (found.state == FINE) == (not found.reason)


def test_one_second_in_the_future_does_not_replace_a_jobs_history(world):
    world.run(120)
    world.stats.report("a", "a#ahead", 0, {START_S + 3720: empty_row()})
    assert world.run(60).arrivals_per_min.tolist() == [[ALL] * 3, [OF_B] * 3]


# --- one application ------------------------------------------------------------------------------


RUNS = {"target_num_replicas": 3, "replicas": [{"state": "RUNNING", "replica_id": "a#0"}]}
TROUBLE = {
    "a text": ("text", "Ray's answer about application 'a' cannot be read"),
    "nothing": (None, "cannot be read"),
    "no status": ({"deployments": {}}, "cannot be read (KeyError: 'status')"),
    "replicas": (
        {"status": "RUNNING", "deployments": {"replica": RUNS | {"replicas": [7]}}},
        "cannot be read",
    ),
    "a text as target": (
        {"status": "RUNNING", "deployments": {"replica": RUNS | {"target_num_replicas": "x"}}},
        "target_num_replicas='x'",
    ),
    "a failed update": (
        {"status": "DEPLOY_FAILED", "message": "Traceback\nno module m\n", "deployments": {}},
        "Ray could not deploy application 'a' (no module m); deploy it again",
    ),
    "no healthy replica": (
        {
            "status": "UNHEALTHY",
            "message": "",
            "deployments": {"replica": {"target_num_replicas": 4, "replicas": []}},
        },
        "no replica of application 'a' is healthy (UNHEALTHY)",
    ),
}


@pytest.mark.parametrize(("state", "reason"), TROUBLE.values(), ids=TROUBLE)
def test_an_application_with_trouble_is_held_and_the_others_are_scaled(world, state, reason):
    world.run(60)
    world.broken["a"] = state
    seen = world.run(30)
    assert seen.held.tolist() == [True, False]
    assert seen.target.tolist() == [4, 1]
    assert world.states.of("a").state == MISCONFIGURED
    assert reason in world.states.of("a").reason
    assert world.states.of("b").state == FINE
    world.cluster.apply(np.array([4, 3]), np.zeros(2))
    assert world.scaled == [("b", 3)]
    world.broken.clear()
    world.replicas["b"] += ["b#1", "b#2"]
    seen = world.run(10)
    assert (seen.held, world.states.of("a").state) == (None, FINE)


@pytest.mark.parametrize("state", [None, {"status": "DEPLOY_FAILED", "deployments": {}}])
def test_an_application_with_trouble_from_the_start_is_absent(world, state):
    world.broken["a"] = state
    seen = world.run(10)
    assert seen.present.tolist() == [False, True]
    assert seen.held is None
    assert world.states.of("a").state == MISCONFIGURED


def test_an_unhealthy_application_whose_replicas_run_is_scaled(world):
    state = World.application(world, "a")
    world.broken["a"] = state | {"status": "UNHEALTHY", "message": "one replica died"}
    seen = world.run(10)
    assert (seen.held, world.states.of("a").state) == (None, FINE)


def test_a_wrong_name_of_a_deployment_is_named_with_the_right_one(world):
    state = {"status": "RUNNING", "deployments": {"model": RUNS}}
    world.broken["a"] = state
    seen = world.run(30)
    assert seen.present.tolist() == [False, True]
    assert world.states.of("a").reason == (
        "application 'a' has no deployment 'replica' but 'model'; set serve.deployment"
    )


def test_an_application_that_is_gone_is_named_after_the_time_of_a_redeployment(world):
    world.run(10)
    del world.targets["a"]
    world.run(10)
    assert world.states.of("a").state != GONE
    assert world.run(20).present.tolist() == [False, True]
    assert world.states.of("a").state == GONE
    assert "`faro deploy` deploys it" in world.states.of("a").reason


def test_a_request_that_ray_refuses_for_one_job_does_not_stop_the_others(world):
    world.run(10)
    del world.targets["a"]
    with pytest.raises(OSError, match=r"a is not scaled to 3.*404"):
        world.cluster.apply(np.array([3, 2]), np.array([0.0, 0.3]))
    assert world.scaled == [("b", 2)]
    assert world.stats.report("b", "b#0", 0, {}).accept == 0.7


# --- drop rates -----------------------------------------------------------------------------------


def test_drop_rates_are_sent_again_at_every_tick_and_end_without_them(world):
    for _ in range(6):
        world.run(10)
        world.cluster.apply(np.array([4, 1]), np.array([0.7, 0.0]))
        assert world.stats.report("a", "a#0", 0, {}).for_s == 30.0
    assert world.run(20).drop.tolist() == [0.7, 0.0]
    assert world.run(10).drop.tolist() == [0.0, 0.0]


def test_a_restart_of_the_actor_does_not_look_like_the_end_of_the_drop_rates(world):
    world.run(10)
    world.cluster.apply(np.array([4, 1]), np.array([0.7, 0.0]))
    world.stats = StatsAggregator()
    assert world.run(20).drop.tolist() == [0.7, 0.0], "the replicas still drop"
    assert world.run(10).drop.tolist() == [0.0, 0.0], "no longer"


def test_drop_rates_that_could_not_be_sent_are_not_taken_for_sent(world):
    world.run(10)
    world.cluster.apply(np.array([4, 1]), np.array([0.7, 0.0]))
    world.window_status = 503
    for _ in range(3):
        with suppress(OSError):
            world.cluster.apply(np.array([4, 1]), np.array([0.7, 0.0]))
        seen = world.run(10)
    assert seen.drop.tolist() == [0.0, 0.0]


# --- capacity -------------------------------------------------------------------------------------


def nodes(*cpus):
    listed = [{"state": "ALIVE", "resources_total": {"CPU": one}} for one in cpus]
    return {"data": {"result": {"result": listed}}}


@pytest.mark.parametrize("answer", [nodes(), nodes(0.0, 0.0)])
def test_a_capacity_of_zero_holds_every_job_until_it_is_back(world, answer):
    world.run(10)
    world.nodes = answer
    seen = world.run(600)
    assert np.isnan(seen.capacity)
    assert seen.held.tolist() == [True, True]
    world.nodes = None
    seen = world.run(10)
    assert (seen.capacity, seen.held) == (16.0, None)


UNREADABLE = [{}, {"data": 7}, nodes(float("inf")), nodes(-1.0), nodes("many"), nodes(4.0, None)]


@pytest.mark.parametrize("answer", UNREADABLE)
def test_cores_that_cannot_be_read_are_those_of_before_with_their_age(world, monkeypatch, answer):
    world.run(10)
    monkeypatch.setattr(
        "faro_ops.operate.rayserve.cluster.cores_of_nodes", lambda _: cores_of_nodes(answer)
    )
    seen = world.run(60)
    assert (seen.capacity, seen.capacity_age_s, seen.held) == (16.0, 60.0, None)
    assert np.isnan(world.run(int(STALE_S)).capacity), "the jobs share the cores that they use"


def test_fewer_cores_than_the_jobs_use_count_after_two_minutes(world):
    world.run(10)
    world.nodes = nodes(3.0)
    assert world.run(int(SHRINK_AFTER_S)).capacity == 5.0
    assert world.run(10).capacity == 3.0


def test_a_ray_that_has_never_said_its_cores_is_observed(world):
    world.nodes = {}
    seen = world.run(10)
    assert np.isnan(seen.capacity)
    assert seen.target.tolist() == [4, 1]
    world.cluster.apply(np.array([3, 2]), np.zeros(2))
    assert world.scaled == [("a", 3), ("b", 2)]

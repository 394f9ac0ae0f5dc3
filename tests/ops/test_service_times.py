"""A run learns service times, keeps them, widens them at a roll-out, and says what it learned."""

from __future__ import annotations

import json
import math
import urllib.request
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from api_world import ApiServer, Run
from deployment_world import World as DeploymentWorld
from journal_things import count_ticks
from kube_things import DEPLOYMENT
from observations import observed

from faro_lib import forecast
from faro_lib.control import Memory
from faro_lib.policies import PolicyContext
from faro_lib.policies.learning import Learned, Learner
from faro_lib.policies.raised import Raised
from faro_lib.queueing import Formula
from faro_lib.queueing.service_factor import FACTORS, mean_factor, prior, relative_error
from faro_lib.queueing.slower import Slower
from faro_lib.workload import Job
from faro_lib.workload.synthetic import synthetic
from faro_ops import cli
from faro_ops.journal import reading
from faro_ops.journal.writing import Journal
from faro_ops.operate.controller.model import named_policy
from faro_ops.operate.export.exporter import Exporter
from faro_ops.operate.kube.deployments import template_revision
from faro_ops.operate.limits.authority import ADVISE, FULL, Authority, WithAuthority
from faro_ops.operate.limits.bounds import AsBounds
from faro_ops.operate.loop import loop, resume, service_times
from faro_ops.operate.loop.common_change import split_change
from faro_ops.operate.loop.service_report import ServiceTimesReport
from faro_ops.operate.loop.service_times import SECTION, learned_of
from faro_ops.operate.loop.surviving import RunTime, Surviving
from faro_ops.operate.loop.tick import tick
from faro_ops.operate.memory.run_state import JournalState, RunState
from faro_ops.operate.rayserve.applications import listing_of
from faro_ops.operate.rayserve.spec import ServeSpec
from faro_ops.protocol import LiveGuardrails, LivePlan

JOBS = tuple(
    Job(name, slo_s=1.0, service_time_s=0.2, service_scv=0.2, max_replicas=9, model="own")
    for name in "abc"
)
TRUTH = {"a": 1.5, "b": 1.0, "c": 0.8}
CONFIG = LiveGuardrails()
MODEL = Formula("mgc")  # of `tuned` without a measured table


@pytest.fixture(scope="module")
def context():
    few = replace(synthetic(seed=2, jobs=3, days=2, minutes=60), jobs=JOBS)
    return PolicyContext(JOBS, forecast.fit("ar", few))


@pytest.fixture(scope="module")
def faro(context):
    return named_policy("Faro-Sum", context, learning=True)


class Services:
    """Three services with 600 requests per minute, whose times are `truth` times the assumed."""

    def __init__(self, truth=None, target=(5, 5, 5), begins_s=900.0):
        self.truth, self.now_s = truth or TRUTH, begins_s
        self.target = np.array(target)
        self.wrong: dict[str, np.ndarray] = {}  # fields of the observation
        self.revision = np.array([7, 7, 7])

    def advance(self, until_s):
        self.now_s = until_s

    def observe(self):
        minute = int(self.now_s // 60)
        slower = Slower(MODEL, self.truth)
        tail_s = [slower.tail_latency_s(job, 10.0, n) for job, n in zip(JOBS, self.target)]
        counts = np.full((3, min(minute, 15)), 600.0)
        fields = dict(minute=minute, arrivals_per_min=counts, tail_latency_s=np.array(tail_s))
        fields |= dict(mean_latency_s=np.full(3, 0.2 + 1e-4 * minute), revision=self.revision)
        return observed(self.target, 18.0, now_s=self.now_s, **fields | self.wrong)

    def apply(self, target, drop):
        self.target = target


def ticked(policy, services, minutes, memory=None, on_step=lambda step: None):
    """The memory after some minutes of ticks, and the last step."""
    memory = memory or Memory.start(policy, JOBS)
    for _ in range(6 * minutes):
        services.advance(services.now_s + 10.0)
        memory, step = tick(policy, CONFIG, JOBS, memory, services.observe())
        services.apply(step.target, step.plan.drop)
        on_step(step)
    return memory, step


def factors(memory) -> np.ndarray:
    return mean_factor(learned_of(memory.state).weight)


def errors(memory) -> np.ndarray:
    return relative_error(learned_of(memory.state).weight)


# --- which policies learn -------------------------------------------------------------------------


@pytest.mark.parametrize("learning", [True, False])
def test_a_controller_starts_from_the_best_constant_counts_of_its_history(context, learning):
    assert named_policy("Faro-Sum", context, learning).starts_from_past


def test_only_faro_policies_learn_and_none_with_learning_off(context):
    assert named_policy("Faro-FairSum", context, learning=True).learner is not None
    assert named_policy("Faro-Sum", context, learning=False).learner is None
    assert named_policy("Faro-Sum", context, learning=True).name == "Faro-Sum"
    assert not hasattr(named_policy("AIAD", context, learning=True), "learner")
    with pytest.raises(ValueError, match="learns service times; leave out --no-learning"):
        named_policy("Faro-Sum-learning", context, learning=False)


@pytest.mark.usefixtures("coarse_tables")
@pytest.mark.parametrize("options", [[], ["--no-learning"]], ids=["default", "off"])
def test_faro_run_learns_unless_it_is_told_not_to(options, tmp_path, monkeypatch, capsys):
    run = Run(ApiServer({"a": 2, "b": 2}), tmp_path, monkeypatch)
    path = tmp_path / "j"

    def a_tick():
        run.until(lambda: count_ticks(path), what="a tick")

    assert run.go(a_tick, "--capacity", "8", *options, policy="Faro-Sum") == 0
    _, ticks = reading.read(path)
    learned = [one.step.plan.service_factor for one in ticks]
    assert all((one is None) == bool(options) for one in learned)
    capsys.readouterr()
    assert cli.main(["explain", str(path), "--at", str(ticks[-1].step.observation.now_s)]) == 0
    assert ("service times, as in the table" in capsys.readouterr().out) is not bool(options)


def test_the_manifests_pass_the_option_on_to_the_controller(tmp_path):
    queries = {"requests": "x[$window]", "latency_mean_s": "y[$window]"}
    table = tmp_path / "jobs.yaml"
    table.write_text(json.dumps([{"job": "a", "deployment": {"queries": queries}}]))
    options = ["--backend", "deployments", "--prometheus", "http://p:9090"]
    options += ["--option=--no-learning", "--out", str(tmp_path / "m")]
    assert cli.main(["manifests", "--jobs", str(table), *options]) == 0
    assert "--no-learning" in (tmp_path / "m" / "controller.yaml").read_text()


@pytest.mark.parametrize("kind", ["replicas", "bounds of HPAs", "earned authority"])
def test_the_factors_are_learned_however_the_policy_acts(kind, faro):
    policy = AsBounds.of(faro) if kind == "bounds of HPAs" else faro
    if kind == "earned authority":
        policy = WithAuthority.of(faro, replace(Authority.none(3), level=np.full(3, float(FULL))))
    services = Services()
    if kind == "bounds of HPAs":
        services.wrong = {"unbounded": np.zeros(3, bool)}
    memory, step = ticked(policy, services, minutes=12)
    np.testing.assert_allclose(factors(memory), [1.5, 1.0, 0.8], rtol=0.05)
    np.testing.assert_allclose(step.plan.service_factor, factors(memory), atol=1e-4)
    np.testing.assert_allclose(step.plan.service_factor_error, errors(memory), atol=1e-4)


def test_a_slow_service_loses_no_authority_once_its_time_is_learned(context):
    slow = {"a": 2.2, "b": 1.0, "c": 1.0}

    def level(learning):
        earned = replace(Authority.none(3), level=np.full(3, float(FULL)))
        faro = named_policy("Faro-Sum", context, learning)
        services = Services(slow)
        services.apply = lambda target, drop: None
        memory, _ = ticked(WithAuthority.of(faro, earned), services, minutes=90)
        return memory.state.authority

    assumed, learned = level(learning=False), level(learning=True)
    assert assumed.level[0] == ADVISE, "its table is wrong, and nobody knows"
    assert learned.level.tolist() == [FULL] * 3


# --- what is wrong with one job stays there -------------------------------------------------------

WRONG = [
    ("tail_latency_s", -0.1),
    ("mean_latency_s", -0.1),
    ("mean_latency_s", np.inf),
    ("arrivals_per_min", -1.0),
    ("ongoing", -1.0),
    ("tail_latency_s", np.nan),
    ("tail_latency_s", np.inf),
    ("tail_latency_s", 1e12),
    ("arrivals_per_min", np.nan),
    ("arrivals_per_min", 1e12),
    ("running", 0),
    ("drop", 1.0),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_wrong_data_of_one_job_changes_nothing_for_the_others(name, value, faro):
    good, bad = Services(), Services()
    for services in (good, bad):
        services.apply = lambda target, drop: None
    of_all = getattr(bad.observe(), name).copy()
    of_all[0] = value
    if name == "arrivals_per_min":
        of_all = np.full((3, 15), 600.0)
        of_all[0] = value
    bad.wrong = {name: of_all}
    expected, _ = ticked(faro, good, minutes=8)
    memory, step = ticked(faro, bad, minutes=8)
    assert step.failure is None
    np.testing.assert_array_equal(factors(memory)[1:], factors(expected)[1:])
    assert np.isfinite(learned_of(memory.state).weight).all()


def test_a_latency_that_is_not_measured_is_no_evidence(faro):
    services = Services()
    services.wrong = {"tail_latency_s": np.full(3, np.nan)}
    memory, _ = ticked(faro, services, minutes=30)
    np.testing.assert_allclose(factors(memory), 1.0, rtol=1e-6)
    assert (errors(memory) > 0.3).all()


# --- roll-outs ------------------------------------------------------------------------------------


def test_a_roll_out_makes_its_service_uncertain_at_once_and_no_other(faro):
    services = Services()
    memory, _ = ticked(faro, services, minutes=12)
    before = errors(memory)
    services.revision = np.array([8, 7, 7])
    services.wrong = {"tail_latency_s": np.full(3, np.nan)}
    services.advance(services.now_s + 10.0)
    memory, _ = tick(faro, CONFIG, JOBS, memory, services.observe())
    after = errors(memory)
    assert after[0] > 0.4 > 0.1 > before[0]
    np.testing.assert_allclose(after[1:], before[1:], atol=0.05)


def test_a_revision_that_was_unknown_for_a_while_is_no_roll_out(faro):
    services = Services()
    memory, _ = ticked(faro, services, minutes=12)
    for revision in (np.zeros(3, int), None, np.array([7, 7, 7])):
        services.revision = revision
        memory, _ = ticked(faro, services, minutes=1, memory=memory)
    assert (errors(memory) < 0.1).all()


def test_the_revision_of_a_deployment_changes_when_a_roll_out_begins_and_ends_and_not_by_scaling():
    def revision(template, replicas, updated, uid="u"):
        annotations = {"deployment.kubernetes.io/revision": template}
        return template_revision(
            {
                "metadata": {"annotations": annotations, "uid": uid},
                "status": {"replicas": replicas, "updatedReplicas": updated},
            }
        )

    settled = revision("3", 4, 4)
    assert settled == revision("3", 9, 9) == revision("3", 0, 0) > 0, "scaled"
    begun, ended = revision("4", 5, 1), revision("4", 4, 4)
    assert len({settled, begun, ended}) == 3
    assert begun == revision("4", 5, 3), "it goes on"
    assert revision("3", 4, 4, uid="another") != settled, "deleted and made again"
    assert template_revision({"metadata": {}}) == 0


def test_an_observation_of_deployments_has_their_revisions():
    world = DeploymentWorld({"a": 2, "b": 2})
    assert world.cluster.observe().revision.tolist() == [0, 0], "this server numbers no template"

    def number(name, template):
        annotations = {"deployment.kubernetes.io/revision": template}
        world.api.change(DEPLOYMENT, name, metadata={"annotations": annotations})

    number("a", "1")
    number("b", "1")
    before = world.cluster.observe().revision
    world.replicas["b"] = 3
    number("a", "2")
    after = world.cluster.observe().revision
    assert (before > 0).all()
    assert (before != after).tolist() == [True, False]


def test_the_revision_of_a_ray_application_is_that_of_its_code_and_arguments():
    spec = ServeSpec(application="a", deployment="replica", route="/a")

    def revision(count=1, **config):
        config = {"import_path": "x:y", "args": {"n": 1}, "runtime_env": {}} | config
        config["deployments"] = [{"name": "replica", "num_replicas": count}]
        details = {"target_num_replicas": count, "replicas": []}
        state = {
            "status": "RUNNING",
            "deployments": {"replica": details},
            "deployed_app_config": config,
        }
        return listing_of({"a": state}, spec).deployment.revision

    first = revision()
    assert first == revision(count=5) > 0
    assert first != revision(runtime_env={"working_dir": "s3://b/2.zip"})
    assert first != revision(args={"n": 2})
    assert revision(deployments=None) == first


# --- restarts and hand-overs ----------------------------------------------------------------------


WITHOUT_EVIDENCE = {
    "assumed_s": 0.2,
    "first": 3,
    "parts": "1 2 3",
    "revision": 1,
    "since_s": 1e9,
    "healthy": [10.0, 3],
    "before_rise": [1.0, 3, 0, 0],
}
# Of each job: the usual factor, replicas, minutes since the rise, minutes left.
BEFORE = [(1.0, 5.0, 7.0, 0.0), (1.25, 3.0, 0.0, 4.0), (1.0, math.inf, 0.0, 0.0)]
WITH_EVIDENCE = WITHOUT_EVIDENCE | {"informative_minutes": 3}


def resumed(memory, section, jobs=JOBS, now_s=1630.0):
    return service_times.resumed(memory, section, jobs, RunTime(1e9), now_s)


@pytest.fixture(scope="module")
def section(faro):
    """What is stored after twelve minutes."""
    memory, _ = ticked(faro, Services(), minutes=12)
    return service_times.section_of(memory, JOBS, RunTime(1e9)), memory


def test_what_is_stored_is_read_back(section, faro):
    stored, memory = section
    again, line = resumed(Memory.start(faro, JOBS), json.loads(json.dumps(stored)))
    assert line == ""
    np.testing.assert_allclose(
        learned_of(again.state).weight, learned_of(memory.state).weight, atol=3e-4
    )
    known, was = learned_of(again.state), learned_of(memory.state)
    assert known.minute == was.minute
    assert again.revision.tolist() == [7, 7, 7]
    np.testing.assert_array_equal(known.informative, was.informative)
    np.testing.assert_array_equal(known.since_minute, was.since_minute)
    np.testing.assert_array_equal(known.doubt.replicas, was.doubt.replicas)
    np.testing.assert_allclose(known.doubt.rate_rps, was.doubt.rate_rps, atol=1e-4)


def test_nothing_is_stored_of_a_service_without_an_informative_minute(faro):
    services = Services()
    services.wrong = {
        "failed_per_min": np.array([30.0, 0.0, 0.0]),
        "cancelled_per_min": np.array([0.0, 30.0, 0.0]),
    }
    memory, _ = ticked(faro, services, minutes=8)
    stored = service_times.section_of(memory, JOBS, RunTime(1e9))
    assert set(stored["jobs"]) == {"c"}


def test_bounds_and_doubts_are_not_stored(section, faro):
    stored, memory = section
    learned = learned_of(memory.state)
    bounds = np.where(FACTORS > 2, 1.0, 1e-6) * np.ones((3, 1))
    doubted = replace(learned, bounds=bounds, doubt=replace(learned.doubt, left=np.full(3, 5.0)))
    other = replace(memory, state=service_times.with_learned(memory.state, doubted))
    assert service_times.section_of(other, JOBS, RunTime(1e9)) == stored


POOLED = tuple(replace(job, pool="vision", models_per_replica=2) for job in JOBS[:2]) + JOBS[2:]


def pool_that_learned(faro):
    """The memory of a run whose pool is about 1.3 times slower, and its job a 1.2 times more."""
    memory = Memory.start(faro, POOLED)
    start = learned_of(memory.state)
    own, of_pool = prior(np.full(3, 0.03)), prior(np.array([0.05]))
    own[0] = np.roll(own[0], 4)
    learned = replace(
        start,
        weight=own,
        pools=replace(start.pools, weight=np.roll(of_pool, 5, axis=1)),
        informative=np.full(3, 9.0),
        since_minute=np.full(3, 2.0),
        minute=15,
    )
    return replace(memory, state=service_times.with_learned(memory.state, learned))


def test_what_a_pool_has_learned_is_read_back(faro):
    memory = pool_that_learned(faro)
    stored = json.loads(json.dumps(service_times.section_of(memory, POOLED, RunTime(1e9))))
    again, line = resumed(Memory.start(faro, POOLED), stored, POOLED)
    assert line == ""
    known, was = learned_of(again.state), learned_of(memory.state)
    np.testing.assert_allclose(known.pools.weight, was.pools.weight, atol=3e-4)
    np.testing.assert_allclose(mean_factor(known.belief), mean_factor(was.belief), rtol=1e-3)
    assert mean_factor(known.belief) == pytest.approx([1.2 * 1.28, 1.28, 1.0], rel=0.03)


@pytest.mark.parametrize(
    ("row", "jobs", "problem", "lost"),
    [
        ({"first": 0, "parts": "x"}, POOLED, "of a, b is damaged", [0, 1]),
        (None, POOLED, "of a, b is about other replicas", [0, 1]),
        ({}, JOBS, "of a, b is about other replicas", [0, 1]),
    ],
)
def test_a_service_whose_pool_is_not_known_any_more_starts_at_the_assumed_times(
    row, jobs, problem, lost, faro
):
    stored = service_times.section_of(pool_that_learned(faro), POOLED, RunTime(1e9))
    if row is None:
        stored = stored | {"pools": {}}
    elif row:
        stored = stored | {"pools": {"vision": row}}
    again, line = resumed(Memory.start(faro, jobs), stored, jobs)
    assert problem in line
    belief = learned_of(again.state).belief
    assert mean_factor(belief)[lost] == pytest.approx(1.0, rel=0.01)
    assert relative_error(belief)[2] < 0.05, "the job alone goes on with what it knows"


def test_a_plan_has_the_learned_times_of_pools(faro):
    memory = pool_that_learned(faro)
    plan = service_times.with_columns(
        LivePlan(np.ones(3), np.zeros(3), ("hold",) * 3), memory.state
    )
    assert plan.service_factor == pytest.approx([1.2 * 1.28, 1.28, 1.0], rel=0.03)


def test_a_restart_decides_as_without_one_and_knows_what_it_had_learned(tmp_path, faro):
    def steps_of(name, *until_s):
        """The steps of a run that ends and begins again at these times."""
        services, steps = Services(begins_s=0.0), []
        services.truth = {"a": 2.5, "b": 1.0, "c": 0.6}
        for end_s in until_s:
            state = Surviving(JournalState(tmp_path / name), writer="host")
            with Journal(tmp_path / name) as journal:
                loop.run(
                    services,
                    faro,
                    JOBS,
                    end_s,
                    journal=journal,
                    on_step=steps.append,
                    surviving=state,
                )
        return steps

    one, two = steps_of("one", 3000.0), steps_of("two", 1495.0, 3000.0)
    assert len(one) == len(two)
    for before, after in zip(one, two):
        assert after.target.tolist() == before.target.tolist()
        np.testing.assert_allclose(after.plan.service_factor, before.plan.service_factor, rtol=1e-3)
    assert two[-1].plan.service_factor_error.max() < 0.1


def test_a_new_leader_without_the_journal_goes_on_with_what_the_last_one_learned(tmp_path, faro):
    services = Services()
    first, _ = ticked(faro, services, minutes=12)
    store = JournalState(tmp_path / "j")
    last = Surviving(store, writer="pod-a")
    last.begin(Memory.start(faro, JOBS), JOBS, RunTime(1e9), services.now_s, -np.inf)
    last.after_tick(first, services.observe())
    last.flush()

    elsewhere = RunTime(1e9 + services.now_s - 1230.0)  # its time 0 is another one
    said: list[str] = []
    new = Surviving(store, said.append, "pod-b")
    memory = new.begin(Memory.start(faro, JOBS), JOBS, elsewhere, 1230.0, -np.inf)
    np.testing.assert_allclose(factors(memory), factors(first), rtol=1e-3)
    services.now_s = 1230.0
    memory, _ = ticked(faro, services, minutes=2, memory=memory)
    assert (errors(memory) < 0.1).all()
    assert said == []


def test_a_roll_out_between_two_leaders_is_noticed(section, faro):
    stored, _ = section
    memory, _ = resumed(Memory.start(faro, JOBS), stored)
    services = Services(begins_s=1620.0)
    services.revision = np.array([7, 9, 7])
    services.wrong = {"tail_latency_s": np.full(3, np.nan)}
    memory, _ = tick(faro, CONFIG, JOBS, memory, services.observe())
    assert errors(memory)[1] > 0.4
    assert max(errors(memory)[[0, 2]]) < 0.2


def test_a_job_whose_time_the_table_now_states_otherwise_starts_anew_with_one_line(section, faro):
    stored, memory = section
    jobs = (replace(JOBS[0], service_time_s=0.3), *JOBS[1:])
    again, line = resumed(Memory.start(faro, jobs), stored, jobs)
    assert "of a is about other times than those in the table" in line
    assert factors(again)[0] == pytest.approx(1.0)
    np.testing.assert_allclose(factors(again)[1:], factors(memory)[1:], rtol=1e-3)


DAMAGED = [
    "text",
    [],
    {},
    {"grid": [len(FACTORS), 0.05]},
    {"grid": [len(FACTORS), 0.05], "until_s": "x", "jobs": {}},
    {"grid": [len(FACTORS), 0.05], "until_s": 1e9, "jobs": None},
    {"grid": [9, 0.1], "until_s": 1e9, "jobs": {}},
]


@pytest.mark.parametrize("damaged", DAMAGED, ids=str)
def test_a_damaged_section_is_one_line_and_learning_starts_at_the_assumed_times(damaged, faro):
    start = Memory.start(faro, JOBS)
    again, line = resumed(start, damaged)
    assert again is start
    assert line.endswith("learning starts at the assumed times")
    assert "\n" not in line


@pytest.mark.parametrize(
    "row",
    [
        None,
        {},
        {"assumed_s": 0.2, "first": 55, "parts": "1 2 3", "revision": 1},
        {"assumed_s": 0.2, "first": 3, "parts": "1 2 3", "revision": 1},
        WITHOUT_EVIDENCE | {"informative_minutes": 0},
        WITH_EVIDENCE | {"healthy": [math.nan, 2]},
        WITH_EVIDENCE | {"before_rise": [0.0, 3, 0, 0]},
        WITH_EVIDENCE | {"before_rise": [1.0, -3, 0, 0]},
        WITH_EVIDENCE | {"before_rise": [1.0, 3]},
        {"assumed_s": 0.2, "first": 3, "parts": [1], "revision": 1},
        {"assumed_s": 0.2, "first": -1, "parts": "1", "revision": 1},
        {"assumed_s": 0.2, "first": 3, "parts": "", "revision": 1},
        {"assumed_s": 0.2, "first": 3, "parts": "-1 2", "revision": 1},
        {"assumed_s": 0.2, "first": 3, "parts": "nan", "revision": 1},
        {"assumed_s": "x", "first": 3, "parts": "1", "revision": 1},
    ],
    ids=str,
)
def test_a_damaged_row_costs_its_job_alone_what_was_learned(row, section, faro):
    stored, memory = section
    stored = stored | {"jobs": stored["jobs"] | {"a": row}}
    again, line = resumed(Memory.start(faro, JOBS), stored)
    assert line.startswith("what was learned about the service times of a is damaged")
    assert factors(again)[0] == pytest.approx(1.0)
    np.testing.assert_allclose(factors(again)[1:], factors(memory)[1:], rtol=1e-3)


def test_what_a_job_had_before_its_factor_rose_survives_a_restart(section, faro):
    _, memory = section
    learned = service_times.learned_of(memory.state)
    raised = Raised(*(np.array(values, float) for values in zip(*BEFORE)))
    risen = service_times.with_learned(memory.state, replace(learned, raised=raised))
    stored = service_times.section_of(replace(memory, state=risen), JOBS, RunTime(1e9))
    again, line = resumed(Memory.start(faro, JOBS), json.loads(json.dumps(stored)))
    assert line == ""
    found = service_times.learned_of(again.state).raised
    assert list(zip(found.factor, found.replicas, found.minutes, found.left)) == BEFORE


def test_a_new_leader_says_once_that_the_section_is_damaged_and_writes_a_new_one(tmp_path, faro):
    store = JournalState(tmp_path / "j")
    store.write(RunState(1e9, "pod-a", {}, {SECTION: "x", "other": 1}))
    said: list[str] = []
    new = Surviving(store, said.append, "pod-b")
    memory = new.begin(Memory.start(faro, JOBS), JOBS, RunTime(1e9), 900.0, -np.inf)
    services = Services()
    for _ in range(2):
        memory, _ = ticked(faro, services, minutes=1, memory=memory)
        memory = new.after_tick(memory, services.observe())
    new.flush()
    (line,) = said
    assert "is damaged" in line
    sections = store.read().sections
    assert sections["other"] == 1
    assert set(sections[SECTION]["jobs"]) == set("abc")


def test_what_was_learned_yesterday_is_not_used(section, faro):
    stored, _ = section
    start = Memory.start(faro, JOBS)
    again, line = resumed(start, stored, now_s=1630.0 + 25 * 3600)
    assert again is start
    assert "is 25 hours old" in line


def test_what_was_learned_hours_ago_is_uncertain_again(section, faro):
    stored, memory = section
    services = Services(begins_s=1630.0 + 4 * 3600)
    services.wrong = {"tail_latency_s": np.full(3, np.nan)}
    again, line = resumed(Memory.start(faro, JOBS), stored, now_s=services.now_s)
    assert line == ""
    again, _ = tick(faro, CONFIG, JOBS, again, services.observe())
    assert (errors(again) > 3 * errors(memory)).all()


def test_a_run_without_learning_keeps_the_section_for_the_next_one(context, tmp_path, section):
    stored, _ = section
    store = JournalState(tmp_path / "j")
    store.write(RunState(1e9, "host", {}, {SECTION: stored}))
    policy = named_policy("Faro-Sum", context, learning=False)
    kept = Surviving(store, writer="host")
    memory = kept.begin(Memory.start(policy, JOBS), JOBS, RunTime(1e9), 1630.0, -np.inf)
    memory, _ = ticked(policy, Services(), minutes=1, memory=memory)
    kept.after_tick(memory, Services().observe())
    kept.flush()
    assert store.read().sections[SECTION] == stored


def test_the_section_of_200_jobs_is_small(faro):
    memory = Memory.start(faro, JOBS)
    start = Learned.start(prior(np.full(200, 0.3)))
    healthy = replace(start.doubt, rate_rps=np.full(200, 123.456), replicas=np.full(200, 12.0))
    many = np.full(200, 12345.0)
    learned = replace(start, informative=many, since_minute=many, doubt=healthy)
    jobs = tuple(replace(JOBS[0], name=f"a-service-with-a-long-name-{n}") for n in range(200))
    memory = replace(memory, state=service_times.with_learned(memory.state, learned))
    section = service_times.section_of(memory, jobs, RunTime(1e9))
    assert len(json.dumps(section)) < 75_000


# --- for people -----------------------------------------------------------------------------------


def told(truths, faro, minutes=30, jobs=JOBS):
    """The lines of a run in which the services have one truth after the other."""
    said: list[str] = []
    report = ServiceTimesReport(jobs, said.append)
    services, memory = Services(), None
    services.apply = lambda target, drop: None
    for truth in truths:
        services.truth = truth
        memory, _ = ticked(faro, services, minutes, memory, report)
    return said


def test_a_time_outside_its_assumed_interval_is_said_once_and_again_only_after_a_return(faro):
    slow, right = {"a": 2.4}, {"a": 1.0}
    lines = [one for one in told([slow, slow, right, slow], faro) if "those of the table" in one]
    assert len(lines) == 2
    assert lines[0].startswith("job 'a': its service times are 2.")
    assert "right within 60%" in lines[0]


def test_a_time_within_its_assumed_interval_is_no_news(faro):
    assert told([{"a": 1.5, "b": 0.8}], faro) == []


def test_pools_are_named_once_at_the_start(faro):
    pooled = [replace(job, pool="vision", models_per_replica=2) for job in JOBS[:2]] + [JOBS[2]]
    (line,) = told([dict.fromkeys("abc", 1.0)] * 2, faro, jobs=pooled)
    assert line.startswith("pool 'vision': a, b share replicas; Faro learns how much slower")
    assert told([dict.fromkeys("abc", 1.0)], faro, minutes=3) == []


def test_a_slow_node_is_told_from_one_slow_service(faro):
    right = dict.fromkeys("abc", 1.0)
    together = told([right, dict.fromkeys("abc", 1.3)], faro)
    (line,) = together
    assert line.startswith("3 of 3 services are ")
    assert "% slower than 15 minutes ago, at the same time: a slow node or interference" in line
    alone = told([right, right | {"b": 1.5}], faro)
    (line,) = alone
    assert line.startswith("changed within 15 minutes, and most services have not: b (")


def test_the_common_change_of_most_services_is_taken_out_of_each_own_change():
    error = np.full(5, 0.03)
    common, own = split_change(np.log([1.3, 1.3, 1.3, 1.3, 2.0]), error)
    assert np.exp(common) == pytest.approx(1.3)
    np.testing.assert_allclose(np.exp(own), [1, 1, 1, 1, 2.0 / 1.3])
    common, own = split_change(np.log([0.7, 0.72, 0.71, 1.0, 1.0]), error)
    assert np.exp(common) == pytest.approx(0.72), "faster together, such as after a noisy neighbour"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ([1.5, 1.0, 1.0, 1.0], 0.03),  # one service's own
        ([1.5, 1.5, 1.0, 1.0], 0.03),  # half of them are not most
        ([1.5, 1.5], 0.03),  # too few to tell
        ([1.05, 1.05, 1.05, 1.05], 0.01),  # too small to matter
        ([1.3, 1.3, 1.3, 1.3], 0.3),  # not sure
        ([1.5, 1.0 / 1.5, 1.5, 1.0 / 1.5], 0.03),  # in opposite directions
        ([np.nan] * 4, 0.03),
    ],
)
def test_changes_that_most_services_do_not_surely_share_are_no_common_change(change, error):
    logs = np.log(change)
    common, own = split_change(logs, np.full(len(change), error))
    assert common == 0.0
    np.testing.assert_array_equal(own, logs)


def test_a_service_that_nobody_sees_does_not_hide_a_common_change():
    logs = np.array([np.nan, *np.log([1.4, 1.4, 1.4])])
    common, own = split_change(logs, np.full(4, 0.05))
    assert np.exp(common) == pytest.approx(1.4)
    assert np.isnan(own[0])


def test_metrics_explain_and_trust_show_the_learned_times(faro, tmp_path, capsys):
    earned = replace(Authority.none(3), level=np.full(3, float(FULL)))
    with closing(Exporter(JOBS, 0)) as exporter:
        loop.run(
            Services(begins_s=0.0),
            WithAuthority.of(faro, earned),
            JOBS,
            900.0,
            journal=tmp_path / "j",
            on_step=exporter.step,
        )
        address = f"http://127.0.0.1:{exporter.port}/metrics"
        text = urllib.request.urlopen(address).read().decode()
    metrics = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    factor = float(metrics['faro_service_time_factor{inference_job="a"}'])
    assert factor == pytest.approx(1.5, rel=0.1)
    assert 0 < float(metrics['faro_service_time_relative_error{inference_job="a"}']) < 0.1
    offered = 10.0 * 0.2 * sum(TRUTH.values())
    assert float(metrics["faro_offered_cores"]) == pytest.approx(offered, rel=0.05)

    assert cli.main(["explain", str(tmp_path / "j"), "--at", "890", "--json"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[0])
    assert row["service_factor"] == factor
    assert row["assumed_service_s"] == 0.2
    assert cli.main(["explain", str(tmp_path / "j"), "--at", "890"]) == 0
    out = capsys.readouterr().out
    assert "service times, as in the table and as learned from latencies:" in out
    assert any(line.split()[:3] == ["a", "200", "ms"] and "+-" in line for line in out.splitlines())

    assert cli.main(["trust", str(tmp_path / "j"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["service_factor"] == factor
    assert cli.main(["trust", str(tmp_path / "j")]) == 0
    assert "service_factor is the learned service time" in capsys.readouterr().out


def test_a_journal_replays_to_the_same_learned_times(faro, tmp_path):
    loop.run(Services(begins_s=0.0), faro, JOBS, 600.0, journal=tmp_path / "j")
    header, ticks = reading.read(tmp_path / "j")
    for was, now in resume.replay(faro, header, ticks):
        np.testing.assert_array_equal(now.plan.service_factor, was.plan.service_factor)
        np.testing.assert_array_equal(now.target, was.target)


def test_the_learner_is_the_librarys(faro):
    assert faro.learner == Learner()

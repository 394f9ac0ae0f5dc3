"""What a leader knew survives it: in the API or next to the journal, and across hand-overs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from kube_api import KubeApi
from kube_things import CONFIGMAP
from observations import observed

from faro_lib import forecast
from faro_lib.control import Memory
from faro_lib.control.guardrails import CONTESTED_AT
from faro_lib.policies import PolicyContext
from faro_lib.policies.faro import tuned
from faro_lib.workload import Job
from faro_lib.workload.synthetic import synthetic
from faro_ops.journal.writing import Journal
from faro_ops.operate.kube.client import ApiError
from faro_ops.operate.kube.plan_state import PlanState
from faro_ops.operate.limits.authority import ADVISE, FULL, ONE, Authority, WithAuthority
from faro_ops.operate.limits.bounds import HAND_BACK, KEEP_FLOOR, AsBounds
from faro_ops.operate.loop import loop, surviving
from faro_ops.operate.loop.surviving import RunTime, Surviving
from faro_ops.operate.loop.tick import tick
from faro_ops.operate.memory.run_state import (
    MAX_BYTES,
    VERSION,
    JournalState,
    RememberedJob,
    RunState,
    Unusable,
)
from faro_ops.protocol import AUTHORITY, LiveGuardrails

COLUMNS = {
    "level": 3.0,
    "doubt_small": 0.9123456789012,
    "doubt_large": 1.0,
    "trust": 17.5,
    "strikes": 0.5,
    "running": 4.0,
    "mean_latency_s": 0.12345678901234,
    "counted_s": 1.8e9,
}
STATE = RunState(
    1.8e9, "pod-a", {"a": RememberedJob(COLUMNS, 1.7e9, 6, 1.25)}, {"service_times": [1]}
)


# --- the document ---------------------------------------------------------------------------------


def test_a_state_is_read_back_as_it_was_written():
    again = RunState.from_json(STATE.to_json())
    assert again.sections == STATE.sections
    assert (again.at_s, again.writer, again.version) == (1.8e9, "pod-a", VERSION)
    assert again.jobs["a"].authority == pytest.approx(COLUMNS)
    assert replace(again.jobs["a"], authority=None) == RememberedJob(None, 1.7e9, 6, 1.25)


def test_unknown_sections_of_a_newer_minor_version_are_kept_and_written_back():
    newer = json.loads(STATE.to_json()) | {"version": "1.7"}
    newer["sections"]["from the future"] = {"x": 1}
    again = json.loads(RunState.from_json(json.dumps(newer)).to_json())
    assert again["sections"]["from the future"] == {"x": 1}
    assert again["version"] == "1.7"


def test_a_newer_major_version_is_refused_in_one_line():
    text = json.dumps(json.loads(STATE.to_json()) | {"version": "2.0"})
    with pytest.raises(Unusable, match=r"has version 2\.0, written by a newer Faro") as error:
        RunState.from_json(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 1}', STATE.to_json()[:-20]])
def test_a_damaged_state_is_refused_in_one_line(text):
    with pytest.raises(Unusable, match=r"is damaged .*; delete it to start without it"):
        RunState.from_json(text)


def test_the_state_of_200_jobs_is_far_below_its_limit():
    jobs = {f"a-service-with-a-long-name-{n}": STATE.jobs["a"] for n in range(200)}
    assert len(replace(STATE, jobs=jobs).to_json()) < MAX_BYTES / 3


def test_a_state_that_is_too_large_is_an_error():
    with pytest.raises(ValueError, match="at most 262144 are kept"):
        replace(STATE, sections={"x": "y" * MAX_BYTES}).to_json()


# --- in the API -----------------------------------------------------------------------------------


@pytest.fixture
def api():
    return KubeApi(namespace="faro")


def state_map(api) -> dict:
    """The ConfigMap with the state."""
    return api.find(CONFIGMAP, MAP, "faro")


def plan_state(api):
    return PlanState(api, "faro", "faro")


MAP = "faro-state"


def test_a_plan_without_a_state_has_none_and_then_the_one_that_was_written(api):
    assert plan_state(api).read() is None
    plan_state(api).write(STATE)
    assert plan_state(api).read().sections == STATE.sections


def test_the_faro_plan_owns_the_state_so_that_both_are_deleted_together(api):
    store = plan_state(api)
    store.write(STATE)
    assert state_map(api)["metadata"]["ownerReferences"] == [], "before the first tick"
    api.plan = {"metadata": {"uid": "u1"}}
    store.write(STATE)
    (owner,) = state_map(api)["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("FaroPlan", "u1")


def test_a_former_leader_does_not_overwrite_what_the_next_one_has_written(api):
    former, leader = plan_state(api), plan_state(api)
    former.write(STATE)
    leader.read()
    leader.write(replace(STATE, writer="pod-b"))
    with pytest.raises(ApiError, match="the object has been modified"):
        former.write(STATE)
    assert leader.read().writer == "pod-b"


def test_a_state_that_somebody_deleted_is_written_again(api):
    store = plan_state(api)
    store.write(STATE)
    api.remove(CONFIGMAP, MAP, "faro")
    with pytest.raises(ApiError):
        store.write(STATE)
    store.write(STATE)
    assert store.read() is not None


# --- hand-over ------------------------------------------------------------------------------------

JOBS = (Job("a", max_replicas=9), Job("b", max_replicas=9))
CONFIG = LiveGuardrails()


@pytest.fixture(scope="module")
def faro():
    few = replace(synthetic(seed=2, jobs=2, days=2, minutes=60), jobs=JOBS)
    return tuned(PolicyContext(JOBS, forecast.fit("ar", few)))


class Pod:
    """A controller with a time 0 of its own; its journal is the authority with which it starts."""

    def __init__(self, faro, store, name, origin_s, earned=None, ceilings=False):
        self.said = []
        self.monotonic_s = 0.0
        self.surviving = Surviving(store, self.said.append, name, lambda: self.monotonic_s)
        policy = AsBounds.of(faro) if ceilings else faro
        self.policy = WithAuthority.of(policy, earned or Authority.none(2))
        self.time = RunTime(origin_s)
        self.steps = []

    def lead(self, unix_s, past_unix_s=-np.inf, contest=0):
        memory = Memory.start(self.policy, JOBS)
        memory = replace(memory, guard=replace(memory.guard, contest=np.full(2, contest)))
        run_s = self.time.run_s
        self.memory = self.surviving.begin(
            memory, JOBS, self.time, run_s(unix_s), run_s(past_unix_s)
        )

    def tick(self, unix_s, target, **fields):
        now_s = self.time.run_s(unix_s)
        minute = int(now_s // 60)
        counts = np.full((2, min(minute, 15)), 120.0) + np.arange(min(minute, 15)) % 3
        seen = observed(target, 12.0, now_s=now_s, minute=minute, arrivals_per_min=counts, **fields)
        seen = replace(seen, mean_latency_s=np.full(2, 0.19 + 1e-4 * minute))
        self.monotonic_s += 10.0
        self.memory, step = tick(self.policy, CONFIG, JOBS, self.memory, seen)
        self.memory = self.surviving.after_tick(self.memory, seen)
        self.steps.append(step)
        return step

    def wait(self):
        """Wait until reads and writes in threads have ended."""
        for one in (self.surviving._saving, self.surviving._reading):
            if one:
                one.exception(10)

    @property
    def level(self):
        return self.memory.state.authority.level.tolist()


T0 = 1_800_000_000.0


def earned(*level):
    return replace(Authority.none(2), level=np.array(level, float), trust=np.array([5.0, 7.0]))


def test_a_pod_that_never_led_continues_at_the_recorded_authority_and_hands_nothing_back(api, faro):
    first = Pod(faro, plan_state(api), "pod-a", T0 - 9000, earned(FULL, ONE), ceilings=True)
    first.lead(T0)
    before = first.tick(T0, [4, 4], unbounded=np.zeros(2, bool))
    first.surviving.flush()
    second = Pod(faro, plan_state(api), "pod-b", T0 - 900, ceilings=True)
    second.lead(T0 + 10)
    assert second.level == [FULL, ONE]
    after = second.tick(T0 + 10, before.target, unbounded=np.zeros(2, bool))
    assert HAND_BACK not in after.plan.floor
    assert after.target.tolist() == before.target.tolist()
    np.testing.assert_allclose(second.memory.state.authority.trust, [5.0, 7.0])


def test_a_pod_that_led_four_days_ago_does_not_resume_what_a_later_leader_revoked(api, faro):
    days_ago = T0 - 4 * 86_400
    old = Pod(faro, plan_state(api), "pod-a", days_ago, earned(FULL, FULL))
    old.lead(days_ago + 900)
    old.tick(days_ago + 900, [4, 4])
    old.surviving.flush()
    later = Pod(faro, plan_state(api), "pod-b", T0 - 900)
    later.lead(T0)
    later.memory = replace(
        later.memory, state=replace(later.memory.state, authority=earned(ADVISE, FULL))
    )
    later.tick(T0, [4, 4])
    later.surviving.flush()
    again = Pod(faro, plan_state(api), "pod-a", days_ago, earned(FULL, FULL))
    again.lead(T0 + 60, past_unix_s=days_ago + 900)
    assert again.level == [ADVISE, FULL]


def test_the_journal_of_the_pod_that_wrote_the_state_wins_if_it_goes_on_later(api, faro):
    pod = Pod(faro, plan_state(api), "pod-a", T0 - 900, earned(FULL, FULL))
    pod.lead(T0)
    pod.tick(T0, [4, 4])
    pod.surviving.flush()
    again = Pod(faro, plan_state(api), "pod-a", T0 - 900, earned(ADVISE, FULL))
    again.lead(T0 + 60, past_unix_s=T0 + 50)
    assert again.level == [ADVISE, FULL]


def test_contested_jobs_lost_utility_and_unknown_sections_are_handed_over(api, faro):
    first = Pod(faro, plan_state(api), "pod-a", T0 - 9000, earned(FULL, FULL))
    first.lead(T0, contest=CONTESTED_AT)
    loop_state = replace(first.memory.state.inner, lost=np.array([3.0, 0.5]), minute=149)
    first.memory = replace(first.memory, state=replace(first.memory.state, inner=loop_state))
    first.surviving._state = RunState(0.0, "x", {}, {"later": 1})
    first.tick(T0, [4, 4])
    lost = first.memory.state.inner.lost
    first.surviving.flush()
    second = Pod(faro, plan_state(api), "pod-b", T0 - 900, earned(FULL, FULL))
    second.lead(T0 + 10)
    step = second.tick(T0 + 10, [4, 4])
    assert step.plan.reason == ("contested", "contested")
    assert (second.memory.state.inner.lost >= lost).all(), "its first minute does not reset it"
    second.surviving.flush()
    assert plan_state(api).read().sections == {"later": 1}


def test_a_hand_over_under_load_changes_no_target(api, faro):
    pods = [Pod(faro, plan_state(api), f"pod-{n}", T0 - 900 - 1234 * n) for n in range(2)]
    plan_state(api).write(
        RunState(
            T0,
            "pod-z",
            {job.name: RememberedJob(COLUMNS | {"counted_s": T0}, T0) for job in JOBS},
        )
    )
    target = np.array([4, 4])
    targets = []
    for n in range(90):  # every five minutes, the other pod leads
        pod = pods[n // 30 % 2]
        now = T0 + 10.0 * n
        if n % 30 == 0:
            pods[1 - n // 30 % 2].surviving.flush() if n else None
            pod.lead(now)
            assert pod.level == [FULL, FULL]
        target = pod.tick(now, target).target
        targets.append(target.tolist())
    settled = targets[20]
    assert targets[20:] == [settled] * 70


# --- while the state cannot be read ---------------------------------------------------------------


def test_while_the_state_cannot_be_read_nothing_is_changed_and_that_is_said_once(api, faro):
    plan_state(api).write(
        RunState(T0, "pod-z", {job.name: RememberedJob(COLUMNS, T0) for job in JOBS})
    )
    api.refuse(403)
    pod = Pod(faro, plan_state(api), "pod-b", T0 - 900, ceilings=True)
    pod.lead(T0)
    for n in range(12):
        step = pod.tick(T0 + 10 * n, [7, 5], unbounded=np.zeros(2, bool), drop=np.full(2, 0.2))
        pod.wait()
        assert step.target.tolist() == [7, 5]
        assert step.plan.drop.tolist() == [0.2, 0.2]
        assert set(step.plan.floor) == {KEEP_FLOOR}
        assert step.plan.reason == (AUTHORITY,) * 2
    (line,) = pod.said
    assert "no replica or bound is changed until it can be read" in line
    assert len(api.writes) == 1, "what cannot be read is not overwritten"
    api.accept()
    for n in range(12, 15):
        pod.tick(T0 + 10 * n, [7, 5], unbounded=np.zeros(2, bool))
        pod.wait()
    assert pod.level == [FULL, FULL]
    assert len(pod.said) == 2


def test_a_state_of_a_newer_major_version_is_not_overwritten(api, faro):
    text = json.dumps(json.loads(STATE.to_json()) | {"version": "2.0"})
    plan_state(api).write(STATE)
    api.change(CONFIGMAP, MAP, "faro", data={"state.json": text})
    pod = Pod(faro, plan_state(api), "pod-b", T0 - 900, earned(FULL, FULL))
    pod.lead(T0)
    pod.tick(T0, [4, 4])
    pod.wait()
    pod.surviving.flush()
    assert state_map(api)["data"]["state.json"] == text
    assert len(pod.said) == 1


def test_the_state_is_saved_at_most_once_a_minute_and_a_failure_is_said_once(api, faro):
    pod = Pod(faro, plan_state(api), "pod-a", T0 - 900, earned(FULL, FULL))
    pod.lead(T0)
    for n in range(30):
        pod.tick(T0 + 10 * n, [4, 4])
        pod.wait()
    assert 4 <= len(api.writes) <= 6
    api.silent = True
    for n in range(30, 60):
        pod.tick(T0 + 10 * n, [4, 4])
        pod.wait()
    assert len(pod.said) == 1
    assert "is not saved: https://faro.test cannot be reached" in pod.said[0]


def test_a_pass_that_ends_before_it_led_saves_nothing(api, faro):
    plan_state(api).write(STATE)
    pod = Pod(faro, plan_state(api), "pod-b", T0 - 900)
    pod.lead(T0)
    pod.surviving.flush()
    assert len(api.writes) == 1


# --- without Kubernetes ---------------------------------------------------------------------------


def test_without_kubernetes_the_state_is_in_the_journal(tmp_path):
    store = JournalState(tmp_path)
    assert store.read() is None
    for writer in ("pod-a", "pod-b"):
        store.write(replace(STATE, writer=writer))
        assert store.read() == RunState.from_json(replace(STATE, writer=writer).to_json())
    assert (tmp_path / "run.db").stat().st_mode & 0o777 == 0o600


def test_a_state_in_a_journal_with_a_damaged_byte_is_refused_in_one_line(tmp_path):
    store = JournalState(tmp_path)
    store.write(STATE)
    content = (tmp_path / "run.db").read_bytes()
    (tmp_path / "run.db").write_bytes(content.replace(b'"writer"', b'"wr1ter"'))
    with pytest.raises(Unusable, match="is damaged on the disk; delete it"):
        store.read()
    (tmp_path / "run.db").write_bytes(b"damaged")
    with pytest.raises(Unusable, match=r"run.db: damaged \(file is not a database\); remove it"):
        store.read()


def test_the_loop_restores_the_state_before_its_first_decision_and_saves_it_at_its_end(
    tmp_path, faro
):
    store = JournalState(tmp_path / "j")
    jobs = {job.name: RememberedJob(COLUMNS | {"counted_s": 0.0}, 0.0) for job in JOBS}
    store.write(RunState(0.0, "another host", jobs))

    class Still:
        now_s = 0.0

        def advance(self, until_s):
            self.now_s = until_s

        def observe(self):
            return observed([4, 4], 12.0, now_s=self.now_s)

        def apply(self, target, drop):
            pass

    steps = []
    policy = WithAuthority.of(faro, Authority.none(2))
    with Journal(tmp_path / "j") as journal:
        loop.run(
            Still(),
            policy,
            JOBS,
            45.0,
            journal=journal,
            on_step=steps.append,
            surviving=Surviving(store, writer="host"),
        )
    assert AUTHORITY not in steps[0].plan.reason
    assert store.read().writer == "host"
    assert store.read().jobs["a"].authority["level"] == FULL


def test_a_policy_without_earned_authority_goes_on_if_the_state_cannot_be_read(api, faro):
    api.silent = True
    said = []
    kept = Surviving(plan_state(api), said.append, "pod-a")
    memory = Memory.start(faro, JOBS)
    assert kept.begin(memory, JOBS, RunTime(), 0.0, -np.inf) is memory
    assert "the run begins without it" in said[0]
    assert surviving.LEVEL == "level"

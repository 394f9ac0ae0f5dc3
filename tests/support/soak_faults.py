"""The faults of the soak: what each does to a world, for how long, and what must follow from it.

A fault of one job befalls `a` or `b` only, so that `c` and `d` must never notice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from kube_things import (
    CONFIGMAP,
    DEPLOYMENT,
    FAROPLAN,
    HPA,
    NODE,
    QUOTA,
    hpa,
    node,
    quota,
)
from soak_service import Trouble
from soak_world import (
    MINIMUM,
    NAMESPACE,
    NODES,
    PLAN,
    STARTED,
    CeilingWorld,
    DeploymentWorld,
    RayWorld,
    World,
)

from faro_lib.queueing.service_factor import FACTORS
from faro_ops.journal.database import day_files
from faro_ops.operate.job_states import CONTESTED, GONE, MISCONFIGURED, MISSING
from faro_ops.operate.kube.plan_state import KEY
from faro_ops.operate.kube.preflight import state_name
from faro_ops.operate.loop.service_times import PARTS, SECTION
from faro_ops.operate.memory.overrides import ALL_JOBS

TROUBLED = ("a", "b")
HOUR_S = 3600.0
# What a fault may change.
NOTHING = "nothing"  # no job
JOB = "one job"  # the jobs in TROUBLED
# What is seen of a job's latencies, although its service is as fast as before: it keeps what it
# has in the twin, but for one replica, and soon has the same again.
EVIDENCE = "the evidence about one service"
SLOWER = "one service"  # its service time; the job gets what it needs for that
BELIEF = "what is believed of one service"  # the job soon has what it has in the twin
DATA = "the data of all jobs"  # they hold, and later know less of the past
CAPACITY = "the capacity"  # less is left than the jobs use, so they must shrink after two minutes
ON_TRIAL = EVIDENCE, SLOWER, BELIEF  # after which the job itself is compared with its twin
FAILING = "failing"  # the state of a job of which more than 0.5 % of the requests fail
# The worlds that have a fault: three in virtual time, and a kind cluster.
ALL = "kubernetes", "ceilings", "ray"
EVERYWHERE = (*ALL, "kind")
KUBERNETES = "kubernetes", "ceilings"
ON_KUBERNETES = (*KUBERNETES, "kind")
PLAIN = "kubernetes", "kind"  # without HPAs
REPLICAS = (*PLAIN, "ray")  # in which Faro sets replicas
CEILINGS = ("ceilings",)
RAY = ("ray",)
KIND = ("kind",)
Act = Callable[[World, str], None]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    begin, halfway, end : called with the world and the job that it befalls.
    lasts_s : seconds from begin to end; boards and orders are checked after two ticks.
    both : whether it befalls all jobs in TROUBLED.
    changes : what it may change; see above.
    reported : reasons of failures, of which a controller must count one; () if none is needed.
    state : the state that the board must show for the job; "" if none is needed.
    ends_leader : whether a leader may end, because it has lost its lease.
    stops_ticks : whether no controller can decide before the end of the fault.
    sets_clock : whether counts of minutes before it may be wrong afterwards.
    freezes : whether all jobs must keep their targets from the second tick on.
    ends_orders : whether nobody knows the standing order any more; its end orders it again.
    order : the override that must be in force or named as not, if the fault is one.
    """

    name: str
    begin: Act
    end: Act = lambda world, job: None
    worlds: tuple[str, ...] = ALL
    lasts_s: float = 90.0
    changes: str = NOTHING
    reported: tuple[str, ...] = ()
    state: str = ""
    ends_leader: bool = False
    stops_ticks: bool = False
    sets_clock: bool = False
    freezes: bool = False
    ends_orders: bool = False
    order: dict | None = None
    both: bool = False
    halfway: Act | None = None


# --- capacity -------------------------------------------------------------------------------------


def cordon(*names: str, cordoned: bool = True) -> Act:
    def act(world: World, _: str) -> None:
        for name in names:
            if one := world.find(NODE, name, ""):
                world.put(NODE, one | {"spec": {"unschedulable": cordoned}})

    return act


def silent_nodes(silent: bool) -> Act:
    def act(world: World, _: str) -> None:
        for name in NODES:
            world.put(NODE, node(name, str(world.sizes.cores), ready=not silent))
        if isinstance(world, RayWorld):
            workers(not silent)(world, "")

    return act


def nodes_gone(*names: str) -> Act:
    def act(world: World, _: str) -> None:
        for name in names:
            world.lose_node(name)

    return act


def all_nodes(world: World, _: str) -> None:
    """Two nodes as at the start."""
    world.return_nodes()


def small_node(world: World, job: str) -> None:
    """One node that just holds the minima, in place of the two."""
    nodes_gone(*NODES)(world, job)
    cores = world.sizes.minimum * len(world.jobs)
    world.put(NODE, node("small", str(cores)))
    if isinstance(world, RayWorld):
        world.worker(9, "small", cores=cores)


def no_pods(world: World, _: str) -> None:
    world.put(QUOTA, quota(NAMESPACE, pods="0"))


def no_quota(world: World, _: str) -> None:
    world.remove(QUOTA, "q")


def workers(ready: bool) -> Act:
    def act(world: World, _: str) -> None:
        assert isinstance(world, RayWorld)
        for place, name in enumerate(NODES):
            world.worker(place, name, ready=ready)

    return act


def drain(name: str) -> Act:
    return lambda world, job: world.drain(name)


def replace_nodes(world: World, _: str) -> None:
    """Drain, stop and start each node in turn."""
    for name in NODES:
        world.drain(name)
        world.lose_node(name)
        world.return_nodes()


# --- one job --------------------------------------------------------------------------------------


def counts(value: Callable[[float], float]) -> Act:
    def act(world: World, job: str) -> None:
        world.values[job] = value

    return act


def right_counts(world: World, _: str) -> None:
    world.values.clear()
    world.slow.clear()


def slow_query(world: World, job: str) -> None:
    world.slow.add(job)


def template(**spec) -> Act:
    """The pod template of the job gets other fields; `cpu` is its request."""

    def act(world: World, job: str) -> None:
        fields = dict(spec)
        cpu = fields.pop("cpu", None)
        if one := world.find(DEPLOYMENT, job):
            inside = one["spec"]["template"]
            if cpu:
                resources = {"requests": {"cpu": cpu}}
                containers = inside["spec"]["containers"]
                fields["containers"] = [each | {"resources": resources} for each in containers]
            changed = inside | {"spec": inside["spec"] | fields}
            world.put(DEPLOYMENT, one | {"spec": one["spec"] | {"template": changed}})

    return act


def right_template(world: World, job: str) -> None:
    one = world.find(DEPLOYMENT, job)
    world.deploy(job, one["spec"]["replicas"] if one else STARTED)


def models_load(world: World, job: str) -> None:
    """The job gets a pod template whose models take a minute to load."""
    world.load_models(job)


def delete(world: World, job: str) -> None:
    if isinstance(world, RayWorld):
        world.ray.deleting.add(job)
    else:
        world.remove(DEPLOYMENT, job)


def recreate(replicas: int) -> Act:
    def act(world: World, job: str) -> None:
        if isinstance(world, RayWorld):
            world.ray.deleting.discard(job)
            world.ray.targets[job] = replicas
        else:
            assert isinstance(world, DeploymentWorld)
            world.deploy(job, replicas)

    return act


def gain_autoscaler(world: World, job: str) -> None:
    world.put(HPA, hpa(job, 2, 6))


def lose_autoscaler(world: World, job: str) -> None:
    world.remove(HPA, job)


def other_bounds(world: World, job: str) -> None:
    if world.find(HPA, job):
        world.server.change(HPA, job, spec={"minReplicas": 3, "maxReplicas": 9})


def own_bounds(world: World, job: str) -> None:
    assert isinstance(world, CeilingWorld)
    world.autoscaler(job, MINIMUM, 2 * STARTED)


def by_hand(world: World, job: str) -> None:
    if isinstance(world, RayWorld):
        world.ray.targets[job] = 7
    elif one := world.find(DEPLOYMENT, job):
        world.put(DEPLOYMENT, one | {"spec": one["spec"] | {"replicas": 7}})


def idle(world: World, job: str) -> None:
    now_s = world.clock.now_s
    if now_s > world.idle.get(job, (0.0, 0.0))[1]:
        world.idle[job] = now_s, now_s + HOUR_S


def replica_dies(world: World, job: str) -> None:
    world.lose_replica(job)


def replicas_live(world: World, _: str) -> None:
    world.return_replicas()


# --- the evidence about one service ---------------------------------------------------------------


def drawn(world: World, low: float, high: float) -> float:
    """A number from low to high, log-uniform, which depends on the time only."""
    share = np.random.default_rng(int(world.clock.now_s)).random()
    return low * (high / low) ** share


def requests_fail(world: World, job: str) -> None:
    share = drawn(world, 0.01, 0.3)
    # An application of Ray Serve fails at the end of its work, and the others at once.
    world.troubles[job] = Trouble(failing=share, at_once=not isinstance(world, RayWorld))


def clients_hang_up(world: World, job: str) -> None:
    share = drawn(world, 0.02, 0.5)
    patience_s = float(np.random.default_rng(int(100 * share)).uniform(0.1, 1.0))
    world.troubles[job] = Trouble(hanging_up=share, patience_s=patience_s)


def clients_time_out(world: World, job: str) -> None:
    """All clients give up at a time that cuts the tail of the latencies."""
    patience_s = world.sizes.service_s * drawn(world, 1.02, 2.0)
    world.troubles[job] = Trouble(hanging_up=1.0, patience_s=patience_s)


def latency_floor(world: World, job: str) -> None:
    world.troubles[job] = Trouble(floor_s=drawn(world, 0.3, 1.2))


def slower(world: World, job: str) -> None:
    world.troubles[job] = Trouble(factor=1.5)


def well(world: World, job: str) -> None:
    world.troubles.pop(job, None)


def believe_the_worst(world: World, job: str) -> None:
    """The controllers start with a saved belief that the job is four times slower than stated."""
    kill_all(world, job)
    name = state_name(PLAN)
    stored = world.find(CONFIGMAP, name)
    assert stored, f"nothing is saved in the ConfigMap {name}"
    state = json.loads(stored["data"][KEY])
    worst = {"first": len(FACTORS) - 1, "parts": str(PARTS)}
    rows = state["sections"][SECTION]["jobs"]
    assert job in rows, f"nothing is saved of {job} in the ConfigMap {name}"
    rows[job] |= worst
    world.put(CONFIGMAP, stored | {"data": stored["data"] | {KEY: json.dumps(state)}})


# --- orders and settings --------------------------------------------------------------------------


def orders(*rows: dict) -> Act:
    return lambda world, job: world.order(*world.standing(), *rows)


def order_for_job(replicas: int) -> Act:
    return lambda world, job: world.order(*world.standing(), {"job": job, "replicas": replicas})


def set_at_once(world: World, _: str) -> None:
    for job in TROUBLED:
        world.set_job(job, "--replicas", "4")


def freeze(world: World, _: str) -> None:
    world.commands.append((ALL_JOBS, world.command("freeze")))


def thaw(world: World, _: str) -> None:
    """End the freeze, whether the command has found it or not."""
    world.command("thaw")
    world.order(*world.standing())


def edit_table(weight: float, *also: Act) -> Act:
    """Give the job's weight another value; `also` happens at the same time, to the other one."""

    def act(world: World, job: str) -> None:
        other = next(one for one in TROUBLED if one != job)
        for one in also:
            one(world, other)
        world.rows[job]["weight"] = weight
        world.write_table()

    return act


def section(kind: str, value: dict) -> Act:
    """Give the job another section in the table; {} takes it away."""

    def act(world: World, job: str) -> None:
        world.rows[job][kind] = dict(value)
        world.write_table()

    return act


# --- the API server, Prometheus, Ray --------------------------------------------------------------


def deny(*pairs: tuple[str, str]) -> Act:
    """Take permissions, each a verb and a resource, of which "*" stands for all."""
    return lambda world, job: world.deny(*pairs)


def allow(world: World, _: str) -> None:
    world.deny()


def silence(silent: bool) -> Act:
    """Let the API server give no answer, or answer again."""
    return lambda world, job: world.silence(silent)


def api(**values: object) -> Act:
    """Set attributes of the API server."""

    def act(world: World, _: str) -> None:
        for name, value in values.items():
            setattr(world.server, name, value)

    return act


def has(**values: object) -> Act:
    """Set attributes of the world."""

    def act(world: World, _: str) -> None:
        for name, value in values.items():
            assert hasattr(world, name), name
            setattr(world, name, value)

    return act


def forget_statistics(world: World, _: str) -> None:
    assert isinstance(world, RayWorld)
    world.forget_statistics()


# --- controllers and clocks -----------------------------------------------------------------------


def kill_leader(world: World, _: str) -> None:
    if leader := world.leader:
        world.kill(leader)


def kill_all(world: World, _: str) -> None:
    for one in world.pods:
        world.kill(one)


def terminate_leader(world: World, _: str) -> None:
    if leader := world.leader:
        world.terminate(leader)


def pause_leader(seconds: float) -> Act:
    def act(world: World, _: str) -> None:
        if leader := world.leader:
            leader.process.paused_until_s = world.clock.now_s + seconds

    return act


def damage_journal(world: World, job: str) -> None:
    """A byte in the middle of the newest journal is wrong when its controller starts again."""
    kill_all(world, job)
    for one in world.pods:
        for newest in day_files(one.journal)[-1:]:
            with newest.open("r+b") as file:
                file.seek(newest.stat().st_size // 2)
                file.write(b"\x00")


def full_disk(full: bool) -> Act:
    def act(world: World, _: str) -> None:
        for one in world.pods:
            one.process.full_disk = full

    return act


def jump(seconds: float) -> Act:
    def act(world: World, _: str) -> None:
        world.clock.wall_offset_s += seconds

    return act


def summer_time(world: World, _: str) -> None:
    world.clock.utc_offset_s = 7200 if world.clock.utc_offset_s == 3600 else 3600


def delete_plan(world: World, job: str) -> None:
    world.remove(FAROPLAN, PLAN)


def pass_seconds(seconds: float) -> Act:
    return lambda world, job: world.clock.sleep(seconds)


def together(*acts: Act) -> Act:
    def act(world: World, job: str) -> None:
        for one in acts:
            one(world, job)

    return act


UNKNOWN_JOB = {"job": "gone", "replicas": 3}
TWO_FIELDS = {"job": "a", "replicas": 3, "load": 2.0}
ENDS_FIRST = {
    "job": "a",
    "replicas": 3,
    "from": "2030-01-02T00:00:00Z",
    "until": "2030-01-01T00:00:00Z",
}
AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [
                {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["new"]}]}
            ]
        }
    }
}

NONE = Fault("none", lambda world, job: None)
OF_EVIDENCE = (
    Fault("requests fail for a minute", requests_fail, well, ALL, 60.0, EVIDENCE),
    Fault("requests fail for 5 minutes", requests_fail, well, ALL, 300.0, EVIDENCE, state=FAILING),
    Fault(
        "requests fail for 20 minutes", requests_fail, well, ALL, 1200.0, EVIDENCE, state=FAILING
    ),
    Fault("clients hang up for 10 minutes", clients_hang_up, well, ALL, 600.0, EVIDENCE),
    Fault("clients time out for 10 minutes", clients_time_out, well, ALL, 600.0, EVIDENCE),
    Fault("latencies have a floor for 10 minutes", latency_floor, well, ALL, 600.0, EVIDENCE),
    Fault("latencies have a floor for an hour", latency_floor, well, ALL, HOUR_S, EVIDENCE),
    Fault("a service is slower for 20 minutes", slower, well, ALL, 1200.0, SLOWER),
)


def across(fault: Fault, what: str, act: Act) -> Fault:
    """The same fault, and this happens in the middle of it."""
    return replace(fault, name=f"{fault.name}, across {what}", halfway=act)


FAULTS = (
    *OF_EVIDENCE,
    *(across(one, "a restart of all controllers", kill_all) for one in OF_EVIDENCE),
    *(across(one, "a change of leader", kill_leader) for one in OF_EVIDENCE),
    Fault("a saved belief is the worst", believe_the_worst, lasts_s=120, changes=BELIEF),
    NONE,
    # capacity
    Fault(
        "all nodes are cordoned", cordon(*NODES), cordon(*NODES, cordoned=False), worlds=EVERYWHERE
    ),
    Fault(
        "one node of two is cordoned", cordon("n1"), cordon("n1", cordoned=False), worlds=EVERYWHERE
    ),
    Fault("all nodes are not ready", silent_nodes(True), silent_nodes(False)),
    Fault("one node of two is gone", nodes_gone("n2"), all_nodes, worlds=EVERYWHERE),
    Fault("all nodes are gone", nodes_gone(*NODES), all_nodes),
    Fault("capacity is half of the need", small_node, all_nodes, lasts_s=300, changes=CAPACITY),
    Fault("a quota allows no pods", no_pods, no_quota, ON_KUBERNETES),
    Fault("Ray's workers are not ready", workers(False), workers(True), RAY),
    # one job
    Fault(
        "a count is NaN",
        counts(lambda n: math.nan),
        right_counts,
        ON_KUBERNETES,
        90,
        JOB,
        state=MISSING,
    ),
    Fault(
        "a count is infinite",
        counts(lambda n: math.inf),
        right_counts,
        ON_KUBERNETES,
        90,
        JOB,
        state=MISSING,
    ),
    Fault(
        "a count is negative",
        counts(lambda n: -0.01),
        right_counts,
        ON_KUBERNETES,
        90,
        JOB,
        state=MISSING,
    ),
    Fault("a query is slow", slow_query, right_counts, ON_KUBERNETES, 90, JOB, state=MISSING),
    Fault(
        "a template requests more than its cores",
        template(cpu="2"),
        right_template,
        ON_KUBERNETES,
        changes=JOB,
        state=MISCONFIGURED,
    ),
    Fault(
        "a template requires an affinity",
        template(affinity=AFFINITY),
        right_template,
        ON_KUBERNETES,
        changes=JOB,
        state=MISCONFIGURED,
    ),
    Fault(
        "a template has another nodeSelector",
        template(nodeSelector={"pool": "new"}),
        right_template,
        ON_KUBERNETES,
        changes=JOB,
        state=MISCONFIGURED,
    ),
    Fault("a job is deleted", delete, recreate(STARTED), changes=JOB, state=GONE),
    Fault("a job is recreated with 20 replicas", delete, recreate(20), changes=JOB, state=GONE),
    Fault(
        "a Deployment gains an HPA",
        gain_autoscaler,
        lose_autoscaler,
        PLAIN,
        90,
        JOB,
        state=CONTESTED,
    ),
    Fault("a job is scaled by hand", by_hand, worlds=REPLICAS, changes=JOB),
    Fault("an operator changes an HPA's bounds", other_bounds, worlds=CEILINGS, changes=JOB),
    Fault(
        "an HPA is deleted",
        lose_autoscaler,
        own_bounds,
        CEILINGS,
        changes=JOB,
        state=MISCONFIGURED,
    ),
    Fault("a job is idle for an hour", idle, changes=JOB),
    Fault(
        "a replica dies",
        replica_dies,
        replicas_live,
        (*RAY, *KIND),
        changes=JOB,
    ),
    # orders and settings
    Fault(
        "an order names an unknown job",
        orders(UNKNOWN_JOB),
        orders(),
        order=UNKNOWN_JOB,
        worlds=EVERYWHERE,
    ),
    Fault(
        "an order has replicas and load",
        orders(TWO_FIELDS),
        orders(),
        changes=JOB,
        order=TWO_FIELDS,
        both=True,
        worlds=EVERYWHERE,
    ),
    Fault(
        "an order ends before it begins",
        orders(ENDS_FIRST),
        orders(),
        changes=JOB,
        order=ENDS_FIRST,
        both=True,
        worlds=EVERYWHERE,
    ),
    Fault(
        "an order is above the capacity",
        order_for_job(500),
        orders(),
        changes=JOB,
        order={"replicas": 500},
        worlds=EVERYWHERE,
    ),
    Fault(
        "an order is in force",
        order_for_job(5),
        orders(),
        changes=JOB,
        order={"replicas": 5},
        worlds=EVERYWHERE,
    ),
    Fault("all jobs are frozen", freeze, thaw, freezes=True, worlds=EVERYWHERE),
    Fault(
        "all jobs are frozen, and all controllers are killed",
        together(freeze, pass_seconds(2.0), kill_all),
        thaw,
        lasts_s=120,
        freezes=True,
        worlds=EVERYWHERE,
    ),
    Fault(
        "all jobs are frozen, and less capacity than they use is left",
        together(freeze, pass_seconds(25.0), small_node),
        together(all_nodes, thaw),
        lasts_s=240,
        freezes=True,
    ),
    Fault(
        "two people use faro set at once",
        set_at_once,
        orders(),
        changes=JOB,
        both=True,
        worlds=EVERYWHERE,
    ),
    Fault("a job's settings change", edit_table(2.0), edit_table(1.0), changes=JOB),
    Fault(
        "a section serve is invalid",
        section("serve", {"concurrency": 0}),
        section("serve", {}),
        RAY,
        changes=JOB,
        state=MISCONFIGURED,
    ),
    Fault(
        "settings change while another job is deleted",
        edit_table(2.0, delete),
        edit_table(1.0, recreate(STARTED)),
        lasts_s=120,
        changes=JOB,
        both=True,
    ),
    Fault(
        "settings change while another job gains an HPA",
        edit_table(2.0, gain_autoscaler),
        edit_table(1.0, lose_autoscaler),
        ("kubernetes",),
        120,
        JOB,
        both=True,
    ),
    Fault(
        "settings change while the API server is silent for 25 s",
        edit_table(2.0, silence(True)),
        edit_table(1.0, silence(False)),
        lasts_s=25,
        changes=JOB,
    ),
    Fault(
        "settings change while all nodes are gone",
        edit_table(2.0, nodes_gone(*NODES)),
        edit_table(1.0, all_nodes),
        lasts_s=120,
        changes=JOB,
    ),
    # controllers that start while something is wrong
    Fault(
        "controllers start with a wrong order",
        together(orders(TWO_FIELDS), kill_all),
        orders(),
        lasts_s=120,
        changes=JOB,
        both=True,
        worlds=EVERYWHERE,
    ),
    Fault(
        "controllers start while a job is deleted",
        together(delete, kill_all),
        recreate(STARTED),
        lasts_s=120,
        changes=JOB,
        state=GONE,
    ),
    Fault(
        "controllers start while a template requests more than its cores",
        together(template(cpu="2"), kill_all),
        right_template,
        ON_KUBERNETES,
        lasts_s=120,
        changes=JOB,
        state=MISCONFIGURED,
    ),
    Fault(
        "controllers start while a Deployment has an HPA",
        together(gain_autoscaler, kill_all),
        lose_autoscaler,
        PLAIN,
        lasts_s=120,
        changes=JOB,
        state=CONTESTED,
    ),
    # the API server, Prometheus and Ray
    Fault("the FaroPlan is forbidden", deny(("*", FAROPLAN[1])), allow),
    Fault(
        "RBAC is taken and given back",
        deny(("*", "*")),
        allow,
        lasts_s=90,
        changes=DATA,
        reported=("observe", "apply"),
        ends_leader=True,
        worlds=EVERYWHERE,
    ),
    Fault("the API server is silent for 5 s", silence(True), silence(False), lasts_s=5),
    Fault(
        "the API server is silent for 5 min",
        silence(True),
        silence(False),
        lasts_s=300,
        changes=DATA,
        reported=("observe", "apply"),
        ends_leader=True,
        worlds=EVERYWHERE,
    ),
    Fault("watches end at once", api(ends_watches=True), api(ends_watches=False)),
    Fault("informers are stale", api(deaf=True), api(deaf=False), lasts_s=180, changes=DATA),
    Fault("the FaroPlan is deleted", delete_plan, worlds=EVERYWHERE),
    Fault(
        "the FaroPlan is deleted, and all controllers are killed",
        together(delete_plan, kill_all),
        orders(),
        lasts_s=120,
        ends_orders=True,
        worlds=EVERYWHERE,
    ),
    Fault(
        "Prometheus does not answer",
        has(no_metrics=True),
        has(no_metrics=False),
        ON_KUBERNETES,
        90,
        DATA,
    ),
    Fault(
        "Ray does not answer",
        has(no_answer="timeout"),
        has(no_answer=""),
        RAY,
        changes=DATA,
        reported=("observe",),
    ),
    Fault(
        "Ray answers 500",
        has(no_answer="500"),
        has(no_answer=""),
        RAY,
        changes=DATA,
        reported=("observe",),
    ),
    Fault(
        "Ray answers wrong JSON",
        has(no_answer="wrong JSON"),
        has(no_answer=""),
        RAY,
        changes=DATA,
        reported=("observe",),
    ),
    Fault("no statistics", has(no_metrics=True), has(no_metrics=False), RAY, changes=DATA),
    Fault("wrong statistics", has(wrong_metrics=True), has(wrong_metrics=False), RAY, changes=DATA),
    Fault("the actor of the statistics restarts", forget_statistics, worlds=RAY, changes=DATA),
    Fault("reports are 20 s late", has(late_s=20.0), has(late_s=0.0), RAY, 180, DATA),
    Fault("reports are 30 s late", has(late_s=30.0), has(late_s=0.0), RAY, 180, DATA),
    Fault("reports are 90 s late", has(late_s=90.0), has(late_s=0.0), RAY, 180, DATA),
    # controllers and clocks
    Fault("the leader is killed", kill_leader, worlds=EVERYWHERE),
    Fault("the leader ends", terminate_leader, worlds=EVERYWHERE),
    Fault("the leader is paused for 60 s", pause_leader(60.0), lasts_s=120, ends_leader=True),
    Fault("all controllers are killed", kill_all, lasts_s=120, worlds=EVERYWHERE),
    Fault("a byte of the journal is damaged before a start", damage_journal, lasts_s=120),
    Fault("the disk is full", full_disk(True), full_disk(False), reported=("journal",)),
    Fault("summer time begins or ends", summer_time),
    Fault(
        "the clock jumps forward",
        jump(3600),
        changes=DATA,
        reported=("clock",),
        sets_clock=True,
    ),
    Fault(
        "the clock jumps back",
        jump(-3600),
        changes=DATA,
        reported=("clock",),
        sets_clock=True,
    ),
    Fault(
        "controllers start after the clock was set back",
        together(jump(-3600), kill_all),
        lasts_s=120,
        changes=DATA,
        sets_clock=True,
    ),
    # real nodes and pods
    Fault("a node is drained", drain("n2"), cordon("n2", cordoned=False), KIND),
    Fault(
        "the template changes and its models load for a minute",
        models_load,
        right_template,
        KIND,
        changes=JOB,
    ),
    Fault("the nodes are replaced one by one", replace_nodes, worlds=KIND),
)


def faults_of(world: str, names: tuple[str, ...] = ()) -> tuple[Fault, ...]:
    """The faults of a world, or those of them with these names."""
    found = [one for one in FAULTS if world in one.worlds]
    return tuple(one for one in found if not names or one.name in names)

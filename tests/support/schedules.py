"""Random schedules for the simulated cluster: targets and drop rates, tick by tick."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from faro_lib import control
from faro_lib.protocol import HOLD, Plan
from faro_lib.simulate import Draws, ServingModel, SimulatedCluster, draw
from faro_lib.simulate.cluster import PAPER
from faro_lib.workload import Job, Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import SERIAL, SLO_ON, Batched, Concurrent, Continuous
from faro_ops.operate.loop import loop


@dataclass
class Scripted:
    """A policy that follows a script: wanted, drop (ticks, jobs); attempts (ticks,)."""

    wanted: np.ndarray
    drop: np.ndarray
    attempts: list[int]
    tick_s: float
    name: str = "Scripted"
    seen: list = field(default_factory=list)

    def start(self, jobs):
        return 0

    def decide(self, tick, observation):
        plan = Plan(
            self.wanted[tick],
            self.drop[tick],
            (HOLD,) * len(observation.target),
            self.attempts[tick],
        )
        return tick + 1, plan


@dataclass(frozen=True)
class Schedule:
    """A small workload and a script for its jobs; lists over ticks of lists over jobs."""

    counts: list  # requests per minute: lists over minutes of lists over jobs
    tenths: list  # cores of a replica, in tenths
    spare_tenths: int  # capacity beyond the initial replicas
    initial: list
    tick_s: int
    wanted: list
    drop: list
    attempts: list
    seed: int
    replicas: list = field(default_factory=list)  # of each job; [] = all are serial

    @property
    def capacity_tenths(self) -> int:
        return int(np.dot(self.initial, self.tenths)) + self.spare_tenths

    @property
    def workload(self) -> Workload:
        replicas = self.replicas or [SERIAL] * len(self.tenths)
        jobs = tuple(
            Job(f"job{n}", cores=tenths / 10, replica=replica)
            for n, (tenths, replica) in enumerate(zip(self.tenths, replicas))
        )
        return Workload(jobs, np.array(self.counts).T)

    def draws(self) -> Draws:
        return draw(self.workload, self.seed)

    def run(
        self, draws: Draws, serving_model: ServingModel = PAPER
    ) -> tuple[SimulatedCluster, list[control.Step]]:
        """The cluster after every request has ended, and the ticks of the loop."""
        policy = Scripted(
            np.array(self.wanted), np.array(self.drop), self.attempts, float(self.tick_s)
        )
        workload = self.workload
        cluster = SimulatedCluster(
            workload, draws, self.capacity_tenths / 10, np.array(self.initial), serving_model
        )
        steps: list[control.Step] = []
        loop.run(cluster, policy, workload.jobs, workload.minutes * MINUTE_S, on_step=steps.append)
        cluster.finish()
        return cluster, steps


def continuous(*fields):
    """A continuous replica; 1 s per token weighs as much as 4 s to the first if both count."""
    slo_on = fields[9]
    return Continuous(*fields, per_token_weight=4.0 if slo_on == "both" else 0.0)


def replicas():
    """Replicas of every kind, with any times or sums of powers of 2, so that events coincide."""

    def times(most):
        return st.one_of(st.sampled_from([0.0, most / 2, most]), st.floats(0.0, most))

    counts = st.integers(1, 6)
    positive_s = st.one_of(st.just(2.0**-4), st.floats(2.0**-7, 2.0**-3))
    cv = st.sampled_from([0.0, 0.0, 0.6])
    tokens = st.sampled_from([1, 2, 5, 12])
    slo_on = st.sampled_from(SLO_ON)
    return st.one_of(
        st.just(SERIAL),
        st.builds(Concurrent, counts, times(1.0)),
        st.builds(Batched, counts, times(0.5), positive_s, times(2.0**-4)),
        st.builds(
            continuous,
            *(positive_s, times(2.0**-6), times(2.0**-9), counts, tokens, tokens, cv, cv),
            st.sampled_from([1, 12, 10_000]),
            slo_on,
            st.sampled_from([(), ((2.0, 2.0**-6), (4.0, -(2.0**-6)))]),
            st.sampled_from([(), ((3.0, 2.0**-8),)]),
        ),
    )


ONLY_SERIAL = st.just(SERIAL)


@st.composite
def schedules(draw_from, kinds=ONLY_SERIAL):
    """Few minutes, replicas and cores: pods wait, queues overflow, busy replicas are removed."""
    jobs = draw_from(st.integers(1, 3))
    minutes = draw_from(st.integers(1, 3))
    tick_s = draw_from(st.sampled_from([2, 5, 7, 10]))
    ticks = int(np.ceil(minutes * MINUTE_S / tick_s)) - 1

    def per_job(values):
        return st.lists(values, min_size=jobs, max_size=jobs)

    def changes(values):
        # Few changes, far apart, so that they have time to take effect.
        change = st.tuples(st.integers(0, ticks - 1), values)
        return st.lists(change, max_size=12).map(
            lambda pairs: sorted(pairs, key=lambda pair: pair[0])
        )

    initial = draw_from(per_job(st.integers(1, 4)))
    wanted = np.tile(initial, (ticks, 1))
    drop = np.zeros((ticks, jobs))
    for tick, targets in draw_from(changes(per_job(st.integers(1, 6)))):
        wanted[tick:] = targets
    for tick, rates in draw_from(changes(per_job(st.sampled_from([0.0, 0.0, 0.05, 0.5, 1.0])))):
        drop[tick:] = rates
    return Schedule(
        draw_from(st.lists(per_job(st.integers(0, 1200)), min_size=minutes, max_size=minutes)),
        draw_from(per_job(st.sampled_from([10, 10, 5, 20, 3]))),
        draw_from(st.integers(0, 40)),
        initial,
        tick_s,
        wanted.tolist(),
        drop.tolist(),
        draw_from(st.lists(st.sampled_from([1, 5]), min_size=ticks, max_size=ticks)),
        draw_from(st.integers(0, 2**31)),
        draw_from(per_job(kinds)),
    )

"""Observations for tests: what a cluster would report."""

from __future__ import annotations

import numpy as np

from faro_lib.control import GUARDRAILS
from faro_lib.control.guardrails import Guard
from faro_lib.control.limits import Known
from faro_lib.workload import Job
from faro_ops.protocol import LiveObservation


def observed(target, capacity=100.0, changing=None, now_s=60.0, **fields) -> LiveObservation:
    """An observation of idle jobs with these targets, all running; `fields` override the rest."""
    jobs = len(target)
    target = np.array(target)
    zeros = np.zeros(jobs)
    defaults = dict(
        now_s=now_s,
        capacity=capacity,
        minute=1,
        arrivals_per_min=np.zeros((jobs, 1)),
        mean_latency_s=zeros,
        tail_latency_s=zeros,
        ongoing=zeros,
        running=target,
        starting=np.zeros(jobs, np.int64),
        target=target,
        terminating=np.zeros(jobs, np.int64),
        changing=np.zeros(jobs, bool) if changing is None else np.array(changing),
        drop=zeros,
    )
    return LiveObservation(**{**defaults, **fields})


def known_of(jobs: tuple[Job, ...], observation: LiveObservation, left=None) -> Known:
    """What the rules of `faro_lib.control.limits` know at the first tick of a run."""
    none = np.zeros(len(jobs), bool)
    return Known(
        config=GUARDRAILS,
        jobs=jobs,
        guard=Guard(known_s=np.full(len(jobs), observation.now_s)),
        observation=observation,
        intended=observation,
        visible=observation,
        contested=none,
        drifted=none,
        left=none if left is None else left,
    )

"""Observations for tests: what a cluster would report."""

from __future__ import annotations

import numpy as np

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

"""Optional changes of a synthetic workload, such as a launch, a doubling or a flash crowd."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from faro_lib.workload.jobs import Traces

Change = Literal[
    "none",
    "launch",
    "double",
    "flash",
    "stop",
    "weekend",
    "idle",
    "drift",
    "bursts",
    "giant",
    "sparse",
]
CHANGES = get_args(Change)
CROWD = 5  # factor on the load in a flash crowd
CROWD_MINUTES = 20  # duration of a flash crowd
WEEKEND = 0.4  # factor on the load at weekends
IDLE_PER_MIN = 1.0  # mean requests per minute of an idle job
DRIFT = 1.5  # factor on the load at the end of the evaluation day
BURST = 3  # factor on the load in a burst
BURST_MINUTES = 3  # duration of a burst
BURSTS = 20  # bursts per day
GIANT = 5.3  # factor on the load of the first job; all other jobs have the factor GIANT / 100


def changed(traces: Traces, change: str) -> Traces:
    """The traces after `change`, one of CHANGES.

    A change affects every third job, unless stated otherwise.

    launch : no requests until minute t of the evaluation day. Each affected job has its own t, in
        the middle third.
    double : twice the requests from t on.
    flash : CROWD times the requests for CROWD_MINUTES from t on.
    stop : no requests from t on.
    bursts : BURSTS bursts at random minutes of the evaluation day.
    idle : a mean of IDLE_PER_MIN requests per minute on all days.
    sparse : the same mean as idle, but for the other two thirds of the jobs.
    weekend : WEEKEND times the requests of all jobs on days 6, 7, 13, 14, ...
    drift : a factor on the requests of all jobs that grows linearly from 1 to DRIFT over the
        evaluation day.
    giant : GIANT times the requests of the first job, and GIANT / 100 times those of all other
        jobs.
    """
    if change not in CHANGES:
        raise ValueError(f"change={change!r} is unknown; accepted: {', '.join(CHANGES)}")
    days = np.concatenate([traces.train, traces.evaluation[None]])  # (days, samples, jobs, minutes)
    jobs, minutes = days.shape[2:]
    some: Sequence[int] = range(0, jobs, 3)
    if change == "weekend":
        weekend = np.arange(len(days)) % 7 >= 5
        days[weekend] = np.rint(WEEKEND * days[weekend])
    elif change == "drift":
        days[-1] = np.rint(days[-1] * np.linspace(1, DRIFT, minutes))
    elif change == "giant":
        factors = np.where(np.arange(jobs) == 0, GIANT, GIANT / 100)
        days = np.rint(days * factors[:, None]).astype(days.dtype)
    elif change == "sparse":
        some = [job for job in range(jobs) if job % 3]
    for n, job in enumerate(some):
        start = round(minutes * (1 + n / len(some)) / 3)
        if change == "launch":
            days[:-1, :, job] = 0
            days[-1, :, job, :start] = 0
        elif change == "double":
            days[-1, :, job, start:] *= 2
        elif change == "flash":
            days[-1, :, job, start : start + CROWD_MINUTES] *= CROWD
        elif change == "stop":
            days[-1, :, job, start:] = 0
        elif change == "bursts":
            rng = np.random.default_rng([job, 7])
            for begin in rng.integers(minutes - BURST_MINUTES, size=BURSTS):
                days[-1, :, job, begin : begin + BURST_MINUTES] *= BURST
        elif change in ("idle", "sparse"):
            rng = np.random.default_rng([job, 6])
            days[:, :, job] = rng.poisson(IDLE_PER_MIN, days[:, :, job].shape)
    return replace(traces, train=days[:-1], evaluation=days[-1], arrival_s=())

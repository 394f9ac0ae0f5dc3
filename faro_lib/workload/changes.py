"""Optional changes of a synthetic workload, such as a launch, a doubling or a flash crowd."""

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
CROWD, CROWD_MINUTES = 5, 20  # factor on the load in a flash crowd, and its duration
WEEKEND = 0.4  # factor on the load at weekends
IDLE_PER_MIN = 1.0  # mean requests per minute of an idle job
DRIFT = 1.5  # factor on the load at the end of the evaluation day
BURST, BURST_MINUTES, BURSTS = (
    3,
    3,
    20,
)  # factor on the load in a burst, its duration, and bursts per day
GIANT = 5.3  # factor on the load of the first job; all other jobs have the factor GIANT / 100


def changed(traces: Traces, change: str) -> Traces:
    """The traces after `change`, one of CHANGES. A change affects every third job, unless stated otherwise.

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
    minutes, of_some = days.shape[-1], list(range(0, len(traces.jobs), 3))
    if change == "weekend":
        days[np.arange(len(days)) % 7 >= 5] = np.rint(WEEKEND * days[np.arange(len(days)) % 7 >= 5])
    elif change == "drift":
        days[-1] = np.rint(days[-1] * np.linspace(1, DRIFT, minutes))
    elif change == "giant":
        factors = np.where(np.arange(len(traces.jobs)) == 0, GIANT, GIANT / 100)
        days = np.rint(days * factors[:, None]).astype(days.dtype)
    elif change == "sparse":
        of_some = [job for job in range(len(traces.jobs)) if job % 3]
    for n, job in enumerate(of_some):
        start = round(minutes * (1 + n / len(of_some)) / 3)
        if change == "launch":
            days[:-1, :, job], days[-1, :, job, :start] = 0, 0
        elif change == "double":
            days[-1, :, job, start:] *= 2
        elif change == "flash":
            days[-1, :, job, start : start + CROWD_MINUTES] *= CROWD
        elif change == "stop":
            days[-1, :, job, start:] = 0
        elif change == "bursts":
            for begin in np.random.default_rng([job, 7]).integers(
                minutes - BURST_MINUTES, size=BURSTS
            ):
                days[-1, :, job, begin : begin + BURST_MINUTES] *= BURST
        elif change in ("idle", "sparse"):
            days[:, :, job] = np.random.default_rng([job, 6]).poisson(
                IDLE_PER_MIN, days[:, :, job].shape
            )
    return replace(traces, train=days[:-1], evaluation=days[-1])

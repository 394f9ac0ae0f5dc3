"""All random numbers of a trial, drawn before it starts.

Policies that are compared get the same draws (common random numbers), so that only decisions make
their runs differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from faro_lib.workload import Job, Workload
from faro_lib.workload.arrivals import sample_arrivals
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import Continuous
from faro_lib.workload.service import ServiceTime, true_service_time

TRIAL_SEEDS = (24, 32, 40, 42, 62)  # seeds of the published trials (EuroSys'25 artifact)
ROUTER = ServiceTime(0.480784, 0.0034853, 0.0009878)


@dataclass(frozen=True, slots=True)
class Draws:
    """The random numbers of one trial; arrays have shape (requests,), one job after the other."""

    first: np.ndarray  # (jobs + 1,) index of the first request of each job
    arrival_s: np.ndarray  # ascending within a job
    router_in_s: np.ndarray  # service time of the first pass through a router; empty without one
    # Service time; of a request that begins a batch: factor on the duration of the batch.
    service_s: np.ndarray
    router_out_s: np.ndarray  # service time of the second pass; empty without a router
    coin: np.ndarray  # uniform in [0, 1); a request is dropped if its coin is below the drop rate
    seed: int
    # Whole numbers >= 1; empty if no job generates tokens.
    prompt_tokens: np.ndarray = field(default_factory=lambda: np.empty(0))
    output_tokens: np.ndarray = field(default_factory=lambda: np.empty(0))
    # (jobs, minutes) CPU seconds per request that the platform measures; None if it does not.
    busy_s: np.ndarray | None = None
    elsewhere_s: float = 0.0  # seconds of every latency that are spent outside of the replicas

    def shuffler(self, job: int) -> np.random.Generator:
        """Random generator of a job's dispatch order, shuffled when the job's replicas change."""
        return np.random.default_rng([self.seed, 2, job])


def draw(
    workload: Workload, seed: int, *, router: ServiceTime | None = ROUTER, scv_factor: float = 1.0
) -> Draws:
    """Draw the random numbers of a trial.

    `router` is the service time of one pass through the router, None if there is none. `scv_factor`
    multiplies the squared coefficient of variation of the replicas' service times.
    """
    arrival_s, first = sample_arrivals(workload, seed)
    rng = np.random.default_rng([seed, 1])
    n = len(arrival_s)
    passes = rng.standard_normal((2, n if router else 0))
    if router:
        router.from_normals(passes)  # to service times of the router's two passes, in place
    service_s = rng.standard_normal(n)
    for job, a, b in zip(workload.jobs, first[:-1], first[1:]):
        service = true_service_time(job)
        if scv_factor != 1.0:
            service = ServiceTime.from_moments(service.mean_s, service.scv * scv_factor)
        service.from_normals(service_s[a:b])
    coin = rng.random(n, dtype=np.float32)
    prompt_tokens, output_tokens = _lengths(workload.jobs, first, seed)
    return Draws(
        first=first,
        arrival_s=arrival_s,
        router_in_s=passes[0],
        service_s=service_s,
        router_out_s=passes[1],
        coin=coin,
        seed=seed,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
    )


def uniform_arrivals(
    counts: np.ndarray, rng: np.random.Generator, window_s: float = MINUTE_S
) -> np.ndarray:
    """Arrival times (requests,), sorted by job and time.

    Job j has counts[j, w] requests, uniform within window w.
    """
    windows = np.concatenate([np.repeat(np.arange(counts.shape[1]), row) for row in counts])
    arrival_s = (windows + rng.random(len(windows))) * window_s
    first = np.cumsum(counts.sum(axis=1))
    for part in np.split(arrival_s, first[:-1]):
        part.sort()
    return arrival_s


def _lengths(jobs: Sequence[Job], first: np.ndarray, seed: int) -> np.ndarray:
    """Prompt and output tokens of every request, (2, requests), from one generator per job."""
    if not any(isinstance(job.replica, Continuous) for job in jobs):
        return np.empty((2, 0))
    lengths = np.ones((2, first[-1]))
    for n, (job, a, b) in enumerate(zip(jobs, first[:-1], first[1:])):
        if isinstance(job.replica, Continuous):
            lengths[:, a:b] = job.replica.lengths(np.random.default_rng([seed, 3, n]), b - a)
    return lengths

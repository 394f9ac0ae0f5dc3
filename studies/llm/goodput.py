"""A latency model whose utility is goodput: the share of requests that meet the SLO.

The usual utility of a minute is SLO / latency at one quantile, at most 1. It says whether a service
meets its SLO, but little about how many of its requests do.

Goodput depends on the load, on the replicas, and on the lengths of prompts and outputs, which
drift. It is measured by simulation at lengths that are powers of two, and interpolated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product

import numpy as np
from scipy.interpolate import interpn
from scipy.optimize import isotonic_regression

from faro_lib.files import cached_array
from faro_lib.queueing.latency_models import LatencyModel
from faro_lib.simulate import ServingModel, draw
from faro_lib.simulate.serving import constant_latencies
from faro_lib.simulate.table_minutes import SEED, code_key
from faro_lib.workload import Job, Workload
from faro_lib.workload.jobs import MINUTE_S
from faro_lib.workload.replicas import Continuous
from studies.llm.engines import costs

# Load / replicas, both in replicas; requests cost what `engines.costs` says.
UTILISATIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.6, 2.5)
REPLICAS = (1, 2, 4, 8)
WARM_UP, MINUTES = 1, 3  # simulated minutes that are not judged, and the fewest that are
REQUESTS = 4000  # judged at utilisation 1, at least


@dataclass(frozen=True, slots=True, eq=False)
class Goodput(LatencyModel):
    """Goodput at fixed lengths, interpolated between UTILISATIONS and REPLICAS.

    `share` is (utilisations, counts) by job. Beyond the last utilisation, goodput is proportional
    to 1 / load; beyond the last count, it is that of the last count at the same utilisation.

    Without `weight`, the utility is the share of a minute's requests that meet the SLO, and 1
    without requests. With it, by job, the utility is weight x rate x share, so that minutes and
    jobs with many requests count more.
    """

    share: Mapping[str, np.ndarray]
    weight: Mapping[str, float] | None = None

    def expected_utility(
        self, job: Job, rate_rps, replicas, utility: str, alpha: float = 1.0
    ) -> np.ndarray:
        """The utility of a minute, as above."""
        rate_rps, replicas = np.broadcast_arrays(
            np.asarray(rate_rps, float), np.asarray(replicas, float)
        )
        rho = rate_rps * job.busy_s / np.maximum(replicas, 1e-12)
        at = np.clip(rho, UTILISATIONS[0], UTILISATIONS[-1]), np.clip(replicas, 1, REPLICAS[-1])
        share = interpn((UTILISATIONS, REPLICAS), self.share[job.name], np.stack(at, axis=-1))
        share = share * np.minimum(1.0, UTILISATIONS[-1] / np.maximum(rho, UTILISATIONS[-1]))
        if self.weight is not None:
            return self.weight[job.name] * rate_rps * share
        return 1 - np.minimum(1.0, rate_rps * MINUTE_S) * (1 - share)

    def with_drops(self) -> "Goodput":
        """The goodput if requests beyond the `best_load` are dropped on arrival."""
        load = np.array(UTILISATIONS)[:, None]
        best = {
            name: np.maximum.accumulate(load * share, axis=0) / load
            for name, share in self.share.items()
        }
        return replace(self, share=best)

    def best_load(self, replicas: np.ndarray) -> np.ndarray:
        """The load (jobs,), in replicas, with the most requests that meet the SLO.

        `replicas` are (jobs,), in the order of `share`.
        """
        load = np.array(UTILISATIONS)[:, None]
        best = []
        for share, count in zip(self.share.values(), replicas):
            by_count = load[(load * share).argmax(axis=0), 0]
            best.append(count * np.interp(count, REPLICAS, by_count))
        return np.array(best)


@dataclass(frozen=True, slots=True)
class GoodputByLengths:
    """The goodput of jobs at any mean lengths; coefficients of variation and bursts are fixed."""

    jobs: tuple[Job, ...]
    serving_model: ServingModel

    def at(self, tokens: np.ndarray) -> Goodput:
        """Goodput at mean prompt and output tokens (2, jobs); NaN: as in the job's replica."""
        each = zip(self.jobs, np.transpose(tokens).tolist())
        return Goodput(
            {job.name: interpolated_share(job, self.serving_model, *of_job) for job, of_job in each}
        )

    def at_random(self) -> "GoodputByLengths":
        """The same, if requests arrived at random times of their minute."""
        return replace(self, jobs=tuple(job.with_dispersion((1.0, 1.0, 1.0)) for job in self.jobs))


def interpolated_share(
    job: Job, serving_model: ServingModel, prompt_tokens: float, output_tokens: float
) -> np.ndarray:
    """Goodput (utilisations, counts) between the tables at the nearest powers of two.

    It is linear in the logarithms of both lengths, at the same load.
    """
    replica = _continuous(job)
    assumed = replica.prompt_tokens, replica.output_tokens
    lengths = np.array([prompt_tokens, output_tokens])
    tokens = np.where(np.isnan(lengths), assumed, lengths)
    below, part = np.divmod(np.log2(np.maximum(tokens, 1.0)), 1.0)
    share = np.zeros((len(UTILISATIONS), len(REPLICAS)))
    for upper in product((0, 1), repeat=2):
        weight = np.prod(np.where(upper, part, 1 - part))
        if weight > 0:
            nearest = (2.0 ** (below + upper)).tolist()
            share += weight * _share(replace(job, name="any"), serving_model, *nearest)
    return share


@lru_cache(maxsize=1024)
def _share(
    job: Job, serving_model: ServingModel, prompt_tokens: float, output_tokens: float
) -> np.ndarray:
    """Goodput (utilisations, counts) at mean lengths, from the cache or measured."""
    replica = _continuous(job)
    cost = float(costs(replica, np.array(prompt_tokens), np.array(output_tokens)))
    full_rps = 1 / (job.busy_s * cost)
    now = replace(replica, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
    job = replace(job, replica=now)
    grid = UTILISATIONS, REPLICAS, WARM_UP, MINUTES, REQUESTS, SEED
    key = "goodput", now, job.slo_s, job.dispersion, full_rps, serving_model, grid, code_key()
    return cached_array(key, partial(measured_share, job, serving_model, full_rps))


def measured_share(job: Job, serving_model: ServingModel, full_rps: float) -> np.ndarray:
    """The share of requests that meet the SLO, (utilisations, counts), by simulation.

    `full_rps` are the requests/s per replica at utilisation 1. Prompts are cut at what a replica
    admits at a time. Noise does not make more load or fewer replicas look better.
    """
    columns = []
    for replicas in REPLICAS:
        per_min = MINUTE_S * full_rps * replicas * np.array(UTILISATIONS)
        minutes = WARM_UP + max(MINUTES, int(np.ceil(REQUESTS / (MINUTE_S * full_rps * replicas))))
        ends = np.floor(np.arange(minutes + 1) * per_min[:, None] + 0.5).astype(int)
        jobs = tuple(replace(job, name=str(n)) for n in range(len(per_min)))
        draws = draw(Workload(jobs, np.diff(ends, axis=1)), SEED, router=None)
        prompt_tokens = np.minimum(draws.prompt_tokens, _continuous(job).max_tokens)
        draws = replace(draws, prompt_tokens=prompt_tokens)
        places = np.full(len(jobs), serving_model.limit_of(job))
        rules = serving_model.dispatch, serving_model.queue_limit, places
        met = constant_latencies(jobs, draws, [replicas] * len(jobs), *rules) <= job.slo_s
        judged = draws.arrival_s >= WARM_UP * MINUTE_S
        of_job = np.repeat(np.arange(len(jobs)), np.diff(draws.first))[judged]
        requests = np.maximum(np.bincount(of_job, minlength=len(jobs)), 1)
        share = np.bincount(of_job, met[judged], len(jobs)) / requests
        columns.append(isotonic_regression(share, weights=requests, increasing=False).x)
    return np.maximum.accumulate(np.transpose(columns), axis=1)


def mean_tokens(
    tokens_per_min: np.ndarray, requests_per_min: np.ndarray, minutes: int
) -> np.ndarray:
    """Mean prompt and output tokens of the last `minutes`, (2, jobs); NaN without requests.

    tokens_per_min, requests_per_min : (2, jobs, minutes) and (jobs, minutes), newest last.
    """
    recent = slice(max(requests_per_min.shape[1] - minutes, 0), None)
    requests = requests_per_min[:, recent].sum(axis=1)
    tokens = tokens_per_min[:, :, recent].sum(axis=2)
    return np.where(requests > 0, tokens / np.maximum(requests, 1), np.nan)


def _continuous(job: Job) -> Continuous:
    assert isinstance(job.replica, Continuous)
    return job.replica

"""What a minute says about the services of pools: a factor of each pool, and one of each service.

`policies.learning` keeps the posteriors of the services' own factors, as for services with replicas
of their own. `SharedFactors` has those of the pools. Both are updated with the same likelihood
(`queueing.shared_factor`). The posterior of all factors of a pool is kept as the product of its
marginals (assumed-density filtering; Maybeck, Stochastic Models, Estimation and Control, 1982).

The services of a pool wait in the same queue, so their latencies in a minute are not independent.
What they have in common is the minute r of the latency table, and the error e of the table: in this
minute, the factor of the pool is g e. With l_j(g e, h, r) the likelihood of the latency of job j,

    M_j(g e, r) = sum_h p_j(h) l_j(g e, h, r),
    p(g | minute) ~ p(g) sum_e p(e) sum_r prod_j M_j(g e, r),
    p_j(h | minute) ~ p_j(h) sum_(g, e, r) p(g) p(e) l_j(g e, h, r) prod_(k != j) M_k(g e, r).
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from faro_lib.policies.evidence import Evidence
from faro_lib.queueing import LatencyModel, service_factor, shared_factor
from faro_lib.queueing.service_factor import FACTORS
from faro_lib.workload import Job, pools_of

SHARING_ERROR = 0.15  # relative standard error of the assumption that sharing slows down nothing
# Relative errors that decisions allow for: of a measured pool, and of a service beside its pool.
MEASURED_ERROR, OWN_ERROR = 0.03, 0.05
# Probability of each factor g e (columns) in a minute, by the factor g of the pool (rows).
_ERRORS = np.log(FACTORS) - np.log(FACTORS)[:, None]
COMMON = service_factor.normalised(np.exp(-0.5 * (_ERRORS / service_factor.MODEL_ERROR) ** 2))


@dataclass(frozen=True, slots=True)
class SharedFactors:
    """What is known of the factors of pools after some minutes."""

    members: tuple[tuple[int, ...], ...]  # jobs of each pool
    # (pools, factors): posterior from informative minutes; likelihood of the counts since then.
    weight: np.ndarray
    prior: np.ndarray
    bounds: np.ndarray
    load: np.ndarray  # (jobs,) assumed loads of the last minute that told something, erlangs

    @classmethod
    def start(cls, jobs: tuple[Job, ...]) -> Self:
        members = tuple(pool.jobs for pool in pools_of(jobs) if pool.shared)
        prior = service_factor.prior(np.full(len(members), SHARING_ERROR))
        return cls(members, prior, prior, np.ones_like(prior), np.ones(len(jobs)))

    def belief(self, own: np.ndarray) -> np.ndarray:
        """Posteriors (jobs, factors) of g h for jobs of pools; others have `own`.

        `own` has the posteriors of h.
        """
        belief = own.copy()
        bounded = service_factor.normalised(self.weight * self.bounds)
        for of_pool, members in zip(bounded, self.members):
            belief[list(members)] = shared_factor.product(of_pool, own[list(members)])
        return belief

    def mean(self, factor: np.ndarray) -> np.ndarray:
        """F of each job's pool, from the factors f of all jobs; 1 for jobs alone: (jobs,)."""
        mean = np.ones(len(factor))
        for of_pool in map(list, self.members):
            mean[of_pool] = shared_factor.mean_shared(factor[of_pool], self.load[of_pool])
        return mean

    def beyond_doubt(self, factor: np.ndarray) -> np.ndarray:
        """The factors (jobs,) without what the latency table itself may be wrong by.

        A pool is measured with equal loads, and a real one is up to MEASURED_ERROR slower as
        stated. Small differences between its services are noise, and decisions that follow them
        refuse now this service and now that one. So the mean factor of a pool, and that of each
        service beside it, are moved towards 1 by their errors (a soft threshold).
        """
        mean = self.mean(factor)
        surely = _towards_one(mean, MEASURED_ERROR) * _towards_one(factor / mean, OWN_ERROR)
        shared = [j for members in self.members for j in members]
        factor = factor.copy()
        factor[shared] = surely[shared]
        return factor

    def levelled(self, own: np.ndarray) -> tuple[Self, np.ndarray]:
        """The same products g h with services' own factors whose mean is 1: (self, own).

        Latencies tell only the products. So g is the level of all services of the pool, and h what
        a service has beside it. `own` (jobs, factors) is changed by whole steps of FACTORS.
        """
        weight, own = self.weight.copy(), own.copy()
        for pool, members in enumerate(map(list, self.members)):
            logs, load = np.log(service_factor.mean_factor(own[members])), self.load[members]
            steps = round(float(logs @ load / load.sum()) / service_factor.STEP)
            if steps:
                weight[pool] = shared_factor.shifted(weight[pool], steps)
                own[members] = shared_factor.shifted(own[members], -steps)
        return replace(self, weight=weight), own

    def drifted(self, drift: float, change: float) -> Self:
        """What is known one minute later (`service_factor.drifted`)."""
        changes = np.full(len(self.weight), change)
        return replace(self, weight=service_factor.drifted(self.weight, drift, changes))

    def changed(self, jobs: np.ndarray, change: float) -> Self:
        """What is still known after a roll-out of some jobs, bool (jobs,).

        Only a roll-out of all services of a pool may change its factor, with probability `change`.
        """
        every = np.array([jobs[list(of)].all() for of in self.members], bool)
        some = np.array([jobs[list(of)].any() for of in self.members], bool)
        return replace(
            self,
            weight=service_factor.drifted(self.weight, 0.0, np.where(every, change, 0.0)),
            bounds=np.where(some[:, None], 1.0, self.bounds),
        )

    def faded(self, half_life_minutes: float) -> Self:
        """What is known after a minute without evidence (`service_factor.faded`)."""
        weight = service_factor.faded(self.weight, self.prior, half_life_minutes)
        return replace(self, weight=weight)


def _towards_one(factor: np.ndarray, error: float) -> np.ndarray:
    """Factors whose logarithms are nearer to 0 by `error`, at most 0."""
    logs = np.log(factor)
    return np.exp(np.sign(logs) * np.maximum(np.abs(logs) - error, 0.0))


def after_minute(
    shared: SharedFactors,
    jobs: tuple[Job, ...],
    own: np.ndarray,
    evidence: Evidence,
    latency_model: LatencyModel,
    *,
    bounds_kept: float,
    least_bound: float,
    half_life_minutes: float,
) -> tuple[SharedFactors, np.ndarray]:
    """(what is known of pools after a minute, its likelihood for the jobs' own factors).

    own : posteriors (jobs, factors) of the services' own factors before the minute.
    evidence : its replicas are those of the job's whole pool.
    bounds_kept, least_bound, half_life_minutes : as in `policies.learning`.

    The likelihood (jobs, factors) is 1 for jobs alone, and where the minute says nothing.
    """
    likely = np.ones_like(own)
    faded = shared.faded(half_life_minutes)
    weight, bounds, load = shared.weight.copy(), shared.bounds.copy(), shared.load.copy()
    for pool, members in enumerate(map(list, shared.members)):
        of_pool = Minute.of(jobs, members, own, evidence)
        tells = evidence.informative[members]
        if of_pool.load > 0:
            load[members] = of_pool.loads
        if tells.any() and of_pool.load > 0:
            at = of_pool.latencies(jobs, evidence, latency_model)
            weight[pool], likely[of_pool.told] = updated(weight[pool], own[of_pool.told], at)
            bounds[pool] = 1.0
            continue
        counted = of_pool.work_likelihood(jobs, evidence, latency_model)
        counted *= of_pool.overload_likelihood(jobs, evidence, latency_model)
        bounds[pool] = bounds[pool] ** bounds_kept * counted
        bounds[pool] = np.maximum(bounds[pool] / bounds[pool].max(), least_bound)
        known_both = evidence.overloaded[members].any() and not np.isnan(of_pool.served).any()
        if not known_both:
            weight[pool] = faded.weight[pool]
    return replace(shared, weight=weight, bounds=bounds, load=load), likely


def updated(
    of_pool: np.ndarray, own: np.ndarray, likely: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(posterior of g, likelihood of the services' own factors) after a minute.

    of_pool : (factors,) posterior of g before the minute.
    own : (jobs, factors) those of h.
    likely : (jobs, factors g e, minutes, factors h) of the minute's latencies.
    """
    own = own.astype(likely.dtype)
    of_job = np.log((likely @ own[:, None, :, None])[..., 0])  # log M_j(g e, r)
    of_all = of_job.sum(axis=0)
    posterior = of_pool * (COMMON @ np.exp(of_all - of_all.max()).sum(axis=1))
    others = of_all - of_job  # of all jobs but j
    others = np.exp(others - others.max(axis=(1, 2), keepdims=True))
    others *= (of_pool @ COMMON)[:, None]
    others /= others.sum(axis=(1, 2), keepdims=True)
    jobs, factors = own.shape
    others = others.reshape(jobs, 1, -1).astype(likely.dtype)
    of_own = others @ likely.reshape(jobs, -1, factors)
    return posterior / posterior.sum(), of_own[:, 0]


@dataclass(frozen=True, slots=True)
class Minute:
    """The services of one pool in a minute; arrays are (jobs of the pool,)."""

    members: np.ndarray
    told: np.ndarray  # the jobs whose latencies are informative
    loads: np.ndarray  # assumed loads in erlangs
    own: np.ndarray  # mean of each service's own factor
    served: np.ndarray  # requests; NaN if unknown

    @classmethod
    def of(
        cls, jobs: tuple[Job, ...], members: list[int], own: np.ndarray, evidence: Evidence
    ) -> Self:
        at = np.array(members)
        busy_s = np.array([jobs[j].busy_s for j in members])
        return cls(
            at,
            at[evidence.informative[at]],
            np.nan_to_num(evidence.rate_rps[at]) * busy_s,
            service_factor.mean_factor(own[at]),
            evidence.served_per_min[at],
        )

    @property
    def load(self) -> float:
        return float(self.loads.sum())

    @property
    def mean_own(self) -> float:
        """Mean of the services' own factors, weighted by their loads."""
        return shared_factor.mean_shared(self.own, self.loads)

    def latencies(
        self, jobs: tuple[Job, ...], evidence: Evidence, latency_model: LatencyModel
    ) -> np.ndarray:
        """Likelihood of the latencies of `told`, (jobs, factors g, minutes, factors h)."""
        of_told = [jobs[j] for j in self.told]
        tail_s, first = evidence.tail_s[self.told], self.members[0]

        def at(replicas: float) -> np.ndarray:
            return shared_factor.joint_likelihood(
                latency_model, of_told, self.load, replicas, tail_s, self.mean_own
            )

        fewest, most = evidence.fewest[first], evidence.most[first]
        return at(fewest) if most == fewest else (at(fewest) + at(most)) / 2

    def work_likelihood(
        self, jobs: tuple[Job, ...], evidence: Evidence, latency_model: LatencyModel
    ) -> np.ndarray:
        """Likelihood (factors,) that the replicas of the pool could serve what they served."""
        served = np.nan_to_num(self.served)
        busy_s = latency_model.saturated_s([jobs[j] for j in self.members])
        shares = served / served.sum() if served.any() else np.full(len(served), 1 / len(served))
        per_request_s = np.array([shares @ (busy_s * self.own)])
        most = evidence.most[self.members[:1]]
        return service_factor.work_likelihood(per_request_s, np.array([served.sum()]), most)[0]

    def overload_likelihood(
        self, jobs: tuple[Job, ...], evidence: Evidence, latency_model: LatencyModel
    ) -> np.ndarray:
        """Likelihood (factors,) that services lacked replicas, as they did; 1 if none did."""
        which = self.members[evidence.overloaded[self.members]]
        if not len(which) or self.load <= 0:
            return np.ones(len(FACTORS))
        of_which = [jobs[j] for j in which]
        busy_s = np.array([job.busy_s for job in of_which])
        # `service_factor.likelihood` looks up rate x factor: the pool's load at g times the mean h.
        rate_rps = self.load * self.mean_own / busy_s
        lost_s, replicas = np.full(len(which), np.inf), evidence.most[which]
        return service_factor.likelihood(latency_model, of_which, rate_rps, replicas, lost_s).mean(
            axis=0
        )

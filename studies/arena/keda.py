"""A plugin: KEDA, one ScaledObject per service, with static floors and ceilings.

KEDA hands a metric to an HPA with a target of type AverageValue: desired = ceil(metric /
threshold), no change within a tolerance of 10 %, and the HPA's default behavior. Sources: keda.sh,
"ScaledObject specification" (minReplicaCount, maxReplicaCount) and "Prometheus" (threshold);
kubernetes.io, "Horizontal Pod Autoscaling".

The metric is a service's request rate. The threshold is the rate at which a replica is busy for
80 % of the time, the ceiling is twice an equal share of the cluster, and both floors and ceilings
stay as they were set at the first tick.
"""

from dataclasses import dataclass, replace

import numpy as np

from faro_lib.policies import HPA, Observation, register
from faro_lib.policies.baselines import ReactiveState
from faro_lib.workload import JobArrays
from faro_lib.workload.jobs import MINUTE_S, TOLERANCE

CEILING = 2.0  # times an equal share


def with_ceilings(jobs: JobArrays, observation: Observation) -> JobArrays:
    """The jobs with the ceilings of their ScaledObjects, from the first observation."""
    equal_cores = observation.capacity / len(jobs.cores)
    most = np.floor(CEILING * equal_cores / jobs.cores + TOLERANCE).astype(int)
    return replace(jobs, max_replicas=np.clip(most, jobs.min_replicas, jobs.max_replicas))


@dataclass(frozen=True, slots=True)
class KEDA(HPA):
    """The threshold is `utilisation` / service time, in requests per second and replica."""

    name: str = "KEDA"

    def decide(self, state: ReactiveState, observation: Observation):
        if not state.window:  # the first tick
            state = replace(state, jobs=with_ceilings(state.jobs, observation))
        return HPA.decide(self, state, observation)

    def recommend(
        self, state: ReactiveState, observation: Observation
    ) -> tuple[np.ndarray, np.ndarray]:
        history = observation.arrivals_per_min
        now = observation.target
        rate_rps = history[:, -1] / MINUTE_S if history.shape[1] else np.full(len(now), np.nan)
        known = np.isfinite(rate_rps)
        pods = np.where(known, rate_rps, 0) * state.jobs.busy_s / self.utilisation
        unchanged = ~known | (np.abs(pods / np.maximum(now, 1) - 1) <= self.tolerance)
        wanted = np.where(unchanged, now, np.ceil(pods - TOLERANCE).astype(np.int64))
        return state.within_bounds(wanted), known


register("KEDA")(lambda context: KEDA())

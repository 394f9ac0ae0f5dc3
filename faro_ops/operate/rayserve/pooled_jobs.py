"""The pools among the jobs of a Ray cluster: what is known of their replicas, job by job.

Ray knows a pool as one deployment. Faro counts the replicas at home with each job, which follow
from the wished placement and from the rows that the replicas follow.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from faro_lib.sharing.placement import near_shares
from faro_lib.workload import Job, Placement, Pool, pools_of
from faro_lib.workload.pools import chained
from faro_ops.operate.rayserve.applications import Deployment
from faro_ops.operate.rayserve.coverage import RUNNING
from faro_ops.operate.rayserve.residency import named_rows, placement_of


class PooledJobs:
    """The pools of some jobs, as last read from Ray, and their placements as last wished."""

    def __init__(self, jobs: Sequence[Job]):
        self.units = pools_of(jobs)
        self.shared = tuple(pool for pool in self.units if pool.shared)
        self._names = {pool.name: [jobs[n].name for n in pool.jobs] for pool in self.shared}
        self._known: dict[str, Placement] = {}  # the wished placements, as last read or sent
        self._wishes: dict[str, Placement] = {}  # placements that `place` was called with
        self._homes: dict[str, dict[str, int]] = {}  # pool -> replica -> position of its home
        self.failures: dict[str, str] = {}  # job -> why its model cannot be loaded

    @property
    def placement(self) -> Mapping[str, Placement] | None:
        """The wished placement of each pool; None if none is known."""
        return dict(self._known) or None

    def read(self, answer: Mapping[str, Any]) -> None:
        """Note what the actor `Placements` knows; ValueError if its answer cannot be read."""
        self.failures = {}
        for pool in self.shared:
            names, state = self._names[pool.name], answer.get(pool.name)
            if state is None:
                continue
            try:
                rows = [tuple(row) for row in state["rows"]]
                homes = {
                    name: names.index(one["row"][0])
                    for name, one in state["replicas"].items()
                    if one["row"]
                }
                failures = [one["failures"] for one in state["replicas"].values()]
                self.failures |= {job: str(why) for of in failures for job, why in of.items()}
                placement = placement_of(rows, names) if rows else None
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                problem = f"{type(error).__name__}: {error}"[:100]
                raise ValueError(
                    f"pool {pool.name!r}: its placement cannot be read ({problem})"
                ) from None
            self._homes[pool.name] = homes
            if placement is not None and pool.holds(placement.resident).all():
                self._known[pool.name] = placement

    def divide(
        self,
        deployments: Sequence[Deployment | None],
        target: np.ndarray,
        running: np.ndarray,
        stopping: np.ndarray,
    ) -> None:
        """Divide the replicas of each pool among its jobs, in place; arrays are (jobs,).

        Before, each job of a pool has all replicas of the pool.
        """
        for pool in self.shared:
            members, deployment = list(pool.jobs), deployments[pool.jobs[0]]
            total = int(target[members[0]])
            homes = self._divided(pool, total)
            serving = np.zeros(len(members), np.int64)
            rest = int(running[members[0]])
            if deployment is not None and deployment.replicas:
                at_home = self._homes.get(pool.name, {})
                for name, state in deployment.replicas.items():
                    if state == RUNNING and name in at_home:
                        serving[at_home[name]] += 1
            # Replicas whose homes are not known yet fill what their jobs miss.
            rest -= int(serving.sum())
            for _ in range(max(0, rest)):
                serving[int((homes - serving).argmax())] += 1
            target[members], running[members] = homes, serving
            stopping[members[1:]] = 0  # those of the pool count once

    def _divided(self, pool: Pool, total: int) -> np.ndarray:
        """Replicas at home with each job of the pool, which sum to `total`."""
        jobs = len(pool.jobs)
        known = self._known.get(pool.name)
        if known is None:
            return np.full(jobs, total // jobs) + (np.arange(jobs) < total % jobs)
        homes = known.replicas
        if homes.sum() == total:
            return homes
        return near_shares(homes.astype(float), total, np.zeros(jobs, np.int64), homes)

    def place(self, placement: Mapping[str, Placement]) -> None:
        """Note the placements that the pools should have; ValueError if one is impossible."""
        pools = {pool.name: pool for pool in self.shared}
        for name, wish in placement.items():
            pool = pools.get(name)
            if pool is None:
                known = ", ".join(pools) or "none"
                raise ValueError(f"placement of unknown pool {name!r}; pools of jobs: {known}")
            fits = wish.resident.shape[1] == len(pool.jobs) and pool.holds(wish.resident).all()
            if not fits:
                raise ValueError(f"placement of pool {name!r}: its replicas cannot hold the models")
        self._wishes |= placement

    def wishes(self, target: np.ndarray) -> dict[str, list[list[str]]]:
        """The rows of each pool for targets (jobs,), as the actor `Placements` gets them.

        A pool for which no placement was ever wished keeps the one it has, or gets a chain.
        """
        rows = {}
        for pool in self.shared:
            homes = np.asarray(target)[list(pool.jobs)]
            before = self._wishes.get(pool.name, self._known.get(pool.name))
            wish = chained(pool, homes) if before is None else before.resized(homes)
            rows[pool.name] = [list(row) for row in named_rows(wish, self._names[pool.name])]
            self._known[pool.name] = wish
        return rows

    def sums(self, of_job: np.ndarray) -> np.ndarray:
        """Sum over the jobs of each pool, and of each job alone: (jobs,) -> (units,)."""
        return np.array([of_job[list(unit.jobs)].sum() for unit in self.units])

"""Pools: jobs whose models may share replicas, and which replica holds which models.

A replica of a pool holds the models of one or more of its jobs and serves requests of these jobs
only. Each replica has a home job, whose model it always holds. The replica counts of a job
(targets, minimum, maximum, quota) count the replicas at home with it. A job without a pool has
replicas of its own; it is a pool of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from faro_lib.workload.jobs import Job, frozen
from faro_lib.workload.replicas import Continuous

# Fields of a replica that the jobs of a pool have in common. Batches of each job may have their own
# durations.
OF_REPLICA = ("kind", "at_once", "slowdown", "max_batch", "wait_s")


@dataclass(frozen=True, slots=True)
class Pool:
    """Jobs that share replicas, and what one replica may hold."""

    name: str  # the name of the job, for a pool of one
    jobs: tuple[int, ...]  # positions of the pool's jobs in the workload, ascending
    cores: float  # cores per replica
    cold_start_s: float  # seconds from the request for a replica until it serves
    models: int  # largest number of models in a replica; 1 for a pool of one
    memory_gib: float  # memory of a replica for its models; inf if not stated
    memory_of: tuple[float, ...]  # GiB of each job's model; 0 if not stated
    load_s: tuple[float, ...]  # seconds in which a replica loads each job's model

    @property
    def shared(self) -> bool:
        """Whether several jobs share the replicas."""
        return len(self.jobs) > 1

    def holds(self, resident: np.ndarray) -> np.ndarray:
        """Whether replicas can hold these models: bool (..., jobs of the pool) -> bool (...).

        >>> pool = pools_of([Job(n, pool="p", models_per_replica=2) for n in "abc"])[0]
        >>> pool.holds(np.array([[True, True, False], [True, True, True]])).tolist()
        [True, False]
        """
        few = resident.sum(axis=-1) <= self.models
        return few & (resident @ np.array(self.memory_of) <= self.memory_gib + 1e-9)


@dataclass(frozen=True, slots=True)
class Placement:
    """Which models the replicas of one pool hold. Replicas with the same home stand together.

    Jobs are the pool's, in the order of `Pool.jobs`.
    """

    home: np.ndarray  # (replicas,) position of the home job in the pool, ascending
    resident: np.ndarray  # bool (replicas, jobs of the pool)

    def __post_init__(self):
        home = np.asarray(self.home, np.int64)
        resident = np.asarray(self.resident, bool)
        if resident.ndim != 2 or home.shape != resident.shape[:1]:
            raise ValueError(
                f"home has shape {home.shape} and resident {resident.shape}; "
                "expected (replicas,) and (replicas, jobs)"
            )
        if (np.diff(home) < 0).any():
            raise ValueError("home must be ascending")
        if not resident[np.arange(len(home)), home].all():
            raise ValueError("each replica must hold the model of its home job")
        object.__setattr__(self, "home", frozen(home.copy()))
        object.__setattr__(self, "resident", frozen(resident.copy()))

    @property
    def replicas(self) -> np.ndarray:
        """Replicas at home with each job, (jobs of the pool,)."""
        return np.bincount(self.home, minlength=self.resident.shape[1])

    def resized(self, replicas: np.ndarray) -> "Placement":
        """The placement with other numbers of replicas (jobs of the pool,).

        A job's last replicas go first. More replicas of a job repeat the models of those it has; a
        job that had none gets replicas with its own model only.
        """
        replicas, before = np.asarray(replicas, np.int64), self.replicas
        home = np.repeat(np.arange(len(replicas)), replicas)
        nth = np.arange(len(home)) - np.repeat(replicas.cumsum() - replicas, replicas)
        # Rows of the job's own replicas, or the row with only its model, after all replicas.
        own = (before.cumsum() - before)[home] + nth % np.maximum(before, 1)[home]
        row = np.where(before[home] > 0, own, len(self.home) + home)
        single = np.eye(len(replicas), dtype=bool)
        return Placement(home, np.concatenate([self.resident, single])[row])


def pools_of(jobs: Sequence[Job]) -> tuple[Pool, ...]:
    """The pools of the jobs, in the order of their first jobs; a job alone is a pool of one.

    Raises ValueError if the jobs of a pool disagree about its replicas, or cannot share them.

    >>> a, c = (Job(name, pool="x", models_per_replica=2) for name in "ac")
    >>> tuple(pool.jobs for pool in pools_of([a, Job("b"), c]))
    ((0, 2), (1,))
    """
    # A job alone is found by its position, because measurements may have jobs of the same name.
    members: dict[str | int, list[int]] = {}
    for index, job in enumerate(jobs):
        members.setdefault(job.pool or index, []).append(index)
    return tuple(
        _pool(jobs, jobs[of_pool[0]].pool or jobs[of_pool[0]].name, tuple(of_pool))
        for of_pool in members.values()
    )


def chained(pool: Pool, replicas: np.ndarray) -> Placement:
    """A placement with these replicas at home with each job, (jobs of the pool,).

    Replicas also hold the models of other jobs, as many as fit, and these take turns: the first
    replica of job j holds the next jobs after j, the second one those after them.
    """
    replicas = np.asarray(replicas, np.int64)
    jobs = len(pool.jobs)
    home = np.repeat(np.arange(jobs), replicas)
    resident = home[:, None] == np.arange(jobs)
    step = np.zeros(jobs, np.int64)
    for row, job in enumerate(home):
        for _ in range(jobs - 1):
            other = (job + 1 + step[job] % (jobs - 1)) % jobs
            more = resident[row].copy()
            more[other] = True
            if not pool.holds(more):
                break
            resident[row] = more
            step[job] += 1
    return Placement(home, resident)


def _pool(jobs: Sequence[Job], name: str, members: tuple[int, ...]) -> Pool:
    """The pool of these jobs, checked."""
    of_pool = [jobs[index] for index in members]
    first = of_pool[0]
    if len(of_pool) > 1:
        for job in of_pool:
            _check_same(first, job)
            if isinstance(job.replica, Continuous):
                raise ValueError(
                    f"job {job.name!r}: replicas of kind {job.replica.kind} cannot be shared; "
                    f"leave out pool={name!r}, or use a replica of another kind"
                )
    memory_of = tuple(job.memory_gib or 0.0 for job in of_pool)
    memory_gib = first.replica_memory_gib or np.inf
    for job, memory in zip(of_pool, memory_of):
        if memory > memory_gib:
            raise ValueError(
                f"job {job.name!r}: memory_gib={memory:g} is more than a replica of pool {name!r} "
                f"has, replica_memory_gib={memory_gib:g}"
            )
    models = _models(name, of_pool, memory_of, memory_gib)
    return Pool(
        name=name,
        jobs=members,
        cores=first.cores,
        cold_start_s=first.cold_start_s,
        models=models,
        memory_gib=memory_gib,
        memory_of=memory_of,
        load_s=tuple(job.load_s for job in of_pool),
    )


def _models(name: str, of_pool: list[Job], memory_of: tuple[float, ...], memory_gib: float) -> int:
    """Largest number of models in a replica; ValueError if nothing limits it."""
    most = of_pool[0].models_per_replica
    if len(of_pool) == 1:
        return 1
    if most is None and memory_gib == np.inf:
        raise ValueError(
            f"pool {name!r}: nothing says how many models a replica holds; give "
            "models_per_replica, or memory_gib of the models and replica_memory_gib"
        )
    if memory_gib < np.inf and 0.0 in memory_of:
        unknown = of_pool[memory_of.index(0.0)].name
        raise ValueError(
            f"job {unknown!r}: memory_gib is needed, because pool {name!r} has replica_memory_gib"
        )
    smallest_first = np.cumsum(sorted(memory_of))
    fitting = int((smallest_first <= memory_gib + 1e-9).sum())
    return min(fitting, most or len(of_pool), len(of_pool))


def _check_same(first: Job, job: Job) -> None:
    """Raise ValueError if two jobs of a pool disagree about its replicas, or about who pays."""
    fields = ["cores", "cold_start_s", "models_per_replica", "replica_memory_gib"]
    if first.tenant_quota is not None or job.tenant_quota is not None:
        fields += ["tenant"]
    compared = [(field, getattr(job, field), getattr(first, field)) for field in fields]
    compared += [
        (field, getattr(job.replica, field, None), getattr(first.replica, field, None))
        for field in OF_REPLICA
    ]
    for field, ours, theirs in compared:
        if ours != theirs:
            raise ValueError(
                f"job {job.name!r}: {field}={ours} differs from {theirs}, which job "
                f"{first.name!r} of pool {job.pool!r} has; all jobs of a pool must agree"
            )

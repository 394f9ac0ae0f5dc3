"""Which models the replicas of a pool load and drop, one step at a time. Pure functions.

The rules are those of the simulator (`faro_lib.simulate.pools`). Each replica follows one row of
the wished placement, chosen so that few models must be loaded. It loads one model at a time and
serves meanwhile what it holds. It drops a model only after the load if memory holds both, and never
the last copy of a model that the placement has.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from faro_lib.workload.pools import Placement, Pool, chained

Row = tuple[str, ...]  # the jobs whose models a replica should hold; the first is its home


@dataclass(frozen=True, slots=True)
class Limits:
    """What one replica of a pool can hold. Mappings are by job."""

    models: int
    memory_gib: float
    memory_of: Mapping[str, float]  # GiB
    load_s: Mapping[str, float]

    @classmethod
    def of(cls, pool: Pool, names: Sequence[str]) -> Self:
        """The limits of a pool whose jobs have these names."""
        memory_of, load_s = dict(zip(names, pool.memory_of)), dict(zip(names, pool.load_s))
        return cls(pool.models, pool.memory_gib, memory_of, load_s)

    def fits_during_load(self, models: Collection[str]) -> bool:
        """Whether a replica can have these models while it loads one of them.

        That is one model more than it may hold otherwise, if memory allows.
        """
        used_gib = sum(self.memory_of.get(job, 0.0) for job in models)
        return len(models) <= self.models + 1 and used_gib <= self.memory_gib + 1e-9


@dataclass(frozen=True, slots=True)
class Held:
    """The models of one replica."""

    holds: frozenset[str]
    loading: str = ""  # the job whose model it loads now
    failed: frozenset[str] = frozenset()  # jobs whose models could not be loaded lately


@dataclass(frozen=True, slots=True)
class ModelStep:
    """What a replica should do now: drop these models, then load one."""

    drop: tuple[str, ...] = ()
    load: str = ""


def first_rows(pool: Pool, names: Sequence[str], replicas: int) -> tuple[Row, ...]:
    """Rows for replicas of which no placement is known yet: equal shares, in a chain.

    >>> from faro_lib.workload import Job, pools_of
    >>> pool = pools_of([Job(n, pool="p", models_per_replica=2) for n in "abc"])[0]
    >>> first_rows(pool, "abc", 3)
    (('a', 'b'), ('b', 'c'), ('c', 'a'))
    """
    jobs = len(pool.jobs)
    shares = np.full(jobs, replicas // jobs) + (np.arange(jobs) < replicas % jobs)
    return named_rows(chained(pool, shares), names)


def named_rows(placement: Placement, names: Sequence[str]) -> tuple[Row, ...]:
    """The rows of a placement, with the names of the pool's jobs; homes first."""
    rows = []
    for home, resident in zip(placement.home.tolist(), placement.resident):
        others = [names[job] for job in np.flatnonzero(resident).tolist() if job != home]
        rows.append((names[home], *others))
    return tuple(rows)


def placement_of(rows: Sequence[Row], names: Sequence[str]) -> Placement:
    """The placement of rows; ValueError if a row is empty or names a job that is not in `names`.

    >>> placement_of([("b", "a"), ("a",)], "ab").resident.tolist()
    [[True, False], [True, True]]
    """
    index = {name: n for n, name in enumerate(names)}
    for row in rows:
        unknown = [job for job in row if job not in index]
        if not row or unknown:
            raise ValueError(f"row {list(row)} must name jobs of {', '.join(names)}")
    ordered = sorted(rows, key=lambda row: index[row[0]])
    resident = np.zeros((len(ordered), len(names)), bool)
    for n, row in enumerate(ordered):
        resident[n, [index[job] for job in row]] = True
    return Placement(np.array([index[row[0]] for row in ordered], np.int64), resident)


def assigned_rows(
    rows: Sequence[Row],
    replicas: Mapping[str, Held],
    followed: Mapping[str, Row],
    load_s: Mapping[str, float],
) -> dict[str, Row]:
    """The row that each replica follows: those with the least to load.

    Of equal choices, replicas keep their rows and their homes. If there are more replicas than
    rows, the rest follows none. `followed` has the row that each replica followed before.
    """
    from scipy.optimize import linear_sum_assignment

    names = sorted(replicas)
    cost = np.zeros((len(names), len(rows)))
    for n, name in enumerate(names):
        has = replicas[name].holds | {replicas[name].loading}
        before = followed.get(name, ("",))
        for m, row in enumerate(rows):
            missing_s = sum(load_s.get(job, 0.0) + 1e-3 for job in row if job not in has)
            moves = (row != before) + 10 * (row[0] != before[0])
            cost[n, m] = missing_s + 1e-6 * moves
    chosen = zip(*linear_sum_assignment(cost))
    return {names[n]: tuple(rows[m]) for n, m in chosen}


def next_step(
    name: str,
    rows: Collection[Row],
    row: Row,
    replicas: Mapping[str, Held],
    limits: Limits,
    settled: bool = True,
) -> ModelStep:
    """What the replica `name` should do next to hold the models of `row`.

    settled : whether replicas and rows have been the same for a while. Before that, no model is
        dropped, because its other copy may be in a replica that ends.
    """
    own = replicas[name]
    if own.loading:
        return ModelStep()
    copies = [job for one in replicas.values() for job in one.holds]
    wished = {job for one in rows for job in one}
    surplus = [
        job
        for job in sorted(own.holds)
        if job not in row and (copies.count(job) > 1 or job not in wished)
    ]
    missing = [job for job in row if job not in own.holds]
    possible = [job for job in missing if job not in own.failed]
    if not missing:
        return ModelStep(drop=tuple(surplus) if settled else ())
    if not possible and not own.holds:
        # Rather any model of the pool than none, the one with the fewest copies.
        possible = sorted(wished - own.failed, key=lambda job: (copies.count(job), job))
    if not possible:
        return ModelStep()  # it keeps what it holds until the load is tried again
    load, gone = possible[0], []
    during = {*own.holds, load}
    while not limits.fits_during_load(during) and surplus:
        gone.append(surplus.pop(0))
        during.discard(gone[-1])
    if limits.fits_during_load(during) and (settled or not gone):
        return ModelStep(tuple(gone), load)
    return ModelStep()

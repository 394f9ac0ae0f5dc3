"""Which models the replicas of a pool load and drop, by the names of its jobs. Pure functions.

The rules are those of `faro_lib.workload.residency`, as in the simulator.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from faro_lib.workload.pools import Placement, Pool, chained
from faro_lib.workload.residency import next_change, rows_to_follow

Row = tuple[str, ...]  # the jobs whose models a replica should hold; the first is its home


@dataclass(frozen=True, slots=True)
class PoolJobs:
    """A pool and the names of its jobs, in the order of `pool.jobs`."""

    pool: Pool
    names: tuple[str, ...]

    def mask(self, jobs: Collection[str]) -> np.ndarray:
        """Whether each job of the pool is among `jobs`, bool (jobs of the pool,)."""
        return np.array([name in jobs for name in self.names])


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
    of: PoolJobs, rows: Sequence[Row], replicas: Mapping[str, Held], followed: Mapping[str, Row]
) -> dict[str, Row]:
    """The row that each replica follows: those with the least to load.

    Of equal choices, replicas keep their homes and their rows, because rows are told apart here by
    what they hold only. If there are more replicas than rows, the rest follows none. `followed` has
    the row that each replica followed before.
    """
    names = sorted(replicas)
    # A model that is being loaded counts as held, because replicas do not report since when.
    holds = np.array([of.mask(replicas[name].holds | {replicas[name].loading}) for name in names])
    before = [followed.get(name, ("",)) for name in names]
    moves = [[(row != old) + 10 * (row[0] != old[0]) for row in rows] for old in before]
    wished = np.array([of.mask(row) for row in rows])
    left_s = np.tile(np.array(of.pool.load_s), (len(names), 1))
    chosen = zip(*rows_to_follow(holds, left_s, wished, np.array(moves)))
    return {names[n]: tuple(rows[m]) for n, m in chosen}


def next_step(
    of: PoolJobs,
    name: str,
    rows: Collection[Row],
    row: Row,
    replicas: Mapping[str, Held],
    settled: bool = True,
) -> ModelStep:
    """What the replica `name` should do next to hold the models of `row`.

    settled : whether replicas and rows have been the same for a while. Before that, no model is
        dropped, because its other copy may be in a replica that ends.
    """
    own = replicas[name]
    if own.loading:
        return ModelStep()
    others = [one.holds for other, one in replicas.items() if other != name]
    change = next_change(
        of.pool,
        replica=0,
        holds=np.array([of.mask(holds) for holds in (own.holds, *others)]),
        row=0,
        home=of.names.index(row[0]),
        wished=np.array([of.mask(one) for one in (row, *rows)]),
        failed=of.mask(own.failed),
    )
    if change.drop and not settled:
        return ModelStep()
    load = "" if change.load is None else of.names[change.load]
    return ModelStep(tuple(of.names[job] for job in change.drop), load)

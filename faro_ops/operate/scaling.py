"""Scale the jobs of a real cluster without exceeding its capacity, even if some calls fail."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from faro_lib.workload.jobs import TOLERANCE

NOT_LEADER = "another controller may act now; this one makes no further changes"
MayAct = Callable[
    [], bool
]  # whether this controller is still the leader; called before each API call


class NotScaled(OSError):
    """Some jobs could not be scaled.

    failed : numbers of these jobs. A change of another job's target is another client's.
    """

    def __init__(self, text: str, failed: np.ndarray):
        super().__init__(text)
        self.failed = tuple(failed.tolist())


def scale_jobs(
    names: Sequence[str],
    target: np.ndarray,
    current: np.ndarray,
    cores: np.ndarray,
    capacity: float,
    scale: Callable[[int, int], None],
    each: Callable[..., Any] = map,
) -> list[str]:
    """Scale the jobs from `current` to `target`, shrinking jobs first; return the errors.

    `current` is updated in place, and differs from `target` for the jobs that failed. If a job
    fails to shrink, the other jobs still shrink, but no job grows into the cores that were not
    freed. Arrays are (jobs,). `cores` is per replica, and
    `capacity` is in cores. `scale(job index, replicas)` scales one job, and raises OSError or
    ValueError if it fails. `each` is `map`, or the `map` of an executor for parallel calls.
    """

    def attempt(job: int) -> str | None:
        try:
            scale(int(job), int(target[job]))
        except (OSError, ValueError) as error:
            return f"{names[job]} is not scaled to {target[job]}: {error}"
        current[job] = target[job]
        return None

    errors = [*each(attempt, np.flatnonzero(target < current))]
    grows = growth(target, current, cores, capacity)
    for job in np.flatnonzero((target > current) & ~grows).tolist():
        errors.append(f"{names[job]} does not grow to {target[job]}: others have not shrunk")
    errors += each(attempt, np.flatnonzero(grows))
    return [error for error in errors if error]


def summary(errors: list[str]) -> str:
    """The first error and the number of others, as one line."""
    return errors[0] + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else "")


def growth(
    target: np.ndarray, current: np.ndarray, cores: np.ndarray, capacity: float = 0.0
) -> np.ndarray:
    """Whether each job may grow to its target while others have not yet shrunk, bool (jobs,).

    All jobs together may use `capacity` or the cores of all targets, whichever is more. Earlier
    jobs have priority.

    >>> growth(np.array([4, 1]), np.array([2, 3]), np.ones(2)).tolist()
    [False, False]
    """
    limit, used = max(float(target @ cores), capacity), float(current @ cores)
    grows = np.zeros(len(target), bool)
    for job in np.flatnonzero(target > current):
        more = float(target[job] - current[job]) * cores[job]
        if used + more <= limit + TOLERANCE:
            grows[job], used = True, used + more
    return grows

"""Objectives: a sum over jobs, perhaps with a penalty on the spread of utilities, or leximin."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from faro_lib.registry import Registry
from faro_lib.utility import UtilityTable

# Sums of multiples of 2^-30 are exact in float64 up to 4 million, so a sum does not depend on the
# order of the jobs.
QUANTUM = 2.0**-30


def quantised(values) -> np.ndarray:
    """The values, rounded to the nearest multiple of 2^-30 (about 1e-9)."""
    return np.round(np.asarray(values, float) / QUANTUM) * QUANTUM


@dataclass(frozen=True, slots=True)
class Objective:
    """What a solver maximises for utilities U and weights w.

    This is the sum of term(U, w) + gamma (min U - max U), or leximin.
    """

    name: str
    # (utility, weight) -> a job's contribution; the arguments broadcast.
    term: Callable = np.multiply
    # Number of jobs -> default gamma. None: no penalty, gamma = 0.
    spread: Callable[[int], float] | None = None
    # Raise the least utility first, then the second least, ...; ignores `term` and `spread`.
    leximin: bool = False
    # Use `UtilityTable.effective`, which includes the drop penalty; needs a table with drops.
    effective: bool = False

    def utilities(self, table: UtilityTable) -> np.ndarray:
        """The table's utilities that this objective uses, (jobs, X + 1)."""
        return table.effective if self.effective else table.value

    def gamma(self, jobs: int, gamma: float | None = None) -> float:
        """Weight of the spread penalty; `gamma`, if given, replaces the default for `jobs` jobs."""
        if self.spread is None:
            return 0.0
        return float(self.spread(jobs) if gamma is None else gamma)

    def terms(self, utility: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Each job's rounded `term(utility, weight)`, or -inf where the utility is -inf."""
        infeasible = np.isneginf(utility)
        terms = self.term(np.where(infeasible, 0, utility), weight)
        return np.where(infeasible, -np.inf, quantised(terms))

    def score(
        self, utility, weight, gamma: float | None = None, *, least=None, greatest=None
    ) -> np.ndarray:
        """The objective's value for utilities (..., rows); for leximin, the least one. Shape (...).

        `least` and `greatest` are the utilities of each row's worst and best job; None: every row
        is one job. The value is -inf if any utility is -inf.
        """
        utility = np.asarray(utility, float)
        infeasible = np.isneginf(utility).any(axis=-1)
        utility = quantised(np.where(infeasible[..., None], 0.0, utility))
        low = (utility if least is None else quantised(least)).min(axis=-1)
        high = (utility if greatest is None else quantised(greatest)).max(axis=-1)
        value = low
        if not self.leximin:
            spread = np.where(infeasible, 0.0, low) - np.where(infeasible, 0.0, high)
            penalty = quantised(self.gamma(utility.shape[-1], gamma) * spread)
            value = self.terms(utility, np.asarray(weight, float)).sum(axis=-1) + penalty
        return np.where(infeasible, -np.inf, value)[()]  # a number for one choice

    def scores_after(self, now, moved, weight, gamma: float | None = None) -> np.ndarray:
        """Scores (rows,): entry j is the `score` if only row j changes, from `now` to `moved`.

        `now` and `moved` are the rows' utilities, and those of their worst and best jobs, each
        (rows,) and finite. For single jobs, the three are equal.
        """
        utility, least, greatest = (quantised(values) for values in now)
        moved, moved_least, moved_greatest = (quantised(values) for values in moved)
        low = np.minimum(least_of_others(least), moved_least)
        high = np.maximum(-least_of_others(-greatest), moved_greatest)
        if self.leximin:
            return low
        terms = self.terms(utility, weight)
        total = terms.sum() - terms + self.terms(moved, weight)
        return total + quantised(self.gamma(len(utility), gamma) * (low - high))


def least_of_others(values: np.ndarray) -> np.ndarray:
    """For each value, the least of the other values, or inf if there is only one value."""
    first, second = np.partition(np.append(values, np.inf), 1)[:2]
    return np.where(values == first, second, first)


OBJECTIVES: Registry[Objective] = Registry("objective")


def register_objective(objective: Objective) -> Objective:
    """Register an objective under its name, for `solve` and for the policy "Faro-<name>"."""
    return OBJECTIVES.enter(objective.name, objective)


def objective_of(objective: str | Objective) -> Objective:
    """The objective of this name; an `Objective` itself."""
    return objective if isinstance(objective, Objective) else OBJECTIVES.find(objective)


def _weighted_log(utility, weight):
    return weight * np.log(np.maximum(utility, 1e-3))


register_objective(Objective("Sum"))
register_objective(Objective("Fair", leximin=True))
register_objective(Objective("FairSum", spread=float))
register_objective(Objective("PenaltySum", effective=True))
register_objective(Objective("PenaltyFairSum", spread=float, effective=True))
register_objective(Objective("ProportionalFair", term=_weighted_log))

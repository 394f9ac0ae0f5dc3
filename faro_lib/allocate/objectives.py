"""Objectives: a sum over jobs, optionally with a penalty on the spread of their utilities, or leximin."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from faro_lib.registry import Registry
from faro_lib.utility import UtilityTable

# Sums of multiples of 2^-30 are exact in float64 up to 4 million, so a sum does not depend on the order of the jobs.
QUANTUM = 2.0**-30


def quantised(values) -> np.ndarray:
    """The values, rounded to the nearest multiple of 2^-30 (about 1e-9)."""
    return np.round(np.asarray(values, float) / QUANTUM) * QUANTUM


@dataclass(frozen=True, slots=True)
class Objective:
    """What a solver maximises for utilities U and weights w: sum of term(U, w) + gamma (min U - max U), or leximin."""

    name: str
    term: Callable = np.multiply  # (utility, weight) -> a job's contribution; arguments broadcast
    spread: Callable[[int], float] | None = (
        None  # number of jobs -> default gamma; None: no penalty, gamma = 0
    )
    leximin: bool = False  # raise the least utility first, then the second least, ...; ignores `term` and `spread`
    effective: bool = False  # use `UtilityTable.effective`, which includes the drop penalty; needs a table with drops

    def utilities(self, table: UtilityTable) -> np.ndarray:
        """The table's utilities that this objective uses, shape (jobs, columns). Column x is for x replicas."""
        return table.effective if self.effective else table.value

    def gamma(self, jobs: int, gamma: float | None = None) -> float:
        """Weight of the spread penalty: 0 without a penalty, else `gamma`. None selects the default for `jobs` jobs."""
        if self.spread is None:
            return 0.0
        return float(self.spread(jobs) if gamma is None else gamma)

    def terms(self, utility: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Each job's rounded `term(utility, weight)`, or -inf where the utility is -inf. The arguments broadcast."""
        infeasible = np.isneginf(utility)
        return np.where(
            infeasible, -np.inf, quantised(self.term(np.where(infeasible, 0, utility), weight))
        )

    def score(self, utility, weight, gamma: float | None = None) -> float:
        """The objective's value for arrays (jobs,), or the least utility for leximin; -inf if any utility is -inf."""
        utility = np.asarray(utility, float)
        if np.isneginf(utility).any():
            return -np.inf
        utility = quantised(utility)
        if self.leximin:
            return float(utility.min())
        total = float(self.terms(utility, np.asarray(weight, float)).sum())
        return total + float(
            quantised(self.gamma(len(utility), gamma) * (utility.min() - utility.max()))
        )

    def scores_after(self, utility, moved, weight, gamma: float | None = None) -> np.ndarray:
        """Scores (jobs,): entry j is the `score` if only `utility[j]` changes, to `moved[j]`. Utilities are finite."""
        low, high = least_of_others(utility), -least_of_others(-utility)
        low, high = (
            np.minimum(quantised(low), quantised(moved)),
            np.maximum(quantised(high), quantised(moved)),
        )
        if self.leximin:
            return low
        terms = self.terms(quantised(utility), weight)
        total = terms.sum() - terms + self.terms(quantised(moved), weight)
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
    return objective if isinstance(objective, Objective) else OBJECTIVES.find(objective)


for _objective in (
    Objective("Sum"),
    Objective("Fair", leximin=True),
    Objective("FairSum", spread=float),
    Objective("PenaltySum", effective=True),
    Objective("PenaltyFairSum", spread=float, effective=True),
    Objective(
        "ProportionalFair", term=lambda utility, weight: weight * np.log(np.maximum(utility, 1e-3))
    ),
):
    register_objective(_objective)

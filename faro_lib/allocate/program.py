"""Allocation as an integer program, solved by HiGHS; `leximin` breaks ties with it."""

from collections.abc import Sequence

import numpy as np

from faro_lib.allocate.problem import Problem

Count = tuple[np.ndarray, int]  # (mask (jobs, X + 1), largest number of jobs whose replica count may be in the mask)


def least_loss(
    problem: Problem, allowed: np.ndarray, loss: np.ndarray, counts: Sequence[Count] = (), time_limit_s: float = 600.0
) -> np.ndarray | None:
    """Replicas (jobs,) with the least sum of `loss` among the `allowed` columns, both (jobs, X + 1); None if nothing fits.

    `counts` limits how many jobs may use given columns. After `time_limit_s`, returns the best replicas found, or None.
    """
    from scipy.optimize import LinearConstraint, milp
    from scipy.sparse import coo_array, csr_array, vstack

    jobs, columns = np.nonzero(allowed)
    n = len(jobs)
    rows = [problem.costs[allowed]]
    rows += [np.where(problem.group[jobs] == g, rows[0], 0) for g in range(len(problem.quota)) if problem.has_quotas]
    rows += [of[allowed].astype(float) for of, _ in counts]
    upper = [problem.budget, *(problem.quota if problem.has_quotas else ()), *(number for _, number in counts)]
    one_each = coo_array((np.ones(n), (jobs, np.arange(n))), shape=(len(allowed), n))
    matrix = vstack([one_each, csr_array(np.array(rows, float))], format="csc")
    ones = np.ones(len(allowed))
    limits = LinearConstraint(matrix, np.append(ones, np.full(len(rows), -np.inf)), np.append(ones, upper))
    answer = milp(
        loss[allowed], integrality=np.ones(n), bounds=(0, 1), constraints=limits,
        options={"mip_rel_gap": 0.0, "time_limit": time_limit_s},
    )  # fmt: skip
    if answer.x is None:
        return None
    replicas = np.zeros(len(allowed), np.int64)
    replicas[jobs[answer.x > 0.5]] = columns[answer.x > 0.5]
    return replicas

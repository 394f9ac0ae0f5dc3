"""Compare solvers, and precise with relaxed utilities, on decisions of training days."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

import studies.paper.reference  # noqa: F401, registers milp and convex
from faro_lib import forecast
from faro_lib.allocate import Allocation
from faro_lib.allocate.objectives import objective_of
from faro_lib.allocate.solve import solve
from faro_lib.forecast import HORIZON_MINUTES
from faro_lib.utility import DROPS, UtilityTable, build_table
from faro_lib.workload.jobs import MINUTE_S, Job, Traces
from studies.paper.continuous import METHODS
from studies.paper.hierarchical import solve_hierarchical

FORMULATIONS = ("relaxed", "precise")
REPLICAS_PER_JOB = 3.2  # capacity per job in `compare_scales`
# Columns of sloppify/solvers.csv.
COLUMNS = (
    "objective",
    "formulation",
    "solver",
    "jobs",
    "capacity_cores",
    "window",
    "value",
    "optimum",
    "gap_per_job",
    "seconds",
    "table_seconds",
)


@dataclass(frozen=True, slots=True)
class DecisionWindow:
    """The inputs of one decision, and the actual rates after it."""

    name: str
    jobs: tuple[Job, ...]
    rates_rps: np.ndarray  # forecast sample paths of the next minutes, (jobs, samples, minutes)
    truth_rps: np.ndarray  # actual rates in these minutes, (jobs, minutes)
    running: np.ndarray  # replicas at the time of the decision, (jobs,)

    def table(
        self, budget: int, objective: str, formulation: str, *, truth: bool = False
    ) -> UtilityTable:
        """The utility table for the forecast or, if `truth`, the actual rates.

        It has drops if the objective uses them.
        """
        rates_rps = self.truth_rps[:, None] if truth else self.rates_rps
        drops = DROPS if objective_of(objective).effective else None
        return build_table(
            self.jobs,
            rates_rps,
            self.running,
            utility=formulation,
            drops=drops,
            max_replicas=int(budget),
        )


def decision_windows(
    traces: Traces,
    budget: int,
    *,
    days: Sequence[int],
    count: int,
    forecaster: str = "ar",
    samples: int = 100,
) -> list[DecisionWindow]:
    """The inputs of `count` decisions on the training days `days`.

    The forecaster is fitted to the days before these. The running replicas are those that are
    optimal for the five minutes before the decision.
    """
    days = sorted(days)
    fitted = forecast.fit(forecaster, traces.until(days[0]))
    total = traces.train.shape[-1]
    per_day = int(np.ceil(count / len(days)))
    moments = np.linspace(forecast.CONTEXT_MINUTES, total - HORIZON_MINUTES, per_day)
    moments = np.unique(moments.round().astype(int))
    windows: list[DecisionWindow] = []
    for day in days:
        counts = traces.train[day - 1, 0]  # (jobs, minutes)
        state = fitted.start()
        for minute in range(total):
            if minute in moments and len(windows) < count:
                past = counts[:, None, minute - 5 : minute] / MINUTE_S
                none = np.zeros(len(traces.jobs))
                before = build_table(traces.jobs, past, none, cold_start_minutes=0)
                windows.append(
                    DecisionWindow(
                        f"day {day}, minute {minute}",
                        traces.jobs,
                        rates_rps=state.sample(HORIZON_MINUTES, samples) / MINUTE_S,
                        truth_rps=counts[:, minute : minute + HORIZON_MINUTES] / MINUTE_S,
                        running=solve(before, budget).replicas,
                    )
                )
            state = state.update(counts[:, minute])
    return windows


def larger_window(window: DecisionWindow, jobs: int) -> DecisionWindow:
    """Draw `jobs` jobs with replacement, and scale each job's rates by a factor from 0.5 to 1.5.

    All jobs have one core per replica, no quota and a minimum of 0 or 1 replicas, which
    REPLICAS_PER_JOB always covers.
    """
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(window.jobs), size=jobs)
    scale = rng.uniform(0.5, 1.5, jobs)
    same = {"cores": 1.0, "tenant": "", "tenant_quota": None}
    copies = []
    for n, job in enumerate(window.jobs[j] for j in drawn):
        least = min(job.min_replicas, 1)
        copies.append(replace(job, name=f"job {n:05d}", min_replicas=least, **same))
    return DecisionWindow(
        window.name,
        tuple(copies),
        window.rates_rps[drawn] * scale[:, None, None],
        window.truth_rps[drawn] * scale[:, None],
        window.running[drawn],
    )


def compare_solvers(
    windows: Sequence[DecisionWindow],
    budgets: Iterable[int],
    objectives: Iterable[str],
    solvers: Iterable[str],
    *,
    slow: Iterable[str] = (),
    slow_windows: int = 3,
) -> pd.DataFrame:
    """Solve every window with every solver: a data frame with COLUMNS, one row per solution.

    `seconds` and `table_seconds` are the CPU times of solving and of building the table. Solvers in
    `slow` solve only the first `slow_windows` windows.
    """
    rows = []
    cases = product(budgets, list(enumerate(windows)), list(objectives), FORMULATIONS)
    for budget, (n, window), objective, formulation in cases:
        table, table_s = _timed(window.table, budget, objective, formulation)
        optimum = solve(table, budget, objective).value
        for solver in (*solvers, *(slow if n < slow_windows else ())):
            answer, seconds = _timed(_solve, table, budget, objective, solver, formulation)
            about = (objective, formulation, solver, len(window.jobs), budget, window.name)
            gap = _gap_per_job(optimum, answer, len(window.jobs))
            rows.append((*about, answer.value, optimum, gap, seconds, table_s))
    return pd.DataFrame(rows, columns=COLUMNS)


def score_formulations(
    windows: Iterable[DecisionWindow],
    budgets: Iterable[int],
    objectives: Sequence[str],
    solvers: Sequence[str],
) -> pd.DataFrame:
    """Solve with precise and with relaxed utilities, and score each solution by both kinds.

    `objectives` must not use drops. The result has the columns objective, formulation, solver,
    capacity_cores, window, scored_by (a formulation), expected and realised. The last two are mean
    utilities over jobs and minutes, under the forecast and under the actual rates.
    """
    rows = []
    for budget, window in product(budgets, list(windows)):
        tables = {
            (scored_by, truth): window.table(budget, "Sum", scored_by, truth=truth)
            for scored_by, truth in product(FORMULATIONS, (False, True))
        }
        for objective, formulation in product(objectives, FORMULATIONS):
            table = window.table(budget, objective, formulation)
            for solver in solvers:
                replicas = _solve(table, budget, objective, solver, formulation).replicas
                for scored_by in FORMULATIONS:
                    expected = _mean_value(tables[scored_by, False], replicas)
                    realised = _mean_value(tables[scored_by, True], replicas)
                    about = (objective, formulation, solver, budget, window.name, scored_by)
                    rows.append((*about, expected, realised))
    key = ("objective", "formulation", "solver", "capacity_cores", "window", "scored_by")
    return pd.DataFrame(rows, columns=(*key, "expected", "realised"))


def compare_scales(
    window: DecisionWindow, counts: Iterable[int], *, groups: int = 10, cobyla_up_to: int = 20
) -> pd.DataFrame:
    """Solve the relaxed Sum exactly and by COBYLA for each number of jobs.

    Both solve all jobs at once and hierarchically, in `groups` groups. The result has the columns
    COLUMNS. `seconds` is the CPU time of a decision, including its tables. Queueing curves are
    cached, as in a running controller. COBYLA gets at most `cobyla_up_to` jobs at once, and
    `groups` times as many hierarchically.
    """
    rows = []
    for count in counts:
        large = larger_window(window, count)
        budget = int(REPLICAS_PER_JOB * count)
        cases = [("exact", None), ("exact", groups)]
        if count <= cobyla_up_to:
            cases.append(("cobyla", None))
        if count <= groups * cobyla_up_to:
            cases.append(("cobyla", groups))
        optimum = _decide(large, budget, "exact").value
        for case in cases:
            if case[0] == "exact":
                _decide(large, budget, *case)  # compile and fill the caches before timing
            answer, seconds = _timed(_decide, large, budget, *case)
            about = ("Sum", "relaxed", answer.solver, count, budget, large.name)
            gap = _gap_per_job(optimum, answer, count)
            rows.append((*about, answer.value, optimum, gap, seconds, 0.0))
    return pd.DataFrame(rows, columns=COLUMNS)


def _decide(
    window: DecisionWindow, budget: int, solver: str, groups: int | None = None
) -> Allocation:
    """Build the table and solve the relaxed Sum, all jobs at once or in `groups` groups."""
    if groups is None:
        return solve(window.table(budget, "Sum", "relaxed"), budget, "Sum", solver)
    groups = min(len(window.jobs), groups)
    return solve_hierarchical(
        window.jobs, window.rates_rps, window.running, budget, groups=groups, solver=solver
    )


def _solve(
    table: UtilityTable, budget: int, objective: str, solver: str, formulation: str
) -> Allocation:
    """Solve the table.

    As in the paper, continuous methods treat precise utilities as steps between replica counts.
    """
    options = {"plateau": True} if solver in METHODS and formulation == "precise" else {}
    return solve(table, budget, objective, solver, **options)


def _mean_value(table: UtilityTable, replicas: np.ndarray) -> float:
    """Mean utility over jobs.

    A replica count beyond the table's largest has the utility of the largest.
    """
    return table.value[np.arange(len(replicas)), np.minimum(replicas, table.columns)].mean()


def _gap_per_job(optimum: float, answer: Allocation, jobs: int) -> float:
    """Objective below the optimum, per job.

    It is not relative to the optimum, which is near zero in some decisions for Fair and FairSum.
    """
    return (optimum - answer.value) / jobs


def _timed(action: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """The result of `action(*arguments)` and its CPU seconds."""
    started = time.process_time()
    result = action(*arguments)
    return result, time.process_time() - started

"""Real decisions, asked again: the inputs of decisions on given days, and every solver's answer to them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from faro_lib import forecast
from faro_lib.allocate.continuous import METHODS
from faro_lib.allocate.hierarchical import solve_hierarchical
from faro_lib.allocate.objectives import objective_of
from faro_lib.allocate.solve import solve
from faro_lib.allocate.spare import shrink, spread_spare
from faro_lib.forecast import HORIZON_MINUTES
from faro_lib.utility import DROPS, build_table
from faro_lib.workload.jobs import MINUTE_S, Job, Traces

# Of sloppify/solvers.csv.
COLUMNS = (
    "objective", "formulation", "solver", "jobs", "capacity_cores", "window", "value", "optimum", "gap", "seconds",
    "table_seconds",
)  # fmt: skip
SPARE = ("capacity_cores", "window", "spare", "replicas_used", "realised")
SCORED = ("objective", "formulation", "solver", "capacity_cores", "window", "scored_by", "expected", "realised")


@dataclass(frozen=True, slots=True)
class Window:
    """What a decision knows, and what came then.

    Attributes
    ----------
    rates_rps : sample paths of the next minutes, shape (jobs, samples, minutes).
    truth_rps : what was asked then, shape (jobs, minutes).
    running : replicas that serve at this moment, shape (jobs,).
    """

    name: str
    jobs: tuple[Job, ...]
    rates_rps: np.ndarray
    truth_rps: np.ndarray
    running: np.ndarray


def decision_windows(
    traces: Traces,
    budget,
    *,
    days,
    count: int,
    forecaster: str = "ar",
    samples: int = 100,
    sample: int = 0,
    seed: int = 0,
) -> list[Window]:
    """`count` moments spread evenly over training days `days`, forecast by what was learnt on the days before them.

    Running is the optimum for the five minutes before, as if the last decision had been right.
    """
    days = sorted(days)
    fitted = forecast.fit(forecaster, traces.until(days[0]), seed=seed)
    total = traces.train.shape[-1]
    per_day = int(np.ceil(count / len(days)))
    moments = np.unique(np.linspace(forecast.CONTEXT_MINUTES, total - HORIZON_MINUTES, per_day).round().astype(int))
    windows: list[Window] = []
    for day in days:
        counts = traces.train[day - 1, sample]
        state = fitted.start()
        for minute in range(total):
            if minute in moments and len(windows) < count:
                past = counts[:, None, minute - 5 : minute] / MINUTE_S
                before = build_table(traces.jobs, past, np.zeros(len(traces.jobs)), cold_start_minutes=0)
                windows.append(
                    Window(
                        f"day {day}, minute {minute}",
                        traces.jobs,
                        state.sample(HORIZON_MINUTES, samples) / MINUTE_S,
                        counts[:, minute : minute + HORIZON_MINUTES] / MINUTE_S,
                        solve(before, budget).replicas,
                    )
                )
            state = state.update(counts[:, minute])
    return windows


def enlarged(window: Window, jobs: int, *, seed: int = 0) -> Window:
    """As many `jobs` as wanted, each one of the window's with its rates scaled by 0.5 to 1.5."""
    rng = np.random.default_rng(seed)
    chosen, scale = rng.integers(len(window.jobs), size=jobs), rng.uniform(0.5, 1.5, jobs)
    return Window(
        window.name,
        tuple(replace(window.jobs[j], name=f"job {i:05d}") for i, j in enumerate(chosen)),
        window.rates_rps[chosen] * scale[:, None, None],
        window.truth_rps[chosen] * scale[:, None],
        window.running[chosen],
    )


def table_of(window: Window, budget, objective, formulation, *, latency_model="half-mmc", truth=False):
    """The window's table: formulation "relaxed" or "precise", with drops if the objective asks for them."""
    return build_table(
        window.jobs, window.truth_rps[:, None] if truth else window.rates_rps, window.running, latency_model=latency_model,
        utility=formulation, drops=DROPS if objective_of(objective).effective else None, max_replicas=int(budget),
    )  # fmt: skip


def compare_solvers(windows, budgets, objectives, solvers, *, slow=(), slow_windows: int = 3, latency_model="half-mmc"):
    """Every solver on the same tables: a data frame with one row an answer, as in sloppify/solvers.csv.

    Columns objective, formulation, solver, jobs, replicas, window, value, optimum, gap, seconds, and table_seconds, the
    time to build the table. Solvers in `slow` see only `slow_windows` of the windows.
    """
    import pandas as pd

    rows = []
    for budget in budgets:
        for i, window in enumerate(windows):
            for objective in objectives:
                for formulation in ("relaxed", "precise"):
                    started = time.process_time()
                    table = table_of(window, budget, objective, formulation, latency_model=latency_model)
                    table_seconds = time.process_time() - started
                    best = solve(table, budget, objective).value
                    for solver in (*solvers, *(slow if i < slow_windows else ())):
                        options = {"plateau": True} if solver in METHODS and formulation == "precise" else {}
                        started = time.process_time()
                        found = solve(table, budget, objective, solver, **options)
                        seconds = time.process_time() - started
                        gap = (best - found.value) / max(abs(best), 1e-9)
                        about = (objective, formulation, solver, len(window.jobs), budget, window.name)
                        rows.append((*about, found.value, best, gap, seconds, table_seconds))
    return pd.DataFrame(rows, columns=COLUMNS)


def score_formulations(windows, budgets, objectives, solvers, *, latency_model="half-mmc"):
    """Decide on one formulation, be scored on both, as expected and as it came: one row a decision and judge.

    Columns objective, formulation, solver, replicas, window, judge (relaxed, precise), expected, realised: mean utility
    over jobs and minutes, under the forecast and under the true rates. Objectives without drops only.
    """
    import pandas as pd

    rows = []
    for budget in budgets:
        for window in windows:
            jobs = np.arange(len(window.jobs))
            judges = {
                (judge, truth): table_of(window, budget, "Sum", judge, latency_model=latency_model, truth=truth).value
                for judge in ("relaxed", "precise")
                for truth in (False, True)
            }
            for objective in objectives:
                for formulation in ("relaxed", "precise"):
                    table = table_of(window, budget, objective, formulation, latency_model=latency_model)
                    for solver in solvers:
                        options = {"plateau": True} if solver in METHODS and formulation == "precise" else {}
                        chosen = solve(table, budget, objective, solver, **options).replicas
                        for judge in ("relaxed", "precise"):
                            # A judge's table may end earlier, where one more replica changes nothing.
                            expected, realised = (
                                t[jobs, np.minimum(chosen, t.shape[1] - 1)].mean()
                                for t in (judges[judge, False], judges[judge, True])
                            )
                            rows.append(
                                (objective, formulation, solver, budget, window.name, judge, expected, realised)
                            )
    return pd.DataFrame(rows, columns=SCORED)


def compare_scales(
    window: Window, counts, *, replicas_per_job=3.2, objective="Sum", groups=10, cobyla_up_to=20, seed=0
):
    """Exact, hierarchical and COBYLA as the number of jobs grows: columns as in `compare_solvers`, formulation relaxed.

    Here `seconds` is for the whole decision, tables included (with the curves of the queues at hand, as in a running
    controller). COBYLA alone is asked up to `cobyla_up_to` jobs, and in groups up to `groups` times that.
    """
    import pandas as pd

    rows = []
    for count in counts:
        large = enlarged(window, count, seed=seed)
        budget = int(replicas_per_job * count)

        def flat(solver, large=large, budget=budget):
            return solve(table_of(large, budget, objective, "relaxed"), budget, objective, solver)

        def grouped(solver, large=large, budget=budget):
            return solve_hierarchical(
                large.jobs,
                large.rates_rps,
                large.running,
                budget,
                groups=min(len(large.jobs), groups),
                objective=objective,
                solver=solver,
            )

        asked = [(flat, "exact"), (grouped, "exact")]
        asked += [(flat, "cobyla")] if count <= cobyla_up_to else []
        asked += [(grouped, "cobyla")] if count <= groups * cobyla_up_to else []
        best = flat("exact").value
        for ask, solver in asked:
            if solver == "exact":
                ask(solver)
            started = time.process_time()
            found = ask(solver)
            seconds = time.process_time() - started
            gap = (best - found.value) / max(abs(best), 1e-9)
            rows.append(
                (objective, "relaxed", found.solver, count, budget, large.name, found.value, best, gap, seconds, 0.0)
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def score_spare(windows, budgets, *, heavier=1.3, latency_model="half-mmc"):
    """What is left after the optimum of Sum: kept idle, taken back (`shrink`), or given away (`spread_spare`).

    Columns replicas, window, spare, replicas_used, realised: mean relaxed utility over jobs and minutes under the true rates.
    The spare replicas go where they help most at `heavier` times the forecast rates.
    """
    import pandas as pd

    rows = []
    for budget in budgets:
        for window in windows:
            table = table_of(window, budget, "Sum", "relaxed", latency_model=latency_model)
            heavy = table_of(
                replace(window, rates_rps=heavier * window.rates_rps),
                budget,
                "Sum",
                "relaxed",
                latency_model=latency_model,
            )
            judge = table_of(window, budget, "Sum", "relaxed", latency_model=latency_model, truth=True).value
            plan = solve(table, budget)
            answers = {
                "as solved": plan,
                "shrink": shrink(table, plan, budget),
                "spread": spread_spare(heavy, plan, budget),
            }
            for name, found in answers.items():
                column = np.minimum(found.replicas, judge.shape[1] - 1)
                realised = judge[np.arange(len(column)), column].mean()
                rows.append((budget, window.name, name, int(found.replicas.sum()), realised))
    return pd.DataFrame(rows, columns=SPARE)

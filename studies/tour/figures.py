"""Figures, captions and controls of notebook 00: forecasts, the utility table, prices."""

from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from faro_lib.allocate import OBJECTIVES, Allocation, solve
from faro_lib.figures.style import COLOURS, CYCLE, LIMIT, PAGE_IN
from faro_lib.queueing import ModelLike
from faro_lib.utility import DROPS, UtilityTable, build_table
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S
from studies.tables.wording import and_list

FORECAST = COLOURS["Faro-Sum"]
ACTUAL = CYCLE[1]
PATH = "#8A8F98"
BANDS = (0.95, 0.8, 0.5)  # coverage of a fan chart's bands
MAX_PAST = 30  # minutes drawn before the forecast
MAX_PATHS = 30  # sample paths drawn behind a curve
MAX_LABELLED = 16  # a heat map with more columns shows numbers only in the chosen cells
KEPT = 0.95  # a job counts as well served if its expected utility is at least KEPT


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision: the forecast that it used, its table of utilities, and its allocation."""

    rates_rps: np.ndarray  # sample paths, (jobs, paths, minutes)
    options: dict[str, Any]  # for `build_table`
    table: UtilityTable
    allocation: Allocation
    budget: int  # cores

    @property
    def jobs(self) -> tuple[Job, ...]:
        return self.table.jobs

    @property
    def utility(self) -> np.ndarray:
        """Utility in the objective, by job (row) and replica count (column, from 0).

        NaN marks counts out of bounds.
        """
        utility = self.table.effective if self.table.with_drops else self.table.value
        return np.where(np.isneginf(utility), np.nan, utility)


def decide(
    jobs: Sequence[Job],
    rates_rps: np.ndarray,
    running: Sequence[int],
    replicas: int,
    *,
    slo_s: float | None = None,
    cold_start_s: float = 0.0,
    objective: str = "Sum",
    latency_model: ModelLike = "half-mmc",
) -> Decision:
    """Allocate `replicas` cores optimally among the jobs, for sample paths (jobs, paths, minutes).

    `slo_s` and `cold_start_s` apply to every job. If `slo_s` is None, each job keeps its own SLO.
    """
    if slo_s is not None:
        jobs = [replace(job, slo_s=slo_s) for job in jobs]
    jobs = tuple(jobs)
    drops = DROPS if OBJECTIVES.find(objective).effective else None
    options: dict[str, Any] = {"cold_start_minutes": cold_start_s / MINUTE_S, "drops": drops}
    options |= {"max_replicas": max(replicas, *running), "latency_model": latency_model}
    table = build_table(jobs, rates_rps, running, **options)
    return Decision(rates_rps, options, table, solve(table, replicas, objective), replicas)


def reasons(decision: Decision) -> list[str]:
    """A line for each job: its replicas, and what one less would cost."""
    lines = []
    for job, rates_rps, utility, replicas in zip(
        decision.jobs, decision.rates_rps, decision.utility, decision.allocation.replicas
    ):
        need = f"{job.name}: {replicas} replicas for {rates_rps.mean():.1f} requests/s"
        if replicas <= max(1, job.min_replicas):
            lines.append(f"{need}; its minimum suffices")
        else:
            worth, cost = utility[replicas], utility[replicas] - utility[replicas - 1]
            lines.append(f"{need}, worth {worth:.2f}; one less would cost {cost:.2f}")
    return lines


def utility_of_paths(decision: Decision, job: int) -> np.ndarray:
    """Utility of a job on each sample path (row), by replica count (column, from 0).

    Drops are not counted.
    """
    paths = decision.rates_rps[job][:, None]
    copies = [replace(decision.jobs[job], name=f"path {n}") for n in range(len(paths))]
    running = np.full(len(paths), decision.table.running[job])
    value = build_table(copies, paths, running, **decision.options).value
    # `value` ends where more replicas change no utility.
    columns = decision.table.columns + 1
    beyond = max(0, columns - value.shape[1])
    value = np.pad(value, ((0, 0), (0, beyond)), mode="edge")[:, :columns]
    return np.where(np.isneginf(value), np.nan, value)


def by_budget(decision: Decision, budgets: Iterable[int]) -> pd.DataFrame:
    """The optimum (`value`) for consecutive budgets, and the gain from one more core (`price`)."""
    budgets = list(budgets)
    room = decision.options | {"max_replicas": max(budgets)}
    table = build_table(decision.jobs, decision.rates_rps, decision.table.running, **room)
    value = [solve(table, budget, decision.allocation.objective).value for budget in budgets]
    price = np.append(np.diff(value), np.nan)
    return pd.DataFrame({"budget": budgets, "value": value, "price": price})


def forecast_fans(
    names: Sequence[str], counts: np.ndarray, paths: np.ndarray, actual: np.ndarray
) -> Figure:
    """Requests per minute of every job until now, the forecast as bands, and what then arrived.

    Shapes: counts (jobs, minutes), paths (jobs, paths, minutes ahead), actual (jobs, minutes
    ahead).
    """
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    size_in = (PAGE_IN, 0.5 + 1.6 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size_in, sharex=True, squeeze=False)
    counts = counts[:, -MAX_PAST:]
    past = np.arange(-counts.shape[1] + 1, 1)
    ahead = np.arange(1, paths.shape[2] + 1)
    for axis, name, count, path, came in zip(axes.flat, names, counts, paths, actual):
        for band in BANDS:
            low, high = np.quantile(path, [(1 - band) / 2, (1 + band) / 2], axis=0)
            axis.fill_between(ahead, low, high, color=FORECAST, alpha=0.22, linewidth=0)
        axis.plot(past, count, color="#30343B", linewidth=0.9, label="requests until now")
        label = "forecast (bands: 50, 80 and 95 %)"
        axis.plot(ahead, path.mean(axis=0), color=FORECAST, label=label)
        label = "what then arrived"
        axis.plot(ahead[: len(came)], came, "o", color=ACTUAL, markersize=2.2, label=label)
        axis.set(title=name, ylim=(0, None))
        axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    figure.supxlabel("minutes from now", fontsize=plt.rcParams["axes.labelsize"])
    axes[0][0].set_ylabel("requests per minute")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return figure


def forecast_caption(names: Sequence[str], paths: np.ndarray, actual: np.ndarray) -> str:
    """State which job's forecast is least certain, and what its 80 % bands contain of `actual`."""
    low, high = np.quantile(paths, (0.1, 0.9), axis=1)  # (jobs, minutes ahead)
    width = ((high - low) / np.maximum(paths.mean(axis=1), 1.0)).mean(axis=1) / 2
    widest = int(width.argmax())
    known = actual.shape[1]
    inside = (low[:, :known] <= actual) & (actual <= high[:, :known])
    return (
        f"The load of {names[widest]} is least certain: its 80 % band is its mean ± "
        f"{width[widest]:.0%}. The 80 % bands contain {inside.sum()} of the {inside.size} counts "
        "that then arrived."
    )


def row_as_curve(decision: Decision, job: int) -> Figure:
    """One row of the table: expected utility by replica count, with single sample paths behind."""
    figure, axis = plt.subplots(figsize=(PAGE_IN, 2.3))
    _curve(axis, decision, job)
    return figure


def row_caption(decision: Decision, job: int) -> str:
    """State a job's utility with one replica, the replicas that reach KEPT, and its allocation."""
    chosen = int(decision.allocation.replicas[job])
    row = decision.utility[job]
    first = int(np.argmax(~np.isnan(row)))
    certain = int(np.argmax(row >= KEPT))  # 0 if no count reaches KEPT
    if certain:
        enough = f"{certain} replicas are worth {row[certain]:.2f}"
    else:
        enough = "no count in the table is worth that much"
    return (
        f"One replica of {decision.jobs[job].name} is expected to be worth "
        f"{row[max(1, first)]:.2f} of at most 1; for {KEPT:g} and more, {enough}. It gets "
        f"{chosen}, worth {row[chosen]:.2f}."
    )


def _curve(axis: Axes, decision: Decision, job: int) -> None:
    x = np.arange(decision.table.columns + 1)
    row = decision.utility[job]
    lines = [np.column_stack((x, path)) for path in utility_of_paths(decision, job)[:MAX_PATHS]]
    label = "one sample path each"
    axis.add_collection(LineCollection(lines, color=PATH, alpha=0.35, linewidth=0.7, label=label))
    label = "expected utility"
    axis.plot(x, row, color=FORECAST, marker="o", markersize=3, linewidth=1.6, label=label)
    chosen = int(decision.allocation.replicas[job])
    square: dict[str, Any] = {
        "markersize": 8,
        "markerfacecolor": "none",
        "markeredgecolor": "black",
    }
    axis.plot(chosen, row[chosen], "s", label="chosen", **square)
    axis.set(title=decision.jobs[job].name, xlabel="replicas", ylabel="utility", ylim=(-0.03, 1.06))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(loc="lower right", frameon=True)


def table_as_map(decision: Decision) -> Figure:
    """The whole table: expected utility by job and replica count; the chosen cells are outlined."""
    figure, axis = plt.subplots(figsize=(PAGE_IN, 0.75 + 0.3 * len(decision.jobs)))
    _map(axis, decision)
    return figure


def table_caption(decision: Decision) -> str:
    """Caption: the replicas of each job, the total utility, and the jobs below KEPT."""
    jobs, replicas = decision.jobs, decision.allocation.replicas
    chosen = decision.utility[np.arange(len(jobs)), replicas]
    gets = and_list(f"{x} for {job.name}" for job, x in zip(jobs, replicas))
    short = [f"{job.name} ({value:.2f})" for job, value in zip(jobs, chosen) if value < KEPT]
    if short:
        verdict = f"{and_list(short)} stay below a utility of {KEPT:g}"
    else:
        verdict = f"every job reaches at least {KEPT:g}"
    return (
        f"Of {decision.budget} cores: {gets}. The utilities sum to {chosen.sum():.2f} of "
        f"{len(chosen)}; {verdict}. No other allocation is better: the optimality gap is "
        f"{decision.allocation.gap:.0%}."
    )


def _map(axis: Axes, decision: Decision, all_numbers: bool = True) -> None:
    cells = decision.utility[:, 1:]
    extent = (0.5, cells.shape[1] + 0.5, len(cells), 0)
    axis.imshow(cells, aspect="auto", cmap="Blues", vmin=0, vmax=1, extent=extent)
    # Not clipped, because half of an outline at the edge lies outside of the axes.
    outline: dict[str, Any] = {"fill": False, "edgecolor": "black", "linewidth": 1.8, "zorder": 3}
    outline |= {"clip_on": False}
    for j, chosen in enumerate(decision.allocation.replicas):
        if chosen:
            axis.add_patch(Rectangle((chosen - 0.5, j), 1, 1, **outline))
    all_numbers &= cells.shape[1] <= MAX_LABELLED
    for (j, column), value in np.ndenumerate(cells):
        replicas = column + 1
        shown = all_numbers or replicas == decision.allocation.replicas[j]
        if shown and not np.isnan(value):
            colour = "white" if value > 0.55 else "black"
            axis.text(replicas, j + 0.5, f"{value:.2f}", ha="center", va="center", color=colour)
    axis.set_yticks(np.arange(len(cells)) + 0.5, [job.name for job in decision.jobs])
    axis.xaxis.set_major_locator(MaxNLocator(MAX_LABELLED, integer=True))
    axis.set(xlabel="replicas", title="expected utility; outlined: chosen")
    axis.grid(visible=False)


def budget_and_price(curve: pd.DataFrame, budget: int) -> Figure:
    """Plot `value` and `price` of `curve` (from `by_budget`) against the budget.

    A dashed line marks `budget`.
    """
    figure, axes = plt.subplots(1, 2, figsize=(PAGE_IN, 2.1), sharex=True)
    at = curve.set_index("budget")
    axes[0].plot(at["value"], color=FORECAST, marker="o", markersize=2.5)
    axes[1].bar(at.index, at["price"], color=FORECAST, width=0.8)
    for axis in axes:
        axis.axvline(budget, color=LIMIT, linestyle="--", linewidth=1.0)
        axis.set_xlabel("budget (cores)")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    at_the_line = {"xycoords": axes[0].get_xaxis_transform(), "textcoords": "offset points"}
    axes[0].annotate("our budget", (budget, 0.06), (4, 0), color=LIMIT, **at_the_line)
    axes[0].set(ylabel="value of the best allocation", ylim=(min(0.0, at["value"].min()), None))
    axes[1].set_ylabel("price: gain of one more core")
    return figure


def price_caption(curve: pd.DataFrame, budget: int, least: float = 0.01) -> str:
    """State the gain from one more core at `budget`, and from where on it is below `least`."""
    at = curve.set_index("budget")
    price = at["price"].dropna()
    dear = price.index[price >= least]
    enough = f"From {dear.max() + 1} cores on" if len(dear) else "At every budget shown"
    return (
        f"With {budget} cores the best allocation is worth {at['value'][budget]:.2f}, and one more "
        f"core would add {price[budget]:.2f}. {enough}, a further core adds less than {least:g}."
    )


def overview(decision: Decision, job: int) -> Figure:
    """Draw the utility curve of one job beside the heat map of all jobs.

    `controls` shows this figure.
    """
    size_in = (PAGE_IN, max(2.3, 0.9 + 0.28 * len(decision.jobs)))
    figure, (left, right) = plt.subplots(1, 2, figsize=size_in, width_ratios=(2, 3), layout="none")
    figure.subplots_adjust(left=0.07, right=0.99, bottom=0.2, top=0.89, wspace=0.25)
    _curve(left, decision, job)
    _map(right, decision, all_numbers=False)  # drawing the numbers would take longest
    return figure


def controls(draw: Callable[..., tuple[Figure, str]], **widgets: Any) -> Any:
    """Show the figure and the sentence that `draw` returns, below a control for each argument.

    The result is a box of all widgets. A page or editor that cannot run widgets shows the figure at
    the initial values.
    """
    import ipywidgets
    from IPython.display import display

    picture = ipywidgets.Image(format="png")
    sentence = ipywidgets.HTML()

    def redraw(_change: object = None) -> None:
        figure, text = draw(**{name: widget.value for name, widget in widgets.items()})
        target = BytesIO()
        figure.savefig(target, format="png", dpi=110)
        plt.close(figure)
        picture.value = target.getvalue()
        sentence.value = text

    for name, widget in widgets.items():
        widget.description = widget.description or name.replace("_", " ")
        widget.observe(redraw, names="value")
    redraw()
    row = ipywidgets.HBox(list(widgets.values()), layout={"flex_flow": "row wrap"})
    box = ipywidgets.VBox([row, picture, sentence])
    still = b64encode(picture.value).decode()
    display({**box._repr_mimebundle_(), "image/png": still, "text/plain": sentence.value}, raw=True)
    return box

"""The live view of `--watch`: one row per job, drawn again after every tick."""

import math
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from faro_lib.control import Step
from faro_lib.protocol import HOLD
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.cli.shared import number

BARS = "▁▂▃▄▅▆▇█"
REASONS_SHOWN = 6  # number of latest replica changes that are listed below the table
HEADS = (
    "job",
    "last 15 minutes",
    "requests/s",
    "next minute",
    "replicas",
    "tail latency",
    "SLO",
    "one more",
    "reason",
)


def sparkline(values: np.ndarray) -> str:
    """Return a string with one bar per value, scaled to the largest value.

    A value that is not finite becomes a space.

    >>> sparkline(np.array([0.0, 5.0, np.nan, 10.0]))
    '▁▅ █'
    """
    known = values[np.isfinite(values)]
    top = known.max() if known.size and known.max() > 0 else 1.0
    return "".join(
        BARS[round(value / top * (len(BARS) - 1))] if math.isfinite(value) else " "
        for value in values
    )


class View:
    """Draws a step of the control loop: a table of jobs, and the latest changes below it."""

    def __init__(self, jobs: tuple[Job, ...], title: str):
        self.jobs, self.title = jobs, title
        self._changes: deque[str] = deque(maxlen=REASONS_SHOWN)

    def of(self, step: Step) -> Group:
        """Record the replica changes of a step.

        Return the table of jobs with the latest replica changes below it.
        """
        seen = step.observation
        replicas = seen.running + seen.starting  # (jobs,)
        cores = sum(job.cores * count for job, count in zip(self.jobs, replicas))
        caption = f"{_clock(seen.now_s)}, {cores:g} of {seen.capacity:g} cores in use"
        table = Table(*HEADS, title=self.title, caption=caption)
        for column in table.columns[2:8]:
            column.justify = "right"
        for n, job in enumerate(self.jobs):
            self._record_change(step, n)
            changing = step.target[n] != seen.running[n]
            table.add_row(*_cells(step, n, job), style="bold" if changing else "")
        return Group(table, *(Text(change) for change in self._changes))

    def _record_change(self, step: Step, n: int) -> None:
        """Remember that the replicas of job n change, unless it merely holds."""
        before, wanted = int(step.observation.target[n]), int(step.target[n])
        reason = step.plan.reason[n]
        if reason != HOLD and wanted != before:
            change = f"{self.jobs[n].name}: {before} to {wanted} replicas ({reason})"
            self._changes.append(f"{_clock(step.observation.now_s)}  {change}")


def _cells(step: Step, n: int, job: Job) -> list[str | Text]:
    """The row of job n, one cell for each of HEADS."""
    seen, plan = step.observation, step.plan
    counts = seen.arrivals_per_min[n]  # (minutes,)
    rate_rps = counts[-1] / MINUTE_S if counts.size else math.nan

    next_minute = ""
    if plan.next_minute_deciles_rps is not None:
        low, high = plan.next_minute_deciles_rps[n, [0, -1]]
        next_minute = f"{number(low, '.3g')} to {number(high, '.3g')}"

    has, wanted = int(seen.running[n]), int(step.target[n])
    replicas = str(has) if wanted == has else f"{has} -> {wanted}"

    tail_s = seen.tail_latency_s[n]
    late = tail_s > job.slo_s
    latency = "-" if math.isnan(tail_s) else f"{tail_s:.3g} s"

    one_more = ""
    if plan.marginal_value_up is not None and not math.isnan(plan.marginal_value_up[n]):
        one_more = f"{plan.marginal_value_up[n]:+.3f}"
    return [
        escape(job.name),
        sparkline(counts),
        number(rate_rps, ".3g"),
        next_minute,
        replicas,
        Text(f"{latency} late" if late else latency, style="red" if late else ""),
        f"{job.slo_s:g} s",
        one_more,
        plan.reason[n],
    ]


def check_terminal() -> None:
    """Raise ValueError if standard output is not a terminal."""
    if not sys.stdout.isatty():
        raise ValueError("--watch draws on a terminal, and standard output is none; leave it out")


@contextmanager
def watching(jobs: tuple[Job, ...], title: str) -> Iterator[Callable[[Step], None]]:
    """Show the live view on the terminal, and yield the function that draws a step into it."""
    check_terminal()
    view = View(jobs, title)
    with Live(auto_refresh=False) as live:
        yield lambda step: live.update(view.of(step), refresh=True)


def _clock(now_s: float) -> str:
    """Format the seconds since time 0 of the run as hours:minutes:seconds.

    >>> _clock(3_690)
    '1:01:30'
    """
    return f"{int(now_s // 3600)}:{int(now_s // 60 % 60):02d}:{int(now_s % 60):02d}"

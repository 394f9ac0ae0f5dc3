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
from faro_lib.policies.protocol import HOLD
from faro_lib.workload import Job
from faro_lib.workload.jobs import MINUTE_S
from faro_ops.cli.shared import number

BARS = "▁▂▃▄▅▆▇█"
REASONS_SHOWN = (
    6  # number of latest replica changes that are listed below the table, each with its reason
)
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
    """Return a string with one bar per value, scaled to the largest value. A value that is not finite becomes a space.

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
    """Draws a step of the control loop as a table of jobs, and lists the latest replica changes and their reasons."""

    def __init__(self, jobs: tuple[Job, ...], title: str):
        self.jobs, self.title = jobs, title
        self._changes: deque[str] = deque(maxlen=REASONS_SHOWN)

    def of(self, step: Step) -> Group:
        """Record the replica changes of a step. Return the table of jobs with the latest replica changes below it."""
        seen, plan = step.observation, step.plan
        deciles, value = plan.next_minute_deciles_rps, plan.marginal_value_up
        cores = sum(
            job.cores * running for job, running in zip(self.jobs, seen.running + seen.starting)
        )
        caption = f"{_clock(seen.now_s)}, {cores:g} of {seen.capacity:g} cores in use"
        table = Table(*HEADS, title=self.title, caption=caption)
        for column in table.columns[2:8]:
            column.justify = "right"
        for n, job in enumerate(self.jobs):
            wanted, has, before = int(step.target[n]), int(seen.running[n]), int(seen.target[n])
            if plan.reason[n] != HOLD and wanted != before:
                change = f"{job.name}: {before} to {wanted} replicas ({plan.reason[n]})"
                self._changes.append(f"{_clock(seen.now_s)}  {change}")
            counts, tail_s = seen.arrivals_per_min[n], seen.tail_latency_s[n]
            late = tail_s > job.slo_s
            latency = "-" if math.isnan(tail_s) else f"{tail_s:.3g} s{' late' if late else ''}"
            table.add_row(
                escape(job.name),
                sparkline(counts),
                number(counts[-1] / MINUTE_S if counts.size else math.nan, ".3g"),
                ""
                if deciles is None
                else f"{number(deciles[n, 0], '.3g')} to {number(deciles[n, -1], '.3g')}",
                str(has) if wanted == has else f"{has} -> {wanted}",
                Text(latency, style="red" if late else ""),
                f"{job.slo_s:g} s",
                "" if value is None or math.isnan(value[n]) else f"{value[n]:+.3f}",
                plan.reason[n],
                style="" if wanted == has else "bold",
            )
        return Group(table, *(Text(change) for change in self._changes))


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

"""The live view of --watch: a row per job with load, forecast, replicas, latency and changes."""

import io

import numpy as np
import pytest
from observations import observed
from rich.console import Console

from faro_lib.control.tick import Step
from faro_lib.protocol import Plan
from faro_lib.workload import Job
from faro_ops.cli.view import View, sparkline, watching

JOBS = (Job("chat[bold]", slo_s=0.72), Job("vision", slo_s=0.72))


def step_of(target, tail_s=(0.3, 0.9), **plan):
    seen = observed([2, 3], tail_latency_s=np.array(tail_s), arrivals_per_min=np.full((2, 3), 60.0))
    made = Plan(
        np.array(target),
        np.zeros(2),
        tuple("hold" if a == b else "planned" for a, b in zip(target, (2, 3))),
        **plan,
    )
    return Step(seen, made, np.array(target), 0.01)


def drawn(*steps):
    view = View(JOBS, "Faro-Sum")
    console = Console(file=io.StringIO(), width=150)
    for step in steps:
        group = view.of(step)
    console.print(group)
    return console.file.getvalue()


def test_a_row_has_load_replicas_now_and_wanted_and_the_latency_that_exceeds_the_slo():
    text = drawn(step_of([4, 3]))
    chat, vision = (
        next(line for line in text.splitlines() if f"│ {name}" in line)
        for name in ("chat[bold]", "vision")
    )
    assert "2 -> 4" in chat
    assert "planned" in chat
    assert "late" not in chat
    assert "0.9 s late" in vision
    assert "███" in vision


def test_forecast_and_value_of_one_more_replica_are_shown_where_the_policy_has_them():
    deciles = np.linspace(0.5, 1.5, 9) * np.ones((2, 1))
    assert "0.5 to 1.5" in drawn(step_of([2, 3], next_minute_deciles_rps=deciles))
    assert "+0.125" in drawn(step_of([2, 3], marginal_value_up=np.array([0.125, np.nan])))


def test_the_latest_changes_stay_below_the_table_with_their_reason():
    assert "chat[bold]: 2 to 4 replicas (planned)" in drawn(step_of([4, 3]), step_of([2, 3]))


def test_bars_of_unknown_minutes_are_blank_and_no_load_is_the_lowest_bar():
    assert sparkline(np.array([np.nan, 0.0, 0.0])) == " ▁▁"


def test_without_a_terminal_the_view_is_refused_in_one_line():
    with pytest.raises(ValueError, match="--watch draws on a terminal"), watching(JOBS, "x"):
        pass

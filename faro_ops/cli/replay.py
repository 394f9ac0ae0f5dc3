"""`faro replay`: what another policy would have decided, given the observations in a journal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from faro_ops.cli import shared
from faro_ops.cli.shared import option, text_table

if TYPE_CHECKING:
    from faro_lib.control import Step
    from faro_ops.journal.ticks import Header


def replay(
    journal: Annotated[str, typer.Argument(help="Journal of `faro run`.")],
    policy: shared.PolicyName = shared.DEFAULT_POLICY,
    history: Annotated[
        str | None, option("File of counts to learn from, as for `faro run`.")
    ] = None,
    forecaster: Annotated[str, option("Forecaster to fit to --history.")] = "auto",
    no_learning: shared.NoLearning = False,
    as_json: Annotated[bool, option("Print one JSON object per tick.", "--json")] = False,
) -> None:
    """Show what another policy would decide on a journal's records.

    Each decision starts from the replicas of the recorded run, because the effects of decisions are
    not simulated.
    """
    decisions = list(_decisions(journal, policy, history, forecaster, not no_learning))
    if not decisions:
        raise ValueError(f"{journal}: no decision has been made yet")
    if as_json:
        for header, was, now in decisions:
            of_job = zip(header.jobs, was.target, now.target, now.plan.reason)
            plan = {
                job.name: {"recorded": int(before), "replayed": int(after), "reason": reason}
                for job, before, after, reason in of_job
            }
            print(json.dumps({"now_s": was.observation.now_s, "plan": plan}))
        return
    recorded = decisions[-1][0].policy
    compared = f"{recorded} (recorded) and {policy} (replayed)"
    print(f"{len(decisions)} decisions; mean replicas of {compared}")
    print(text_table(_rows(decisions)))


def _decisions(
    journal: str, policy: str, history: str | None, forecaster: str, learning: bool
) -> Iterator[tuple[Header, Step, Step]]:
    """Yield for every recorded tick: the journal's header, the recorded step, that of `policy`."""
    from faro_ops.journal.reading import parts
    from faro_ops.operate.controller.model import Source, at_time_of_day, context_of, named_policy
    from faro_ops.operate.limits.pacing import paced
    from faro_ops.operate.loop import resume
    from faro_ops.operate.memory.overrides import Settings

    for header, ticks in parts(journal):
        if not ticks:
            continue
        capacity = max(one.step.observation.capacity for one in ticks)
        fitted = Source(history, forecaster, journal=journal).model(header.jobs)
        context = context_of(Settings(header.jobs, {}), fitted, capacity)
        made = named_policy(policy, context, learning)
        if made.tick_s != header.tick_s:
            made = paced(made, header.tick_s)
        if header.origin_s is not None:
            made = at_time_of_day(made, header.origin_s)
        for was, now in resume.replay(made, header, ticks):
            yield header, was, now


def _rows(decisions: list[tuple[Header, Step, Step]]) -> list[dict[str, str]]:
    import pandas as pd

    counts = [
        (job.name, before, after, before != after)
        for header, was, now in decisions
        for job, before, after in zip(header.jobs, was.target, now.target)
    ]
    table = pd.DataFrame(counts, columns=["job", "recorded", "replayed", "different"])
    means = table.groupby("job", sort=False).mean()
    shown = means.map("{:.2f}".format).assign(different=means["different"].map("{:.0%}".format))
    return shown.reset_index().to_dict("records")

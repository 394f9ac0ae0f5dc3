"""`faro set`: fix a job's replicas by hand, or announce an event, while `faro run` is running."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from faro_ops.cli.shared import option

if TYPE_CHECKING:
    from faro_ops.controller.overrides import Override

    # Three items: each job's replicas, which --freeze keeps (None before the first decision),
    # a function that reads the overrides, and a function that writes them.
    _Run = tuple[
        dict[str, int | None],
        Callable[[], Iterable[Override]],
        Callable[[Iterable[Override]], None],
    ]


def set_job(
    job: Annotated[str, typer.Argument(help="Name of the job.")],
    journal: Annotated[str | None, option("Journal of the run that this is for.")] = None,
    plan: Annotated[str | None, option("Or NAMESPACE/NAME of its FaroPlan (Kubernetes).")] = None,
    replicas: Annotated[int | None, option("Number of replicas.")] = None,
    freeze: Annotated[bool, option("Keep the replicas of the last decision.", "--freeze")] = False,
    load: Annotated[
        float | None, option("Factor on the forecast load: 3 for three times as much.")
    ] = None,
    begin: Annotated[
        str | None, option("Begin, as HH:MM or 2026-12-01T14:00.", "--from", default="now")
    ] = None,
    until: Annotated[str | None, option("End, in the same form.", default="until --clear")] = None,
    clear: Annotated[bool, option("Remove what was set for the job.", "--clear")] = False,
) -> None:
    """Fix the replicas of a job, or announce a change of its load.

    `faro run` applies the change at its next tick.
    """
    from faro_ops.controller.overrides import Override

    if sum((replicas is not None, freeze, load is not None, clear)) != 1:
        raise ValueError("faro set needs one of --replicas, --freeze, --load and --clear")
    if (journal is None) == (plan is None):
        raise ValueError("faro set needs one of --journal and --plan")
    targets, read, write = _of_plan(plan) if plan else _of_journal(str(journal))
    if job not in targets:
        raise ValueError(f"job={job!r} is not in {journal or plan}; accepted: {', '.join(targets)}")
    orders = [one for one in read() if not one.over(time.time())]
    if clear:
        write([one for one in orders if one.job != job])
        print(
            f"job {job!r}: nothing is set by hand any more; "
            "the next decision may change its replicas"
        )
        return
    if freeze:
        replicas = targets[job]
        if replicas is None:
            raise ValueError(f"{journal or plan}: no decision has been made yet")
    now_s = time.time()
    from_s = now_s if begin is None else _time_s(begin, now_s)
    until_s = None if until is None else _time_s(until, from_s)
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    order = Override(job, by, from_s, until_s, replicas, load)
    replaced = [one for one in orders if _replaces(order, one, begin is None)]
    write([*(one for one in orders if one not in replaced), order])
    print(order, *(f"instead of {one}" for one in replaced), sep="\n")


def _replaces(new: Override, old: Override, now: bool) -> bool:
    """Whether `new` replaces `old`.

    Both must be for the same job and of the same kind (load or replica count). A new load replaces
    an old load if their periods overlap. A new count replaces an old count whose period lies within
    the new period. `now` means that `new` begins now. A new count then also replaces old counts
    that have begun.
    """
    if new.job != old.job or (new.load is None) != (old.load is None):
        return False
    new_end_s, old_end_s = _end_s(new), _end_s(old)
    if new.load is not None:
        return old.from_s < new_end_s and new.from_s < old_end_s
    if now and old.from_s <= new.from_s:
        return True
    return new.from_s <= old.from_s and old_end_s <= new_end_s


def _end_s(order: Override) -> float:
    return float("inf") if order.until_s is None else order.until_s


def _of_journal(journal: str) -> _Run:
    from faro_ops.controller.journal import read
    from faro_ops.controller.overrides import path_of, read_overrides, write_overrides

    header, ticks = read(journal)
    names = [job.name for job in header.jobs]
    targets = ticks[-1].step.target.tolist() if ticks else [None] * len(names)
    path = path_of(journal)
    return (
        dict(zip(names, targets)),
        partial(read_overrides, path),
        partial(write_overrides, path),
    )


def _of_plan(plan: str) -> _Run:
    from faro_ops.kube.operate import NamespacedName
    from faro_ops.kube.plan_overrides import PlanOverrides

    home = NamespacedName.of(plan)
    overrides = PlanOverrides(home.connect(), home.namespace, home.name)
    found = overrides.get()
    if found is None:
        raise ValueError(
            f"FaroPlan {plan!r} does not exist or may not be read; a controller creates it"
        )
    jobs = found.get("status", {}).get("jobs", [])
    # If a job has floorReplicas, desiredReplicas is only the upper bound of its HPA. --freeze then
    # keeps readyReplicas.
    ready = {one["name"]: one["readyReplicas"] for one in jobs if "floorReplicas" in one}
    targets = {one["name"]: ready.get(one["name"]) or one["desiredReplicas"] for one in jobs}
    return targets, overrides.read, overrides.write


def _time_s(text: str, after_s: float) -> float:
    """The Unix time of a local date and time (ISO 8601), or of the first HH:MM after `after_s`."""
    try:
        if len(text) > 5:
            return datetime.fromisoformat(text).timestamp()
        clock = datetime.strptime(text, "%H:%M")
        today = datetime.fromtimestamp(after_s)
        found = today.replace(hour=clock.hour, minute=clock.minute, second=0, microsecond=0)
        if found.timestamp() <= after_s:
            found += timedelta(days=1)
        return found.timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"time={text!r} must read HH:MM, or a date and time such as 2026-12-01T14:00"
        ) from None

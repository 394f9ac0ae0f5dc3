"""`faro set`: fix a job's replicas by hand, or announce an event, while `faro run` is running."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faro_ops.cli.shared import option

if TYPE_CHECKING:
    from faro_ops.operate.memory.override_store import Order, OverrideStore
    from faro_ops.operate.memory.overrides import Override

OfJournal = Annotated[str | None, option("Journal of the run that this is for.")]
OfPlan = Annotated[str | None, option("Or NAMESPACE/NAME of its FaroPlan (Kubernetes).")]


def set_job(
    job: Annotated[str, typer.Argument(help="Name of the job.")],
    journal: OfJournal = None,
    plan: OfPlan = None,
    replicas: Annotated[int | None, option("Number of replicas.")] = None,
    freeze: Annotated[
        bool, option("Keep the replicas that are asked for now.", "--freeze")
    ] = False,
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

    `faro run` applies the change at its next tick. `faro freeze` keeps all jobs as they are.
    """
    from faro_ops.operate.memory.overrides import Override

    if sum((replicas is not None, freeze, load is not None, clear)) != 1:
        raise ValueError("faro set needs one of --replicas, --freeze, --load and --clear")
    store = store_of("faro set", journal, plan)
    run = _run_of_plan(plan) if plan else _run_of_journal(str(journal))
    if clear:
        _clear(store, job, run)
        return
    run.check(job)
    if freeze:
        replicas = run.replicas_of(job)
    now_s = time.time()
    from_s = now_s if begin is None else time_s(begin, now_s)
    until_s = None if until is None else time_s(until, from_s)
    given = {"from_s": from_s, "until_s": until_s, "replicas": replicas, "load": load}
    order = Override.of({"job": job, "by": operator(), **given})
    replaced = store.change(lambda old: _replaces(order, old, begin is None), order)
    print(order, *(f"instead of {one}" for one in replaced), sep="\n")


def _clear(store: OverrideStore, job: str, run: _Run) -> None:
    """Remove all orders for the job, also invalid ones, and of a job that does not exist."""
    orders = store.read()
    named = orders and any(one.job == job for one in orders.valid)
    rejected = orders and any(one.job == job for one in orders.rejected)
    if not (named or rejected):
        run.check(job)
    store.change(lambda old: old.job == job)
    print(
        f"job {job!r}: nothing is set by hand any more; the next decision may change its replicas"
    )


def operator() -> str:
    """The user and the host that give an order."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def store_of(command: str, journal: str | None, plan: str | None) -> OverrideStore:
    """Where the orders of a run are kept: in its journal, or in its FaroPlan.

    Raises ValueError unless exactly one is given, and FileNotFoundError if there is no such
    journal.
    """
    if (journal is None) == (plan is None):
        raise ValueError(f"{command} needs one of --journal and --plan")
    if plan is None:
        from faro_ops.journal.database import NO_JOURNAL
        from faro_ops.operate.memory.override_store import JournalOverrides

        if not Path(str(journal)).exists():
            raise FileNotFoundError(f"{journal}: {NO_JOURNAL}")
        return JournalOverrides(str(journal))
    from faro_ops.operate.kube.operate import NamespacedName
    from faro_ops.operate.kube.plan_overrides import PlanOverrides

    home = NamespacedName.of(plan)
    return PlanOverrides(home.connect(), home.namespace, home.name)


def _replaces(new: Override, old: Order, now: bool) -> bool:
    """Whether `new` replaces `old`.

    Both must be valid, for the same job and of the same kind (load or replica count). A new load
    replaces an old load if their periods overlap. A new count replaces an old count whose period
    lies within the new period. `now` means that `new` begins now. A new count then also replaces
    old counts that have begun.
    """
    from faro_ops.operate.memory.overrides import RejectedOrder

    if isinstance(old, RejectedOrder) or new.job != old.job:
        return False
    if (new.load is None) != (old.load is None):
        return False
    new_end_s, old_end_s = _end_s(new), _end_s(old)
    if new.load is not None:
        return old.from_s < new_end_s and new.from_s < old_end_s
    if now and old.from_s <= new.from_s:
        return True
    return new.from_s <= old.from_s and old_end_s <= new_end_s


def _end_s(order: Override) -> float:
    return float("inf") if order.until_s is None else order.until_s


@dataclass(frozen=True, slots=True)
class _Run:
    """The run that an order is for.

    replicas : job -> the replicas that are asked for: the target of the last decision or, if Faro
        sets the bounds of its HPA, what the HPA asks for. None: not known.
    """

    place: str  # the journal or the FaroPlan
    replicas: Mapping[str, int | None]

    def check(self, job: str) -> None:
        """Raise ValueError if the run has no such job."""
        if job not in self.replicas:
            accepted = ", ".join(self.replicas)
            raise ValueError(f"job={job!r} is not in {self.place}; accepted: {accepted}")

    def replicas_of(self, job: str) -> int:
        """The replicas that --freeze keeps; ValueError if they are not known, or 0."""
        replicas = self.replicas[job]
        if not replicas:
            unknown = "no decision has been made yet" if replicas is None else "it has no replica"
            advice = "name a number with --replicas"
            raise ValueError(f"{self.place}: job {job!r}: {unknown}; {advice}")
        return replicas


def _run_of_journal(journal: str) -> _Run:
    from faro_ops.journal.reading import newest
    from faro_ops.protocol import live_observation

    header, ticks = newest(journal)
    names = [job.name for job in header.jobs]
    if not ticks:
        return _Run(journal, dict.fromkeys(names))
    step = ticks[-1].step
    asked = live_observation(step.observation).replicas  # targets are maxReplicas then
    return _Run(journal, dict(zip(names, (step.target if asked is None else asked).tolist())))


def _run_of_plan(plan: str) -> _Run:
    from faro_ops.operate.kube.operate import NamespacedName
    from faro_ops.operate.kube.plan_overrides import PlanOverrides

    home = NamespacedName.of(plan)
    found = PlanOverrides(home.connect(), home.namespace, home.name).get()
    if found is None:
        raise ValueError(f"FaroPlan {plan!r} does not exist; a controller creates it")
    jobs = found.get("status", {}).get("jobs", [])
    return _Run(plan, {one["name"]: _asked_for(one) for one in jobs})


def _asked_for(job: Mapping[str, int]) -> int:
    """The replicas that are asked for, from a job's status in the FaroPlan.

    If Faro sets the bounds of the job's HPA, desiredReplicas is maxReplicas, and the HPA asks for
    requestedReplicas.
    """
    return job.get("requestedReplicas", job["desiredReplicas"])


def time_s(text: str, after_s: float) -> float:
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

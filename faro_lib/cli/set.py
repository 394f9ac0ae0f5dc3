"""`faro set`: fix a job's replicas by hand, or announce an event, while `faro run` is running."""

import getpass
import socket
import time
from datetime import datetime, timedelta
from typing import Annotated

import typer

from faro_lib.cli.shared import option


def set_job(
    job: Annotated[str, typer.Argument(help="Name of the job.")],
    journal: Annotated[str, option("Journal of the run that this is for.")],
    replicas: Annotated[int | None, option("Number of replicas.")] = None,
    freeze: Annotated[bool, option("Keep the replicas of the last decision.", "--freeze")] = False,
    load: Annotated[float | None, option("Factor on the forecast load: 3 for three times as much.")] = None,
    begin: Annotated[str | None, option("Begin, as HH:MM or 2026-12-01T14:00.", "--from", default="now")] = None,
    until: Annotated[str | None, option("End, in the same form.", default="until --clear")] = None,
    clear: Annotated[bool, option("Remove what was set for the job.", "--clear")] = False,
) -> None:
    """Fix the replicas of a job, or announce a change of its load. `faro run` follows at its next tick."""
    from faro_lib.control.journal import read
    from faro_lib.control.overrides import Override, path_of, read_overrides, write_overrides

    if sum((replicas is not None, freeze, load is not None, clear)) != 1:
        raise ValueError("faro set needs one of --replicas, --freeze, --load and --clear")
    header, ticks = read(journal)
    names, path = [one.name for one in header.jobs], path_of(journal)
    if job not in names:
        raise ValueError(f"job={job!r} is not in {journal}; accepted: {', '.join(names)}")
    orders = read_overrides(path)
    if clear:
        write_overrides(path, (one for one in orders if one.job != job))
        return
    if freeze:
        if not ticks:
            raise ValueError(f"{journal}: no decision has been made yet")
        replicas = int(ticks[-1].step.target[names.index(job)])
    now_s = time.time()
    from_s = now_s if begin is None else _time_s(begin, now_s)
    until_s = None if until is None else _time_s(until, from_s)
    order = Override(job, f"{getpass.getuser()}@{socket.gethostname()}", from_s, until_s, replicas, load)
    # A new count replaces an earlier one.
    kept = [one for one in orders if one.job != job or load is not None or one.load is not None]
    write_overrides(path, [*kept, order])
    print(order)


def _time_s(text: str, after_s: float) -> float:
    """Unix time of an ISO date and time, or of the first HH:MM after `after_s`, in local time."""
    try:
        if len(text) <= 5:
            clock, day = datetime.strptime(text, "%H:%M"), datetime.fromtimestamp(after_s)
            found = day.replace(hour=clock.hour, minute=clock.minute, second=0, microsecond=0)
            return (found if found.timestamp() > after_s else found + timedelta(days=1)).timestamp()
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"time={text!r} must read HH:MM, or a date and time such as 2026-12-01T14:00") from None

"""`faro freeze` and `faro thaw`: keep all jobs as they are, and let Faro change them again."""

import time
from typing import Annotated

from faro_ops.cli.set import OfJournal, OfPlan, operator, store_of, time_s
from faro_ops.cli.shared import option


def freeze(
    journal: OfJournal = None,
    plan: OfPlan = None,
    until: Annotated[
        str | None, option("End, as HH:MM or 2026-12-01T14:00.", default="until faro thaw")
    ] = None,
) -> None:
    """Keep the replicas, drop rates and HPA bounds of all jobs until `faro thaw`.

    `faro run` obeys from its next tick on, also after a restart, and goes on observing, recording
    and exporting. A later `faro set --replicas` still changes its one job.
    """
    from faro_ops.operate.memory.overrides import ALL_JOBS, Override

    store = store_of("faro freeze", journal, plan)
    now_s = time.time()
    until_s = None if until is None else time_s(until, now_s)
    given = {"job": ALL_JOBS, "by": operator(), "from_s": now_s, "until_s": until_s}
    order = Override.of(given)
    store.change(lambda old: old.job == ALL_JOBS, order)
    print(order)


def thaw(journal: OfJournal = None, plan: OfPlan = None) -> None:
    """End `faro freeze`. Orders that it suspended are in force again."""
    from faro_ops.operate.memory.overrides import ALL_JOBS

    store = store_of("faro thaw", journal, plan)
    ended = store.change(lambda old: old.job == ALL_JOBS)
    lines = [f"over: {one}" for one in ended]
    print("\n".join(lines) or "all jobs: not frozen")

"""`faro trust`: show how much `faro run --earn` may change each service, and the evidence."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from faro_ops.cli.shared import option, text_table


def trust(
    journal: Annotated[str, typer.Argument(help="Journal of `faro run --earn`.")],
    as_json: Annotated[bool, option("Print one JSON object per job.", "--json")] = False,
) -> None:
    """Show how much Faro may change each service, and why."""
    import numpy as np

    from faro_ops.journal.reading import newest
    from faro_ops.journal.ticks import plain
    from faro_ops.operate.limits.authority import ALPHA, LEVELS
    from faro_ops.operate.limits.earned import history_of_authority
    from faro_ops.protocol import live_plan

    header, ticks = newest(journal)
    earned = history_of_authority(journal)
    if earned is None:
        raise ValueError(f"{journal}: no authority is recorded; start `faro run` with --earn")
    at_s, since_s, now = earned
    plan = live_plan(ticks[-1].step.plan)
    unknown = np.full(len(header.jobs), np.nan)
    factor = unknown if plan.service_factor is None else plan.service_factor
    error = unknown if plan.service_factor_error is None else plan.service_factor_error
    rows = [
        {
            "job": job.name,
            "level": LEVELS[int(now.level[n])],
            "since_s": float(since_s[n]),
            "doubt": round(float(now.doubt[n]), 3),
            "trust": round(float(now.trust[n]), 3),
            "strikes": round(float(now.strikes[n]), 3),
            "service_factor": float(factor[n]),
            "service_factor_error": float(error[n]),
        }
        for n, job in enumerate(header.jobs)
    ]
    if as_json:
        for row in rows:
            print(json.dumps({key: plain(value) for key, value in row.items()}))
        return
    print(f"at {at_s:g} s; a doubt of {2 / ALPHA:g} takes the level away, this much trust earns")
    print("the next one, and two strikes (minutes with metrics that cannot be right) take it away")
    if np.isnan(factor).all():
        rows = [{name: one for name, one in row.items() if "factor" not in name} for row in rows]
    else:
        print("service_factor is the learned service time divided by that of the table")
    print(text_table(rows))

"""Lengths of prompts and outputs from a request log, for services that generate tokens.

The quantiles of the log replace lognormal lengths, which have too many long prompts (docs/llm.md).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from faro_lib.workload import Job
from faro_lib.workload.replicas import SHARES, Continuous
from faro_ops.advise.sources.request_log import RequestLog

MIN_REQUESTS = 200  # fewer requests of a job say little about its long prompts


def lengths_of(log: RequestLog) -> dict[str, dict[str, Any]]:
    """Name of a job -> the fields of `Continuous` that describe its lengths.

    They are rounded to three digits, so that similar jobs share their measured latencies. Jobs with
    fewer than MIN_REQUESTS are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, tokens in log.tokens.items():
        if tokens.shape[1] < MIN_REQUESTS:
            continue
        found[name] = {}
        for kind, of_log in zip(("prompt", "output"), np.maximum(tokens, 1.0)):
            rounded = [float(f"{one:.3g}") for one in np.quantile(of_log, SHARES)]
            found[name] |= {
                f"{kind}_tokens": float(f"{of_log.mean():.3g}"),
                f"{kind}_cv": 0.0,
                f"{kind}_quantiles": tuple(zip(SHARES, rounded)),
            }
    return found


def with_lengths(
    jobs: Sequence[Job],
    lengths: Mapping[str, Mapping[str, Any]],
    report: Callable[[str], None] = lambda line: None,
) -> tuple[Job, ...]:
    """The jobs that generate tokens, with the lengths of a log unless their table has quantiles.

    `lengths` are from `lengths_of`. The limit on sequences does not rise if requests are shorter
    than the table says. ValueError for a job whose KV cache does not hold a request of mean length.
    """
    found, told = [], []
    for job in jobs:
        replica = job.replica
        if isinstance(replica, Continuous) and job.name in lengths and not _stated(replica):
            own = lengths[job.name]
            try:
                job = replace(job, replica=replace(replica, **own))
            except ValueError as error:
                raise ValueError(
                    f"job {job.name!r}, with the lengths of the log: {error}"
                ) from None
            told.append(
                f"{job.name} ({own['prompt_tokens']:g} and {own['output_tokens']:g} tokens)"
            )
        found.append(job)
    if told:
        report(f"prompts and outputs are as long as in the log: {', '.join(told)} on average")
    return tuple(found)


def _stated(replica: Continuous) -> bool:
    """Whether the jobs' table has quantiles of the lengths."""
    return bool(replica.prompt_quantiles or replica.output_quantiles)

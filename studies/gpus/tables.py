"""The table of docs/replicas.md: the fits that a table of jobs can name."""

from __future__ import annotations

from typing import Any

import numpy as np

from faro_lib.workload.replicas import measured_gpus
from studies.tables.pages import Part
from studies.tables.wording import markdown_table

HEADS = [
    *("GPU", "model", "tensor parallel", "step of one sequence (ms)", "of the largest batch (ms)"),
    *("longest prompt (ms)", "prompt error: median, worst", "token error: median, worst"),
    *("several prompts", "KV cache (tokens)"),
]


def entries() -> list[dict[str, Any]]:
    return list(measured_gpus().values())


def table(fits: list[dict[str, Any]]) -> str:
    """A row for each GPU, model and tensor parallelism."""
    return markdown_table(HEADS, [_row(fit) for fit in fits], right=HEADS[2:])


def _row(fit: dict[str, Any]) -> tuple[str, ...]:
    several = "-"
    if fit["several"]:
        least, middle, most = fit["several"]
        several = f"{middle:.2f} ({least:.2f} to {most:.2f})"
    return (
        fit["gpu"],
        fit["model"],
        str(fit["tensor_parallel"]),
        _interval(fit["step_one_ms"]),
        f"{fit['largest_batch']}: {_interval(fit['step_most_ms'])}",
        f"{fit['longest_prompt']:,}: {_interval(fit['prompt_ms'])}",
        _errors(fit["prompt_errors"]),
        _errors(fit["token_errors"]),
        several,
        f"{fit['replica']['cache_tokens']:,}",
    )


def _interval(value: list[float]) -> str:
    low, middle, high = value
    return f"{middle:.4g} ({low:.4g} to {high:.4g})"


def _errors(errors: list[float]) -> str:
    percent = 100 * np.abs(errors)
    return f"{np.median(percent):.1f} %, {percent.max():.1f} %"


def finding(fits: list[dict[str, Any]]) -> str:
    """The errors of all fits together, and those of straight lines."""

    def errors(name: str) -> np.ndarray:
        return 100 * np.abs(np.concatenate([fit[name] for fit in fits]))

    prompt, token = errors("prompt_errors"), errors("token_errors")
    worst_of_lines = [100 * np.abs(fit["line_errors"]).max() for fit in fits]
    return (
        f"Of all kinds together, the median error is {np.median(prompt):.1f} % for prompt times "
        f"and {np.median(token):.1f} % for token times; the worst are {prompt.max():.1f} % and "
        f"{token.max():.1f} %. Straight lines miss by up to {min(worst_of_lines):.0f} to "
        f"{max(worst_of_lines):.0f} %, depending on the kind."
    )


PAGE = "docs/replicas.md"
FITS = ["faro_lib/workload/gpus.yaml"]
PARTS = [
    Part(PAGE, "fits", FITS, lambda _: table(entries())),
    Part(PAGE, "finding", FITS, lambda _: finding(entries())),
]

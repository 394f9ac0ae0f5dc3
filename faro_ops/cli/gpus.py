"""`faro gpus`: the measured GPUs, and replicas from measurements of one's own."""

import json
from statistics import median
from typing import Annotated, Any

import typer

from faro_ops.cli.shared import text_table


def gpus(
    runs: Annotated[
        str | None,
        typer.Argument(help="CSV of measured runs, to which replicas are fitted."),
    ] = None,
) -> None:
    """List the GPUs that a table of jobs can name, or fit replicas to your own measurements.

    With a file, the last lines are the replicas, for the column `replica` of the table of jobs.
    """
    from faro_lib.workload.replicas import measured_gpus
    from faro_ops.advise.calibrate.gpus import fit_gpus, read_runs

    if runs is None:
        entries = list(measured_gpus().values())
    else:
        entries = [fit.to_dict() for fit in fit_gpus(read_runs(runs))]
    print(text_table([_cells(entry) for entry in entries]))
    if runs is not None:
        for entry in entries:
            print(f"{'/'.join(_names(entry))}: {json.dumps(entry['replica'])}")


def _names(entry: dict[str, Any]) -> list[str]:
    return [entry["gpu"], entry["model"], str(entry["tensor_parallel"])]


def _cells(entry: dict[str, Any]) -> dict[str, str]:
    """A row of the table; errors are of points that were left out in turn."""
    gpu, model, parallel = _names(entry)
    errors = [abs(error) for error in entry["prompt_errors"] + entry["token_errors"]]
    return {
        "gpu": gpu,
        "model": model,
        "tensor_parallel": parallel,
        "largest batch": str(entry["largest_batch"]),
        "longest prompt": str(entry["longest_prompt"]),
        "KV cache (tokens)": str(entry["replica"]["cache_tokens"]),
        "median error": f"{100 * median(errors):.1f} %",
        "worst": f"{100 * max(errors):.1f} %",
    }

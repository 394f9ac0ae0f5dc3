"""`faro recommend`: replicas for the minutes to come, and how many a promise needs, from counts that one has."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import Annotated

import typer

OUT_OF_REACH = 3  # exit status: the SLOs cannot be kept with this capacity


def recommend(
    workload: Annotated[str | None, typer.Option(help="Counts: a CSV with minute, job, requests[, day].")] = None,
    prometheus: Annotated[str | None, typer.Option(help="Counts: the address of a Prometheus server.")] = None,
    prometheus_token: Annotated[str | None, typer.Option(help="File of a bearer token for it.")] = None,
    query: Annotated[str | None, typer.Option(help="PromQL of a minute's requests, one series a job.")] = None,
    label: Annotated[str | None, typer.Option(help="The label that names the job.")] = None,
    journal: Annotated[str | None, typer.Option(help="Counts: the journal of `faro run`.")] = None,
    hours: Annotated[int | None, typer.Option(help="How far back Prometheus is asked.  [default: 24]")] = None,
    jobs: Annotated[str | None, typer.Option(help="Promises and service times, .csv or .yaml.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Capacity in cores; by default what is needed.")] = None,
    curve: Annotated[bool, typer.Option("--curve", help="Replay the last day at several sizes.")] = False,
    violations: Annotated[float, typer.Option(help="Share of requests that may violate their SLO.")] = 0.01,
    objective: Annotated[str, typer.Option(help="What is maximised.")] = "Sum",
    forecaster: Annotated[str | None, typer.Option(help="By default ar; persistence if there is one day.")] = None,
    dispatch: Annotated[str, typer.Option(help="least-outstanding, or router (the paper's).")] = "least-outstanding",
    at: Annotated[
        int | None, typer.Option(help="Decide after so many minutes of the last day, not at its end.")
    ] = None,
    plugin: Annotated[list[str] | None, typer.Option(help="A file of yours that registers what you add.")] = None,
    plot: Annotated[str | None, typer.Option(help="Draw the curve into this .png or .html.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> int:
    """Say how many replicas each job should have now and why, and how many keep the SLOs over a day.

    Exit status: 0; 2 bad input; 3 this capacity cannot keep the SLOs; 130 interrupted.
    """
    from faro_lib import recommend as advice
    from faro_lib.registry import load_plugins
    from faro_lib.simulate import ServingModel

    if plot is not None:
        _check_picture(Path(plot))
    serving_model = ServingModel(dispatch)
    load_plugins(plugin or [])
    if sum(source is not None for source in (workload, prometheus, journal)) != 1:
        raise ValueError("give one of --workload FILE.csv, --prometheus URL and --journal FILE")
    of_prometheus = {"--query": query, "--hours": hours, "--label": label, "--prometheus-token": prometheus_token}
    for option, value in of_prometheus.items():
        if prometheus is None and value is not None:
            raise ValueError(f"{option} is for --prometheus, which is not given")
    if workload is not None:
        history = advice.history_from_csv(workload, jobs, at)
    elif journal is not None:
        history = advice.history_from_journal(journal, jobs, at)
    else:
        if query is None:
            raise ValueError("--prometheus needs --query, e.g. 'sum by (job_name) (increase(http_requests_total[1m]))'")
        history = advice.history_from_prometheus(
            str(prometheus), query, jobs, hours=24 if hours is None else hours, label=label, token_path=prometheus_token
        )
    if history.missing:
        _tell(f"{history.missing} counts are missing: bridged by straight lines for learning, missing for deciding")
    found = advice.recommend(
        history, replicas, with_curve=curve or plot is not None, violations=violations, objective=objective,
        forecaster=forecaster, serving_model=serving_model, report=_tell,
    )  # fmt: skip
    if plot is not None:
        _draw(found, Path(plot))
    print(json_format.dumps(found.told()) if as_json else _text(found))
    return 0 if found.reached else OUT_OF_REACH


def _check_picture(path: Path) -> None:
    """Refuse now what could not be written after the replay."""
    from faro_lib.files import check_writable

    if path.suffix not in (".png", ".html"):
        raise ValueError(f"plot={str(path)!r} is not a picture; accepted: a .png or a .html file")
    if not path.parent.is_dir():
        raise ValueError(f"plot={str(path)!r}: there is no folder {str(path.parent)!r}; make it, or name another")
    try:
        check_writable(path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _text(found) -> str:
    """A table of the jobs, then the curve."""
    rows = found.advice.rows()
    width = max(4, *(len(row["job"]) for row in rows))
    lines = [f"{'job':<{width}} replicas  requests/s (80 %)    predicted      SLO  why"]
    for row in rows:
        low, high = row["prediction_interval_rps"]
        rate = f"{row['forecast_rps']:.1f} ({low:.1f}-{high:.1f})"
        latency = "no end" if row["predicted_latency_s"] is None else f"{1000 * row['predicted_latency_s']:.0f} ms"
        slo = f"{1000 * row['slo_s']:.0f} ms"
        lines.append(f"{row['job']:<{width}} {row['replicas']:>8}  {rate:<20} {latency:>9} {slo:>8}  {row['why']}")
    lines.append(f"{found.advice.used:g} of {found.advice.capacity:g} cores used")
    if found.curve is not None:
        from faro_lib.figures.capacity import bars, notes

        said = notes(found.violations, found.knee, found.needed)
        lines += ["", "   cores  SLO violations over the replayed day", bars(found.curve, said)]
        if found.needed is None:
            lines.append(f"no size that was tried keeps {100 * found.violations:g} %")
    return "\n".join(lines)


def _draw(found, path: Path) -> None:
    """The curve as a picture, or in a page of its own with the table below it."""
    from faro_lib.figures import use_style
    from faro_lib.figures.capacity import capacity_curve
    from faro_lib.files import atomic_write
    from faro_lib.report import page_of

    use_style()
    figure = capacity_curve(found.curve, found.violations, found.knee, found.needed)
    with atomic_write(path) as partial:
        if path.suffix == ".png":
            figure.savefig(partial)
        else:
            partial.write_text(page_of(figure, "How many replicas?", _text(found)), encoding="utf-8")

"""`faro recommend`: replicas for the next minutes, and the capacity that the SLOs require, from recorded load."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from faro_ops.cli import shared
from faro_ops.cli.shared import milliseconds, option, say, text_table

if TYPE_CHECKING:
    from pandas import DataFrame

    from faro_ops.recommend.recommendation import Recommendation

OUT_OF_REACH = 3  # exit status if the capacity does not meet the SLOs
NEXT = "next: introduce them step by step, as docs/adopt.md says (Adopting Faro step by step)"
BAR_WIDTH = 40  # length in characters of the longest bar when the curve is printed as a bar chart


def recommend(
    workload: Annotated[
        str | None,
        option("Counts from a .csv, .csv.gz, .parquet or -: job, requests, minute[, day] or time."),
    ] = None,
    prometheus: shared.PrometheusAddress = None,
    prometheus_token: shared.PrometheusToken = None,
    query: Annotated[
        str | None, option("PromQL for requests per minute, one series per job.")
    ] = None,
    label: Annotated[str | None, option("Label of the series that names the job.")] = None,
    hours: Annotated[
        int | None, option("Length of the history from Prometheus.", default="24")
    ] = None,
    journal: Annotated[str | None, option("Counts from a journal of `faro run`.")] = None,
    jobs: shared.OptionalJobs = None,
    capacity: Annotated[
        int | None, shared.cores("Cores of the cluster.", default="what the SLOs need")
    ] = None,
    curve: Annotated[bool, option("Replay the last day at several capacities.", "--curve")] = False,
    max_violation_rate: Annotated[
        float | None,
        option(
            "Accepted share of each job's requests that miss its SLO.", default="1 - its quantile"
        ),
    ] = None,
    objective: Annotated[str, option("Objective that the allocation maximises.")] = "Sum",
    forecaster: Annotated[str | None, option("Forecaster.", default="auto")] = None,
    dispatch: Annotated[
        str, option("least-outstanding, or round-robin (as in the paper).")
    ] = "least-outstanding",
    at: Annotated[
        str | None, option("Minute of the last day, HH:MM or ISO 8601.", default="at its end")
    ] = None,
    plugin: shared.Plugins = None,
    plot: Annotated[str | None, option("Draw the curve into this .png or .html file.")] = None,
    as_json: Annotated[bool, option("Print one JSON object instead of a table.", "--json")] = False,
) -> int:
    """Recommend replicas for each job, with forecasts and reasons.

    With --curve, also find the capacity that the SLOs need. Give one of --workload, --prometheus and --journal.

    Exit status: 0 success; 2 invalid input; 3 the cluster's capacity does not meet the SLOs; 130 interrupted.
    """
    # One long function, because typer reads the options from its signature and every part uses them.
    from faro_lib.registry import load_plugins
    from faro_lib.simulate import ServingModel
    from faro_ops.jobs_table import assumptions, read_sections
    from faro_ops.rayserve.spec import ongoing_limits
    from faro_ops.recommend.load_history import (
        history_from_csv,
        history_from_journal,
        history_from_prometheus,
    )
    from faro_ops.recommend.recommendation import LIVE
    from faro_ops.recommend.recommendation import recommend as recommendation_of

    if plot is not None:
        shared.check_picture(Path(plot))
    serving_model = LIVE if dispatch == LIVE.dispatch else ServingModel(dispatch)
    load_plugins(plugin or [])
    shared.check_one_source(workload, prometheus, journal)
    options = {
        "--query": query,
        "--hours": hours,
        "--label": label,
        "--prometheus-token": prometheus_token,
    }
    given = [name for name, value in options.items() if value is not None]
    if prometheus is None and given:
        raise ValueError(f"{given[0]} is for --prometheus, which is not given")
    if prometheus is not None and at is not None:
        raise ValueError(
            "--at is for --workload and --journal; with --prometheus, the history ends now"
        )
    if prometheus is not None:
        if query is None:
            raise ValueError(
                "--prometheus needs --query, e.g. 'sum by (job_name) (increase(http_requests_total[1m]))'"
            )
        history = history_from_prometheus(
            prometheus, query, jobs, hours=hours or 24, label=label, token_path=prometheus_token
        )
    elif workload is not None:
        history = history_from_csv(workload, jobs, at)
    else:
        history = history_from_journal(str(journal), jobs, at)
    if history.unobserved:
        say(
            f"no requests of {', '.join(history.unobserved)} are recorded; planned without requests"
        )
    if history.missing:
        say(
            f"{history.missing} counts are missing; they are interpolated for learning, and stay missing for decisions"
        )
    if jobs:
        serving_model = replace(
            serving_model, own_limits=ongoing_limits(history.jobs, read_sections(jobs, "serve"))
        )
    recommendation = recommendation_of(
        history,
        capacity,
        with_curve=curve or plot is not None,
        max_violation_rate=max_violation_rate,
        objective=objective,
        forecaster=forecaster,
        serving_model=serving_model,
        report=say,
    )
    if not jobs and not journal:
        usual = history.jobs[0]
        promise = f"an SLO of {milliseconds(usual.slo_s)} at p{100 * usual.quantile:g}"
        say(
            f"without --jobs, every job is assumed to have {promise} and a service time of {usual.service_time_s:g} s"
        )
    for line in assumptions(jobs) if jobs else []:
        say(line)
    if plot is not None:
        from faro_ops.recommend.figure import capacity_curve

        curve_of = partial(capacity_curve, recommendation.curve, recommendation.marks)
        shared.write_picture(Path(plot), curve_of, "How many replicas?", _text(recommendation))
    print(json.dumps(recommendation.to_dict()) if as_json else _text(recommendation))
    return 0 if recommendation.slo_met else OUT_OF_REACH


def _text(recommendation: Recommendation) -> str:
    """Format the recommendation as text: a table of jobs and, with --curve, SLO violations by capacity and by job."""
    from faro_lib.forecast import HORIZON_MINUTES

    advice, curve = recommendation.advice, recommendation.curve
    fixed, variations = recommendation.fixed, recommendation.variations
    rows = [
        {
            "job": row["job"],
            **(
                {}
                if recommendation.replicas_now is None
                else {"now": str(row["replicas_now"]).replace("None", "?")}
            ),
            "replicas": str(row["replicas"]),
            "requests/s (80 %)": "{:g} ({:g}-{:g})".format(
                *(
                    float(f"{rate:.3g}")
                    for rate in (row["forecast_rps"], *row["prediction_interval_rps"])
                )
            ),
            "predicted": milliseconds(row["predicted_tail_latency_s"]),
            "SLO": milliseconds(row["slo_s"]),
            "reason": row["reason"],
        }
        for row in recommendation.rows()
    ]
    lines = [
        f"plan for the next {HORIZON_MINUTES} minutes; these are not fixed counts",
        "",
        text_table(rows),
    ]
    lines += [f"{advice.used:g} of {advice.capacity:g} cores used"]
    if advice.used < advice.capacity and advice.slo_met.all():
        lines[-1] += "; more replicas would gain a job less than 0.01 utility (1 = SLO met)"
    if curve is not None and fixed is not None and variations is not None:
        from faro_lib.metrics.measures import share_of_accepted

        lines += [
            "",
            "late requests of the worst job if Faro changes the replicas; 100 % = as many as its SLO accepts",
        ]
        lines += [f"(the marked line: worst of {recommendation.replayed})", "", "   cores"]
        shares, marks = share_of_accepted(curve), recommendation.marks
        for row, share in zip(curve.to_dict("records"), shares):
            cores, bar = (
                row["capacity_cores"],
                "█" * round(BAR_WIDTH * share / max(shares.max(), 1e-9)) or "▏",
            )
            mark = f"  <- {marks[cores]}" if cores in marks else ""
            lines += [f"{cores:8d}  {bar} {_worst(row)}{mark}"]
        tables = recommendation, curve, fixed, variations
        lines += ["", *_fixed(*tables), "", *_conclusion(*tables)]
    return "\n".join(lines)


def _worst(row: dict[str, Any], prefix: str = "") -> str:
    """Return "71 % (ocr: 3.57 of 5 %)" if ocr, the worst job in `row`, has 3.57 % late requests and may have 5 %."""
    from faro_lib.metrics.measures import share_of_accepted
    from faro_ops.recommend.sizing import WORST

    job, rate, accepted = (row[f"{prefix}{name}"] for name in WORST)
    share = share_of_accepted({"slo_violation_rate": rate, "accepted_rate": accepted})
    return (
        f"{100 * share:.0f} % ({job}: {round(100 * rate, 2):g} of {round(100 * accepted, 4):g} %)"
    )


def _fixed(
    recommendation: Recommendation, curve: DataFrame, fixed: DataFrame, variations: DataFrame
) -> list[str]:
    """Format two tables that compare Faro with fixed replicas. One has a row per job, the other a row per case."""
    jobs, size = (
        list(zip(recommendation.advice.jobs, fixed.to_dict("records"))),
        recommendation.advice.capacity,
    )
    (own,) = curve.loc[curve["capacity_cores"] == size, "violation_rates"]
    rows = [
        {
            "job": job.name,
            f"late on {size:g} cores": _percent(own[job.name]),
            "accepted": f"{100 * row['accepted_rate']:.4g} %",
            "fixed replicas": str(row["replicas"] or "none"),
            "late with them": _percent(row["violation_rate"]),
        }
        | (
            {}
            if recommendation.replicas_now is None
            else {"late now": _percent(row["violation_rate_now"])}
        )
        | {f"fixed on {size:g}": str(row["replicas_on_all_cores"])}
        | {f"late with fixed on {size:g}": _percent(row["violation_rate_on_all_cores"])}
        for job, row in jobs
    ]
    lines = [text_table(rows)]
    for job, row in jobs:
        if not row["replicas"]:
            late = f"{100 * row['violation_rate']:.2g} % of its requests are late with the most"
            check = f"check service_time_s, service_scv and max_replicas ({job.max_replicas})"
            lines += [f"no number of replicas keeps the SLO of {job.name}: {late}; {check}"]
    cases = [
        {
            "case": row["case"],
            f"worst job if Faro scales on {size:g} cores": _worst(row),
            f"worst job with fixed on {size:g}": _worst(row, "fixed_"),
        }
        for row in variations.to_dict("records")
    ]
    return [
        *lines,
        "",
        "the last day, one random seed per case (small differences are chance)",
        "",
        text_table(cases),
    ]


def _conclusion(
    recommendation: Recommendation, curve: DataFrame, fixed: DataFrame, variations: DataFrame
) -> list[str]:
    """State whether the capacity is enough and how many cores suffice, for fixed replicas and for scaling by Faro."""
    size, required = recommendation.advice.capacity, recommendation.required_cores
    cores = sum(
        job.cores * count for job, count in zip(recommendation.advice.jobs, fixed["replicas"])
    )
    fits = bool((fixed["replicas"] > 0).all()) and cores <= size
    verdict = {
        (True, True): "enough with fixed replicas, and if Faro scales",
        (True, False): "enough with fixed replicas, but not if Faro scales",
        (False, True): "enough if Faro scales, but not with fixed replicas",
        (False, False): "not enough",
    }
    lines = [f"{size:g} cores are {verdict[fits, recommendation.slo_met]}"]
    if fits and recommendation.slo_met:
        scaling = variations["slo_violation_rate"] <= variations["accepted_rate"]
        scaling &= variations["fixed_slo_violation_rate"] > variations["fixed_accepted_rate"]
        lines[-1] += (
            f"; {' and '.join(variations['case'][scaling])}, only if Faro scales"
            if scaling.any()
            else ""
        )
    alone = f"{cores:g} cores in fixed replicas, chosen in hindsight, keep the SLOs over {fixed['minutes'][0] / 60:.3g} hours"
    alone += f"; without scaling, set the column `fixed on {size:g}`" if fits else ""
    if required is None:
        return [*lines, f"{alone}; Faro does not on {curve['capacity_cores'].max()} cores"]
    scaled = f"{required} cores or more keep the SLOs over {recommendation.replayed} if Faro scales"
    scaled += (
        ""
        if required < cores
        else "; where a load rises faster than a replica starts, set min_replicas"
    )
    return [*lines, alone, scaled, NEXT]


def _percent(rate: float) -> str:
    return "?" if rate != rate else f"{100 * rate:.2f} %"  # NaN: unknown

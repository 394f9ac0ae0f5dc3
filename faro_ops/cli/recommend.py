"""`faro recommend`: from recorded load, replicas for the next minutes and the required capacity."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from faro_ops.cli import shared
from faro_ops.cli.shared import milliseconds, option, text_table
from faro_ops.log import say

if TYPE_CHECKING:
    from faro_lib.simulate import ServingModel
    from faro_ops.advise.recommend.recommendation import Recommendation
    from faro_ops.advise.recommend.simulated_days import SimulatedDays
    from faro_ops.advise.sources.history import History

OUT_OF_REACH = 3  # exit status if the capacity does not meet the SLOs
NEXT = "next: introduce them step by step, as docs/adopt.md says (Adopting Faro step by step)"
BAR_WIDTH = 40  # length in characters of the longest bar when the curve is printed as a bar chart


def recommend(
    workload: Annotated[
        str | None,
        option(
            "Counts from a .csv, .csv.gz, .parquet or -: job, requests, minute[, day] or time. "
            "Or a log of requests: time, job."
        ),
    ] = None,
    prometheus: shared.PrometheusAddress = None,
    prometheus_token: shared.PrometheusToken = None,
    query: shared.ArrivalsQuery = None,
    burst_query: Annotated[
        str | None,
        option("PromQL for the requests of each job in 10 s, which shows bursts."),
    ] = None,
    label: shared.JobLabel = None,
    hours: Annotated[
        int | None, option("Length of the history from Prometheus.", default="24")
    ] = None,
    journal: Annotated[str | None, option("Counts from a journal of `faro run`.")] = None,
    jobs: shared.OptionalJobs = None,
    capacity: Annotated[
        int | None, shared.cores("Cores of the cluster.", default="what the SLOs need")
    ] = None,
    curve: Annotated[
        bool, option("Simulate the last day at several capacities.", "--curve")
    ] = False,
    sharing: Annotated[
        bool,
        option("Also the capacity if jobs shared replicas that hold several models.", "--sharing"),
    ] = False,
    max_violation_rate: Annotated[
        float | None,
        option(
            "Accepted share of each job's requests that miss its SLO.", default="1 - its quantile"
        ),
    ] = None,
    objective: Annotated[str, option("Objective that the allocation maximises.")] = "Sum",
    forecaster: Annotated[str | None, option("Forecaster.", default="auto")] = None,
    dispatch: Annotated[
        str, option("least-outstanding, random, or round-robin (as in the paper).")
    ] = "least-outstanding",
    at: Annotated[
        str | None, option("Minute of the last day, HH:MM or ISO 8601.", default="at its end")
    ] = None,
    at_random: shared.AtRandom = False,
    plugin: shared.Plugins = None,
    plot: Annotated[str | None, option("Draw the curve into this .png or .html file.")] = None,
    as_json: Annotated[bool, option("Print one JSON object instead of a table.", "--json")] = False,
) -> int:
    """Recommend replicas for each job, with forecasts and reasons.

    With --curve, also find the capacity that the SLOs need. Give one of --workload, --prometheus
    and --journal.

    Exit status: 0 success; 2 invalid input; 3 the cluster's capacity does not meet the SLOs; 130
    interrupted.
    """
    from faro_lib.registry import load_plugins
    from faro_lib.workload.log_traces import tell_counts
    from faro_ops.advise.recommend.recommendation import recommend as recommendation_of
    from faro_ops.advise.sources.history import (
        history_from_csv,
        history_from_journal,
        history_from_prometheus,
    )

    if plot is not None:
        shared.check_picture(Path(plot))
    load_plugins(plugin or [])
    shared.check_one_source(workload, prometheus, journal)
    of_prometheus = {
        "--query": query,
        "--burst-query": burst_query,
        "--hours": hours,
        "--label": label,
        "--prometheus-token": prometheus_token,
    }
    given = [name for name, value in of_prometheus.items() if value is not None]
    if prometheus is None and given:
        raise ValueError(f"{given[0]} is for --prometheus, which is not given")
    if prometheus is not None and at is not None:
        raise ValueError(
            "--at is for --workload and --journal; with --prometheus, the history ends now"
        )
    if prometheus is not None and query is None:
        raise ValueError(
            "--prometheus needs --query, "
            "e.g. 'sum by (job_name) (increase(http_requests_total[1m]))'"
        )
    serving_model = _serving_model(dispatch)

    if workload is not None:
        history = history_from_csv(workload, jobs, at, report=say, bursts=not at_random)
    elif journal is not None:
        history = history_from_journal(journal, jobs, at)
    else:
        history = history_from_prometheus(
            str(prometheus),
            str(query),
            jobs,
            hours=hours or 24,
            label=label,
            token_path=prometheus_token,
            burst_query=burst_query,
        )
    _say_what_is_missing(history)
    if at_random:
        history = history.at_random()
    if jobs:
        serving_model = replace(serving_model, own_limits=_own_limits(history, jobs))
    recommendation = recommendation_of(
        history,
        capacity,
        with_curve=curve or plot is not None,
        max_violation_rate=max_violation_rate,
        objective=objective,
        forecaster=forecaster,
        serving_model=serving_model,
        with_sharing=sharing,
        report=say,
        on_plan=_ignored if as_json else _print_plan,
    )
    if journal is None or jobs:  # a journal has the jobs with which its run began
        _say_what_is_assumed(history, jobs)
    if not (at_random or history.traces.arrival_s or burst_query):
        tell_counts(history.jobs, say)
    if plot is not None and recommendation.simulated is not None:
        from faro_ops.advise.recommend.figure import capacity_curve

        draw = partial(capacity_curve, recommendation.simulated.curve, recommendation.marks)
        shared.write_picture(Path(plot), draw, "How many replicas?", _text(recommendation))
    if as_json:
        print(json.dumps(recommendation.to_dict()))
    elif simulations := _after_plan(recommendation):
        print("", *simulations, sep="\n")
    return 0 if recommendation.slo_met else OUT_OF_REACH


def _serving_model(dispatch: str) -> ServingModel:
    """The model with which requests are simulated: a live service, or that of the paper."""
    from faro_lib.simulate import LIVE, ServingModel

    return LIVE if dispatch == LIVE.dispatch else ServingModel(dispatch)


def _own_limits(history: History, jobs: str) -> tuple[tuple[str, int], ...]:
    """(name, max_ongoing_requests) of each job whose section `serve` in the jobs' table sets it."""
    from faro_ops.jobs_table import read_sections
    from faro_ops.operate.rayserve.spec import ongoing_limits, serve_specs

    sections = read_sections(jobs, "serve")
    serve_specs(history.jobs, sections)  # raises if a section is invalid
    return ongoing_limits(history.jobs, sections)


def _say_what_is_missing(history: History) -> None:
    if history.unobserved:
        names = ", ".join(history.unobserved)
        say(f"no requests of {names} are recorded; planned without requests")
    if history.missing:
        say(
            f"{history.missing} counts are missing; they are interpolated for learning, "
            "and stay missing for decisions"
        )


def _say_what_is_assumed(history: History, jobs: str | None) -> None:
    """Log the defaults in place of what the jobs' table, if there is one, does not give."""
    from faro_ops.jobs_table import assumptions

    if jobs:
        for line in assumptions(jobs):
            say(line)
        return
    usual = history.jobs[0]
    promise = f"an SLO of {milliseconds(usual.slo_s)} at p{100 * usual.quantile:g}"
    say(
        f"without --jobs, every job is assumed to have {promise} "
        f"and a service time of {usual.service_time_s:g} s"
    )


# --- the printed page ---------------------------------------------------------------------------


def _text(recommendation: Recommendation) -> str:
    """The recommendation as text: a plan and, if days were simulated, what that shows."""
    shown = _after_plan(recommendation)
    return "\n".join([*_plan(recommendation), *([""] if shown else []), *shown])


def _print_plan(plan: Recommendation) -> None:
    """Print the plan at once, because simulations may follow that take minutes."""
    print("\n".join(_plan(plan)), flush=True)


def _ignored(plan: Recommendation) -> None:
    """With --json, the plan is part of the only document, which is printed at the end."""


def _after_plan(recommendation: Recommendation) -> list[str]:
    """What follows the plan: what the simulations show. Nothing if no day was simulated."""
    parts = []
    if simulated := recommendation.simulated:
        parts += [_curve(recommendation, simulated), _fixed(recommendation, simulated)]
        parts += [_variations(simulated), _conclusion(recommendation, simulated)]
    if recommendation.savings:
        parts.append(_sharing(recommendation))
    return "\n\n".join("\n".join(part) for part in parts).splitlines()


def _plan(recommendation: Recommendation) -> list[str]:
    """A table with the replicas of each job for the next minutes."""
    from faro_lib.forecast import HORIZON_MINUTES

    table = []
    for row in recommendation.rows():
        cells = {"job": row["job"]}
        if recommendation.replicas_now is not None:
            cells["now"] = "?" if row["replicas_now"] is None else str(row["replicas_now"])
        low, high = (_three_digits(rate) for rate in row["prediction_interval_rps"])
        cells |= {
            "replicas": _with_roles(row["replicas"], row["prefill_replicas"]),
            "requests/s (80 %)": f"{_three_digits(row['forecast_rps'])} ({low}-{high})",
            "predicted": milliseconds(row["predicted_tail_latency_s"]),
            "SLO": milliseconds(row["slo_s"]),
            "reason": row["reason"],
        }
        table.append(cells)
    advice = recommendation.advice
    used = f"{advice.used:g} of {advice.capacity:g} cores used"
    if advice.used < advice.capacity and advice.slo_met.all():
        used += "; more replicas would gain a job less than 0.01 utility (1 = SLO met)"
    return [
        f"plan for the next {HORIZON_MINUTES} minutes; these are not fixed counts",
        "",
        text_table(table),
        used,
    ]


def _with_roles(replicas: int, prefill: int | None) -> str:
    """The replicas of a job and, if some do prefill only, how many have which role."""
    if not prefill:
        return str(replicas)
    return f"{replicas} = {prefill} prefill + {replicas - prefill} decode"


def _curve(recommendation: Recommendation, simulated: SimulatedDays) -> list[str]:
    """A bar chart of the worst job's violations at each simulated capacity."""
    from faro_ops.advise.recommend.sizing import share_of_accepted

    shares = share_of_accepted(simulated.curve)
    longest = max(shares.max(), 1e-9)
    lines = [
        "late requests of the worst job if Faro changes the replicas; "
        "100 % = as many as its SLO accepts",
        f"(the marked line: worst of {simulated.days})",
        "",
        "   cores",
    ]
    for row, share in zip(simulated.curve.to_dict("records"), shares):
        cores = row["capacity_cores"]
        bar = "█" * round(BAR_WIDTH * share / longest) or "▏"
        mark = recommendation.marks.get(cores)
        line = f"{cores:8d}  {bar} {_worst(row)}"
        lines.append(f"{line}  <- {mark}" if mark else line)
    return lines


def _fixed(recommendation: Recommendation, simulated: SimulatedDays) -> list[str]:
    """A table that compares Faro with fixed replicas, job by job."""
    size = f"{simulated.capacity:g}"
    at_size = simulated.curve["capacity_cores"] == simulated.capacity
    (with_faro,) = simulated.curve.loc[at_size, "violation_rates"]  # {job: rate}
    table = []
    without_count = []  # lines about jobs whose SLO no number of replicas keeps
    for job, row in zip(recommendation.advice.jobs, simulated.fixed.to_dict("records")):
        cells = {
            "job": job.name,
            f"late on {size} cores": _percent(with_faro[job.name]),
            "accepted": f"{100 * row['accepted_rate']:.4g} %",
            "fixed replicas": str(row["replicas"] or "none"),
            "late with them": _percent(row["violation_rate"]),
        }
        if recommendation.replicas_now is not None:
            cells["late now"] = _percent(row["violation_rate_now"])
        cells[f"fixed on {size}"] = str(row["replicas_on_all_cores"])
        cells[f"late with fixed on {size}"] = _percent(row["violation_rate_on_all_cores"])
        table.append(cells)
        if not row["replicas"]:
            without_count.append(
                f"no number of replicas keeps the SLO of {job.name}: "
                f"{100 * row['violation_rate']:.2g} % of its requests are late with the most; "
                f"check service_time_s, service_scv and max_replicas ({job.max_replicas})"
            )
    return [text_table(table), *without_count]


def _variations(simulated: SimulatedDays) -> list[str]:
    """A table that compares Faro with fixed replicas under more load, and without a replica."""
    size = f"{simulated.capacity:g}"
    cases = [
        {
            "case": row["case"],
            f"worst job if Faro scales on {size} cores": _worst(row),
            f"worst job with fixed on {size}": _worst(row, "fixed_"),
        }
        for row in simulated.variations.to_dict("records")
    ]
    return [
        "the last day, one random seed per case (small differences are chance)",
        "",
        text_table(cases),
    ]


def _conclusion(recommendation: Recommendation, simulated: SimulatedDays) -> list[str]:
    """Whether the capacity is enough and how many cores suffice, with fixed replicas and Faro."""
    size = simulated.capacity
    fixed = simulated.fixed
    cores = sum(
        job.cores * count for job, count in zip(recommendation.advice.jobs, fixed["replicas"])
    )
    fits = bool((fixed["replicas"] > 0).all()) and cores <= size
    verdicts = {
        (True, True): "enough with fixed replicas, and if Faro scales",
        (True, False): "enough with fixed replicas, but not if Faro scales",
        (False, True): "enough if Faro scales, but not with fixed replicas",
        (False, False): "not enough",
    }
    verdict = f"{size:g} cores are {verdicts[fits, simulated.slo_met]}"
    if fits and simulated.slo_met:
        only_scaling = _cases_that_need_scaling(simulated)
        if only_scaling:
            verdict += f"; {' and '.join(only_scaling)}, only if Faro scales"

    judged = (
        "both are judged alike: they begin a day with the same replicas, "
        f"and each job keeps its SLO on each simulated day ({simulated.days.rstrip(',')})"
    )
    alone = f"{cores:g} cores in fixed replicas, chosen in hindsight, keep the SLOs"
    if fits:
        alone += f"; without scaling, set the column `fixed on {size:g}`"
    required = simulated.required_cores
    if required is None:
        most = simulated.curve["capacity_cores"].max()
        return [verdict, judged, f"{alone}; Faro does not on {most} cores"]
    scaled = f"{required} cores or more keep the SLOs if Faro scales"
    if required >= cores:
        scaled += "; where a load rises faster than a replica starts, set min_replicas"
    return [verdict, judged, alone, scaled, NEXT]


def _sharing(recommendation: Recommendation) -> list[str]:
    """A table of the capacity that the SLOs need by models per replica."""
    alone = recommendation.savings[0].cores
    table = []
    for one in recommendation.savings:
        saved = f"{1 - one.cores / alone:.0%}" if alone and one.cores else ""
        table.append(
            {
                "models per replica": str(one.models),
                "required cores": str(one.cores or "none"),
                "saved": saved,
            }
        )
    return [
        "required on the last day, if jobs shared replicas (docs/sharing.md: when is this wise?)",
        "",
        text_table(table),
    ]


def _cases_that_need_scaling(simulated: SimulatedDays) -> list[str]:
    """The variations in which Faro keeps the worst job's SLO, and fixed replicas do not."""
    table = simulated.variations
    with_faro = table["slo_violation_rate"] <= table["accepted_rate"]
    with_fixed = table["fixed_slo_violation_rate"] <= table["fixed_accepted_rate"]
    return table["case"][with_faro & ~with_fixed].tolist()


def _worst(row: dict[str, Any], prefix: str = "") -> str:
    """The worst job of a row as text, such as "71 % (ocr: 3.57 of 5 %)".

    Here ocr has 3.57 % late requests and may have 5 %.
    """
    from faro_ops.advise.recommend.sizing import WORST, share_of_accepted

    job, rate, accepted = (row[f"{prefix}{name}"] for name in WORST)
    share = share_of_accepted({"slo_violation_rate": rate, "accepted_rate": accepted})
    late = f"{round(100 * rate, 2):g} of {round(100 * accepted, 4):g} %"
    return f"{100 * share:.0f} % ({job}: {late})"


def _three_digits(rate: float) -> str:
    return f"{float(f'{rate:.3g}'):g}"


def _percent(rate: float) -> str:
    return "?" if math.isnan(rate) else f"{100 * rate:.2f} %"

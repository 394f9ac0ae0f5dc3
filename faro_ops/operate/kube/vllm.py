"""The queries of a service of vLLM, from the names of its metrics.

The names and bucket bounds are those that vLLM documents
(docs.vllm.ai, "Production Metrics" and "Metrics"). The time per output token is taken from the
histogram with one value per request, as the SLO of `workload.replicas.Continuous` counts it.
"""

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from faro_lib.workload import Job
from faro_lib.workload.replicas import Continuous
from faro_ops.operate.kube.deployment_metrics import WINDOW

VLLM = "vllm"  # key of `deployment.queries` with the labels that select the service's pods
FIRST_TOKEN = "vllm:time_to_first_token_seconds"
PER_TOKEN = "vllm:request_time_per_output_token_seconds"
END_TO_END = "vllm:e2e_request_latency_seconds"
# Upper bounds of the histograms' buckets in seconds.
FIRST_TOKEN_BOUNDS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0),
    *(2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
PER_TOKEN_BOUNDS_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0),
    *(2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)


def with_vllm(job: Job, section: Mapping[str, Any]) -> dict[str, Any]:
    """The section `deployment.queries` of a job, with the queries that `vllm` stands for.

    Queries that the section states itself take precedence. ValueError if `vllm` is no text, or the
    job generates no tokens.
    """
    given = dict(section)
    if VLLM not in given:
        return given
    labels = given.pop(VLLM)
    place = f"job {job.name!r}: deployment.queries.{VLLM}={labels!r}"
    if not isinstance(labels, str) or "{" in labels:
        raise ValueError(f"{place} must be labels without braces, such as 'namespace=\"prod\"'")
    if not isinstance(job.replica, Continuous):
        raise ValueError(f"{place} needs a replica of kind continuous, not {job.replica.kind}")
    return queries(job, job.replica, labels) | given


def queries(job: Job, replica: Continuous, labels: str) -> dict[str, str]:
    """The PromQL queries of a job, by field of `deployment_metrics.Queries`."""
    waiting, running = (
        f"sum(vllm:num_requests_{one}{{{labels}}})" for one in ("waiting", "running")
    )
    quantiles = {
        name: _quantile(job.quantile, metric, labels)
        for name, metric in (("first_token_s", FIRST_TOKEN), ("per_token_s", PER_TOKEN))
    }
    found = {
        "requests": _count(END_TO_END, labels),
        "ongoing": f"{running} + {waiting}",
        **quantiles,
    }
    limits_s = (job.slo_s, job.slo_s / (replica.per_token_weight or 1))
    if replica.slo_on == "both":
        later = f"{replica.per_token_weight:g} * {_mean(PER_TOKEN, labels)}"
        first = _mean(FIRST_TOKEN, labels)
        # The larger of the two means: the comparison leaves out a first one that is smaller.
        found["latency_mean_s"] = f"({first} >= {later}) or {later}"
        met = _met_both(limits_s, labels)
    else:
        metric = {"first_token": FIRST_TOKEN, "per_token": PER_TOKEN, "end_to_end": END_TO_END}
        limited = metric[replica.slo_on]
        found["latency_mean_s"] = _mean(limited, labels)
        found["latency_s"] = _quantile(job.quantile, limited, labels)
        met = ""
    return found | ({"met_slo": met} if met else {})


def _count(metric: str, labels: str) -> str:
    return f"sum(increase({metric}_count{{{labels}}}[{WINDOW}]))"


def _mean(metric: str, labels: str) -> str:
    total, count = (f"sum(rate({metric}_{of}{{{labels}}}[{WINDOW}]))" for of in ("sum", "count"))
    return f"{total} / {count}"


def _quantile(quantile: float, metric: str, labels: str) -> str:
    buckets = f"sum by (le) (rate({metric}_bucket{{{labels}}}[{WINDOW}]))"
    return f"histogram_quantile({quantile:g}, {buckets})"


def _met_both(limits_s: tuple[float, float], labels: str) -> str:
    """The requests that surely met both limits: those that met each, less all requests.

    Two histograms do not say which requests missed both. A limit between two bounds counts as the
    lower one. "" if a limit is below every bound.
    """
    met = []
    bounds_s = (FIRST_TOKEN_BOUNDS_S, PER_TOKEN_BOUNDS_S)
    for metric, of_metric_s, limit_s in zip((FIRST_TOKEN, PER_TOKEN), bounds_s, limits_s):
        place = bisect_right(of_metric_s, limit_s * (1 + 1e-9))
        if not place:
            return ""
        bound = f'le="{of_metric_s[place - 1]}"'
        selected = ",".join(part for part in (labels, bound) if part)
        met.append(f"sum(increase({metric}_bucket{{{selected}}}[{WINDOW}]))")
    return f"clamp_min({' + '.join(met)} - {_count(END_TO_END, labels)}, 0)"

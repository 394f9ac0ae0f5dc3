"""The Grafana dashboard: what each job was promised, what it gets, and why."""

from __future__ import annotations

import json

# (title, unit, [(query, legend)])
PANELS = (
    (
        "Capacity and use",
        "short",
        [("max(faro_capacity_cores)", "capacity, cores"), ("max(faro_used_cores)", "asked for, cores")],
    ),
    (
        "Replicas",
        "short",
        [("max by (job) (faro_running)", "{{job}}"), ("max by (job) (faro_target)", "{{job}}, asked for")],
    ),
    (
        "Latency, measured and predicted",
        "s",
        [
            ("max by (job) (faro_measured_p99_seconds)", "{{job}}"),
            ("max by (job) (faro_predicted_p99_seconds)", "{{job}}, predicted"),
        ],
    ),
    (
        "Requests a second, measured and forecast",
        "reqps",
        [
            ("max by (job) (faro_arrivals_per_minute) / 60", "{{job}}"),
            ("max by (job) (faro_forecast_rps)", "{{job}}, forecast"),
        ],
    ),
    ("Utility", "percentunit", [("max by (job) (faro_utility)", "{{job}}")]),
    ("Refused at the door", "percentunit", [("max by (job) (faro_drop_ratio)", "{{job}}")]),
    ("Reasons", "short", [("sum by (reason) (increase(faro_reasons_total[5m]))", "{{reason}}")]),
    (
        "Failures; time of a decision",
        "short",
        [
            ("sum by (reason) (increase(faro_failures_total[5m]))", "{{reason}}"),
            ("histogram_quantile(0.99, sum by (le) (rate(faro_decision_seconds_bucket[5m])))", "decision, p99, s"),
        ],
    ),
)
SOURCE = {"type": "prometheus", "uid": "${source}"}


def dashboard() -> str:
    """As JSON; the data source is chosen in Grafana."""
    panels = []
    for place, (title, unit, queries) in enumerate(PANELS):
        panels.append(
            {
                "id": place + 1,
                "type": "timeseries",
                "title": title,
                "datasource": SOURCE,
                "gridPos": {"x": 12 * (place % 2), "y": 8 * (place // 2), "w": 12, "h": 8},
                "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
                "targets": [
                    {"refId": chr(65 + n), "datasource": SOURCE, "expr": query, "legendFormat": legend}
                    for n, (query, legend) in enumerate(queries)
                ],
            }
        )
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return json.dumps(
        {
            "uid": "faro",
            "title": "Faro",
            "tags": ["faro"],
            "schemaVersion": 39,
            "refresh": "15s",
            "time": {"from": "now-1h", "to": "now"},
            "templating": {"list": [source]},
            "panels": panels,
        },
        indent=1,
    )

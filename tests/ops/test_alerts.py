"""The alerts of Faro: each fires when it should and not otherwise, with the right labels."""

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import yaml
from kube_things import objects
from live_things import JOBS
from observations import observed
from test_prometheus import prometheus_in

from faro_lib.control.tick import Step
from faro_lib.protocol import Plan
from faro_ops.operate.export.exporter import DECILES, Exporter, MinuteScores
from faro_ops.operate.kube.manifests import RULES, ManifestSpec
from faro_ops.operate.limits.bounds import HAND_BACK, KEEP_FLOOR
from faro_ops.protocol import live_plan

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"),
    reason="promtool is not there: on Debian, apt-get install prometheus",
)
JOB = '{inference_job="a"}'
DAY = 24 * 60


def minutes(missed: str) -> dict[str, str]:
    """A job whose latency is known in each minute; `missed` (a step of a series) miss the SLO."""
    counters = {
        f"faro_slo_minutes_total{JOB}": "0+1x{n}",
        f"faro_slo_missed_minutes_total{JOB}": f"0+{missed}x{{n}}",
    }
    return {f"faro_slo_error_budget_ratio{JOB}": "0.01+0x{n}"} | counters


def replicas(running: int, least: int | None = 3) -> dict[str, str]:
    """A job whose plan asks for six replicas, of which `least` must run; None in a dry run."""
    values = {"running": running, "desired": 6} | ({} if least is None else {"least": least})
    return {f"faro_{name}_replicas{JOB}": f"{count}+0x{{n}}" for name, count in values.items()}


def labelled(label: str, value: str, series: dict[str, str]) -> dict[str, str]:
    """The series with one more label, such as `job`, the controller that Prometheus scrapes."""
    return {
        (key if "{" in key else f"{key}{{}}")
        .replace("{", f'{{{label}="{value}",')
        .replace(",}", "}"): text
        for key, text in series.items()
    }


def state(name: str) -> dict[str, str]:
    """A job in this state of the board of job states."""
    return {f'faro_job_state{{inference_job="a",state="{name}"}}': "1+0x{n}"}


def load(growth: float) -> dict[str, str]:
    """A load of 40 cores that grows by `growth` each five minutes."""
    return {"faro_capacity_cores": "100+0x{n}", "faro_offered_cores": f"40+{growth}x{{n}}"}


def decided(reason: str) -> dict[str, str]:
    return {f'faro_decisions_total{{inference_job="a",reason="{reason}"}}': "0+1x{n}"}


# alert: (series with which it fires, series with which it does not, minutes until it is asked)
CASES = {
    "FaroSloBurnsFast": (minutes("0.2"), minutes("0.1"), 70),
    "FaroSloBurnsSlowly": (minutes("0.07"), minutes("0.05"), 370),
    "FaroControllerSilent": (
        {"faro_ticks_total{}": "7+0x{n}"},
        {"faro_ticks_total{}": "0+1x{n}"},
        30,
    ),
    "FaroPlanNotCarriedOut": (replicas(2), replicas(3), 15),
    "FaroTargetContested": (decided("contested"), decided("drift-corrected"), 15),
    "FaroCapacityStale": (
        {"faro_capacity_age_seconds{}": "100+60x{n}"},
        {"faro_capacity_age_seconds{}": "45+0x{n}"},
        15,
    ),
    "FaroJobDataMissing": (state("missing"), state("contested"), 15),
    "FaroJobFailing": (state("failing"), state("fine"), 10),
    "FaroJobNotScaled": (state("misconfigured"), state("fine"), 15),
    "FaroSettingsRejected": (
        {"faro_settings_rejected{}": "1+0x{n}"},
        {"faro_settings_rejected{}": "0+0x{n}"},
        15,
    ),
    "FaroCapacityShort": (load(2 / 72), load(0.5 / 72), 10 * DAY),
}


def firing(alert: str, series: dict[str, str], after_min: int, folder, labels: str = "{}") -> bool:
    """Whether promtool finds the alert firing for the controller of `labels`, and for no other."""
    summary = [
        rule for group in rules()["groups"] for rule in group["rules"] if rule.get("alert") == alert
    ]
    assert len(summary) == 1
    alerts = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
    step = 20 if after_min > DAY else 1
    values = [
        {"series": name, "values": text.format(n=after_min // step + 1)}
        for name, text in series.items()
    ]
    case = {
        "interval": f"{step}m",
        "input_series": values,
        "promql_expr_test": [
            {
                "expr": f"count by (namespace, job) ({alerts})",
                "eval_time": f"{after_min}m",
                "exp_samples": [{"labels": labels, "value": 1}],
            }
        ],
    }
    file = folder / "test.yml"
    file.write_text(
        yaml.safe_dump(
            {"rule_files": [str(RULES)], "evaluation_interval": f"{step}m", "tests": [case]}
        )
    )
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 or "got:" in done.stdout + done.stderr, done.stdout + done.stderr
    return done.returncode == 0


def rules() -> dict:
    return yaml.safe_load(RULES.read_text())


@needs_promtool
@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_when_it_should_and_not_otherwise(alert, tmp_path):
    fires, silent, after_min = CASES[alert]
    assert firing(alert, fires, after_min, tmp_path)
    assert not firing(alert, silent, after_min, tmp_path)


@needs_promtool
@pytest.mark.parametrize("least", [2, None], ids=["between floor and ceiling", "dry run"])
def test_replicas_that_the_plan_does_not_demand_are_not_missed(least, tmp_path):
    assert not firing("FaroPlanNotCarriedOut", replicas(2, least), 15, tmp_path)


@needs_promtool
@pytest.mark.parametrize("alert", CASES)
@pytest.mark.parametrize("label", ["namespace", "job"])
def test_an_alert_fires_only_for_its_controller_although_another_has_a_job_of_the_same_name(
    label, alert, tmp_path
):
    """Controllers of two namespaces, or of two FaroPlans in one namespace."""
    fires, silent, after_min = CASES[alert]
    series = labelled(label, "x", silent) | labelled(label, "y", fires)
    assert firing(alert, series, after_min, tmp_path, labels=f'{{{label}="y"}}')


LIVES, DEAD = "0+1x{n}", "0+1x20"  # a dead controller exports nothing from the 21st minute on


@needs_promtool
@pytest.mark.parametrize("label", ["namespace", "job"])
@pytest.mark.parametrize(("after_min", "silent"), [(30, False), (40, True), (5 * DAY, True)])
def test_a_controller_that_is_gone_is_silent_although_another_lives(
    after_min, silent, label, tmp_path
):
    ticks = {"faro_ticks_total{}": ""}
    series = dict.fromkeys(labelled(label, "x", ticks), LIVES)
    # The step of long tests is 20 minutes, so that 20 steps are most of a day.
    series |= dict.fromkeys(labelled(label, "y", ticks), DEAD)
    fires = firing("FaroControllerSilent", series, after_min, tmp_path, labels=f'{{{label}="y"}}')
    assert fires is silent


@needs_promtool
def test_the_standby_of_a_dead_leader_does_not_make_its_controller_alive(tmp_path):
    ticks = {
        'faro_ticks_total{namespace="x",pod="leader"}': DEAD,
        'faro_ticks_total{namespace="x",pod="standby"}': "0+0x{n}",
        'faro_ticks_total{namespace="y",pod="leader"}': LIVES,
    }
    assert firing("FaroControllerSilent", ticks, 40, tmp_path, labels='{namespace="x"}')


@needs_promtool
def test_no_controller_at_all_is_silent_too(tmp_path):
    assert firing("FaroControllerSilent", {"other": "0+0x{n}"}, 30, tmp_path)


@needs_promtool
def test_a_capacity_that_is_not_measured_is_not_stale(tmp_path):
    series = {"faro_capacity_age_seconds{}": "NaN+0x{n}"}
    assert not firing("FaroCapacityStale", series, 15, tmp_path)


@needs_promtool
@pytest.mark.parametrize(("age", "fires"), [("301+60x{n}", True), ("30+0x{n}", False)])
def test_the_data_of_a_job_is_missing_by_its_age_too(age, fires, tmp_path):
    series = {f"faro_job_data_age_seconds{JOB}": age} | state("fine")
    assert firing("FaroJobDataMissing", series, 15, tmp_path) is fires


@needs_promtool
def test_the_prometheus_operator_gets_an_alert_for_a_controller_that_never_exported_a_metric(
    tmp_path,
):
    spec = ManifestSpec((), "", namespace="faro", name="b", monitor=True)
    (rule,) = (one for one in objects(spec, "monitor.yaml") if one["kind"] == "PrometheusRule")
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rule["spec"]))
    case = {
        "interval": "1m",
        "input_series": [
            {"series": 'faro_ticks_total{namespace="faro",job="a-controller"}', "values": "0+1x60"}
        ],
        "promql_expr_test": [
            {
                "expr": 'count by (namespace, job) (ALERTS{alertstate="firing"})',
                "eval_time": "30m",
                "exp_samples": [{"labels": '{namespace="faro",job="b-controller"}', "value": 1}],
            }
        ],
    }
    promtool_test(tmp_path, case, "rules.yml")


@needs_promtool
def test_a_controller_that_has_waited_for_its_capacity_does_not_make_it_short(tmp_path):
    # 30 minutes of 0 cores.
    waited = {"faro_capacity_cores": "0+0x30 100+0x{n}", "faro_offered_cores": "40+0.001x{n}"}
    assert not firing("FaroCapacityShort", waited, 180, tmp_path)


def test_every_alert_has_a_case():
    assert {
        rule["alert"] for group in rules()["groups"] for rule in group["rules"] if "alert" in rule
    } == set(CASES)


@needs_promtool
def test_the_error_budget_that_is_left_is_recorded_by_job(tmp_path):
    case = {
        "interval": "5m",
        "input_series": [
            {"series": name, "values": text.format(n=3 * 288)}
            for name, text in minutes("0.005").items()
        ],
        "promql_expr_test": [
            {
                "expr": "round(100 * faro:slo_error_budget_left:ratio28d)",
                "eval_time": "3d",
                "exp_samples": [{"labels": JOB, "value": 50}],
            }
        ],
    }
    promtool_test(tmp_path, case, str(RULES))


def promtool_test(folder, case: dict, rules_file: str):
    """Run one test of promtool in `folder`, and assert that it passes."""
    test = {
        "rule_files": [rules_file],
        "evaluation_interval": case["interval"],
        "tests": [case],
    }
    (folder / "t.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        ["promtool", "test", "rules", str(folder / "t.yml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def step_at(minute: int, requests: list, latency_s: list, deciles=None) -> Step:
    observation = observed(
        [1, 1],
        now_s=60.0 * minute,
        minute=minute,
        arrivals_per_min=np.array(requests, float)[:, None],
        tail_latency_s=np.array(latency_s),
    )
    plan = Plan(np.array([1, 1]), np.zeros(2), ("hold", "hold"), next_minute_deciles_rps=deciles)
    return Step(observation, plan, np.array([1, 1]), 0.01)


def least_replicas(exporter: Exporter) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/metrics", timeout=10) as answer:
        found = re.findall(
            r'^faro_least_replicas{inference_job="(\w+)"} (\S+)$',
            answer.read().decode(),
            re.MULTILINE,
        )
    return {job: float(value) for job, value in found}


def test_the_least_replicas_are_those_of_the_plan_and_none_in_a_dry_run():
    step = replace(step_at(1, [60, 60], [0.1, 0.1]), target=np.array([3, 2]))
    for applies, least in ((True, {"a": 3, "b": 2}), (False, {})):
        with closing(Exporter(JOBS, 0, applies=applies)) as exporter:
            exporter.step(step)
            assert least_replicas(exporter) == least


def test_the_least_replicas_of_a_job_with_an_hpa_are_its_last_floor():
    """Between two plans, ticks hold the bounds and have no floor."""

    def bounded(floor) -> Step:
        step = step_at(1, [60, 60], [0.1, 0.1])
        plan = replace(live_plan(step.plan), floor=None if floor is None else np.array(floor))
        observation = replace(step.observation, unbounded=np.zeros(2, bool))
        return replace(step, observation=observation, plan=plan, target=np.array([6, 2]))

    with closing(Exporter(JOBS, 0)) as exporter:
        exporter.step(bounded(None))
        assert least_replicas(exporter) == {}, "no bound has been set yet"
        exporter.step(bounded([2, 3]))
        assert least_replicas(exporter) == {"a": 2, "b": 2}, "a floor is at most its ceiling"
        exporter.step(bounded(None))
        exporter.step(bounded([KEEP_FLOOR, HAND_BACK]))
        assert least_replicas(exporter) == {"a": 2, "b": 0}, (
            "an HPA with its own bounds owes no replica"
        )


def test_a_minute_is_compared_with_the_slo_once_and_only_if_its_latency_is_known():
    scores = MinuteScores(JOBS)
    of = scores.of_new_minute(step_at(1, [60, 60], [0.1, 5.0]))
    assert of["faro_slo_minutes_total"].tolist() == [1, 1]
    assert of["faro_slo_missed_minutes_total"].tolist() == [0, 1]
    assert scores.of_new_minute(step_at(1, [60, 60], [0.1, 5.0])) == {}
    of = scores.of_new_minute(step_at(2, [np.nan, 0], [0.1, np.nan]))
    assert of["faro_slo_minutes_total"].tolist() == [0, 1], (
        "an idle minute keeps its SLO, an unknown one does not count"
    )


def test_the_score_of_a_forecast_is_its_crps_and_whether_the_interval_held_the_requests():
    scores = MinuteScores(JOBS)
    deciles = np.array([DECILES, DECILES + 9])
    assert "faro_forecast_minutes_total" in scores.of_new_minute(
        step_at(1, [60, 60], [0.1, 0.1], deciles)
    )
    scores.of_new_minute(step_at(2, [60, 60], [0.1, 0.1]))
    of = scores.of_new_minute(step_at(3, [30, 60], [0.1, 0.1]))
    assert of["faro_forecast_minutes_total"].tolist() == [1, 1]
    assert of["faro_forecast_covered_minutes_total"].tolist() == [1, 0]
    # A uniform forecast on [0, 1] has a CRPS of 1/12 at its median, and 8 + 1/3 at a distance of 8
    # below its lower end.
    assert of["faro_forecast_crps_rps_total"] == pytest.approx([1 / 12, 8.5 - 1 / 6], rel=0.15)
    assert not scores.of_new_minute(step_at(4, [30, 60], [0.1, 0.1]))[
        "faro_forecast_minutes_total"
    ].any()


@pytest.mark.slow
@needs_promtool
def test_in_a_real_prometheus_each_job_has_its_own_series_and_an_alert_fires(tmp_path):
    exporter = Exporter(JOBS, 0)
    for minute in range(1, 4):
        exporter.step(step_at(minute, [60, 60], [0.1, 5.0]))
    text = RULES.read_text().replace("for: 10m", "for: 1s").replace("interval: 5m", "interval: 1s")
    (tmp_path / "alerts.yml").write_text(text)
    scrape = {"job_name": "faro", "static_configs": [{"targets": [f"127.0.0.1:{exporter.port}"]}]}
    settings = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config = {
        "global": settings,
        "rule_files": [str(tmp_path / "alerts.yml")],
        "scrape_configs": [scrape],
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with closing(exporter), prometheus_in(tmp_path) as address:
        # Job a has its replica; job b loses its replica, which its plan keeps.
        lost = step_at(4, [60, 60], [0.1, 5.0])
        lost.observation.running[1] = 0
        exporter.step(lost)
        alerts = wait_for(address, 'ALERTS{alertname="FaroPlanNotCarriedOut",alertstate="firing"}')
        assert [one["metric"]["inference_job"] for one in alerts] == ["b"]
        running = wait_for(address, "max by (inference_job) (faro_running_replicas)")
        assert {one["metric"]["inference_job"]: one["value"][1] for one in running} == {
            "a": "1",
            "b": "0",
        }
        assert wait_for(address, "faro_running_replicas")[0]["metric"]["job"] == "faro"


def wait_for(address: str, query: str) -> list:
    """The result of a query once it has one."""
    url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        with urllib.request.urlopen(url, timeout=10) as answer:
            if result := json.load(answer)["data"]["result"]:
                return result
        time.sleep(0.5)
    raise AssertionError(f"no result of {query}")

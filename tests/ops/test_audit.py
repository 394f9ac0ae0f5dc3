"""`faro audit`: records in, calibrated services, a backcast, and a comparison of policies out."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import recorded_worlds as worlds

from faro_lib.workload import Job, Workload
from faro_lib.workload.replicas import SERIAL, Continuous
from faro_ops.advise.audit.audit import WAITING, Audit, audit
from faro_ops.advise.audit.backcast import (
    Service,
    backcast,
    calibration_of,
    prediction_interval,
    run_recorded,
    share_interval,
    steady_minutes,
)
from faro_ops.advise.calibrate import Calibration
from faro_ops.advise.calibrate.priors import CalibratedService
from faro_ops.advise.recommend.sizing import uniform_draws
from faro_ops.advise.sources.serving_history import serving_from_csv, serving_of
from faro_ops.cli import main
from studies.traces.files import write_jobs


def table_of(world: worlds.World, serving) -> pd.DataFrame:
    """The records as a table that `faro audit --workload` reads."""
    names = ["latency_mean_s", "latency_p50_s", "latency_p95_s", "latency_p99_s"]
    rows = []
    for n, job in enumerate(world.jobs):
        for minute in range(world.counts.shape[1]):
            cells = dict(zip(names, serving.latency_s[:, n, minute]))
            fixed = {"minute": minute, "job": job.name, "requests": world.counts[n, minute]}
            rows.append(fixed | {"replicas": int(serving.replicas[n, minute])} | cells)
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def recorded():
    world = worlds.world(1, wrong=2.0)
    return world, *worlds.recorded(world)


@pytest.fixture(scope="module")
def files(recorded, tmp_path_factory):
    """(a table of records, a table of jobs) of the recorded world."""
    world, serving, _ = recorded
    folder = tmp_path_factory.mktemp("audit")
    table_of(world, serving).to_csv(folder / "records.csv", index=False)
    write_jobs(world.jobs, folder / "jobs.yaml")
    return folder / "records.csv", folder / "jobs.yaml"


class TestRecords:
    def test_a_table_is_read_as_it_was_recorded(self, recorded, files):
        world, serving, _ = recorded
        read = serving_from_csv(*map(str, files))
        assert np.array_equal(read.history.traces.evaluation[0], world.counts)
        assert np.array_equal(read.replicas, serving.replicas)
        assert np.allclose(read.latency_s, serving.latency_s, equal_nan=True)
        assert np.isnan(read.levels[0]).all()
        assert np.allclose(read.levels[1:, 0], [0.5, 0.95, 0.99])

    def test_the_tail_is_the_column_of_each_jobs_own_quantile(self):
        jobs = Job("a", quantile=0.5), Job("b", quantile=0.99), Job("c", quantile=0.9)
        levels = np.array([[0.5] * 3, [0.99] * 3])
        latency_s = np.array([[[1.0]] * 3, [[2.0]] * 3])
        serving = serving_of(jobs, np.full((3, 1), 5.0), np.ones((3, 1)), levels, latency_s)
        assert np.array_equal(serving.tail_s, [[1.0], [2.0], [np.nan]], equal_nan=True)


class TestMeasurements:
    def test_rows_are_steady_minutes_with_one_replica_count_and_about_one_rate(self, recorded):
        _, serving, _ = recorded
        measured = steady_minutes(serving, 0)
        assert (measured.periods >= 5).all()
        counts = serving.history.traces.evaluation[0, 0]
        replicas = serving.replicas[0]
        for rate_rps, x in zip(measured.rate_rps, measured.replicas):
            assert np.abs(counts[replicas == x] / 60 / rate_rps - 1).min() < 0.1

    def test_a_service_with_few_steady_minutes_has_none(self):
        counts = np.full((1, 60), 50.0)
        levels = np.array([[0.99]])
        replicas = 1.0 + np.arange(60)[None] % 2
        serving = serving_of((Job("a"),), counts, replicas, levels, np.full((1, 1, 60), 0.2))
        assert steady_minutes(serving, 0) is None


class TestIntervals:
    def test_a_prediction_interval_holds_nine_of_ten_values(self):
        rng = np.random.default_rng(1)
        samples = rng.standard_normal((2000, 9))
        held = [
            low <= new <= high
            for *old, new in samples
            for low, _, high in [prediction_interval(np.array(old))]
        ]
        assert 0.88 < np.mean(held) < 0.92

    def test_an_interval_of_shares_stays_within_zero_and_one(self):
        low, middle, high = share_interval(np.array([0.0, 0.0, 0.0, 0.01]))
        assert 0 == low <= middle <= high < 0.1


def test_a_minute_without_a_recorded_latency_loses_nothing():
    job = Job("a")
    tail_s = np.array([[[2 * job.slo_s, np.nan]]])
    serving = serving_of(
        (job,), np.full((1, 2), 5.0), np.ones((1, 2)), np.array([[job.quantile]]), tail_s
    )
    reproduced = (SimpleNamespace(refusal=""),)
    audited = Audit(serving, reproduced, 1, {}, {}, np.zeros(2), np.zeros(2), slice(0, 2))
    assert audited.observed_lost() == 0.25


def recorded_service(job, minutes_s):
    """Records of one service on one replica with these tail latencies, one for each minute."""
    one = np.ones((1, len(minutes_s)))
    return serving_of(
        (job,), 600 * one, one, np.array([[job.quantile]]), np.array(minutes_s)[None, None]
    )


def test_a_minute_with_more_drops_than_the_slo_allows_is_late_and_loses_everything():
    serving = recorded_service(Job("a"), [0.1, np.inf, np.nan, np.inf])
    (service,) = backcast(serving, ["no advice"], WAITING, slice(0, 4))
    assert service.late_minutes == pytest.approx(2 / 3)
    audited = Audit(
        serving, (SimpleNamespace(refusal=""),), 1, {}, {}, np.zeros(4), np.zeros(4), slice(0, 4)
    )
    assert audited.observed_lost() == 0.5


def test_the_calibration_leaves_out_minutes_of_unknown_or_infinite_latency():
    counts = 50.0 + 25 * (np.arange(90) // 15)[None]
    latency_s = np.full((2, 1, 90), 0.2)
    latency_s[1, 0, ::3] = np.inf
    serving = serving_of(
        (Job("a"),), counts, np.ones((1, 90)), np.array([[np.nan], [0.99]]), latency_s
    )
    np.testing.assert_allclose(steady_minutes(serving, 0).values, 0.2)


def calibrated(service: CalibratedService, discrepancy=0.02) -> Calibration:
    """A calibration that is certain of `service`."""
    capacity_rps = np.full(3, service.capacity_rps)
    of_service = (service, {}, capacity_rps)
    return Calibration(
        "serial", {}, *of_service, (service,), capacity_rps, discrepancy, "calibrated", ""
    )


def test_a_constant_time_outside_the_replicas_is_added_to_every_simulated_latency():
    """Requests of 20 ms wait 60 ms in a gateway first; the SLO is 200 ms."""
    job = Job("a", slo_s=0.2, quantile=0.95, service_time_s=0.02, service_scv=0.5, model="a")
    one = np.ones((1, 20), int)
    workload = Workload((job,), np.full((1, 20), 1200))
    ran = run_recorded(workload, uniform_draws(workload, 99, WAITING), one, WAITING)
    tail_s = ran.served_tail_latency_s[None, :, :-1] + 0.06
    serving = serving_of(
        (job,), workload.requests_per_min.astype(float), one, np.array([[0.95]]), tail_s
    )
    known = calibrated(CalibratedService(SERIAL, 0.02, 0.5, overhead_s=0.06))
    (service,) = backcast(serving, [known], WAITING, slice(0, 20))
    assert not service.refusal
    assert service.inside > 0.7


@pytest.mark.filterwarnings("error")
def test_a_minute_without_requests_is_backcast_without_a_warning():
    job = Job("a", quantile=0.95)
    counts = np.full((1, 10), 60.0)
    one = np.ones((1, 10))
    counts[0, 3] = 0
    serving = serving_of((job,), counts, one, np.array([[0.95]]), 0.2 * one[None])
    (service,) = backcast(
        serving, [calibrated(CalibratedService(SERIAL, 0.18, 0.0))], WAITING, slice(0, 10)
    )
    assert np.flatnonzero(np.isnan(service.predicted_tail_s).any(axis=1)).tolist() == [3]


@pytest.mark.parametrize("slo_on", ["first_token", "per_token"])
def test_a_token_service_whose_slo_is_not_about_its_latency_is_refused(slo_on):
    job = Job("chat", replica=Continuous(0.01, 0.001, 0.0001, 8, 100, 200, slo_on=slo_on))
    refusal = calibration_of(recorded_service(job, [0.2]), 0, 16)
    assert refusal.startswith(f"its SLO is on {slo_on}")


def test_jobs_that_take_turns_with_one_replica_can_be_simulated():
    jobs = tuple(Job(f"job{n}") for n in range(10))
    workload = Workload(jobs, np.full((10, 10), 6))
    turns = np.eye(10, dtype=int)
    run = run_recorded(workload, uniform_draws(workload, 1, WAITING), turns, WAITING)
    assert run.requests.sum() == 600


@pytest.fixture
def reproduced(monkeypatch):
    """A function that audits jobs on one replica each, all of them reproduced.

    It returns the audit, the jobs of the plans, and the jobs that were simulated.
    """
    seen = {}

    def watched(*jobs):
        service = CalibratedService(SERIAL, 0.1, 0.0, overhead_s=0.1)
        found = SimpleNamespace(service=service, draws=(service,), discrepancy=0.0)
        nowhere = np.full(3, np.nan)
        services = tuple(
            Service(job, found, 1.0, 0.0, nowhere, nowhere, nowhere, "", "") for job in jobs
        )
        monkeypatch.setattr("faro_ops.advise.audit.backcast.calibration_of", lambda *_: found)
        monkeypatch.setattr("faro_ops.advise.audit.backcast.backcast", lambda *_: services)
        one = np.ones((len(jobs), 30))
        serving = serving_of(jobs, 6 * one, one, np.full((1, len(jobs)), 0.99), 0.2 * one[None])
        return (
            audit(serving, policies=(), report=lambda line: None),
            seen["planned"],
            seen["simulated"],
        )

    def measured(jobs, **_):
        seen["planned"] = jobs
        return "half-mmc"

    def ran(workload, *rest):
        seen["simulated"] = workload.jobs
        return run_recorded(workload, *rest)

    monkeypatch.setattr("faro_ops.advise.audit.audit.measure", measured)
    monkeypatch.setattr("faro_ops.advise.audit.backcast.run_recorded", ran)
    return watched


def test_the_time_outside_the_replicas_is_subtracted_once_from_the_slo_of_plans_and_of_simulations(
    reproduced,
):
    _, *known = reproduced(Job("a", slo_s=0.5))
    assert [jobs[0].slo_s for jobs in known] == [0.4, 0.4]


def test_the_utility_of_a_simulation_counts_the_time_outside_the_replicas(reproduced):
    """100 ms on a replica and 100 ms outside it, with an SLO of 150 ms."""
    audited, *_ = reproduced(Job("a", slo_s=0.15))
    assert audited.policies["recorded replicas"]["lost_utility"][1] == pytest.approx(0.25, abs=0.03)


def test_replicas_of_different_sizes_are_compared_in_cores(reproduced):
    audited, *_ = reproduced(Job("a", slo_s=0.5, cores=2.0), Job("b", slo_s=0.5))
    assert audited.policies["recorded replicas"]["cores"] == pytest.approx([3, 3, 3])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"forecaster": "typo"}, "forecaster='typo' is unknown"),
        ({"forecaster": "bayes"}, "needs a posterior"),
        ({"forecaster": "ar"}, "a forecaster needs at least one day"),
        ({"capacity": 1}, "capacity=1 cores cannot hold the minimum of 2 jobs"),
    ],
)
def test_what_cannot_succeed_is_refused_before_the_calibration(
    wrong, message, recorded, monkeypatch
):
    monkeypatch.setattr(
        "faro_ops.advise.audit.backcast.calibration_of", lambda *_: pytest.fail("calibrates")
    )
    with pytest.raises(ValueError, match=message):
        audit(recorded[1], **wrong, report=lambda line: None)


@pytest.mark.parametrize("single", [True, False])
def test_standing_still_is_compared_if_there_are_earlier_days(single, recorded, monkeypatch):
    compared = []
    monkeypatch.setattr("faro_ops.advise.audit.audit.factory_of", compared.append)
    history = replace(recorded[1].history, single_day=single)
    with pytest.raises(ValueError, match="cannot hold the minimum"):
        audit(replace(recorded[1], history=history), 1, report=lambda line: None)
    assert compared == ["FairShare", *([] if single else ["Static"]), "HPA", "Faro-Sum"]


def test_policies_plan_for_a_calibrated_service_without_the_latency_curve_of_the_table(reproduced):
    _, planned, _ = reproduced(Job("a", slo_s=0.5, latency_curve="curve.csv"))
    assert planned[0].latency_curve == ""


def test_an_audit_has_room_for_the_minimum_of_every_job_though_fewer_replicas_ran(reproduced):
    audited, *_ = reproduced(Job("a", slo_s=0.5, min_replicas=3, cores=2.0), Job("b", slo_s=0.5))
    assert audited.capacity == 7


@pytest.fixture(scope="module")
def result(recorded):
    world, serving, _ = recorded
    return audit(
        serving, world.capacity, policies=("FairShare", "Faro-Sum"), report=lambda line: None
    )


@pytest.fixture
def calibrated_once(result, monkeypatch):
    """A function: services at these indices have the records of `result` and are not calibrated."""

    def reuse(*indices):
        def found(serving, n, places):
            return (
                result.services[n].calibration
                if n in indices
                else calibration_of(serving, n, places)
            )

        monkeypatch.setattr("faro_ops.advise.audit.backcast.calibration_of", found)

    return reuse


@pytest.mark.slow
class TestAudit:
    def test_a_wrong_service_time_is_found(self, recorded, result):
        world, _, _ = recorded
        first = result.services[0]
        assert not first.refusal
        assert "not 0.458 s as in the table" in first.note
        assert 1 / first.calibration.capacity_rps[1] == pytest.approx(world.true_s[0], rel=0.15)
        assert not result.services[1].note

    def test_the_interval_is_about_the_share_of_late_requests(self, recorded, result):
        _, _, late = recorded
        for one, truth in zip(result.services, late):
            assert one.violation_rate[0] - 0.002 <= truth <= one.violation_rate[2] + 0.002

    def test_policies_are_compared_on_the_same_requests(self, recorded, result):
        assert list(result.policies) == ["recorded replicas", "FairShare", "Faro-Sum"]
        assert not result.policies["recorded replicas"]["difference"].any()
        assert result.policies["Faro-Sum"]["difference"][2] < 0
        assert result.by_service["Faro-Sum"].shape == (3, len(result.reproduced))
        assert result.by_service["Faro-Sum"][1].sum() == pytest.approx(
            result.policies["Faro-Sum"]["difference"][1]
        )

    def test_what_is_not_reproduced_gets_no_advice(self, recorded, calibrated_once):
        world, serving, _ = recorded
        calibrated_once(1)
        tail_s = serving.latency_s.copy()
        tail_s[:, 0, ::2] *= 4  # every second minute waits for something else
        changed = serving_of(serving.jobs, world.counts, serving.replicas, serving.levels, tail_s)
        result = audit(changed, world.capacity, policies=("FairShare",), report=lambda line: None)
        assert "measure" in result.services[0].refusal
        assert not result.services[1].refusal
        assert list(result.policies) == ["recorded replicas", "FairShare"]

    def test_without_a_reproduced_service_there_is_no_comparison(self, recorded, tmp_path, capsys):
        world, serving, _ = recorded
        table = table_of(world, serving)[["minute", "job", "requests", "replicas", "latency_p95_s"]]
        table["replicas"] = 1 + table["minute"] % 2
        table.to_csv(tmp_path / "r.csv", index=False)
        write_jobs(world.jobs, tmp_path / "jobs.yaml")
        assert (
            main(f"audit --workload {tmp_path}/r.csv --jobs {tmp_path}/jobs.yaml --json".split())
            == 3
        )
        answer = json.loads(capsys.readouterr().out)
        assert answer["policies"] == {}
        assert all("record more hours" in one["refusal"] for one in answer["services"])

    def test_the_page_and_the_tables_are_written(self, files, calibrated_once, tmp_path, capsys):
        serving, jobs = map(str, files)
        calibrated_once(0, 1)
        page = tmp_path / "audit.html"
        arguments = f"--workload {serving} --jobs {jobs} --policy FairShare --plot {page}".split()
        assert main(["audit", *arguments]) == 0
        printed = capsys.readouterr().out
        assert "reproduced" in printed
        assert "minus recorded" in printed
        assert "cores" in printed.split("minus recorded")[1].splitlines()[0]
        assert "need up to" in printed
        assert "other hours and days may differ" in printed
        text = page.read_text()
        assert "data:image/png" in text
        assert 'src="http' not in text
        assert printed.splitlines()[0][:20] in text

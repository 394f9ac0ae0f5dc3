"""`faro profile` measures the kind of replica: the rates that it offers, what it writes into the
table, and the picture.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from reference_services import SERVICES, profiled

from faro_lib.figures.style import save
from faro_lib.workload import Job
from faro_lib.workload.readers import read_jobs
from faro_lib.workload.replicas import SERIAL, Batched, Continuous, mapping_of
from faro_lib.workload.service import true_service_time
from faro_ops import cli
from faro_ops.advise.calibrate import (
    CALIBRATED,
    FIRST_TOKEN,
    LATENCY,
    TOO_WIDE,
    CalibratedService,
    Calibration,
    calibrate,
)
from faro_ops.advise.calibrate.figure import latency_by_rate
from faro_ops.advise.profile.load_generator import MAX_RPS
from faro_ops.advise.profile.load_profile import (
    MIN_SERVED,
    STOP,
    climb,
    measure_kind,
    measurements_of,
    to_repeat,
)
from faro_ops.advise.profile.profile import Profile, write_profiles

SLO_S = 0.5


def service(capacity_rps: float):
    """A service of 0.1 s whose latency grows as that of a queue, and the rates offered to it."""
    offered = []

    def offer(rate_rps: float):
        offered.append(rate_rps)
        latency_s = 0.1 / (1 - rate_rps / capacity_rps) if rate_rps < capacity_rps else np.inf
        return {LATENCY: np.full(100, latency_s)}

    return offer, offered


def test_the_load_stops_at_the_first_rate_whose_p99_passes_three_times_the_slo():
    offer, offered = service(20.0)
    rates = climb(offer, 1.0, SLO_S, 200.0)
    assert rates == offered
    p99_s = [offer(rate)[LATENCY][0] for rate in rates]
    assert p99_s[-1] > STOP * SLO_S >= max(p99_s[:-1])


def test_rates_are_close_together_where_the_latency_rises():
    offer, _ = service(20.0)
    steps = np.diff(np.log(climb(offer, 1.0, SLO_S, 200.0)))
    assert steps[0] > 1.5 * steps[-1]


def test_a_service_that_drops_more_than_one_percent_is_not_loaded_further():
    def offer(rate_rps):
        latency_s = np.full(200, 0.1)
        latency_s[: int(rate_rps)] = np.inf  # from 2 requests/s on, at least 1 %
        return {LATENCY: latency_s}

    rates = climb(offer, 1.0, SLO_S, 200.0)
    assert rates[-2] < 2 <= rates[-1]


def test_a_service_that_bears_everything_is_loaded_up_to_the_bound():
    offer, offered = service(1e9)
    climb(offer, 1.0, SLO_S, 50.0)
    assert max(offered) <= 50.0 < 1.7 * max(offered)


def test_the_rate_that_was_too_high_is_not_offered_to_more_replicas():
    assert to_repeat([1.0, 2.0, 4.0, 8.0]) == [2.0, 4.0]
    assert to_repeat([1.0]) == [1.0]


def test_quantiles_are_those_of_the_served_requests_and_rates_with_few_of_them_are_left_out():
    latency_s = np.append(np.linspace(0.1, 0.2, 99), np.inf)
    few = np.append(np.full(MIN_SERVED - 1, 0.1), np.full(100, np.inf))
    streamed = {LATENCY: latency_s, FIRST_TOKEN: latency_s / 2}
    measurements = measurements_of(
        [(5.0, 1, streamed), (50.0, 2, {LATENCY: few, FIRST_TOKEN: few})]
    )
    assert measurements.rate_rps.tolist() == [5.0]
    assert measurements.requests.tolist() == [100]
    values = dict(zip(measurements.columns, measurements.values[0]))
    assert values[LATENCY, 0.5] == pytest.approx(0.15)
    assert values[LATENCY, None] == pytest.approx(0.15)
    assert values[FIRST_TOKEN, 0.99] == pytest.approx(0.0995)


def test_a_service_that_serves_nothing_is_one_line():
    with pytest.raises(ValueError, match="no rate had 30 served requests; is the service healthy"):
        measurements_of([(5.0, 1, {LATENCY: np.full(100, np.inf)})])


def answer(replica, verdict) -> Calibration:
    """A calibration with this replica; what is not written into the table is empty."""
    one = CalibratedService(replica, 0.0523456, 0.04)
    interval = np.ones(3)
    return Calibration(
        replica.kind, {}, one, {}, interval, (), np.empty((0, 0, 3)), 0.0, verdict, ""
    )


class TestTable:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "jobs.yaml"
        path.write_text("jobs:\n- {job: a, slo_s: 0.5}\n")
        return path

    def written(self, path, replica, verdict):
        write_profiles(path, {"a": Profile(0.07, 0.2, 0.003, 100, 6.0, answer(replica, verdict))})
        return yaml.safe_load(path.read_text())["jobs"][0], read_jobs(path)[0]

    def test_the_error_of_a_calibrated_time_is_written_with_that_of_the_model(self, path):
        sure = answer(Batched(8, 0.01, 0.04, 0.01), CALIBRATED)
        # 90 % of a normal distribution are within 1.645 standard deviations
        interval = np.array([1 - 0.1645, 1.0, 1 + 0.1645])
        one = replace(sure, capacity_rps=interval, discrepancy=0.05)
        write_profiles(path, {"a": Profile(0.07, 0.2, 0.003, 100, 6.0, one)})
        assert read_jobs(path)[0].service_time_error == pytest.approx(np.hypot(0.1, 0.05), abs=1e-3)
        _, job = self.written(path, Batched(8, 0.01, 0.04, 0.01), CALIBRATED)
        assert job.service_time_error == 0.001, "a table accepts no error of 0"

    def test_a_calibrated_kind_is_written_and_read_again(self, path):
        row, job = self.written(path, Batched(8, 0.0123456, 0.04, 0.0123456), CALIBRATED)
        assert row["replica"] == {
            "kind": "batched",
            "max_batch": 8,
            "wait_s": 0.01235,
            "base_s": 0.04,
            "per_request_s": 0.01235,
        }
        assert job.replica == Batched(8, 0.01235, 0.04, 0.01235)
        assert (job.service_time_s, job.service_scv) == (0.05235, 0.04)

    def test_a_refused_calibration_leaves_the_service_time_of_single_requests(self, path):
        row, job = self.written(path, Batched(8, 0.01, 0.04, 0.01), TOO_WIDE)
        assert "replica" not in row
        assert (job.replica, job.service_time_s) == (SERIAL, 0.07)

    def test_what_the_slo_of_a_token_service_limits_stays(self, path):
        tokens = Continuous(
            0.03, 0.003, 2e-4, 6, output_tokens=15.0, prompt_tokens=100.0, slo_on="first_token"
        )
        table = {
            "jobs": [
                {"job": "a", "slo_s": 0.5, "service_time_s": 0.5, "replica": mapping_of(tokens)}
            ]
        }
        path.write_text(yaml.safe_dump(table))
        _, job = self.written(path, replace(tokens, alpha_s=0.04, slo_on="end_to_end"), CALIBRATED)
        assert (job.replica.alpha_s, job.replica.slo_on) == (0.04, "first_token")

    def test_the_measured_service_time_replaces_the_published_one_of_the_model(self, path):
        path.write_text("jobs:\n- {job: a, slo_s: 0.5, model: resnet34}\n")
        _, job = self.written(path, SERIAL, TOO_WIDE)
        assert true_service_time(job).mean_s == pytest.approx(0.07)


def test_the_picture_has_the_measured_points_and_the_fitted_curves_of_each_replica_count(tmp_path):
    known = SERVICES[1]
    measurements = profiled(known)
    calibration = calibrate(
        measurements, kinds=("serial",), max_ongoing_requests=known.places, dispatch="round-robin"
    )
    figure = latency_by_rate(measurements, calibration)
    one, two = figure.axes
    assert (one.get_title(), two.get_title()) == ("1 replica", "2 replicas")
    drawn = {line.get_label(): line.get_ydata() for line in one.lines}
    np.testing.assert_array_equal(
        drawn["p99, measured"], measurements.values[measurements.replicas == 1, 3]
    )
    assert len(one.collections) == 4  # bands
    assert save(figure, tmp_path, "picture").exists()


def offered_to(
    monkeypatch,
    job: Job,
    service_time_s: float,
    latency_s: float,
    seconds: float = 20.0,
    more: int = 1,
):
    """(requests/s, seconds) of each load that `measure_kind` offers to a service.

    The service has this latency at every rate.
    """
    offered = []

    def offer_load(url, rate_rps, seconds, rng, output_tokens):
        offered.append((rate_rps, seconds))
        return rate_rps, {LATENCY: np.full(100, latency_s)}

    monkeypatch.setattr("faro_ops.advise.profile.load_profile.offer_load", offer_load)
    monkeypatch.setattr(
        "faro_ops.advise.profile.load_profile.calibrate", lambda measurements, **options: None
    )
    monkeypatch.setattr("faro_ops.advise.profile.load_profile.measurements_of", lambda rows: None)
    service = SimpleNamespace(
        url="http://127.0.0.1/a",
        max_ongoing_requests=10,
        more_replicas=lambda more: nullcontext((1 + more, 0.0)),
    )
    profile = Profile(service_time_s, 0.1, 0.001, 200)
    measure_kind(service, job, profile, seconds, more=more)
    return offered


def test_a_rate_per_replica_is_repeated_with_one_more_unless_replicas_disturb_each_other(
    monkeypatch,
):
    alone, repeated = (
        offered_to(monkeypatch, Job("a"), 0.1, latency_s=99.0, more=more) for more in (0, 1)
    )
    ((rate_rps, _),) = alone
    assert [rate for rate, _ in repeated] == [rate_rps, 2 * rate_rps]


@pytest.mark.parametrize("service_time_s", [0.0001, 0.001])
def test_the_load_on_all_replicas_stays_below_what_the_generator_may_send(
    service_time_s, monkeypatch
):
    offered = offered_to(monkeypatch, Job("a"), service_time_s, latency_s=service_time_s)
    assert max(rate_rps for rate_rps, _ in offered) <= 0.9 * MAX_RPS + 1e-9


def test_a_slow_service_is_loaded_for_longer_at_each_rate(monkeypatch):
    offered = offered_to(monkeypatch, Job("a", slo_s=3.0), 1.0, latency_s=1.0)
    assert min(seconds for _, seconds in offered) >= 60


@pytest.mark.parametrize("service_time_s", [0.3, 1.0, 5.0])
def test_every_rate_offers_enough_requests_to_a_slow_service(service_time_s, monkeypatch):
    offered = offered_to(
        monkeypatch, Job("a", slo_s=3 * service_time_s), service_time_s, latency_s=service_time_s
    )
    assert min(rate_rps * seconds for rate_rps, seconds in offered) >= 60


def test_a_service_whose_slo_is_that_of_a_token_is_offered_several_rates(monkeypatch):
    tokens = Continuous(
        0.03, 0.003, 2e-4, 6, output_tokens=15.0, prompt_tokens=100.0, slo_on="per_token"
    )
    offered = offered_to(monkeypatch, Job("a", slo_s=0.05, replica=tokens), 0.5, latency_s=0.6)
    assert len({rate_rps for rate_rps, _ in offered}) > 3


class TestCommand:
    @pytest.fixture
    def backends(self, monkeypatch):
        """The backends that were asked to serve.

        Each job takes 0.07 s, and its kind cannot be measured.
        """
        asked = []

        @contextmanager
        def serving(backend, *_, **options):
            asked.append(backend)
            yield SimpleNamespace(ray=None, http=None)

        monkeypatch.setattr("faro_ops.operate.rayserve.backend.serving", serving)
        monkeypatch.setattr(
            "faro_ops.advise.profile.profile.profile_job",
            lambda *_: Profile(0.07, 0.2, 0.003, 200, cold_start_s=6.0),
        )
        monkeypatch.setattr("faro_ops.advise.profile.load_profile.measure_kind", self.failing)
        return asked

    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "jobs.yaml"
        path.write_text("[{job: a, slo_s: 0.5}, {job: b, slo_s: 0.5}]")
        return path

    @staticmethod
    def failing(*_):
        raise ValueError("no rate had 30 served requests")

    def test_with_an_address_the_jobs_of_that_ray_are_measured_and_no_other_ray_is_started(
        self, backends, path
    ):
        assert (
            cli.main(
                [
                    "profile",
                    "--jobs",
                    str(path),
                    "--address",
                    "http://127.0.0.1:8265",
                    "--seconds",
                    "0",
                ]
            )
            == 0
        )
        assert backends == ["rayserve"]

    def test_what_was_measured_before_a_job_fails_is_in_the_table(
        self, backends, path, monkeypatch
    ):
        def profile_job(service, *_):
            if service.name == "b":
                raise ValueError("no request was served")
            return Profile(0.07, 0.2, 0.003, 200, cold_start_s=6.0)

        monkeypatch.setattr("faro_ops.advise.profile.profile.profile_job", profile_job)
        assert cli.main(["profile", "--jobs", str(path), "--seconds", "0"]) == 2
        a, b = read_jobs(path)
        assert (a.service_time_s, b) == (0.07, Job("b", slo_s=0.5))

    def test_a_kind_that_cannot_be_measured_is_one_line_and_the_service_time_is_written(
        self, backends, path, capsys
    ):
        assert cli.main(["profile", "--jobs", str(path)]) == 0
        assert (
            "a: its kind of replica is not measured: no rate had 30 served requests\n"
            in capsys.readouterr().err
        )
        assert [job.service_time_s for job in read_jobs(path)] == [0.07, 0.07]

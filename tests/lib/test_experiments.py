"""Larger and mixed workloads, an oracle with an error, sensitivity, and policies that raise."""

from dataclasses import dataclass, replace

import nbformat
import numpy as np
import pandas as pd
import pytest
from checkouts import ROOT
from forecast_worlds import ar1_posterior

from faro_lib import forecast
from faro_lib.control import PolicyFailed
from faro_lib.experiments.trials import policy_context, trial_draws
from faro_lib.policies import FairShare, PolicyContext
from faro_lib.simulate.measure import measure
from faro_lib.workload.replicas import SERIAL, Batched
from faro_lib.workload.synthetic import synthetic
from studies.ablation import remaining
from studies.comparison.run import compare
from studies.forecast.oracle import oracle
from studies.scale import figures as scale_figures
from studies.scale import run as scale
from studies.scale.world import last_days, mixed, repeated, shifted
from studies.sensitivity import figures as sensitivity_figures
from studies.sensitivity.run import PARAMETERS, margins, sensitivity, settings
from studies.tables.run_tables import summaries
from studies.tuning import run as tuning

pytestmark = pytest.mark.usefixtures("coarse_tables")

TRACES = synthetic(seed=3, jobs=4, days=3, minutes=60)
DAY = TRACES.workload()


def quiet(line):
    pass


class TestTheForecasterOfThePolicies:
    def test_it_is_the_mixture_unless_another_is_named(self):
        assert policy_context(TRACES, report=quiet).forecaster.inner.names[0] == "ar"
        assert type(policy_context(TRACES, forecaster="kalman", report=quiet).forecaster) is type(
            forecast.fit("kalman", TRACES)
        )

    def test_the_fitted_posterior_of_the_results_is_a_member_of_the_mixture(self, tmp_path):
        (tmp_path / "forecast").mkdir()
        made = ar1_posterior(day_minutes=60, traces=TRACES)
        forecast.save_posterior(made, tmp_path / "forecast" / "posterior.npz")
        assert "bayes" in policy_context(TRACES, tmp_path, report=quiet).forecaster.inner.names
        assert policy_context(TRACES, tmp_path, "ar", quiet).forecaster is not None

    def test_a_single_day_does_not_take_the_posterior_that_other_days_left_in_the_results(
        self, tmp_path
    ):
        (tmp_path / "forecast").mkdir()
        forecast.save_posterior(
            ar1_posterior(day_minutes=60, traces=TRACES), tmp_path / "forecast" / "posterior.npz"
        )
        day = synthetic(seed=3, jobs=4, days=1, minutes=60)
        assert "bayes" not in policy_context(day, tmp_path, report=quiet).forecaster.inner.names

    def test_without_training_days_there_is_none(self):
        assert (
            policy_context(synthetic(seed=3, jobs=2, days=0, minutes=20), report=quiet).forecaster
            is None
        )

    def test_a_policy_cannot_read_the_counts_of_the_scored_day(self):
        known = policy_context(TRACES, report=quiet).traces
        np.testing.assert_array_equal(known.train, TRACES.train)
        assert known.evaluation.shape == TRACES.evaluation.shape
        assert not known.evaluation.any()


class TestMoreJobs:
    def test_repeated_jobs_have_the_requests_of_the_traced_ones(self):
        many = repeated(TRACES, 10)
        np.testing.assert_array_equal(many.evaluation[:, 4:8], TRACES.evaluation)
        np.testing.assert_array_equal(many.train[:, :, 8], TRACES.train[:, :, 0])

    def test_a_shifted_day_is_the_traced_day_rotated_and_scaled(self):
        many = shifted(TRACES, 6, seed=1)
        for job in range(6):
            source = TRACES.evaluation[0, job % 4].astype(float)
            rotated = [
                np.corrcoef(np.roll(source, shift), many.evaluation[0, job])[0, 1]
                for shift in range(60)
            ]
            assert max(rotated) > 0.999

    def test_a_job_has_the_same_shift_on_every_day(self):
        many = shifted(TRACES, 5, seed=1)

        def alike(shift, traced, moved):
            return np.corrcoef(np.roll(traced, shift), moved)[0, 1]

        learned = TRACES.train[0, 0, 0], many.train[0, 0, 4]
        shift = max(range(60), key=lambda shift: alike(shift, *learned))
        assert alike(shift, *learned) > 0.999
        assert alike(shift, TRACES.evaluation[0, 0], many.evaluation[0, 4]) > 0.999

    def test_the_mean_load_per_job_does_not_change(self):
        many = shifted(TRACES, 400, seed=1)
        assert many.evaluation.mean() == pytest.approx(TRACES.evaluation.mean(), rel=0.1)

    def test_the_seed_determines_the_workload(self):
        one, same, other = (shifted(TRACES, 8, seed).evaluation for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)

    def test_the_last_days_are_the_newest(self):
        np.testing.assert_array_equal(last_days(TRACES, 2).train, TRACES.train[1:])
        np.testing.assert_array_equal(last_days(TRACES, 9).train, TRACES.train)

    def test_every_other_job_serves_the_smaller_model(self):
        jobs = mixed(TRACES).jobs
        assert [job.model for job in jobs] == ["resnet18", "resnet34", "resnet18", "resnet34"]
        assert (jobs[0].service_time_s, jobs[0].slo_s) == (0.100, 0.400)
        assert jobs[1] == TRACES.jobs[1]

    def test_the_smaller_model_is_served_one_request_at_a_time_and_simulated(self):
        batched = replace(
            TRACES.jobs[0], replica=Batched(4, 0.1, 0.5, 0.1), latency_curve="curve.csv"
        )
        job = mixed(replace(TRACES, jobs=(batched, *TRACES.jobs[1:]))).jobs[0]
        assert (job.replica, job.latency_curve) == (SERIAL, "")

    @pytest.mark.parametrize("how", [scale.REPEATED, scale.SHIFTED])
    def test_a_quota_that_holds_the_jobs_once_does_not_hold_many_of_them(self, how):
        jobs = tuple(replace(job, tenant="team", tenant_quota=4.0) for job in TRACES.jobs)
        summary, _ = scale.larger(
            replace(TRACES, jobs=jobs),
            None,
            how,
            8,
            24,
            policies=("FairShare",),
            minutes=2,
            limit=False,
            report=quiet,
        )
        assert summary["replicas_used_mean"].tolist() == [24]

    @pytest.mark.parametrize("how", [scale.REPEATED, scale.SHIFTED])
    @pytest.mark.parametrize("fields", [{"min_replicas": 4}, {"cores": 1.3}])
    def test_a_larger_cluster_holds_its_jobs_whatever_they_need_at_least(self, how, fields):
        jobs = tuple(replace(job, **fields) for job in TRACES.jobs)
        summary, _ = scale.larger(
            replace(TRACES, jobs=jobs),
            None,
            how,
            8,
            8,
            policies=("FairShare",),
            minutes=2,
            limit=False,
            report=quiet,
        )
        assert summary["replicas_used_mean"].tolist() == [8]

    def test_an_unknown_way_to_enlarge_is_refused_with_the_known_ones(self):
        with pytest.raises(
            ValueError, match="how='copied' is unknown; accepted: repeated, shifted"
        ):
            scale.enlarged(TRACES, "copied", 8)

    def test_groups_keep_within_capacity_and_every_policy_has_a_row(self):
        summary, limit = scale.larger(TRACES, None, scale.SHIFTED, 12, 40, minutes=6, report=quiet)
        assert summary["policy"].tolist() == list(scale.COMPARED)
        assert (summary["replicas_used_mean"] <= 40).all()
        assert set(summary["jobs"]) == {12}
        assert (summary["lost_utility"] >= limit["lost_utility"].iloc[0]).all()
        caption = scale_figures.larger_caption(summary)
        assert "at 12 jobs on 40 cores (shifted" in caption

    def test_the_capacity_counts_mean_replicas_and_jobs_of_unequal_cores_are_not_grouped(self):
        jobs = tuple(replace(job, cores=2.0 if n else 4.0) for n, job in enumerate(TRACES.jobs))
        summary, _ = scale.larger(
            replace(TRACES, jobs=jobs),
            None,
            scale.REPEATED,
            8,
            24,
            policies=("FairShare", scale.GROUPED),
            minutes=5,
            limit=False,
            report=quiet,
        )
        assert summary["policy"].tolist() == ["FairShare"]
        assert summary["capacity_cores"].tolist() == [60]  # the mean of 4, 2, 2 and 2 cores is 2.5
        assert "at 8 jobs on 60 cores (repeated" in scale_figures.larger_caption(summary)
        assert summary["replicas_used_mean"].iloc[0] > 16

    def test_the_limit_falls_as_the_cluster_grows(self):
        context = PolicyContext(TRACES.jobs)
        rows, limit = scale.curve(
            TRACES, context, [6, 10, 14], ["FairShare"], trials=1, minutes=15, report=quiet
        )
        assert limit["lost_utility"].is_monotonic_decreasing
        assert rows["lost_utility"].iloc[0] > rows["lost_utility"].iloc[-1]

    def test_every_policy_may_start_with_an_equal_share(self):
        context, options = (
            PolicyContext(TRACES.jobs),
            {"trials": 1, "minutes": 5, "limit": False, "report": quiet},
        )
        one, equal = (
            scale.curve(TRACES, context, [20], ["FairShare", "AIAD"], equal_start=start, **options)[
                0
            ]
            for start in (False, True)
        )
        lost = pd.concat([one, equal]).set_index(["start", "policy"])["lost_utility"]
        assert lost[scale.EQUAL, "FairShare"] == lost[scale.ONE, "FairShare"]
        assert lost[scale.EQUAL, "AIAD"] < lost[scale.ONE, "AIAD"]

    def test_the_table_of_sizes_has_the_columns_of_the_published_one(self):
        options = {"trials": 2, "minutes": 5, "report": quiet}
        small, _ = scale.curve(
            TRACES, PolicyContext(TRACES.jobs), [6, 10], ["FairShare"], limit=False, **options
        )
        large, _ = scale.larger(
            TRACES, None, scale.REPEATED, 8, 24, policies=["FairShare"], **options
        )
        table = scale.as_published(pd.concat([small.assign(variant="ten traces", jobs=4), large]))
        published = pd.read_csv(ROOT / "data/published/published_main.csv", nrows=0).columns
        assert set(table.columns) == {"variant", "jobs", *published}
        assert table.columns.is_unique
        assert table[["jobs", "replicas", "trials"]].to_numpy().tolist() == [
            [4, 6, 2],
            [4, 10, 2],
            [8, 24, 2],
        ]
        mean = small[small["capacity_cores"] == 6]["lost_utility_published"].mean()
        assert table["lost_cluster_utility_mean"][0] == pytest.approx(mean)
        effective = small[small["capacity_cores"] == 6]["lost_effective_utility_published"].mean()
        assert table["lost_effective_utility_mean"][0] == pytest.approx(effective)

    def test_the_caption_of_the_curve_names_required_capacities_and_the_best_policies(self):
        lost = {
            "A": {20: 2.0, 40: 0.6, 60: 0.1},
            "B": {20: 1.0, 40: 0.5, 60: 0.4},
            "C": {20: 3.0, 40: 2.0, 60: 1.0},
        }
        rows = [
            {"policy": policy, "capacity_cores": size, "trial": 0, "lost_utility": value}
            for policy, sizes in lost.items()
            for size, value in sizes.items()
        ]
        one = pd.DataFrame(rows).assign(start=scale.ONE)
        equal = one[one["policy"] == "B"].assign(start=scale.EQUAL, lost_utility=0.25)
        text = scale_figures.curve_caption(pd.concat([one, equal]))
        assert "A 60, B 40, C more than 60" in text
        assert "Lowest loss at each capacity: 20 B, 40 B, 60 A" in text
        assert (
            "equal share of the replicas instead: 20 B (0.250), 40 B (0.250), 60 B (0.250)" in text
        )


class TestTheOracle:
    def test_without_an_error_it_returns_the_actual_counts(self):
        seen = oracle(DAY).update(DAY.requests_per_min[:, 0])
        np.testing.assert_array_equal(seen.mean(3), DAY.requests_per_min[:, 1:4])

    def test_a_day_may_begin_at_any_minute(self):
        later = (
            forecast.fit("oracle", TRACES)
            .start(minute_of_day=20)
            .update(DAY.requests_per_min[:, 20])
        )
        np.testing.assert_array_equal(later.mean(3), DAY.requests_per_min[:, 21:24])

    def test_after_the_end_of_the_day_it_repeats_the_last_minute(self):
        seen = oracle(DAY)
        for counts in DAY.requests_per_min.T:
            seen = seen.update(counts)
        np.testing.assert_array_equal(
            seen.mean(7), np.repeat(DAY.requests_per_min[:, -1:], 7, axis=1)
        )

    @pytest.mark.parametrize("error", [0.1, 0.5])
    def test_its_median_has_the_given_error_and_no_bias(self, error):
        state, ratios = oracle(DAY, error), []
        for counts in DAY.requests_per_min.T:
            truth = counts
            ratios.append(
                np.median(state.sample(1, 801)[:, :, 0], axis=1) * np.sqrt(1 + error**2) / truth
            )
            state = state.update(counts)
        ratios = np.array(ratios)[DAY.requests_per_min.T > 0]
        assert ratios.std() == pytest.approx(error, rel=0.25)
        assert ratios.mean() == pytest.approx(1, abs=4 * error / np.sqrt(len(ratios)) + 0.02)

    def test_its_sample_paths_spread_by_the_error(self):
        paths = oracle(DAY, 0.3).sample(7, 4000)
        np.testing.assert_allclose(paths.std(axis=1) / paths.mean(axis=1), 0.3, rtol=0.15)

    def test_a_negative_error_is_refused(self):
        with pytest.raises(ValueError, match="error=-1 must be a finite number >= 0"):
            oracle(DAY, -1)


class TestWhereTheMarginEnds:
    def test_a_setting_changes_one_parameter(self):
        context = PolicyContext(TRACES.jobs, forecast.fit("ar", TRACES))
        of = {
            s.parameter: s
            for s in settings(
                DAY, context, {"cold_start_s": [90], "scv_factor": [4], "forecast_error": [0]}
            )
        }
        assert {job.cold_start_s for job in of["cold_start_s"].workload.jobs} == {90}
        assert of["cold_start_s"].context.forecaster is context.forecaster
        assert of["scv_factor"].workload is DAY
        assert of["forecast_error"].context.forecaster.truth is DAY.requests_per_min

    def test_an_slo_of_four_service_times_is_that_of_four_full_batches_for_a_job_with_batches(
        self, monkeypatch
    ):
        monkeypatch.setattr("studies.sensitivity.run.measure", lambda jobs: None)
        batched = replace(DAY.jobs[0], replica=Batched(4, 0.1, 0.5, 0.1))
        day = replace(DAY, jobs=(batched, *DAY.jobs[1:]))
        (setting,) = settings(day, PolicyContext(day.jobs), {"slo_factor": [4]})
        assert [job.slo_s for job in setting.workload.jobs[:2]] == pytest.approx(
            [4 * 4 * batched.busy_s, 4 * 0.18]
        )
        assert 4 * batched.busy_s == pytest.approx(0.9)

    def test_the_interval_changes_only_policies_that_plan(self):
        context = PolicyContext(TRACES.jobs, forecast.fit("ar", TRACES))
        (setting,) = settings(DAY, context, {"interval_s": [120]})
        made = setting.policies(["AIAD", "MArk", "Faro-Sum"])
        assert made["MArk"].interval_s == made["Faro-Sum"].interval_s == 120
        assert not hasattr(made["AIAD"], "interval_s")

    def test_the_forecaster_of_the_notebook_begins_at_the_first_minute_of_its_slice(
        self, monkeypatch
    ):
        monkeypatch.setattr("faro_lib.experiments.trials.measure", lambda jobs: None)
        notebook = nbformat.read(ROOT / "notebooks" / "65_sensitivity.ipynb", as_version=4)
        parameters, setting = [cell.source for cell in notebook.cells if cell.cell_type == "code"][
            :2
        ]
        names: dict = {}
        exec(parameters, names)
        names |= {"first_minute": 60, "forecaster": "oracle"}
        exec(setting, names)
        actual = names["hour"].requests_per_min
        seen = names["context"].forecaster.update(actual[:, 0])
        np.testing.assert_array_equal(seen.mean(3), actual[:, 1:4])

    def test_an_unknown_parameter_is_refused_with_the_known_ones(self):
        with pytest.raises(
            ValueError, match="parameter='weather' is unknown; accepted: cold_start_s"
        ):
            list(settings(DAY, PolicyContext(TRACES.jobs), {"weather": [1]}))

    def test_the_summary_has_a_row_per_setting_and_policy(self):
        context = PolicyContext(TRACES.jobs, forecast.fit("ar", TRACES))
        hour = DAY.between(0, 10)
        values = {"cold_start_s": [5, 120], "scv_factor": [4]}
        summary = sensitivity(hour, context, values, ["FairShare", "AIAD"], 13, 1, report=quiet)
        assert len(summary) == 3 * 2
        table = margins(summary, "AIAD")
        assert table["best_other"].unique().tolist() == ["FairShare"]
        assert [*table["parameter"]] == ["cold_start_s", "cold_start_s", "scv_factor"]

    def test_the_caption_counts_the_settings_in_which_the_leader_wins(self):
        def rows(parameter, leader):
            for value, lost in leader.items():
                yield {
                    "parameter": parameter,
                    "value": value,
                    "policy": "A",
                    "trial": 0,
                    "lost_utility": 1.0,
                }
                yield {
                    "parameter": parameter,
                    "value": value,
                    "policy": "F",
                    "trial": 0,
                    "lost_utility": lost,
                }

        frame = pd.DataFrame(
            [
                *rows("forecast_error", {0.5: 1.2, 0.0: 0.3, 0.2: 0.7}),
                *rows("cold_start_s", {5.0: 0.2, 120.0: 0.9}),
            ]
        )
        text = sensitivity_figures.margin_caption(frame)
        start = (
            "F loses less utility than the best of A in 4 of 5 settings, and more in 1. Its margin"
        )
        assert text.startswith(start)
        assert "smallest, -0.20, at forecast error (of an oracle) = 0.5, against A" in text

    def test_a_parameter_with_a_single_value_is_not_drawn(self):
        rows = [("cold_start_s", 5.0), ("forecast_error", 0.0), ("forecast_error", 0.5)]
        frame = pd.DataFrame(rows, columns=["parameter", "value"])
        frame = frame.assign(policy="A", trial=0, lost_utility=1.0)
        assert len(sensitivity_figures.lost_by_parameter(frame).axes) == 1

    def test_every_parameter_can_be_configured(self):
        from faro_pipeline.stages.sensitivity import Sensitivity

        assert set(PARAMETERS) <= set(Sensitivity.model_fields)


@dataclass(frozen=True)
class Broken(FairShare):
    """An equal share for five minutes, then an error."""

    name: str = "Broken"

    def decide(self, state, observation):
        if observation.now_s > 300:
            raise KeyError("a bug")
        return FairShare.decide(self, state, observation)


class TestAPolicyThatRaises:
    """Every experiment stops at a policy's error, after which the control loop would decide."""

    @pytest.fixture
    def stops(self):
        return pytest.raises(PolicyFailed, match=r"policy 'Broken' failed at 360 s.*a bug")

    def test_stops_a_comparison(self, stops):
        with stops:
            compare(DAY.between(0, 8), {"Broken": Broken()}, 13, 1, limit=False, report=None)

    def test_stops_a_summary(self, stops):
        with stops:
            summaries(
                DAY.between(0, 8),
                {"FairShare": FairShare(), "Broken": Broken()},
                13,
                1,
                report=None,
            )

    def test_stops_tuning(self, stops):
        with stops:
            tuning.measured(TRACES, {"chosen": Broken()}, day=3, phase=0, capacity=13, seed=24)

    def test_stops_the_analysis_of_the_remaining_loss(self, stops, monkeypatch):
        monkeypatch.setattr(remaining, "tuned", lambda *_, **__: Broken())
        table = measure(TRACES.jobs, (1, 2), requests=1000)
        with stops:
            day = DAY.between(0, 8)
            remaining.remaining(
                day, PolicyContext(TRACES.jobs, None, table), 13, next(trial_draws(day, 1))
            )

"""Larger and mixed workloads, an oracle that errs, and where a margin ends."""

import numpy as np
import pandas as pd
import pytest

from faro_lib import forecast
from faro_lib.experiments import scale
from faro_lib.experiments.sensitivity import PARAMETERS, margins, sensitivity, settings, where_it_ends
from faro_lib.figures import scale as scale_figures
from faro_lib.figures import sensitivity as sensitivity_figures
from faro_lib.forecast.oracle import oracle
from faro_lib.policies import PolicyContext
from faro_lib.workload.enlarge import last_days, mixed, repeated, shifted
from faro_lib.workload.synthetic import synthetic

TRACES = synthetic(seed=3, jobs=4, days=3, minutes=60)
DAY = TRACES.workload()


def quiet(line):
    pass


class TestMoreJobs:
    def test_repeated_jobs_ask_for_what_the_traced_ones_ask_for(self):
        many = repeated(TRACES, 10)
        np.testing.assert_array_equal(many.evaluation[:, 4:8], TRACES.evaluation)
        np.testing.assert_array_equal(many.train[:, :, 8], TRACES.train[:, :, 0])

    def test_a_shifted_day_is_the_traced_day_begun_at_another_minute_and_scaled(self):
        many = shifted(TRACES, 6, seed=1)
        for job in range(6):
            source = TRACES.evaluation[0, job % 4].astype(float)
            turned = [np.corrcoef(np.roll(source, shift), many.evaluation[0, job])[0, 1] for shift in range(60)]
            assert max(turned) > 0.999

    def test_a_job_is_shifted_and_scaled_alike_every_day(self):
        many = shifted(TRACES, 5, seed=1)

        def alike(shift, traced, moved):
            return np.corrcoef(np.roll(traced, shift), moved)[0, 1]

        learnt = TRACES.train[0, 0, 0], many.train[0, 0, 4]
        shift = max(range(60), key=lambda shift: alike(shift, *learnt))
        assert alike(shift, *learnt) > 0.999
        assert alike(shift, TRACES.evaluation[0, 0], many.evaluation[0, 4]) > 0.999

    def test_the_mean_load_a_job_stays_what_it_was(self):
        many = shifted(TRACES, 400, seed=1)
        assert many.evaluation.mean() == pytest.approx(TRACES.evaluation.mean(), rel=0.1)

    def test_the_seed_is_all_the_chance_there_is(self):
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

    def test_an_unknown_way_is_told_the_known_ones(self):
        with pytest.raises(ValueError, match="how='copied' is unknown; accepted: repeated, shifted"):
            scale.enlarged(TRACES, "copied", 8)

    def test_groups_never_hand_out_more_than_there_is_and_every_policy_has_its_row(self):
        summary, limit = scale.larger(TRACES, None, scale.SHIFTED, 12, 40, minutes=15, report=quiet)
        assert summary["policy"].tolist() == list(scale.COMPARED)
        assert (summary["replicas_used_mean"] <= 40).all()
        assert set(summary["jobs"]) == {12}
        assert (summary["lost_utility"] >= limit["lost_utility"].iloc[0]).all()
        caption = scale_figures.larger_caption(summary)
        assert "12 jobs on 40 replicas (shifted)" in caption

    def test_jobs_of_several_cores_get_as_many_replicas_and_are_not_grouped_where_sizes_differ(self):
        from dataclasses import replace

        jobs = tuple(replace(job, cores=2.0 if place else 4.0) for place, job in enumerate(TRACES.jobs))
        summary, _ = scale.larger(
            replace(TRACES, jobs=jobs), None, scale.REPEATED, 8, 24, policies=("FairShare", scale.GROUPED), minutes=5,
            limit=False, report=quiet,
        )  # fmt: skip
        assert summary["policy"].tolist() == ["FairShare"]
        assert summary["capacity_cores"].tolist() == [24]
        assert summary["replicas_used_mean"].iloc[0] > 16

    def test_the_limit_falls_as_the_cluster_grows(self):
        context = PolicyContext(TRACES.jobs)
        rows, limit = scale.curve(TRACES, context, [6, 10, 14], ["FairShare"], trials=1, minutes=15, report=quiet)
        assert limit["lost_utility"].is_monotonic_decreasing
        assert rows["lost_utility"].iloc[0] > rows["lost_utility"].iloc[-1]

    def test_the_caption_of_the_curve_says_who_needs_how_many_and_who_leads_where(self):
        lost = {"A": {20: 2.0, 40: 0.6, 60: 0.1}, "B": {20: 1.0, 40: 0.5, 60: 0.4}, "C": {20: 3.0, 40: 2.0, 60: 1.0}}
        rows = [
            {"policy": policy, "capacity_cores": size, "trial": 0, "lost_utility": value}
            for policy, sizes in lost.items()
            for size, value in sizes.items()
        ]
        told = scale_figures.curve_caption(pd.DataFrame(rows))
        assert "A 60, B 40, C more than 60" in told
        assert "Least at each: 20 B, 40 B, 60 A" in told


class TestTheOracle:
    def test_without_an_error_it_says_what_comes(self):
        seen = oracle(DAY).update(DAY.requests_per_min[:, 0])
        np.testing.assert_array_equal(seen.mean(3), DAY.requests_per_min[:, 1:4])

    def test_a_day_may_begin_at_any_minute(self):
        later = forecast.fit("oracle", TRACES).start(minute_of_day=20).update(DAY.requests_per_min[:, 20])
        np.testing.assert_array_equal(later.mean(3), DAY.requests_per_min[:, 21:24])

    def test_beyond_the_end_the_last_minute_stands(self):
        seen = oracle(DAY)
        for counts in DAY.requests_per_min.T:
            seen = seen.update(counts)
        np.testing.assert_array_equal(seen.mean(7), np.repeat(DAY.requests_per_min[:, -1:], 7, axis=1))

    @pytest.mark.parametrize("error", [0.1, 0.5])
    def test_its_centre_is_off_by_the_error_asked_for_and_right_on_average(self, error):
        state, ratios = oracle(DAY, error), []
        for counts in DAY.requests_per_min.T:
            truth = counts
            ratios.append(np.median(state.sample(1, 801)[:, :, 0], axis=1) * np.sqrt(1 + error**2) / truth)
            state = state.update(counts)
        ratios = np.array(ratios)[DAY.requests_per_min.T > 0]
        assert ratios.std() == pytest.approx(error, rel=0.25)
        assert ratios.mean() == pytest.approx(1, abs=4 * error / np.sqrt(len(ratios)) + 0.02)

    def test_its_paths_spread_by_as_much(self):
        paths = oracle(DAY, 0.3).sample(7, 4000)
        np.testing.assert_allclose(paths.std(axis=1) / paths.mean(axis=1), 0.3, rtol=0.15)

    def test_a_negative_error_is_refused(self):
        with pytest.raises(ValueError, match="error=-1 must be a finite number >= 0"):
            oracle(DAY, -1)


class TestWhereTheLeadEnds:
    def test_one_thing_changes_at_a_time(self):
        context = PolicyContext(TRACES.jobs, forecast.fit("ar", TRACES))
        of = {
            s.parameter: s
            for s in settings(DAY, context, {"cold_start_s": [90], "scv_factor": [4], "forecast_error": [0]})
        }
        assert {job.cold_start_s for job in of["cold_start_s"].workload.jobs} == {90}
        assert of["cold_start_s"].context.forecaster is context.forecaster
        assert of["scv_factor"].workload is DAY
        assert of["forecast_error"].context.forecaster.truth is DAY.requests_per_min

    def test_the_interval_changes_those_that_plan_and_nobody_else(self):
        context = PolicyContext(TRACES.jobs, forecast.fit("ar", TRACES))
        (setting,) = settings(DAY, context, {"interval_s": [120]})
        made = setting.policies(["AIAD", "MArk", "Faro-Sum"])
        assert made["MArk"].interval_s == made["Faro-Sum"].interval_s == 120
        assert not hasattr(made["AIAD"], "interval_s")

    def test_an_unknown_circumstance_is_told_the_known_ones(self):
        with pytest.raises(ValueError, match="parameter='weather' is unknown; accepted: cold_start_s"):
            list(settings(DAY, PolicyContext(TRACES.jobs), {"weather": [1]}))

    def test_the_same_hour_in_other_circumstances_leaves_a_row_for_each(self):
        context = PolicyContext(TRACES.jobs, forecast.fit("ar", TRACES))
        hour = DAY.between(0, 10)
        values = {"cold_start_s": [5, 120], "scv_factor": [4]}
        summary = sensitivity(hour, context, values, ["FairShare", "AIAD"], 13, 1, report=quiet)
        assert len(summary) == 3 * 2
        table = margins(summary, "AIAD")
        assert table["best_other"].unique().tolist() == ["FairShare"]
        assert [*table["parameter"]] == ["cold_start_s", "cold_start_s", "scv_factor"]

    def test_the_caption_says_between_which_values(self):
        def rows(parameter, leader):
            for value, lost in leader.items():
                yield {"parameter": parameter, "value": value, "policy": "F", "trial": 0, "lost_utility": lost}
                yield {"parameter": parameter, "value": value, "policy": "A", "trial": 0, "lost_utility": 1.0}

        frame = pd.DataFrame(
            [*rows("forecast_error", {0.5: 1.2, 0.0: 0.3, 0.2: 0.7}), *rows("cold_start_s", {5.0: 0.2, 120.0: 0.9})]
        )
        assert where_it_ends(margins(frame, "F")) == {"cold_start_s": (120.0, None), "forecast_error": (0.2, 0.5)}
        told = sensitivity_figures.caption(frame, "F")
        assert "forecast error (of an oracle): between 0.2 and 0.5" in told
        assert "nowhere; the margin is least, 0.10, at 120" in told

    def test_every_circumstance_can_be_configured(self):
        from faro_lib.config import Sensitivity

        assert set(PARAMETERS) <= set(Sensitivity.model_fields)

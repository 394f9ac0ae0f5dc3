"""Captions begin with the finding."""

import numpy as np
import pandas as pd
import pytest

from faro_lib.workload import Job
from studies.comparison import figures as comparison
from studies.figures.prediction import error_bands, prediction_caption
from studies.tables.prediction_errors import prediction_errors

MINUTES = pd.DataFrame(
    {"policy": "Faro-Sum", "job": "a", "minute": range(4), "utility": [1.0, 0.5, 0.75, 0.0]}
)


def test_the_caption_of_a_timeline_has_the_mean_loss_of_a_minute():
    caption = comparison.timeline_caption(MINUTES, 32)
    assert caption.startswith(
        "At 32 cores, the cluster loses 0.25 utility on average under Faro-Sum."
    )


def test_a_prediction_is_scored_by_the_first_full_minute_after_it_if_the_job_is_not_moved():
    decisions = pd.DataFrame(
        {
            "time_s": [0.0, 50.0, 110.0, 170.0],
            "job": "a",
            "replicas_target": [2, 2, 3, 3],
            "predicted_tail_latency_s": [np.nan, 0.4, 0.4, 0.8],
        }
    )
    minutes = pd.DataFrame({"job": "a", "minute": range(4), "tail_latency_s": [9.0, 0.5, 9.0, 0.8]})
    errors = prediction_errors(decisions, minutes, (Job("a", slo_s=0.5),))
    assert errors["minute"].tolist() == [1, 3], "the decision at 110 s moves the job"
    np.testing.assert_allclose(errors["log_error"], [np.log(0.5 / 0.4), 0.0])


def test_the_band_of_predictions_holds_eighty_percent_of_the_minutes():
    ratio = np.linspace(0.5, 1.5, 101)
    errors = pd.DataFrame(
        {
            "capacity_cores": 32,
            "predicted_tail_latency_s": 0.4,
            "tail_latency_s": 0.4 * ratio,
            "slo_s": 0.72,
        }
    )
    row = error_bands(errors).iloc[0]
    assert (row["low"], row["ratio"], row["high"]) == pytest.approx((0.6, 1.0, 1.4))
    assert "1.00 at 32 cores (80 %: 0.60 to 1.40)" in prediction_caption(errors)

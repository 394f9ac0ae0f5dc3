"""Sample paths of other packages: deciles become paths, and the deciles of the paths are the
deciles again.
"""

import runpy

import numpy as np
import pandas as pd
from checkouts import ROOT

PREDICT = runpy.run_path(str(ROOT / "envs/forecasters/predict.py"))


def test_the_deciles_of_the_paths_are_those_that_the_model_predicted():
    deciles = np.sort(np.random.default_rng(0).gamma(4, 25, (3, 7, 9)), axis=-1)
    paths = PREDICT["paths_of"](deciles)
    assert paths.shape == (3, PREDICT["PATHS"], 7)
    again = np.quantile(paths, PREDICT["DECILES"], axis=1).transpose(1, 2, 0)
    np.testing.assert_allclose(again, deciles, rtol=0.05, atol=1.0)


def test_deciles_that_cross_are_sorted_and_no_path_is_negative():
    paths = PREDICT["paths_of"](np.linspace(5, -3, 9)[None, None, :])
    assert (paths >= 0).all()
    assert (np.diff(paths[0, :, 0]) >= 0).all()


def test_counts_are_those_of_the_first_sample_in_the_order_of_days_and_minutes(tmp_path):
    rows = [
        (split, sample, day, minute, job, 100 * day + 10 * minute + number + 1000 * sample)
        for split, day in (("train", 1), ("eval", 2))
        for sample in (0, 1)
        for number, job in enumerate(("b", "a"))
        for minute in range(3)
    ]
    table = pd.DataFrame(rows, columns=["split", "sample", "day", "minute", "job", "requests"])
    table.to_parquet(tmp_path / "requests.parquet")
    jobs, counts, day_minutes = PREDICT["counts_of"](str(tmp_path / "requests.parquet"))
    assert jobs == ["b", "a"]
    assert day_minutes == 3
    np.testing.assert_array_equal(counts[1], [101, 111, 121, 201, 211, 221])

"""Traces as tables of the pipeline."""

import numpy as np
import pytest

from faro_lib.workload import Job, Traces
from studies.traces.files import read_traces, write_traces


@pytest.mark.parametrize("days", [2, 0])
def test_traces_that_the_pipeline_wrote_read_back_unchanged(days, tmp_path):
    rng = np.random.default_rng(1)
    # The alphabetical order of these names differs from their order in the table.
    jobs = (Job("zebra", slo_s=0.4), Job("ape", weight=2), Job("job 10"))
    traces = Traces(jobs, rng.integers(0, 9, (days, 2, 3, 5)), rng.integers(0, 9, (2, 3, 5)))
    write_traces(traces, tmp_path / "traces")
    again = read_traces(tmp_path / "traces")
    assert again.jobs == jobs
    np.testing.assert_array_equal(again.train, traces.train)
    np.testing.assert_array_equal(again.evaluation, traces.evaluation)

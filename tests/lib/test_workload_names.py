"""Workloads by name: a table of jobs beside them, and a name that does not exist."""

import numpy as np
import pytest

from faro_lib.workload import Job
from faro_lib.workload.tables import load_workload
from studies.traces.files import write_jobs

SMALL = {"jobs": 3, "days": 2, "minutes": 60}


class TestATableOfJobsForANamedWorkload:
    def test_it_replaces_the_slos_and_keeps_the_order_of_the_counts(self, tmp_path):
        plain = load_workload("synthetic", synthetic=SMALL)
        promised = [Job(job.name, slo_s=1.5) for job in plain.jobs]
        write_jobs(promised[::-1], tmp_path / "jobs.csv")
        traces = load_workload("synthetic", str(tmp_path / "jobs.csv"), synthetic=SMALL)
        assert traces.jobs == tuple(promised)
        np.testing.assert_array_equal(traces.evaluation, plain.evaluation)

    def test_one_of_other_jobs_is_refused(self, tmp_path):
        write_jobs([Job("stranger")], tmp_path / "jobs.csv")
        with pytest.raises(
            ValueError, match=r"jobs\.csv: its jobs are \['stranger'\]; workload 'synthetic' has"
        ):
            load_workload("synthetic", str(tmp_path / "jobs.csv"), synthetic=SMALL)


def test_a_workload_that_does_not_exist_is_refused_with_the_nearest_name():
    with pytest.raises(
        ValueError, match=r"workload='synthetc' is unknown; did you mean 'synthetic'\?"
    ):
        load_workload("synthetc")

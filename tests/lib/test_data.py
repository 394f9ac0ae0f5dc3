"""The data files of the repository match data/README.md."""

import numpy as np
import pandas as pd
import pytest
import yaml
from checkouts import ROOT

from faro_lib.workload import Job, Traces
from faro_lib.workload.readers import read_jobs
from faro_lib.workload.synthetic import synthetic
from faro_lib.workload.tables import load_workload
from studies.traces import read_traces, traces_frame, write_jobs, write_traces

NAMES = {"job0": "caption", "job1": "detect", "job2": "search", "job3": "translate"}


def test_the_example_is_what_the_generator_makes():
    made = (
        traces_frame(synthetic(seed=3, jobs=4, days=3, minutes=120))
        .query("sample == 0")
        .replace({"job": NAMES})
    )
    made = made[["day", "minute", "job", "requests"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(pd.read_csv(ROOT / "data" / "example.csv"), made)


def test_the_example_s_jobs_are_those_of_its_counts():
    traces = load_workload(
        str(ROOT / "data" / "example.csv"), str(ROOT / "data" / "example-jobs.csv")
    )
    assert traces.jobs == read_jobs(ROOT / "data" / "example-jobs.csv")


def test_the_citation_names_the_paper_its_authors_and_where_it_is():
    (paper,) = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    assert [author["family-names"] for author in paper["authors"]] == [
        "Jeon",
        "Wang",
        "Arroyo",
        "Youssef",
        "Gupta",
    ]
    assert paper["doi"] == "10.1145/3689031.3696071"


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

"""The data files of the repository match data/README.md."""

import pandas as pd
import yaml
from checkouts import ROOT

from faro_lib.workload.readers import read_jobs
from faro_lib.workload.synthetic import synthetic
from faro_lib.workload.tables import load_workload
from studies.traces.files import traces_frame

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
    authors = [author["family-names"] for author in paper["authors"]]
    assert authors == ["Jeon", "Wang", "Arroyo", "Youssef", "Gupta"]
    assert paper["doi"] == "10.1145/3689031.3696071"

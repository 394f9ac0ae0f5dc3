"""The pipeline answers bad settings and files with one clear line, before it plans a job."""

import pytest
from messages import assert_refused

GOOD = "minute,job,requests\n0,a,5\n0,b,5\n1,a,5\n1,b,5\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (GOOD.replace("requests", "request"), "column 'requests' is missing"),
        ("\0\1", "bad.csv"),
        (GOOD.replace("1,a,5", "1,a,5,6"), "bad.csv"),
    ],
    ids=["missing column", "not a table", "more cells than columns"],
)
def test_it_refuses_a_bad_file_in_one_line(content, told, checkout):
    (checkout.folder / "bad.csv").write_text(content)
    assert_refused(checkout, told, "--config", "workload=bad.csv", "capacities=[4]")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            ["workload=faro-10job"],
            "workload='faro-10job' is neither a workload nor a .csv file; "
            "did you mean 'faro-10jobs'?",
        ),
        (["workload=none.csv"], "none.csv: no such file"),
        (["capacities=[36,9]"], "9 replicas are fewer than the 10 jobs"),
        (["trails=5"], "unknown key 'trails'; did you mean 'trials'?"),
        (
            ["policies=[FairShar]"],
            "config: policies: policy='FairShar' is unknown; did you mean 'FairShare'?",
        ),
        (["jobs=none.csv"], "none.csv: no such file"),
    ],
    ids=lambda part: part[0] if isinstance(part, list) else "",
)
def test_it_refuses_a_bad_configuration_in_one_line(settings, told, checkout):
    assert_refused(checkout, told, "--config", *settings)


def test_it_refuses_fewer_replicas_than_the_jobs_of_a_file(checkout):
    (checkout.folder / "good.csv").write_text(GOOD)
    assert_refused(checkout, "minimum of 2 jobs", "--config", "workload=good.csv", "capacities=[1]")


def test_it_refuses_a_single_day_for_a_policy_that_learns_from_earlier_ones(checkout):
    (checkout.folder / "good.csv").write_text(GOOD)
    assert_refused(
        checkout,
        "Faro-Sum learns from earlier days, and there is a single day",
        "--config",
        "workload=good.csv",
        "capacities=[4]",
    )


def test_it_refuses_published_traces_with_another_content(checkout):
    raw = checkout.folder / "elsewhere"
    raw.mkdir()
    (raw / "input.json").write_text("{}")
    assert_refused(
        checkout, "input.json: SHA-256 ", "--config", "workload=faro-10jobs", "raw=elsewhere"
    )
    assert (raw / "input.json").read_text() == "{}"

"""The pipeline answers bad settings and files with one clear line, before it plans a job."""

import pytest
from checkouts import ROOT
from faro_pipeline.check import check
from faro_pipeline.settings import load
from messages import assert_one_line, assert_refused

from faro_ops.errors import message_of, one_line

GOOD = "minute,job,requests\n0,a,5\n0,b,5\n1,a,5\n1,b,5\n"
OF_A_FILE = {"workload": "mine.csv", "capacities": [4]}

# (settings, content of mine.csv, what the line says)
CASES = [
    (OF_A_FILE, GOOD.replace("requests", "request"), "column 'requests' is missing"),
    (OF_A_FILE, "\0\1", "mine.csv"),
    (OF_A_FILE, GOOD.replace("1,a,5", "1,a,5,6"), "mine.csv"),
    (OF_A_FILE, GOOD, "Faro-Sum learns from earlier days, and there is a single day"),
    (OF_A_FILE | {"capacities": [1]}, GOOD, "minimum of 2 jobs"),
    ({"workload": "none.csv"}, GOOD, "none.csv: no such file"),
    ({"jobs": "none.csv"}, GOOD, "none.csv: no such file"),
    ({"capacities": [36, 9]}, GOOD, "9 replicas are fewer than the 10 jobs"),
    ({"trails": 5}, GOOD, "unknown key 'trails'; did you mean 'trials'?"),
    (
        {"workload": "faro-10job"},
        GOOD,
        "workload='faro-10job' is neither a workload nor a .csv file; did you mean 'faro-10jobs'?",
    ),
]


@pytest.mark.parametrize(("settings", "content", "line"), CASES, ids=[case[2] for case in CASES])
def test_a_bad_file_or_setting_is_one_line(settings, content, line, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sources.yaml").write_bytes((ROOT / "data/sources.yaml").read_bytes())
    (tmp_path / "mine.csv").write_text(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError)) as refused:
        check(load(settings))
    assert_one_line(one_line(message_of(refused.value)), line)


def test_snakemake_prints_the_line_and_plans_nothing(checkout):
    (checkout.folder / "bad.csv").write_text(GOOD.replace("requests", "request"))
    assert_refused(
        checkout,
        "column 'requests' is missing",
        *("--config", "workload=bad.csv", "capacities=[4]"),
    )
    assert_refused(
        checkout,
        "config: policies: policy='FairShar' is unknown; did you mean 'FairShare'?",
        *("--config", "policies=[FairShar]"),
    )


def test_it_refuses_published_traces_with_another_content(checkout):
    raw = checkout.folder / "elsewhere"
    raw.mkdir()
    (raw / "input.json").write_text("{}")
    assert_refused(
        checkout, "input.json: SHA-256 ", "--config", "workload=faro-10jobs", "raw=elsewhere"
    )
    assert (raw / "input.json").read_text() == "{}"

"""`workload=` names a request log: the stages read a table of its counts."""

from __future__ import annotations

import os

import pytest
from faro_pipeline.start import start
from request_logs import FAULTS, assert_names_file_and_row, bad_log, requests_of

from faro_lib.workload.readers import read_csv
from faro_ops.advise.sources import request_log
from faro_ops.advise.sources.load_history import read_workload
from faro_ops.errors import message_of

JOBS = "- {job: a, service_time_s: 0.1}\n- {job: b, service_time_s: 0.1}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs.yaml").write_text(JOBS)
    return tmp_path


def started(workload, **settings):
    config = {"workload": str(workload), "jobs": "jobs.yaml", "capacities": [4], **settings}
    return start(config, here=False, say=True, validate=lambda settings: None)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_log_is_one_line_with_file_and_row_and_writes_nothing(fault, folder):
    log, reason = bad_log(fault, folder)
    with pytest.raises(ValueError, match="log") as caught:
        started(log)
    assert_names_file_and_row(str(message_of(caught.value)), log, fault, reason)
    assert not (folder / "results").exists()


def test_a_missing_log_is_one_line(folder):
    with pytest.raises(OSError, match=r"none\.jsonl") as caught:
        started("none.jsonl")
    assert message_of(caught.value) == "none.jsonl: no such file or folder"


def test_the_stages_read_the_counts_of_the_log(folder):
    log = folder / "my.jsonl.gz"
    requests_of(3 * 1440).to_json(log, orient="records", lines=True)
    settings, days = started(log)
    assert days == 2
    assert settings["workload"] == "results/my/counts/my.csv"
    read, direct = read_csv(settings["workload"]), read_workload(str(log))
    assert read.train.tolist() == direct.train.tolist()
    assert read.evaluation.tolist() == direct.evaluation.tolist()


def test_the_log_is_read_again_only_if_it_or_the_jobs_are_newer(folder, capsys, monkeypatch):
    monkeypatch.setattr(request_log, "PROGRESS_ROWS", 1)
    log = folder / "my.csv"
    requests_of(2 * 1440).to_csv(log, index=False)

    def reads() -> bool:
        started(log)
        return "million rows" in capsys.readouterr().err

    for source in (log, folder / "jobs.yaml"):
        os.utime(source, (1, 1))
    assert [reads(), reads()] == [True, False]
    for source in (log, folder / "jobs.yaml"):
        os.utime(source)
        os.utime(folder / "results/my/counts/my.csv", (2, 2))
        assert reads()
        os.utime(source, (1, 1))

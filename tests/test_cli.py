"""The command line, run as its user does."""

import json

import pytest

from faro_lib import __version__, cli

HOUR = ["simulate", "--policy", "FairShare", "--policy", "AIAD", "--minutes", "10", "--trials", "2", "--replicas", "16"]


def test_it_tells_its_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"faro {__version__}"


def test_without_a_command_it_tells_what_there_is(capsys):
    assert cli.main([]) == 0
    assert "simulate" in capsys.readouterr().out


def test_the_table_has_a_row_for_each_policy_in_the_order_asked_for(capsys):
    assert cli.main(HOUR) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["policy", "FairShare", "AIAD"]
    assert all("±" in row for row in rows[1:])


def test_json_has_an_object_for_each_policy_and_trial_and_nothing_else_on_standard_output(capsys):
    assert cli.main([*HOUR, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(row["policy"], row["trial"]) for row in rows} == {(p, t) for p in ("FairShare", "AIAD") for t in (0, 1)}
    assert all(0 <= row["lost_utility"] <= 10 for row in rows)


def test_the_same_call_gives_the_same_numbers(capsys):
    def run():
        assert cli.main([*HOUR, "--json"]) == 0
        times = ("decision_ms_p50", "decision_ms_p99", "wall_s")
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return [{name: value for name, value in row.items() if name not in times} for row in rows]

    assert run() == run()


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch):
    def broken(*_, **__):
        raise KeyError("a bug")

    monkeypatch.setattr("faro_lib.metrics.compare", broken)
    with pytest.raises(KeyError, match="a bug"):
        cli.main(HOUR)

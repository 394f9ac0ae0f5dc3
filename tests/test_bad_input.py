"""Bad input gets one clear line, no traceback, and nothing is written."""

import pytest

from faro_lib import cli

GOOD = "minute,job,requests\n0,a,5\n0,b,5\n1,a,5\n1,b,5\n"

FILES = [
    ("missing column", GOOD.replace("requests", "request"), "column 'requests' is missing"),
    ("negative count", GOOD.replace("1,a,5", "1,a,-5"), "line 4: requests=-5 for job 'a' at minute 1 is negative"),
    ("fractional count", GOOD.replace("1,a,5", "1,a,5.5"), "requests=5.5 for job 'a' at minute 1 is not whole"),
    ("gap in minutes", GOOD.replace("1,", "2,"), "minute 1 is missing for job 'a'"),
    ("gap of one job", GOOD.replace("1,b,5\n", ""), "minute 1 is missing for job 'b'"),
    ("duplicate", GOOD + "1,b,5\n", "line 6: job 'b' at minute 1 occurs a second time"),
    ("not a table", "\0\1", "bad.csv"),
    ("empty", "", "not a CSV table"),
]


@pytest.mark.parametrize(("content", "told"), [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_the_command_line_refuses_a_bad_file_in_one_line(content, told, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text(content)
    assert cli.main(["simulate", "--workload", "bad.csv", "--policy", "FairShare", "--capacity", "4"]) == 2
    assert_one_line(capsys.readouterr().err, told)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


@pytest.mark.parametrize(("content", "told"), [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_the_pipeline_refuses_a_bad_file_in_one_line(content, told, checkout):
    (checkout.folder / "bad.csv").write_text(content)
    assert_refused(checkout, told, "--config", "workload=bad.csv", "capacities=[4]")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            ["workload=faro-10job"],
            "workload='faro-10job' is neither a workload nor a .csv file; did you mean 'faro-10jobs'?",
        ),
        (["workload=none.csv"], "none.csv: no such file"),
        (["capacities=[36,9]"], "9 replicas are fewer than the 10 jobs"),
        (["trails=5"], "unknown key 'trails'; did you mean 'trials'?"),
        (["policies=[FairShar]"], "config: policies: policy='FairShar' is unknown; did you mean 'FairShare'?"),
        (["jobs=none.csv"], "none.csv: no such file"),
    ],
    ids=lambda part: part[0] if isinstance(part, list) else "",
)
def test_the_pipeline_refuses_a_bad_configuration_in_one_line(settings, told, checkout):
    assert_refused(checkout, told, "--config", *settings)


def test_the_pipeline_refuses_fewer_replicas_than_the_jobs_of_a_file(checkout):
    (checkout.folder / "good.csv").write_text(GOOD)
    assert_refused(checkout, "minimum of 2 jobs", "--config", "workload=good.csv", "capacities=[1]")


def test_the_pipeline_refuses_a_single_day_for_a_policy_that_learns_from_earlier_ones(checkout):
    (checkout.folder / "good.csv").write_text(GOOD)
    assert_refused(
        checkout,
        "Faro-Sum learns from earlier days, and there is a single day",
        "--config",
        "workload=good.csv",
        "capacities=[4]",
    )


def test_the_pipeline_refuses_published_traces_with_another_content(checkout):
    raw = checkout.folder / "elsewhere"
    raw.mkdir()
    (raw / "input.json").write_text("{}")
    assert_refused(checkout, "input.json: SHA-256 ", "--config", "workload=faro-10jobs", "raw=elsewhere")
    assert (raw / "input.json").read_text() == "{}"


def test_the_command_line_refuses_published_traces_with_another_content(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "input.json").write_text("{}")
    assert cli.main(["simulate", "--workload", "faro-10jobs"]) == 2
    assert_one_line(capsys.readouterr().err, "input.json: SHA-256 ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--capacity", "9"], "9 replicas are fewer than the 10 jobs of synthetic"),
        (["--capacity", "many"], "--capacity"),
        (["--replicas", "32"], "No such option: --replicas; it is now called --capacity."),
        (["--workload", "none.csv"], "none.csv: no such file"),
        (["--workload", "synthetc"], "did you mean 'synthetic'?"),
        (["--policy", "fairshare"], "did you mean 'FairShare'?"),
        (["--polcy", "AIAD"], "--policy"),
        (["--trials", "0"], "trials=0"),
        (["--jobs", "none.yaml"], "none.yaml: no such file"),
        (["--forecaster", "crystal-ball", "--minutes", "1"], "forecaster='crystal-ball' is unknown"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_the_command_line_refuses_bad_arguments_in_one_line(arguments, told, capsys):
    assert cli.main(["simulate", *arguments]) == 2
    assert_one_line(capsys.readouterr().err, told)


def assert_one_line(said: str, told: str) -> None:
    lines = said.splitlines()
    assert len(lines) == 1, said
    assert told in lines[0]


def assert_refused(checkout, told: str, *arguments: str) -> None:
    """Snakemake stops before it plans anything; of its own it says only where its configuration comes from."""
    done = checkout.snakemake(*arguments)
    assert done.returncode != 0
    own = ("Using workflow specific profile", "Config file config/default.yaml is extended")
    said = [line for line in (done.stdout + done.stderr).splitlines() if line and not line.startswith(own)]
    assert_one_line("\n".join(said), told)
    assert not checkout.results.exists()

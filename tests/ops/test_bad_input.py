"""The command line answers bad input with one clear line, and writes nothing."""

import shlex

import pytest
from messages import assert_one_line

from faro_lib.workload import Job
from faro_ops import cli
from faro_ops.cli.controller import table_reader
from faro_ops.operate.rayserve.spec import serve_specs

GOOD = "minute,job,requests\n0,a,5\n0,b,5\n1,a,5\n1,b,5\n"

FILES = [
    ("missing column", GOOD.replace("requests", "request"), "column 'requests' is missing"),
    (
        "negative count",
        GOOD.replace("1,a,5", "1,a,-5"),
        "line 4: requests=-5 for job 'a' at minute 1 is negative",
    ),
    (
        "fractional count",
        GOOD.replace("1,a,5", "1,a,5.5"),
        "requests=5.5 for job 'a' at minute 1 is not whole",
    ),
    ("gap in minutes", GOOD.replace("1,", "2,"), "minute 1 is missing for job 'a'"),
    ("gap of one job", GOOD.replace("1,b,5\n", ""), "minute 1 is missing for job 'b'"),
    ("duplicate", GOOD + "1,b,5\n", "line 6: job 'b' at minute 1 occurs a second time"),
    ("not a table", "\0\1", "bad.csv"),
    ("empty", "", "not a table"),
    ("blank job", GOOD.replace("1,a", "1,"), "line 4: job is empty"),
    ("minute far away", GOOD + "999999999,a,5\n", "minute 2 is missing for job 'a'"),
    (
        "minutes since 1970",
        GOOD.replace("\n0", "\n29300000").replace("\n1", "\n29300001"),
        "minute 0 is missing",
    ),
    (
        "huge count",
        GOOD.replace("1,a,5", "1,a,1e30"),
        "line 4: requests=1e+30 for job 'a' at minute 1 is too large",
    ),
    ("more cells than columns", GOOD.replace("1,a,5", "1,a,5,6"), "bad.csv"),
    (
        "only more cells than columns",
        "minute,job,requests\n0,a,5,6\n",
        "line 2 has more cells than the header",
    ),
    ("escape sequence in a name", GOOD.replace(",a,", ",a\x1b[31m,"), r"job 'a\x1b[31m'"),
    ("name that is not ASCII", GOOD.replace(",a,", ",été,"), "job 'été'"),
]


@pytest.mark.parametrize(
    ("content", "told"), [case[1:] for case in FILES], ids=[case[0] for case in FILES]
)
def test_the_command_line_refuses_a_bad_file_in_one_line(
    content, told, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text(content)
    arguments = shlex.split("--workload bad.csv --policy FairShare --capacity 4")
    assert cli.main(["simulate", *arguments]) == 2
    assert_one_line(capsys.readouterr().err, told)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


TABLES = [
    ("broken YAML", "- job: a\n  slo_s: [1\n", "bad.yaml, line 3: "),
    ("nested too deeply", "[" * 5000, "bad.yaml: "),
    (
        "tag of Python",
        "- job: !!python/object:os.system a\n",
        "bad.yaml, line 1: anchors, aliases and tags are not accepted",
    ),
    (
        "unknown tag",
        "- job: !mine a\n",
        "bad.yaml, line 1: anchors, aliases and tags are not accepted",
    ),
    (
        "alias bomb",
        "a: &a [x, x]\nb: &b [*a, *a]\njobs: [*b, *b]\n",
        "line 1: anchors, aliases and tags are not accepted",
    ),
    ("empty", "", "bad.yaml: expected a list of jobs"),
    ("binary", bytes(range(256)), "bad.yaml: not UTF-8 text"),
    (
        "name that is not ASCII",
        "- job: été\n",
        "name='été' must be 1 to 100 printable ASCII characters",
    ),
    ("line break in a name", '- job: "a\\nb"\n', r"name='a\nb' must be"),
    ("escape sequence in a name", '- job: "a\\e[31m"\n', r"name='a\x1b[31m' must be"),
    ("long name", f"- job: {'x' * 5000}\n", "must be 1 to 100 printable ASCII characters"),
    ("list as a name", "- job: [1, 2]\n", "job 1: job=[1, 2] is not text"),
    (
        "fraction of a replica",
        "- job: a\n  min_replicas: 1.5\n",
        "job 1: min_replicas=1.5 is not a whole number",
    ),
    ("truth as a number", "- job: a\n  slo_s: true\n", "job 1: slo_s=True is not a number"),
    ("mapping as a number", "- job: a\n  slo_s: {x: 1}\n", "job 1: slo_s={'x': 1} is not a number"),
    ("not a number", "- job: a\n  slo_s: .nan\n", "slo_s=nan must be a finite number > 0"),
    ("number that no float holds", f"- job: a\n  slo_s: {'9' * 400}\n", "is not a number"),
    ("number of too many digits", f"- job: a\n  slo_s: {'9' * 5000}\n", "bad.yaml: "),
    ("date that does not exist", "- job: 2026-13-45\n", "bad.yaml: "),
    (
        "service faster than a clock",
        "- job: a\n  service_time_s: 1.0e-9\n",
        "service_time_s=1e-09 must be",
    ),
    (
        "replicas without a bound",
        "- job: a\n  max_replicas: 1000000000\n",
        "max_replicas=1000000000 must be",
    ),
    (
        "blank name in a CSV",
        "job,slo_s\n,0.5\n",
        "bad.csv, job 1: column `job` (the name) is missing",
    ),
    ("empty CSV", "job", "bad.csv: jobs is empty"),
    ("CSV without a byte", b"", "bad.csv: not a table"),
    ("binary CSV", bytes(range(256)), "bad.csv: not a table"),
]


@pytest.mark.parametrize(
    ("content", "told"), [case[1:] for case in TABLES], ids=[case[0] for case in TABLES]
)
def test_a_bad_table_of_jobs_is_refused_in_one_line(
    content, told, request, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    name = "bad.csv" if "CSV" in request.node.callspec.id else "bad.yaml"
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert cli.main(["run", "--jobs", name, "--policy", "AIAD", "--journal", "run.journal"]) == 2
    assert_one_line(capsys.readouterr().err, told)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_job_with_the_name_of_faros_own_application_is_refused_on_ray_serve():
    with pytest.raises(ValueError, match="job 'faro statistics': 'faro-statistics' is reserved"):
        serve_specs((Job("faro statistics"),))


@pytest.mark.parametrize("command", ["simulate", "recommend", "run"])
def test_a_capacity_beyond_every_cluster_is_refused_at_once(command, tmp_path, capsys):
    (tmp_path / "jobs.yaml").write_text("- job: a\n")
    jobs = ["--jobs", str(tmp_path / "jobs.yaml")] if command == "run" else []
    assert cli.main([command, *jobs, "--capacity", "1000000000"]) == 2
    assert_one_line(
        capsys.readouterr().err, "'--capacity': Input should be less than or equal to 1000000"
    )


def test_a_billion_trials_are_refused_at_once(capsys):
    assert cli.main(["simulate", "--trials", "1000000000"]) == 2
    assert_one_line(capsys.readouterr().err, "trials=1000000000")


def test_a_long_value_is_shortened_and_its_line_breaks_are_not_printed(capsys):
    assert cli.main(["simulate", "--workload", "x\n\x1b" * 2000]) == 2
    said = capsys.readouterr().err
    assert_one_line(said, "workload='x")
    assert "did you mean" in said or "accepted" in said
    assert "\x1b" not in said


def test_the_command_line_refuses_published_traces_with_another_content(
    tmp_path, capsys, monkeypatch
):
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
        (
            ["--forecaster", "crystal-ball", "--minutes", "1"],
            "forecaster='crystal-ball' is unknown",
        ),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_the_command_line_refuses_bad_arguments_in_one_line(arguments, told, capsys):
    assert cli.main(["simulate", *arguments]) == 2
    assert_one_line(capsys.readouterr().err, told)


def test_manifests_refuse_a_curve_that_the_controllers_pod_would_not_have(tmp_path, capsys):
    (tmp_path / "curve.csv").write_text("replicas,rate_per_replica_rps,p50_s\n")
    (tmp_path / "jobs.yaml").write_text("- {job: a, latency_curve: curve.csv}\n")
    arguments = f"--jobs {tmp_path}/jobs.yaml --out {tmp_path}/m".split()
    assert cli.main(["manifests", *arguments]) == 2
    problem = f"latency_curve='{tmp_path}/curve.csv' is a file that the controller's pod would not"
    assert_one_line(capsys.readouterr().err, f"job 'a': {problem} have; leave the column out")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        "run --earn --capacity 4",
        "manifests --out {0}/m",
        "recommend --workload synthetic",
    ],
)
def test_jobs_that_share_replicas_are_refused_where_no_router_stands(arguments, tmp_path, capsys):
    table = tmp_path / "jobs.yaml"
    shared = "pool: p, models_per_replica: 2"
    table.write_text(f"- {{job: a, {shared}}}\n- {{job: b, {shared}}}\n")

    code = cli.main([*arguments.format(tmp_path).split(), "--jobs", str(table)])

    assert code == 2
    assert_one_line(capsys.readouterr().err, "pool")


@pytest.mark.parametrize("kind", ["concurrent, at_once: 4", "batched, max_batch: 4, base_s: 0.1"])
@pytest.mark.parametrize(
    "command", ["run --capacity 4", "deploy --dry-run --address http://127.0.0.1:1"]
)
def test_ray_serve_refuses_pools_of_replicas_that_are_not_serial(command, kind, tmp_path, capsys):
    table = tmp_path / "jobs.yaml"
    shared = f"pool: p, models_per_replica: 2, replica: {{kind: {kind}}}"
    table.write_text(f"- {{job: a, {shared}}}\n- {{job: b, {shared}}}\n")

    assert cli.main([*command.split(), "--jobs", str(table)]) == 2

    named = f"replicas of kind {kind.partition(',')[0]} cannot be shared on Ray Serve yet"
    assert_one_line(capsys.readouterr().err, f"job 'a': {named}")


def test_nothing_in_front_of_deployments_routes_to_shared_replicas(tmp_path):
    table = tmp_path / "jobs.yaml"
    shared = "pool: p, models_per_replica: 2"
    table.write_text(f"- {{job: a, {shared}}}\n- {{job: b, {shared}}}\n")

    assert len(table_reader("rayserve", earn=False)(table)) == 2
    with pytest.raises(ValueError, match=r"a, b share replicas \(pool='p'\)"):
        table_reader("deployments", earn=False)(table)

"""The scripts under cluster/: what they refuse; they are clean; versions stand in one place."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from studies.faults import tables as faults

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
DOCS = ROOT / "docs/kubernetes.md"
SCRIPTS = sorted([*CLUSTER.rglob("*.sh"), ROOT / ".ci/run", ROOT / ".ci/release"])
ON_EVERY_MACHINE = shlex.split("bash dirname grep head sort cat env date id mktemp rm")


@pytest.fixture
def bare(tmp_path):
    """An environment whose PATH has nothing but what every machine has."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ON_EVERY_MACHINE:
        (folder / name).symlink_to(shutil.which(name))
    return {"PATH": str(folder), "HOME": str(tmp_path)}


def ran(script, environment, *arguments):
    command = [str(CLUSTER / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_up_names_every_missing_tool_in_a_line_and_changes_nothing(bare, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = ran("up.sh", bare | {"FARO": "/nowhere/faro"}, "/nowhere/jobs.yaml")
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert [line.split()[1] for line in lines[:4]] == ["docker", "kind", "helm", "kubectl"]
    assert all("is missing; see https://" in line for line in lines[:4])
    assert lines[4:] == [
        "up.sh: /nowhere/faro is missing; `make .venv/.ready` makes it",
        "up.sh: /nowhere/jobs.yaml: no such table of jobs",
    ]
    assert sorted(tmp_path.rglob("*")) == before


def fake(environment, name, says, status=0):
    path = Path(environment["PATH"]) / name
    path.write_text(f"#!/bin/bash\n[ \"$*\" = info ] && exit {status}\necho '{says}'\n")
    path.chmod(0o755)


def test_up_names_a_tool_that_is_too_old_and_a_docker_that_does_not_answer(bare):
    fake(bare, "docker", "", status=1)
    fake(bare, "kind", "kind v0.20.0 go1.20 linux/amd64")
    fake(bare, "helm", "v99.0.0+g1")
    fake(bare, "kubectl", "Client Version: v1.20.1")
    done = ran("up.sh", bare | {"FARO": "/bin/true"})
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1
    assert len(lines) == 3
    assert "docker does not answer" in lines[0]
    assert re.search(r"kind 0\.20\.0 is too old; \S+ or newer is needed", lines[1])
    assert "kubectl 1.20.1 is too old" in lines[2]


def test_down_without_kind_says_so(bare):
    done = ran("down.sh", bare)
    assert done.returncode == 1
    assert done.stderr.startswith("down.sh: kind is missing")


def test_the_engine_reads_our_settings_and_not_those_of_the_machine(tmp_path):
    """An option that /etc/docker/daemon.json gives as well ended dockerd."""
    folder = tmp_path / "bin"
    folder.mkdir()
    answers = {
        "docker": f'[ -e "{tmp_path}/asked" ]',
        "dockerd": f'printf "%s\\n" "$@" >"{tmp_path}/asked"',
        "iptables": "echo -P FORWARD ACCEPT",
    }
    for name, answer in answers.items():
        (folder / name).write_text(f"#!/bin/bash\n{answer}\n")
        (folder / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "FARO_KIND_CACHE": str(tmp_path / "cache"),
    }
    done = ran("offline/docker.sh", environment, "start")
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    settings = Path(asked[asked.index("--config-file") + 1])
    assert settings.is_relative_to(tmp_path / "cache")
    assert json.loads(settings.read_text()).keys() <= {"runtimes", "default-runtime"}
    assert set(asked[::2]) == {"--config-file", "--data-root", "--exec-root", "--pidfile"}


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_every_script_is_clean():
    done = subprocess.run(
        ["shellcheck", "-x", *map(str, SCRIPTS)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("backend", ["kind", "kubernetes"])
def test_the_pipeline_plans_notebook_80_on_it(backend, checkout):
    wanted = f"results/synthetic/live/{backend}/summary.csv"
    done = checkout.snakemake("--dry-run", "--config", f"backend={backend}", "--", wanted)
    assert done.returncode == 0, done.stderr
    assert f"live: 80_live on {backend}" in done.stdout + done.stderr


def test_the_table_of_rights_in_the_docs_is_what_the_role_has():
    from faro_ops.operate.kube import preflight

    rows = re.findall(
        r"^\| (everywhere|its namespace|`\w+`[a-z ,]+) \| (\S+) \| (\S+) \| ([^|]+) \|$",
        DOCS.read_text(),
        re.MULTILINE,
    )
    told = {
        (where, "" if group == "core" else group, what, tuple(verbs.split(", ")))
        for where, group, what, verbs in rows
    }
    parts = {
        "everywhere": preflight.NODES,
        "`deployments` only, everywhere": preflight.PODS,
        "its namespace": preflight.ALWAYS,
        "`deployments` only": preflight.QUOTAS + preflight.FOR_DEPLOYMENTS,
        "`rayserve` only": preflight.FOR_RAY,
    }
    assert told == {(where, *right) for where, rights in parts.items() for right in rights}


@pytest.mark.parametrize("backend", ["rayserve", "deployments"])
def test_the_table_of_files_in_the_docs_is_what_is_written(backend, tmp_path):
    from faro_ops import cli

    more = ["--prometheus", "http://p:9090"] if backend == "deployments" else ["--service-monitor"]
    arguments = f"--jobs {CLUSTER}/jobs.yaml --out {tmp_path}/m --backend {backend}".split()
    assert cli.main(["manifests", *arguments, *more]) == 0
    told = set(re.findall(r"`(\w+\.ya?ml)`", DOCS.read_text()))
    assert {path.name for path in (tmp_path / "m").iterdir()} - {"kustomization.yaml"} <= told


def test_the_table_of_the_hour_has_a_row_per_event():
    row = {"event": "a node is drained", "at_s": "1230.4", "whole_s": "61.6", "sent": "800"}
    row |= {"failed": "2", "in_killed_pods": "2", "targets": "a=4 b=3"}
    table = faults.hour_table([row])
    assert table.splitlines()[2:] == ["| 21 | a node is drained | 62 | 800 | 2 | 2 | a=4 b=3 |"]


def test_the_page_says_how_long_the_hour_was_and_how_busy_the_machine():
    looks = [{"at_s": f"{60 * i}", "load": f"{load}"} for i, load in enumerate([1.0, 4.0, 1.5])]
    assert "in 2 minutes." in faults.sentence(looks, [])
    assert "events: 1." in faults.sentence(looks, [{}])
    assert "load per core was 1.5 in the median, 4.0 at most" in faults.sentence(looks, [])


def test_tests_on_kind_keep_the_programs_that_earlier_ones_have_built():
    """Where the scripts look in a test is where they look outside of one."""
    ask = ["bash", "-c", '. "$0"; echo "$CACHE"', str(CLUSTER / "offline/settings.sh")]
    inside = subprocess.run(ask, capture_output=True, text=True, timeout=60).stdout.strip()
    assert inside
    assert not inside.startswith(os.environ["XDG_CACHE_HOME"])


def test_the_table_of_faults_has_the_last_row_of_each_fault():
    row = '{"fault": "head killed", "sent": 200, "failed": %d, "whole_s": 61.6}'
    table = faults.table([row % 90, row % 80])
    assert table.splitlines()[2:] == ["| head killed | 200 | 80 | 62 |"]

"""The hosted CI runs `.ci/run` and nothing else, with pinned versions."""

import os
import re
import subprocess

import pytest
import yaml
from checkouts import ROOT

TEXT = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
JOBS = yaml.safe_load(TEXT)["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]


def test_it_runs_the_one_script_and_no_other_command():
    assert [step["run"] for step in STEPS if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("action", [step["uses"] for step in STEPS if "uses" in step])
def test_an_action_is_taken_at_a_version(action):
    assert re.fullmatch(r"actions/[\w-]+@v\d+", action)


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_job_ends_by_itself_on_a_machine_of_one_release(job):
    assert job["timeout-minutes"] <= 120
    assert re.fullmatch(r"ubuntu-\d\d\.\d\d", job["runs-on"])
    assert re.fullmatch(r"debian:\w+", job["container"]["image"])
    assert not job["container"]["image"].endswith("latest")


def test_it_may_read_and_nothing_else():
    assert yaml.safe_load(TEXT)["permissions"] == {"contents": "read"}


# --- releases -------------------------------------------------------------------------------------

RELEASE = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
VERSION = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]


def released(tmp_path, *arguments, **environment):
    """Run .ci/release beside a docker and a helm that only write down their arguments.

    This helm also keeps the chart's values.
    """
    for name, more in {
        "docker": "",
        "helm": f'[ "$1" != package ] || cp "$2/values.yaml" {tmp_path}/values.yaml',
    }.items():
        (tmp_path / name).write_text(f'#!/bin/bash\necho "{name} $*" >>{tmp_path}/said\n{more}\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / "said").touch()
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [ROOT / ".ci" / "release", *arguments]
    done = subprocess.run(
        command, env=path | environment, capture_output=True, text=True, timeout=60
    )
    return done, (tmp_path / "said").read_text().splitlines()


def test_a_release_is_published_for_a_tag_by_one_script_that_may_write_packages():
    [job] = RELEASE["jobs"].values()
    assert RELEASE[True] == {"push": {"tags": ["v[0-9]+.[0-9]+.[0-9]+"]}}  # YAML reads `on` as true
    assert RELEASE["permissions"] == {"contents": "read", "packages": "write"}
    assert [step["run"].split()[0] for step in job["steps"] if "run" in step] == [".ci/release"]
    assert job["timeout-minutes"] <= 120


def test_a_dry_run_packages_a_chart_with_the_image_of_the_release(tmp_path):
    done, said = released(
        tmp_path, VERSION, "ghcr.io/owner", DRY_RUN="1", TOKEN="secret", GITHUB_ACTOR="me"
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in said] == [["helm", "package"]]
    assert f"--version {VERSION} --app-version {VERSION}" in said[0]
    values = yaml.safe_load((tmp_path / "values.yaml").read_text())
    assert values == yaml.safe_load((ROOT / "charts/faro/values.yaml").read_text()) | {
        "image": f"ghcr.io/owner/faro:{VERSION}"
    }


def test_without_a_token_the_image_is_built_and_nothing_is_pushed(tmp_path):
    done, said = released(tmp_path, VERSION, "ghcr.io/owner")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in said] == [["docker", "build"], ["helm", "package"]]


def test_with_a_token_the_image_is_pushed_before_the_chart_and_the_token_is_no_argument(tmp_path):
    done, said = released(tmp_path, VERSION, "ghcr.io/owner", TOKEN="secret", GITHUB_ACTOR="me")
    # The docker of this test prints no digest, and a chart without an image is not published.
    assert done.returncode == 1
    assert [line.split()[:2] for line in said] == [
        ["docker", "build"],
        ["docker", "login"],
        ["docker", "push"],
        ["docker", "image"],
    ]
    assert not any("secret" in line for line in said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected VERSION and PLACE"),
        (["1.2", "ghcr.io/owner"], "VERSION='1.2' must read 1.2.3"),
        (["99.0.0", "ghcr.io/owner"], f"VERSION=99.0.0, but pyproject.toml has version {VERSION}"),
    ],
)
def test_a_version_that_is_not_the_projects_is_refused(tmp_path, arguments, message):
    done, said = released(tmp_path, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert said == []

"""The hosted CI runs `.ci/run` and nothing else, with pinned versions."""

import json
import os
import re
import subprocess

import pytest
import yaml
from checkouts import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = [
    (path.name, line.split("uses: ")[1])
    for path in WORKFLOWS
    for line in path.read_text().splitlines()
    if "uses: " in line
]
TEXT = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
JOBS = yaml.safe_load(TEXT)["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]


def test_it_runs_the_one_script_and_no_other_command():
    assert [step["run"] for step in STEPS if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize(("workflow", "action"), ACTIONS)
def test_an_action_is_taken_at_a_commit_with_its_version_beside_it(workflow, action):
    """A tag may be moved to other code; a commit may not."""
    assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)


def test_an_action_has_one_commit_in_all_workflows():
    commits = dict(action.split("@") for _, action in ACTIONS)
    assert {f"{name}@{commit}" for name, commit in commits.items()} == {a for _, a in ACTIONS}


# Images that are named by tag alone, and why.
BY_TAG = {
    "mcr.microsoft.com/devcontainers/python:3.11-bookworm": (
        "no two public sources state one digest of it"
    ),
}


def images() -> set[str]:
    """The images that come from a registry."""
    found = {json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())["image"]}
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text())["jobs"].values():
            found |= {job["container"]["image"]} if "container" in job else set()
    for path in (*ROOT.glob("cluster/Dockerfile*"), ROOT / "cluster/versions.env"):
        found |= set(re.findall(r"^(?:ARG )?\w+_IMAGE=(\S+)", path.read_text(), re.MULTILINE))
    return found


def test_an_image_is_named_by_its_digest_unless_it_is_listed_here():
    digest = re.compile(r".+:[\w.-]+@sha256:[0-9a-f]{64}")
    assert {image for image in images() if not digest.fullmatch(image)} == set(BY_TAG)


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_job_ends_by_itself_on_a_machine_of_one_release(job):
    assert job["timeout-minutes"] <= 120
    assert re.fullmatch(r"ubuntu-\d\d\.\d\d", job["runs-on"])
    assert re.match(r"debian:(?!latest)\w+@", job["container"]["image"])


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

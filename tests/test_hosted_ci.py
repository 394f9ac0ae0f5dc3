"""The hosted CI runs `.ci/run` and nothing else, with pinned versions."""

import os
import re

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

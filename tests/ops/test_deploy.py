"""`faro deploy` against a server that answers like Ray."""

import numpy as np
import pytest
import yaml
from live_things import FakeRay

from faro_ops.cli import main
from faro_ops.operate.rayserve.replica import response_of

OURS = "faro_ops.operate.rayserve.replica:application"


class Applications(FakeRay):
    """A Ray that also stores the configuration of its applications."""

    def __init__(self, configured, targets):
        super().__init__(targets)
        self.configured = {one["name"]: one for one in configured}
        self.troubled = {}  # application -> how its state differs

    def answer(self, method, path, body):
        if method == "PUT":
            self.configured = {one["name"]: one for one in body["applications"]}
            self.targets = {
                one["name"]: one.get("args", {}).get("replicas", 1) for one in body["applications"]
            }
            return 200, {}
        return super().answer(method, path, body)

    def application(self, name):
        state = super().application(name) | {"deployed_app_config": self.configured.get(name)}
        return state | self.troubled.get(name, {})


@pytest.fixture
def ray():
    """A Ray with three replicas of the job `a`, a job that the table no longer has, and an
    application of another program.
    """
    configured = [
        {"name": "a", "import_path": OURS, "args": {"replicas": 1}},
        {"name": "gone", "import_path": OURS, "args": {"replicas": 2}},
        {"name": "dashboard", "import_path": "other:app", "args": {}},
    ]
    return Applications(configured, {"a": 3, "gone": 2, "dashboard": 1})


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "jobs.yaml"
    path.write_text(
        "- {job: a, slo_s: 0.5, service_time_s: 0.1, serve: {import_path: 'm:A'}}\n"
        "- {job: b, slo_s: 1.0}\n"
    )
    return str(path)


def test_running_jobs_keep_their_replicas_and_other_applications_stay(ray, table, capsys):
    with ray.served() as address:
        assert main(["deploy", "--jobs", table, "--address", address]) == 0
    assert sorted(ray.configured) == ["a", "b", "dashboard", "faro-statistics"]
    assert ray.configured["a"]["args"]["replicas"] == 3
    assert ray.configured["a"]["args"]["import_path"] == "m:A"
    assert ray.configured["b"]["args"]["replicas"] == 1
    assert "application 'gone' is no longer in" in capsys.readouterr().err


@pytest.mark.parametrize("status", ["DEPLOYING", "DEPLOY_FAILED", "UNHEALTHY"])
def test_it_does_not_wait_for_applications_of_other_programs(ray, table, status, capsys):
    ray.troubled["dashboard"] = {"status": status, "message": "its own trouble"}
    with ray.served() as address:
        assert main(["deploy", "--jobs", table, "--address", address, "--start-timeout", "5"]) == 0
    assert "all applications of Faro run" in capsys.readouterr().err


def test_an_application_of_the_table_that_fails_is_named(ray, table, capsys):
    ray.troubled["b"] = {"status": "DEPLOY_FAILED", "message": "no module m"}
    with ray.served() as address:
        assert main(["deploy", "--jobs", table, "--address", address]) == 2
    assert "application 'b' could not be deployed: no module m" in capsys.readouterr().err


def test_a_dry_run_prints_the_configuration_and_deploys_nothing(ray, table, capsys):
    before = dict(ray.configured)
    with ray.served() as address:
        assert main(["deploy", "--jobs", table, "--address", address, "--dry-run"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)["applications"]
    assert [one["name"] for one in printed] == ["faro-statistics", "a", "b", "dashboard"]
    assert ray.configured == before


@pytest.mark.parametrize(
    ("answer", "body", "media_type"),
    [
        ("ok", b"ok", "text/plain"),
        (b"ok", b"ok", "text/plain"),
        (None, b"", "text/plain"),
        ({"model": "a", "p": [0.5]}, b'{"model":"a","p":[0.5]}', "application/json"),
        ([1, 2], b"[1,2]", "application/json"),
        (np.array([1.5, 2.0]), b"[1.5,2.0]", "application/json"),
        ({"label": np.int64(3)}, b'{"label":3}', "application/json"),
    ],
)
def test_what_a_model_returns_is_answered_as_ray_serve_answers_it(answer, body, media_type):
    response = response_of(answer)
    assert response.body == body
    assert response.headers["content-type"].startswith(media_type)

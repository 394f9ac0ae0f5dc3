"""Whoever names a module's old place in `faro_lib` reads the new one, in one line."""

import pytest
from live_things import FakeRay

from faro_lib import registry
from faro_lib.workload import Job
from faro_ops.cli import main
from faro_ops.http import HttpClient
from faro_ops.moved import MOVED
from faro_ops.operate.loop.clock import Clock
from faro_ops.operate.rayserve.cluster import RayServeCluster
from faro_ops.operate.rayserve.deploy import merged
from faro_ops.operate.rayserve.replica import load_model
from faro_ops.operate.rayserve.spec import serve_specs

OLD = "faro_lib.rayserve.models:Emulated"
MOVED_MODEL = f"import_path='{OLD}' has moved; write 'faro_ops.operate.rayserve.models:Emulated'"
OLD_STATS = "faro_lib.rayserve.replica:stats_endpoint"
OLD_JOB = "faro_lib.rayserve.replica:application"


class OldRay(FakeRay):
    """A Ray whose applications were configured by an older Faro."""

    status_of_stats = "DEPLOY_FAILED"

    def application(self, name):
        stats = name == "faro-statistics"
        configured = {"name": name, "import_path": OLD_STATS if stats else OLD_JOB}
        state = super().application(name) | {"deployed_app_config": configured}
        return state | {"status": self.status_of_stats} if stats else state


def test_the_table_of_jobs(tmp_path, capsys):
    table = tmp_path / "jobs.yaml"
    table.write_text(f"- {{job: a, slo_s: 0.5, serve: {{import_path: '{OLD}'}}}}\n")
    assert main(["deploy", "--jobs", str(table), "--address", "http://127.0.0.1:1"]) == 2
    assert capsys.readouterr().err == f"faro: serve of 'a': {MOVED_MODEL}\n"


def test_the_model_in_a_manifest_that_a_replica_loads():
    with pytest.raises(ValueError) as error:
        load_model(OLD)
    assert str(error.value) == MOVED_MODEL


def connect(ray):
    with ray.served() as address:
        server = HttpClient(address)
        specs = serve_specs((Job("a"),))
        RayServeCluster((Job("a"),), specs, server, server, Clock(0, 1.0)).connect()


def test_a_rayservice_whose_applications_cannot_start_with_the_new_image():
    ray = OldRay({"a": 1, "faro-statistics": 1})
    ray.window_status = 404
    with pytest.raises(ValueError) as error:
        connect(ray)
    new = OLD_STATS.replace("faro_lib", "faro_ops")
    moved = f"import_path={OLD_STATS!r} has moved; write {new!r}"
    assert str(error.value) == f"application 'faro-statistics': {moved}"


def test_a_rayservice_that_runs_with_an_old_image_is_controlled():
    ray = OldRay({"a": 1, "faro-statistics": 1})
    ray.status_of_stats = "RUNNING"
    connect(ray)


def test_an_application_that_an_older_faro_deployed_is_not_taken_for_another_programs():
    with OldRay({"gone": 2}).served() as address:
        assert merged(HttpClient(address), []) == ([], ["gone"])


@pytest.mark.parametrize("old", MOVED)
def test_a_plugin_that_imports_an_old_place(old, tmp_path, capsys):
    plugin = tmp_path / "mine.py"
    plugin.write_text(f"import {old}\n")
    assert main(["arena", "run", str(plugin), "--public"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"faro: {plugin}: ModuleNotFoundError: No module named '")
    assert error.endswith(f"'; {old!r} has moved; write {MOVED[old]!r}\n")


def test_a_plugin_beside_the_notebooks(tmp_path):
    (tmp_path / "studies/paper").mkdir(parents=True)
    (tmp_path / "studies/paper/published.py").write_text("")
    old = tmp_path / "notebooks/edition/published.py"
    with pytest.raises(FileNotFoundError) as error:
        registry.load_plugins([old])
    new = tmp_path / "studies/paper/published.py"
    assert str(error.value) == f"{old}: the plugin has moved; write {new}"

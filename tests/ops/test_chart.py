"""The Helm chart is made from the templates of `faro manifests`; a schema checks its values.

tests/kind/test_k8s_chart.py compares what Helm renders with what `faro manifests` writes.
"""

import importlib.util
import json
import re

import pytest
import yaml
from checkouts import ROOT

from faro_ops.operate.kube.manifests import ManifestSpec

SPEC = importlib.util.spec_from_file_location("generate", ROOT / "charts/generate.py")
generate = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(generate)
CHART = ROOT / "charts/faro"


@pytest.mark.parametrize(("name", "text"), generate.helm_files().items())
def test_the_committed_file_is_the_generated_one(name, text):
    assert (CHART / name).read_text() == text, "run `make chart`"


def test_the_schema_knows_exactly_the_values():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) | {"global"} == set(
        json.loads((CHART / "values.schema.json").read_text())["properties"]
    )


def test_the_chart_has_the_version_of_the_package():
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_a_dry_run_with_ceilings_restores_the_bounds_of_an_earlier_release():
    text = (CHART / "templates/restore.yaml").read_text()
    assert text.startswith('{{- if eq $.Values.act "ceilings" }}\n')
    assert "$.Values.apply" not in text


def test_the_disruption_budget_of_the_ray_workers_follows_their_number():
    budget = (CHART / "templates/controller.yaml").read_text().split("-workers, ")[1]
    assert "minAvailable: {{ sub $.Values.workers 1 }}\n" in budget
    assert (
        yaml.safe_load((CHART / "values.yaml").read_text())["workers"]
        == ManifestSpec((), "").workers.count
    )


def test_the_prometheus_operator_finds_both_objects_by_the_labels_of_the_user():
    text = (CHART / "templates/monitor.yaml").read_text()
    assert text.count("  labels:{{ with $.Values.monitorLabels }}") == text.count("kind: ") == 2


@pytest.mark.parametrize("name", ["NOTES.txt", "tests/plan.yaml"])
def test_the_files_written_by_hand_name_the_controller_of_the_release(name):
    text = (CHART / "templates" / name).read_text()
    assert "{{ .Values.name }}-controller" in text
    assert "faro-controller" not in text


def test_the_notes_say_how_to_give_hpas_their_bounds_back_before_uninstalling():
    notes = (CHART / "templates/NOTES.txt").read_text().split('if eq .Values.act "ceilings"')[1]
    steps = [
        notes.index(word) for word in ("--replicas 0", "faro restore --plan", "helm uninstall")
    ]
    assert steps == sorted(steps)


WITH_CONTAINERS = [
    path for path in sorted(CHART.glob("templates/**/*.yaml")) if "containers:" in path.read_text()
]


def containers(thing):
    """The containers anywhere in an object."""
    values = thing if isinstance(thing, list) else []
    if isinstance(thing, dict):
        yield from thing.get("containers", [])
        values = thing.values()
    for value in values:
        yield from containers(value)


@pytest.mark.parametrize("path", WITH_CONTAINERS, ids=lambda path: path.name)
def test_every_container_requests_cpu_and_memory(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("{{-")]
    objects = yaml.safe_load_all(re.sub("{{.*?}}", "x", "\n".join(lines)))
    found = [one for thing in objects for one in containers(thing)]
    assert found
    assert all(
        {"cpu", "memory"} <= one.get("resources", {}).get("requests", {}).keys() for one in found
    )

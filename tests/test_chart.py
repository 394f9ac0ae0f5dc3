"""The Helm chart is generated from the templates of `faro manifests`; its values are checked by a schema."""

import importlib.util
import json

import pytest
import yaml
from checkouts import ROOT

SPEC = importlib.util.spec_from_file_location("generate", ROOT / "charts/generate.py")
generate = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(generate)
FILES, MARKERS, helm_template = generate.FILES, generate.MARKERS, generate.helm_template
CHART = ROOT / "charts/faro"


@pytest.mark.parametrize("name", FILES)
def test_the_committed_template_is_the_generated_one(name):
    assert (CHART / "templates" / name).read_text() == helm_template(name), "run `make chart`"


def test_the_chart_brings_the_custom_resource_definition(tmp_path):
    generate.write(tmp_path)
    assert (CHART / "crds/crd.yaml").read_text() == (tmp_path / "crds/crd.yaml").read_text()


@pytest.mark.parametrize("name", FILES)
def test_no_marker_is_left_in_a_template(name):
    assert not [marker for marker in MARKERS if marker in helm_template(name)]


def test_the_schema_knows_exactly_the_values():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) | {"global"} == set(json.loads((CHART / "values.schema.json").read_text())["properties"])


def test_the_chart_has_the_version_of_the_package():
    import tomllib

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)

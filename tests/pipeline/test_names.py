"""A configuration may use every registered name, wherever it has names, and no other."""

import subprocess
import sys

import pytest
from checkouts import ROOT
from faro_pipeline.check import check, check_names
from faro_pipeline.settings import load

from faro_lib import registry
from faro_lib.policies import FACTORIES


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch):
    """Removes after each test what it has registered."""
    monkeypatch.setenv(registry.ENVIRONMENT, "")
    before = dict(FACTORIES)
    yield
    FACTORIES.clear()
    FACTORIES.update(before)


UNKNOWN = [
    (
        {"policies": ["FairShare", "aiad"]},
        "policies: policy='aiad' is unknown; did you mean 'AIAD'?",
    ),
    (
        {"scale": {"policies": ["FairShair"]}},
        "scale.policies: policy='FairShair' is unknown; did you mean 'FairShare'?",
    ),
    (
        {"scale": {"largest_policies": ["FairShair"]}},
        "scale.largest_policies: policy='FairShair' is unknown; did you mean 'FairShare'?",
    ),
    (
        {"sensitivity": {"policies": ["AIAD", "Fa"]}},
        "sensitivity.policies: policy='Fa' is unknown; accepted: ",
    ),
    (
        {"sloppify": {"objectives": ["sum"]}},
        "sloppify.objectives: objective='sum' is unknown; did you mean 'Sum'?",
    ),
    (
        {"sloppify": {"solvers": ["exactly"]}},
        "sloppify.solvers: solver='exactly' is unknown; did you mean 'exact'?",
    ),
    (
        {"forecast": {"baselines": ["seasonel"]}},
        "forecast.baselines: forecaster='seasonel' is unknown; did you mean ",
    ),
    ({"plugins": ["none.py"]}, "none.py: no such file; a plugin is a .py file"),
]


@pytest.mark.parametrize(("mapping", "told"), UNKNOWN, ids=lambda part: str(part)[:40])
def test_an_unknown_name_is_refused_in_one_line_before_anything_runs(mapping, told):
    with pytest.raises((ValueError, OSError)) as error:
        check_names(load(mapping))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_every_registered_policy_can_be_configured():
    check_names(load({"policies": list(FACTORIES)}))


def test_what_a_plugin_registers_can_be_configured(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from faro_lib.policies import FairShare, register\n"
        "register('Mine')(lambda context: FairShare())\n"
    )
    check(load({"plugins": [str(plugin)], "policies": ["Mine"]}))
    assert "Mine" in FACTORIES


@pytest.mark.parametrize(
    ("name", "file"), [("Cilantro", "cilantro"), ("Faro-Sum (paper)", "published")]
)
def test_a_policy_of_the_papers_edition_needs_its_plugin(name, file):
    """In a fresh process, because the tests of these policies import them."""
    code = """
import sys
from faro_pipeline.check import check_names
from faro_pipeline.settings import load
check_names(load({"policies": [sys.argv[1]], "plugins": sys.argv[2:]}))
"""

    def checked(*plugins):
        command = [sys.executable, "-c", code, name, *plugins]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    without = checked()
    with_it = checked(f"studies/paper/{file}.py")
    assert f"policies: policy={name!r} is unknown" in without.stderr
    assert with_it.returncode == 0, with_it.stderr


def test_generated_traces_without_training_days_are_refused_for_a_policy_that_learns(tmp_path):
    settings = {"synthetic": {"days": 0}, "results": str(tmp_path), "backend": "none"}
    with pytest.raises(ValueError, match="Faro-Sum learns from earlier days"):
        check(load(settings | {"policies": ["FairShare", "Faro-Sum"]}))

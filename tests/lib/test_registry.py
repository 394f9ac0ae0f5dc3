"""A configuration may use every registered name, wherever it has names, and no other."""

import importlib
import subprocess
import sys

import faro_pipeline as pipeline
import pytest
from checkouts import ROOT
from faro_pipeline.check import check_names
from faro_pipeline.settings import load

from faro_lib import registry
from faro_lib.policies import FACTORIES, factory_of, make
from faro_lib.registry import Registry

pytestmark = pytest.mark.usefixtures("no_plugins")


@pytest.fixture
def no_plugins(monkeypatch):
    """Removes after each test what it has registered."""
    monkeypatch.setenv(registry.ENVIRONMENT, "")
    before = dict(FACTORIES)
    yield
    FACTORIES.clear()
    FACTORIES.update(before)


@pytest.fixture
def plugin(tmp_path):
    """Writes a plugin."""

    def write(text):
        path = tmp_path / "mine.py"
        path.write_text(text)
        return path

    return write


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


def test_a_name_is_registered_once():
    fruit: Registry[int] = Registry("fruit")
    fruit.enter("apple", 1)
    with pytest.raises(ValueError, match="fruit='apple' is registered already"):
        fruit.enter("apple", 2)


REGISTERS = """\
from faro_lib.policies import FairShare, register
register('Mine')(lambda context: FairShare())
"""


def test_what_a_plugin_registers_can_be_configured_and_made(plugin):
    pipeline.check(load({"plugins": [str(plugin(REGISTERS))], "policies": ["Mine"]}))
    assert make("Mine", None).name == "FairShare"


def test_a_process_that_inherits_the_environment_finds_it_too(plugin, monkeypatch):
    monkeypatch.setenv(registry.ENVIRONMENT, str(plugin(REGISTERS.replace("Mine", "Inherited"))))
    assert make("Inherited", None).name == "FairShare"


def test_a_plugin_that_fails_is_named_in_one_line(plugin):
    with pytest.raises(ValueError, match=r"mine\.py: ZeroDivisionError: division by zero"):
        registry.load_plugins([plugin("1 / 0")])


def test_two_plugins_with_the_same_file_name_in_two_folders_are_both_run_once(tmp_path):
    paths = [tmp_path / folder / "mine.py" for folder in ("a", "b")]
    for path, name in zip(paths, ("First", "Second")):
        path.parent.mkdir()
        path.write_text(REGISTERS.replace("Mine", name))
    registry.load_plugins(paths)
    registry.load_plugins(paths)
    assert {make(name, None).name for name in ("First", "Second")} == {"FairShare"}


def test_every_objective_is_pursued_by_a_policy_of_its_name():
    from faro_lib.policies import PolicyContext
    from faro_lib.workload import Job
    from studies.edition.oracle import Oracle

    context = PolicyContext((Job("a"),), forecaster=Oracle(jobs=("a",), truth=None))
    assert factory_of("Faro-ProportionalFair")(context).objective == "ProportionalFair"


def test_a_plugin_that_was_imported_already_is_not_run_again(tmp_path, monkeypatch):
    (tmp_path / "imported.py").write_text(REGISTERS.replace("Mine", "Imported"))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("imported")
    registry.load_plugins([tmp_path / "imported.py"])
    assert make("Imported", None).name == "FairShare"


@pytest.mark.parametrize(
    ("name", "file"), [("Cilantro", "cilantro"), ("Faro-Sum (paper)", "published")]
)
def test_a_policy_of_the_papers_edition_needs_its_plugin(name, file):
    """In a fresh process, because the tests of these policies import them."""
    code = "import sys\nfrom faro_pipeline.check import check_names\n"
    code += "from faro_pipeline.settings import load\n"
    code += "check_names(load({'policies': [sys.argv[1]], 'plugins': sys.argv[2:]}))"
    command, plugin = [sys.executable, "-c", code, name], f"studies/edition/{file}.py"
    without, with_it = (
        subprocess.run([*command, *plugins], cwd=ROOT, capture_output=True, text=True)
        for plugins in ([], [plugin])
    )
    assert f"policies: policy={name!r} is unknown" in without.stderr
    assert with_it.returncode == 0, with_it.stderr


def test_generated_traces_without_training_days_are_refused_for_a_policy_that_learns(tmp_path):
    settings = {"synthetic": {"days": 0}, "results": str(tmp_path), "backend": "none"}
    with pytest.raises(ValueError, match="Faro-Sum learns from earlier days"):
        pipeline.check(load(settings | {"policies": ["FairShare", "Faro-Sum"]}))

"""Names of policies and plugins: registered once, and found by every process."""

import importlib

import pytest

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


def test_a_name_is_registered_once():
    fruit: Registry[int] = Registry("fruit")
    fruit.enter("apple", 1)
    with pytest.raises(ValueError, match="fruit='apple' is registered already"):
        fruit.enter("apple", 2)


REGISTERS = """
from faro_lib.policies import FairShare, register
register("Mine")(lambda context: FairShare())
"""


def test_what_a_plugin_registers_can_be_made(plugin):
    registry.load_plugins([plugin(REGISTERS)])
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
    from studies.forecast.oracle import Oracle

    context = PolicyContext((Job("a"),), forecaster=Oracle(jobs=("a",), truth=None))
    assert factory_of("Faro-ProportionalFair")(context).objective == "ProportionalFair"


def test_a_plugin_that_was_imported_already_is_not_run_again(tmp_path, monkeypatch):
    (tmp_path / "imported.py").write_text(REGISTERS.replace("Mine", "Imported"))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("imported")
    registry.load_plugins([tmp_path / "imported.py"])
    assert make("Imported", None).name == "FairShare"

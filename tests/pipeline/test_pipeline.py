"""The pipeline: what reruns when, complete results or none, and resuming after an interruption."""

import ast
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, chdir
from functools import partial

import nbformat
import pytest
import yaml
from checkouts import ROOT, write_notebook
from faro_pipeline import dependencies
from faro_pipeline.derived import PARAMETERS
from faro_pipeline.fetch import fetch
from faro_pipeline.notebook import NotebookError, run_notebook


class TestTheCodeOfANotebook:
    """Imports are read from the source; no code runs."""

    @pytest.fixture
    def package(self, tmp_path, monkeypatch):
        registries = {
            "faro_lib.named.names": dependencies.Registry({"find"}, {"register"}),
            "faro_lib.other": dependencies.Registry(set(), {"register_other"}),
        }
        monkeypatch.setattr(dependencies, "REGISTRIES", registries)
        files = {
            "__init__.py": "",
            "registry.py": "class Registry(dict): ...",
            "reader.py": "from faro_lib.named.names import find",
            "alone.py": "import numpy",
            "late.py": "def f():\n    from faro_lib import deep\n    return deep",
            "deep.py": "x = 1",
            "box/__init__.py": "from faro_lib.box.inside import y\n"
            "from faro_lib.box.beside import z",
            "box/inside.py": "from ..deep import x\ny = x",
            "box/beside.py": "z = 1",
            "named/__init__.py": "from faro_lib.named import one\n"
            "from faro_lib.named.names import find, register, Kind",
            "named/names.py": "from faro_lib.registry import Registry\n"
            "Kind = Registry\n"
            "def find(): ...\n"
            "def register(): ...",
            "named/one.py": "from faro_lib.named.names import register",
            "figures/bars.py": "from faro_lib import alone",
            "other.py": "from faro_lib.registry import Registry\n"
            "Kinds = Registry\n"
            "def register_other(): ...",
        }
        for name, text in files.items():
            path = tmp_path / "faro_lib" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    def reached(self, package, code, **options):
        write_notebook(package / "notebooks" / "x.ipynb", code)
        files = dependencies.modules_of("x", package, **options)
        return {file.removeprefix("faro_lib/").removesuffix(".py") for file in files} - {"__init__"}

    def test_a_module_that_is_not_imported_is_not_reached(self, package):
        assert self.reached(package, "from faro_lib import alone") == {"alone"}

    def test_an_import_inside_a_function_counts(self, package):
        assert self.reached(package, "import faro_lib.late") == {"late", "deep"}

    def test_importing_a_name_from_a_package_reaches_the_module_that_defines_it(self, package):
        assert self.reached(package, "from faro_lib.box import y") == {"box/inside", "deep"}

    def test_importing_a_package_reaches_all_its_imports(self, package):
        assert self.reached(package, "from faro_lib import box") == {
            "box/__init__",
            "box/inside",
            "box/beside",
            "deep",
        }

    def test_a_name_in_a_module_is_not_a_module(self, package):
        assert self.reached(package, "from faro_lib.deep import x as alone") == {"deep"}

    def test_looking_up_a_registered_name_reaches_every_module_that_may_register_it(self, package):
        everything = {"named/__init__", "named/names", "named/one", "registry"}
        assert self.reached(package, "from faro_lib.named import find") == everything
        assert self.reached(package, "from faro_lib import reader") == {*everything, "reader"}

    def test_importing_the_module_of_a_registry_counts_as_looking_up(self, package):
        everything = {"named/__init__", "named/names", "named/one", "registry"}
        assert self.reached(package, "from faro_lib.named import names") == everything

    @pytest.mark.parametrize("name", ["register", "Kind"])
    def test_importing_a_decorator_or_a_type_reaches_no_other_registered_module(
        self, package, name
    ):
        assert self.reached(package, f"from faro_lib.named import {name}") == {
            "named/names",
            "registry",
        }

    def test_figures_count_only_on_request(self, package):
        code = "from faro_lib.figures import bars"
        assert self.reached(package, code) == set()
        assert self.reached(package, code, figures=True) == {"figures/bars", "alone"}

    def test_magics_are_not_python(self, package):
        assert self.reached(package, "%matplotlib inline\n!ls\nfrom faro_lib import deep") == {
            "deep"
        }

    def test_a_changed_module_is_read_again(self, package):
        assert self.reached(package, "from faro_lib import alone") == {"alone"}
        (package / "faro_lib" / "alone.py").write_text("from faro_lib import deep")
        assert self.reached(package, "from faro_lib import alone") == {"alone", "deep"}

    def test_an_unknown_notebook_is_named(self, package):
        with pytest.raises(FileNotFoundError, match=r"nothing\.ipynb"):
            dependencies.modules_of("nothing", package)

    @pytest.mark.parametrize(
        ("text", "same"),
        [
            ('"""A docstring."""\nx = 1  # a comment', True),
            ("x = (\n    1\n)", True),
            ("x = 2", False),
            ("x = 1\ny = 2", False),
        ],
    )
    def test_the_fingerprint_changes_with_the_code_only(self, package, text, same):
        write_notebook(package / "notebooks" / "x.ipynb", "from faro_lib import late")
        before = dependencies.fingerprint("x", package)
        (package / "faro_lib" / "deep.py").write_text(text)
        assert (dependencies.fingerprint("x", package) == before) == same

    def test_each_text_is_parsed_once_for_all_processes(self, package, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        write_notebook(package / "notebooks" / "x.ipynb", "from faro_lib import late")
        parsed = []
        parse = dependencies._parse

        def noted(text, path, package):
            parsed.append(path.stem)
            return parse(text, path, package)

        monkeypatch.setattr(dependencies, "_parse", noted)
        before = dependencies.fingerprint("x", package)
        assert {"x", "late", "deep"} <= set(parsed)
        parsed.clear()
        assert dependencies.fingerprint("x", package) == before
        assert parsed == []
        deep = package / "faro_lib" / "deep.py"
        times = deep.stat()
        deep.write_text("x = 2")
        # As in an archive whose files all have one time.
        os.utime(deep, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert dependencies.fingerprint("x", package) != before
        assert parsed == ["deep"]

    def test_a_cache_that_cannot_be_read_or_written_changes_nothing(
        self, package, tmp_path, monkeypatch
    ):
        write_notebook(package / "notebooks" / "x.ipynb", "from faro_lib import late")
        before = dependencies.fingerprint("x", package)
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert dependencies.fingerprint("x", package) == before
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        dependencies.fingerprint("x", package)
        for cached in (tmp_path / "cache").rglob("*.json"):
            cached.write_text("[")
        assert dependencies.fingerprint("x", package) == before

    def test_a_module_of_the_studies_counts_like_one_of_the_library(self, package):
        (package / "studies" / "beside").mkdir(parents=True)
        (package / "studies" / "beside" / "one.py").write_text("from faro_lib.late import f")
        (package / "studies" / "beside" / "figures.py").write_text("x = 1")
        code = "from studies.beside import figures, one"
        assert self.reached(package, code) == {"studies/beside/one", "late", "deep"}

    def test_what_a_plugin_imports_counts_with_it_wherever_it_is(self, package, tmp_path_factory):
        plugin = tmp_path_factory.mktemp("elsewhere") / "mine.py"
        plugin.write_text("from faro_lib import alone")
        write_notebook(package / "notebooks" / "x.ipynb", "from faro_lib.named import find")
        before = dependencies.fingerprint("x", package, plugins=[plugin])
        (package / "faro_lib" / "alone.py").write_text("import numpy as np")
        assert dependencies.fingerprint("x", package, plugins=[plugin]) != before

    @pytest.mark.parametrize(
        ("code", "counts"),
        [
            ("from faro_lib.named import register", True),
            ("from faro_lib.other import register_other", False),
        ],
    )
    def test_a_plugin_counts_only_where_what_it_registers_is_looked_up(self, package, code, counts):
        write_notebook(package / "notebooks" / "x.ipynb", "from faro_lib.named import find")
        without = dependencies.fingerprint("x", package)
        (package / "mine.py").write_text(code)
        with_it = dependencies.fingerprint("x", package, plugins=[package / "mine.py"])
        assert (with_it != without) == counts

    @pytest.mark.parametrize(("name", "counts"), [("find", True), ("register", False)])
    def test_a_plugin_counts_where_names_are_looked_up(self, package, name, counts):
        write_notebook(package / "notebooks" / "x.ipynb", f"from faro_lib.named import {name}")
        (package / "mine.py").write_text("a = 1")
        before = dependencies.fingerprint("x", package, plugins=[package / "mine.py"])
        (package / "mine.py").write_text("a = 2")
        after = dependencies.fingerprint("x", package, plugins=[package / "mine.py"])
        assert (after != before) == counts


def names_bound_to_registries(tree: ast.Module) -> set[str]:
    """Names of the module to which it binds a new registry."""
    assigned = [node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign)]
    return {
        target.id
        for node in assigned
        if isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "Registry"
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }


def names_that_use(tree: ast.Module, names: set[str]) -> set[str]:
    """`names`, and the functions and classes of the module that use one of them or each other."""
    found = set(names)
    defined = [node for node in tree.body if hasattr(node, "name")]
    while True:
        more = {
            node.name
            for node in defined
            if found & {used.id for used in ast.walk(node) if isinstance(used, ast.Name)}
        }
        if more <= found:
            return found
        found |= more


def test_every_registry_is_listed_with_all_names_that_use_it():
    """Otherwise a stage that looks names up would not run again for a changed entry."""
    listed = {}
    for module, path in dependencies.Code(ROOT).modules.items():
        text = path.read_text()
        if "Registry(" not in text:
            continue
        tree = ast.parse(text)
        registries = names_bound_to_registries(tree)
        if registries:
            listed[module] = names_that_use(tree, registries)
            defined = {node.name for node in tree.body if hasattr(node, "name")} | registries
            looks_up, adds = dependencies.REGISTRIES[module]
            assert listed[module] <= looks_up | adds <= defined
            assert registries <= looks_up
    assert listed.keys() == dependencies.REGISTRIES.keys()


RULES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
# A command of a rule: strings that follow `shell:` or `RUN_NOTEBOOK = (`, one a line.
COMMAND = re.compile(r'^(?:RUN_NOTEBOOK = \(| *shell:)\n((?: *f?".*"\n)+)', re.MULTILINE)


def test_every_path_in_the_command_of_a_rule_is_quoted():
    commands = [command for path in RULES for command in COMMAND.findall(path.read_text())]
    filled = {
        name
        for command in commands
        for name in re.findall(r"\{+((?:input|output|params|log)\b[^{}]*)\}", command)
    }
    assert {"output.notebook:q", "input:q", "params.config:q", "log:q"} <= filled
    names_of_this_checkout = {"params.source", "params.module", "params.commands"}
    assert {name for name in filled if not name.endswith(":q")} == names_of_this_checkout


def test_doubled_braces_are_in_formatted_strings_only():
    """In a plain string they stay doubled, and the shell writes into a file of that name."""
    assert RULES
    lines = [line for path in RULES for line in path.read_text().splitlines()]
    assert not [line for line in lines if re.match(r' *"[^"]*\{\{', line)]


POLICIES = {str(path.relative_to(ROOT)) for path in (ROOT / "faro_lib" / "policies").glob("*.py")}
STAGES = sorted(path.stem for path in (ROOT / "notebooks").glob("[1-9]*.ipynb"))


class TestTheRealStages:
    """Which policies the stages of this project depend on."""

    @pytest.mark.parametrize("stage", ["50_simulation", "65_sensitivity", "70_scale", "80_live"])
    def test_a_stage_that_simulates_depends_on_all_policies(self, stage):
        assert set(dependencies.modules_of(stage, ROOT)) >= POLICIES

    def test_the_ablation_depends_only_on_the_policies_that_it_simulates(self):
        modules = set(dependencies.modules_of("60_ablation", ROOT))
        assert "faro_lib/policies/faro.py" in modules
        assert modules >= {f"studies/paper/{name}.py" for name in ("cilantro", "published")}
        assert "faro_lib/policies/platforms.py" not in modules

    @pytest.mark.parametrize(
        "stage",
        ["10_traces", "20_queueing", "30_forecasting", "40_sloppification", "81_kubernetes"],
    )
    def test_a_stage_that_chooses_no_policy_depends_on_none_of_them(self, stage):
        planners = {f"faro_lib/policies/{name}.py" for name in ("faro", "platforms")}
        assert not planners & set(dependencies.modules_of(stage, ROOT))

    @pytest.mark.parametrize(
        ("stage", "depends"), [("50_simulation", True), ("30_forecasting", False)]
    )
    def test_only_a_stage_that_simulates_depends_on_the_plugins_of_the_papers_policies(
        self, stage, depends
    ):
        plugins = [f"{ROOT}/studies/paper/{name}.py" for name in ("cilantro", "published")]
        with_plugins = dependencies.fingerprint(stage, ROOT, plugins=plugins)
        assert (with_plugins != dependencies.fingerprint(stage, ROOT)) == depends

    @pytest.mark.parametrize("stage", STAGES)
    def test_no_stage_depends_on_the_settings_or_the_commands(self, stage):
        modules = dependencies.modules_of(stage, ROOT, figures=True)
        others = ("faro_ops/cli/", "studies/report/", "workflow/")
        assert not [name for name in modules if name.startswith(others)]

    def test_an_init_has_imports_only_so_that_it_can_be_skipped(self):
        for path in (ROOT / "faro_lib").glob("*/__init__.py"):
            if path.parent.name in ("allocate", "cli"):
                continue  # `allocate` registers its solvers; no stage depends on the command line
            kinds = {type(node) for node in ast.parse(path.read_text()).body}
            assert kinds <= {ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.If}, path


class TestANotebook:
    """Run by papermill: a complete result or none."""

    @pytest.fixture(autouse=True)
    def own_environment(self, monkeypatch):
        monkeypatch.setattr(os, "environ", os.environ.copy())

    def run(self, folder, code, **parameters):
        write_notebook(folder / "source.ipynb", code, "a = 1")
        output = folder / "out" / "done.ipynb"
        with chdir(folder):
            run_notebook("source.ipynb", output, parameters, folder / "out" / "done.log")
        return output

    def test_it_runs_in_the_root_folder_with_this_interpreter_and_the_given_parameters(
        self, tmp_path, capfd
    ):
        code = """
import json, os, sys
threads = os.environ["NUMBA_NUM_THREADS"]
print(json.dumps([a, b, os.getcwd(), sys.executable, threads]))
"""
        output = self.run(tmp_path, code, a={"x": [1, None]}, b="text")
        told = [{"x": [1, None]}, "text", str(tmp_path), sys.executable, "1"]
        cells = nbformat.read(output, 4).cells
        assert json.loads(cells[-1].outputs[0]["text"]) == told
        assert json.dumps(told) in (tmp_path / "out" / "done.log").read_text()
        progress = capfd.readouterr().err.splitlines()
        assert "[done] cell 3 of 3" in progress
        assert f"[done] {json.dumps(told)}" in progress

    def test_a_failure_is_one_line_that_says_what_failed_and_where_to_look(self, tmp_path):
        code = "print('got here')\nraise ValueError('first line\\nminutes=3 is odd')"
        with pytest.raises(NotebookError) as error:
            self.run(tmp_path, code)
        told = str(error.value)
        assert "\n" not in told
        assert "minutes=3 is odd" in told
        partly = tmp_path / "out" / "done.partial.ipynb"
        assert str(partly) in told
        assert "got here" in partly.read_text()
        assert not (tmp_path / "out" / "done.ipynb").exists()

    def test_a_failure_removes_the_notebook_of_an_earlier_run(self, tmp_path):
        output = self.run(tmp_path, "pass")
        assert output.exists()
        with pytest.raises(NotebookError):
            self.run(tmp_path, "1 / 0")
        assert not output.exists()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class TestFetching:
    """By URL and SHA-256, from a server on loopback."""

    CONTENT = b"minute,job,requests\n"

    @pytest.fixture
    def sources(self, tmp_path):
        (tmp_path / "served").mkdir()
        (tmp_path / "served" / "counts.csv").write_bytes(self.CONTENT)
        handler = partial(Quiet, directory=tmp_path / "served")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/counts.csv"
        counts = {"url": url, "sha256": hashlib.sha256(self.CONTENT).hexdigest()}
        entries = {"small": {"files": {"counts.csv": counts}}}
        (tmp_path / "sources.yaml").write_text(yaml.safe_dump(entries))
        yield tmp_path / "sources.yaml"
        server.shutdown()
        server.server_close()

    def test_a_missing_file_is_fetched(self, tmp_path, sources):
        (path,) = fetch("small", tmp_path / "raw", sources)
        assert path.read_bytes() == self.CONTENT

    def test_an_existing_file_is_used(self, tmp_path, sources):
        (tmp_path / "raw").mkdir()
        (tmp_path / "raw" / "counts.csv").write_bytes(self.CONTENT)
        (tmp_path / "served" / "counts.csv").unlink()
        (path,) = fetch("small", tmp_path / "raw", sources)
        assert path.read_bytes() == self.CONTENT

    def test_an_existing_file_with_another_content_is_refused_and_not_changed(
        self, tmp_path, sources
    ):
        (tmp_path / "raw").mkdir()
        (tmp_path / "raw" / "counts.csv").write_bytes(b"mine")
        refused = r"counts\.csv: SHA-256 \w+ is not \w+; remove the file"
        with pytest.raises(ValueError, match=refused):
            fetch("small", tmp_path / "raw", sources)
        assert (tmp_path / "raw" / "counts.csv").read_bytes() == b"mine"

    def test_a_download_with_another_content_is_not_kept(self, tmp_path, sources):
        (tmp_path / "served" / "counts.csv").write_bytes(b"tampered")
        with pytest.raises(ValueError, match="the SHA-256 of the download is not"):
            fetch("small", tmp_path / "raw", sources)
        assert not (tmp_path / "raw" / "counts.csv").exists()

    def test_a_failed_download_is_reported_in_one_line_that_says_where_to_put_the_file(
        self, tmp_path, sources
    ):
        (tmp_path / "served" / "counts.csv").unlink()
        told = r"cannot be fetched .*; copy the file to .*counts\.csv"
        with pytest.raises(OSError, match=told) as error:
            fetch("small", tmp_path / "raw", sources)
        assert "\n" not in str(error.value)

    def test_a_file_made_by_hand_is_checked_and_its_absence_names_what_it_is_made_from(
        self, tmp_path, sources
    ):
        entry = {"made_from": "their data", "sha256": hashlib.sha256(self.CONTENT).hexdigest()}
        entries = {"compact": {"files": {}, "made": {"own/counts.csv": entry}}}
        sources.write_text(yaml.safe_dump(entries))
        told = r"own/counts\.csv: has no URL \(their data\); copy the file there yourself"
        with pytest.raises(OSError, match=told):
            fetch("compact", tmp_path / "raw", sources)
        (tmp_path / "raw" / "own").mkdir(parents=True)
        (tmp_path / "raw" / "own" / "counts.csv").write_bytes(b"mine")
        with pytest.raises(ValueError, match="remove the file"):
            fetch("compact", tmp_path / "raw", sources)
        (tmp_path / "raw" / "own" / "counts.csv").write_bytes(self.CONTENT)
        (path,) = fetch("compact", tmp_path / "raw", sources)
        assert path == tmp_path / "raw" / "own" / "counts.csv"

    def test_an_unknown_entry_gets_a_hint(self, tmp_path, sources):
        with pytest.raises(ValueError, match=r"no entry 'smal'; did you mean 'small'\?"):
            fetch("smal", tmp_path / "raw", sources)

    def test_the_hashes_equal_those_of_the_reader_of_the_traces(self):
        from faro_lib.workload import published as artifact
        from faro_lib.workload import tables

        files = yaml.safe_load((ROOT / "data" / "sources.yaml").read_text())["faro-10jobs"]["files"]
        assert {name: file["sha256"] for name, file in files.items()} == {
            tables.ARTIFACT_EVALUATION: artifact.EVALUATION_SHA256,
            tables.ARTIFACT_TRAINING: artifact.TRAINING_SHA256,
        }


# One day is too few for the stages that learn.
SMALL = ["--config", "capacities=[12,11]", "synthetic={days: 1}"]
SMALL_RUN = [*SMALL, "trials=1"]


@pytest.fixture(scope="module")
def interrupted_and_resumed(checkout):
    """The pipeline, interrupted by Ctrl-C during its second job and then resumed.

    The files and their times before it is resumed, the jobs planned then, and the checkout.
    """
    (checkout.folder / "hold").touch()
    running = subprocess.Popen(
        checkout.command(*SMALL_RUN),
        cwd=checkout.folder,
        env=checkout.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # If a shell runs the tests in the background, they inherit an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    half_done = checkout.results / "synthetic" / "simulate"
    try:
        until(lambda: [*half_done.glob("*/summary.csv")] or running.poll() is not None, 600)
        assert running.poll() is None, running.communicate()[0]
        os.killpg(running.pid, signal.SIGINT)
        running.communicate(timeout=600)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    files = [path for path in checkout.results.rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    (checkout.folder / "hold").unlink()
    again = checkout.would_run(*SMALL_RUN)
    done = checkout.snakemake(*SMALL_RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    return before, again, checkout


def until(holds, seconds):
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, "waited in vain"
        time.sleep(0.1)


DRAWN = {"draw_comparison", "figures", "report"}
SIMULATED = {"simulate", "simulated"} | DRAWN


def with_code(text):
    return text + "\nCHANGED = 1\n"


@pytest.mark.slow
class TestTheWholePipeline:
    """In a separate checkout, with stand-in notebooks that take seconds."""

    def test_an_interruption_leaves_no_executed_notebook_of_the_job_that_ran(
        self, interrupted_and_resumed
    ):
        before, *_ = interrupted_and_resumed
        names = {path.name for path in before if path.suffix == ".ipynb"}
        notebooks = {name for name in names if ".partial" not in name}
        assert "10_traces.ipynb" in notebooks
        assert not {name for name in notebooks if name.startswith("50_simulation")}

    def test_after_an_interruption_finished_jobs_do_not_run_again(self, interrupted_and_resumed):
        before, again, checkout = interrupted_and_resumed
        assert "traces" not in again
        assert again["simulate"] == 2
        traces = checkout.results / "synthetic" / "notebooks" / "10_traces.ipynb"
        assert traces.stat().st_mtime_ns == before[traces]

    def test_every_job_leaves_its_executed_notebook_a_log_and_a_benchmark(
        self, interrupted_and_resumed
    ):
        *_, checkout = interrupted_and_resumed
        stages = {"10_traces", "50_simulation-12", "50_simulation-11", "90_figures"}
        results = checkout.results / "synthetic"
        assert stages <= {path.stem for path in (results / "notebooks").glob("*.ipynb")}
        assert stages <= {path.stem for path in (results / "logs").glob("*.log")}
        assert stages <= {path.stem for path in (results / "logs").glob("*.bench")}

    def test_the_tables_of_all_sizes_are_joined(self, interrupted_and_resumed):
        import pandas as pd

        *_, checkout = interrupted_and_resumed
        joined = pd.read_csv(checkout.results / "synthetic" / "simulate" / "summary.csv")
        assert joined["capacity_cores"].unique().tolist() == [12, 11]

    def test_a_second_run_has_nothing_to_do(self, interrupted_and_resumed):
        *_, checkout = interrupted_and_resumed
        assert checkout.would_run(*SMALL_RUN) == {}

    @pytest.mark.parametrize(
        ("changed", "runs"),
        [
            ("studies/comparison/figures.py", DRAWN),
            ("studies/traces/figures.py", {"draw_traces", "report"}),
            ("studies/report/page.py", {"report"}),
        ],
    )
    def test_changed_code_reruns_what_runs_it_and_what_follows(
        self, changed, runs, interrupted_and_resumed
    ):
        *_, checkout = interrupted_and_resumed
        with edited(checkout.folder / changed, with_code):
            assert set(checkout.would_run(*SMALL_RUN)) == runs

    def test_a_changed_policy_simulates_again_and_the_reason_is_the_fingerprint_of_the_code(
        self, interrupted_and_resumed
    ):
        *_, checkout = interrupted_and_resumed
        with edited(checkout.folder / "faro_lib/policies/platforms.py", with_code):
            reasons = checkout.reasons(*SMALL_RUN)
        assert reasons["params have changed since last execution"] == {"simulate"}
        assert reasons["input files updated by another job"] == SIMULATED - {"simulate"}

    def test_nothing_reruns_for_text_outputs_or_code_that_no_stage_runs(
        self, interrupted_and_resumed
    ):
        *_, checkout = interrupted_and_resumed

        def commented(text):
            return text.replace('"""', '"""Really: ', 1) + "\n# a comment\n"

        def executed(text):
            notebook = nbformat.reads(text, 4)
            notebook.cells[-1].execution_count = 7
            notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="done")]
            return nbformat.writes(notebook)

        changes = {
            "faro_lib/policies/platforms.py": commented,
            "studies/comparison/figures.py": commented,
            "workflow/faro_pipeline/settings/schema.py": with_code,
            "workflow/faro_pipeline/stages/scale.py": with_code,
            "faro_ops/advise/recommend/sizing.py": with_code,
            "faro_ops/cli/simulate.py": with_code,
            "notebooks/50_simulation.ipynb": executed,
        }
        with ExitStack() as all_edited:
            for path, change in changes.items():
                all_edited.enter_context(edited(checkout.folder / path, change))
            assert checkout.reasons(*SMALL_RUN) == {}

    def test_changed_code_in_a_notebook_reruns_its_stage(self, interrupted_and_resumed):
        *_, checkout = interrupted_and_resumed
        notebook = checkout.folder / "notebooks" / "50_simulation.ipynb"
        with edited(notebook, lambda text: text.replace("import time", "import time as time")):
            assert set(checkout.would_run(*SMALL_RUN)) == SIMULATED

    def test_another_number_of_trials_simulates_again_on_the_same_traces(
        self, interrupted_and_resumed
    ):
        *_, checkout = interrupted_and_resumed
        more = checkout.would_run(*SMALL, "trials=2")
        assert "traces" not in more
        assert more["simulate"] == 2

    def test_another_capacity_is_simulated_on_the_same_traces(self, interrupted_and_resumed):
        *_, checkout = interrupted_and_resumed
        larger = ["capacities=[12,11,10]", "synthetic={days: 1}", "trials=1"]
        more = checkout.would_run("--config", *larger)
        assert set(more) == SIMULATED | {"draw_traces"}
        assert more["simulate"] == 1

    def test_other_packages_forecast_again_once_the_zero_shot_model_is_installed(
        self, interrupted_and_resumed
    ):
        *_, checkout = interrupted_and_resumed
        python = checkout.folder / ".venv-forecasters" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text('#!/bin/sh\ntouch "$3"\n')
        python.chmod(0o755)
        target = ["results/synthetic/forecast/others.npz", *SMALL_RUN]
        done = checkout.snakemake(*target)
        assert done.returncode == 0, done.stderr
        assert checkout.would_run(*target) == {}
        (checkout.folder / ".venv-forecasters" / ".ready-zero-shot").touch()
        assert checkout.would_run(*target) == {"other_forecasts": 1}

    def test_a_workload_with_training_days_also_has_the_stages_that_learn(
        self, interrupted_and_resumed
    ):
        *_, checkout = interrupted_and_resumed
        learning = {"forecast", "sloppify", "ablation", "sensitivity", "scale", "live"}
        assert learning <= set(checkout.would_run("--config", "synthetic={days: 3}"))

    def test_empty_lists_leave_a_stage_out(self, interrupted_and_resumed):
        *_, checkout = interrupted_and_resumed
        off = [
            "ablation={capacities: []}",
            f"sensitivity={{{', '.join(f'{name}: []' for name in PARAMETERS)}}}",
            "scale={mixed: [], clusters: [], largest: [], curve: []}",
            "backend=none",
        ]
        left = set(checkout.would_run("--config", "synthetic={days: 3}", *off))
        assert "simulate" in left
        assert not {"ablation", "sensitivity", "scale", "live"} & left

    def test_the_report_is_one_page_that_loads_nothing(self, interrupted_and_resumed):
        *_, checkout = interrupted_and_resumed
        page = (checkout.results / "synthetic" / "report.html").read_text()
        # Without Vega, which tests/studies/test_report.py speaks of.
        page = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
        assert "12 cores" in page
        assert "notebooks/50_simulation-12.ipynb" in page
        assert "0.500" in page
        assert "http" not in page
        assert not re.search(r"<script|url\(|@import|fetch", page)


DAYS = "minute,job,requests,day\n" + "".join(
    f"{minute},{job},5,{day}\n" for day in (1, 2, 3) for minute in range(30) for job in "ab"
)
OWN = [
    "--config",
    "workload=own.csv",
    "jobs=own-jobs.csv",
    "capacities=[4]",
    "days={judged: [3]}",
    "backend=local",
]


@pytest.fixture
def own_workload(checkout):
    (checkout.folder / "own.csv").write_text(DAYS)
    (checkout.folder / "own-jobs.csv").write_text("job,latency_curve\na,curve.csv\nb,\n")
    curve = "".join(f"1,{rate},{0.1 * rate}\n" for rate in (1, 2, 3, 4))
    (checkout.folder / "curve.csv").write_text(f"replicas,rate_per_replica_rps,p99_s\n{curve}")
    return checkout


def test_the_sweep_of_the_documentation_runs_the_simulations_and_what_they_need(own_workload):
    page = (ROOT / "docs" / "scale-out.md").read_text()
    command = r"snakemake --profile profiles/slurm (--config workload.*?)\ndone"
    options = re.search(command, page, re.DOTALL)[1]
    shell = ["bash", "-c", f"csv=own.csv; printf '%s\\n' {options}"]
    written = subprocess.run(shell, capture_output=True, text=True, check=True)
    planned = own_workload.would_run(*written.stdout.splitlines())
    assert planned == {"traces": 1, "queueing": 1, "forecast": 1, "simulate": 50, "simulated": 1}


@pytest.mark.slow
def test_the_generated_workload_is_no_parameter_of_a_run_on_another_one(own_workload):
    def commands(*settings):
        done = own_workload.snakemake("--dry-run", "--printshellcmds", *OWN, *settings)
        return sorted(re.findall(r"notebook (notebooks/(?:10|40)_.*)", done.stdout + done.stderr))

    assert len(commands()) == 2
    assert commands("synthetic={seed: 2}") == commands()


def print_inputs() -> None:
    """Let Snakemake print each job's rule and inputs, in its own process."""
    from snakemake.jobs import Job

    Job.log_info = lambda job, **options: print("JOB", job.rule.name, *job.input)


def test_a_latency_curve_is_an_input_of_every_stage_that_reads_it(own_workload):
    done = own_workload.snakemake("--dry-run", *OWN, prepare=print_inputs)
    readers = set(re.findall(r"^JOB (\w+).*curve.csv", done.stdout, re.MULTILINE))
    assert readers == {"queueing", "sensitivity", "scale", "days", "live"}


@pytest.mark.slow
def test_an_edited_latency_curve_is_noticed(own_workload):
    target = ["results/own/queueing/measured.npz", *OWN]
    done = own_workload.snakemake(*target)
    assert done.returncode == 0, done.stderr
    assert own_workload.would_run(*target) == {}
    with edited(own_workload.folder / "curve.csv", lambda text: text.replace("0.1", "0.15")):
        assert own_workload.would_run(*target) == {"queueing": 1}


def test_a_bad_latency_curve_is_refused_in_one_line_before_anything_runs(own_workload):
    with edited(own_workload.folder / "curve.csv", lambda text: text.replace("p99_s", "mean_s")):
        done = own_workload.snakemake("--dry-run", "--quiet", "all", *OWN)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("curve.csv: column 'p99_s' is missing")


class TestTheEndOfMakeFigures:
    """In a folder with a stand-in for Snakemake, which writes the path of a report."""

    @pytest.fixture
    def make(self, tmp_path):
        shutil.copy(ROOT / "Makefile", tmp_path)
        (tmp_path / ".venv" / "bin").mkdir(parents=True)
        sources = ["pyproject.toml", "requirements.txt"]
        for name in ("tests", "build"):
            (tmp_path / "envs" / name).mkdir(parents=True)
            sources.append(f"envs/{name}/requirements.txt")
        for name in [*sources, ".venv/.pins", ".venv/.ready"]:
            (tmp_path / name).touch()
        snakemake = tmp_path / ".venv" / "bin" / "snakemake"
        snakemake.write_text(
            '#!/bin/sh\nprintf "<%s>" "$@"\necho "$REPORT" > "${FARO_REPORT:-.snakemake/report}"\n'
            '[ -z "$MEANWHILE" ] || REPORT=other MEANWHILE= make figures > /dev/null\n'
        )
        snakemake.chmod(0o755)
        (tmp_path / ".snakemake").mkdir()

        def run(*arguments, **variables):
            environment = {
                name: value for name, value in os.environ.items() if not name.startswith("MAKE")
            } | variables
            return subprocess.run(
                ["make", "figures", *arguments],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            ).stdout

        return run

    def test_is_the_path_of_its_own_report_though_another_run_began_meanwhile(self, make):
        assert make(REPORT="mine/report.html", MEANWHILE="yes").endswith("mine/report.html\n")

    def test_a_workload_may_have_a_space_in_its_name(self, make):
        assert "<--config><workload=my counts.csv><trials=5>" in make(
            "WORKLOAD=my counts.csv", "SET=trials=5"
        )


def test_the_path_of_the_report_is_written_only_where_it_is_asked_for(
    checkout, monkeypatch, tmp_path
):
    monkeypatch.setenv("FARO_REPORT", str(tmp_path / "report"))
    checkout.would_run(*SMALL)
    report = checkout.results / "synthetic" / "report.html"
    assert (tmp_path / "report").read_text() == f"{report}\n"
    assert not (checkout.folder / ".snakemake" / "report").exists()


@pytest.mark.parametrize("question", ["--rulegraph", "--summary"])
def test_a_question_about_the_pipeline_needs_no_number_of_cores(checkout, question):
    done = checkout.snakemake(question, cores=None)
    assert done.returncode == 0, done.stderr
    assert "simulate" in done.stdout


class edited:
    """Change the text of a file within a `with` block; restore text and time stamp at its end."""

    def __init__(self, path, change):
        self.path, self.change = path, change

    def __enter__(self):
        self.kept = self.path.with_name(f".{self.path.name}.kept")
        shutil.copy2(self.path, self.kept)
        text = self.path.read_text()
        assert self.change(text) != text
        self.path.write_text(self.change(text))

    def __exit__(self, *_):
        self.kept.replace(self.path)

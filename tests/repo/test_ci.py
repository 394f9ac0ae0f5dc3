"""`.ci/run` is red if a part fails, leaves no cluster, and never uses the user's kubeconfig."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import conftest
import pytest
from waiting import until

ROOT = Path(__file__).parents[2]
TOOLS = ("make", "git", "chromium", "chromedriver", "prometheus", "pdftotext", "shellcheck")
PARTS = [
    *("packages", "traces", "environment", "kind cluster", "test-k8s", "kind down"),
    *("smoke", "forecasters", "docs", "crate", "tools", "rivals", "test-all", "beside"),
]


class Machine:
    """A checkout whose scripts and tools are fakes that write down how they were called."""

    def __init__(self, folder: Path):
        self.folder = folder / "checkout"
        self.log = folder / "log"
        (self.folder / ".ci").mkdir(parents=True)
        (self.folder / "cluster/offline").mkdir(parents=True)
        for name in (".ci/run", "cluster/versions.env", "cluster/offline/settings.sh"):
            shutil.copy(ROOT / name, self.folder / name)
        for name in ("cluster/up.sh", "cluster/down.sh", "cluster/offline/docker.sh"):
            self.fake(self.folder / name)
        for name in TOOLS:
            self.fake(folder / "bin" / name)
        path = f"{folder}/bin:{os.environ['PATH']}"
        cache = str(folder / "cache")
        self.environment = os.environ | {
            "PATH": path,
            "KUBECONFIG": "/user/config",
            "FARO_KIND_CACHE": cache,
        }

    def fake(self, path: Path, then: str = "true") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/bash\necho "{path.name} $* $KUBECONFIG" >>{self.log}\n{then}\n')
        path.chmod(0o755)

    def run(self) -> tuple[int, dict[str, str], list[str]]:
        """Exit status, outcome of each part, and the calls."""
        done = subprocess.run(
            [self.folder / ".ci/run"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        lines = [
            line.removeprefix("--- ")
            for line in done.stdout.splitlines()
            if line.startswith("--- ")
        ]
        outcomes = {line.split(": ")[0]: line.split(", ")[-1] for line in lines}
        return done.returncode, outcomes, self.log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_it_is_green_if_every_part_passes_and_each_part_says_so(machine):
    status, outcomes, calls = machine.run()
    assert status == 0
    assert outcomes == dict.fromkeys(PARTS, "passed")
    assert [call.split()[0] for call in calls].count("down.sh") == 1


@pytest.mark.parametrize(
    ("path", "then", "failed"),
    [
        ("checkout/cluster/up.sh", "exit 3", "kind cluster"),
        ("bin/make", '[ "$1" != test-k8s ]', "test-k8s"),
        ("checkout/cluster/down.sh", "exit 1", "kind down"),
        ("bin/make", '[ "$1" != smoke ]', "smoke"),
        ("bin/make", '[ "$1" != forecasters ]', "forecasters"),
        ("bin/make", '[ "$1" != crate ]', "crate"),
        ("bin/make", '[ "$1" != test-all ]', "test-all"),
    ],
)
def test_it_is_red_if_a_part_fails_and_the_cluster_is_taken_down(machine, path, then, failed):
    machine.fake(machine.folder.parent / path, then)
    status, outcomes, calls = machine.run()
    assert status != 0
    assert outcomes[failed].startswith("FAILED")
    assert any(call.startswith("down.sh") for call in calls)


def test_tests_in_real_time_wait_until_the_cluster_is_gone(machine):
    """The lock is free for `make test-all` only then."""
    make = machine.folder.parent / "bin/make"
    live = f'flock "$FARO_REAL_TIME" echo "live tests" >>{machine.log}'
    machine.fake(make, f'[ "$1" = test-k8s ] && sleep 2; [ "$1" != test-all ] || {live}')
    status, _, calls = machine.run()
    assert status == 0
    names = [call.split(" /")[0].strip() for call in calls]
    (down,) = [at for at, name in enumerate(names) if name.startswith("down.sh")]
    assert names.index("make test-all") < down < names.index("live tests")


def test_the_users_kubeconfig_is_never_used(machine):
    _, _, calls = machine.run()
    assert not [call for call in calls if "/user/config" in call]


def still_runs(status: Path) -> bool:
    """Whether the process of this /proc/PID/status is alive; a zombie is not."""
    try:
        return "State:\tZ" not in status.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_build_that_still_runs_is_ended_with_the_script(machine):
    began = machine.folder / "began"
    machine.fake(machine.folder / "cluster/up.sh", f"echo $$ >{began}; exec sleep 600")
    machine.fake(
        machine.folder.parent / "bin/make", f"until [ -s {began} ]; do sleep 0.1; done; exit 1"
    )
    status, _, _ = machine.run()
    assert status != 0
    build = Path(f"/proc/{began.read_text().strip()}/status")
    until(lambda: not still_runs(build), what="its end")


def test_a_cluster_that_is_there_already_is_neither_used_nor_deleted(machine):
    machine.fake(machine.folder.parent / "bin/kind", "echo faro")
    status, _, calls = machine.run()
    assert status != 0
    assert not [call for call in calls if call.startswith(("up.sh", "down.sh"))]


@pytest.mark.parametrize(
    ("kubeconfig", "status"),
    [("/some/where", pytest.ExitCode.TESTS_FAILED), ("", pytest.ExitCode.OK)],
)
def test_a_skipped_test_marked_k8s_fails_where_a_cluster_is_named(
    kubeconfig, status, tmp_path, monkeypatch
):
    text = "import pytest\n@pytest.mark.k8s\ndef test_x():\n    pytest.skip('no kubectl')\n"
    (tmp_path / "test_on_kind.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = k8s\n")
    monkeypatch.setenv("KUBECONFIG", kubeconfig)
    hook = ModuleType("hook")
    hook.pytest_runtest_makereport = conftest.pytest_runtest_makereport
    arguments = f"-q -p no:cacheprovider --import-mode importlib --rootdir {tmp_path} {tmp_path}"
    assert pytest.main(arguments.split(), plugins=[hook]) == status


def test_it_leaves_no_folder_behind_even_if_the_cluster_neither_comes_up_nor_goes_down(
    machine, tmp_path
):
    (tmp_path / "tmp").mkdir()
    machine.environment["TMPDIR"] = str(tmp_path / "tmp")
    for name in ("up.sh", "down.sh"):
        machine.fake(machine.folder / "cluster" / name, "exit 1")
    status, outcomes, _ = machine.run()
    assert status != 0
    assert outcomes["kind cluster"].startswith("FAILED")
    assert not list((tmp_path / "tmp").iterdir())


# --- which tests of the kind cluster run ----------------------------------------------------------


def selected(*words: str) -> str:
    """The expression with which a command of make selects the tests of the kind cluster."""
    command = ["make", "-n", "--no-print-directory", *words, "KUBECONFIG=/nowhere"]
    # This test may run below make, whose variables would reach the command.
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    printed = subprocess.run(
        command, cwd=ROOT, env=own, capture_output=True, text=True, check=True
    ).stdout
    (line,) = [line for line in printed.splitlines() if " - " in line]
    return line.split(" - ", 1)[1].strip().strip('"')


def test_the_soak_of_an_hour_runs_only_with_the_faults():
    assert selected("test-k8s") == "k8s and not soak"
    assert selected("test-k8s", "SELECT=not slow") == "k8s and not soak and (not slow)"
    assert selected("test-faults") == "fault"
    soak = (ROOT / "tests/kind/test_k8s_soak.py").read_text()
    assert "pytest.mark.fault, pytest.mark.soak" in soak

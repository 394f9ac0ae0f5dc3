"""Errors that new users meet: one line says what to do, and no file is left half written."""

import ctypes
import os
import resource
import shutil
import socket
import subprocess
import sys
import sysconfig
from contextlib import chdir
from pathlib import Path

import pytest
from checkouts import ROOT, write_notebook
from faro_pipeline.notebook import NotebookError, run_notebook
from messages import assert_refused

from faro_ops import cli

SIMULATED = "results/synthetic/simulate/summary.csv"
SMALL = (SIMULATED, "--config", "capacities=[11]", "trials=1", "synthetic={days: 1}")
DISK_FULL = "the disk is full; free some space or name a place on another disk, and start again"
COUNTS = "minute,job,requests\n" + "".join(
    f"{minute},a,{60 + minute % 7}\n" for minute in range(60)
)


def only_line(text: str) -> str:
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


@pytest.fixture
def counts(tmp_path):
    (tmp_path / "counts.csv").write_text(COUNTS)
    return str(tmp_path / "counts.csv")


class TestAPortInUse:
    @pytest.fixture
    def taken(self):
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            yield listening.getsockname()[1]

    def test_is_reported_before_the_controller_looks_for_a_cluster(self, taken, tmp_path, capsys):
        (tmp_path / "jobs.yaml").write_text("- job: a\n")
        arguments = f"--jobs {tmp_path}/jobs.yaml --policy AIAD --metrics-port {taken}".split()
        assert cli.main(["run", *arguments]) == 2
        text = only_line(capsys.readouterr().err)
        assert f"metrics port {taken} on 127.0.0.1: Address already in use; choose another" in text

    def test_is_not_taken_for_a_ray_that_we_start(self, taken):
        from faro_ops.operate.rayserve.local import free_ports

        ports = free_ports(8)
        assert len(set(ports)) == 8
        assert taken not in ports


class TestAPackageThatIsNotInstalled:
    """Runs the command line in an environment that links to every installed package except one."""

    @pytest.fixture
    def lacking(self, tmp_path):
        def run(packages: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess:
            place = tmp_path / "site-packages"
            place.mkdir()
            for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
                if not entry.name.startswith(packages) and entry.suffix != ".pth":
                    (place / entry.name).symlink_to(entry)
            environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(place)])}
            command = [sys.executable, "-S", "-m", "faro_ops.cli", *arguments]
            return subprocess.run(
                command, env=environment, capture_output=True, text=True, cwd=tmp_path
            )

        return run

    def jobs(self, tmp_path) -> str:
        (tmp_path / "jobs.yaml").write_text("- job: a\n  deployment: {query: up}\n")
        return str(tmp_path / "jobs.yaml")

    def test_ray_is_named_where_a_local_cluster_needs_it(self, lacking, tmp_path):
        arguments = (
            "run",
            "--backend",
            "local",
            "--jobs",
            self.jobs(tmp_path),
            "--policy",
            "AIAD",
            "--capacity",
            "2",
        )
        done = lacking(("ray",), *arguments)
        assert done.returncode == 2
        assert (
            done.stderr.splitlines()[-1]
            == "faro: backend=local needs Ray Serve: pip install 'faro_lib[live]'"
        )

    @pytest.mark.parametrize(
        ("package", "extra", "arguments"),
        [
            ("prometheus_client", "live", ("run", "--policy", "AIAD", "--metrics-port", "0")),
            (
                "kubernetes",
                "kube",
                ("run", "--policy", "AIAD", "--backend", "deployments", "--plan", "faro/faro"),
            ),
            (
                "matplotlib",
                "figures",
                ("recommend", "--capacity", "3", "--curve", "--plot", "curve.png"),
            ),
        ],
    )
    def test_is_named_with_the_extra_to_install(
        self, package, extra, arguments, lacking, tmp_path, counts
    ):
        text = ("--jobs", self.jobs(tmp_path)) if arguments[0] == "run" else ("--workload", counts)
        if package == "kubernetes":
            text += ("--prometheus", "http://127.0.0.1:9")
        done = lacking((package,), *arguments, *text)
        assert done.returncode == 2, done.stderr
        assert (
            f"{package} is not installed: pip install 'faro_lib[{extra}]'"
            in done.stderr.splitlines()[-1]
        )
        assert "Traceback" not in done.stderr

    def test_is_reported_in_the_same_way_by_a_notebook(self, tmp_path):
        write_notebook(
            tmp_path / "n.ipynb",
            "raise ModuleNotFoundError(\"No module named 'pymc'\", name='pymc')",
        )
        missing = r"pymc is not installed: pip install 'faro_lib\[bayes\]'"
        with chdir(tmp_path), pytest.raises(NotebookError, match=missing) as error:
            run_notebook("n.ipynb", "o.ipynb", {}, "o.log")
        only_line(str(error.value))

    def test_is_a_bug_with_a_traceback_if_it_is_our_own(self, monkeypatch, counts):
        monkeypatch.delattr(
            "faro_ops.advise.recommend.recommendation", raising=False
        )  # another test may have imported it
        monkeypatch.setitem(sys.modules, "faro_ops.advise.recommend.recommendation", None)
        with pytest.raises(ModuleNotFoundError):
            cli.main(["recommend", "--workload", counts])


@pytest.mark.slow
class TestTooLittleMemory:
    def failure(self, folder, code) -> str:
        write_notebook(folder / "n.ipynb", code)
        with chdir(folder), pytest.raises(NotebookError) as error:
            run_notebook("n.ipynb", "o.ipynb", {}, "o.log")
        assert not (folder / "o.ipynb").exists()
        return only_line(str(error.value))

    def test_for_an_array_says_how_to_ask_for_less(self, tmp_path):
        text = self.failure(tmp_path, "import numpy as np\nnp.ones(10**17)")
        assert "too little memory (Unable to allocate" in text
        assert "take fewer jobs, minutes or trials" in text

    def test_is_named_where_the_system_killed_a_kernel(self, tmp_path):
        text = self.failure(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
        assert "its process was killed, most likely for too little memory: take fewer jobs" in text

    def test_is_found_by_the_pipeline_before_it_starts(self, checkout):
        asked = "scale={largest: [[1000000, 3200000]]}"
        assert_refused(checkout, "70_scale needs about", "--config", asked)


def without_rights() -> None:
    """Drop root's right to ignore permissions; called in the child process before its command."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    PR_CAPBSET_DROP = 24  # takes effect at exec
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        if os.geteuid() == 0 and prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


@pytest.fixture
def forbidden(tmp_path):
    """Runs Python code in a folder that is readable but not writable."""
    folder = tmp_path / "theirs"
    folder.mkdir()

    def run(*arguments: str) -> subprocess.CompletedProcess:
        folder.chmod(0o555)
        try:
            return subprocess.run(
                [sys.executable, "-c", *arguments],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/workflow"},
                capture_output=True,
                text=True,
                preexec_fn=without_rights,
            )
        finally:
            folder.chmod(0o755)

    if run("open('x', 'w')").returncode == 0:
        pytest.skip("rights cannot be taken away here")
    run.folder = folder  # type: ignore[attr-defined]
    return run


class TestNoPermission:
    def test_is_found_by_the_pipeline_before_it_starts(self, forbidden):
        code = """
import sys
from faro_ops.errors import message_of
from faro_pipeline.check import check
from faro_pipeline.settings import load
try:
    check(load({"results": "results"}))
except OSError as error:
    sys.exit(message_of(error))
"""
        done = forbidden(code)
        text = only_line(done.stderr)
        assert text.startswith(str(forbidden.folder))
        assert "permission denied; change its permissions, or name another place" in text

    def test_for_a_picture_is_one_line(self, forbidden):
        (forbidden.folder / "counts.csv").write_text(COUNTS)
        call = "import sys; from faro_ops.cli import main; sys.exit(main(sys.argv[1:]))"
        done = forbidden(
            call, "recommend", "--workload", "counts.csv", "--capacity", "3", "--plot", "curve.png"
        )
        assert done.returncode == 2
        assert f"{forbidden.folder.name}: permission denied" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr

    def test_a_file_in_place_of_the_results_folder_is_named(self, checkout):
        (checkout.folder / "taken").write_text("mine")
        done = checkout.snakemake("--config", "results=taken")
        assert done.returncode != 0
        assert (
            "taken: is a file, and a folder is needed; move it, or name another place"
            in done.stderr
        )
        assert "Traceback" not in done.stderr
        assert (checkout.folder / "taken").read_text() == "mine"


@pytest.mark.slow
class TestAFullDisk:
    SCRIPT = """
    mount -t tmpfs -o size=1m tmpfs results || exit 77
    {snakemake} > first.out 2>&1 && exit 1
    find results -type f > first.files
    mount -o remount,size=64m results
    {snakemake} > second.out 2>&1 || exit 2
    find results -type f > second.files
    """

    @pytest.fixture(scope="class")
    @classmethod
    def filled(cls, checkout):
        """The simulation on a disk of one megabyte, where it needs three; then on a larger disk."""
        if shutil.which("unshare") is None:
            pytest.skip("unshare is not there, so no small disk can be had")
        notebook = checkout.folder / "notebooks" / "50_simulation.ipynb"
        wants = "(folder / 'big').write_bytes(bytes(3_000_000))\\nwhile Path("
        notebook.write_text(notebook.read_text().replace("while Path(", wants))
        checkout.results.mkdir()
        script = cls.SCRIPT.format(snakemake=" ".join(map(repr, checkout.command(*SMALL))))
        command = ["unshare", "--mount", "sh", "-c", script]
        done = subprocess.run(
            command, cwd=checkout.folder, env=checkout.environment(), capture_output=True, text=True
        )
        if done.returncode == 77 or "unshare failed" in done.stderr:
            pytest.skip(f"no small disk can be had here: {done.stderr.strip()}")
        said = {path.name: path.read_text() for path in checkout.folder.glob("*.out")}
        files = {
            path.stem: set(path.read_text().split()) for path in checkout.folder.glob("*.files")
        }
        assert done.returncode == 0, (done.returncode, done.stderr, said)
        return said, files

    def test_the_last_line_says_what_to_do(self, filled):
        said, _ = filled
        _, _, end = said["first.out"].partition("Errors of this run:")
        assert end.splitlines()[1] == f"notebooks/50_simulation.ipynb: {DISK_FULL}"
        assert "Traceback" not in said["first.out"]

    def test_no_output_of_the_failed_stage_looks_complete(self, filled):
        _, files = filled
        left = {name for name in files["first"] if "/simulate/" in name or "50_simulation" in name}
        assert not [name for name in left if name.endswith((".csv", ".parquet"))]
        assert not [name for name in left if name.endswith(".ipynb") and ".partial." not in name]
        assert "results/synthetic/traces/jobs.csv" in files["first"]

    def test_the_same_command_finishes_once_there_is_space(self, filled):
        said, files = filled
        assert SIMULATED in files["second"]
        assert "10_traces" not in said["second.out"]

    def test_an_earlier_picture_stays_if_a_new_one_does_not_fit(
        self, tmp_path, counts, capsys, monkeypatch, coarse_tables
    ):
        from matplotlib.figure import Figure

        def save_in_8_kb(figure, path, savefig=Figure.savefig):
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
            try:
                savefig(figure, path)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)

        monkeypatch.setattr(Figure, "savefig", save_in_8_kb)
        picture = tmp_path / "curve.png"
        picture.write_bytes(b"the earlier one")
        assert (
            cli.main(["recommend", "--workload", counts, "--capacity", "3", "--plot", str(picture)])
            == 2
        )
        assert "the file would exceed the size limit" in capsys.readouterr().err.splitlines()[-1]
        assert picture.read_bytes() == b"the earlier one"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["counts.csv", "curve.png"]

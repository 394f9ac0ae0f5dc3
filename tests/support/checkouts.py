"""A separate checkout to run the pipeline in, with stand-in notebooks that take seconds."""

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]

# What each stand-in notebook imports and writes, and nothing else. The fingerprint of its code
# covers imports that never run.
WRITE = """
from pathlib import Path
def write(folder, *names):
    folder = Path(results) / folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("x")
"""
TRACES = (
    WRITE
    + """
if False:
    import faro_lib.workload
import pandas as pd
folder = Path(results) / "traces"
folder.mkdir(parents=True, exist_ok=True)
pd.DataFrame({"job": ["a"]}).to_csv(folder / "jobs.csv", index=False)
pd.DataFrame({"minute": [0]}).to_parquet(folder / "requests.parquet", index=False)
"""
)
QUEUEING = (
    WRITE
    + """
if False:
    import faro_lib.queueing
tables = ("half_against_exact.csv", "relaxed_latency.csv", "drop_penalty.csv")
write("queueing", "measured.npz", *tables)
"""
)
SIMULATION = """
import time
from pathlib import Path
import pandas as pd
if False:
    from faro_lib.figures import use_style
    from faro_lib.policies import make
    from faro_lib.simulate import TRIAL_SEEDS
folder = Path(results) / "simulate" / str(capacity)
folder.mkdir(parents=True, exist_ok=True)
summary = pd.DataFrame({"policy": policies, "capacity_cores": capacity, "trial": 0})
columns = ["lost_utility", "slo_violation_rate", "lost_effective_utility", "drop_rate"]
columns += ["replicas_used_mean", "requests", "decision_ms_p50", "decision_ms_p99"]
summary = summary.assign(**dict.fromkeys(columns, 0.5))
(folder / "summary.csv").write_text("half")
while Path("hold").exists():
    time.sleep(0.1)
summary.to_csv(folder / "summary.csv", index=False)
summary.head(1).to_csv(folder / "limit.csv", index=False)
minutes = pd.concat([summary.assign(minute=minute, utility=0.5) for minute in range(3)])
for name in ("minutes", "decisions", "running", "clairvoyant"):
    minutes.to_parquet(folder / f"{name}.parquet", index=False)
"""
# A function `draw` that draws empty figures.
DRAW = """

def draw(results, **options):
    from matplotlib.figure import Figure
    from studies.figures.drawing import Drawing

    return {name: Drawing(Figure((1, 1)), "A title", "A caption.") for name in %r}
"""
FIGURES = {
    "traces": ["requests_by_job", "offered_load"],
    "queueing": ["relaxations", "half_wait"],
    "comparison": [
        "lost_utility_over_the_day",
        "policies",
        "replicas_by_job",
        "spread_over_jobs",
        "predicted_latency",
    ],
}


def write_notebook(path: Path, code: str, parameters: str = "") -> None:
    cells = [
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(code),
    ]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell{number}"
    path.parent.mkdir(parents=True, exist_ok=True)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


# Importing Snakemake takes as long as a dry run, so each run is a fork of one process that has
# imported it, and whatever else does not belong to the checkout.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "snakemake.cli",
        "snakemake.report.html_reporter",
        "pandas",
        "pydantic",
        "nbformat",
        "numba",
        "smart_open",
        "yte",
    ]
)


def run_snakemake(
    folder: Path, environment: dict[str, str], arguments: list[str], prepare: Callable | None
) -> None:
    """Run Snakemake in a forked process; its output goes to the files .stdout and .stderr in
    `folder`.
    """
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, name in ((1, ".stdout"), (2, ".stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    from snakemake.cli import main

    if prepare:
        prepare()
    main(arguments)


class Checkout:
    """A copy of the project in a folder of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.results = folder / "results"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]

    def environment(self) -> dict[str, str]:
        """The environment of the tests without this library on PYTHONPATH, because the copy has its
        own.
        """
        paths = [
            path
            for path in os.environ.get("PYTHONPATH", "").split(os.pathsep)
            if path and ROOT not in (Path(path), Path(path).parent)
        ]
        return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}

    def snakemake(
        self, *arguments: str, prepare: Callable | None = None, cores: int | None = 1
    ) -> subprocess.CompletedProcess:
        """Run Snakemake with these arguments, after `prepare()` in its process."""
        command = ["--cores", str(cores), *arguments] if cores else [*arguments]
        fork = FORKS.Process(
            target=run_snakemake, args=(self.folder, self.environment(), command, prepare)
        )
        fork.start()
        fork.join(600)
        fork.kill()  # if it hangs
        fork.join()
        said = [(self.folder / name).read_text() for name in (".stdout", ".stderr")]
        return subprocess.CompletedProcess(command, fork.exitcode, *said)

    def would_run(self, *arguments: str) -> dict[str, int]:
        """Rule -> number of jobs that a dry run announces."""
        done = self.snakemake("--dry-run", *arguments)
        assert done.returncode == 0, done.stderr
        counts = re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.MULTILINE)
        return {rule: int(jobs) for rule, jobs in counts if rule not in ("total", "all")}

    def reasons(self, *arguments: str) -> dict[str, set[str]]:
        """Reason -> rules that a dry run would run for it."""
        done = self.snakemake("--dry-run", "--quiet", "host", *arguments)
        assert done.returncode == 0, done.stderr
        sections = re.findall(
            r"^    (\w[^\n]*):\n        (\w[^\n]*)$", done.stdout + done.stderr, re.MULTILINE
        )
        return {reason: set(rules.split(", ")) - {"all"} for reason, rules in sections}


def make_checkout(folder: Path, real_notebooks: bool = False) -> Checkout:
    """Copy the project; its notebooks are replaced by stand-ins unless `real_notebooks`."""
    for name in (
        *(
            "Snakefile",
            "workflow",
            "config",
            "profiles",
            "environment.yml",
            "envs",
            "faro_lib",
            "faro_ops",
            "studies",
        ),
        *("data/sources.yaml", "data/published", "data/posterior-smoke.npz"),
    ):
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.pyc"))
        else:
            shutil.copy(source, target)
    if real_notebooks:
        shutil.copytree(
            ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".*")
        )
        for recorded in ("data/recorded-kubernetes", "data/arena"):
            shutil.copytree(ROOT / recorded, folder / recorded)
        return Checkout(folder)
    standing_in = {"10_traces": TRACES, "20_queueing": QUEUEING, "50_simulation": SIMULATION}
    standing_in["90_figures"] = "if False:\n    from studies.comparison import figures"
    for stage, names in FIGURES.items():
        with (folder / "studies" / stage / "figures.py").open("a") as module:
            module.write(DRAW % names)
    for name in sorted(
        {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} | set(standing_in)
    ):
        write_notebook(folder / "notebooks" / f"{name}.ipynb", standing_in.get(name, "pass"))
    return Checkout(folder)


def reader_checkout(folder: Path) -> Path:
    """A checkout with this environment, whose files for `make` are older than it, so that make
    installs nothing.
    """
    folder = make_checkout(folder, real_notebooks=True).folder
    for name in (
        "Makefile",
        "pyproject.toml",
        "requirements.txt",
        "data/example.csv",
        "data/example-jobs.csv",
    ):
        shutil.copy(ROOT / name, folder / name)
        os.utime(folder / name, (0, 0))
    for name in ("envs/tests/requirements.txt", "envs/build/requirements.txt"):
        os.utime(folder / name, (0, 0))
    environment = folder / ".venv"
    environment.mkdir()
    for entry in Path(sys.prefix).iterdir():
        (environment / entry.name).symlink_to(entry)
    for stamp in (".pins", ".ready"):
        (environment / stamp).unlink(missing_ok=True)
        (environment / stamp).touch()
    return folder


def surroundings(folder: Path) -> dict[str, str]:
    """The environment of a reader's shell in the checkout."""
    own = {
        "PYTHONPATH": f"{folder}{os.pathsep}{folder}/workflow",
        "JUPYTER_CONFIG_DIR": str(folder / "jupyter"),
    }
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("CI", "MAKEFLAGS", "MAKELEVEL")
    } | own


def typed(command: str | list[str], folder: Path) -> str:
    """The output of a command that a reader types in the checkout; it must succeed."""
    done = subprocess.run(
        command,
        shell=isinstance(command, str),
        cwd=folder,
        env=surroundings(folder),
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout

"""One self-contained HTML page with the results of a run, also for a phone."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faro_lib import __version__
from faro_lib.files import atomic_write
from faro_lib.workload import SYNTHETIC
from studies.report.tables import DIFFERENCE, MEASURES, tables

if TYPE_CHECKING:
    import pandas as pd

# Heading -> its figures, in this order. Figures that are not listed come after these sections.
SECTIONS = {
    "Which policy wins?": (
        "policies",
        "lost_utility_over_the_day",
        "spread_over_jobs",
        "replicas_by_job",
        "effective_utility",
    ),
    "Why?": (
        "offered_load",
        "requests_by_job",
        "ablation",
        "remaining_loss",
        "sloppification",
        "utility_of_latency",
        "relaxations",
        "half_wait",
        "predicted_latency",
        "learned_latency",
    ),
    "How sure are the forecasts?": ("coverage", "forecast_scores", "forecast", "predictive_check"),
    "Where does the lead end?": (
        "days_and_workloads",
        "lost_utility_by_capacity",
        "sensitivity",
        "kinds_of_replica",
        "shared_replicas",
        "placement_of_models",
        "language_models",
        "two_models",
        "larger_clusters",
    ),
    "How fast are decisions?": ("solver_time_and_gap", "solver_scaling"),
    "Does it hold on real replicas?": ("live", "kubernetes"),
}
RECORDED = "Recorded earlier: not results of this run"
PACKAGES = ("numpy", "scipy", "numba", "pandas", "matplotlib", "papermill", "snakemake")


def write_report(
    results: str | Path,
    config: Mapping[str, Any],
    sources: Mapping[str, Sequence[str]],
    page: str | Path,
    notebooks: Sequence[str | Path] = (),
) -> None:
    """Write the page from the tables and figures of a run, and beside it the record of the run.

    The record is an RO-Crate, if the package rocrate is installed.

    `sources` maps each stage of this run to its notebook and tables, as paths relative to
    `results`; `notebooks` are the paths of all notebooks that the run has executed.
    """
    import yaml
    from jinja2 import Template

    from faro_lib.experiments.trials import trial_seeds
    from faro_lib.forecast.posterior import load_posterior
    from studies.report.explore import explorable
    from studies.report.findings import findings
    from studies.tables.frames import read_tables

    results = Path(results)
    definitions = [(heading, definition) for heading, _, definition in MEASURES.values()]
    definitions.append(DIFFERENCE)
    posterior = results / "forecast" / "posterior.npz"
    simulated = read_tables(results / "simulate")
    requests = (results / "traces" / "requests.parquet").read_bytes()
    template = Template(Path(__file__).with_name("page.html.jinja").read_text(), autoescape=True)
    text = template.render(
        workload=results.name,
        folder=results.as_posix(),
        size=size_of(results, config, simulated.summary),
        explorable=explorable(simulated),
        findings=findings(results, set(sources)),
        columns=[heading for heading, _ in definitions],
        definitions=definitions,
        tables=tables(simulated.summary, simulated.limit),
        sections=sections(figures(results, sources)),
        seeds=trial_seeds(config["trials"]),
        synthetic_seed=config["synthetic"]["seed"] if config["workload"] == SYNTHETIC else None,
        convergence=load_posterior(posterior).convergence if "forecast" in sources else None,
        configuration=yaml.safe_dump(dict(config), sort_keys=False, default_flow_style=None),
        versions=versions(),
        commit=commit(),
        requests_sha256=hashlib.sha256(requests).hexdigest(),
        notebooks=sorted(f"notebooks/{Path(path).name}" for path in notebooks),
    )
    with atomic_write(page) as partial:
        partial.write_text(text, encoding="utf-8")
    if find_spec("rocrate"):
        from studies.report.crate import write_crate

        software = ("faro_lib", *PACKAGES)
        write_crate(
            results, config, sources, Path(page), notebooks, software=software, commit=commit()
        )


def figures(results: Path, sources: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Name of a figure -> its entry on the page.

    An entry has png (base64), width_in, title, caption, recorded, links, and the line of code.
    """
    from faro_lib.figures.style import DPI
    from studies.report.sources import line_of

    found = {}
    for stage, links in sources.items():
        folder = results / "figures"
        for name, text in json.loads((folder / f"captions-{stage}.json").read_text()).items():
            png = (folder / f"{name}.png").read_bytes()
            width_px = int.from_bytes(png[16:20])  # bytes 16 to 19 of a PNG
            encoded = base64.b64encode(png).decode("ascii")
            found[name] = text | {
                "png": encoded,
                "width_in": width_px / DPI,
                "links": links,
                "line": line_of(f"studies.{stage}.figures", name),
            }
    return found


def sections(found: Mapping[str, dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Pairs (heading, figures), with the figures numbered in page order.

    Figures recorded earlier come last.
    """
    own = {name for name, figure in found.items() if not figure["recorded"]}
    named = []
    for heading, names in SECTIONS.items():
        named.append((heading, [name for name in names if name in own]))
    others = own.difference(*SECTIONS.values())
    named.append(("Other figures", [name for name in found if name in others]))
    named.append((RECORDED, [name for name in found if name not in own]))
    number = itertools.count(1)
    filled = []
    for heading, shown in named:
        entries = [{"name": name} | found[name] | {"number": next(number)} for name in shown]
        if entries:
            filled.append((heading, entries))
    return filled


def size_of(results: Path, config: Mapping[str, Any], summary: pd.DataFrame) -> str:
    """The numbers of jobs, minutes, requests, policies and trials of the run, as text."""
    import pandas as pd

    from faro_lib.workload.readers import read_jobs
    from studies.tables.wording import and_list

    jobs = len(read_jobs(results / "traces" / "jobs.csv"))
    requests = pd.read_parquet(results / "traces" / "requests.parquet", columns=["minute"])
    minutes = requests["minute"].max() + 1
    counts = [
        (jobs, "job"),
        (min(minutes, config["minutes"] or minutes), "minute"),
        (round(summary["requests"].mean()), "request"),
        (summary["policy"].nunique(), "policy"),
        (config["trials"], "trial"),
    ]
    plural = {"policy": "policies"}
    return and_list(
        f"{count:,} {word if count == 1 else plural.get(word, f'{word}s')}"
        for count, word in counts
    )


def commit() -> str:
    """The git commit of the code, with "+ local changes" if tracked files differ.

    It is "unknown" outside a checkout.
    """
    command = ["git", "describe", "--always", "--exclude=*", "--abbrev=40"]
    command.append("--dirty= + local changes")
    here = Path(__file__).parent
    try:
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def versions() -> str:
    """Versions of Faro, Python and packages, one per line."""
    system = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    lines = [f"faro_lib {__version__}", system]
    for package in PACKAGES:
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return "\n".join(lines)

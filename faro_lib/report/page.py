"""One self-contained page with the results of a run, readable on a phone, without scripts."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faro_lib import __version__
from faro_lib.files import atomic_write
from faro_lib.metrics.paired import paired_difference
from faro_lib.workload import SYNTHETIC

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Column of simulate/summary.csv -> heading, number format and definition. In all columns, lower is better.
MEASURES = {
    "lost_utility": ("lost utility", "{:.3f}", "sum of 1 - utility over jobs, mean over minutes; at most 1 per job"),
    "slo_violation_rate": (
        "SLO violations", "{:.2%}", "share of requests dropped or late, mean over jobs with requests, then over minutes"
    ),
    "lost_effective_utility": ("lost effective utility", "{:.3f}", "as lost utility, but a drop costs its penalty"),
    "drop_rate": ("dropped", "{:.2%}", "share of all requests of the day"),
    "replicas_used_mean": ("replicas used", "{:.1f}", "running replicas, mean over ticks"),
}  # fmt: skip
DIFFERENCE = (
    "above the best",
    "lost utility minus that of the best policy, with a 95 % interval over the paired trials",
)
PACKAGES = ("numpy", "scipy", "numba", "pandas", "matplotlib", "papermill", "snakemake")
SINGLE = """<!doctype html><html lang="en"><meta charset="utf-8">\
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{{ title }}</title>\
<link rel="icon" href="data:,"><body style="font: 16px/1.5 system-ui, sans-serif; margin: 1rem">\
<h1>{{ title }}</h1>\
<img style="max-width: 100%" alt="{{ title }}" src="data:image/png;base64,{{ png }}">\
<pre style="overflow-x: auto">{{ text }}</pre></body></html>"""


def write_report(
    results: str | Path, config: Mapping[str, Any], captions: Sequence[str | Path], page: str | Path
) -> None:
    """Write the page from results/<workload>/simulate/summary.csv and the figures of `captions`.

    Parameters
    ----------
    config : configuration of the run.
    captions : files of captions, each next to its figures.
    """
    import pandas as pd
    import yaml
    from jinja2 import Template

    from faro_lib.experiments.trials import trial_seeds

    results = Path(results)
    text = Template(Path(__file__).with_name("page.html.jinja").read_text(), autoescape=True).render(
        workload=results.name,
        columns=[*(heading for heading, _, _ in MEASURES.values()), DIFFERENCE[0]],
        definitions=[*((heading, definition) for heading, _, definition in MEASURES.values()), DIFFERENCE],
        tables=tables(*(pd.read_csv(results / "simulate" / f"{name}.csv") for name in ("summary", "limit"))),
        figures=figures(captions),
        seeds=trial_seeds(config["trials"]),
        synthetic_seed=config["synthetic"]["seed"] if config["workload"] == SYNTHETIC else None,
        configuration=yaml.safe_dump(dict(config), sort_keys=False, default_flow_style=None),
        versions=versions(),
        commit=commit(),
        requests_sha256=sha256_of(results / "traces" / "requests.parquet"),
        notebooks=sorted(path.relative_to(results).as_posix() for path in results.glob("notebooks/*.ipynb")),
    )
    with atomic_write(page) as partial:
        partial.write_text(text, encoding="utf-8")


def page_of(figure: Figure, title: str, text: str) -> str:
    """A self-contained page of one figure and a text below it."""
    from jinja2 import Template

    png = io.BytesIO()
    figure.savefig(png, format="png")
    encoded = base64.b64encode(png.getvalue()).decode("ascii")
    return Template(SINGLE, autoescape=True).render(title=title, text=text, png=encoded)


def tables(summary: pd.DataFrame, limit: pd.DataFrame) -> list[tuple[int, list[dict[str, Any]]]]:
    """Mean ± standard deviation over trials of each measure, one table per capacity; a row per policy and the limit.

    The last cell of a policy is `above_the_best`.

    A cell is a text and whether it is the best of its column.
    """
    by_capacity = []
    for capacity, part in sorted(summary.groupby("capacity_cores"), reverse=True):
        best = part.groupby("policy")[list(MEASURES)].mean().idxmin()
        lost = part.pivot(index="trial", columns="policy", values="lost_utility")
        rows = [
            {
                "policy": policy,
                "cells": [
                    (spread(trials[column], shape), policy == best[column])
                    for column, (_, shape, _) in MEASURES.items()
                ]
                + [(above_the_best(lost, policy, best["lost_utility"]), False)],
                "trials": len(trials),
            }
            for policy, trials in part.groupby("policy", sort=False)
        ]
        floor = limit[limit["capacity_cores"] == capacity]
        cells = [
            (spread(floor[column], shape) if column == "lost_utility" and len(floor) else "-", False)
            for column, (_, shape, _) in MEASURES.items()
        ]
        row = {"policy": "clairvoyant limit", "cells": [*cells, ("-", False)], "trials": len(floor)}
        by_capacity.append((int(capacity), [*rows, row]))
    return by_capacity


def above_the_best(lost: pd.DataFrame, policy: str, best: str) -> str:
    """Difference of a policy's lost utility to that of the best policy, with its interval; "-" for the best itself.

    Parameters
    ----------
    lost : lost utility by trial (index) and policy (columns).
    """
    if policy == best:
        return "-"
    mean, half_width = paired_difference(lost[policy], lost[best])
    return f"{mean:+.3f}" if math.isnan(half_width) else f"{mean:+.3f} ± {half_width:.3f}"


def spread(values: pd.Series, shape: str) -> str:
    """Mean ± sample standard deviation; the mean alone for a single value.

    >>> import pandas as pd
    >>> spread(pd.Series([1.0, 2.0]), "{:.1f}"), spread(pd.Series([0.5]), "{:.0%}")
    ('1.5 ± 0.7', '50%')
    """
    mean = shape.format(values.mean())
    return mean if len(values) < 2 else f"{mean} ± {shape.format(values.std())}"


def figures(captions: Sequence[str | Path]) -> list[dict[str, Any]]:
    """The figures of these files of captions, in their order: name, picture, width, title and caption."""
    from faro_lib.figures.style import DPI

    texts = [(Path(path), name, text) for path in captions for name, text in json.loads(Path(path).read_text()).items()]
    rows = []
    for number, (path, name, text) in enumerate(texts, 1):
        png = path.with_name(f"{name}.png").read_bytes()
        width_px = int.from_bytes(png[16:20])  # bytes 16 to 19 of a PNG
        row = {"name": name, "png": base64.b64encode(png).decode("ascii"), "width_in": width_px / DPI}
        rows.append(row | {"title": f"Figure {number}. {text['title']}", "caption": text["caption"]})
    return rows


def commit() -> str:
    """The git commit of the code, "+ local changes" if tracked files differ from it; "unknown" outside a checkout."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout

    try:
        changed = git("status", "--porcelain", "--untracked-files=no").strip()
        return git("rev-parse", "HEAD").strip() + (" + local changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file; "unknown" if it does not exist."""
    if not path.exists():
        return "unknown"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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

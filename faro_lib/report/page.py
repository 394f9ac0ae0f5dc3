"""One page with everything that a run of the pipeline found: self-contained, readable on a phone, no scripts."""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faro_lib import __version__
from faro_lib.config import SYNTHETIC
from faro_lib.files import whole

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Column of simulate/summary.csv -> heading and how a value is written.
MEASURES = {
    "lost_utility": ("lost utility", "{:.3f}"),
    "slo_violation_rate": ("SLO violations", "{:.2%}"),
    "lost_effective_utility": ("lost effective utility", "{:.3f}"),
    "drop_rate": ("dropped", "{:.2%}"),
    "replicas_used_mean": ("replicas used", "{:.1f}"),
}
WIDE_PX = 1000  # wider pictures scroll sideways on a phone instead of shrinking until nobody can read them
PACKAGES = ("numpy", "scipy", "numba", "pandas", "matplotlib", "papermill", "snakemake")


def write_report(results: str | Path, config: Mapping[str, Any], page: str | Path) -> None:
    """Write the page from results/<workload>: simulate/summary.csv, figures/*.png and figures/captions*.json.

    Parameters
    ----------
    config : the configuration of the run, as a mapping.
    """
    import pandas as pd
    import yaml
    from jinja2 import Environment, PackageLoader

    from faro_lib.experiments.trials import trial_seeds

    results, page = Path(results), Path(page)
    template = Environment(loader=PackageLoader("faro_lib", "."), autoescape=lambda _: True).get_template(
        "page.html.jinja"
    )
    text = template.render(
        workload=results.name,
        columns=[heading for heading, _ in MEASURES.values()],
        tables=tables(pd.read_csv(results / "simulate" / "summary.csv")),
        figures=figures(results / "figures"),
        seeds=trial_seeds(config["trials"]),
        synthetic_seed=config["synthetic"]["seed"] if config["workload"] == SYNTHETIC else None,
        configuration=yaml.safe_dump(dict(config), sort_keys=False, default_flow_style=None),
        versions=versions(),
    )
    with whole(page) as partial:
        partial.write_text(text, encoding="utf-8")


def page_of(figure: Figure, title: str, text: str) -> str:
    """A self-contained page of one figure and a text below it."""
    import io

    from jinja2 import Template

    png = io.BytesIO()
    figure.savefig(png, format="png")
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>{{ title }}</title>'
        '<link rel="icon" href="data:,"><body style="font: 16px/1.5 system-ui, sans-serif; margin: 1rem">'
        "<h1>{{ title }}</h1>"
        '<img style="max-width: 100%" alt="{{ title }}" src="data:image/png;base64,{{ png }}">'
        '<pre style="overflow-x: auto">{{ text }}</pre></body></html>'
    )
    encoded = base64.b64encode(png.getvalue()).decode("ascii")
    return Template(page, autoescape=True).render(title=title, text=text, png=encoded)


def tables(summary: pd.DataFrame) -> list[tuple[int, list[dict]]]:
    """For each cluster size, largest first: a row a policy with mean ± standard deviation over its trials."""
    by_size = []
    for size, at_size in sorted(summary.groupby("capacity_cores"), reverse=True):
        means = at_size.groupby("policy", sort=False)["lost_utility"].mean()
        rows = [
            {
                "policy": policy,
                "cells": [spread(trials[column], shape) for column, (_, shape) in MEASURES.items()],
                "trials": len(trials),
                "best": policy == means.idxmin(),
            }
            for policy, trials in at_size.groupby("policy", sort=False)
        ]
        by_size.append((int(size), rows))
    return by_size


def spread(values: pd.Series, shape: str) -> str:
    """Mean ± sample standard deviation; one value alone has none.

    >>> import pandas as pd
    >>> spread(pd.Series([1.0, 2.0]), "{:.1f}"), spread(pd.Series([0.5]), "{:.0%}")
    ('1.5 ± 0.7', '50%')
    """
    mean = shape.format(values.mean())
    return mean if len(values) < 2 else f"{mean} ± {shape.format(values.std())}"


def figures(directory: Path) -> list[dict[str, Any]]:
    """Every PNG of the folder with its title and caption, in the order of their names."""
    captions: dict[str, Any] = {}
    for path in sorted(directory.glob("captions*.json")):
        captions |= json.loads(path.read_text())
    return [
        {
            "name": path.stem,
            "png": base64.b64encode(path.read_bytes()).decode("ascii"),
            "wide": int.from_bytes(path.read_bytes()[16:20]) > WIDE_PX,  # a PNG's width stands in bytes 16 to 19
            **titled(path.stem, captions.get(path.stem, "")),
        }
        for path in sorted(directory.glob("*.png"))
    ]


def titled(name: str, caption: str | Mapping[str, str]) -> dict[str, str]:
    """A caption is a text, or a mapping of title and caption; without a title the figure's name gives one.

    >>> titled("fig10_policies", "Faro loses least.")
    {'title': 'Figure 10: policies', 'caption': 'Faro loses least.'}
    """
    number, _, words = name.partition("_")
    digits = number.removeprefix("fig").lstrip("0")
    title = f"Figure {digits}: {words.replace('_', ' ')}" if digits and words else name.replace("_", " ")
    if isinstance(caption, str):
        return {"title": title, "caption": caption}
    return {"title": caption.get("title", title), "caption": caption.get("caption", "")}


def versions() -> str:
    """What computed the page, one package a line."""
    lines = [
        f"faro_lib {__version__}",
        f"Python {platform.python_version()} on {platform.system()} {platform.machine()}",
    ]
    for package in PACKAGES:
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return "\n".join(lines)

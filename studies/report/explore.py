"""An interactive chart that compares policies.

It shows values on hover, hides policies and zooms the minutes. Vega-Altair draws it. The page
carries Vega itself, so it needs no network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from faro_lib.figures.style import COLOURS, MEASURES, colour
from studies.tables.frames import Tables

if TYPE_CHECKING:
    import altair

# Largest number of points on a line; each point is the mean of an interval of minutes.
MAX_POINTS = 180
WIDTH_PX = 640
LEGEND_COLUMNS = 6


def explorable(tables: Tables) -> str:
    """HTML and scripts (about 1 MB) of `chart`, for the body of a page.

    `tables` are those of the stage `simulate`; the chart shows `summary` and `minutes`.
    """
    import vl_convert

    figure = chart(mean_by_policy(tables.summary), lost_over_the_day(tables.minutes))
    # A policy name may contain "</script>".
    specification = figure.to_json(indent=0).replace("<", "\\u003c")
    vega = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed")
    options = '{renderer: "svg", actions: false}'
    return (
        '<div id="chart"></div>\n'
        f"<script>{vega}</script>\n"
        f'<script>vegaEmbed("#chart", {specification}, {options})</script>'
    )


def mean_by_policy(summary: pd.DataFrame) -> pd.DataFrame:
    """Means of MEASURES over trials and the number of trials, a row per policy and capacity."""
    by = summary.groupby(["policy", "capacity_cores"], sort=False)
    return by[list(MEASURES)].mean().assign(trials=by["trial"].nunique()).reset_index()


def lost_over_the_day(minutes: pd.DataFrame) -> pd.DataFrame:
    """Mean lost utility of the cluster in trial 0, by policy, capacity and interval of the day."""
    # Leave out the last minute, because it collects all requests that arrive after the day.
    minutes = minutes[(minutes["trial"] == 0) & (minutes["minute"] < minutes["minute"].max())]
    run = ["policy", "capacity_cores"]
    keys = [minutes[name] for name in (*run, "minute")]
    lost = (1 - minutes["utility"]).groupby(keys, sort=False).sum()
    table = lost.rename("lost_utility").reset_index()
    width = -(-minutes["minute"].nunique() // MAX_POINTS)
    table["minute"] = table["minute"] // width * width
    return table.groupby([*run, "minute"], sort=False)["lost_utility"].mean().round(4).reset_index()


def chart(summary: pd.DataFrame, lost: pd.DataFrame) -> altair.VConcatChart:
    """Draw bars of the measures by policy, above lines of lost utility over the day.

    `summary` comes from `mean_by_policy`, and `lost` from `lost_over_the_day`. A click on the
    legend shows one policy alone (Shift adds more). The menu chooses the capacity. The wheel zooms
    the minutes.
    """
    import altair as alt

    alt.data_transformers.disable_max_rows()
    policies = list(dict.fromkeys(summary["policy"]))
    capacities = sorted(summary["capacity_cores"].unique().tolist(), reverse=True)
    menu = alt.binding_select(options=capacities, name="Capacity in cores: ")
    capacity = alt.param(name="capacity", bind=menu, value=capacities[len(capacities) // 2])
    shown = alt.selection_point(name="shown", fields=["policy"], bind="legend")
    colours = alt.Scale(domain=policies, range=[colour(policy, COLOURS) for policy in policies])
    legend = alt.Legend(orient="top", columns=LEGEND_COLUMNS, title="policy (click: show it alone)")

    def of_capacity(table: pd.DataFrame) -> Any:
        return (
            alt.Chart(table)
            .transform_filter("datum.capacity_cores == capacity")
            .transform_filter(shown)
        )

    tooltip: list[Any] = ["policy", alt.Tooltip("trials", title="trials")]
    tooltip += [alt.Tooltip(name, title=label, format=".3") for name, label in MEASURES.items()]
    policy_colour = alt.Color("policy", scale=colours, legend=legend)
    bars = []
    for name, label in MEASURES.items():
        bar = of_capacity(summary).mark_bar(stroke="black", strokeWidth=0.3)
        bar = bar.encode(
            x=alt.X(name, title=label),
            y=alt.Y("policy", sort=policies, title=None),
            color=policy_colour,
            tooltip=tooltip,
        )
        bars.append(bar.properties(width=WIDTH_PX // 2 - 80, height=alt.Step(16)))
    bars[0] = bars[0].add_params(shown)
    points = alt.OverlayMarkDef(opacity=0, size=40)
    lost_utility = alt.Tooltip("lost_utility", title="lost utility", format=".3")
    lines = of_capacity(lost).mark_line(strokeWidth=1.2, point=points)
    lines = lines.encode(
        x=alt.X("minute", title="minute of the day (first trial)", scale=alt.Scale(nice=False)),
        y=alt.Y("lost_utility", title=next(iter(MEASURES.values()))),
        color=policy_colour,
        tooltip=["policy", "minute", lost_utility],
    )
    zoom = alt.selection_interval(name="zoom", bind="scales", encodings=["x"])
    lines = lines.properties(width=WIDTH_PX, height=260).add_params(zoom)
    both = alt.vconcat(alt.hconcat(*bars), lines).add_params(capacity)
    both = both.configure_axis(labelFontSize=12, titleFontSize=12)
    return both.configure_legend(labelFontSize=12, titleFontSize=12)

"""Stage 81: policies on a kind cluster, and the deletion of a worker under load."""

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from faro_lib.figures.style import PAGE_IN, colour, legend_above
from studies.figures.common import EDGE
from studies.figures.drawing import Drawing, Drawings
from studies.live.agreement import LIVE
from studies.live.recovery import STEP_S, recovery_s
from studies.tables.frames import Tables, read_tables
from studies.tables.wording import and_list

# Outcome of a request -> label and colour.
OUTCOMES = {
    "in_time": ("in time", "#0072B2"),
    "slo_missed": ("SLO missed", "#EABA00"),
    "dropped": ("dropped", "#B15900"),
    "failed": ("failed", "#000000"),
}


def draw(results: Path, tables: str) -> Drawings:
    trials = read_tables(tables)
    title = "Policies on a Kubernetes node, and the deletion of a worker"
    recorded = not Path(tables).resolve().is_relative_to(Path(results).resolve())
    return {"kubernetes": Drawing(on_a_node(trials), title, node_caption(trials), recorded)}


def on_a_node(tables: Tables) -> Figure:
    """Left: violations by policy and trial.

    Right: requests and replicas around the deletion of a worker in the last run.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN, 2.4), width_ratios=(1, 2.2))
    summary = tables.summary[tables.summary["environment"] == LIVE]
    policies = list(dict.fromkeys(summary["policy"]))
    for x, policy in enumerate(policies):
        rates = summary.loc[summary["policy"] == policy, "slo_violation_rate"]
        left.bar(x, rates.mean(), 0.6, color=colour(policy), **EDGE)
        left.plot(np.full(len(rates), x), rates, "ko", markersize=3, markerfacecolor="white")
    left.set_xticks(range(len(policies)), policies)
    left.set(ylabel="SLO violation rate", ylim=(0, None))
    left.grid(axis="x", visible=False)

    run = [key for key in ("policy", "trial") if key in tables.recovery]
    last = tables.recovery.merge(tables.recovery[run].tail(1))
    labels, colours = zip(*OUTCOMES.values())
    rates_rps = [last[outcome] / STEP_S for outcome in OUTCOMES]
    areas = {"labels": labels, "colors": colours, "alpha": 0.8}
    right.stackplot(last["second"], rates_rps, step="post", **areas)
    right.axvline(last["deleted_s"].iloc[0], color="black", linestyle=":", linewidth=1)
    right.set(ylabel="requests/s", ylim=(0, None))
    right.set_xlabel("seconds; a worker is deleted at the dotted line")
    twin = right.twinx()
    dashes = {"color": "black", "linestyle": "--", "label": "replicas"}
    twin.step(last["second"], last["replicas"], where="post", **dashes)
    twin.set(ylabel="replicas that serve", ylim=(0, None))
    twin.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    twin.grid(visible=False)
    handles, names = right.get_legend_handles_labels()
    more_handles, more_names = twin.get_legend_handles_labels()
    legend_above(figure, handles + more_handles, names + more_names)
    return figure


def node_caption(tables: Tables) -> str:
    summary = tables.summary[tables.summary["environment"] == LIVE]
    by_policy = summary.groupby("policy", sort=False)["slo_violation_rate"]
    rates = [f"{100 * rates.mean():.1f} % under {policy}" for policy, rates in by_policy]
    columns = {"index": "trial", "columns": "policy", "values": "slo_violation_rate"}
    wide = summary.pivot_table(**columns, sort=False)
    lowest = wide.idxmin(axis=1)
    best = lowest.mode()[0]
    recovered_s = recovery_s(tables.recovery).dropna()
    lasted = "A deleted worker was not ready again before the load ended"
    if len(recovered_s):
        lasted = (
            f"A deleted worker was replaced and ready after {recovered_s.min():.0f} to "
            f"{recovered_s.max():.0f} s"
        )
    where = "The replicas wait instead of computing."
    if tables.about:
        about = tables.about[-1]
        machine = f"one machine of {about['processors']:g} processors"
        where = f"Ray {about['ray']} on Kubernetes {about['kubeletVersion']}, {machine}. {where}"
    return (
        f"{best} has fewest violations in {int((lowest == best).sum())} of {len(wide)} trials; the "
        f"mean violation rate is {and_list(rates)}. {lasted}; meanwhile "
        f"{int(tables.recovery['failed'].sum())} of "
        f"{int(tables.recovery[list(OUTCOMES)].sum().sum()):,} requests failed. {where}"
    )

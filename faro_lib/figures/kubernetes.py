"""On a Kubernetes node: an equal share against Faro, and a worker that is lost under load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from faro_lib.figures.style import PAGE_IN, colour, legend_above
from faro_lib.metrics.frames import Tables
from faro_lib.metrics.recovery import STEP_S, recovery_s

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = {"in_time": ("in time", "#0072B2"), "slo_missed": ("slo_missed", "#EABA00"), "dropped": ("dropped", "#B15900")}
FAILED = ("failed", "#000000")


def on_a_node(tables: Tables) -> Figure:
    """Violations of every trial by policy; requests by outcome and replicas around the loss of a worker in the last trial."""
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(PAGE_IN, 2.4), width_ratios=(1, 2.2))
    policies = list(dict.fromkeys(tables.summary["policy"]))
    for place, policy in enumerate(policies):
        rates = tables.summary.loc[tables.summary["policy"] == policy, "slo_violation_rate"]
        left.bar(place, rates.mean(), 0.6, color=colour(policy), edgecolor="black", linewidth=0.3)
        left.plot(np.full(len(rates), place), rates, "ko", markersize=3, markerfacecolor="white")
    left.set_xticks(range(len(policies)), policies)
    left.set(ylabel="SLO violation rate", ylim=(0, None))
    left.grid(axis="x", visible=False)

    last = tables.recovery[tables.recovery["trial"] == tables.recovery["trial"].max()]
    names = SHARES | {"failed": FAILED}
    rates = [last[name] / STEP_S for name in names]
    right.stackplot(
        last["second"], rates, step="post",
        labels=[label for label, _ in names.values()], colors=[shade for _, shade in names.values()], alpha=0.8,
    )  # fmt: skip
    right.axvline(last["deleted_s"].iloc[0], color="black", linestyle=":", linewidth=1)
    right.set(xlabel="seconds; a worker is deleted at the dotted line", ylabel="requests/s", ylim=(0, None))
    beside = right.twinx()
    beside.step(
        last["second"], last["replicas"], where="post", color="black", linestyle="--", label="replicas"
    )
    beside.set(ylabel="replicas that serve", ylim=(0, None))
    beside.grid(visible=False)
    handles, labels = (a + b for a, b in zip(right.get_legend_handles_labels(), beside.get_legend_handles_labels()))
    legend_above(figure, handles, labels)
    return figure


def on_a_node_caption(tables: Tables) -> str:
    """What ran on what, who violated how much in which trial, and how long the loss of a worker lasted."""
    by_policy = tables.summary.groupby("policy", sort=False)["slo_violation_rate"]
    said = ", ".join(f"{policy} {100 * rates.mean():.1f} %" for policy, rates in by_policy)
    wide = tables.summary.pivot_table(index="trial", columns="policy", values="slo_violation_rate", sort=False)
    least = wide.idxmin(axis=1)
    same = f"{least.mode()[0]} has fewest violations in {int((least == least.mode()[0]).sum())} of {len(wide)} trials"
    back = recovery_s(tables.recovery).dropna()
    lasted = (
        f"A deleted worker was replaced and ready after {back.min():.0f} to {back.max():.0f} s"
        if len(back)
        else "A deleted worker was not ready again before the load ended"
    )
    lost = int(tables.recovery["failed"].sum())
    about = tables.about[-1] if tables.about else {}
    where = (
        f"Ray {about['ray']} on Kubernetes {about['kubeletVersion']}, one node of {about['processors']} processors; "
        if about
        else ""
    )
    return (
        f"{where}Ray's head, its workers and the controllers in pods, load from outside through a Service. SLO violations: "
        f"{said}; {same}. {lasted}; {lost} of {int(tables.recovery[[*SHARES, 'failed']].sum().sum()):,} requests failed "
        "meanwhile. KubeRay's operator was a stand-in; no ranking of policies is claimed beyond this load."
    )

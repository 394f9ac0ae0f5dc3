"""The tables of docs/sharing.md."""

from __future__ import annotations

import pandas as pd

from studies.days.run import paired
from studies.sharing.slower import BELIEVES, KNOWS, LEARNS, POLICIES
from studies.sharing.slower import ISOLATED as ISOLATED_LEARNS
from studies.sharing.world import EVERYWHERE, ISOLATED, LEADER, PLACED_ONCE
from studies.tables.pages import Part
from studies.tables.paired import t_interval
from studies.tables.wording import markdown_table

LOSS = "lost_utility_published"
BINDINGS = ("late", "early")
SLO_S = 0.72  # of the live services, before it is stretched
SMALL = 0.02  # a loss that does not count beside another: about that of a perfect run
CARRIED_PCT = 1.0  # violations up to which a load counts as carried
# (policy, models per replica, router) -> its row.
ROWS = {
    (ISOLATED, 1, "late"): "Faro-Sum, isolated replicas",
    (LEADER, 2, "late"): "Faro-Sum, two models per replica",
    (LEADER, 3, "late"): "Faro-Sum, three models",
    (LEADER, 3, "early"): "Faro-Sum, three models, bound early",
    (PLACED_ONCE, 2, "late"): "placed once (as AlpaServe), two models",
    (EVERYWHERE, 10, "late"): "everything everywhere (as Clockwork)",
}


def joined(*parts: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(parts, ignore_index=True)


def of_bindings(*parts: pd.DataFrame) -> pd.DataFrame:
    """The live runs, or what they cost on the path, of all BINDINGS."""
    return joined(*(part.assign(binding=one) for one, part in zip(BINDINGS, parts)))


def table(runs: pd.DataFrame) -> str:
    """Mean lost utility and the half width of its 95 % interval over trials, by cores."""
    capacities = sorted(runs["cores"].unique(), reverse=True)
    lines = []
    for (policy, models, router), name in ROWS.items():
        chosen = (runs["policy"] == policy) & (runs["models"] == models)
        of_row = runs[chosen & (runs["router"] == router)]
        if of_row.empty:
            continue
        cells = [cell(of_row[of_row["cores"] == cores]) for cores in capacities]
        lines.append((name, of_row["trial"].nunique(), *cells))
    heads = ["lost utility of ten jobs", "trials", *(f"{cores} cores" for cores in capacities)]
    return markdown_table(heads, lines, right=heads[1:])


def cell(runs: pd.DataFrame) -> str:
    """Mean and half width over the trials of one capacity; "-" without runs."""
    if runs.empty:
        return "-"
    losses = runs.set_index("trial")[LOSS]
    mean, half = t_interval(losses, 0 * losses)
    return f"{mean:.3f}" + (f" ± {half:.3f}" if len(losses) > 1 else "")


def kinds_table(runs: pd.DataFrame) -> str:
    """Loss with isolated replicas that are not serial, and what two models per replica change."""
    lines = []
    for (kind, cores), part in runs.groupby(["kind", "cores"], sort=False):
        isolated, shared = (
            part[part["policy"] == name].set_index("trial")["lost_utility"]
            for name in (ISOLATED, LEADER)
        )
        mean, half = t_interval(shared, isolated)
        losses = (f"{isolated.mean():.3f}", f"{shared.mean():.3f}", f"{mean:+.3f} ± {half:.3f}")
        lines.append((kind, len(shared), f"{cores}", *losses))
    heads = ["replicas", "trials", "cores", "isolated", "two models", "difference"]
    return markdown_table(heads, lines, right=heads[1:])


def wide_table(blocks: pd.DataFrame) -> str:
    """A row per world: at each size, the loss of isolated replicas and with two models."""
    lines = []
    for world, part in blocks.groupby("world", sort=False):
        differences = paired(part, ISOLATED)
        of_all = differences[differences["day"] == "all"]
        cells = []
        for cores, rows in of_all.groupby("capacity_cores", sort=False):
            lost = rows.set_index("policy")["lost_utility"]
            shared = rows[rows["policy"] != ISOLATED].iloc[0]
            interval = f"{shared['low']:+.2f} to {shared['high']:+.2f}"
            of_two = f"{lost[ISOLATED]:.3f} to {shared['lost_utility']:.3f}"
            cells.append(f"{cores:g}: {of_two} ({interval})")
        lines.append((world, *cells))
    heads = ["workload", "large cluster", "middle", "small"]
    return markdown_table(heads, lines, right=heads[1:])


def slower_table(runs: pd.DataFrame) -> str:
    """Mean lost utility by slowdown and cores, a column per policy."""
    lines = []
    in_order = runs.sort_values(["slower", "cores"], ascending=[True, False], kind="stable")
    for (slower, cores), part in in_order.groupby(["slower", "cores"], sort=False):
        means = part.groupby("policy")["loss"].mean()
        losses = [f"{means[policy]:.3f}" if policy in means else "-" for policy in POLICIES]
        lines.append((f"{slower:g}", f"{cores}", part["trial"].nunique(), *losses))
    heads = ["times slower", "cores", "trials", *POLICIES]
    return markdown_table(heads, lines, right=heads)


def slower_sentence(runs: pd.DataFrame) -> str:
    """The largest loss of learning beside knowing, and beside isolated replicas."""
    mean = runs.groupby(["slower", "cores", "policy"])["loss"].mean().unstack("policy")
    slow = mean[mean.index.get_level_values("slower") > 1]
    stated = mean[mean.index.get_level_values("slower") == 1]
    shares = (slow[LEARNS] - SMALL) / slow[KNOWS]
    fewer = int((slow[LEARNS] < slow[ISOLATED_LEARNS]).sum())
    rise = stated[LEARNS] - stated[BELIEVES]
    return (
        f"Beside a loss of {SMALL:g}, learning loses at most {shares.max():.2f} times what knowing "
        f"does. It loses less than isolated replicas in {fewer} of {len(slow)} cases. As stated, "
        f"its loss minus that of believing is {rise.min():+.3f} to {rise.max():+.3f}."
    )


def live_table(runs: pd.DataFrame) -> str:
    """Violations, p99 and throughput by placement and load, live and simulated.

    Violations and throughput are of all services together; the p99, as a share of the SLO, is that
    of the slowest service. Each is the mean over trials, with the range of the live violations.
    """
    lines = []
    by = ["binding", "stretch", "placement", "factor"]
    for (binding, stretch, placement, factor), part in runs.groupby(by, sort=False):
        trials = [of_trial(one) for _, one in part.groupby("trial")]
        mean = pd.DataFrame(trials).mean()
        late = [trial["live_late_pct"] for trial in trials]
        spread = f" ({min(late):.1f} to {max(late):.1f})" if len(late) > 1 else ""
        lines.append(
            (
                f"{placement}, {binding}",
                f"{stretch:g}",
                f"{factor:.2f}",
                len(trials),
                f"{mean['live_late_pct']:.2f}{spread}",
                f"{mean['twin_late_pct']:.2f}",
                f"{mean['live_p99']:.2f}",
                f"{mean['twin_p99']:.2f}",
                f"{mean['live_rps']:.1f}",
                f"{mean['twin_rps']:.1f}",
                f"{mean['other_cpus']:.1f}",
            )
        )
    measured = ["violations live, %", "twin", "p99 / SLO live", "twin", "requests/s live", "twin"]
    heads = ["placement, binding", "stretch", "load", "trials", *measured, "CPUs of others"]
    return markdown_table(heads, lines, right=heads[1:])


def of_trial(services: pd.DataFrame) -> dict[str, float]:
    """The measures of one run, from its rows, one per service."""
    share = services["requests"] / services["requests"].sum()
    measured = {"other_cpus": services["other_cpus"].iloc[0]}
    slo_s = SLO_S * services["stretch"].iloc[0]
    for where in ("live", "twin"):
        measured |= {
            f"{where}_late_pct": float((share * services[f"{where}_late_pct"]).sum()),
            f"{where}_p99": float(services[f"{where}_p99_s"].max() / slo_s),
            f"{where}_rps": float(services[f"{where}_rps"].sum()),
        }
    return measured


def path_table(costs: pd.DataFrame, runs: pd.DataFrame) -> str:
    """What a request costs on its path, and the load that each placement carries."""
    lines = []
    for _, one in costs.iterrows():
        binding = one["binding"]
        own = runs[runs["binding"] == binding]
        loads_carried = ("-", "-", "-")
        if own["factor"].nunique() > 1:  # with a single load, nothing is known about others
            ours, theirs = carried(own, "two models"), carried(own, "isolated")
            ratio = f"{ours / theirs:.2f}" if theirs else "-"
            loads_carried = (f"{theirs:.2f}", f"{ours:.2f}", ratio)
        lines.append(
            (
                binding,
                f"{one['outside_ms']:.0f}",
                f"{one['inside_ms']:.0f}",
                f"{own['gateway_cpu_ms'].mean():.0f}",
                *loads_carried,
            )
        )
    path = [
        "ms before and after the replica",
        "ms in it besides the service",
        "CPU ms of the gateway",
    ]
    loads = ["carried load, isolated", "two models", "ratio"]
    heads = ["binding", *path, *loads]
    return markdown_table(heads, lines, right=heads[1:])


def carried(runs: pd.DataFrame, placement: str) -> float:
    """Largest load that was tried, up to which at most CARRIED_PCT of the requests are violations.

    0 if even the smallest one violates more.
    """
    of_placement = runs[runs["placement"] == placement]
    most = 0.0
    for factor, part in of_placement.groupby("factor"):
        trials = pd.DataFrame([of_trial(one) for _, one in part.groupby("trial")])
        if trials["live_late_pct"].mean() > CARRIED_PCT:
            break
        most = float(factor)
    return most


def kind_table(shared: pd.DataFrame, isolated: pd.DataFrame) -> str:
    """A row per trial on the kind cluster: isolated and shared replicas, live and simulated.

    The path's time is what a request takes beside the service and the wait: in the replica, and
    before and after it.
    """
    lines = []
    for trial in sorted(shared["trial"].unique()):
        cells = []
        for runs in (isolated, shared):
            same = runs[(runs["trial"] == trial) & (runs["policy"] == LEADER)]
            by_place = same.set_index("environment")
            for column, form in (("lost_utility", "{:.2f}"), ("slo_violation_rate", "{:.1%}")):
                live, twin = (by_place.loc[place, column] for place in ("live", "simulation"))
                cells.append(f"{form.format(live)} ({form.format(twin)})")
            of_path = by_place.loc["live", ["overhead_s", "network_overhead_s"]]
            cells.append(f"{1e3 * of_path.sum():.0f} ms")
        lines.append([int(trial), *cells])
    heads = ["lost, isolated", "violations", "path", "lost, four share", "violations", "path"]
    return markdown_table(["trial", *heads], lines, right=heads)


PAGE = "docs/sharing.md"


def files(*names: str) -> list[str]:
    return [f"data/recorded-sharing/{name}.csv" for name in names]


LIVE = files(*(f"live-{binding}" for binding in BINDINGS))
COSTS = files(*(f"live-{binding}-path" for binding in BINDINGS))
ON_KIND = [*files("kind"), "data/recorded-kubernetes/summary.csv"]
PARTS = [
    Part(PAGE, "losses", files("faro", "early", "rivals"), lambda *runs: table(joined(*runs))),
    Part(PAGE, "wide", files("wide"), wide_table),
    Part(PAGE, "kinds", files("kinds"), kinds_table),
    Part(PAGE, "slower", files("slower"), slower_table),
    Part(PAGE, "slower finding", files("slower"), slower_sentence),
    Part(PAGE, "live", LIVE, lambda *runs: live_table(of_bindings(*runs))),
    Part(
        PAGE,
        "path",
        [*COSTS, *LIVE],
        lambda *tables: path_table(of_bindings(*tables[:2]), of_bindings(*tables[2:])),
    ),
    Part(PAGE, "kind", ON_KIND, kind_table),
]

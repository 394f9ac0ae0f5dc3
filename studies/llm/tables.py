"""The tables and the figure of docs/llm.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from faro_lib.figures.style import CYCLE, PAGE_IN, legend_above
from faro_lib.metrics.paired import unit_interval
from studies.arrivals.world import AT_RANDOM, FITTED, TRUE
from studies.llm.azure import LOGGED, LOGNORMAL, REPLAYED, STEPS
from studies.llm.bounds import BOUND, CLAIRVOYANT
from studies.llm.rivals import FARO, LLM_RIVALS, VARIANTS
from studies.tables.pages import Part, Picture, content
from studies.tables.wording import markdown_table

(LEADER,) = FARO
POLICIES = (LEADER, *LLM_RIVALS)
NO_SETTINGS = ["rates", "rival", "capacity_cores", "missed", "chosen", "at_edge"]
TARGET = 2 / 3  # of the best rival's misses
AGREES = 0.15
MORE_RUNS = ("ablation", "bounds")  # of the requests of the table `compare`


def recorded(name: str) -> str:
    return f"data/recorded-llm/{name}.csv"


def table(name: str) -> pd.DataFrame:
    """A recorded table; those of MORE_RUNS have the rows of `compare`, too."""
    rows = content(recorded(name))
    return pd.concat([table("compare"), rows], ignore_index=True) if name in MORE_RUNS else rows


def shares(runs: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Share of requests that miss their SLO, a column per policy."""
    sums = runs.groupby([*by, "policy"])[["missed", "requests"]].sum()
    return (sums["missed"] / sums["requests"]).unstack()


def ratio(row: pd.Series) -> float:
    """Faro's share of missed requests, as a part of the best rival's."""
    return float(row[LEADER] / row[list(LLM_RIVALS)].min())


def missed_table(runs: pd.DataFrame) -> str:
    """A row per size and day, and per size on all days."""
    of_days = shares(runs, ["capacity_cores", "day"])
    of_all = shares(runs, ["capacity_cores"])
    rows: list[tuple[object, ...]] = []
    for capacity in sorted(runs["capacity_cores"].unique(), reverse=True):
        days = [*of_days.loc[capacity].iterrows(), ("all", of_all.loc[capacity])]
        for day, row in days:
            cells = (f"{row[name]:.1%}" for name in POLICIES)
            rows.append((capacity, day, *cells, f"{ratio(row):.2f}"))
    heads = ["replicas", "day", *POLICIES, "Faro / best rival"]
    return markdown_table(heads, rows, right=[heads[0], *heads[2:]])


def finding(runs: pd.DataFrame) -> str:
    """On how many days and sizes the target is met."""
    of_days = shares(runs, ["capacity_cores", "day"])
    sentences = []
    for capacity in sorted(runs["capacity_cores"].unique(), reverse=True):
        ratios = [ratio(row) for _, row in of_days.loc[capacity].iterrows()]
        met = sum(one <= TARGET for one in ratios)
        less = sum(one < 1 for one in ratios)
        sentences.append(
            f"With {capacity} replicas, Faro misses fewer requests than the best rival of the day "
            f"on {less} of {len(ratios)} days, and at most two thirds as many on {met}."
        )
    return " ".join(sentences)


def against(part: pd.DataFrame, rival: str, share: float = 1.0) -> str:
    """Faro's missed share minus `share` of a policy's, in points, with its interval over blocks.

    Days are strata.
    """
    missed = part.pivot(index=["day", "start_min"], columns="policy", values="missed")
    requests = part[part["policy"] == LEADER].set_index(["day", "start_min"])["requests"]
    of_block = (missed[LEADER] - share * missed[rival]).unstack().to_numpy()
    return _interval(unit_interval(of_block[:, None], requests.unstack().to_numpy()[:, None]))


def differences(runs: pd.DataFrame) -> Iterator[tuple[int, str, pd.Series, str, str]]:
    """By size: the best rival, all shares, and Faro minus the rival and minus TARGET of it.

    The best rival is the one with the fewest misses on all judged days.
    """
    of_all = shares(runs, ["capacity_cores"])
    for capacity, part in reversed(list(runs.groupby("capacity_cores"))):
        rival = str(of_all.loc[capacity, list(LLM_RIVALS)].idxmin())
        intervals = against(part, rival), against(part, rival, TARGET)
        yield capacity, rival, of_all.loc[capacity], *intervals


def difference_table(runs: pd.DataFrame) -> str:
    """Faro minus each size's best rival, and minus TARGET of it."""
    rows = [(capacity, rival, *intervals) for capacity, rival, _, *intervals in differences(runs)]
    heads = ["replicas", "best rival", "Faro - rival (95 %)", "Faro - 2/3 of the rival (95 %)"]
    return markdown_table(heads, rows, right=[heads[0], *heads[2:]])


def ablation_table(runs: pd.DataFrame) -> str:
    """What variants of Faro miss, beside Faro."""
    of_all = shares(runs, ["capacity_cores"])
    rows = []
    for capacity, part in reversed(list(runs.groupby("capacity_cores"))):
        rows.append((capacity, LEADER, f"{of_all.loc[capacity, LEADER]:.1%}", ""))
        for name in VARIANTS:
            missed = f"{of_all.loc[capacity, name]:.1%}"
            rows.append((capacity, name, missed, against(part, name)))
    heads = ["replicas", "policy", "missed", "Faro - this policy (95 %)"]
    return markdown_table(heads, rows, right=[heads[0], *heads[2:]])


def allowed(runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` in which a policy drops requests at sizes at which that helped on training days."""
    without = missed_on_training()
    with_drops = shares(table("drops-training"), ["capacity_cores"]).stack()
    helps = with_drops < without.reindex(with_drops.index)
    of_drops, key = table("drops"), ["capacity_cores", "policy"]
    dropped = pd.MultiIndex.from_frame(of_drops[key]).map(helps)
    replaced = pd.MultiIndex.from_frame(runs[key]).map(helps)
    return pd.concat([runs[~replaced.astype(bool)], of_drops[dropped.astype(bool)]])


def missed_on_training() -> pd.Series:
    """What policies miss on training days with the chosen settings, by capacity and policy."""
    tried = table("tuning")
    rates = tried[tried["rival"].isin(FARO)]["rates"].iloc[0]
    chosen = tried[tried["chosen"] & (tried["rates"] == rates)]
    return chosen.set_index(["capacity_cores", "rival"])["missed"]


def with_drops(runs: pd.DataFrame) -> pd.DataFrame:
    """What the best rivals and Faro miss if they may drop requests, by size and day."""
    rivals, by = list(LLM_RIVALS), ["capacity_cores", "day"]
    of_drops = shares(allowed(runs), by)
    found = pd.DataFrame(
        {
            "Faro": of_drops[LEADER],
            "rival": shares(runs, by)[rivals].min(axis=1),
            "dropping": of_drops[rivals].min(axis=1),
        }
    )
    return found.sort_index(ascending=[False, True])


def drops_table(runs: pd.DataFrame) -> str:
    """A row per size and day."""
    rows = []
    for (capacity, day), row in with_drops(runs).iterrows():
        shown = (f"{row[name]:.1%}" for name in ("Faro", "rival", "dropping"))
        ratios = (f"{row['Faro'] / row[name]:.2f}" for name in ("rival", "dropping"))
        rows.append((capacity, day, *shown, *ratios))
    heads = ["replicas", "day", LEADER, "best rival, as documented", "best rival, may drop"]
    heads += ["Faro / as documented", "Faro / may drop"]
    return markdown_table(heads, rows, right=[heads[0], *heads[2:]])


def drops_finding(runs: pd.DataFrame) -> str:
    """On how many days and sizes Faro meets the target, if it may drop requests."""
    found = with_drops(runs)
    documented = (found["Faro"] <= TARGET * found["rival"]).sum()
    dropping = (found["Faro"] <= TARGET * found["dropping"]).sum()
    fewer = (found["Faro"] < found["dropping"]).sum()
    return (
        f"If Faro may drop requests, it meets the target on {documented} of {len(found)} pairs of "
        f"day and size against rivals as documented, and on {dropping} against rivals that may "
        f"drop by Faro's tables. It misses fewer requests than the best of the latter on {fewer}."
    )


def reach(runs: pd.DataFrame) -> str:
    """On how many days and sizes the target is met, and where the bound is beyond it."""
    of_days = shares(runs, ["capacity_cores", "day"])
    target = TARGET * of_days[list(LLM_RIVALS)].min(axis=1)
    met, beyond = of_days[LEADER] <= target, of_days[BOUND] > target
    foreseen = of_days[CLAIRVOYANT] <= target
    sentence = (
        f"Faro meets the target on {met.sum()} of {len(met)} pairs of day and size, and Faro that "
        f"knows the coming minutes on {foreseen.sum()}."
    )
    if not beyond.any():
        return f"{sentence} The bound is below the target on all of them."
    where = [f"day {day} with {capacity} replicas" for capacity, day in of_days.index[beyond]]
    return f"{sentence} The bound is above the target on {', '.join(where)}."


def azure_finding(rows: pd.DataFrame) -> str:
    """How many of the sizes without drops are within 15 %."""
    kept = rows[np.isfinite(rows["second_s"])]
    sentences = []
    for name, part in kept.groupby("service"):
        simulated = (part["simulated_s"] / part["second_s"] - 1).abs() <= AGREES
        predicted = (part["predicted_minutes_s"] / part["second_minutes_s"] - 1).abs() <= AGREES
        sentences.append(
            f"Of the {len(part)} sizes of `{name}` at which at most 1 % of the second half hour's "
            f"requests are dropped, the simulation is within 15 % at {simulated.sum()}, and the "
            f"prediction at {predicted.sum()}."
        )
    return " ".join(sentences)


def step_errors(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The error of p99 after each step but the replay, at sizes whose replay drops at most 1 %."""
    by_step = rows.pivot(index=["service", "replicas"], columns="step", values=column)
    by_step = by_step[np.isfinite(by_step[REPLAYED])]
    return by_step[list(STEPS[:-1])].div(by_step[REPLAYED], axis=0) - 1


def azure_steps_finding(rows: pd.DataFrame) -> str:
    """The largest errors with lognormal lengths and with the log's quantiles."""
    errors = pd.concat([step_errors(rows, column) for column in ("p99_s", "minutes_s")])
    errors = errors[np.isfinite(errors[LOGNORMAL])].abs()
    largest = errors.groupby("service").max()
    return " ".join(
        f"At the sizes of `{service}` without drops, the largest error is {row[LOGNORMAL]:.0%} "
        f"with lognormal lengths, and {row[LOGGED]:.0%} with the quantiles of the log."
        for service, row in largest.iterrows()
    )


def azure_planners_finding(rows: pd.DataFrame) -> str:
    """Where the assumption loses, and how much of it the fitted bursts recover."""
    both = [
        (missed_less(part, TRUE), missed_less(part, FITTED)) for _, part in judged_planners(rows)
    ]
    recovered = [saved[0] / lost[0] for lost, saved in both if lost[1] > 0]
    if not recovered:
        return f"In none of the {len(both)} rows, the interval of the loss is above zero."
    shares = ", ".join(f"{share:.0%}" for share in recovered)
    return (
        f"In {len(recovered)} of {len(both)} rows, the interval of the loss is above zero. There, "
        f"the fitted bursts recover {shares} of it."
    )


def judged_planners(rows: pd.DataFrame) -> Iterator[tuple[tuple, pd.DataFrame]]:
    """The rows of each capacity and forecast on the second half."""
    judged = rows[rows["half"] == 2].sort_values("capacity_cores", ascending=False, kind="stable")
    return iter(judged.groupby(["capacity_cores", "forecast"], sort=False))


def missed_less(part: pd.DataFrame, planner: str) -> tuple[float, float, float]:
    """By how much a planner misses less than the one that assumes random times, per request.

    With its interval over trials.
    """
    missed = part.pivot(index="trial", columns="planner", values="missed")
    requests = part[part["planner"] == planner].set_index("trial")["requests"]
    less = (missed[AT_RANDOM] - missed[planner]).to_numpy()
    return unit_interval(less[None, None], requests.to_numpy()[None, None])


def _interval(of: tuple[float, float, float]) -> str:
    mean, low, high = of
    return f"{100 * mean:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"


TABLES = {
    "finding": ("compare", finding),
    "missed": ("compare", missed_table),
    "differences": ("compare", difference_table),
    "drops": ("compare", drops_table),
    "drops finding": ("compare", drops_finding),
    "ablation": ("ablation", ablation_table),
    "reach": ("bounds", reach),
    "azure finding": ("azure", azure_finding),
    "azure steps finding": ("azure-steps", azure_steps_finding),
    "azure planners finding": ("azure-planners", azure_planners_finding),
}


def missed_figure(runs: pd.DataFrame) -> Figure:
    """The share of requests that miss their SLO by day, a panel per size."""
    of_days = shares(runs, ["capacity_cores", "day"])
    sizes = sorted(runs["capacity_cores"].unique(), reverse=True)
    figure, axes = plt.subplots(1, len(sizes), figsize=(PAGE_IN, 2.6), squeeze=False, sharey=True)
    for axis, capacity in zip(axes[0], sizes):
        part = of_days.loc[capacity]
        for name, color, marker in zip(POLICIES, ("black", *CYCLE), "os^Dvph"):
            line = {"color": color, "marker": marker, "markersize": 4, "label": name}
            axis.plot(part.index.astype(str), 100 * part[name], **line)
        axis.set_title(f"{capacity} replicas", loc="left")
        axis.set_xlabel("day")
    axes[0][0].set_ylabel("requests that miss (%)")
    axes[0][0].set_ylim(bottom=-2)  # below 0, because a marker there would be cut
    handles, labels = axes[0][0].get_legend_handles_labels()
    legend_above(figure, handles, labels, columns=3)
    return figure


def part(name: str, file: str, of: Callable[[pd.DataFrame], str]) -> Part:
    files = [recorded(one) for one in ({file, "compare"} if file in MORE_RUNS else {file})]
    return Part("docs/llm.md", name, files, lambda *_: of(table(file)))


PARTS = [part(name, *declared) for name, declared in TABLES.items()]
PICTURES = [Picture("docs/images/llm.png", [recorded("compare")], missed_figure)]

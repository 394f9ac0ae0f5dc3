"""What each figure says, computed from the tables it is drawn from; and the figures with their captions as files."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from faro_lib.figures.comparison import told_apart
from faro_lib.figures.style import save

NONE_PUBLISHED = "No published values are at hand for this workload."
PUBLISHED_NAMES = {"MArk/Cocktail/Barista": "MArk"}


def published_main(directory: str | Path, environment: str = "simulation") -> pd.DataFrame:
    """The published comparison: columns policy, replicas, lost_utility, slo_violation_rate, lost_effective_utility.

    The published Faro objectives stand beside both editions of ours.
    """
    table = pd.read_csv(Path(directory) / "published_main.csv")
    table = table[table["env"] == environment].replace({"system": PUBLISHED_NAMES})
    table = table.rename(
        columns={
            "system": "policy",
            "lost_cluster_utility_mean": "lost_utility",
            "slo_violation_rate_mean": "slo_violation_rate",
            "lost_effective_utility_mean": "lost_effective_utility",
        }
    )
    faro = table[table["policy"].str.startswith("Faro")]
    editions = faro.assign(policy=faro["policy"] + " (paper)")
    columns = ["policy", "capacity_cores", "lost_utility", "slo_violation_rate", "lost_effective_utility"]
    return pd.concat([table, editions], ignore_index=True)[columns]


def policies_by_size(summary: pd.DataFrame, limit: pd.DataFrame, published: pd.DataFrame | None) -> str:
    trials = summary.groupby(["policy", "capacity_cores"])["trial"].nunique().min()
    said = []
    for size, part in summary.groupby("capacity_cores", sort=False):
        mean = part.groupby("policy")["lost_utility"].mean().sort_values()
        floor = limit.loc[limit["capacity_cores"] == size, "lost_utility"].mean()
        least, most = mean.iloc[0], mean.iloc[-1]
        said.append(
            f"at {size:g} replicas {mean.index[0]} loses least, {least:.2f} (limit {floor:.2f}, worst {most:.2f})"
        )
    text = (
        f"Lost cluster utility and SLO violation rate, mean of {trials} trial{'s' if trials > 1 else ''}, "
        "whiskers one standard deviation: " + "; ".join(said)
    )
    return text + ". " + ("Diamonds are the published values." if published is not None else NONE_PUBLISHED)


def spread_over_jobs(minutes: pd.DataFrame) -> str:
    utility = minutes.groupby(["capacity_cores", "policy", "job"])["utility"].mean()
    worst = utility.groupby(["capacity_cores", "policy"]).min().unstack("capacity_cores")
    said = [
        f"{size:g} replicas, {worst[size].idxmax()} ({worst[size].max():.2f})" for size in sorted(worst, reverse=True)
    ]
    return (
        f"Each job's mean lost utility; last, under the clairvoyant. The worst-off job fares best under: {'; '.join(said)}. "
        f"{NONE_PUBLISHED}"
    )


def policy_timeline(minutes: pd.DataFrame, size: float) -> str:
    minutes = minutes[minutes["policy"].isin(told_apart(minutes["policy"]))]
    lost = (1 - minutes["utility"]).groupby(minutes["policy"], sort=False).sum() / minutes["minute"].nunique()
    return (
        f"Utility lost over the day at {size:g} replicas and the replicas that serve (dotted: capacity; dashed: the "
        f"clairvoyant), one trial; from {lost.min():.2f} on average under {lost.idxmin()} to {lost.max():.2f} under "
        f"{lost.idxmax()}. {NONE_PUBLISHED}"
    )


def job_timelines(policies: list[str], size: float) -> str:
    return (
        f"Replicas of each job (line) and its lost utility (shade) at {size:g} replicas under the policy that loses most, "
        f"{policies[0]}, and the one that loses least, {policies[-1]}; thin and red, the replicas that the clairvoyant gives "
        f"it minute by minute. {NONE_PUBLISHED}"
    )


def save_all(captioned: dict, directory: str | Path, stage: str = "") -> None:
    """Write every figure, then its caption into captions-<stage>.json (one file a stage, since stages run at once).

    Parameters
    ----------
    captioned : name -> (Figure, caption); a caption may be an IPython Markdown object, whose marks are dropped.
    """
    directory = Path(directory)
    for name, (figure, _) in captioned.items():
        save(figure, directory, name)
    path = directory / (f"captions-{stage}.json" if stage else "captions.json")
    plain = {
        name: getattr(caption, "data", caption).replace("**", "").replace("`", "")
        for name, (_, caption) in captioned.items()
    }
    path.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n")

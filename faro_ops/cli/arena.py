"""`faro arena`: score policies on scenarios (docs/arena.md)."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from faro_ops.cli.shared import option
from faro_ops.log import say

MAX_SEED = 2**31 - 1
arena = typer.Typer(
    help="Score policies on versioned scenarios (docs/arena.md).", no_args_is_help=True
)


@arena.command()
def run(
    policy: Annotated[
        str, typer.Argument(help="Python file that registers policies, or a policy's name.")
    ],
    scenario: Annotated[
        list[str] | None, option("Scenario; repeatable.", default="the quick set")
    ] = None,
    every: Annotated[bool, option("All scenarios; some need `make data`.", "--all")] = False,
    hidden_seed: Annotated[
        int | None, option("Repeat a score.", default="drawn", maximum=MAX_SEED)
    ] = None,
    public: Annotated[
        bool, option("Only the public seeds, for tuning; no entry.", "--public")
    ] = False,
    against: Annotated[
        str | None, option("Compare with it: a policy, its file, or a score's JSON.")
    ] = None,
    out: Annotated[
        str | None, option("Write the JSON to this file.", default="standard output")
    ] = None,
) -> None:
    """Score a policy on each scenario with a public and a hidden seed.

    The scores are one JSON object. A policy that fails once has no score.
    """
    from faro_lib.files import atomic_write
    from faro_ops.advise.arena.scenarios import scenario_of, scenarios
    from faro_ops.advise.arena.scoring import compared, policy_of, score
    from faro_ops.files import check_writable

    if public and hidden_seed is not None:
        raise ValueError(
            "--public leaves the hidden seed out, and --hidden-seed sets it; give one of them"
        )
    rival = None
    if against and against.endswith(".json"):
        rival = read_score(against)
        hidden_seed = same_seed(hidden_seed, rival, against)
    entries = [policy] if rival or not against else [policy, against]
    name_of = {entry: policy_of(entry) for entry in entries}  # a wrong name ends the command here
    names = scenario or [one.name for one in scenarios().values() if every or one.quick]
    for name in names:
        scenario_of(name)
    if out:
        check_writable(out)

    def scored_of(entry: str, hidden_seed: int | None) -> dict[str, Any]:
        file = entry if entry.endswith(".py") else None
        return score(name_of[entry], names, hidden_seed, public_only=public, file=file, report=say)

    scored = scored_of(policy, hidden_seed)
    if against:
        rival = rival or scored_of(against, scored["hidden_seed"])
        scored["against"] = compared(scored, rival)
        say_difference(scored)
    text = json.dumps(scored, indent=1)
    if out:
        with atomic_write(Path(out)) as partial:
            partial.write_text(text + "\n")
    if not out:
        print(text)
    elif public:
        print("only public seeds, so this is no entry")
    else:
        print(f"hidden seed: {scored['hidden_seed']}")


def read_score(path: str) -> dict[str, Any]:
    """The JSON that an earlier `faro arena run` wrote."""
    try:
        scored = json.loads(Path(path).read_text())
        entry = {name: scored[name] for name in ("policy", "file", "sha256", "hidden_seed")}
        return entry | {"scenarios": list(scored["scenarios"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a score; expected the JSON of `faro arena run`") from error


def same_seed(hidden_seed: int | None, rival: dict[str, Any], path: str) -> int | None:
    """The hidden seed of the score to compare with, because both must serve the same requests."""
    if hidden_seed not in (None, rival["hidden_seed"]):
        raise ValueError(
            f"--hidden-seed {hidden_seed}: {path} has the hidden seed {rival['hidden_seed']}; "
            "leave the option out"
        )
    return rival["hidden_seed"]


def say_difference(scored: dict[str, Any]) -> None:
    """A line per scenario and one for all: the regret minus that of the other entry."""
    against = scored["against"]
    if against["sha256"]["library"] != scored["sha256"]["library"]:
        say(f"{against['policy']} was scored with another version of the library")
    rows = against["scenarios"] | {"all scenarios": against}
    for name, row in rows.items():
        interval = f"{row['low']:+.2%} to {row['high']:+.2%}"
        difference = f"{row['difference']:+.2%} ({interval})"
        say(f"{scored['policy']} minus {against['policy']} in {name}: regret {difference}")

"""`faro arena`: score policies on the scenarios of the arena."""

import json
from typing import Annotated

import typer

from faro_lib.cli.shared import option, say

arena = typer.Typer(help="Score policies on versioned scenarios (docs/arena.md).", no_args_is_help=True)


@arena.command()
def run(
    policy: Annotated[str, typer.Argument(help="Python file that registers policies, or a policy's name.")],
    scenario: Annotated[list[str] | None, option("Scenario; repeatable.", default="the quick set")] = None,
    every: Annotated[bool, option("All scenarios; some need `make data`.", "--all")] = False,
    hidden_seed: Annotated[int | None, option("Repeat a score with its hidden seed.", default="drawn")] = None,
    out: Annotated[str | None, option("Write the JSON to this file.", default="standard output")] = None,
) -> None:
    """Score a policy on each scenario with a public and a hidden seed; print or write one JSON object."""
    from pathlib import Path

    from faro_lib.arena.scenarios import scenario_of, scenarios
    from faro_lib.arena.scoring import policies_of, score
    from faro_lib.files import atomic_write, check_writable
    from faro_lib.policies import factory_of

    names = scenario or [one.name for one in scenarios().values() if every or one.quick]
    for name in names:
        scenario_of(name)
    if out:
        check_writable(out)
    if len(entries := policies_of(policy)) > 1:
        raise ValueError(f"{policy}: registers {len(entries)} policies ({', '.join(entries)}); one file is one entry")
    factory_of(entries[0])
    scored = score(entries[0], names, hidden_seed, file=policy if policy.endswith(".py") else None, report=say)
    text = json.dumps(scored, indent=1)
    if out:
        with atomic_write(Path(out)) as partial:
            partial.write_text(text + "\n")
    print(f"hidden seed: {scored['hidden_seed']}" if out else text)

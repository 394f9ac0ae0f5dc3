"""`faro arena`: score policies on scenarios (docs/arena.md)."""

import json
from pathlib import Path
from typing import Annotated

import typer

from faro_ops.cli.shared import option, say

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
    out: Annotated[
        str | None, option("Write the JSON to this file.", default="standard output")
    ] = None,
) -> None:
    """Score a policy on each scenario with a public and a hidden seed.

    The scores are one JSON object.
    """
    from faro_lib.files import atomic_write
    from faro_ops.arena.scenarios import scenario_of, scenarios
    from faro_ops.arena.scoring import policy_of, score
    from faro_ops.files import check_writable

    if public and hidden_seed is not None:
        raise ValueError(
            "--public leaves the hidden seed out, and --hidden-seed sets it; give one of them"
        )
    names = scenario or [one.name for one in scenarios().values() if every or one.quick]
    for name in names:
        scenario_of(name)
    if out:
        check_writable(out)
    file = policy if policy.endswith(".py") else None
    scored = score(policy_of(policy), names, hidden_seed, public_only=public, file=file, report=say)
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

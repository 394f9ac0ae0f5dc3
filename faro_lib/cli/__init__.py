"""The command line, one module a command; what the user did wrong is one line and exit status 2."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from faro_lib import __version__
from faro_lib.cli.explain import explain
from faro_lib.cli.manifests import manifests
from faro_lib.cli.profile import profile
from faro_lib.cli.recommend import recommend
from faro_lib.cli.run import run
from faro_lib.cli.simulate import simulate
from faro_lib.errors import message_of

app = typer.Typer(name="faro")


@app.callback(invoke_without_command=True)
def faro(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """SLO-aware autoscaling of many ML inference jobs that share one fixed cluster.

    Exit status: 0; 2 bad input, message_of in one line; 130 interrupted.
    """
    if version:
        print(f"faro {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


for command in (simulate, recommend, run, explain, profile, manifests):
    app.command()(command)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; what the user did wrong is one line on standard error, and exit status 2."""
    try:
        status = app(arguments, standalone_mode=False)
        return status if isinstance(status, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as mistake:
        said = _usage(mistake) if hasattr(mistake, "format_message") else message_of(mistake)
        if said is None:  # ours to mend, so its traceback is wanted
            raise
        text = said
    print(f"faro: {' '.join(text.removeprefix('config: ').split())}", file=sys.stderr)
    return 2


def _usage(mistake) -> str:
    """What is wrong with the words of a command, and where all of them stand."""
    command = mistake.ctx.info_name if mistake.ctx is not None and mistake.ctx.parent is not None else None
    return f"{mistake.format_message()} All that is accepted: faro {f'{command} ' if command else ''}--help"

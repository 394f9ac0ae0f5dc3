"""The command `faro`: its subcommands, its help, and how its errors are printed."""

import sys
from typing import Annotated

import typer

from faro_lib import __version__
from faro_ops.cli.arena import arena
from faro_ops.cli.audit import audit
from faro_ops.cli.deploy import deploy
from faro_ops.cli.explain import explain
from faro_ops.cli.export import export
from faro_ops.cli.freeze import freeze, thaw
from faro_ops.cli.gpus import gpus
from faro_ops.cli.manifests import manifests
from faro_ops.cli.profile import profile
from faro_ops.cli.recommend import recommend
from faro_ops.cli.replay import replay
from faro_ops.cli.restore import restore
from faro_ops.cli.run import run
from faro_ops.cli.set import set_job
from faro_ops.cli.shadow import shadow
from faro_ops.cli.simulate import simulate
from faro_ops.cli.trust import trust
from faro_ops.errors import message_of, one_line

COMMANDS = (
    simulate,
    recommend,
    audit,
    deploy,
    run,
    explain,
    replay,
    shadow,
    trust,
    export,
    restore,
    freeze,
    thaw,
    profile,
    gpus,
    manifests,
)

app = typer.Typer(name="faro")
for command in COMMANDS:
    app.command()(command)
app.command("set")(set_job)
app.add_typer(arena, name="arena")


@app.callback(invoke_without_command=True)
def faro(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """SLO-aware autoscaling of ML inference jobs that share a fixed-size cluster.

    Exit status: 0 success; 2 invalid input (one line says why); 130 interrupted.
    """
    if version:
        print(f"faro {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


def exit_status(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status. User errors print one line to stderr."""
    try:
        status = app(arguments, standalone_mode=False)
        return status if isinstance(status, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        text = _usage(error) if hasattr(error, "format_message") else message_of(error)
        if text is None:  # not a user's error but a bug in Faro: keep the traceback
            raise
    text = text.removeprefix("config: ")
    print(one_line(f"faro: {text}"), file=sys.stderr)
    return 2


def _usage(error) -> str:
    """The message of a usage error, such as an unknown option, and where all options are listed."""
    text = error.format_message()
    context = error.ctx
    if context is None:
        return f"{text} All options: faro --help"
    command = f"faro {context.info_name}" if context.parent is not None else "faro"
    return f"{text} All options: {command} --help"

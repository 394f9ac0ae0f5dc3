"""The command line `faro`, one module per command; `app.py` lists the commands."""

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status.

    If a package of the operator's installation is missing, print how to install it.
    """
    try:
        from faro_ops.cli.app import exit_status
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("faro_lib", "faro_ops"):  # a bug in Faro: keep the traceback
            raise
        print(f"faro: {package} is not installed: pip install 'faro_lib[ops]'", file=sys.stderr)
        return 2
    return exit_status(arguments)

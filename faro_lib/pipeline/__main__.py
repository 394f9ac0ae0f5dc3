"""`python -m faro_lib.pipeline notebook ...` is what the rules run, `... fetch [NAME...]` what `make data` runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from faro_lib.errors import message_of
from faro_lib.pipeline.fetch import fetch
from faro_lib.pipeline.notebook import NotebookError, run_notebook

MISTAKES = Path(".snakemake/errors")  # what went wrong in the stages of this run; message_of again at its end


def notebook(source: str, output: str, parameters: str, log: str, threads: str = "1") -> int:
    """Run one stage in a process of its own, so that Ctrl-C reaches it at once. `parameters` is a JSON object."""
    values = json.loads(parameters)
    if "results" in values:  # the folder above notebooks/, wherever that lies: jobs without a shared disk get copies
        values["results"] = str(Path(output).parents[1])
    try:
        run_notebook(source, output, values, log, threads=int(threads))
    except NotebookError as error:
        print(error, file=sys.stderr)
        with suppress(OSError), MISTAKES.open("a") as file:
            file.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        print(f"{source}: interrupted", file=sys.stderr)
        return 130
    return 0


def fetch_all(*names: str) -> int:
    """Fetch the published data, or take what lies there, and say where it is."""
    try:
        for name in names or ["faro-10jobs"]:
            for path in fetch(name):
                print(path)
    except (OSError, ValueError) as error:
        print(f"fetch: {message_of(error)}", file=sys.stderr)
        return 2
    return 0


COMMANDS: dict[str, Callable[..., int]] = {"notebook": notebook, "fetch": fetch_all}

if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    sys.exit(COMMANDS[what](*arguments))

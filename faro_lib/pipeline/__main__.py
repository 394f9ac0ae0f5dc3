"""The commands that the rules run: `python -m faro_lib.pipeline COMMAND ...`. An error is one line and exit status 2.

Each runs in its own process, so that Ctrl-C reaches it at once. The folder of the results is derived from the path of the
output, as jobs that share no disk work on copies.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from faro_lib.errors import message_of
from faro_lib.pipeline.fetch import checksums, fetch
from faro_lib.pipeline.notebook import NotebookError, run_notebook

ERRORS = Path(".snakemake/errors")  # the messages of this run, which the Snakefile repeats at its end


def notebook(source: str, output: str, parameters: str, log: str, threads: str = "1") -> None:
    """Run one notebook; `parameters` is a JSON object."""
    values = json.loads(parameters)
    if "results" in values:
        values["results"] = str(Path(output).parents[1])
    run_notebook(source, output, values, log, threads=int(threads))


def draw(stage: str, captions: str, options: str) -> None:
    """Draw the figures of one stage from its tables and write them next to the file `captions`."""
    from faro_lib.figures import save_all, use_style

    use_style()
    module = importlib.import_module(f"faro_lib.figures.{stage}")
    save_all(module.draw(Path(captions).parents[1], **json.loads(options)), captions)


def join(output: str, *inputs: str) -> None:
    """Join the tables of several capacities, each in its folder, into one set in the folder of `output`."""
    from faro_lib.metrics.frames import gather

    gather(sorted({Path(table).parent for table in inputs}, reverse=True), Path(output).parent)


def report(page: str, config: str, *captions: str) -> None:
    """Write the report with the figures of the files of captions."""
    from faro_lib.report import write_report

    write_report(Path(page).parent, json.loads(config), captions, page)


def fetch_all(*names: str) -> None:
    """Fetch published data, or accept the files that are there, and print their paths."""
    for name in names or ["faro-10jobs"]:
        print(*fetch(name), sep="\n")


def fetch_and_record(name: str, record: str) -> None:
    """Fetch published data into the folder of `record`, and write the checksums of its files there."""
    fetch(name, Path(record).parent)
    Path(record).write_text(checksums(name, Path(record).parent))


COMMANDS: dict[str, Callable[..., None]] = {
    "notebook": notebook,
    "draw": draw,
    "join": join,
    "report": report,
    "fetch": fetch_all,
    "fetch-and-record": fetch_and_record,
}


def main(command: str, *arguments: str) -> int:
    """Run a command and return its exit status."""
    try:
        COMMANDS[command](*arguments)
    except KeyboardInterrupt:
        print(f"{command}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        message = message_of(error)
        if message is None and not isinstance(error, NotebookError):
            raise
        line = f"{command}: {message}" if message else str(error)
        print(line, file=sys.stderr)
        with suppress(OSError), ERRORS.open("a") as file:
            file.write(f"{line}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

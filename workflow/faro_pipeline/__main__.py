"""`python -m faro_pipeline COMMAND ...`: the commands that Snakemake's rules run.

After a user error, they print one line and exit with status 2. They derive the results folder from
the output path.
"""

import importlib
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from faro_lib.workload import PUBLISHED
from faro_ops.errors import message_of
from faro_pipeline.captions import write_captions
from faro_pipeline.fetch import checksums, fetch
from faro_pipeline.notebook import NotebookError, run_notebook

ERRORS = Path(".snakemake/errors")  # error messages of this Snakemake run, printed at its end


def notebook(source: str, output: str, parameters: str, log: str, threads: str = "1") -> None:
    """Run the notebook `source` and write the executed copy to `output`.

    `parameters` is a JSON object.
    """
    values = json.loads(parameters)
    if "results" in values:
        values["results"] = str(Path(output).parents[1])
    run_notebook(source, output, values, log, threads=int(threads))


def draw(module: str, captions: str, options: str, *sources: str) -> None:
    """Draw figures with `module.draw(results, **options)`.

    The captions are saved in the file `captions`, and the figures next to it. The folder `captions`
    beside them gets the captions for `snakemake --report`, which name the files `sources` and the
    line that draws the figure.
    """
    from faro_lib.figures import use_style
    from studies.figures.captions import save_all
    from studies.report.sources import line_of

    use_style()
    results = Path(captions).parents[1]
    drawings = importlib.import_module(module).draw(results, **json.loads(options))
    save_all(drawings, captions)
    texts = json.loads(Path(captions).read_text())
    files = {name: [*sources, line_of(module, name) or module] for name in texts}
    write_captions(Path(captions).parent / "captions", texts, files)


def join(module: str, output: str, *inputs: str) -> None:
    """Join the tables in the folders of `inputs` with `module.gather`.

    The joined tables are written to the folder of `output`.
    """
    folders = sorted({Path(table).parent for table in inputs}, reverse=True)
    importlib.import_module(module).gather(folders, Path(output).parent)


def report(module: str, page: str, config: str, sources: str, *ran: str) -> None:
    """Write the report `page` on executed notebooks (`ran`) with `module.write_report`.

    `config` and `sources` are JSON.
    """
    settings = json.loads(config)
    files = json.loads(sources)
    importlib.import_module(module).write_report(Path(page).parent, settings, files, page, ran)


def fetch_files(name: str = PUBLISHED, record: str | None = None) -> None:
    """Download the data `name` to the folder of the file `record`, and print the paths.

    Their checksums are written to `record`.
    """
    folder = Path(record).parent if record else Path("data/raw")
    print(*fetch(name, folder), sep="\n")
    if record:
        Path(record).write_text(checksums(name, folder))


COMMANDS: dict[str, Any] = {
    "notebook": notebook,
    "draw": draw,
    "join": join,
    "report": report,
    "fetch": fetch_files,
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

"""Run one notebook of the pipeline: visible progress, a log, and either a complete result or none."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from faro_lib.errors import message_of, message_of_kernel_error

KERNEL = "python3"  # the kernel of the environment that runs us
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
CELL_BEGINS = re.compile(r"Executing Cell (\d+)")
# Messages of papermill that are in the log only; it reads the types of plain assignments only, and warns of others.
NOT_SHOWN = (
    *("Ending Cell", "<", "Input Notebook", "Output Notebook", "Working directory", "Executing notebook"),
    *("Unable to parse line", "Passed unknown parameter"),
)


class NotebookError(RuntimeError):
    """A cell failed; the message is one line."""


def run_notebook(
    source: str | Path,
    output: str | Path,
    parameters: Mapping[str, Any],
    log: str | Path,
    *,
    threads: int = 1,
    root: str | Path = ".",
) -> None:
    """Execute a notebook with papermill, in `root`, and keep the executed notebook; changes the environment variables.

    Parameters
    ----------
    source, output : the notebook and its executed copy, which appears only if every cell has run.
    parameters : values for the cell tagged `parameters`.
    log : everything that the cells print, which also goes to standard error under the notebook's name.
    threads : how many threads the numerical libraries in the kernel use.

    Raises
    ------
    NotebookError : one line with the cause; the partly executed notebook is next to `output`.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill import execute_notebook
    from papermill.exceptions import PapermillException

    root, output, log = Path(root).resolve(), Path(output), Path(log)
    partial = output.with_name(f"{output.stem}.partial.ipynb")
    # The kernel inherits the environment of this process: the library of `root` first, and the number of threads.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ.update(dict.fromkeys(THREADS, str(threads)), PYDEVD_DISABLE_FILE_VALIDATION="1")
    try:
        for path in (output, log):
            path.parent.mkdir(parents=True, exist_ok=True)
        output.unlink(missing_ok=True)
        cells = len(json.loads(Path(source).read_text())["cells"]) + 1  # papermill adds one with the parameters
        with _logged(log, output.stem, cells):
            execute_notebook(
                str(source),
                str(partial),
                dict(parameters),
                kernel_name=KERNEL,
                language="python",
                cwd=str(root),
                log_output=True,
                progress_bar=False,
                extra_arguments=["--log-level=ERROR"],
            )
        partial.replace(output)
    except DeadKernelError:
        raise NotebookError(f"{source}: its process was killed, most likely for {message_of(MemoryError())}") from None
    except PapermillException as error:
        cause = message_of_kernel_error(
            getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
        )
        raise NotebookError(f"{source}: {cause} (partly executed: {partial}, log: {log})") from None
    except (OSError, MemoryError) as error:
        raise NotebookError(f"{source}: {message_of(error)}") from None


@contextmanager
def _logged(log: Path, name: str, cells: int) -> Iterator[None]:
    """Send the messages of papermill and the output of the cells to the log and to standard error."""
    to_file = _LogFile(log, mode="w")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    to_screen = logging.StreamHandler(sys.stderr)
    to_screen.setFormatter(_Progress(name, cells))
    to_screen.addFilter(_is_shown)
    logger = logging.getLogger("papermill")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers[:] = [to_file, to_screen]
    try:
        yield
    finally:
        logger.handlers.clear()
        to_file.close()


def _is_shown(record: logging.LogRecord) -> bool:
    message = record.getMessage().strip()
    return message != "" and not message.startswith(NOT_SHOWN)


class _LogFile(logging.FileHandler):
    """A log that loses lines on a full disk without an error: the notebook fails there too, and reports it."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


class _Progress(logging.Formatter):
    """Prefix every line with the notebook's name; `Executing Cell 3---` becomes `cell 3 of 14`."""

    def __init__(self, name: str, cells: int):
        super().__init__()
        self.name, self.cells = name, cells

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage().rstrip()
        if begins := CELL_BEGINS.match(message):
            message = f"cell {begins[1]} of {self.cells}"
        return "\n".join(f"[{self.name}] {line}" for line in message.splitlines())

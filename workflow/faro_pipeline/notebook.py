"""Run a notebook with papermill.

Its progress is shown and its output logged. The result is written only if every cell succeeded.
"""

import json
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from faro_ops.errors import message_of
from faro_pipeline.kernel_errors import message_of_kernel_error

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
CELL_STARTS = re.compile(r"Executing Cell (\d+)")
# Papermill's messages with these prefixes are logged but not shown.
NOT_SHOWN = (
    "Ending Cell",
    "<",
    "Input Notebook",
    "Output Notebook",
    "Working directory",
    "Executing notebook",
    # Warnings of parameters of unknown type.
    "Unable to parse line",
    "Passed unknown parameter",
)


class NotebookError(RuntimeError):
    """A notebook could not be run to its end; the message is one line."""


def run_notebook(
    source: str | Path,
    output: str | Path,
    parameters: Mapping[str, Any],
    log: str | Path,
    *,
    threads: int = 1,
) -> None:
    """Execute a notebook in the current folder and write the executed copy to `output`.

    `parameters` override those of the cell tagged `parameters`. `threads` limits the threads of
    numerical libraries by environment variables, which are not reset. The output of the cells goes
    to the file `log` and to standard error. Raises NotebookError with the cause in one line. Any
    partly executed copy then remains next to `output`.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill import execute_notebook
    from papermill.exceptions import PapermillException
    from traitlets.config import Config

    here = os.getcwd()
    output = Path(output)
    log = Path(log)
    partial = output.with_name(f"{output.stem}.partial.ipynb")
    # The kernel inherits this environment, so that it imports the library in the current folder.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{here}{os.pathsep}{before}" if before else here
    os.environ.update(dict.fromkeys(THREADS, str(threads)), PYDEVD_DISABLE_FILE_VALIDATION="1")
    options: dict[str, Any] = {
        "kernel_name": "python3",
        "language": "python",
        "cwd": here,
        "log_output": True,
        "progress_bar": False,
        "extra_arguments": ["--log-level=CRITICAL"],
        # An interrupted cell has 90 s to end, because an experiment on a live cluster first
        # restores what it changed.
        "config": Config(KernelManager={"shutdown_wait_time": 90.0}),
    }
    try:
        for path in (output, log):
            path.parent.mkdir(parents=True, exist_ok=True)
        output.unlink(missing_ok=True)
        # Papermill adds a cell with the parameters.
        cells = 1 + len(json.loads(Path(source).read_text())["cells"])
        # SIGTERM interrupts the cell, as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with _logged(log, output.stem, cells):
            execute_notebook(str(source), str(partial), dict(parameters), **options)
        partial.replace(output)
    except DeadKernelError:
        raise NotebookError(
            f"{source}: its process was killed, most likely for {message_of(MemoryError())}"
        ) from None
    except PapermillException as error:
        name = getattr(error, "ename", type(error).__name__)
        text = getattr(error, "evalue", str(error))
        where = f"(partly executed: {partial}, log: {log})"
        raise NotebookError(f"{source}: {message_of_kernel_error(name, text)} {where}") from None
    except (OSError, MemoryError) as error:
        raise NotebookError(f"{source}: {message_of(error)}") from None


@contextmanager
def _logged(log: Path, name: str, cells: int) -> Iterator[None]:
    """Send papermill's messages and the output of the cells to the log and to standard error."""
    # A log that cannot be written (full disk) must not hide the notebook's error.
    logging.raiseExceptions = False
    to_file = logging.FileHandler(log, mode="w")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("papermill")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers[:] = [to_file, _Progress(name, cells)]
    try:
        yield
    finally:
        logger.handlers.clear()
        with suppress(OSError):
            to_file.close()


class _Progress(logging.Handler):
    """Prints each line of a message on standard error as `[name] line`.

    `Executing Cell 3---` becomes `cell 3 of 14`.
    """

    def __init__(self, name: str, cells: int):
        super().__init__()
        self.name = name
        self.cells = cells

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage().rstrip()
        if starts := CELL_STARTS.match(message):
            message = f"cell {starts[1]} of {self.cells}"
        if not message or message.lstrip().startswith(NOT_SHOWN):
            return
        lines = [f"[{self.name}] {line}" for line in message.splitlines()]
        print("\n".join(lines), file=sys.stderr, flush=True)

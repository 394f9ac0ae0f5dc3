"""Run one notebook of the pipeline: visible progress, a log, and either a whole result or none."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from faro_lib.errors import message_of, message_of_kernel_error

KERNEL = "python3"  # the kernel of the environment that runs us
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
CELL_BEGINS = re.compile(r"Executing Cell (\d+)")
UNTOLD = (
    *("Ending Cell", "<", "Input Notebook", "Output Notebook", "Working directory", "Executing notebook"),
    *("Unable to parse line", "Passed unknown parameter"),  # papermill reads the types of plain assignments only
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
    """Execute a notebook with papermill, in `root`, and keep the executed notebook.

    Parameters
    ----------
    source, output : the notebook and where its executed copy goes; it appears there only if every cell has run.
    parameters : values for the cell tagged `parameters`.
    log : everything that the cells print; the same is message_of on standard error, each line under the notebook's name.
    threads : how many the numerical libraries of the kernel may use.

    Raises
    ------
    NotebookError : one line with what went wrong; the partly executed notebook then lies beside `output`.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill import execute_notebook
    from papermill.exceptions import PapermillException

    root, output, log = Path(root).resolve(), Path(output), Path(log)
    partial = output.with_name(f"{output.stem}.partial.ipynb")
    try:
        for path in (output, log):
            path.parent.mkdir(parents=True, exist_ok=True)
        output.unlink(missing_ok=True)
        with _Environment(root, threads), _told(log, output.stem, _cells(source)):
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
        name, text = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
        raise NotebookError(
            f"{source}: {message_of_kernel_error(name, text)} (partly executed: {partial}, log: {log})"
        ) from None
    except (OSError, MemoryError) as error:
        raise NotebookError(f"{source}: {message_of(error)}") from None


class _Environment:
    """The kernel inherits ours: the library of `root` first, matplotlib without a window, so many threads."""

    def __init__(self, root: Path, threads: int):
        paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.values: dict[str, str] = {"PYTHONPATH": os.pathsep.join(paths), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        self.values |= dict.fromkeys(THREADS, str(threads))

    def __enter__(self):
        self.before = {name: os.environ.get(name) for name in self.values}
        os.environ.update(self.values)

    def __exit__(self, *_):
        for name, value in self.before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _told:
    """Papermill's own messages and what the cells print, into the log and onto standard error."""

    def __init__(self, log: Path, name: str, cells: int):
        self.logger = logging.getLogger("papermill")
        to_file = _Log(log, mode="w")
        to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        to_screen = logging.StreamHandler(sys.stderr)
        to_screen.setFormatter(_Progress(name, cells))
        to_screen.addFilter(_worth_showing)
        self.handlers = [to_file, to_screen]

    def __enter__(self):
        self.before = (self.logger.level, self.logger.propagate)
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False
        for handler in self.handlers:
            self.logger.addHandler(handler)

    def __exit__(self, *_):
        for handler in self.handlers:
            self.logger.removeHandler(handler)
            handler.close()
        self.logger.level, self.logger.propagate = self.before


class _Log(logging.FileHandler):
    """A line that finds no room on the disk is lost without further ado: the notebook fails there too, and says so."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


class _Progress(logging.Formatter):
    """Every line under the notebook's name; `Executing Cell 3---` becomes `cell 3 of 14`."""

    def __init__(self, name: str, cells: int):
        super().__init__()
        self.name, self.cells = name, cells

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage().rstrip()
        if begins := CELL_BEGINS.match(message):
            message = f"cell {begins[1]} of {self.cells}"
        return "\n".join(f"[{self.name}] {line}" for line in message.splitlines())


def _worth_showing(record: logging.LogRecord) -> bool:
    """What the cells print and where we are; not values, which the executed notebook holds, nor papermill's own notes."""
    message = record.getMessage().strip()
    return message != "" and not message.startswith(UNTOLD)


def _cells(source: str | Path) -> int:
    """Cells of the notebook once papermill has put in its own with the parameters."""
    return len(json.loads(Path(source).read_text())["cells"]) + 1

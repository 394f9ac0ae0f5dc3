"""An interrupted notebook may put back within 90 s what it has changed on a cluster."""

import signal
import subprocess
import sys

import nbformat
import pytest
from checkouts import ROOT
from waiting import until

CELL = """
import time
from pathlib import Path
try:
    Path({began!r}).touch()
    time.sleep(600)
finally:
    time.sleep(7)  # longer than the 5 s after which jupyter_client kills a kernel by default
    Path({restored!r}).touch()
"""


def heeding():
    """Heed SIGINT, which a background job of a shell ignores, and its children with it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    "received", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_the_cell_that_runs_is_interrupted_and_may_finish_its_clean_up(tmp_path, received):
    began, restored, output = (tmp_path / name for name in ("began", "restored", "out.ipynb"))
    parameters = nbformat.v4.new_code_cell("x = 1", metadata={"tags": ["parameters"]})
    cell = nbformat.v4.new_code_cell(CELL.format(began=str(began), restored=str(restored)))
    nbformat.write(nbformat.v4.new_notebook(cells=[parameters, cell]), tmp_path / "in.ipynb")
    arguments = ["notebook", tmp_path / "in.ipynb", output, "{}", tmp_path / "log", "1"]
    command = [sys.executable, "-m", "faro_pipeline", *arguments]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=heeding)
    until(lambda: began.exists() or run.poll() is not None, 300, "the cell runs")
    run.send_signal(received)
    lines = run.communicate(timeout=300)[1].splitlines()
    assert run.returncode == 130
    assert lines[-1] == "notebook: interrupted"
    assert restored.exists()
    assert not output.exists()

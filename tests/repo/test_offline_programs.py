"""The script that builds the offline cluster's programs compiles with the installed Go."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "cluster/offline/programs.sh"


@pytest.mark.skipif(not shutil.which("go"), reason="Go is not installed")
def test_the_compile_function_builds_a_program_in_another_folder(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "go.mod").write_text("module hello\n\ngo 1.22\n")
    (source / "main.go").write_text('package main\n\nfunc main() { println("built") }\n')
    text = SCRIPT.read_text()
    start = text.index("compile() {")
    function = text[start : text.index("\n}\n", start) + 3]
    command = f'{function}compile "$1" -o "$2" .'

    subprocess.run(
        ["bash", "-euc", command, "bash", str(source), str(tmp_path / "hello")], check=True
    )

    ran = subprocess.run([tmp_path / "hello"], capture_output=True, text=True, check=True)
    assert ran.stderr == "built\n"

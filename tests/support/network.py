"""Commands without a network: in a network namespace of their own, with nothing but loopback.

python tests/support/network.py COMMAND... runs one, and fails where the network cannot be cut.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

# Bring loopback up, check that there is no other network, then run the command.
CUT = """
import fcntl, os, socket, struct, sys
lo = socket.socket()
fcntl.ioctl(lo, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))
try:
    socket.create_connection(("192.0.2.1", 80), 3)
except OSError as error:
    print("no network:", error, flush=True)
    os.execvp(sys.argv[1], sys.argv[1:])
"""


def cut() -> list[str]:
    """What to put before a command that is to have no network; [] where that is impossible."""
    if shutil.which("unshare") is None:
        return []
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    before = ["unshare", "--net", *as_root, sys.executable, "-c", CUT]
    tried = subprocess.run([*before, "true"], capture_output=True, text=True)
    return before if tried.returncode == 0 and "no network:" in tried.stdout else []


def cut_off(*command: str) -> list[str]:
    """The command, to be run without a network; skips the test where the network cannot be cut."""
    return [*(cut() or pytest.skip("the network cannot be cut here")), *command]


if __name__ == "__main__":
    before = cut()
    if not before:
        sys.exit("network.py: the network cannot be cut here")
    os.execvp(before[0], [*before, *sys.argv[1:]])

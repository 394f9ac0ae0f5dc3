"""The load generator in a separate process, so that other work does not delay it."""

import asyncio
import io
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from subprocess import PIPE
from urllib.parse import urlsplit

import numpy as np

from faro_ops.advise.profile.load_generator import MAX_RPS, Script, Sent, send
from faro_ops.http import is_loopback


def packed(**arrays) -> bytes:
    """Named arrays as the bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpacked(content: bytes) -> dict[str, np.ndarray]:
    """The named arrays in the bytes that `packed` returned."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return dict(file)


class Generator:
    """The load generator in a process of its own; it only sends to loopback addresses."""

    def __init__(self, script: Script, origin_s: float, *, max_rps: float = MAX_RPS):
        for url in script.urls:
            if not is_loopback(urlsplit(url).hostname):
                raise ValueError(f"load for {url}: only loopback is allowed here")
        script.check_rate(max_rps)
        code = f"from {__name__} import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        assert self._process.stdin
        self._process.stdin.write(packed(**asdict(script), origin_s=origin_s, max_rps=max_rps))
        self._process.stdin.close()  # the process starts to send when its input ends
        self._process.stdin = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def result(self, timeout_s: float | None = None) -> Sent:
        """Wait until every request is answered, and return the outcomes."""
        answer, errors = self._process.communicate(timeout=timeout_s)
        if status := self._process.returncode:
            lines = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
            raise RuntimeError(f"the load generator failed: {[status, *lines][-1]}")
        return Sent(**unpacked(answer))

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=10)


def main() -> None:
    """Send the requests of a `Script` from standard input; write a `Sent` to standard output."""
    arrays = unpacked(sys.stdin.buffer.read())
    origin_s = float(arrays.pop("origin_s"))
    max_rps = float(arrays.pop("max_rps"))
    script = Script(tuple(arrays.pop("urls").tolist()), **arrays)
    sent = asyncio.run(send(script, origin_s, max_rps=max_rps))
    sys.stdout.buffer.write(packed(**asdict(sent)))

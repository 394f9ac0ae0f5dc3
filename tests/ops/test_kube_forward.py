"""Port forwarding, with a stand-in for kubectl."""

from __future__ import annotations

import os
import sys
import urllib.request

import pytest

from studies.live.exclusive import port_forward

SERVES = """#!{python}
import http.server, os, sys

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("E1 an error occurred forwarding " + 70_000 * "x", file=sys.stderr, flush=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(os.getpid()).encode())

    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
print(f"Forwarding from 127.0.0.1:{{server.server_port}} -> 8265", flush=True)
server.serve_forever()
"""
REFUSES = "#!/bin/sh\necho 'error: services \"faro\" not found' >&2\nexit 1\n"


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    def write(text):
        path = tmp_path / "kubectl"
        path.write_text(text)
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    return write


def test_a_port_forward_survives_its_own_errors_and_ends_with_us(kubectl):
    kubectl(SERVES.format(python=sys.executable))
    with port_forward("faro", "service/faro", (8265,), None, None) as (address,):
        for _ in range(3):
            with urllib.request.urlopen(address, timeout=10) as answer:
                pid = int(answer.read())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_refused_port_forward_is_one_line(kubectl):
    kubectl(REFUSES)
    with (
        pytest.raises(
            ValueError,
            match=r'^kubectl port-forward service/faro: error: services "faro" not found$',
        ),
        port_forward("faro", "service/faro", (8265,), None, None),
    ):
        pass


@pytest.mark.parametrize("says", ["", "printf 'Forwarding from 127.0.0.1:1'"])
def test_a_port_forward_that_says_nothing_ends_with_an_error(kubectl, says, monkeypatch):
    monkeypatch.setattr("studies.live.exclusive.FORWARD_S", 0.5)
    kubectl(f"#!/bin/sh\n{says}\nexec sleep 60\n")
    with (
        pytest.raises(ValueError, match=r"port-forward service/faro: no answer within 0\.5 s"),
        port_forward("faro", "service/faro", (8265,), None, None),
    ):
        pass

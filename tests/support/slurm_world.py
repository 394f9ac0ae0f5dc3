"""Start and stop a SLURM cluster of one node with one CPU on this machine. Needs root."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue")
PACKAGES = "slurmctld slurmd slurm-client munge"
# The default, because Snakemake's job steps unset SLURM_CONF.
CONFIGURATION = Path("/etc/slurm/slurm.conf")
TEMPLATE = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
ReturnToService=2
MpiDefault=none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/completed.txt
NodeName={host} NodeAddr=127.0.0.1 CPUs=1 RealMemory={memory_mb} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why SLURM cannot be started here, or None."""
    if os.geteuid() != 0:
        return "SLURM on this machine needs root"
    if any(
        shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None
        for program in PROGRAMS
    ):
        return f"SLURM is not installed: on Debian, apt-get install {PACKAGES}"
    if CONFIGURATION.exists():
        return f"{CONFIGURATION} exists: a SLURM cluster is configured here"
    return None


@contextmanager
def slurm() -> Iterator[Path]:
    """Start the cluster, yield the file that lists completed jobs, and stop the cluster."""
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "completed.txt").touch()
        for part in ("state", "spool"):
            (folder / part).mkdir()
        (folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (folder / "munge.key").chmod(0o400)
        memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        host = socket.gethostname().split(".")[0]
        text = TEMPLATE.format(folder=folder, host=host, ports=free_ports(2), memory_mb=memory_mb)
        running: list[subprocess.Popen] = []
        try:
            CONFIGURATION.parent.mkdir(exist_ok=True)
            CONFIGURATION.write_text(text)
            munge = [
                f"--{kind}={folder}/munge.{kind.split('-')[0]}"
                for kind in ("key-file", "socket", "pid-file")
            ]
            munge += [f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"]
            for command in (
                ["munged", "--foreground", "--force", *munge],
                ["slurmctld", "-D"],
                ["slurmd", "-D"],
            ):
                with (folder / f"{command[0]}.out").open("w") as output:
                    program = shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin")
                    running.append(
                        subprocess.Popen([str(program), *command[1:]], stdout=output, stderr=output)
                    )
            _wait_until_idle(folder, running)
            yield folder / "completed.txt"
        finally:
            for process in reversed(running):
                process.terminate()
                process.wait(30)
            CONFIGURATION.unlink(missing_ok=True)


def _wait_until_idle(folder: Path, running: list[subprocess.Popen]) -> None:
    until = time.monotonic() + 60
    while (
        "idle"
        not in subprocess.run(
            ["sinfo", "-h", "-o", "%t"], capture_output=True, text=True
        ).stdout.split()
    ):
        logs = "\n".join(path.read_text() for path in folder.glob("*.out"))
        assert time.monotonic() < until, logs
        assert all(process.poll() is None for process in running), logs
        time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports

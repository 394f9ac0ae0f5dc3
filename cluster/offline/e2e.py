"""Faro end to end on the real node of cluster/offline: what `faro manifests` writes, in pods, under load from outside.

Ray's head, its workers and two controllers run as pods of the very manifests, with what one small machine needs laid over
them (`overlay`). KubeRay's operator is the stand-in of fakekuberay.py. Each policy meets the same requests; then a worker is
deleted under load. Every run adds a trial to the tables.

usage: e2e.py image OUT.tar | run [--results results/synthetic] [--minutes 3]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import fakekuberay
import mkimage
import numpy as np
import yaml

from faro_lib import cli
from faro_lib.control.journal import read
from faro_lib.experiments.live_slice import Slice, run_of, script_of
from faro_lib.http import HttpClient
from faro_lib.kube.capacity import is_ready
from faro_lib.kube.client import Api, connect
from faro_lib.kube.manifests import SECRET, SECRET_KEY
from faro_lib.kube.status import GROUP, PLURAL, VERSION
from faro_lib.metrics.frames import Tables, add_trial, joined, tables_of
from faro_lib.metrics.recovery import recovery_frame
from faro_lib.rayserve.load import DROPPED, FAILED, SERVED, Generator, Sent
from faro_lib.simulate.run import Decisions
from faro_lib.workload import Workload
from faro_lib.workload.readers import read_jobs

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
IMAGE, NAMESPACE, NAME = "docker.io/local/faro:e2e", "faro", "faro"
TABLE = ROOT / "cluster/jobs.yaml"
HEAD_ADDRESS = "10.96.0.100"
DASHBOARD, SERVING = "http://127.0.0.1:18265", "http://127.0.0.1:18000"  # relay.py
NODE_PORTS = {"dashboard": (8265, 30265), "serve": (8000, 30080)}
SOURCE = "/opt/source"
POLICIES = ("FairShare", "Faro-Sum")
TICK_S, PLACES, MOST_RPS = 30.0, 10, 120.0
WORKERS, WORKER_CORES = 2, 4
# Replicas that only take time need little of a processor: the node has two, Ray is told of eight.
WORKER_CPU, REQUESTED = 0.3, {"ray-head": "500m", "faro": "100m"}
SEED = 11
# Requests a second of vision, speech and text: one of them needs more than its fair share, and it is not always the same.
EARLY, LATE = (6.0, 24.0, 8.0), (36.0, 4.0, 8.0)
DELETED_AFTER_S = 30.0


# --- the image: folders and two files; programs come from this machine's own, mounted read-only -----------------------


def mounts() -> dict[str, Path]:
    """Place in the pod -> folder of this machine."""
    found = {"/usr": Path("/usr"), f"{SOURCE}/faro_lib": ROOT / "faro_lib"}
    for folder in {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}:
        if not folder.is_relative_to("/usr"):
            found[str(folder)] = folder
    return found


def image(out: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        for place in ("etc", "tmp", "proc", "sys", "dev", "run", "var/lib/faro", "var/cache/numba", *mounts()):
            (root / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (root / name).symlink_to(f"usr/{name}")
        (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nfaro:x:1000:1000::/tmp:/bin/bash\n")
        (root / "etc/group").write_text("root:x:0:\nfaro:x:1000:\n")
        (root / "etc/profile").write_text(
            f"export PATH={search_path()}\n"
        )  # for the login shell that KubeRay starts Ray by
        for path in root.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        mkimage.main(out, IMAGE, '["/bin/bash"]', f"{root}=/")


def search_path() -> str:
    return f"{Path(sys.prefix).resolve()}/bin:/usr/bin:/bin"


# --- the manifests ----------------------------------------------------------------------------------------------------


def manifests(policy: str, run: Path) -> dict[str, list[dict]]:
    """What `faro manifests` writes, by file, with the overlay."""
    folder = run / "manifests"
    said = dict(jobs=TABLE, out=folder, namespace=NAMESPACE, name=NAME, image=IMAGE, policy=policy, tick=TICK_S)
    said |= {"workers": WORKERS, "worker-cores": WORKER_CORES, "worker-memory": 3, "worker-cpu": WORKER_CPU}
    status = cli.main(["manifests", *(word for key, value in said.items() for word in (f"--{key}", f"{value}"))])
    if status:
        raise SystemExit(status)
    files = {path.stem: list(yaml.safe_load_all(path.read_text())) for path in sorted(folder.glob("*.yaml"))}
    files.pop("kustomization")
    for things in files.values():
        for thing in things:
            overlay(thing, run)
    return files


def overlay(thing: dict, run: Path) -> None:
    """What one small machine without a registry and without cluster DNS needs laid over a manifest; in place."""
    if thing["kind"] == "PodDisruptionBudget":
        thing["apiVersion"] = "policy/v1beta1"  # the offline server is of 1.20
    if thing["kind"] == "Deployment":
        template = thing["spec"]["template"]
        on_this_machine(template, run)
        template["spec"]["hostAliases"] = [{"ip": HEAD_ADDRESS, "hostnames": [f"{NAME}-head-svc.{NAMESPACE}.svc"]}]
        template["spec"]["containers"][0]["args"] += ["--journal", "/var/lib/faro/$(HOSTNAME_OF_POD).jsonl"]
        name = {"name": "HOSTNAME_OF_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
        template["spec"]["containers"][0]["env"].append(name)
    if thing["kind"] == "RayService":
        cluster = thing["spec"]["rayClusterConfig"]
        on_this_machine(cluster["headGroupSpec"]["template"], run)
        cluster["headGroupSpec"]["rayStartParams"]["object-store-memory"] = str(128 * 2**20)
        for group in cluster["workerGroupSpecs"]:
            on_this_machine(group["template"], run)
            group["rayStartParams"]["object-store-memory"] = str(128 * 2**20)


def on_this_machine(template: dict, run: Path) -> None:
    spec = template["spec"]
    nowhere = {"nameservers": ["127.0.0.1"]}  # a name that is not in the pod's host file is refused at once
    spec |= {"dnsPolicy": "None", "dnsConfig": nowhere, "terminationGracePeriodSeconds": 2}
    folders = {f"host{i}": (place, folder, True) for i, (place, folder) in enumerate(mounts().items())}
    folders["journal"] = ("/var/lib/faro", run / "journal", False)
    folders["numba"] = ("/var/cache/numba", run.parent / "numba", False)
    spec.setdefault("volumes", []).extend(
        {"name": name, "hostPath": {"path": str(folder)}} for name, (_, folder, _) in folders.items()
    )
    for container in spec["containers"]:
        container["imagePullPolicy"] = "Never"
        if container["name"] in REQUESTED:
            container["resources"]["requests"] = container["resources"]["requests"] | {
                "cpu": REQUESTED[container["name"]]
            }
        container["volumeMounts"] += [
            {"name": name, "mountPath": place, "readOnly": only} for name, (place, _, only) in folders.items()
        ]
        ours = {"PATH": search_path(), "PYTHONPATH": SOURCE, "HOME": "/tmp", "NUMBA_CACHE_DIR": "/var/cache/numba"}
        kept = [one for one in container["env"] if one["name"] not in ours]
        container["env"] = [*kept, *({"name": key, "value": value} for key, value in ours.items())]


def services() -> list[dict]:
    """The head's, by an address that the pods' host files can name, and the way in from outside."""
    labels = {"ray.io/cluster": NAME, "ray.io/node-type": "head"}
    ports = [
        {"name": key, "protocol": "TCP", "port": port, "targetPort": port} for key, port in fakekuberay.PORTS.items()
    ]
    outside = [
        {"name": key, "protocol": "TCP", "port": port, "targetPort": port, "nodePort": at}
        for key, (port, at) in NODE_PORTS.items()
    ]
    made = {
        f"{NAME}-head-svc": {"clusterIP": HEAD_ADDRESS, "ports": ports},
        f"{NAME}-outside": {"type": "NodePort", "ports": outside},
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": spec | {"selector": labels},
        }
        for name, spec in made.items()
    ]


def kubectl(*arguments: str, things: list[dict] | None = None) -> str:
    text = yaml.safe_dump_all(things) if things else None
    done = subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def apply(things: list[dict]) -> None:
    kubectl("apply", "--server-side", "--force-conflicts", "--validate=false", "-f", "-", things=things)


# --- what is waited for -----------------------------------------------------------------------------------------------


def until(holds, within_s: float, what: str):
    end = time.monotonic() + within_s
    last: object = None
    while time.monotonic() < end:
        try:
            if last := holds():
                return last
        except (OSError, ValueError, KeyError, TypeError) as not_yet:
            last = not_yet
        time.sleep(0.5)
    raise RuntimeError(f"{what} did not come true within {within_s:g} s; last seen: {last!r}")


def say(line: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)


@dataclass
class Node:
    """The cluster while it runs."""

    api: Api
    run: Path
    token: str

    @property
    def ray(self) -> HttpClient:
        return HttpClient(DASHBOARD, self.token, 30.0)

    def pods(self, kind: str) -> list[dict]:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods"
        return self.api.get(path, labelSelector=f"ray.io/node-type={kind}")["items"]

    def ready(self, kind: str) -> int:
        return sum(is_ready(pod) for pod in self.pods(kind))

    def plan(self) -> dict:
        return self.api.get(f"/apis/{GROUP}/{VERSION}/namespaces/{NAMESPACE}/{PLURAL}/{NAME}")["status"]

    def running(self) -> list[int]:
        """Replicas by job that serve."""
        states = self.ray.get(fakekuberay.APPLICATIONS)["applications"]
        counts = []
        for job in read_jobs(TABLE):
            (one,) = states[job.name]["deployments"].values()
            counts.append(sum(replica["state"] == "RUNNING" for replica in one["replicas"]))
        return counts

    def all_run(self) -> bool:
        states = self.ray.get(fakekuberay.APPLICATIONS)["applications"]
        return len(states) == 1 + len(read_jobs(TABLE)) and all(one["status"] == "RUNNING" for one in states.values())

    def controlled_by(self, policy: str) -> None:
        """Both controllers replaced by ones of that policy; returns when one of them has decided."""
        files = manifests(policy, self.run)
        before = time.time()
        apply(files["config"] + files["controller"])
        kubectl("-n", NAMESPACE, "rollout", "status", "deployment/faro-controller", "--timeout=240s")
        said = f"--policy {policy}"

        def decided() -> bool:
            seen = self.plan()
            since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(before))
            pods = self.api.get(f"/api/v1/namespaces/{NAMESPACE}/pods")["items"]
            acting = [pod for pod in pods if seen["controller"].startswith(pod["metadata"]["name"])]
            args = " ".join(acting[0]["spec"]["containers"][0]["args"]) if acting else ""
            return seen["lastDecisionTime"] >= since and said in args

        until(decided, 240, f"a decision of {policy}")

    def decisions(self, origin_s: float, end_s: float) -> Decisions:
        """The ticks that the acting controllers wrote down in that time, on the clock of the load."""
        found = Decisions()
        steps = []
        for path in (self.run / "journal").glob("*.jsonl"):
            header, ticks = read(path)
            steps += [(header.origin_s + one.step.observation.now_s - origin_s, one.step) for one in ticks]
        for at_s, step in sorted(steps, key=lambda pair: pair[0]):
            if 0 <= at_s <= end_s:
                found.append(replace(step, observation=replace(step.observation, now_s=at_s)))
        return found


@contextmanager
def running_node(run: Path):
    """Everything applied and served; what it leaves is the cluster's, which ends with it."""
    for name in ("journal", "../numba"):
        (run / name).mkdir(parents=True, exist_ok=True)
        (run / name).chmod(0o777)
    api, token = connect(), secrets.token_hex(32)
    files = manifests(POLICIES[0], run)
    apply([*files["namespace"], *files["crd"], fakekuberay.definition()])
    for path in (f"/apis/{GROUP}/{VERSION}/{PLURAL}", fakekuberay.RAYSERVICES):
        until(lambda path=path: api.get(path), 90, path)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": NAMESPACE}}
    apply([secret | {"stringData": {SECRET_KEY: token}}])
    apply([*files["rbac"], *files["quota"], *files["network"], *files["dashboard"], *files["config"], *services()])
    apply(files["rayservice"])
    operator = fakekuberay.FakeKubeRay(api, lambda *_: HttpClient(DASHBOARD, token, 120.0)).start()
    node = Node(api, run, token)
    try:
        until(lambda: node.ready("head") == 1 and node.ready("worker") == WORKERS, 300, "Ray's pods are ready")
        say("head and workers are ready")
        until(node.all_run, 240, "the applications run")
        say(f"the applications run: {node.running()}")
        yield node
    finally:
        operator.stop()


# --- the runs ---------------------------------------------------------------------------------------------------------


def workload(minutes: int) -> Workload:
    jobs = read_jobs(TABLE)
    early = np.tile(np.array(EARLY)[:, None] * 60, (1, minutes - minutes // 3))
    late = np.tile(np.array(LATE)[:, None] * 60, (1, minutes // 3))
    return Workload(jobs, np.concatenate([early, late], axis=1).round().astype(np.int64))


def measured(node: Node, policy: str, one: Slice, seed: int) -> Tables:
    """One policy under the load of a trial."""
    node.controlled_by(policy)
    initial = np.array(node.running())
    say(f"{policy} decides; replicas {initial.tolist()}")
    draws = one.draws(seed)
    script, order = script_of(one, draws, [f"{SERVING}/{job.name}" for job in one.workload.jobs])
    origin_s, began = time.time() + 2, time.perf_counter()
    generator = Generator(script, origin_s, max_rps=MOST_RPS)
    try:
        sent = generator.result(timeout_s=60 * one.workload.minutes + 120)
    finally:
        generator.stop()
    decisions = node.decisions(origin_s, 60.0 * one.workload.minutes)
    if not decisions.time_s:
        raise RuntimeError(f"{policy} wrote no tick while the load lasted")
    run = run_of(one, draws, order, sent, decisions, time.perf_counter() - began)
    run = replace(run, initial=initial)
    kept = dict(
        served=sent.count(SERVED), dropped=sent.count(DROPPED), failed=sent.count(FAILED), load_1min=os.getloadavg()[0]
    )
    lag_ms = float(np.nanquantile(sent.send_lag_s, 0.99) * 1e3)
    key = {"policy": policy, "capacity_cores": run.capacity}
    found = tables_of(run, key, **kept, tick_s=TICK_S, send_lag_ms_p99=lag_ms)
    row = found.summary.iloc[0]
    say(
        f"{policy}: violations {row.slo_violation_rate:.1%}, lost utility {row.lost_utility:.3f}; {kept['served']} served, "
        f"{kept['dropped']} dropped, {kept['failed']} failed; targets {decisions.target[-1].tolist()}"
    )
    return found


def recovered(node: Node, one: Slice, seed: int):
    """A worker is deleted under load: what requests, capacity and replicas do second by second."""
    draws = one.draws(seed)
    script, _ = script_of(one, draws, [f"{SERVING}/{job.name}" for job in one.workload.jobs])
    origin_s = time.time() + 2
    generator = Generator(script, origin_s, max_rps=MOST_RPS)
    states: list[dict] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(1.0):
            try:
                seen = {"workers": node.ready("worker"), "capacity": node.plan()["capacityCores"]}
                states.append({"second": time.time() - origin_s, **seen, "replicas": sum(node.running())})
            except (OSError, KeyError) as away:
                say(f"not seen: {away}")

    watching = threading.Thread(target=look, daemon=True)
    watching.start()
    try:
        time.sleep(max(0.0, origin_s + DELETED_AFTER_S - time.time()))
        gone = node.pods("worker")[0]["metadata"]["name"]
        node.api.send("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/{gone}")
        say(f"worker {gone} is deleted")
        sent: Sent = generator.result(timeout_s=60 * one.workload.minutes + 120)
    finally:
        generator.stop()
        ended.set()
        watching.join(10)
    slo_s = np.array([job.slo_s for job in one.workload.jobs])[script.job]
    table = recovery_frame(script.due_s, sent, slo_s, states, DELETED_AFTER_S)
    until(lambda: node.ready("worker") == WORKERS and sum(node.running()) == WORKERS * WORKER_CORES, 120, "all is back")
    back = table[(table["second"] > DELETED_AFTER_S) & (table["workers"] == WORKERS)]["second"]
    when = f"{back.iloc[0] - DELETED_AFTER_S:.0f} s after" if len(back) else "after the load had ended"
    say(
        f"all {WORKERS} workers were ready again {when}; {sent.count(FAILED)} requests failed, "
        f"{sent.count(DROPPED)} were dropped"
    )
    return table


def versions(api: Api) -> dict:
    from importlib.metadata import version

    info = api.get("/api/v1/nodes")["items"][0]["status"]["nodeInfo"]
    named = {key: info[key] for key in ("kubeletVersion", "containerRuntimeVersion", "kernelVersion", "osImage")}
    return named | {"ray": version("ray"), "python": platform.python_version(), "processors": os.cpu_count()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("image").add_argument("out")
    chosen = commands.add_parser("run")
    chosen.add_argument("--results", default="results/synthetic", help="results/<workload>")
    chosen.add_argument("--minutes", type=int, default=3, help="of load for each policy, at least 2")
    said = parser.parse_args()
    if said.command == "image":
        image(said.out)
        return
    run = Path(os.environ["K8S_RUN"])
    folder = ROOT / said.results / "live/kubernetes/e2e"
    one = Slice(workload(said.minutes), WORKERS * WORKER_CORES, 1.0, TICK_S, PLACES)
    seed = SEED + (sum(1 for _ in folder.glob("trial-*.json")) if folder.exists() else 0)
    with running_node(run) as node:
        runs = [measured(node, policy, one, seed) for policy in POLICIES]
        recovery = recovered(node, replace(one, workload=workload(3).between(0, 2)), seed)
        trial = add_trial(joined([*runs, Tables(recovery=recovery)]), folder, versions(node.api))
    say(f"trial {trial + 1} is in {folder}")
    print(json.dumps({run.summary["policy"].iloc[0]: float(run.summary["slo_violation_rate"].iloc[0]) for run in runs}))


if __name__ == "__main__":
    main()

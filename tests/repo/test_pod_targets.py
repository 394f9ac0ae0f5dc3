"""The targets that the Prometheus of cluster/monitoring.sh scrapes."""

import importlib.util
import shutil
import subprocess

import pytest
import yaml
from checkouts import ROOT
from kube_things import pod

SPEC = importlib.util.spec_from_file_location("pod_targets", ROOT / "cluster/pod_targets.py")
pod_targets = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(pod_targets)


def model(name, scrape="true", phase="Running"):
    one = pod(name, labels={"app": "vision"}, phase=phase)
    one["metadata"]["annotations"] = {"prometheus.io/scrape": scrape}
    one["spec"]["containers"][0]["ports"] = [{"containerPort": 8000}]
    one["status"]["podIP"] = "10.0.0.7"
    return one


def test_a_running_pod_with_the_annotation_is_a_target_by_the_name_of_its_service():
    labels = {"namespace": "jobs", "pod": "a", "service": "vision"}
    assert pod_targets.targets([model("a")]) == [{"targets": ["10.0.0.7:8000"], "labels": labels}]


def test_other_pods_are_no_targets():
    others = [pod("plain"), model("off", scrape="false"), model("new", phase="Pending")]
    assert pod_targets.targets(others) == []


@pytest.mark.skipif(not shutil.which("promtool"), reason="prometheus is not installed")
def test_debians_prometheus_accepts_the_configuration(tmp_path):
    things = {
        one["kind"]: one
        for one in yaml.safe_load_all((ROOT / "cluster/monitoring.yaml").read_text())
    }
    (tmp_path / "prometheus.yml").write_text(things["ConfigMap"]["data"]["prometheus.yml"])
    command = ["promtool", "check", "config", "--syntax-only", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

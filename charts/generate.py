"""The Helm chart of the controller, generated from the templates of `faro manifests`.

    python charts/generate.py charts/faro

Jinja renders each template with a marker for every value that a user of the chart may set, and each
marker becomes a Helm expression. The chart and `faro manifests` can therefore not differ.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from faro_ops.operate.kube.manifests import ManifestSpec, Workers, hash_of, render

FILES = (
    "rbac.yaml",
    "config.yaml",
    "controller.yaml",
    "network.yaml",
    "dashboard.yaml",
    "monitor.yaml",
    "restore.yaml",
)
CEILINGS = 'eq $.Values.act "ceilings"'
OPTIONAL = {  # files that a value switches on
    "monitor.yaml": "$.Values.serviceMonitor",
    "restore.yaml": CEILINGS,  # in a dry run, too: it restores what an earlier release has set
}
# The Prometheus operator selects objects by labels that differ from cluster to cluster.
MONITOR_LABELS = (
    "{{ range $label, $value := $.Values.monitorLabels }}"
    "{{ $label | toJson }}: {{ $value | toJson }}, "
    "{{ end }}"
)
WORKERS = 7908  # of which the disruption budget keeps one less
# A namespace other than the release's, in which the controller may also scale.
FOREIGN = "marker-foreign"
MARKERS = {
    "marker-namespace": "$.Release.Namespace",
    "marker-name": "$.Values.name",
    "marker-image": "$.Values.image",
    "marker-policy": "$.Values.policy",
    "marker-jobs": "$.Values.jobs",
    hash_of("marker-jobs"): "$.Values.jobs | sha256sum | trunc 16",
    "http://marker-prometheus": "$.Values.prometheus",
    "7919": "$.Values.tickSeconds | toString",
    f"{WORKERS - 1}": "sub $.Values.workers 1",
    "marker-operator": "$.Values.operatorNamespace",
    "marker-monitoring": "$.Values.monitoringNamespace",
    FOREIGN: "$namespace",
    '["marker-deployments"]': "$.Values.deployments | toJson",
}
ANY_MARKER = re.compile("|".join(f'"{marker}"|{marker}' for marker in map(re.escape, MARKERS)))


def helm_template(template: str) -> str:
    """One template of `faro manifests` as a Helm template."""
    rayserve = _with_expressions(render(_spec("rayserve"), template))
    replicas = _with_expressions(render(_spec("deployments"), template))
    ceilings = _with_expressions(render(_spec("deployments", ceilings=True), template))
    if OPTIONAL.get(template) == CEILINGS:
        text = ceilings
    else:
        deployments = _either(CEILINGS, ceilings, replicas)
        text = _either('eq $.Values.backend "rayserve"', rayserve, deployments)
    if template == "monitor.yaml":
        text = text.replace(" labels: {", f" labels: {{ {MONITOR_LABELS}")
    if template in OPTIONAL:
        text = f"{{{{- if {OPTIONAL[template]} }}}}\n{text}{{{{- end }}}}\n"
    return text


def _either(condition: str, text: str, otherwise: str) -> str:
    """A Helm template that is `text` if the condition is true, else `otherwise`."""
    if text == otherwise:
        return text
    return f"{{{{- if {condition} }}}}\n{text}{{{{- else }}}}\n{otherwise}{{{{- end }}}}\n"


def write(folder: str | Path) -> None:
    """Write the generated files of the chart; values, schema and notes are written by hand."""
    folder = Path(folder)
    for part in ("templates", "crds"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for template in FILES:
        (folder / "templates" / template).write_text(helm_template(template))
    (folder / "crds" / "crd.yaml").write_text(render(_spec("rayserve"), "crd.yaml"))


def _spec(backend: str, ceilings: bool = False) -> ManifestSpec:
    """A specification with a marker for every value that becomes a Helm expression."""
    return ManifestSpec(
        jobs=(),
        jobs_text="marker-jobs",
        backend=backend,
        namespace="marker-namespace",
        name="marker-name",
        image="marker-image",
        policy="marker-policy",
        prometheus="http://marker-prometheus",
        operator_namespace="marker-operator",
        monitoring_namespace="marker-monitoring",
        tick_s=7919,
        workers=Workers(count=WORKERS),
        namespaces=(FOREIGN,) if backend == "deployments" else (),
        deployments=("marker-deployments",),
        ceilings=ceilings,
        options=("marker-options",),
    )


def _with_expressions(text: str) -> str:
    """Replace markers by Helm expressions, quoted if the marker was.

    Objects in the foreign namespace are repeated for each such namespace.
    """
    text = text.replace("{{", '{{ "{{" }}')  # Grafana's own expressions
    text = text.replace('"--apply", ', '{{ if $.Values.apply }}"--apply", {{ end }}')
    options = "{{ range $.Values.options }}{{ . | toJson }}, {{ end }}"
    text = text.replace('"marker-options", ', options)
    # Not $namespace, by which objects are repeated below.
    searched = "{{ range $one := $.Values.namespaces }}--namespace, {{ $one | toJson }}, {{ end }}"
    text = text.replace(f'--namespace, "{FOREIGN}", ', searched)
    text = ANY_MARKER.sub(_expression, text)
    objects: list[str] = []
    for one in re.split(r"(?m)^---\n", text):
        if "$namespace" in one:
            loop = "{{- range $namespace := $.Values.namespaces }}"
            objects[-1] += f"{loop}\n---\n{one}{{{{- end }}}}\n"
        else:
            objects.append(one)
    return "---\n".join(objects)


def _expression(found: re.Match[str]) -> str:
    marker = found[0].strip('"')
    quoted = " | toJson" if marker != found[0] else ""
    return f"{{{{ {MARKERS[marker]}{quoted} }}}}"


if __name__ == "__main__":
    write(sys.argv[1])

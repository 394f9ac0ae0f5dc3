"""The Helm chart of the controller: the templates of `faro manifests`, filled with expressions.

    python charts/generate.py charts/faro

`faro manifests` fills the templates with values, and decides at once what depends on a setting.
The chart fills the same templates with Helm's expressions, and leaves such decisions to Helm.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from faro_ops.operate.kube import manifests


class Expression(str):
    """A Helm expression as the text of a template: `{{ CODE }}`.

    Within a longer string it must be a name, because Helm quotes only what `to_json` writes.
    """

    code: str

    def __new__(cls, code: str) -> Expression:
        made = super().__new__(cls, f"{{{{ {code} }}}}")
        made.code = code
        return made


RAYSERVE = 'eq $.Values.backend "rayserve"'
CEILINGS = Expression('eq $.Values.act "ceilings"')
# The Prometheus operator selects objects by labels that differ from cluster to cluster.
MONITOR_LABELS = "{{ with $.Values.monitorLabels }}{{ toYaml . | nindent 4 }}{{ end }}"
ALWAYS = ("rbac.yaml", "config.yaml", "controller.yaml", "network.yaml", "dashboard.yaml")
OPTIONAL = {  # files that a value switches on
    "monitor.yaml": Expression("$.Values.serviceMonitor"),
    "restore.yaml": CEILINGS,  # in a dry run, too: it restores what an earlier release has set
}


def when(condition: Expression, caller: Callable[[], str]) -> str:
    """Helm's condition, for a template's block `{% call when(condition) %}`."""
    return f"{{{{- if {condition.code} }}}}\n{caller()}{{{{- end }}}}\n"


def each(values: Expression, caller: Callable[[Expression], str]) -> str:
    """Helm's loop, for a template's block `{% call(value) each(values) %}`."""
    return f"{{{{- range $one := {values.code} }}}}\n{caller(Expression('$one'))}{{{{- end }}}}\n"


def literal(text: str) -> str:
    """The Helm template that renders `text`, which has expressions of Grafana or Prometheus."""
    return text.replace("{{", "{{ `{{` }}")


def to_json(value: Any, **options: Any) -> str:
    """The value as JSON. Helm writes that of an expression when it has evaluated it."""
    if isinstance(value, Expression):
        return f"{{{{ {value.code} | toJson }}}}"
    return json.dumps(value, **options)


def values() -> dict[str, Any]:
    """Variable of the templates -> its expression; see `manifests.values_of`."""
    name, namespace = Expression("$.Values.name"), Expression("$.Release.Namespace")
    rules = literal(manifests.RULES.read_text())
    return {
        **manifests.named_values(name, namespace, Expression("$.Values.deployments")),
        "backend": Expression("$.Values.backend"),
        "rayserve": Expression(RAYSERVE),
        "on_deployments": Expression(f"not ({RAYSERVE})"),
        "sets_replicas": Expression(f"not (or ({RAYSERVE}) ({CEILINGS.code}))"),
        "ceilings": CEILINGS,
        "apply": Expression("$.Values.apply"),
        "image": Expression("$.Values.image"),
        "policy": Expression("$.Values.policy"),
        "tick_s": Expression("$.Values.tickSeconds | toString"),
        "options": Expression("$.Values.options"),
        "prometheus": Expression("$.Values.prometheus"),
        "jobs_text": Expression("$.Values.jobs"),
        "jobs_hash": Expression("$.Values.jobs | sha256sum | trunc 16"),
        "kept_workers": Expression("sub $.Values.workers 1"),
        "namespaces": Expression(f"ternary list $.Values.namespaces ({RAYSERVE})"),
        "bounded_namespaces": Expression("$.Values.namespaces"),
        "operator_namespace": Expression("$.Values.operatorNamespace"),
        "monitoring_namespace": Expression("$.Values.monitoringNamespace"),
        "monitor_labels": MONITOR_LABELS,
        "dashboard": literal(manifests.DASHBOARD.read_text().rstrip()),
        "alerts": manifests.with_own_alert(rules, name, namespace),
    }


def helm_files() -> dict[str, str]:
    """File of the chart -> its text, for each file that is made from those of `faro manifests`."""
    environment = manifests.environment()
    environment.policies["json.dumps_function"] = to_json  # of the filter `tojson`
    environment.globals |= {"when": when, "each": each}
    filled = values()

    def text(name: str) -> str:
        return environment.get_template(name).render(filled)

    return {
        "crds/crd.yaml": text("crd.yaml"),
        **{f"templates/{name}": text(name) for name in ALWAYS},
        **{f"templates/{name}": when(OPTIONAL[name], partial(text, name)) for name in OPTIONAL},
    }


def write(folder: str | Path) -> None:
    """Write the generated files of the chart; values, schema and notes are written by hand."""
    for name, text in helm_files().items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    write(sys.argv[1])

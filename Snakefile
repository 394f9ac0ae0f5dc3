"""Faro: from traces to the figures of the paper. `snakemake --cores all`; `snakemake --list` says what each rule does."""

import json
import shlex
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)  # this checkout's library and no other

from faro_lib import pipeline
from faro_lib.config import PUBLISHED, load


configfile: "config/default.yaml"


try:
    CONFIG = load(config)
    DAYS = pipeline.check(CONFIG)
except (ValueError, OSError) as mistake:
    sys.stderr.write(f"{mistake}\n")
    sys.stderr.flush()
    raise SystemExit(2)

RESULTS = f"{CONFIG.results}/{CONFIG.stem}"
NOTEBOOKS = f"{RESULTS}/notebooks"
LOGS = f"{RESULTS}/logs"
PUBLISHED_TABLES = "data/published"

if workflow.is_main_process:  # `make figures` ends with this line
    Path(".snakemake").mkdir(exist_ok=True)
    Path(".snakemake/report").write_text(f"{Path(RESULTS).resolve() / 'report.html'}\n")

# A process of its own for each notebook, so that Ctrl-C reaches it at once.
RUN_NOTEBOOK = shlex.quote(sys.executable) + " -m faro_lib.pipeline.notebook"
RUN_NOTEBOOK += " {input.notebook} {output.notebook} {params.notebook:q} {log} {threads}"


def parameters(**values):
    """What a notebook is told, as the command line that runs it takes it."""
    return json.dumps(values)


def modules_of(notebook):
    """What a changed file of the library would change: the modules that a notebook imports, and theirs."""
    return pipeline.modules_of(notebook, workflow.basedir)


wildcard_constraints:
    replicas=r"\d+",


rule all:
    "Everything for the configured workload: all stages, the figures and the report."
    input:
        f"{RESULTS}/report.html",


include: "rules/traces.smk"
include: "rules/queueing.smk"
include: "rules/forecast.smk"
include: "rules/sloppify.smk"
include: "rules/simulate.smk"
include: "rules/ablation.smk"
include: "rules/sensitivity.smk"
include: "rules/scale.smk"
include: "rules/live.smk"
include: "rules/figures.smk"

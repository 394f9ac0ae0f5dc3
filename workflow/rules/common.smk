"""The checked configuration, folders and commands that all rules use.

A rule reruns when its inputs, parameters or code change. Its parameter `code` is a fingerprint of the notebook and of all
code that it runs (workflow/faro_pipeline/dependencies.py), so that notebooks are no inputs.
"""

import json
import os
import shlex
import sys
from pathlib import Path

sys.path[:0] = [workflow.basedir, f"{workflow.basedir}/workflow"]  # import this checkout's packages

import faro_pipeline as pipeline
from faro_pipeline.settings import load
from faro_ops.errors import message_of, one_line
from faro_lib.queueing.curve import read_curve
from faro_lib.workload import PUBLISHED, SYNTHETIC
from faro_lib.workload.readers import read_jobs


def committed(*paths):
    """Input files that travel with the checkout to jobs without a shared disk. `local` would keep these jobs here."""
    return [workflow.source_path(str(Path(path).absolute())) for path in paths]


def curves_of(table):
    """The files of measured latencies that a table of jobs names; a bad file is an error."""
    jobs = [job for job in read_jobs(table) if job.latency_curve] if table else []
    for job in jobs:
        read_curve(job.latency_curve, job)
    return committed(*sorted({job.latency_curve for job in jobs}))


try:
    CONFIG = load(config)
    DAYS = pipeline.check(
        CONFIG, here=workflow.is_main_process and workflow.resource_settings.nodes is None
    )
    CURVES = curves_of(CONFIG.jobs)
except (ValueError, OSError, ModuleNotFoundError) as error:
    if message_of(error) is None:
        raise
    sys.stderr.writelines(f"{one_line(line)}\n" for line in message_of(error).splitlines())
    sys.stderr.flush()
    raise SystemExit(2)

RESULTS = f"{CONFIG.results}/{CONFIG.stem}"
NOTEBOOKS = f"{RESULTS}/notebooks"
LOGS = f"{RESULTS}/logs"
PUBLISHED_TABLES = "data/published"
# The parameters of the generated workload; null for other workloads, which they do not change.
GENERATED = CONFIG.synthetic.model_dump() if CONFIG.workload == SYNTHETIC else None
# The paper's results, which apply to its own workload only.
COMPARED_WITH = PUBLISHED_TABLES if CONFIG.workload == PUBLISHED else None

if workflow.is_main_process and (
    report_path := os.getenv("FARO_REPORT")
):  # `make figures` prints it at the end
    Path(report_path).write_text(f"{Path(RESULTS).resolve() / 'report.html'}\n")

# The environment of a rule with `--software-deployment-method conda`; by default, rules run in Snakemake's environment.
ENVIRONMENT = f"{workflow.basedir}/environment.yml"
PYTHON = "python" if workflow.deployment_settings.deployment_method else shlex.quote(sys.executable)
PACKAGES = f"{workflow.basedir}:{workflow.basedir}/workflow"
COMMAND = f"PYTHONPATH={shlex.quote(PACKAGES)} {PYTHON} -m faro_pipeline"
RUN_NOTEBOOK = f"{COMMAND} notebook {{params.source}} {{output.notebook:q}} {{params.notebook:q}} {{log:q}} {{threads}}"

# Stage -> its tables, the names of its figures, and the options of `draw` in studies/figures/<stage>.py.
# Each rule file adds its stage.
DRAWINGS = {}


def parameters(**values):
    """The parameters of a notebook as JSON."""
    return json.dumps(values)


def code_of(source, figures=False):
    """The fingerprint of the code that a notebook or module runs, including plugins."""
    return pipeline.fingerprint(source, workflow.basedir, plugins=CONFIG.plugins, figures=figures)


def beside_the_report(*paths):
    """Those of the paths that are in the folder of the report, relative to it."""
    return [
        str(path).removeprefix(f"{RESULTS}/")
        for path in paths
        if str(path).startswith(f"{RESULTS}/")
    ]


def figures_named(*names):
    """Paths of figures. Each is a target: `snakemake --cores 2 results/synthetic/figures/policies.pdf`."""
    return [f"{RESULTS}/figures/{name}.{kind}" for name in names for kind in ("pdf", "png")]


def tables_in(folder, *names):
    return [f"{RESULTS}/{folder}/{name}" for name in names]


def files_of(workload, jobs):
    """The input files of a workload: its table of counts and its table of jobs, where it has them."""
    files = committed(jobs) if jobs else []
    if workload == PUBLISHED:  # read from data/raw, which is on this machine only
        return [*files, local(f"{CONFIG.raw}/{PUBLISHED}.sha256")]
    return [*files, *(committed(workload) if workload != SYNTHETIC else [])]

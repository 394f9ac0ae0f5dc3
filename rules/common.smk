"""What all rules share: the checked configuration, the folders, and the commands with their fingerprints.

What reruns when: a rule reruns when its inputs, its parameters or its code change. Its parameter `code` is a fingerprint of
the code that it runs (faro_lib/pipeline/dependencies.py), so the notebook itself is an `ancient` input.
"""

import json
import shlex
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)  # this checkout's library and no other

from faro_lib import pipeline
from faro_lib.config import load
from faro_lib.errors import message_of
from faro_lib.workload import PUBLISHED

try:
    CONFIG = load(config)
    DAYS = pipeline.check(CONFIG, here=workflow.is_main_process and workflow.resource_settings.nodes is None)
except (ValueError, OSError, ModuleNotFoundError) as error:
    if message_of(error) is None:
        raise
    sys.stderr.write(f"{message_of(error)}\n")
    sys.stderr.flush()
    raise SystemExit(2)

RESULTS = f"{CONFIG.results}/{CONFIG.stem}"
NOTEBOOKS = f"{RESULTS}/notebooks"
LOGS = f"{RESULTS}/logs"
PUBLISHED_TABLES = "data/published"
# Where the published values are of the configured workload; None for other workloads.
COMPARED_WITH = PUBLISHED_TABLES if CONFIG.workload == PUBLISHED else None

if workflow.is_main_process:  # `make figures` ends with this line
    Path(".snakemake").mkdir(exist_ok=True)
    Path(".snakemake/report").write_text(f"{Path(RESULTS).resolve() / 'report.html'}\n")

# The environment that a rule runs in with `--software-deployment-method conda`; otherwise it is the one that runs snakemake.
ENVIRONMENT = f"{workflow.basedir}/environment.yml"
PYTHON = "python" if workflow.deployment_settings.deployment_method else shlex.quote(sys.executable)
COMMAND = f"{PYTHON} -m faro_lib.pipeline"
RUN_NOTEBOOK = f"{COMMAND} notebook {{input.notebook}} {{output.notebook}} {{params.notebook:q}} {{log}} {{threads}}"

DRAWINGS = (
    {}
)  # stage -> its tables, the names of its figures, and the options of its `draw`; filled by the stages' rules


def parameters(**values):
    """The parameters of a notebook as its command line takes them."""
    return json.dumps(values)


def code_of(source, figures=False):
    """A fingerprint of the code that a notebook or module runs, the user's plugins included."""
    return pipeline.fingerprint(source, workflow.basedir, plugins=CONFIG.plugins, figures=figures)


def figures_named(*names):
    """The files of figures, so that each is a target: `snakemake --cores 2 results/synthetic/figures/policies.pdf`."""
    return [f"{RESULTS}/figures/{name}.{kind}" for name in names for kind in ("pdf", "png")]


def tables_in(folder, *names):
    return [f"{RESULTS}/{folder}/{name}" for name in names]


def files_of_the_workload():
    """The files that the traces are read from; a synthetic workload is generated from its seed."""
    files = [local(CONFIG.jobs)] if CONFIG.jobs else []
    if CONFIG.workload == PUBLISHED:
        return [*files, f"{CONFIG.raw}/{PUBLISHED}.sha256"]
    return [*files, *([local(CONFIG.workload)] if CONFIG.workload.endswith(".csv") else [])]

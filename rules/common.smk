"""What all rules share: the checked configuration, the folders, how a notebook is run and what it depends on."""

import json
import shlex
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)  # this checkout's library and no other

from faro_lib import pipeline
from faro_lib.config import PUBLISHED, load
from faro_lib.errors import message_of

try:
    CONFIG = load(config)
    DAYS = pipeline.check(CONFIG, here=workflow.is_main_process and workflow.resource_settings.nodes is None)
except (ValueError, OSError, ModuleNotFoundError) as mistake:
    if message_of(mistake) is None:
        raise
    sys.stderr.write(f"{message_of(mistake)}\n")
    sys.stderr.flush()
    raise SystemExit(2)

RESULTS = f"{CONFIG.results}/{CONFIG.stem}"
NOTEBOOKS = f"{RESULTS}/notebooks"
LOGS = f"{RESULTS}/logs"
PUBLISHED_TABLES = "data/published"

if workflow.is_main_process:  # `make figures` ends with this line
    Path(".snakemake").mkdir(exist_ok=True)
    Path(".snakemake/report").write_text(f"{Path(RESULTS).resolve() / 'report.html'}\n")

# The environment that a rule runs in with `--software-deployment-method conda`; otherwise it is the one that runs snakemake.
ENVIRONMENT = f"{workflow.basedir}/environment.yml"
PYTHON = "python" if workflow.deployment_settings.deployment_method else shlex.quote(sys.executable)
# A process of its own for each notebook, so that Ctrl-C reaches it at once.
RUN_NOTEBOOK = f"{PYTHON} -m faro_lib.pipeline notebook"
RUN_NOTEBOOK += " {input.notebook} {output.notebook} {params.notebook:q} {log} {threads}"


def parameters(**values):
    """What a notebook is message_of, as the command line that runs it takes it."""
    return json.dumps(values)


def modules_of(notebook):
    """What a changed file would change: the modules that a notebook imports, and theirs; the plugins, if it chooses by name."""
    modules = pipeline.modules_of(notebook, workflow.basedir)
    return [*modules, *(CONFIG.plugins if "faro_lib/registry.py" in modules else [])]


def figures_named(*names):
    """The files of figures, so that each can be asked for: `snakemake --cores 2 results/synthetic/figures/fig10_policies.pdf`."""
    return [f"{RESULTS}/figures/{name}.{kind}" for name in names for kind in ("pdf", "png")]


def files_of_the_workload():
    """What the traces are made of; a synthetic workload is made of its seed."""
    files = [local(CONFIG.jobs)] if CONFIG.jobs else []
    if CONFIG.workload == PUBLISHED:
        return [*files, f"{CONFIG.raw}/{PUBLISHED}.sha256"]
    return [*files, *([local(CONFIG.workload)] if CONFIG.workload.endswith(".csv") else [])]


def days_to_decide_on():
    """The last training days, counted from 1; the first of all has nothing before it to learn from."""
    return [day for day in range(DAYS - CONFIG.sloppify.days + 1, DAYS + 1) if day >= 2]


def figures_of_the_comparison():
    """What is drawn of the evaluation day; what a plan expects only where Faro-Sum plans."""
    return [
        *("fig01_timeline", "fig10_policies", "fig11_jobs", "fig12_spread"),
        *(["fig91_prediction"] if "Faro-Sum" in CONFIG.policies else []),
    ]


def figures_of_scale():
    """What the configured parts of the stage of scale draw."""
    parts = CONFIG.scale
    return [
        "fig15_effective",
        *(["fig14_mixed"] if CONFIG.or_middle(parts.mixed) else []),
        *(["fig70_larger_clusters"] if parts.clusters or parts.largest else []),
        # Groups need jobs of as many cores each, as they all have unless a table of jobs says otherwise.
        *(["fig07b_hierarchical_simulated"] if parts.clusters and not CONFIG.jobs else []),
        *(["fig02_sizes"] if parts.curve else []),
    ]

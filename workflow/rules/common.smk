"""The checked configuration, folders and commands that all rules use.

A rule reruns when its inputs, parameters or code change. Its parameter `code` is a fingerprint of
the notebook and of all code that it runs (workflow/faro_pipeline/dependencies.py), so that
notebooks are no inputs.
"""

import json
import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

# The folder of the repository, whichever Snakefile was named, also if another workflow uses this
# one as a module. Then the current folder is that workflow's, and the results are written there.
ROOT = str(Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1])
PACKAGES = [ROOT, f"{ROOT}/workflow"]  # the folders of this checkout's packages
sys.path[:0] = PACKAGES

from faro_ops.errors import message_of, one_line
from faro_pipeline import derived
from faro_pipeline.dependencies import Code
from faro_pipeline.start import latency_curves, start


def ours(path):
    """The path of a file or folder of the repository, relative to the current folder if inside."""
    return path if Path(ROOT) == Path.cwd() else f"{ROOT}/{path}"


def check_by_schema(settings):
    """Compare the settings with their JSON Schema, and add the defaults of absent ones."""
    try:
        validate(settings, "../schemas/config.schema.json")
    except WorkflowError as error:
        cause = error.__context__
        where = cause.json_path.removeprefix("$").removeprefix(".")
        raise ValueError(f"config: {where or 'settings'}: {cause.message}") from None


# Copy of a file of the checkout, whose folder has a new name in each run -> the file.
ORIGINALS = {}


def committed(*paths):
    """Input files that travel with the checkout to jobs without a shared disk.

    `local` would keep these jobs here.
    """
    files = [str(Path(path).absolute()) for path in paths]
    copies = [workflow.source_path(file) for file in files]
    ORIGINALS.update(zip(map(str, copies), files))
    return copies


def in_repository(path):
    """The path of a file relative to the repository, the same in each run; others as they are."""
    return ORIGINALS.get(str(path), str(path)).removeprefix(f"{ROOT}/")


def curves_of(table):
    """The files of measured latencies that a table of jobs names; a bad file is an error."""
    return committed(*latency_curves(table))


try:
    SETTINGS, DAYS = start(
        config,
        here=workflow.is_main_process and workflow.resource_settings.nodes is None,
        say=workflow.is_main_process,
        validate=check_by_schema,
    )
    CURVES = curves_of(SETTINGS["jobs"])
except (ValueError, OSError, ModuleNotFoundError) as error:
    if message_of(error) is None:
        raise
    sys.stderr.writelines(f"{one_line(line)}\n" for line in message_of(error).splitlines())
    sys.stderr.flush()
    raise SystemExit(2)

CONFIG = derived.attributes(SETTINGS)
RESULTS = f"{CONFIG.results}/{derived.stem_of(CONFIG.workload)}"
NOTEBOOKS = f"{RESULTS}/notebooks"
LOGS = f"{RESULTS}/logs"
PUBLISHED_TABLES = ours("data/published")
# The parameters of the generated workload; null for other workloads, which they do not change.
GENERATED = SETTINGS["synthetic"] if CONFIG.workload == derived.SYNTHETIC else None
# The paper's results, which apply to its own workload only.
COMPARED_WITH = PUBLISHED_TABLES if CONFIG.workload == derived.PUBLISHED else None

# `make figures` prints the path of its report at the end.
FARO_REPORT = os.getenv("FARO_REPORT")
if FARO_REPORT and workflow.is_main_process:
    Path(FARO_REPORT).write_text(f"{Path(RESULTS).resolve() / 'report.html'}\n")

# The environment of a rule with `--software-deployment-method conda`; by default, rules run in
# Snakemake's environment.
ENVIRONMENT = f"{ROOT}/environment.yml"
PYTHON = "python" if workflow.deployment_settings.deployment_method else shlex.quote(sys.executable)
RUN_MODULE = f"PYTHONPATH={shlex.quote(':'.join(PACKAGES))} {PYTHON} -m"
COMMAND = f"{RUN_MODULE} faro_pipeline"
IN_REPOSITORY = ours("") and shlex.quote(ours(""))
RUN_NOTEBOOK = (
    f"{COMMAND} notebook {IN_REPOSITORY}{{params.source}} {{output.notebook:q}} "
    "{params.notebook:q} {log:q} {threads}"
)

# Stage -> its tables, the names of its figures, and the options of `draw` in
# studies/<stage>/figures.py.
# Each rule file adds its stage.
DRAWINGS = {}

CODE = Code(ROOT)


def parameters(**values):
    """The parameters of a notebook as JSON."""
    return json.dumps(values)


def code_of(source, figures=False):
    """The fingerprint of the code that a notebook or module runs, including plugins."""
    return CODE.fingerprint(source, plugins=CONFIG.plugins, figures=figures)


def beside_the_report(*paths):
    """Those of the paths that are in the folder of the report, relative to it."""
    inside = [str(path) for path in paths if str(path).startswith(f"{RESULTS}/")]
    return [path.removeprefix(f"{RESULTS}/") for path in inside]


def figures_named(*names):
    """Paths of figures. Each is a target: `snakemake results/synthetic/figures/policies.pdf`."""
    return [f"{RESULTS}/figures/{name}.{kind}" for name in names for kind in ("pdf", "png")]


def picture(name, category, notebook):
    """The PNG of a figure, marked for `snakemake --report`."""
    captions = Path(RESULTS, "figures", "captions").absolute()
    return report(
        f"{RESULTS}/figures/{name}.png",
        caption=f"{captions}/{name}.rst",
        category=category,
        labels={"figure": name.replace("_", " "), "notebook": notebook},
    )


def tables_in(folder, *names):
    return [f"{RESULTS}/{folder}/{name}" for name in names]


def files_of(workload, jobs):
    """The input files of a workload: its tables of counts and of jobs, where it has them."""
    files = committed(jobs) if jobs else []
    if workload == derived.PUBLISHED:  # read from data/raw, which is on this machine only
        return [*files, local(f"{CONFIG.raw}/{derived.PUBLISHED}.sha256")]
    if workload == derived.SYNTHETIC:
        return files
    return [*files, *committed(workload)]


def files_of_world(world):
    """The input files of one of the further workloads of the stage `days`."""
    return [*files_of(world["workload"], world["jobs"]), *curves_of(world["jobs"])]


# The published values, which figures show for comparison.
PUBLISHED_VALUES = committed(*sorted(Path(PUBLISHED_TABLES).glob("*.csv")))

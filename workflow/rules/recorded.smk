"""Record the tables of data/ that pages are made of: `snakemake --cores all recorded_sharing`.

These rules declare no outputs. Snakemake would delete them before a run, and some runs continue
where they stopped. The last command of each writes the tables into the pages.
"""

from typing import NamedTuple


class Recorded(NamedTuple):
    """How an experiment is recorded."""

    commands: list[str]  # modules of `studies`, with their arguments
    pages: str  # the experiment that declares the tables in the pages
    data: list[str] = []  # of data/sources.yaml, which are fetched first
    after: list[str] = []  # files of the configured run, whose tables are copied


PUBLISHED_TRACES = [derived.PUBLISHED]
ON_KIND = [f"{RESULTS}/live/kind/summary.csv"]
KEPT_RUN = f"tables.keep {{}} {shlex.quote(str(Path(RESULTS).absolute()))}"
WHOLE_RUN = [f"{RESULTS}/report.html"]
RECORDED_RUNS = {
    "arrivals": Recorded(["arrivals.run"], "arrivals", ["azure-llm-2023"]),
    "disaggregated": Recorded(["disaggregated.run"], "disaggregated"),
    "engine": Recorded(["live.engine.trials", "live.engine.scale"], "engine"),
    "families": Recorded(["families.run"], "families"),
    "gpus": Recorded(["gpus.run"], "gpus", ["splitwise"]),
    "learning": Recorded(
        [f"live.learning {one}" for one in ("ray", "deployments", "deployments-random")],
        "misspecification",
    ),
    "llm": Recorded(["llm.run"], "llm", ["servegen", "azure-llm-2023"]),
    "misspecification": Recorded(
        ["misspecification.run", "misspecification.service_factor"],
        "misspecification",
        PUBLISHED_TRACES,
    ),
    "rivals": Recorded(
        ["rivals.run published", "rivals.run azure-2019"], "rivals", PUBLISHED_TRACES
    ),
    "sharing": Recorded(
        [
            "sharing.run",
            "sharing.kinds",
            "sharing.slower",
            "sharing.slower --trials 2 --cores 24",
            "sharing.wide",
            "sharing.wide doubling stop --seeds 8 --trials 1",  # the rows of 8 worlds
        ],
        "sharing",
        PUBLISHED_TRACES,
    ),
    "sharing_live": Recorded(
        ["live.sharing --stretch 4", "live.sharing --stretch 4 --binding early"], "sharing"
    ),
    # With the configuration of the run: config/paper.yaml, wide.yaml, live-full.yaml,
    # kind-full.yaml and kind-pool.yaml.
    "published": Recorded([KEPT_RUN.format("published")], "comparison", after=WHOLE_RUN),
    "wide": Recorded([KEPT_RUN.format("wide")], "days", after=WHOLE_RUN),
    "live": Recorded([KEPT_RUN.format("live")], "live", after=WHOLE_RUN),
    "kubernetes": Recorded([KEPT_RUN.format("kubernetes")], "kubernetes", after=ON_KIND),
    "kind_pool": Recorded([KEPT_RUN.format("kind_pool")], "sharing", after=ON_KIND),
}


def commands_of(recorded):
    """The commands of a recorded run, in the folder of the repository."""
    fetched = [f"faro_pipeline fetch {name}" for name in recorded.data]
    ran = [f"studies.{command}" for command in recorded.commands]
    written = [f"studies.tables.pages {recorded.pages}"]
    return " && ".join(f"{RUN_MODULE} {one}" for one in [*fetched, *ran, *written])


for experiment, recorded in RECORDED_RUNS.items():

    rule:
        "Record an experiment again, and write its tables into the pages."
        name:
            f"recorded_{experiment}"
        input:
            recorded.after,
        log:
            f"{LOGS}/recorded_{experiment}.log",
        benchmark:
            f"{LOGS}/recorded_{experiment}.bench"
        conda:
            ENVIRONMENT
        params:
            folder=ROOT,
            commands=commands_of(recorded),
        message:
            f"recorded_{experiment}"
        shell:
            "(cd {params.folder:q} && {params.commands}) 2>&1 | tee {log:q}"

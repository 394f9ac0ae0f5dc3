"""The pipeline from traces to figures. Run it with `snakemake --cores all`; `snakemake --list` describes the rules."""


configfile: "config/default.yaml"


wildcard_constraints:
    capacity=r"\d+",


include: "rules/common.smk"


rule all:
    "Run all stages of the configured workload and write the report."
    input:
        f"{RESULTS}/report.html",


include: "rules/traces.smk"
include: "rules/queueing.smk"
include: "rules/forecast.smk"
include: "rules/sloppify.smk"
include: "rules/simulate.smk"
include: "rules/ablation.smk"
include: "rules/sensitivity.smk"
include: "rules/days.smk"
include: "rules/scale.smk"
include: "rules/live.smk"
include: "rules/replicas.smk"
include: "rules/arena.smk"
include: "rules/figures.smk"


onstart:
    Path(".snakemake/errors").unlink(missing_ok=True)


onerror:
    if Path(".snakemake/errors").exists():
        sys.stderr.write("\nFinished stages are kept; the same command resumes the run. Errors of this run:\n")
        sys.stderr.write(Path(".snakemake/errors").read_text())

"""Stage 20: compare latency formulas, and measure the latency table that policies use."""


rule queueing:
    "Compare latency formulas with exact M/D/c, and simulate each class of jobs at constant rates."
    input:
        jobs=rules.traces.output.jobs,
        curves=CURVES,
    output:
        table=f"{RESULTS}/queueing/measured.npz",
        tables=tables_in(
            "queueing", "half_against_exact.csv", "relaxed_latency.csv", "drop_penalty.csv"
        ),
        notebook=f"{NOTEBOOKS}/20_queueing.ipynb",
    log:
        f"{LOGS}/20_queueing.log",
    benchmark:
        f"{LOGS}/20_queueing.bench"
    conda:
        ENVIRONMENT
    params:
        source="notebooks/20_queueing.ipynb",
        code=code_of("20_queueing"),
        notebook=parameters(results=RESULTS),
    message:
        "queueing: 20_queueing"
    shell:
        RUN_NOTEBOOK


DRAWINGS["queueing"] = {
    "tables": rules.queueing.output.tables,
    "figures": ["relaxations", "half_wait"],
}

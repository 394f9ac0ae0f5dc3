"""Stage 20, how long a request waits: the latency formulas, and the measured table that decisions use."""


rule queueing:
    "Compare the latency formulas with exact M/D/c and measure the jobs' classes at constant rates."
    input:
        notebook=ancient(local("notebooks/20_queueing.ipynb")),
        jobs=rules.traces.output.jobs,
    output:
        table=f"{RESULTS}/queueing/measured.npz",
        tables=tables_in("queueing", "half_against_exact.csv", "relaxed_latency.csv", "drop_penalty.csv"),
        notebook=f"{NOTEBOOKS}/20_queueing.ipynb",
    log:
        f"{LOGS}/20_queueing.log",
    benchmark:
        f"{LOGS}/20_queueing.bench"
    conda:
        ENVIRONMENT
    params:
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

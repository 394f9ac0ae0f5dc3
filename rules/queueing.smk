"""Stage 20: how long does a request wait? The formulas, and the measured table that every decision rests on."""


rule queueing:
    "Compare the latency formulas with each other and with exact M/D/c; measure the jobs' classes at constant rates."
    input:
        notebook=local("notebooks/20_queueing.ipynb"),
        modules=local(modules_of("20_queueing")),
        jobs=rules.traces.output.jobs,
    output:
        table=f"{RESULTS}/queueing/measured.npz",
        half=f"{RESULTS}/queueing/half_against_exact.csv",
        captions=f"{RESULTS}/figures/captions-queueing.json",
        figures=figures_named("fig06_relaxations", "fig20_half_against_exact"),
        notebook=f"{NOTEBOOKS}/20_queueing.ipynb",
    log:
        f"{LOGS}/20_queueing.log",
    benchmark:
        f"{LOGS}/20_queueing.bench"
    conda:
        ENVIRONMENT
    params:
        notebook=parameters(results=RESULTS),
    message:
        "queueing: 20_queueing"
    shell:
        RUN_NOTEBOOK

"""Stage 65: where the margin ends. A parameter with an empty list is left out, the stage if all are."""


rule sensitivity:
    "Replay a slice of the evaluation day under other parameters, one at a time."
    input:
        notebook=local("notebooks/65_sensitivity.ipynb"),
        modules=local(modules_of("65_sensitivity")),
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
        measured=rules.queueing.output.table,
        posterior=rules.forecast.output.posterior if DAYS >= 2 else [],
    output:
        summary=f"{RESULTS}/sensitivity/summary.csv",
        captions=f"{RESULTS}/figures/captions-sensitivity.json",
        figures=figures_named("fig65_sensitivity"),
        notebook=f"{NOTEBOOKS}/65_sensitivity.ipynb",
    log:
        f"{LOGS}/65_sensitivity.log",
    benchmark:
        f"{LOGS}/65_sensitivity.bench"
    conda:
        ENVIRONMENT
    params:
        notebook=parameters(
            results=RESULTS,
            **CONFIG.sensitivity.model_dump()
            | dict(replicas=CONFIG.sensitivity.replicas or CONFIG.or_middle(None)[0]),
        ),
    message:
        "sensitivity: 65_sensitivity"
    shell:
        RUN_NOTEBOOK

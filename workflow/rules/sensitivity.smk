"""Stage 65: vary one parameter at a time.

An empty list skips a parameter; without parameters, the stage is off.
"""

VARIED = [name for name in derived.PARAMETERS if len(set(getattr(CONFIG.sensitivity, name))) > 1]


rule sensitivity:
    "Simulate a slice of the evaluation day, varying one parameter at a time."
    input:
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
        measured=rules.queueing.output.table,
        curves=CURVES,
        posterior=rules.forecast.output.posterior if DAYS >= 2 else [],
    output:
        tables=tables_in("sensitivity", "summary.csv"),
        notebook=f"{NOTEBOOKS}/65_sensitivity.ipynb",
    log:
        f"{LOGS}/65_sensitivity.log",
    benchmark:
        f"{LOGS}/65_sensitivity.bench"
    priority: 1  # only its own figure waits for it
    conda:
        ENVIRONMENT
    params:
        source="notebooks/65_sensitivity.ipynb",
        code=code_of("65_sensitivity"),
        notebook=parameters(
            results=RESULTS,
            forecaster=CONFIG.forecaster,
            **SETTINGS["sensitivity"]
            | {"capacity": CONFIG.sensitivity.capacity or derived.or_middle(CONFIG, None)[0]},
        ),
    message:
        "sensitivity: 65_sensitivity"
    shell:
        RUN_NOTEBOOK


DRAWINGS["sensitivity"] = {
    "tables": rules.sensitivity.output.tables,
    "figures": ["sensitivity"] if VARIED else [],
}

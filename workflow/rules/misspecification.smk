"""Stage 67: services that are not as stated, under Faro that learns and under rivals.

Without capacities, the stage is off.
"""


rule misspecification:
    "Simulate services whose times differ from what the policies assume."
    input:
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
    output:
        tables=tables_in("misspecification", "runs.csv", "choices.csv"),
        notebook=f"{NOTEBOOKS}/67_misspecification.ipynb",
    log:
        f"{LOGS}/67_misspecification.log",
    benchmark:
        f"{LOGS}/67_misspecification.bench"
    conda:
        ENVIRONMENT
    params:
        source="notebooks/67_misspecification.ipynb",
        code=code_of("67_misspecification"),
        notebook=parameters(
            results=RESULTS,
            # The posterior of stage 30 is not needed: `auto` without it is fitted in seconds.
            forecaster="auto" if CONFIG.forecaster == "bayes" else CONFIG.forecaster,
            **SETTINGS["misspecification"]
            | {"capacities": derived.or_middle(CONFIG, CONFIG.misspecification.capacities)},
        ),
    message:
        "misspecification: 67_misspecification"
    shell:
        RUN_NOTEBOOK


DRAWINGS["misspecification"] = {
    "tables": rules.misspecification.output.tables,
    "figures": ["misspecification"],
}

"""Stage 85: a mix of serial, batched and token-generating replicas.

Without capacities, the stage is off.
"""


rule replicas:
    "Simulate jobs with different kinds of replica under policies that know or ignore the kind."
    input:
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
    output:
        tables=tables_in("replicas", "runs.csv", "paired.csv"),
        notebook=f"{NOTEBOOKS}/85_replicas.ipynb",
    log:
        f"{LOGS}/85_replicas.log",
    benchmark:
        f"{LOGS}/85_replicas.bench"
    conda:
        ENVIRONMENT
    params:
        source="notebooks/85_replicas.ipynb",
        code=code_of("85_replicas"),
        notebook=parameters(
            results=RESULTS,
            # A posterior is of the published counts, which this stage scales.
            forecaster="auto" if CONFIG.forecaster == "bayes" else CONFIG.forecaster,
            **SETTINGS["replicas"]
            | {"capacities": derived.or_middle(CONFIG, CONFIG.replicas.capacities)},
        ),
    message:
        "replicas: 85_replicas"
    shell:
        RUN_NOTEBOOK


DRAWINGS["replicas"] = {
    "tables": rules.replicas.output.tables,
    "figures": ["kinds_of_replica"],
}

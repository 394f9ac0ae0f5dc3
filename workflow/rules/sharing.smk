"""Stage 45: replicas that hold the models of several jobs.

Without capacities, the stage is off.
"""


rule sharing:
    "Simulate replicas that hold one, two or more models, under Faro and under rivals."
    input:
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
    output:
        tables=tables_in("sharing", "runs.csv", "placement.csv"),
        notebook=f"{NOTEBOOKS}/45_sharing.ipynb",
    log:
        f"{LOGS}/45_sharing.log",
    benchmark:
        f"{LOGS}/45_sharing.bench"
    conda:
        ENVIRONMENT
    params:
        source="notebooks/45_sharing.ipynb",
        code=code_of("45_sharing"),
        notebook=parameters(
            results=RESULTS,
            # The posterior of stage 30 is not needed: `auto` without it is fitted in seconds.
            forecaster="auto" if CONFIG.forecaster == "bayes" else CONFIG.forecaster,
            **SETTINGS["sharing"]
            | {"capacities": derived.or_middle(CONFIG, CONFIG.sharing.capacities)},
        ),
    message:
        "sharing: 45_sharing"
    shell:
        RUN_NOTEBOOK


DRAWINGS["sharing"] = {
    "tables": rules.sharing.output.tables,
    "figures": ["shared_replicas", "placement_of_models"],
}

"""Stage 75: judge policies on several days of this workload and of others.

Without days, the stage is off.
"""

# Name of a workload -> what notebook 75 reads and judges.
WORLDS = derived.worlds(CONFIG, DAYS)
OWN_WORLD = derived.stem_of(CONFIG.workload)


rule days:
    "Simulate several days of a workload under every policy, each with what was known before it."
    input:
        lambda wildcards: (
            [rules.traces.output.requests, rules.traces.output.jobs, *CURVES]
            if wildcards.world == OWN_WORLD
            else files_of_world(WORLDS[wildcards.world])
        ),
    output:
        tables=tables_in("days/{world}", "blocks.parquet", "paired.csv"),
        notebook=f"{NOTEBOOKS}/75_days-{{world}}.ipynb",
    log:
        f"{LOGS}/75_days-{{world}}.log",
    benchmark:
        f"{LOGS}/75_days-{{world}}.bench"
    conda:
        ENVIRONMENT
    params:
        source="notebooks/75_days.ipynb",
        code=code_of("75_days"),
        notebook=lambda wildcards: parameters(
            results=RESULTS,
            name=wildcards.world,
            own=wildcards.world == OWN_WORLD,
            raw=CONFIG.raw,
            trials=CONFIG.days.trials,
            policies=CONFIG.days.policies,
            forecasters=CONFIG.days.forecasters,
            **WORLDS[wildcards.world],
        ),
    message:
        "days: 75_days of {wildcards.world}"
    shell:
        RUN_NOTEBOOK


DRAWINGS["days"] = {
    "tables": [table for world in WORLDS for table in tables_in(f"days/{world}", "paired.csv")],
    "figures": ["days_and_workloads"],
    "options": {"worlds": list(WORLDS), "leader": CONFIG.days.policies[-1]},
}

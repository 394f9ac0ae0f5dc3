"""Stage 50: compare policies by simulation.

There is one job per capacity, and not one per policy, because starting a kernel takes seconds.
"""

SIMULATED = [
    "summary.csv",
    "limit.csv",
    "minutes.parquet",
    "decisions.parquet",
    "running.parquet",
    "clairvoyant.parquet",
]


rule simulate:
    "Simulate the evaluation day at one capacity under every policy, in several trials."
    input:
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
        measured=rules.queueing.output.table,
        posterior=rules.forecast.output.posterior if DAYS >= 2 else [],
    output:
        tables=tables_in("simulate/{capacity}", *SIMULATED),
        notebook=f"{NOTEBOOKS}/50_simulation-{{capacity}}.ipynb",
    log:
        f"{LOGS}/50_simulation-{{capacity}}.log",
    benchmark:
        f"{LOGS}/50_simulation-{{capacity}}.bench"
    priority: 2  # the report waits for it
    conda:
        ENVIRONMENT
    params:
        source="notebooks/50_simulation.ipynb",
        code=code_of("50_simulation"),
        notebook=lambda wildcards: parameters(
            results=RESULTS,
            capacity=int(wildcards.capacity),
            trials=CONFIG.trials,
            policies=CONFIG.policies,
            forecaster=CONFIG.forecaster,
            minutes=CONFIG.minutes,
            published=COMPARED_WITH is not None,
        ),
    message:
        "simulate: 50_simulation at {wildcards.capacity} cores"
    shell:
        RUN_NOTEBOOK


rule simulated:
    "Join the tables of all capacities."
    input:
        [tables_in(f"simulate/{capacity}", *SIMULATED) for capacity in CONFIG.capacities],
    output:
        tables=[
            report(
                f"{RESULTS}/simulate/{SIMULATED[0]}",
                caption="../report/summary.rst",
                category="Summary",
            ),
            *tables_in("simulate", *SIMULATED[1:]),
        ],
    log:
        f"{LOGS}/simulated.log",
    benchmark:
        f"{LOGS}/simulated.bench"
    conda:
        ENVIRONMENT
    params:
        code=code_of("studies/tables/frames.py"),
    message:
        "simulated: all capacities in one table"
    shell:
        f"{COMMAND} join studies.tables.frames {{output.tables[0]:q}} {{input:q}} 2> {{log:q}}"


DRAWINGS["comparison"] = {
    "tables": [*rules.simulated.output.tables, rules.traces.output.jobs],
    "figures": [
        "lost_utility_over_the_day",
        "policies",
        "replicas_by_job",
        "spread_over_jobs",
        # Of the plans of Faro-Sum.
        *(["predicted_latency"] if "Faro-Sum" in CONFIG.policies else []),
    ],
    "options": {"published": COMPARED_WITH},
}

"""Stage 50: the paper's comparison, replayed; one job per capacity, not per seed, as a kernel takes seconds to start."""

SIMULATED = [
    *["summary.csv", "limit.csv"],
    *[f"{table}.parquet" for table in ("minutes", "decisions", "running", "clairvoyant")],
]


rule simulate:
    "Replay the evaluation day under every policy, trial by trial, at one capacity."
    input:
        notebook=ancient(local("notebooks/50_simulation.ipynb")),
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
    priority: 1  # most stages wait for it
    conda:
        ENVIRONMENT
    params:
        code=code_of("50_simulation"),
        notebook=lambda wildcards: parameters(
            results=RESULTS,
            capacity=int(wildcards.capacity),
            trials=CONFIG.trials,
            policies=CONFIG.policies,
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
        tables=tables_in("simulate", *SIMULATED),
    log:
        f"{LOGS}/simulated.log",
    benchmark:
        f"{LOGS}/simulated.bench"
    conda:
        ENVIRONMENT
    params:
        code=code_of("faro_lib/metrics/frames.py"),
    message:
        "simulated: all capacities in one table"
    shell:
        f"{COMMAND} join {{output.tables[0]:q}} {{input:q}} 2> {{log}}"


DRAWINGS["comparison"] = {
    "tables": [*rules.simulated.output.tables, rules.traces.output.jobs],
    "figures": [
        *("lost_utility_over_the_day", "policies", "replicas_by_job", "spread_over_jobs"),
        *(["predicted_latency"] if "Faro-Sum" in CONFIG.policies else []),  # of the plans of Faro-Sum
    ],
    "options": {"published": COMPARED_WITH},
}

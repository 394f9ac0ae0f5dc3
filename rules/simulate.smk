"""Stage 50: the paper's comparison, replayed. Scattered over cluster sizes, not over seeds: a kernel start costs seconds."""

SIMULATED = [
    *["summary.csv", "limit.csv"],
    *[f"{table}.parquet" for table in ("minutes", "decisions", "running", "clairvoyant")],
]


rule simulate:
    "Replay the evaluation day under every policy, trial by trial, at one cluster size."
    input:
        notebook=local("notebooks/50_simulation.ipynb"),
        modules=local(modules_of("50_simulation")),
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
        measured=rules.queueing.output.table,
        posterior=rules.forecast.output.posterior if DAYS >= 2 else [],
    output:
        tables=[f"{RESULTS}/simulate/{{replicas}}/{table}" for table in SIMULATED],
        notebook=f"{NOTEBOOKS}/50_simulation-{{replicas}}.ipynb",
    log:
        f"{LOGS}/50_simulation-{{replicas}}.log",
    benchmark:
        f"{LOGS}/50_simulation-{{replicas}}.bench"
    priority: 1  # most waits for it
    conda:
        ENVIRONMENT
    params:
        notebook=lambda wildcards: parameters(
            results=RESULTS,
            replicas=int(wildcards.replicas),
            trials=CONFIG.trials,
            policies=CONFIG.policies,
            minutes=CONFIG.minutes,
        ),
    message:
        "simulate: 50_simulation at {wildcards.replicas} replicas"
    shell:
        RUN_NOTEBOOK


rule simulated:
    "Join the tables of all cluster sizes."
    input:
        expand(f"{RESULTS}/simulate/{{replicas}}/{{table}}", replicas=CONFIG.capacities, table=SIMULATED),
    output:
        tables=[f"{RESULTS}/simulate/{table}" for table in SIMULATED],
    log:
        f"{LOGS}/simulated.log",
    benchmark:
        f"{LOGS}/simulated.bench"
    message:
        "simulated: all cluster sizes in one table"
    run:
        from faro_lib.metrics.frames import gather

        gather(sorted({Path(table).parent for table in input}, reverse=True), Path(output.tables[0]).parent)

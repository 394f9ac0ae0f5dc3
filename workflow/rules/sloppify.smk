"""Stage 40: compare solvers, and exact with relaxed formulations.

The decisions are of the last training days.
"""

# The last training days, counted from 1. Day 1 is left out, because a forecaster has no earlier day
# to learn from.
DECISION_DAYS = [day for day in range(DAYS - CONFIG.sloppify.days + 1, DAYS + 1) if day >= 2]


rule sloppify:
    "Solve the same decisions with every solver, exactly and relaxed, and score the results."
    input:
        files=files_of(CONFIG.workload, CONFIG.jobs),
    output:
        tables=tables_in("sloppify", "solvers.csv", "scored.csv", "utility.csv"),
        notebook=f"{NOTEBOOKS}/40_sloppification.ipynb",
    log:
        f"{LOGS}/40_sloppification.log",
    benchmark:
        f"{LOGS}/40_sloppification.bench"
    conda:
        ENVIRONMENT
    params:
        source="notebooks/40_sloppification.ipynb",
        code=code_of("40_sloppification"),
        notebook=parameters(
            results=RESULTS,
            workload=CONFIG.workload,
            jobs=CONFIG.jobs,
            raw=CONFIG.raw,
            synthetic=GENERATED,
            capacities=CONFIG.capacities,
            **SETTINGS["sloppify"] | {"days": DECISION_DAYS},
        ),
    message:
        "sloppify: 40_sloppification"
    shell:
        RUN_NOTEBOOK


DRAWINGS["sloppify"] = {
    "tables": rules.sloppify.output.tables,
    "figures": [
        "utility_of_latency",
        "solver_time_and_gap",
        "sloppification",
        *(["solver_scaling"] if len(set(CONFIG.sloppify.job_counts)) > 1 else []),
    ],
}

"""Stage 70: two models, more jobs, more capacities.

An empty list skips a part; without parts, the stage is off.
"""

MIXED = derived.or_middle(CONFIG, CONFIG.scale.mixed)
LARGER = CONFIG.scale.clusters or CONFIG.scale.largest


rule scale:
    "Simulate the evaluation day with two models, more jobs and more capacities."
    input:
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
        measured=rules.queueing.output.table,
        curves=CURVES,
        posterior=rules.forecast.output.posterior if DAYS >= 2 else [],
    output:
        tables=tables_in(
            "scale",
            "summary.csv",
            "limit.csv",
            "sizes.csv",
            *(["curve.csv", "curve_limit.csv"] if CONFIG.scale.curve else []),
        ),
        notebook=f"{NOTEBOOKS}/70_scale.ipynb",
    log:
        f"{LOGS}/70_scale.log",
    benchmark:
        f"{LOGS}/70_scale.bench"
    # With the ablation the longest stage on one core; both run before a live stage 80, which needs
    # all cores.
    priority: 3
    conda:
        ENVIRONMENT
    params:
        source="notebooks/70_scale.ipynb",
        code=code_of("70_scale"),
        notebook=parameters(
            results=RESULTS,
            forecaster=CONFIG.forecaster,
            day_minutes=CONFIG.minutes,
            **SETTINGS["scale"] | {"mixed": MIXED},
        ),
    message:
        "scale: 70_scale"
    shell:
        RUN_NOTEBOOK


DRAWINGS["scale"] = {
    "tables": rules.scale.output.tables + tables_in("simulate", "summary.csv", "limit.csv"),
    "figures": [
        "effective_utility",
        *(["two_models"] if MIXED else []),
        *(["larger_clusters"] if LARGER else []),
        *(["lost_utility_by_capacity"] if CONFIG.scale.curve else []),
    ],
    "options": {"published": COMPARED_WITH, "curve": bool(CONFIG.scale.curve)},
}

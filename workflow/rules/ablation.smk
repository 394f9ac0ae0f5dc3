"""Stage 60: measure the effect of each design step. `ablation: {capacities: []}` turns it off."""


rule ablation:
    "Simulate the evaluation day at every step of the ablation."
    input:
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
        measured=rules.queueing.output.table,
        posterior=rules.forecast.output.posterior if DAYS >= 2 else [],
    output:
        tables=tables_in(
            "ablation", "summary.csv", "limit.csv", "steps.csv", "remaining.csv", "learning.csv"
        ),
        notebook=f"{NOTEBOOKS}/60_ablation.ipynb",
    log:
        f"{LOGS}/60_ablation.log",
    benchmark:
        f"{LOGS}/60_ablation.bench"
    priority: 3  # as the scale stage
    conda:
        ENVIRONMENT
    params:
        source="notebooks/60_ablation.ipynb",
        code=code_of("60_ablation"),
        notebook=parameters(
            results=RESULTS,
            forecaster=CONFIG.forecaster,
            published=COMPARED_WITH is not None,
            **SETTINGS["ablation"]
            | {
                "capacities": derived.or_middle(CONFIG, CONFIG.ablation.capacities),
                "minutes": derived.shorter(CONFIG.minutes, CONFIG.ablation.minutes),
            },
        ),
    message:
        "ablation: 60_ablation"
    shell:
        RUN_NOTEBOOK


DRAWINGS["ablation"] = {
    "tables": rules.ablation.output.tables,
    "figures": ["ablation", "remaining_loss", "learned_latency"],
    "options": {"published": COMPARED_WITH},
}

"""Stage 60: what each step is worth, the paper's and then ours. Switched off by `ablation: {capacities: []}`."""


rule ablation:
    "Replay the evaluation day under every step of the ablation."
    input:
        notebook=local("notebooks/60_ablation.ipynb"),
        modules=local(modules_of("60_ablation")),
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
        measured=rules.queueing.output.table,
        posterior=rules.forecast.output.posterior if DAYS >= 2 else [],
        published=local(f"{PUBLISHED_TABLES}/published_ablation.csv"),
    output:
        summary=f"{RESULTS}/ablation/summary.csv",
        limit=f"{RESULTS}/ablation/limit.csv",
        captions=f"{RESULTS}/figures/captions-ablation.json",
        figures=figures_named("fig16_ablation", "fig60_remaining", "fig02_learning"),
        notebook=f"{NOTEBOOKS}/60_ablation.ipynb",
    log:
        f"{LOGS}/60_ablation.log",
    benchmark:
        f"{LOGS}/60_ablation.bench"
    conda:
        ENVIRONMENT
    params:
        notebook=parameters(
            results=RESULTS,
            minutes=CONFIG.minutes,
            **CONFIG.ablation.model_dump() | dict(capacities=CONFIG.or_middle(CONFIG.ablation.capacities)),
            published=PUBLISHED_TABLES if CONFIG.workload == PUBLISHED else None,
        ),
    message:
        "ablation: 60_ablation"
    shell:
        RUN_NOTEBOOK

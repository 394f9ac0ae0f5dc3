"""Stage 70: two models, more jobs, more sizes. Each part with an empty list is left out, the stage if all are."""


rule scale:
    "Replay the evaluation day with two models, with more jobs, and at more cluster sizes."
    input:
        notebook=local("notebooks/70_scale.ipynb"),
        modules=local(modules_of("70_scale")),
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
        measured=rules.queueing.output.table,
        posterior=rules.forecast.output.posterior if DAYS >= 2 else [],
        simulated=[f"{RESULTS}/simulate/{table}.csv" for table in ("summary", "limit")],
        published=local(f"{PUBLISHED_TABLES}/published_main.csv"),
    output:
        summary=f"{RESULTS}/scale/summary.csv",
        captions=f"{RESULTS}/figures/captions-scale.json",
        figures=figures_named(*figures_of_scale()),
        notebook=f"{NOTEBOOKS}/70_scale.ipynb",
    log:
        f"{LOGS}/70_scale.log",
    benchmark:
        f"{LOGS}/70_scale.bench"
    priority: 1  # the longest of those that are left, on one core: before what asks for all
    conda:
        ENVIRONMENT
    params:
        notebook=parameters(
            results=RESULTS,
            day_minutes=CONFIG.minutes,
            **CONFIG.scale.model_dump() | dict(mixed=CONFIG.or_middle(CONFIG.scale.mixed)),
            published=PUBLISHED_TABLES if CONFIG.workload == PUBLISHED else None,
        ),
    message:
        "scale: 70_scale"
    shell:
        RUN_NOTEBOOK

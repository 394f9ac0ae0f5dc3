"""Stage 90: the figures, and one page with all of them."""


rule figures:
    "Draw the figures of the paper and ours from the tables of all stages."
    input:
        notebook=local("notebooks/90_figures.ipynb"),
        modules=local(modules_of("90_figures")),
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
        simulated=rules.simulated.output.tables,
        published=local([str(table) for table in sorted(Path(PUBLISHED_TABLES).glob("*.csv"))]),
    output:
        captions=f"{RESULTS}/figures/captions-comparison.json",
        figures=figures_named(*figures_of_the_comparison()),
        notebook=f"{NOTEBOOKS}/90_figures.ipynb",
    log:
        f"{LOGS}/90_figures.log",
    benchmark:
        f"{LOGS}/90_figures.bench"
    conda:
        ENVIRONMENT
    params:
        notebook=parameters(
            results=RESULTS,
            capacities=CONFIG.capacities,
            published=PUBLISHED_TABLES if CONFIG.workload == PUBLISHED else None,
        ),
    message:
        "figures: 90_figures"
    shell:
        RUN_NOTEBOOK


# Stages whose figures stand on the page; those that learn are left out where there are no days to learn from.
STAGES = [rules.traces, rules.queueing, rules.figures]
STAGES += [rules.kubernetes] if NODE_RUNS else []
if DAYS >= 2:
    STAGES += [rules.forecast, rules.sloppify]
    STAGES += [rules.ablation] if CONFIG.ablation.capacities != [] else []
    STAGES += [rules.sensitivity] if CONFIG.sensitivity.wanted else []
    STAGES += [rules.scale] if CONFIG.scale.wanted else []
    STAGES += [rules.live] if CONFIG.backend != "none" else []


rule report:
    "Write one self-contained page: figures, tables, configuration, versions, seeds."
    input:
        modules=local(modules_of("faro_lib/report/page.py")),
        template=local("faro_lib/report/page.html.jinja"),
        captions=[stage.output.captions for stage in STAGES],
        figures=[figure for stage in STAGES for figure in stage.output.figures],
        notebooks=[stage.output.notebook for stage in STAGES],
        summary=f"{RESULTS}/simulate/summary.csv",
    output:
        f"{RESULTS}/report.html",
    log:
        f"{LOGS}/report.log",
    benchmark:
        f"{LOGS}/report.bench"
    params:
        config=CONFIG.model_dump(),
    message:
        "report: {output}"
    run:
        from faro_lib.report import write_report

        write_report(Path(output[0]).parent, params.config, output[0])

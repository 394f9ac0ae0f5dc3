"""Stage 90: the figures, and one page with all of them."""


rule figures:
    "Draw the figures of the paper and ours from the tables of all stages."
    input:
        notebook="notebooks/90_figures.ipynb",
        modules=modules_of("90_figures"),
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
        simulated=rules.simulated.output.tables,
        published=[str(table) for table in sorted(Path(PUBLISHED_TABLES).glob("*.csv"))],
    output:
        captions=f"{RESULTS}/figures/captions-comparison.json",
        figures=figures_named("fig01_timeline", "fig10_policies", "fig11_jobs", "fig12_spread"),
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
            sizes=CONFIG.sizes,
            published=PUBLISHED_TABLES if CONFIG.workload == PUBLISHED else None,
        ),
    message:
        "figures: 90_figures"
    shell:
        RUN_NOTEBOOK


# Stages whose figures stand on the page; those that learn are left out where there are no days to learn from.
EARLIER_STAGES = [rules.queueing.output.notebook]
if DAYS >= 2:
    EARLIER_STAGES += [rules.forecast.output.notebook, rules.sloppify.output.notebook]
    EARLIER_STAGES += [rules.ablation.output.notebook] if CONFIG.ablation.sizes != [] else []
    EARLIER_STAGES += [rules.sensitivity.output.notebook] if CONFIG.sensitivity.wanted else []
    EARLIER_STAGES += [rules.scale.output.notebook] if CONFIG.scale.wanted else []
    EARLIER_STAGES += [rules.live.output.notebook] if CONFIG.backend != "none" else []


rule report:
    "Write one self-contained page: figures, tables, configuration, versions, seeds."
    input:
        modules=modules_of("faro_lib/report.py"),
        template="faro_lib/report.html.jinja",
        captions=rules.figures.output.captions,
        stages=[rules.figures.output.notebook, *EARLIER_STAGES],
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

        write_report(RESULTS, params.config, output[0])

"""The figures of every stage, drawn from its tables; stage 90 shows those of the comparison; and one page with all."""


rule figures:
    "Show the figures of the comparison next to the published values."
    input:
        notebook=ancient(local("notebooks/90_figures.ipynb")),
        jobs=rules.traces.output.jobs,
        simulated=rules.simulated.output.tables,
        published=local([str(table) for table in sorted(Path(PUBLISHED_TABLES).glob("*.csv"))]),
    output:
        notebook=f"{NOTEBOOKS}/90_figures.ipynb",
    log:
        f"{LOGS}/90_figures.log",
    benchmark:
        f"{LOGS}/90_figures.bench"
    conda:
        ENVIRONMENT
    params:
        code=code_of("90_figures", figures=True),
        notebook=parameters(results=RESULTS, published=COMPARED_WITH),
    message:
        "figures: 90_figures"
    shell:
        RUN_NOTEBOOK


for stage, drawing in DRAWINGS.items():

    rule:
        name:
            f"draw_{stage}"
        input:
            tables=drawing["tables"],
            published=local([str(table) for table in sorted(Path(PUBLISHED_TABLES).glob("*.csv"))]),
        output:
            captions=f"{RESULTS}/figures/captions-{stage}.json",
            figures=figures_named(*drawing["figures"]),
        log:
            f"{LOGS}/draw_{stage}.log",
        benchmark:
            f"{LOGS}/draw_{stage}.bench"
        conda:
            ENVIRONMENT
        params:
            code=code_of(f"faro_lib/figures/{stage}.py", figures=True),
            stage=stage,
            options=parameters(**drawing.get("options", {})),
        message:
            f"draw_{stage}: {', '.join(drawing['figures'])}"
        shell:
            f"{COMMAND} draw {{params.stage}} {{output.captions:q}} {{params.options:q}} 2> {{log}}"


# The stages whose figures are on the page; those that learn need days to learn from.
SHOWN = {"traces": rules.traces, "queueing": rules.queueing, "comparison": rules.figures}
SHOWN |= {"kubernetes": rules.kubernetes} if NODE_RUNS else {}
if DAYS >= 2:
    SHOWN |= {"forecast": rules.forecast, "sloppify": rules.sloppify}
    SHOWN |= {"ablation": rules.ablation} if CONFIG.ablation.capacities != [] else {}
    SHOWN |= {"sensitivity": rules.sensitivity} if CONFIG.sensitivity.wanted else {}
    SHOWN |= {"scale": rules.scale} if CONFIG.scale.wanted else {}
    SHOWN |= {"live": rules.live} if CONFIG.backend != "none" else {}


rule report:
    "Write one self-contained page: figures, tables, configuration, versions, seeds."
    input:
        template=local("faro_lib/report/page.html.jinja"),
        captions=[f"{RESULTS}/figures/captions-{stage}.json" for stage in SHOWN],
        figures=[figure for stage in SHOWN for figure in figures_named(*DRAWINGS[stage]["figures"])],
        notebooks=[rule.output.notebook for rule in SHOWN.values()],
        summary=f"{RESULTS}/simulate/summary.csv",
    output:
        page=f"{RESULTS}/report.html",
    log:
        f"{LOGS}/report.log",
    benchmark:
        f"{LOGS}/report.bench"
    conda:
        ENVIRONMENT
    params:
        code=code_of("faro_lib/report/page.py"),
        config=CONFIG.model_dump_json(),
    message:
        "report: {output.page}"
    shell:
        f"{COMMAND} report {{output.page:q}} {{params.config:q}} {{input.captions:q}} 2> {{log}}"

"""Draw the figures of all stages from their tables, and write the report. Stage 90 shows the comparison of policies."""


rule figures:
    "Show the comparison of policies next to the published values."
    input:
        jobs=rules.traces.output.jobs,
        simulated=rules.simulated.output.tables,
        published=committed(*sorted(Path(PUBLISHED_TABLES).glob("*.csv"))),
    output:
        notebook=f"{NOTEBOOKS}/90_figures.ipynb",
    log:
        f"{LOGS}/90_figures.log",
    benchmark:
        f"{LOGS}/90_figures.bench"
    conda:
        ENVIRONMENT
    params:
        source="notebooks/90_figures.ipynb",
        code=code_of("90_figures", figures=True),
        notebook=parameters(results=RESULTS, published=COMPARED_WITH),
    message:
        "figures: 90_figures"
    shell:
        RUN_NOTEBOOK


for stage, drawing in DRAWINGS.items():
    module_of_stage = f"studies.figures.{stage}"

    rule:
        name:
            f"draw_{stage}"
        input:
            tables=drawing["tables"],
            published=committed(*sorted(Path(PUBLISHED_TABLES).glob("*.csv"))),
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
            code=code_of(f"{module_of_stage.replace('.', '/')}.py", figures=True),
            module=module_of_stage,
            options=parameters(**drawing.get("options", {})),
        message:
            f"draw_{stage}: {', '.join(drawing['figures'])}"
        shell:
            f"{COMMAND} draw {{params.module}} {{output.captions:q}} {{params.options:q}} 2> {{log:q}}"


# The stages in the report. Stages that learn need at least two training days.
SHOWN = {"traces": rules.traces, "queueing": rules.queueing, "comparison": rules.figures}
SHOWN |= {"kubernetes": rules.kubernetes} if NODE_RUNS else {}
SHOWN |= {"arena": rules.arena} if ARENA else {}
if DAYS >= 2:
    SHOWN |= {"forecast": rules.forecast, "sloppify": rules.sloppify}
    SHOWN |= {"ablation": rules.ablation} if CONFIG.ablation.capacities != [] else {}
    SHOWN |= {"sensitivity": rules.sensitivity} if CONFIG.sensitivity.wanted else {}
    SHOWN |= {"scale": rules.scale} if CONFIG.scale.wanted else {}
    SHOWN |= {"days": rules.days} if CONFIG.days.judged != [] else {}
    SHOWN |= {"replicas": rules.replicas} if CONFIG.replicas.capacities != [] else {}
    SHOWN |= {"live": rules.live} if CONFIG.backend != "none" else {}
NOTEBOOK_OF = {stage: rule.output.notebook for stage, rule in SHOWN.items()}
FURTHER = [f"{NOTEBOOKS}/50_simulation-{capacity}.ipynb" for capacity in CONFIG.capacities]
if "days" in SHOWN:
    NOTEBOOK_OF["days"], *others = [f"{NOTEBOOKS}/75_days-{world}.ipynb" for world in WORLDS]
    FURTHER += others


rule report:
    "Write one self-contained HTML page with figures, tables, configuration, versions and seeds."
    input:
        template=committed("studies/report/page.html.jinja"),
        captions=[f"{RESULTS}/figures/captions-{stage}.json" for stage in SHOWN],
        figures=[figure for stage in SHOWN for figure in figures_named(*DRAWINGS[stage]["figures"])],
        notebooks=[*NOTEBOOK_OF.values(), *FURTHER],
        summary=tables_in("simulate", "summary.csv", "limit.csv", "minutes.parquet"),
        traces=[rules.traces.output.requests, rules.traces.output.jobs],
        forecast=(
            [*rules.forecast.output.tables, rules.forecast.output.posterior]
            if "forecast" in SHOWN
            else []
        ),
    output:
        page=f"{RESULTS}/report.html",
    log:
        f"{LOGS}/report.log",
    benchmark:
        f"{LOGS}/report.bench"
    conda:
        ENVIRONMENT
    params:
        code=code_of("studies/report/page.py", figures=True),
        config=CONFIG.model_dump_json(),
        sources=parameters(
            **{
                stage: beside_the_report(notebook, *DRAWINGS[stage]["tables"])
                for stage, notebook in NOTEBOOK_OF.items()
            }
        ),
    message:
        "report: {output.page}"
    shell:
        f"{COMMAND} report studies.report.page {{output.page:q}} {{params.config:q}} {{params.sources:q}} {{input.notebooks:q}} "
        "2> {log:q}"

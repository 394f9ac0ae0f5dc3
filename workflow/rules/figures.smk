"""Draw the figures of all stages from their tables, and write the report.

Stage 90 shows the comparison of policies.
"""


rule figures:
    "Show the comparison of policies next to the published values."
    input:
        jobs=rules.traces.output.jobs,
        simulated=rules.simulated.output.tables,
        published=PUBLISHED_VALUES,
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


# Categories of `snakemake --report`, and the stages whose figures they show.
CATEGORIES = {
    "Which policy wins?": ["comparison", "ablation", "scale"],
    "Where does the lead end?": [
        "sensitivity",
        "misspecification",
        "days",
        "replicas",
        "sharing",
        "llm",
        "arena",
    ],
    "Workload and model": ["traces", "queueing", "forecast", "sloppify"],
    "Real replicas": ["live", "kubernetes"],
}
CATEGORY_OF = {stage: category for category, stages in CATEGORIES.items() for stage in stages}
# Stage -> the name of its notebook.
NOTEBOOK_NAMES = {"comparison": "90_figures"}
for stage in set(DRAWINGS) - {"comparison"}:
    of_stage = Path(getattr(rules, stage).output.notebook)
    NOTEBOOK_NAMES[stage] = of_stage.stem.partition("-")[0]


for stage, drawing in DRAWINGS.items():
    module_of_stage = f"studies.{stage}.figures"
    sources_of_stage = [*drawing["tables"], f"notebooks/{NOTEBOOK_NAMES[stage]}.ipynb"]

    rule:
        name:
            f"draw_{stage}"
        input:
            tables=drawing["tables"],
            published=PUBLISHED_VALUES,
        output:
            captions=f"{RESULTS}/figures/captions-{stage}.json",
            pages=[f"{RESULTS}/figures/{name}.pdf" for name in drawing["figures"]],
            pictures=[
                picture(name, CATEGORY_OF[stage], NOTEBOOK_NAMES[stage])
                for name in drawing["figures"]
            ],
            texts=[f"{RESULTS}/figures/captions/{name}.rst" for name in drawing["figures"]],
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
            sources=[in_repository(path) for path in sources_of_stage],
        message:
            f"draw_{stage}: {', '.join(drawing['figures'])}"
        shell:
            f"{COMMAND} draw {{params.module}} {{output.captions:q}} {{params.options:q}} "
            "{params.sources:q} 2> {log:q}"


# The stages in the report: (stage, its rule, whether it runs). Those that learn need two training
# days.
LEARNING = DAYS >= 2
SHOWN = [
    ("traces", rules.traces, True),
    ("queueing", rules.queueing, True),
    ("comparison", rules.figures, True),
    ("kubernetes", rules.kubernetes, NODE_RUNS is not None),
    ("arena", rules.arena, ARENA is not None),
    ("forecast", rules.forecast, LEARNING),
    ("sloppify", rules.sloppify, LEARNING),
    ("ablation", rules.ablation, LEARNING and CONFIG.ablation.capacities != []),
    ("sensitivity", rules.sensitivity, LEARNING and derived.sensitivity_wanted(CONFIG.sensitivity)),
    (
        "misspecification",
        rules.misspecification,
        LEARNING and CONFIG.misspecification.capacities != [],
    ),
    ("scale", rules.scale, LEARNING and derived.scale_wanted(CONFIG.scale)),
    ("days", rules.days, LEARNING and CONFIG.days.judged != []),
    ("replicas", rules.replicas, LEARNING and CONFIG.replicas.capacities != []),
    ("sharing", rules.sharing, LEARNING and CONFIG.sharing.capacities != []),
    ("llm", rules.llm, CONFIG.llm.capacities != []),
    ("live", rules.live, LEARNING and CONFIG.backend != "none"),
]
NOTEBOOK_OF = {stage: rule.output.notebook for stage, rule, runs in SHOWN if runs}
FURTHER = [f"{NOTEBOOKS}/50_simulation-{capacity}.ipynb" for capacity in CONFIG.capacities]
if "days" in NOTEBOOK_OF:
    of_days = [f"{NOTEBOOKS}/75_days-{world}.ipynb" for world in WORLDS]
    NOTEBOOK_OF["days"] = of_days[0]
    FURTHER += of_days[1:]
SHOWN_FIGURES = [name for stage in NOTEBOOK_OF for name in DRAWINGS[stage]["figures"]]


# The record of the run, with copies of the workflow and the settings; it needs a package that an
# older environment lacks.
CRATE = ["ro-crate-metadata.json", "workflow/Snakefile", "config.yaml"]


rule report:
    "Write one self-contained HTML page with figures, tables, configuration, versions and seeds."
    input:
        template=committed(ours("studies/report/page.html.jinja")),
        captions=[f"{RESULTS}/figures/captions-{stage}.json" for stage in NOTEBOOK_OF],
        figures=figures_named(*SHOWN_FIGURES),
        notebooks=[*NOTEBOOK_OF.values(), *FURTHER],
        summary=tables_in("simulate", "summary.csv", "limit.csv", "minutes.parquet"),
        traces=[rules.traces.output.requests, rules.traces.output.jobs],
        forecast=(
            [*rules.forecast.output.tables, rules.forecast.output.posterior]
            if "forecast" in NOTEBOOK_OF
            else []
        ),
    output:
        page=report(f"{RESULTS}/report.html", caption="../report/page.rst", category="Summary"),
        crate=[f"{RESULTS}/{name}" for name in CRATE] if find_spec("rocrate") else [],
    log:
        f"{LOGS}/report.log",
    benchmark:
        f"{LOGS}/report.bench"
    conda:
        ENVIRONMENT
    params:
        code=code_of("studies/report/page.py", figures=True),
        config=parameters(**SETTINGS),
        sources=parameters(
            **{
                stage: beside_the_report(notebook, *DRAWINGS[stage]["tables"])
                for stage, notebook in NOTEBOOK_OF.items()
            }
        ),
    message:
        "report: {output.page}"
    shell:
        f"{COMMAND} report studies.report.page {{output.page:q}} {{params.config:q}} "
        "{params.sources:q} {input.notebooks:q} 2> {log:q}"

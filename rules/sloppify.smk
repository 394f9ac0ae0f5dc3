"""Stage 40: does it still help to be sloppy? Solvers and formulations on moments of the last training days."""


rule sloppify:
    "Solve the same decisions by every solver, precisely and relaxed, and judge both."
    input:
        notebook=local("notebooks/40_sloppification.ipynb"),
        modules=local(modules_of("40_sloppification")),
        files=files_of_the_workload(),
    output:
        solvers=f"{RESULTS}/sloppify/solvers.csv",
        captions=f"{RESULTS}/figures/captions-sloppify.json",
        figures=figures_named("fig04_utility", "fig05_solvers", "fig07_hierarchical", "fig40_sloppification"),
        notebook=f"{NOTEBOOKS}/40_sloppification.ipynb",
    log:
        f"{LOGS}/40_sloppification.log",
    benchmark:
        f"{LOGS}/40_sloppification.bench"
    conda:
        ENVIRONMENT
    params:
        notebook=parameters(
            results=RESULTS,
            workload=CONFIG.workload,
            jobs=CONFIG.jobs,
            raw=CONFIG.raw,
            synthetic=CONFIG.synthetic.model_dump(),
            capacities=CONFIG.capacities,
            **CONFIG.sloppify.model_dump() | dict(days=days_to_decide_on()),
        ),
    message:
        "sloppify: 40_sloppification"
    shell:
        RUN_NOTEBOOK

"""Stage 40: does it still help to be sloppy? Solvers and formulations on moments of the last training days."""


def days_to_decide_on():
    """The last training days, counted from 1; the first of all has nothing before it to learn from."""
    return [day for day in range(DAYS - CONFIG.sloppify.days + 1, DAYS + 1) if day >= 2]


rule sloppify:
    "Solve the same decisions by every solver, precisely and relaxed, and judge both."
    input:
        notebook="notebooks/40_sloppification.ipynb",
        modules=modules_of("40_sloppification"),
        files=files_of_the_workload(),
    output:
        solvers=f"{RESULTS}/sloppify/solvers.csv",
        notebook=f"{NOTEBOOKS}/40_sloppification.ipynb",
    log:
        f"{LOGS}/40_sloppification.log",
    benchmark:
        f"{LOGS}/40_sloppification.bench"
    params:
        notebook=parameters(
            results=RESULTS,
            workload=CONFIG.workload,
            jobs=CONFIG.jobs,
            raw=CONFIG.raw,
            synthetic=CONFIG.synthetic.model_dump(),
            sizes=CONFIG.sizes,
            **CONFIG.sloppify.model_dump() | dict(days=days_to_decide_on()),
        ),
    message:
        "sloppify: 40_sloppification"
    shell:
        RUN_NOTEBOOK

"""Stage 80: real requests on real replicas of Ray Serve. `backend: none` switches it off."""


rule live:
    "Serve a slice of the evaluation day on Ray Serve under each policy, and the same slice in the simulator."
    input:
        notebook=ancient(local("notebooks/80_live.ipynb")),
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
    output:
        tables=tables_in(f"live/{CONFIG.backend}", "summary.csv", "minutes.parquet", "decisions.parquet"),
        notebook=f"{NOTEBOOKS}/80_live.ipynb",
    log:
        f"{LOGS}/80_live.log",
    benchmark:
        f"{LOGS}/80_live.bench"
    conda:
        ENVIRONMENT
    threads: workflow.resource_settings.cores or 1  # nothing else may run beside what is timed
    params:
        code=code_of("80_live"),
        notebook=parameters(results=RESULTS, backend=CONFIG.backend, **CONFIG.live.model_dump()),
    message:
        "live: 80_live on {CONFIG.backend}"
    shell:
        RUN_NOTEBOOK


DRAWINGS["live"] = {
    "tables": rules.live.output.tables,
    "figures": ["live"],
    "options": {"backend": CONFIG.backend, "published": COMPARED_WITH},
}

# Runs on Kubernetes: the user's if there are any, else the recorded ones.
NODE_RUNS = next(
    (path for path in (f"{RESULTS}/live/kubernetes/e2e", "data/recorded-kubernetes") if Path(path).is_dir()), None
)


rule kubernetes:
    "Look at what policies did on a Kubernetes node, and at the cost of losing a worker."
    input:
        notebook=ancient(local("notebooks/81_kubernetes.ipynb")),
        tables=local(sorted(str(path) for path in Path(NODE_RUNS).iterdir())) if NODE_RUNS else [],
    output:
        notebook=f"{NOTEBOOKS}/81_kubernetes.ipynb",
    log:
        f"{LOGS}/81_kubernetes.log",
    benchmark:
        f"{LOGS}/81_kubernetes.bench"
    conda:
        ENVIRONMENT
    params:
        code=code_of("81_kubernetes", figures=True),
        notebook=parameters(results=RESULTS, tables=NODE_RUNS),
    message:
        "kubernetes: 81_kubernetes"
    shell:
        RUN_NOTEBOOK


if NODE_RUNS:
    DRAWINGS["kubernetes"] = {
        "tables": rules.kubernetes.input.tables,
        "figures": ["kubernetes"],
        "options": {"tables": NODE_RUNS},
    }

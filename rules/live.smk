"""Stage 80: real requests on real replicas of Ray Serve. Switched off by `backend: none`."""

LIVE_TABLES = ["summary.csv", "minutes.parquet", "decisions.parquet"]


rule live:
    "Serve a slice of the judged day on Ray Serve under each policy, and the same slice in the simulator."
    input:
        notebook=local("notebooks/80_live.ipynb"),
        modules=local(modules_of("80_live")),
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
    output:
        tables=[f"{RESULTS}/live/{CONFIG.backend}/{table}" for table in LIVE_TABLES],
        captions=f"{RESULTS}/figures/captions-live.json",
        figures=figures_named("fig80_live", "fig80_live_minutes"),
        notebook=f"{NOTEBOOKS}/80_live.ipynb",
    log:
        f"{LOGS}/80_live.log",
    benchmark:
        f"{LOGS}/80_live.bench"
    conda:
        ENVIRONMENT
    threads: workflow.cores  # nothing else may run beside what is timed
    params:
        notebook=parameters(results=RESULTS, backend=CONFIG.backend, **CONFIG.live.model_dump()),
    message:
        "live: 80_live on {CONFIG.backend}"
    shell:
        RUN_NOTEBOOK


# Runs on Kubernetes: yours where there are any, else the recorded ones.
NODE_RUNS = next(
    (path for path in (f"{RESULTS}/live/kubernetes/e2e", "data/recorded-kubernetes") if Path(path).is_dir()), None
)


rule kubernetes:
    "Draw what policies did on a Kubernetes node, and what the loss of a worker cost."
    input:
        notebook=local("notebooks/81_kubernetes.ipynb"),
        modules=local(modules_of("81_kubernetes")),
        tables=local(sorted(str(path) for path in Path(NODE_RUNS).iterdir())) if NODE_RUNS else [],
    output:
        captions=f"{RESULTS}/figures/captions-kubernetes.json",
        figures=figures_named("fig81_kubernetes"),
        notebook=f"{NOTEBOOKS}/81_kubernetes.ipynb",
    log:
        f"{LOGS}/81_kubernetes.log",
    benchmark:
        f"{LOGS}/81_kubernetes.bench"
    conda:
        ENVIRONMENT
    params:
        notebook=parameters(results=RESULTS, tables=NODE_RUNS),
    message:
        "kubernetes: 81_kubernetes"
    shell:
        RUN_NOTEBOOK

"""Stage 80: send requests to replicas on Ray Serve, or show a recorded run.

Stage 81: recorded runs on Kubernetes.
"""

RECORDED = ours("data/recorded-live")

if CONFIG.backend == "recorded":
    THREADS = 1
elif workflow.resource_settings.nodes is not None:
    THREADS = CONFIG.live.capacity  # on a cluster, one core per replica
else:
    # On this machine all cores, because other jobs would disturb the timing.
    THREADS = workflow.resource_settings.cores or 1


rule live:
    "Serve a slice of the evaluation day on Ray Serve under each policy, and simulate the slice."
    input:
        requests=rules.traces.output.requests,
        jobs=rules.traces.output.jobs,
        curves=CURVES,
        recorded=(
            committed(*sorted(Path(RECORDED).glob("*"))) if CONFIG.backend == "recorded" else []
        ),
    output:
        tables=tables_in(
            f"live/{CONFIG.backend}", "summary.csv", "minutes.parquet", "decisions.parquet"
        ),
        notebook=f"{NOTEBOOKS}/80_live.ipynb",
    log:
        f"{LOGS}/80_live.log",
    benchmark:
        f"{LOGS}/80_live.bench"
    conda:
        ENVIRONMENT
    threads: THREADS
    params:
        source="notebooks/80_live.ipynb",
        code=code_of("80_live"),
        notebook=parameters(
            results=RESULTS,
            backend=CONFIG.backend,
            **SETTINGS["live"],
            **({"recorded": RECORDED} if CONFIG.backend == "recorded" else {}),
        ),
    message:
        "live: 80_live on {CONFIG.backend}"
    shell:
        RUN_NOTEBOOK


DRAWINGS["live"] = {
    "tables": rules.live.output.tables,
    "figures": ["live"],
    # The recorded run is of the published traces, whatever the workload.
    "options": {
        "backend": CONFIG.backend,
        "published": PUBLISHED_TABLES if CONFIG.backend == "recorded" else COMPARED_WITH,
    },
}

# Recorded runs on Kubernetes. A checkout without them has no stage 81.
NODE_RUNS = (
    ours("data/recorded-kubernetes") if Path(ROOT, "data/recorded-kubernetes").is_dir() else None
)
NODE_TABLES = committed(*sorted(Path(NODE_RUNS).iterdir())) if NODE_RUNS else []


rule kubernetes:
    "Show runs on Kubernetes, and the effect of a lost worker."
    input:
        tables=NODE_TABLES,
    output:
        notebook=f"{NOTEBOOKS}/81_kubernetes.ipynb",
    log:
        f"{LOGS}/81_kubernetes.log",
    benchmark:
        f"{LOGS}/81_kubernetes.bench"
    conda:
        ENVIRONMENT
    params:
        source="notebooks/81_kubernetes.ipynb",
        code=code_of("81_kubernetes", figures=True),
        notebook=parameters(results=RESULTS, tables=NODE_RUNS),
    message:
        "kubernetes: 81_kubernetes"
    shell:
        RUN_NOTEBOOK


if NODE_RUNS:
    DRAWINGS["kubernetes"] = {
        "tables": NODE_TABLES,
        "figures": ["kubernetes"],
        "options": {"tables": NODE_RUNS},
    }

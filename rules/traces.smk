"""Stage 10: the workload, tidy."""


def files_of_the_workload():
    """What the traces are made of; a synthetic workload is made of its seed."""
    files = [CONFIG.jobs] if CONFIG.jobs else []
    if CONFIG.workload == PUBLISHED:
        return [*files, f"{CONFIG.raw}/{PUBLISHED}.sha256"]
    return [*files, *([CONFIG.workload] if CONFIG.workload.endswith(".csv") else [])]


rule fetch:
    "Fetch the published traces into data/raw/ or take those that lie there; either way their SHA-256 must be right."
    input:
        sources="data/sources.yaml",
    output:
        checksums=f"{CONFIG.raw}/{PUBLISHED}.sha256",
    message:
        "fetch: the published traces"
    run:
        pipeline.fetch(PUBLISHED, CONFIG.raw, input.sources)
        Path(output.checksums).write_text(pipeline.checksums(PUBLISHED, CONFIG.raw, input.sources))


rule traces:
    "Read or generate the workload, look at it, and write it tidy."
    input:
        notebook="notebooks/10_traces.ipynb",
        modules=modules_of("10_traces"),
        files=files_of_the_workload(),
    output:
        requests=f"{RESULTS}/traces/requests.parquet",
        jobs=f"{RESULTS}/traces/jobs.csv",
        notebook=f"{NOTEBOOKS}/10_traces.ipynb",
    log:
        f"{LOGS}/10_traces.log",
    benchmark:
        f"{LOGS}/10_traces.bench"
    params:
        notebook=parameters(
            results=RESULTS,
            workload=CONFIG.workload,
            jobs=CONFIG.jobs,
            raw=CONFIG.raw,
            synthetic=CONFIG.synthetic.model_dump(),
            sizes=CONFIG.sizes,
        ),
    message:
        "traces: 10_traces"
    shell:
        RUN_NOTEBOOK

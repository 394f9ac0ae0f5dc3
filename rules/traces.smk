"""Stage 10: the workload, tidy."""


rule fetch:
    "Fetch the published traces into data/raw/ or take those that lie there; either way their SHA-256 must be right."
    input:
        sources=local("data/sources.yaml"),
    output:
        checksums=f"{CONFIG.raw}/{PUBLISHED}.sha256",
    log:
        f"{LOGS}/fetch.log",
    message:
        "fetch: the published traces"
    run:
        pipeline.fetch_and_record(PUBLISHED, CONFIG.raw, input.sources, output.checksums)


rule traces:
    "Read or generate the workload, look at it, and write it tidy."
    input:
        notebook=local("notebooks/10_traces.ipynb"),
        modules=local(modules_of("10_traces")),
        files=files_of_the_workload(),
    output:
        requests=f"{RESULTS}/traces/requests.parquet",
        jobs=f"{RESULTS}/traces/jobs.csv",
        captions=f"{RESULTS}/figures/captions-traces.json",
        figures=figures_named("fig04_workload", "fig04_load"),
        notebook=f"{NOTEBOOKS}/10_traces.ipynb",
    log:
        f"{LOGS}/10_traces.log",
    benchmark:
        f"{LOGS}/10_traces.bench"
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
        ),
    message:
        "traces: 10_traces"
    shell:
        RUN_NOTEBOOK

"""Stage 10: write the workload as tidy tables."""


rule fetch:
    "Download the published traces into data/raw/ unless they exist, and check their SHA-256."
    input:
        sources=local(ours("data/sources.yaml")),
    output:
        checksums=local(f"{CONFIG.raw}/{derived.PUBLISHED}.sha256"),
    log:
        f"{LOGS}/fetch.log",
    conda:
        ENVIRONMENT
    message:
        "fetch: the published traces"
    shell:
        f"{COMMAND} fetch {derived.PUBLISHED} {{output.checksums:q}} > {{log:q}} 2>&1"


rule traces:
    "Read or generate the workload, plot it, and write it as tidy tables."
    input:
        files=files_of(CONFIG.workload, CONFIG.jobs),
    output:
        requests=f"{RESULTS}/traces/requests.parquet",
        jobs=f"{RESULTS}/traces/jobs.csv",
        notebook=f"{NOTEBOOKS}/10_traces.ipynb",
    log:
        f"{LOGS}/10_traces.log",
    benchmark:
        f"{LOGS}/10_traces.bench"
    priority: 4  # nearly every stage waits for it
    conda:
        ENVIRONMENT
    params:
        source="notebooks/10_traces.ipynb",
        code=code_of("10_traces"),
        notebook=parameters(
            results=RESULTS,
            workload=CONFIG.workload,
            jobs=CONFIG.jobs,
            raw=CONFIG.raw,
            synthetic=GENERATED,
            capacities=[],  # they change no table; draw_traces draws them
        ),
    message:
        "traces: 10_traces"
    shell:
        RUN_NOTEBOOK


DRAWINGS["traces"] = {
    "tables": [rules.traces.output.requests, rules.traces.output.jobs],
    "figures": ["requests_by_job", "offered_load"],
    "options": {"capacities": CONFIG.capacities},
}
